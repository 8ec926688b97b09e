"""The config of a converted checkpoint."""
import os
from pathlib import Path
from typing import Any, List

from mmengine.config import Config
from official_resnet import ResNet

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Data by the number of classes; the first is the recipe's own.
_CIFAR = dict(
    model='models/ride_r32.py',
    data={
        100: 'datasets/cifar100_lt.py',
        10: 'datasets/cifar10_lt.py'
    },
    schedule='schedules/cifar_lt.py')
_IMAGENET = dict(
    model='models/ride_r50.py',
    data={1000: 'datasets/imagenet_lt.py'},
    schedule='schedules/imagenet_lt.py')

# Without a router there is no second stage.
_EXPERTS_ALONE = """
# The checkpoint has no router: the first stage alone.
train_cfg = dict(max_epochs=_base_.custom_hooks[-1].begin)
custom_hooks = _base_.custom_hooks[:-1]
"""


def config_text(network: ResNet, checkpoint: str, config: str,
                title: str) -> str:
    """Write the config of a converted checkpoint.

    Losses, data and schedule are those of the recipe for such a network.

    Args:
        network (ResNet): What the checkpoint has.
        checkpoint (str): Path of the checkpoint, as it is to be loaded.
        config (str): Path of the config: what it inherits from is named
            relative to its folder.
        title (str): What it is, a line.

    Returns:
        str: The config.
    """
    recipe = _CIFAR if network.is_cifar else _IMAGENET
    model = _as_code(_with_losses(network, recipe['model']))
    folder = os.path.dirname(os.path.abspath(config))
    bases = ''.join(f'    {os.path.relpath(path, folder)!r},\n'
                    for path in _bases(network, recipe))
    text = (f'# {title}\n_base_ = [\n{bases}]\n\n'
            f'model = {model}\n\nload_from = {checkpoint!r}\n')
    if network.topk is None:
        text += _EXPERTS_ALONE
    if network.num_classes not in recipe['data']:
        text += (f'\n# No data set here has {network.num_classes} classes: '
                 'name yours in train_dataloader,\n# val_dataloader and '
                 'test_dataloader.\n')
    return text


def _bases(network: ResNet, recipe: dict) -> List[Path]:
    data = recipe['data']
    names = ('_base_/' +
             data.get(network.num_classes, next(iter(data.values()))),
             '_base_/' + recipe['schedule'], '_base_/default_runtime.py')
    return [CONFIGS / name for name in names]


def _with_losses(network: ResNet, name: str) -> dict:
    """The model with losses and prediction as the recipe has them."""
    model = network.model()
    recipe = Config.fromfile(CONFIGS / '_base_' / name).model
    head = model['head']
    head['loss'] = recipe.head.loss
    if network.layout.num_experts > 1:
        head['diversity'] = recipe.head.diversity
    if head['router'] is not None:
        head['router'] = dict(recipe.head.router, **head['router'])
    model['test_cfg'] = recipe.test_cfg
    return model


def _as_code(value: Any, indent: int = 0) -> str:
    """A nested dict as it is written in a config."""
    if not isinstance(value, dict):
        return repr(value)
    items = [
        f'{key}={_as_code(item, indent + 4)}' for key, item in value.items()
    ]
    line = f'dict({", ".join(items)})'
    if '\n' not in line and len(line) < 60:
        return line
    pad = '\n' + ' ' * (indent + 4)
    return 'dict(' + ','.join(pad + item for item in items) + ')'
