"""Compare the classes of a checkpoint with those of the data."""

from collections.abc import Sequence

from mmengine.runner import BaseLoop, Runner

from ride_mm.utils.errors import UserError, name_some


def check_class_names(runner: Runner, checkpoint: dict) -> None:
    """Check that a model is tested, or resumed, with its own classes.

    Args:
        runner (Runner): The runner, with the loop that it runs.
        checkpoint (dict): The loaded checkpoint, with the names of the classes
            in ``meta['dataset_meta']``.

    Raises:
        UserError: If both have class names and these differ.
    """
    meta = checkpoint.get('meta') or {}
    trained = (meta.get('dataset_meta') or {}).get('classes')
    loops = dict(train=runner._train_loop, test=runner._test_loop, val=runner._val_loop)
    name = next((name for name, loop in loops.items() if isinstance(loop, BaseLoop)), None)
    if name is None or (name == 'train' and not runner._resume):
        return
    dataset = loops[name].dataloader.dataset
    problem = difference(trained, getattr(dataset, 'metainfo', {}).get('classes'))
    if problem:
        raise UserError(
            f'{name}_dataloader.dataset does not have the classes of the checkpoint: {problem}'
        )


def difference(trained: Sequence[str] | None, found: Sequence[str] | None) -> str | None:
    """Describe how the classes of a dataset differ from those of a model.

    Args:
        trained (Sequence[str], optional): Class names of the model, by label.
        found (Sequence[str], optional): Class names of the dataset, by label.

    Returns:
        str, optional: The difference; None if there is none, or one side has no
        names.
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
            'with classes=[...], all class names of the model in their order, class folders may be '
            'missing'
        )
    return '; '.join(parts or ['names are repeated'])
