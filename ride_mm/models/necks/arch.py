"""Settings of transformer and ConvNeXt tails from an ``arch``."""

from collections.abc import Sequence

import torch

from ride_mm.utils.errors import UserError, nearest


def arch_settings(tail: str, zoo: dict[str, dict], arch: str | dict) -> dict:
    """Sizes of a whole backbone, by name or as a dict.

    Args:
        tail (str): Type of the tail, for messages.
        zoo (dict[str, dict]): mmpretrain's own table of the family.
        arch (str | dict): A name in it, or such a dict.

    Returns:
        dict: Depths, widths and other settings of the family.

    Raises:
        UserError: If the name is unknown, or a key is missing.
    """
    if isinstance(arch, str):
        if arch.lower() not in zoo:
            raise UserError(
                f'{tail}: arch="{arch}" is unknown, expected one '
                f'of {sorted(zoo)}.{nearest(arch, zoo)}'
            )
        return zoo[arch.lower()]
    missing = sorted(set(next(iter(zoo.values()))) - set(arch))
    if missing:
        raise UserError(f'{tail}: arch={dict(arch)} lacks {missing}')
    return arch


def check_stages(
    tail: str, num_stages: int, stages: Sequence[int], out_channels: Sequence[int]
) -> None:
    """Check that these are the last stages, with one width each.

    Raises:
        UserError: If they are not.
    """
    expected = tuple(range(num_stages - len(stages), num_stages))
    if tuple(stages) != expected or not stages:
        raise UserError(
            f'{tail}: stages={tuple(stages)} must be the last, counted from '
            f'0, of the {num_stages} that the backbone has'
        )
    if len(out_channels) != len(stages):
        raise UserError(
            f'{tail}: stages={tuple(stages)} and '
            f'out_channels={tuple(out_channels)} must each have '
            'one entry per stage'
        )


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth of every block of a whole backbone.

    Args:
        rate (float): Rate of the last block; it grows linearly from 0.
        depths (Sequence[int]): Blocks of each stage.

    Returns:
        list[list[float]]: Rates of the blocks of each stage.
    """
    rates = torch.linspace(0, rate, sum(depths)).split(list(depths))
    return [stage.tolist() for stage in rates]
