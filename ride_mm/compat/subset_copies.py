"""Copies of datasets do not contain objects of earlier copies.

MMEngine's ``get_subset`` copies with one memo for the whole process (a mutable
default). Its keys are ids, which Python reuses, so an attribute could become a
dataset that was copied before: ``'DigitsLT' object is not callable``.
"""

from functools import wraps

from mmengine.dataset import BaseDataset


def install_subset_copies() -> None:
    """Let each copy of a dataset use its own memo."""
    original = BaseDataset._copy_without_annotation

    @wraps(original)
    def _copy_without_annotation(self, memo: dict | None = None) -> BaseDataset:
        return original(self, {} if memo is None else memo)

    BaseDataset._copy_without_annotation = _copy_without_annotation
