"""Copies of datasets do not contain objects of earlier copies.

In mmengine 0.10.7, ``BaseDataset._copy_without_annotation``, which
``get_subset`` uses, has a mutable default: one ``deepcopy`` memo for the whole
process. Its keys are ids, which Python reuses, so that an attribute may become
a dataset that was copied before (``'DigitsLT' object is not callable``). No
upstream issue is known; onedl-mmengine 0.10.12 does not have the defect.
Delete this file when mmengine 0.10.7 is no longer supported.
"""

from functools import wraps

from mmengine.dataset import BaseDataset


def install_subset_copies() -> None:
    """Give each copy of a dataset its own memo."""
    original = BaseDataset._copy_without_annotation

    @wraps(original)
    def _copy_without_annotation(self, memo: dict | None = None) -> BaseDataset:
        return original(self, {} if memo is None else memo)

    BaseDataset._copy_without_annotation = _copy_without_annotation
