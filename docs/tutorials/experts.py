"""
Look inside a routed model
==========================

Train three experts and a router on long-tailed digits, in Python, and look at what each
expert adds and at which images the router sends on.
"""

import tempfile

import matplotlib.pyplot as plt
import torch
from mmengine.runner import Runner

from ride_mm.engine.config import load_config
from ride_mm.evaluation import long_tail_accuracy
from ride_mm.models.routing import experts_used

# %%
# Train
# -----
# The config of the quickstart: 40 epochs of the experts, then 5 of the router.

cfg = load_config('ride_mm::ride_r32_digits_lt')
cfg.work_dir = tempfile.mkdtemp()
cfg.log_level = 'ERROR'
runner = Runner.from_cfg(cfg)
model = runner.train()

# %%
# Keep what experts and routers say
# ---------------------------------
# ``logits`` are those of every expert for every test image, (E, N, K); ``doubts`` those
# of the routers, (E - 1, N).

model.eval()
feats, labels = [], []
with torch.no_grad():
    for batch in runner.val_dataloader:
        batch = model.data_preprocessor(batch)
        feats.append(torch.stack(model.extract_feat(batch['inputs'])))
        labels += [sample.gt_label for sample in batch['data_samples']]
    feats, labels = torch.cat(feats, dim=1), torch.cat(labels)
    logits = model.head.expert_logits(feats)
    doubts = model.head.router.all_logits(feats, logits)
print(logits.shape, doubts.shape)

# %%
# What each expert adds
# ---------------------
# The model answers with the mean of the logits of the experts that ran: ``answers`` has
# the class that the first 1, 2 and 3 experts predict, (E, N).

counts = runner.val_dataloader.dataset.metainfo['class_counts']
answers = logits.cumsum(0).argmax(-1)


def accuracy(predicted):
    return long_tail_accuracy((predicted == labels).numpy(), labels.numpy(), counts)


for number, predicted in enumerate(answers, start=1):
    figures = accuracy(predicted)
    groups = [f'{name} {figures[name]:.1f}' for name in ('overall', 'many', 'medium', 'few')]
    print(f'{number}: {", ".join(groups)}')

# %%
# Route with other thresholds
# ---------------------------
# An image goes on if the probability of its router exceeds the threshold. Without
# running anything again, every threshold gives the experts that each image uses.

points = []
for threshold in torch.linspace(0, 1, 51).tolist():
    used = experts_used(doubts, threshold)
    figures = accuracy(answers.gather(0, used[None] - 1)[0])
    points.append((used.float().mean().item(), figures['overall'], figures['few']))
experts, overall, few = zip(*points)

figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
axes.plot(experts, overall, '.-', label='overall')
axes.plot(experts, few, '.-', label='few-shot classes')
axes.set(xlabel='experts per image', ylabel='accuracy (%)')
axes.legend()

# %%
# ``tools/analysis/tradeoff.py`` does this for the predictions of any test, counts
# multiply-adds instead of experts, and chooses a threshold.
#
# Which images are sent on
# ------------------------
# The twelve images that router 1 doubts most.

dataset = runner.val_dataloader.dataset
figure, axes = plt.subplots(2, 6, figsize=(8, 3.4), layout='constrained')
for cell, index in zip(axes.flat, doubts[0].argsort(descending=True).tolist()):
    first, last = answers[0, index], answers[-1, index]
    cell.imshow(dataset.get_data_info(index)['img'], cmap='gray')
    cell.set_title(f'{labels[index]}: {first}, then {last}', fontsize=10)
    cell.axis('off')

# %%
# Above each image are its label, what the first expert answers, and what all three do.
