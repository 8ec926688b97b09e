"""The classes of a checkpoint against those of the data."""

from collections.abc import Sequence

from mmengine.runner import BaseLoop, Runner

from ride_mm.utils.errors import UserError, name_some


def check_class_names(runner: Runner, checkpoint: dict) -> None:
    """Check that a model is tested, or trained on, with its own classes.

    Args:
        runner (Runner): Its test or, if it resumes, its training set.
        checkpoint (dict): What has been loaded, with the names of the classes
            in ``meta['dataset_meta']``.

    Raises:
        UserError: If both have names and these differ.
    """
    meta = checkpoint.get('meta') or {}
    trained = (meta.get('dataset_meta') or {}).get('classes')
    if isinstance(runner._train_loop, BaseLoop):
        key, loader = 'train_dataloader', runner.train_dataloader
        if not runner._resume:
            return
    elif isinstance(runner._test_loop, BaseLoop):
        key, loader = 'test_dataloader', runner.test_dataloader
    elif isinstance(runner._val_loop, BaseLoop):
        key, loader = 'val_dataloader', runner.val_dataloader
    else:
        return
    found = getattr(loader.dataset, 'metainfo', {}).get('classes')
    problem = difference(trained, found)
    if problem:
        raise UserError(f'{key}.dataset does not have the classes of the checkpoint: {problem}')


def difference(trained: Sequence[str] | None, found: Sequence[str] | None) -> str | None:
    """Describe how the classes of some data differ from a model's.

    Args:
        trained (Sequence[str], optional): Names that the model was trained
            with, by label.
        found (Sequence[str], optional): Names of the data, by label.

    Returns:
        Optional[str]: What differs; None if nothing does, or one of them has
        no names.
    """
    trained, found = list(trained or []), list(found or [])
    if not trained or not found or trained == found:
        return None
    if sorted(trained) == sorted(found):
        return f'their order differs. If it reads class folders, set classes={trained!r}'
    extra = [name for name in found if name not in set(trained)]
    missing = [name for name in trained if name not in set(found)]
    parts = []
    if extra:
        parts.append(f'{name_some(extra)} unknown to the model')
    if missing:
        parts.append(f'{name_some(missing)} missing')
    if missing and not extra:
        parts.append(
            'with classes=[...], all class names of the model in '
            'their order, class folders may be missing'
        )
    return '; '.join(parts or ['names are repeated'])
