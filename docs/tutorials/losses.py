"""
What a long tail does to the losses
===================================

The digits of scikit-learn, made long-tailed, and the three quantities by which RIDE's
losses treat classes differently: margins, weights and temperatures.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from mmpretrain.registry import DATASETS, MODELS

import ride_mm  # noqa: F401  Registers every part.
from ride_mm.models.losses.class_weights import effective_number_weights
from ride_mm.models.losses.diversity_loss import class_temperature
from ride_mm.models.losses.ldam_loss import ldam_margins

# %%
# The dataset
# -----------
# A dataset of this plugin states how many training images each class has. An empty
# pipeline leaves the images as they are, 8 x 8 pixels.

dataset = DATASETS.build(dict(type='DigitsLT', split='train', pipeline=[]))
counts = dataset.metainfo['class_counts']
print(counts)

labels = np.array([dataset.get_data_info(index)['gt_label'] for index in range(len(dataset))])
figure, axes = plt.subplots(2, 6, figsize=(8, 3))
for row, digit in zip(axes, (0, 9)):
    for cell, index in zip(row, np.flatnonzero(labels == digit)):
        cell.imshow(dataset[index]['img'], cmap='gray')
        cell.axis('off')
    row[0].set_title(f'digit {digit}, {counts[digit]} training images', loc='left')

# %%
# The nines above are all that a network sees of this class.
#
# Margins, weights, temperatures
# ------------------------------
# LDAM lowers the logit of the label by a margin, times the scale of the cosine
# classifiers, 30. Deferred re-weighting multiplies the losses of images by the weight of
# their class, in the last epochs. The diversity loss divides logits by a temperature.

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout='constrained')
for cell, title, values in (
    (axes[0], 'LDAM: margin of the logit', 30 * ldam_margins(counts)),
    (axes[1], 'DRW: weight', effective_number_weights(counts)),
    (axes[2], 'diversity: temperature', class_temperature(counts)),
):
    cell.plot(counts, values, 'o-')
    cell.set(title=title, xlabel='training images of the class', xscale='log')

# %%
# What a margin does
# ------------------
# The same logits and the same lead of the label, 6, give a nine a larger loss than a
# zero: the network has to separate small classes by more.

loss = MODELS.build(dict(type='LDAMLoss', scale=30, class_counts=counts))
for digit in (0, 9):
    logits = torch.zeros(1, 10)
    logits[0, digit] = 6
    print(f'digit {digit}: {loss(logits, torch.tensor([digit])):.3f}')
