from mmengine.dataset import BaseDataset, Compose

from ride_mm.datasets import DigitsLT


def test_a_subset_has_no_objects_of_earlier_copies(monkeypatch):
    dataset = DigitsLT()
    original = BaseDataset._copy_without_annotation.__wrapped__
    # As after a copied dataset whose id was reused.
    monkeypatch.setattr(original, '__defaults__', ({id(dataset.pipeline): 'another'},))
    subset = dataset.get_subset(5)
    assert isinstance(subset.pipeline, Compose) and subset.pipeline is not dataset.pipeline
