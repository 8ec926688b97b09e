"""Checkpoints of a run: which there are, and whether training can resume from them."""

import os
import os.path as osp
import re

from ride_mm.compat.checkpoint_loading import CheckpointError, load_checkpoint_file

# What `Runner.resume` reads, by dotted keys.
_RESUMED = {
    'state_dict': dict,
    'message_hub.log_scalars': dict,
    'message_hub.runtime_info': dict,
    'message_hub.resumed_keys': dict,
    'meta.epoch': int,
    'meta.iter': int,
}


def find_resume_problem(path: str, optimizer: bool = False) -> str | None:
    """Find out whether training can resume from a checkpoint file.

    Args:
        path (str): A local path.
        optimizer (bool): Whether the state of the optimizer is needed.
            Defaults to False.

    Returns:
        str | None: What is wrong, as a sentence without its subject, the
        checkpoint. None if training can resume.
    """
    try:
        # without the values of the tensors
        content = load_checkpoint_file(path, map_location='meta')
    except CheckpointError as error:
        return error.problem
    needed = dict(_RESUMED, optimizer=dict) if optimizer else _RESUMED
    for key, kind in needed.items():
        found = content
        for name in key.split('.'):
            found = found.get(name) if isinstance(found, dict) else None
        is_count = type(found) is int and found >= 0
        if not (is_count if kind is int else isinstance(found, kind)):
            return f'cannot be resumed: it has no `{key}`'
    return None


def numbered_checkpoints(folder: str, filename_tmpl: str) -> list[tuple[int, str]]:
    """List the checkpoints of a folder, the newest first.

    Args:
        folder (str): A local folder.
        filename_tmpl (str): As in ``CheckpointHook``, e.g. 'epoch_{}.pth'.

    Returns:
        list[tuple[int, str]]: The number of epochs or iterations of each
        checkpoint, and its path.
    """
    if not osp.isdir(folder):
        return []
    found = [(step_of(name, filename_tmpl), osp.join(folder, name)) for name in os.listdir(folder)]
    return sorted([(step, path) for step, path in found if step is not None], reverse=True)


def step_of(path: str, filename_tmpl: str) -> int | None:
    """Read the number of epochs or iterations from the name of a checkpoint.

    Args:
        path (str): The path of a checkpoint.
        filename_tmpl (str): As in ``CheckpointHook``, e.g. 'epoch_{}.pth'.

    Returns:
        int | None: The number, or None if the name has another form.
    """
    before, after = re.split(r'\{.*?\}', filename_tmpl, maxsplit=1)
    match = re.fullmatch(re.escape(before) + r'(\d+)' + re.escape(after), osp.basename(path))
    return int(match.group(1)) if match else None
