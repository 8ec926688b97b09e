"""One picture for each image, also where file names repeat."""

import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmpretrain import ImageClassificationInferencer
from mmpretrain.engine import VisualizationHook
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

from ride_mm.compat import picture_names

# Of two classes: file names repeat.
PATHS = [f'data/{name}/{i}.jpg' for name in 'ab' for i in range(5)]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """A function that tests 10 images, 3 at a time, and lists pictures."""
    visualizer = UniversalVisualizer()
    monkeypatch.setattr(VisualizationHook, '__init__', lambda self: None)

    def draw(interval=1, processes=1, has_paths=True, folder='shown'):
        hook = VisualizationHook()
        hook.__dict__.update(
            enable=True,
            interval=interval,
            out_dir=str(tmp_path / folder),
            draw_args={},
            _visualizer=visualizer,
        )
        runner = SimpleNamespace(
            test_loop=SimpleNamespace(dataloader=SimpleNamespace(batch_size=3, dataset=PATHS))
        )
        for rank in range(processes):
            monkeypatch.setattr(picture_names, 'get_dist_info', lambda: (rank, processes))
            share = list(range(rank, 10, processes))
            share += list(range(-(-10 // processes) - len(share)))
            for batch in range(0, len(share), 3):
                numbers = share[batch : batch + 3]
                samples = [DataSample().set_pred_label(0) for _ in numbers]
                for sample, number in zip(samples, numbers):
                    if has_paths:
                        sample.set_metainfo(dict(img_path=PATHS[number]))
                images = torch.zeros(len(numbers), 3, 8, 8)
                hook.after_test_iter(runner, batch // 3, dict(inputs=images), samples)
        return set(os.listdir(tmp_path / folder))

    return draw


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_every_image_has_a_picture(draw, processes):
    assert draw(processes=processes) == {f'{i}_{i % 5}.jpg_0.png' for i in range(10)}


@pytest.mark.parametrize('processes', [1, 2])
def test_every_fourth_image(draw, processes):
    found = draw(interval=4, processes=processes, has_paths=False)
    assert found == {'0_0.png', '4_0.png', '8_0.png'}


def test_all_processes_draw(draw, monkeypatch):
    monkeypatch.setattr('mmengine.dist.utils.is_main_process', lambda *_: 0)
    assert len(draw(processes=2)) == 10


def test_pictures_of_the_inferencer(tmp_path):
    files = [tmp_path / name / '0.png' for name in 'ab']
    for file in files:
        file.parent.mkdir()
        cv2.imwrite(str(file), np.zeros((8, 8, 3), np.uint8))
    inferencer = ImageClassificationInferencer(
        str(ROOT / 'configs/ride_r32_digits_lt.py'), pretrained=False
    )
    inferencer([str(file) for file in files], show_dir=tmp_path / 'shown')
    inferencer(str(files[0]), show_dir=tmp_path / 'shown')
    assert sorted(os.listdir(tmp_path / 'shown')) == ['0.png', '0_2.png', '0_3.png']
