"""Files of predictions for tests."""

from ride_mm.evaluation import DumpPredictions


def write_predictions(path, samples, **run):
    """Write samples as a test run does.

    Args:
        path (str | Path): The file.
        samples (list[dict]): The outputs of a model.
        **run: What differs in the origin of the predictions.
    """
    origin = dict(
        config='config.py',
        options={},
        checkpoint='e.pth',
        split='test',
        prior=None,
        set_thresholds=None,
        weights=None,
        num_experts=None,
        classes=None,
        class_counts=None,
        thresholds=(20, 100),
    )
    dump = DumpPredictions(str(path), dict(origin, **run))
    dump.process(None, samples)
    dump.evaluate(len(samples))
