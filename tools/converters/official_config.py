"""The config of a converted checkpoint."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from network import Network

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Without a router there is no second stage.
_EXPERTS_ALONE = """
# The checkpoint has no router: the first stage alone.
train_cfg = dict(max_epochs=_base_.default_hooks.two_stage.begin)
default_hooks = dict(two_stage=None)
"""


def config_text(network: Network, checkpoint: str, config: str, title: str) -> str:
    """Write the config of a converted checkpoint.

    Losses, data and schedule are those of the recipe for such a network.

    Args:
        network (Network): What the checkpoint has.
        checkpoint (str): Path of the checkpoint, as it is to be loaded.
        config (str): Path of the config: what it inherits from is named
            relative to its folder.
        title (str): What it is, a line.

    Returns:
        str: The config.
    """
    recipes = network.recipes
    name = recipes.get(network.num_classes, next(iter(recipes.values())))
    base = os.path.relpath(CONFIGS / name, os.path.dirname(os.path.abspath(config)))
    model = _with_losses(network, Config.fromfile(CONFIGS / name).model)
    text = (
        f'# {title}\n_base_ = {base!r}\n\nmodel = {_as_code(model)}\n\nload_from = {checkpoint!r}\n'
    )
    if network.topk is None:
        text += _EXPERTS_ALONE
    if network.num_classes not in recipes:
        text += (
            f'\n# No dataset here has {network.num_classes} classes: '
            'name yours in train_dataloader,\n# val_dataloader and '
            'test_dataloader.\n'
        )
    return text


def _with_losses(network: Network, recipe: dict) -> dict:
    """The model with losses and prediction as the recipe has them."""
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
    """A nested dict as it is written in a config."""
    if not isinstance(value, dict):
        return repr(value)
    items = [f'{key}={_as_code(item, indent + 4)}' for key, item in value.items()]
    line = f'dict({", ".join(items)})'
    if '\n' not in line and len(line) < 60:
        return line
    pad = '\n' + ' ' * (indent + 4)
    return 'dict(' + ','.join(pad + item for item in items) + ')'
