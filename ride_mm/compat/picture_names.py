"""One picture per image, even if file names repeat.

mmpretrain 1.2.0 and onedl-mmpretrain 1.3.6 name a picture by the file name
alone, so that images of the same name in other class folders overwrite it.
Their ``VisualizationHook`` also numbers the images of a smaller last batch
wrongly and draws only those of the first process. No upstream issue is known.
Delete this file once MMPretrain writes one picture per image, from all
processes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmengine.dist import get_dist_info
from mmengine.dist import utils as dist_utils
from mmengine.fileio import join_path
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.engine import VisualizationHook
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer


def _draw(
    hook: VisualizationHook,
    loader: Any,
    batch_idx: int,
    data_batch: dict,
    samples: Sequence[DataSample],
    step: int,
) -> None:
    """Draw every ``interval``-th image of a dataloader that does not shuffle.

    The name of a picture is the image's index in the dataset and its file
    name.
    """
    if not hook.enable:
        return
    rank, processes = get_dist_info()
    before = batch_idx * (loader.batch_size or len(samples))
    for i, sample in enumerate(samples):
        # Ranks take turns; the first images repeat to fill up the last turn.
        number = (before + i) * processes + rank
        if number % hook.interval or number >= len(loader.dataset):
            continue
        name = str(number)
        if 'img_path' in sample:
            name += f'_{Path(sample.img_path).name}'
        options = dict(hook.draw_args)
        drawing: AbstractContextManager = nullcontext()
        if hook.out_dir is not None:
            options['out_file'] = join_path(hook.out_dir, f'{name}_{step}.png')
            # Visualizers draw only in the main process.
            drawing = patch.object(dist_utils, 'is_main_process', lambda group=None: True)
        image = data_batch['inputs'][i].permute(1, 2, 0).cpu().numpy()
        with drawing:
            hook._visualizer.visualize_cls(
                image=image.astype('uint8'), data_sample=sample, step=step, name=name, **options
            )


def _after_val_iter(
    self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DataSample]
) -> None:
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    _draw(
        self,
        runner.val_loop.dataloader,
        batch_idx,
        data_batch,
        outputs,
        runner.epoch if by_epoch else runner.iter,
    )


def _after_test_iter(
    self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DataSample]
) -> None:
    _draw(self, runner.test_loop.dataloader, batch_idx, data_batch, outputs, 0)


def _unused(visualizer: UniversalVisualizer, file: str) -> str:
    """A file that the visualizer has not written yet: the second ``a.png``
    becomes ``a_2.png``."""
    drawn = visualizer.__dict__.setdefault('_drawn_files', set())
    path, number = Path(file), 1
    while str(path) in drawn:
        number += 1
        path = Path(file).with_name(f'{Path(file).stem}_{number}{Path(file).suffix}')
    drawn.add(str(path))
    return str(path)


@lru_cache
def install_picture_names() -> None:
    """Repair ``VisualizationHook``, the inferencer and MMPretrain's tools."""
    draw = UniversalVisualizer.visualize_cls

    @wraps(draw)
    def visualize_cls(self, *args, out_file=None, **options):
        if out_file is not None:
            out_file = _unused(self, out_file)
        return draw(self, *args, out_file=out_file, **options)

    UniversalVisualizer.visualize_cls = visualize_cls
    VisualizationHook.after_val_iter = _after_val_iter
    VisualizationHook.after_test_iter = _after_test_iter
