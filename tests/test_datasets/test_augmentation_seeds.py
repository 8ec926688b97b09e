import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from ride_mm.datasets import augmentation_seeds as draws
from ride_mm.datasets.augmentation_seeds import Draw, SeededDataset, seed_draws


class Noise(torch.utils.data.Dataset):
    """The index and a number from each random generator."""

    metainfo = dict(classes=('noise',))

    def __init__(self, length=10):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return [index, random.random(), np.random.rand(), torch.rand(1).item()]


def loader(workers=0, persistent=False, batch_size=4, shuffle=False):
    return Runner.build_dataloader(
        dict(
            dataset=Noise(),
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=persistent,
            collate_fn=dict(type='default_collate'),
        ),
        seed=0,
    )


def epoch(dataloader, number, seed=7):
    sampler = seed_draws(dataloader, seed)
    sampler.epoch = number
    sampler.batch_sampler.sampler.set_epoch(number)
    columns = [torch.stack(batch, 1) for batch in dataloader]
    return torch.cat(columns)


def test_epochs_differ_and_repeat_themselves():
    dataloader = loader()
    first, second = epoch(dataloader, 0), epoch(dataloader, 1)
    assert not (first[:, 1:] == second[:, 1:]).any()
    assert torch.equal(epoch(loader(), 1), second)
    assert not (epoch(loader(), 1, seed=8)[:, 1:] == second[:, 1:]).any()
    # Each draw has its own noise.
    assert len(first[:, 2].unique()) == 10


@pytest.mark.parametrize('workers, persistent', [(1, False), (2, False), (2, True)])
def test_workers_change_nothing(workers, persistent):
    plain, parallel = loader(), loader(workers, persistent)
    for number in (0, 1):
        assert torch.equal(epoch(parallel, number), epoch(plain, number))


def test_ranks_change_nothing(monkeypatch):
    whole = epoch(loader(), 3)
    for rank in (0, 1):
        for module in (draws, __import__('mmengine.dataset.sampler', fromlist=['sampler'])):
            monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, 2))
        assert torch.equal(epoch(loader(batch_size=2), 3), whole[rank::2])


def test_the_same_image_twice_is_augmented_twice():
    dataset = SeededDataset(Noise())
    one, other = dataset[Draw(3, seed=1)], dataset[Draw(3, seed=2)]
    assert one[0] == other[0] == 3
    assert one[1:] != other[1:]
    assert dataset[Draw(3, seed=1)] == one


def test_a_draw_can_be_pickled():
    draw = pickle.loads(pickle.dumps(Draw(5, seed=123)))
    assert draw == 5 and draw.seed == 123


def test_attributes_are_forwarded():
    dataloader = loader()
    seed_draws(dataloader, 0)
    assert dataloader.dataset.metainfo == dict(classes=('noise',))
    assert len(dataloader.dataset) == 10 and len(dataloader) == 3
    assert seed_draws(dataloader, 0) is dataloader.batch_sampler
    assert not isinstance(dataloader.dataset.dataset, SeededDataset)
    assert pickle.loads(pickle.dumps(dataloader.dataset)).length == 10
    dataloader.dataset.pipeline = 'another'  # as SwitchRecipeHook does
    assert dataloader.dataset.dataset.pipeline == dataloader.dataset.pipeline == 'another'
    with pytest.raises(AttributeError, match='nothing'):
        dataloader.dataset.nothing
