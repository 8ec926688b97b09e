"""Write the config of a converted checkpoint."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from network import Network

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
_FIRST_STAGE_ONLY = """
# The checkpoint has no router, so there is no second stage.
train_cfg = dict(max_epochs=_base_.default_hooks.two_stage.begin)
default_hooks = dict(two_stage=None)
"""


def config_text(network: Network, checkpoint: str, config: str, title: str) -> str:
    """Write the config of a converted checkpoint.

    It inherits losses, data and schedule from the config for this network.

    Args:
        network (Network): The network.
        checkpoint (str): Path of the converted checkpoint.
        config (str): Path of the config, to which ``_base_`` is relative.
        title (str): Comment in the first line.

    Returns:
        str: Text of the config.
    """
    recipes = network.recipes
    name = recipes.get(network.num_classes, next(iter(recipes.values())))
    base = os.path.relpath(CONFIGS / name, os.path.dirname(os.path.abspath(config)))
    model = _with_losses(network, Config.fromfile(CONFIGS / name).model)
    text = (
        f'# {title}\n_base_ = {base!r}\n\nmodel = {_as_code(model)}\n\nload_from = {checkpoint!r}\n'
    )
    if network.topk is None:
        text += _FIRST_STAGE_ONLY
    if network.num_classes not in recipes:
        text += (
            f'\n# No dataset of ride_mm has {network.num_classes} classes: set yours in '
            'train_dataloader,\n# val_dataloader and test_dataloader.\n'
        )
    return text


def _with_losses(network: Network, recipe: dict) -> dict:
    """The model config, with losses and prediction options of the recipe."""
    model = dict(_delete_=True, **network.model())
    head = model['head']
    head['loss'] = recipe.head.loss
    if network.layout.num_experts > 1:
        head['diversity'] = recipe.head.diversity
    if head['router'] is not None:
        head['router'] = dict(recipe.head.router, **head['router'])
    model['test_cfg'] = recipe.test_cfg
    return model


def _as_code(value: Any, indent: int = 0) -> str:
    """Python code of a nested dict, as in a config file."""
    if not isinstance(value, dict):
        return repr(value)
    items = [f'{key}={_as_code(item, indent + 4)}' for key, item in value.items()]
    line = f'dict({", ".join(items)})'
    if '\n' not in line and len(line) < 60:
        return line
    pad = '\n' + ' ' * (indent + 4)
    return 'dict(' + ','.join(pad + item for item in items) + ')'
