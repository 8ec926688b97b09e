import mmengine.dist as dist
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ride_mm.models.heads import CosineClassifier
from ride_mm.structures import gather_labels
from ride_mm.utils.errors import UserError

from .class_counts_hook import unwrapped
from .router_cache_hook import first_batches


@HOOKS.register_module()
class ClassMeanInitHook(Hook):
    """Sets the first classifiers of pretrained experts to the means of the classes.

    Before the first step, the unit features of all training images of a class,
    augmented as configured, are averaged (LIFT: Shi et al., "Long-Tail
    Learning with Foundation Model: Heavy Fine-Tuning Hurts", ICML 2024). Each
    expert weights the images randomly, by an exponential distribution: experts
    that start with equal weights would otherwise remain equal.
    """

    # After TrunkCacheHook, before the sampler's seed is set.
    priority = 'ABOVE_NORMAL'

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the classifiers before the first step.

        Raises:
            UserError: If a classifier is no ``CosineClassifier``.
        """
        model = unwrapped(runner)
        if runner.iter > 0 or model.stage == 'router':
            return
        for classifier in model.head.classifiers:
            if not isinstance(classifier, CosineClassifier):
                raise UserError(
                    f'ClassMeanInitHook: model.head.classifier is a {type(classifier).__name__}, '
                    'expected a CosineClassifier'
                )
        loader = runner.train_loop.dataloader
        runner.logger.info('Averaging the features of each class.')
        model.eval()
        sums = self._sum_features(runner, len(loader))
        dist.all_reduce(sums)
        with torch.no_grad():
            for classifier, of_expert in zip(model.head.classifiers, sums):
                seen = of_expert.norm(dim=1) > 0
                classifier.weight[seen] = F.normalize(of_expert[seen]).to(classifier.weight)

    @torch.no_grad()
    def _sum_features(self, runner: Runner, num_batches: int) -> torch.Tensor:
        """Weighted sums of the unit features by expert and class, (E, K, D)."""
        model = unwrapped(runner)
        shape = (model.num_experts, model.head.num_classes, model.head.in_channels)
        generator = torch.Generator().manual_seed(runner.seed + dist.get_rank())
        sums = torch.zeros(shape, device=next(model.parameters()).device)
        for batch in first_batches(runner, num_batches):
            labels = gather_labels(batch['data_samples'])
            with runner.optim_wrapper.optim_context(model):
                found = model.extract_feat(batch['inputs'])
            for index, features in enumerate(found):
                weights = torch.empty(len(labels)).exponential_(generator=generator)
                unit = F.normalize(features.float()) * weights.to(sums.device)[:, None]
                sums[index].index_add_(0, labels, unit)
        return sums
