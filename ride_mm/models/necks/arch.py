"""Options that several experts have in common: read and check them."""

from collections.abc import Sequence

import torch

from ride_mm.utils.errors import UserError, nearest


def arch_settings(tail: str, zoo: dict[str, dict], arch: str | dict) -> dict:
    """Look up the architecture of a whole backbone.

    Args:
        tail (str): Type of the expert, for error messages.
        zoo (dict[str, dict]): mmpretrain's architectures of the family.
        arch (str | dict): A name in ``zoo``, or such a dict.

    Returns:
        dict: Depths, widths and other settings of the backbone.

    Raises:
        UserError: If the name is unknown, or a key is missing.
    """
    if isinstance(arch, str):
        if arch.lower() not in zoo:
            raise UserError(
                f'{tail}: arch="{arch}" is unknown, expected one of {sorted(zoo)}.'
                f'{nearest(arch, zoo)}'
            )
        return zoo[arch.lower()]
    missing = sorted(set(next(iter(zoo.values()))) - set(arch))
    if missing:
        raise UserError(f'{tail}: arch={dict(arch)} lacks {missing}')
    return arch


def check_one_per_stage(tail: str, **options: Sequence[int]) -> None:
    """Check that options, ``stages`` among them, have the same length.

    Args:
        tail (str): Type of the expert, for error messages.
        **options: Values of the options.

    Raises:
        UserError: If the lengths differ.
    """
    if len(set(map(len, options.values()))) > 1:
        shown = ', '.join(f'{name}={tuple(value)}' for name, value in options.items())
        raise UserError(f'{tail}: {shown} must each have one entry per stage')


def check_stages(
    tail: str, num_stages: int, stages: Sequence[int], out_channels: Sequence[int]
) -> None:
    """Check that an expert has the last stages of its backbone, with one width each.

    Args:
        tail (str): Type of the expert, for error messages.
        num_stages (int): Number of stages of the whole backbone.
        stages (Sequence[int]): Stages of the expert, counted from 0.
        out_channels (Sequence[int]): Channels of each stage of the expert.

    Raises:
        UserError: If stages or widths do not fit.
    """
    expected = tuple(range(num_stages - len(stages), num_stages))
    if tuple(stages) != expected or not stages:
        raise UserError(
            f'{tail}: stages={tuple(stages)} must be the last, counted from 0, of the {num_stages} '
            'that the backbone has'
        )
    check_one_per_stage(tail, stages=stages, out_channels=out_channels)


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth rates of the blocks of a whole backbone.

    Args:
        rate (float): Rate of the last block. Rates increase linearly from 0.
        depths (Sequence[int]): Number of blocks of each stage.

    Returns:
        list[list[float]]: Rates of the blocks of each stage.
    """
    rates = torch.linspace(0, rate, sum(depths)).split(list(depths))
    return [stage.tolist() for stage in rates]
