"""What the tools beside it share: a loaded model, and a written one."""
import argparse
import os
from typing import Callable, Optional

from mmengine.config import Config
from mmengine.runner import Runner, save_checkpoint

from ride_mm.engine import launch
from ride_mm.models import RIDEClassifier
from ride_mm.version import __version__


def load_runner(args: argparse.Namespace,
                check: Optional[Callable[[Config], None]] = None,
                own_classifiers: bool = False) -> Runner:
    """Build the runner of a test and load the checkpoint.

    Args:
        args (Namespace): Of ``launch.common_arguments``, and ``checkpoint``.
        check (Callable, optional): Called with the config. Defaults to None.
        own_classifiers (bool): Whether classifiers are not to be loaded.
            Defaults to False.

    Returns:
        Runner: Its ``model`` has the weights.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = launch.load_config(args.config, args.cfg_options)
    if check is not None:
        check(cfg)
    launch.set_work_dir(cfg, args.work_dir, args.config)
    launch.check_checkpoint_path(args.checkpoint)
    cfg.resume, cfg.load_from = False, args.checkpoint
    if own_classifiers:
        cfg.custom_hooks = [dict(type='NewClassifiersHook')]
    launch.set_dataloader_defaults(cfg)
    launch.set_launcher(cfg, args.launcher)
    runner = launch.build_runner(cfg)
    runner.load_or_resume()
    return runner


def write_checkpoint(model: RIDEClassifier, path: str, **meta) -> None:
    """Write a model, without its router, who knew other logits.

    Args:
        model (RIDEClassifier): The model.
        path (str): A new file.
        **meta: What else is to be kept in the checkpoint's ``meta``.
    """
    state = {
        key: value.cpu()
        for key, value in model.state_dict().items()
        if not key.startswith('head.router.')
    }
    save_checkpoint(
        dict(meta=dict(ride_mm=__version__, **meta), state_dict=state), path)
    print(path)
