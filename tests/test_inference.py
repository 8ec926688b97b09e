"""What a user does with a trained model: MMPretrain's own interfaces."""

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.runner import save_checkpoint
from mmpretrain import FeatureExtractor, ImageClassificationInferencer, get_model
from mmpretrain.registry import MODELS, TRANSFORMS

from ride_mm.compat import inferencers as images
from ride_mm.utils.errors import UserError


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config and a checkpoint of it, with a router that has been trained."""
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / 'configs/ride_r32_cifar100_lt.py')
    model = MODELS.build(cfg.model)
    model.head.router.num_updates += 1
    path = tmp_path_factory.mktemp('ckpt') / 'epoch_205.pth'
    classes = tuple(f'class {i}' for i in range(100))
    save_checkpoint(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))),
        str(path),
    )
    return str(ROOT / 'configs/ride_r32_cifar100_lt.py'), str(path)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)


def test_get_model(trained, rgb):
    config, checkpoint = trained
    model = get_model(config, pretrained=checkpoint)
    assert model.head.router.trained
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_inferencer_on_a_file_is_the_test_pipeline(trained, rgb, tmp_path):
    config, checkpoint = trained
    file = str(tmp_path / 'image.png')
    cv2.imwrite(file, rgb[..., ::-1])
    inferencer = ImageClassificationInferencer(config, checkpoint)
    calls = []
    inferencer.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    sample = inferencer(file, return_datasamples=True)[0]
    assert len(calls) == 1
    assert 1 <= sample.num_experts_used <= 3
    assert not sample.pred_score.requires_grad
    result = inferencer(file)[0]
    assert result['pred_class'] == f'class {result["pred_label"]}'
    assert result['num_experts_used'] == sample.num_experts_used and 'pred_set' not in result
    head = inferencer.model.head
    head.set_prediction_sets([0.0] * 3 + [2.0] * 97, inferencer.model.set_settings)
    names = {f'class {label}' for label in (0, 1, 2, result['pred_label'])}
    assert set(inferencer(file)[0]['pred_set']) == names

    # As in a test run: the dataset gives BGR, as its config says.
    cfg = Config.fromfile(config)
    assert cfg.test_dataloader.dataset.to_bgr
    pipeline = Compose([TRANSFORMS.build(t) for t in cfg.test_dataloader.dataset.pipeline])
    data = pipeline(dict(img=np.ascontiguousarray(rgb[..., ::-1])))
    model = get_model(config, pretrained=checkpoint).eval()
    with torch.no_grad():
        expected = model.val_step(default_collate([data]))[0]
    np.testing.assert_allclose(result['pred_scores'], expected.pred_score.numpy(), rtol=1e-5)
    # And by hand, from RGB: normalized as the official code does.
    mean = np.array([0.4914, 0.4822, 0.4465])
    std = np.array([0.2023, 0.1994, 0.2010])
    image = ((rgb / 255 - mean) / std).transpose(2, 0, 1)[None]
    with torch.no_grad():
        by_hand = model.predict(torch.from_numpy(image).float())[0]
    np.testing.assert_allclose(result['pred_scores'], by_hand.pred_score.numpy(), rtol=1e-3)


def test_inferencer_goes_on_after_an_unreadable_image(trained, rgb, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(images, 'print_log', lambda text, *_: said.append(text))
    good = [str(tmp_path / f'good {i}.png') for i in range(3)]
    for i, path in enumerate(good):
        cv2.imwrite(path, np.roll(rgb, i, axis=0))
    empty, text, missing = (str(tmp_path / name) for name in ('empty.jpg', 'text.png', 'no.jpg'))
    open(empty, 'w').close()
    with open(text, 'w') as file:
        file.write('no image')
    inferencer = ImageClassificationInferencer(*trained)
    alone = [inferencer(path)[0] for path in good]
    files = [empty, good[0], text, good[1], missing, good[2]]
    shown = tmp_path / 'shown'
    for size in (1, 2, 6):
        results = inferencer(files, batch_size=size, show_dir=str(shown))
        assert [result is None for result in results] == [True, False, True, False, True, False]
        for result, single in zip(results[1::2], alone):
            np.testing.assert_allclose(result['pred_scores'], single['pred_scores'], rtol=1e-4)
    assert len(list(shown.iterdir())) == 9
    assert said == 3 * [
        f'{empty} is empty: it has 0 bytes. Its result is None.',
        f'{text} cannot be decoded as an image. Its result is None.',
        f'{missing} cannot be read: No such file or directory. Its result is None.',
    ]
    assert inferencer([]) == []
    with pytest.raises(UserError, match='0 bytes, nor can 1 more images'):
        inferencer([empty, text])
    with pytest.raises(UserError, match='no.jpg cannot be read: No such'):
        inferencer(missing)


def test_features_go_on_after_an_unreadable_image(trained, rgb, tmp_path):
    good = [str(tmp_path / f'good {i}.png') for i in range(3)]
    for i, path in enumerate(good):
        cv2.imwrite(path, np.roll(rgb, i, axis=0))
    empty = str(tmp_path / 'empty.jpg')
    open(empty, 'w').close()
    extractor = FeatureExtractor(*trained)
    alone = [extractor(path)[0] for path in good]
    for size in (1, 2, 4):
        found = extractor([good[0], empty, *good[1:]], batch_size=size)
        assert found.pop(1) is None
        for features, single in zip(found, alone):
            for one, other in zip(features, single):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match='0 bytes, nor can 1 more images'):
        extractor([empty, empty])


def test_inferencer_with_other_class_names(trained):
    model = get_model(*trained)
    names = [f'name {i}' for i in range(100)]
    assert ImageClassificationInferencer(model, classes=names).classes == names
    for wrong, found in (
        (names[:99], '99 names'),
        ([*names, 'x'], '101 names'),
        ('x' * 100, "the text 'xxx"),
    ):
        with pytest.raises(UserError, match=f'classes has {found}.* has 100 classes'):
            ImageClassificationInferencer(model, classes=wrong)
    model._dataset_meta = dict(classes=names[:10])
    with pytest.raises(UserError, match='classes has 10 names'):
        ImageClassificationInferencer(model)


def test_a_checkpoint_of_another_model(trained):
    _, checkpoint = trained
    with pytest.raises(UserError, match='another architecture'):
        get_model(str(ROOT / 'configs/ride_r32_cifar10_lt.py'), pretrained=checkpoint)
