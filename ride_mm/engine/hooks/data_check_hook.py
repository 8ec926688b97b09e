from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.datasets.check import Split, check_paths
from ride_mm.utils.errors import name_some


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Warns before the first step about images with several labels or in both
    training and validation, and about classes that differ.

    Images are compared by path; ``tools/check_data.py`` reads them.
    """

    # After the hooks that refuse data.
    priority = 'LOW'

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Check the datasets, in the first process only."""
        splits = [Split('train', runner.train_dataloader.dataset)]
        if runner.val_loop is not None:
            splits.append(Split('val', runner.val_dataloader.dataset))
        for finding in check_paths(splits):
            if finding.error:
                places = name_some(finding.places, 3)
                runner.logger.warning(
                    f'{finding.split}: {finding.what} '
                    f'{f"({places})" if places else ""}: {finding.advice}.'
                )
