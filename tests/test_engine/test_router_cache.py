import pytest
import torch
from runs import STAGE_1, STAGE_2, assert_same_state, build_runner, digits_config, train

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.datasets.samplers import ReshuffledSampler
from ride_mm.engine.hooks import RouterCacheHook
from ride_mm.utils.errors import UserError


def cached_config(root, work_dir, share=0.5, **options):
    cfg = digits_config(root, work_dir, **options)
    cfg.default_hooks.router_cache = dict(type='RouterCacheHook', share=share)
    return cfg


@pytest.fixture(scope='module')
def cached_run(tmp_path_factory):
    """A whole run with workers; its work_dir, runner and what was computed."""
    from conftest import ROOT

    torch.set_num_threads(1)
    work_dir = tmp_path_factory.mktemp('cached')
    runner = build_runner(cached_config(ROOT, work_dir, workers=2))
    model, computed = runner.model, []
    compute = model.router_inputs

    def spy(inputs, labels):
        computed.append((inputs, labels, compute(inputs, labels)))
        return computed[-1][-1]

    model.router_inputs = spy
    runner.train()
    return work_dir, runner, computed


def load(work_dir, epoch):
    return load_checkpoint_file(str(work_dir / f'epoch_{epoch}.pth'))


def test_experts_run_once_and_the_steps_are_as_many(cached_run):
    work_dir, runner, computed = cached_run
    # 105 images are 4 steps of 32; half of them are computed.
    assert [len(labels) for _, labels, _ in computed] == [32, 32]
    assert runner.iter == runner.max_iters == 5 * STAGE_1 + 4 * STAGE_2
    assert runner.model.head.router.num_updates == 4 * STAGE_2
    loader = runner.train_dataloader
    assert isinstance(loader.sampler, ReshuffledSampler)
    batches = [len(batch['inputs'].targets) for batch in loader]
    assert batches == [32, 32, 32, 9]


def test_cache_holds_what_the_experts_say(cached_run):
    _, runner, computed = cached_run
    images, labels, _ = computed[0]
    model = runner.model
    with torch.no_grad():
        trunk = model.backbone(images)[-1]
        feats = [expert(trunk) for expert in model.neck.experts]
        logits = [classifier(feat) for classifier, feat in zip(model.head.classifiers, feats)]
    cache = runner.train_dataloader.dataset.inputs
    topk = model.head.router.topk
    means = [logits[0], (logits[0] + logits[1]) / 2, sum(logits) / 3]
    right = [mean.argmax(1) == labels for mean in means]
    for index, mean in enumerate(means[:2]):
        torch.testing.assert_close(cache.features[:32, index], feats[index])
        torch.testing.assert_close(
            cache.top_logits[:32, index], mean.sort(descending=True).values[:, :topk]
        )
        later = torch.stack(right[index + 1 :]).any(0)
        assert torch.equal(cache.targets[:32, index], ~right[index] & later)
    # Drawn by class, not as the dataset is: of classes 7 to 9 it has six images.
    assert (torch.cat([labels for _, labels, _ in computed]) >= 7).sum() > 6


def test_only_the_router_changes(cached_run):
    work_dir, _, _ = cached_run
    before = load(work_dir, STAGE_1)['state_dict']
    checkpoint = load(work_dir, STAGE_1 + STAGE_2)
    after = checkpoint['state_dict']
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {key for key in after if key.startswith('head.router')}
    # What an inferencer reads the class names from.
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 10


def test_a_resumed_run_has_the_same_cache(cached_run, root, tmp_path):
    work_dir, _, _ = cached_run
    cfg = cached_config(root, tmp_path)
    cfg.load_from = str(work_dir / f'epoch_{STAGE_1 + 1}.pth')
    cfg.resume = True
    train(cfg)
    expected = load(work_dir, STAGE_1 + STAGE_2)
    resumed = load(tmp_path, STAGE_1 + STAGE_2)
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same_state(resumed[key], expected[key])


def test_router_alone(cached_run, root, tmp_path):
    work_dir, _, computed = cached_run
    cfg = cached_config(root, tmp_path)
    cfg.model.stage = 'router'
    cfg.load_from = str(work_dir / f'epoch_{STAGE_1}.pth')
    stage_2 = cfg.default_hooks.pop('two_stage')
    cfg.default_hooks.pop('reweighting')
    cfg.train_dataloader.batch_size = 32
    cfg.train_dataloader.sampler = stage_2.train_dataloader.sampler
    cfg.optim_wrapper.update(stage_2.optim_wrapper)
    cfg.param_scheduler = stage_2.param_scheduler
    cfg.train_cfg.max_epochs = STAGE_2
    runner = train(cfg)
    assert runner.model.head.router.trained
    cache = runner.train_dataloader.dataset.inputs
    assert torch.equal(cache.top_logits[:32], computed[0][-1].top_logits)


@pytest.mark.parametrize('share', [0, 1.5])
def test_share_out_of_range(share):
    with pytest.raises(UserError, match=f'share={share}'):
        RouterCacheHook(share=share)
