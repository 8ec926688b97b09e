import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from ride_mm.datasets.augmentation_seeds import seed_draws, seed_everything
from ride_mm.datasets.transforms import collate_batch
from ride_mm.datasets.transforms.crop_flip_rotate import View, crop_flip_rotate
from ride_mm.structures import BatchDataSample, gather_labels
from ride_mm.utils.errors import UserError, user_message


def one_by_one(size, padding, degrees):
    """The official augmentation by mmpretrain and torchvision."""
    return [
        dict(type='NumpyToPIL', to_rgb=True),
        dict(type='torchvision/RandomCrop', size=size, padding=padding),
        dict(type='torchvision/RandomHorizontalFlip'),
        dict(type='torchvision/RandomRotation', degrees=degrees),
        dict(type='PILToNumpy', to_bgr=True),
        dict(type='PackInputs'),
    ]


def drawn(size, padding, degrees):
    return [dict(type='DrawCropFlipRotate', size=size, padding=padding, degrees=degrees)]


def results(pipeline, images):
    pipeline = Compose(pipeline)
    out = []
    for seed, image in enumerate(images):
        seed_everything(seed)
        out.append(pipeline(dict(img=image.copy(), gt_label=seed % 5)))
    return out


@pytest.mark.parametrize('bgr', [True, False])
def test_auto_augment_is_torchvisions(bgr):
    images = np.random.default_rng(0).integers(256, size=(600, 32, 32, 3), dtype=np.uint8)
    # few values, a narrow range, one value alone
    images[200:300] &= 0xC0
    images[300:400] = images[300:400] // 8 + 100
    images[400:450] = images[400:450, :1, :1]
    order = slice(None, None, -1 if bgr else 1)
    found = results([dict(type='CIFARAutoAugment', bgr=bgr)], images[..., order])
    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    for seed, (image, result) in enumerate(zip(images, found)):
        seed_everything(seed)
        expected = np.asarray(policy(Image.fromarray(image)))
        np.testing.assert_array_equal(result['img'][..., order], expected)


@pytest.mark.parametrize(
    'shape,size,padding,degrees',
    [
        ((32, 32), 32, 4, 15),
        ((32, 32), 32, 4, 180),
        ((17, 23), 16, 2, 40),
        ((8, 8), 11, 2, 7.5),
        ((32, 32), 32, 0, 0),
        ((30, 32), 34, 2, 15),
        ((28, 28), 32, 2, 15),
    ],
)
def test_images_are_those_of_torchvision(shape, size, padding, degrees):
    images = np.random.default_rng(0).integers(256, size=(300, *shape, 3), dtype=np.uint8)
    expected = default_collate(results(one_by_one(size, padding, degrees), images))
    batch = collate_batch(results(drawn(size, padding, degrees), images))
    assert torch.equal(batch['inputs'], expected['inputs'])
    assert torch.equal(
        gather_labels(batch['data_samples']), gather_labels(expected['data_samples'])
    )


def test_a_view_by_hand():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)

    def view(*args):
        return crop_flip_rotate(image, [View(*args)])[0, ..., 0].tolist()

    assert view(3, 0, 0, False, 0.0) == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert view(3, 1, -1, False, 0.0) == [[0, 4, 5], [0, 7, 8], [0, 0, 0]]
    assert view(2, 0, 0, True, 0.0) == [[2, 1], [5, 4]]
    # Counter-clockwise: the right column becomes the top row.
    assert view(3, 0, 0, False, 90.0) == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]


def test_a_crop_larger_than_the_image():
    pipeline = Compose(drawn(32, 4, 15))
    with pytest.raises(UserError, match='size=32 .* 20 x 32 pixels'):
        pipeline(dict(img=np.zeros((20, 32, 3), np.uint8)))
    assert 'size=32, padding=4, degrees=15' in repr(pipeline)


def test_config_trains_on_the_images_of_the_plain_pipeline(root):
    """With the data loader, workers and seeds of training."""
    cfg = Config.fromfile(root / 'configs/ride_r32_cifar100_lt.py')
    cfg = cfg.train_dataloader
    enlarge = dict(type='Resize', scale=(32, 32))
    batches = []
    for pipeline, collate_fn in (
        (cfg.dataset.pipeline, cfg.collate_fn),
        (one_by_one(32, 4, 15), dict(type='default_collate')),
    ):
        loader = Runner.build_dataloader(
            dict(
                dataset=dict(type='DigitsLT', pipeline=[enlarge, *pipeline]),
                sampler=cfg.sampler,
                collate_fn=collate_fn,
                batch_size=16,
                num_workers=2,
            ),
            seed=0,
        )
        seed_draws(loader, 5).epoch = 3
        batches.append(list(loader))
    assert len(batches[0]) == len(batches[1]) > 10
    for batch, expected in zip(*batches):
        assert torch.equal(batch['inputs'], expected['inputs'])
        assert torch.equal(
            gather_labels(batch['data_samples']), gather_labels(expected['data_samples'])
        )


def test_without_views_images_stay_as_they_are():
    dataset = DATASETS.build(dict(type='DigitsLT', split='test', pipeline=[]))
    samples = [dataset[i] for i in range(5)]
    batch = collate_batch(samples)
    assert batch['inputs'].shape == (5, 3, 8, 8)
    assert batch['inputs'].is_contiguous()
    for i, sample in enumerate(samples):
        assert np.array_equal(batch['inputs'][i].permute(1, 2, 0), sample['img'])
        assert batch['data_samples'][i].gt_label.tolist() == [sample['gt_label']]


def test_packed_images_and_images_of_different_shape():
    packed = dict(inputs=torch.zeros(3, 4, 4), data_samples=DataSample())
    with pytest.raises(UserError, match='remove PackInputs'):
        collate_batch([packed])
    samples = [dict(img=np.zeros((n, 4, 3), np.uint8), gt_label=0) for n in (4, 5)]
    with pytest.raises(UserError, match=r'differ in shape.*\(5, 4, 3\)'):
        collate_batch(samples)


def test_batch_data_sample_is_a_sequence_of_data_samples():
    labels = torch.tensor([3, 1, 2])
    batch = pickle.loads(pickle.dumps(BatchDataSample(labels)))
    assert len(batch) == 3
    assert all(isinstance(sample, DataSample) for sample in batch)
    assert [sample.gt_label.item() for sample in batch] == [3, 1, 2]
    assert torch.equal(gather_labels(batch), gather_labels(list(batch)))
    assert torch.equal(batch.to('cpu').gt_label, labels)


def test_a_view_that_is_not_computed_is_an_error():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    packed = results([*drawn(32, 4, 15), dict(type='PackInputs')], images)
    assert all('inputs' not in sample for sample in packed)
    with pytest.raises(UserError, match='remove PackInputs'):
        collate_batch(packed)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('dataset', ['LongTailList', 'CustomDataset'])
def test_an_unreadable_image_is_named(tmp_path, dataset, workers):
    for name, content in (('a', b''), ('b', b'no image')):
        (tmp_path / name).mkdir()
        (tmp_path / name / '0.jpg').write_bytes(content)
    loader = Runner.build_dataloader(
        dict(
            dataset=dict(
                type=dataset, data_root=str(tmp_path), pipeline=[dict(type='LoadImageFromFile')]
            ),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            num_workers=workers,
        )
    )
    for name, reason in (
        ('a', 'is empty: it has 0 bytes. Replace or remove'),
        ('b', 'cannot be decoded as an image. Replace'),
    ):
        loader.dataset.data_address, loader.dataset.serialize_data = [], False
        loader.dataset.data_list = [dict(img_path=str(tmp_path / name / '0.jpg'), gt_label=0)]
        with pytest.raises(UserError) as info:
            next(iter(loader))
        line = user_message(info.value)
        assert line.startswith(f'{tmp_path / name / "0.jpg"} {reason}')
        assert '\n' not in line
