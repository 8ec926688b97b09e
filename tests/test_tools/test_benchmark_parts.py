"""The parts of the benchmarks: turns, statistics, official code, ..."""
import importlib
import os
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ride_mm.engine import launch
from ride_mm.utils.errors import UserError


@pytest.fixture(autouse=True)
def import_tool(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'tools/benchmark')
    return importlib.import_module


# ------------------------------------------------------------------ contest


def test_statistics_are_those_of_rounds(import_tool):
    contest = import_tool('contest')
    slow, fast = [10., 2., 4.], [12., 8., 5.]
    assert contest.spread(fast) == contest.Spread(8., 5., 12.)
    # Round by round 1.2, 4 and 1.25; the ratio of the medians would be 2.
    assert contest.ratio(fast, slow) == contest.Spread(1.25, 1.2, 4.)


def test_spread_as_text(import_tool):
    contest = import_tool('contest')
    assert contest.Spread(1234.5, 1.,
                          9e6).text(1) == ('1,234.5 (1.0 to 9,000,000.0)')
    assert contest.Spread(2., 2., 2.).text(2) == '2.00'


def test_turns_are_taken_in_turn(import_tool):
    contest = import_tool('contest')
    calls = []

    def turn(name):
        calls.append(name)
        return len(calls)

    results = contest.take_turns(
        {name: lambda name=name: turn(name)
         for name in 'AB'}, 3)
    assert ''.join(calls) == 'ABABAB'
    assert results == dict(A=[1, 3, 5], B=[2, 4, 6])


def double(referee, start):
    request = referee.exchange(start)
    while True:
        request = referee.exchange(2 * request)


def err(referee, kind):
    raise dict(user=UserError, other=KeyError)[kind]('what happened')


def die(referee):
    print('a line of the log', flush=True)
    os._exit(3)


def test_contenders_run_in_their_own_processes(import_tool):
    contest = import_tool('contest')
    with contest.Arena('cpu', threads=1) as arena:
        one, other = (arena.start('x', double, start=i) for i in (1, 2))
        assert (one.info, other.info) == (1, 2)
        assert (one.ask(5), other.ask(6), one.ask(7)) == (10, 12, 14)
        folder = arena.folder
        processes = [one._process, other._process]
    assert not any(process.is_alive() for process in processes)
    assert not folder.exists()


def test_failures_of_contenders_are_told(import_tool):
    contest = import_tool('contest')
    with contest.Arena('cpu', threads=1) as arena:
        with pytest.raises(UserError, match='^x: what happened$'):
            arena.start('x', err, kind='user')
        with pytest.raises(RuntimeError, match='x failed') as error:
            arena.start('x', err, kind='other')
        assert "KeyError: 'what happened'" in str(error.value)
        with pytest.raises(RuntimeError, match='a line of the log\nexit 3'):
            arena.start('x', die)


# ------------------------------------------------------------------ machine


def take_memory(referee):
    from machine import PeakMemory
    kept = torch.ones(50 * 2**20 // 4)
    memory = PeakMemory('cpu')
    for _ in range(2):
        torch.ones(80 * 2**20 // 4)
    referee.exchange((memory.read(), len(kept)))


@pytest.mark.skipif(
    not os.path.exists('/proc/self/clear_refs'), reason='for Linux')
def test_peak_memory_is_that_above_the_start(import_tool):
    contest = import_tool('contest')
    with contest.Arena('cpu', threads=1) as arena:
        peak, _ = arena.start('x', take_memory).info
    assert 75 <= peak / 2**20 < 100


def test_machine_is_described(import_tool):
    machine = import_tool('machine')
    found = machine.describe('cpu', threads=3)
    assert found['threads'] == 3 and found['gpu'] is None
    assert 1 <= found['cores'] <= os.cpu_count()
    assert found['memory_gib'] > 0.5
    assert found['versions']['torch'] == torch.__version__
    assert f'{found["cores"]} cores, 3 threads' in machine.one_line(found)


# ----------------------------------------------------------------- variants


def test_single_network_is_that_of_the_baseline(import_tool, root):
    variants = import_tool('variants')
    cfg = variants.load(str(root / 'configs/ride_r32_cifar100_lt.py'), {})
    variants.set_single(cfg)
    baseline = Config.fromfile(root /
                               'configs/baselines/ce_r32_cifar100_lt.py')
    ours, theirs = (
        MODELS.build(c.model).state_dict() for c in (cfg, baseline))
    assert {
        k: v.shape
        for k, v in ours.items()
    } == {
        k: v.shape
        for k, v in theirs.items()
    }
    assert cfg.default_hooks.two_stage is None
    assert cfg.default_hooks.reweighting.type == 'DeferredReweightingHook'


def test_single_network_of_other_families_is_that_of_the_paper(
        import_tool, root):
    variants = import_tool('variants')
    cfg = variants.load(str(root / 'configs/ride_r50_imagenet_lt.py'), {})
    variants.set_single(cfg)
    model = MODELS.build(cfg.model)
    # ResNet-50
    assert sum(p.numel() for p in model.parameters()) == 25557032


@pytest.mark.parametrize('name, size', [('r32_cifar100', 32),
                                        ('r32_digits', 16),
                                        ('r50_imagenet', 224)])
def test_image_size_is_that_of_the_pipeline(import_tool, root, name, size):
    variants = import_tool('variants')
    cfg = variants.load(str(root / f'configs/ride_{name}_lt.py'), {})
    assert variants.image_size(cfg) == (size, size)
    cfg.train_dataloader.dataset.pipeline = [dict(type='PackInputs')]
    with pytest.raises(UserError, match='no transform'):
        variants.image_size(cfg)


def test_variants(import_tool, root):
    variants = import_tool('variants')
    path = str(root / 'configs/ride_r32_digits_lt.py')

    def variant(name, options={}):
        cfg = variants.load(path, options)
        variants.set_variant(cfg, name)
        return cfg.optim_wrapper.type, cfg.model.compile

    assert variant('fp32') == ('OptimWrapper', False)
    assert variant('amp') == ('AmpOptimWrapper', False)
    assert variant('amp-compiled') == ('AmpOptimWrapper', True)
    fast = {
        'compile': dict(mode='max-autotune'),
        'optim_wrapper.type': 'AmpOptimWrapper'
    }
    assert variant('fp32', fast) == ('OptimWrapper', False)
    assert variant('fp32-compiled', fast)[1] == dict(mode='max-autotune')


def test_synthetic_images_are_for_the_networks_input(import_tool):
    variants = import_tool('variants')
    dataset = variants.SyntheticImages((6, 8), num_classes=5, num_images=1000)
    assert len(dataset) == 1000
    assert dataset[7]['img'].shape == (6, 8, 3)
    assert dataset[7]['gt_label'] == 2
    assert len(dataset.metainfo['class_counts']) == 5


def test_other_models_are_refused(import_tool, tmp_path):
    variants = import_tool('variants')
    path = tmp_path / 'other.py'
    path.write_text("model = dict(type='ImageClassifier')")
    with pytest.raises(UserError, match='found "ImageClassifier"'):
        variants.load(str(path), {})


# ----------------------------------------------------------------- official


def test_other_folders_are_no_clone(import_tool, tmp_path):
    official = import_tool('official')
    (tmp_path / 'train.py').touch()
    with pytest.raises(UserError, match='no clone of .* no parse_config.py'):
        official.check_clone(str(tmp_path))


def test_configs_of_the_official_code(import_tool, root):
    official, variants = import_tool('official'), import_tool('variants')
    cfg = variants.load(str(root / 'configs/ride_r32_cifar100_lt.py'), {})
    assert official.config_name(cfg) == 'config_imbalance_cifar100_ride.json'
    cfg = variants.load(str(root / 'configs/ride_r50_imagenet_lt.py'), {})
    assert official.config_name(
        cfg, router=True) == 'config_imagenet_lt_resnet50_ride_ea.json'
    cfg.model.backbone.depth = 18
    with pytest.raises(UserError, match='has no ResNet-18'):
        official.config_name(cfg)


def test_running_means_without_pandas(import_tool):
    official = import_tool('official')
    table = official._DataFrame(index=['a', 'b'], columns=['total', 'counts'])
    table.total['a'] += 3 * 2
    table['counts']['a'] += 2
    assert dict(table.total) == dict(a=6, b=0)
    assert table.total['a'] / table.counts['a'] == 3
    for column in table.columns:
        table[column].values[:] = 0
    assert dict(table.total) == dict(table.counts) == dict(a=0, b=0)


# ---------------------------------------------------------------- inference


def used_by_plan(plan, batch_size, num_experts):
    """Route by hand: how many experts each image of a batch uses."""
    used = torch.ones(batch_size, dtype=torch.long)
    active = torch.arange(batch_size)
    for index in range(num_experts - 1):
        go = plan.decide(index, torch.zeros(len(active))) > 0
        active = active[go]
        used[active] += 1
    return used.tolist()


@pytest.mark.parametrize('batch_size', [1, 7, 500])
def test_plan_has_its_shares_at_any_batch_size(import_tool, batch_size):
    inference = import_tool('inference')
    plan = inference.Plan([41, 9, 50], 'cpu')
    used = sum((used_by_plan(plan, batch_size, 3)
                for _ in range(-(-2000 // batch_size))), [])[:2000]
    shares = np.bincount(used, minlength=4)[1:] / len(used)
    assert np.allclose(shares, [.41, .09, .5], atol=.002)
    # The same images whatever the batches are.
    again = used_by_plan(inference.Plan([41, 9, 50], 'cpu'), 2000, 3)
    assert used == again


def test_planned_router_routes_by_plan(import_tool, tiny_model):
    inference = import_tool('inference')
    model = MODELS.build(dict(tiny_model, test_cfg=dict(mode='route'))).eval()
    model.head.router = inference.PlannedRouter(
        model.head.router, inference.Plan([25, 50, 25], 'cpu'))
    images = torch.randn(40, 3, 8, 8)
    with torch.no_grad():
        used = [sample.num_experts_used for sample in model.predict(images)]
    assert used == used_by_plan(inference.Plan([25, 50, 25], 'cpu'), 40, 3)
    assert np.allclose(np.bincount(used)[1:], [10, 20, 10], atol=2)


def test_summary_of_inference(import_tool):
    inference = import_tool('inference')
    turns = dict(ensemble=[[.2, .4], [.5, .5]], routed=[[.1, .2], [.4, .6]])
    whole = dict(ensemble=[[1., 1.], [2., 2.]])
    ensemble, routed = inference.summarize(10, turns, whole,
                                           dict(ensemble=1., routed=.8))
    # Means of 0.3 and 0.5 seconds for ten images.
    assert ensemble['images_per_second'].low == pytest.approx(20)
    assert ensemble['images_per_second'].high == pytest.approx(10 / .3)
    assert ensemble['predict_images_per_second'].median == pytest.approx(7.5)
    assert 'predict_images_per_second' not in routed
    # 0.15 / 0.3 and 0.5 / 0.5
    assert routed['time_over_ensemble'].median == pytest.approx(.75)
    assert routed['time_over_compute'].high == pytest.approx(1 / .8)
    assert routed['median_ms'] == pytest.approx(300)
    assert routed['p95_ms'] == pytest.approx(1000 * (.4 + .85 * (.6 - .4)))


# ------------------------------------------------------- the others' figures


def turns_of(*rates):
    return [dict(seconds=2., images=2 * rate, steps=1) for rate in rates]


def test_summary_of_training_steps(import_tool):
    train_step = import_tool('train_step')
    turns = {
        ('official', 'fp32'): turns_of(10, 20, 30),
        ('ours', 'amp'): turns_of(20, 50, 60),
        ('bare', 'amp'): turns_of(22, 50, 72),
        ('single', 'amp'): turns_of(40, 100, 180)
    }
    memory = {
        key: dict(step_memory_bytes=size, reserved_memory_bytes=None)
        for key, size in zip(turns, (100, 80, 70, 60))
    }
    infos = {key: dict(parameters=7) for key in turns}
    results = train_step.summarize(turns, infos, memory)
    assert results[1]['reference'] == 'official fp32'
    assert results[1]['images_per_second'].median == 50
    assert results[1]['ratio'].median == 2
    assert results[1]['ratio'].high == 2.5
    framework, ride, saved = train_step.conclude(results)
    # 1.1, 1 and 1.2; 2, 2 and 3
    assert framework['ratio'].median == pytest.approx(1.1)
    assert ride['ratio'].high == pytest.approx(3)
    assert saved['ratio'].median == pytest.approx(.8)


def test_reference_without_the_official_code(import_tool):
    train_step = import_tool('train_step')
    turns = {('ours', 'fp32'): turns_of(8), ('bare', 'fp32'): turns_of(10)}
    nothing = {key: {} for key in turns}
    ours, bare = train_step.summarize(turns, nothing, nothing)
    assert ours['reference'] == 'bare fp32'
    assert ours['ratio'].median == pytest.approx(.8)
    assert bare['ratio'].median == 1


def test_contenders_and_their_variants(import_tool):
    train_step = import_tool('train_step')
    assert train_step.pairs(['ours', 'official', 'official-amp'],
                            ['fp32', 'amp-compiled']) == [('official', 'fp32'),
                                                          ('ours', 'fp32'),
                                                          ('ours',
                                                           'amp-compiled'),
                                                          ('official', 'amp')]


class Asks:
    """A referee that asks for given turns and keeps the replies."""

    def __init__(self, *requests):
        self.requests = list(requests)
        self.replies = []

    def exchange(self, reply):
        self.replies.append(reply)
        return self.requests.pop(0)


def test_pace_counts_steps_of_its_turn(import_tool, monkeypatch):
    tool = import_tool('pace')
    now = [0.]
    monkeypatch.setattr(tool.time, 'perf_counter', lambda: now[0])
    referee = Asks(dict(seconds=5.), dict(seconds=1.), dict(seconds=9.))
    pace = tool.Pace(referee, 'cpu', prefetched=2)
    steps = 0

    def until_asked(number):
        nonlocal steps
        while len(referee.replies) < number:
            now[0] += 1.
            steps += 1
            pace.step(10)

    until_asked(1)
    assert steps == tool.WARM_UP_STEPS
    until_asked(2)
    # One step and what is prefetched are left out.
    assert referee.replies[1] == dict(seconds=5., steps=5, images=50)
    assert steps == tool.WARM_UP_STEPS + 1 + 2 + 5
    until_asked(3)
    assert referee.replies[2] == dict(seconds=3., steps=3, images=30)


def test_pace_takes_the_bare_turns_itself(import_tool, monkeypatch):
    tool = import_tool('pace')
    now, bare_steps = [0.], []
    monkeypatch.setattr(tool.time, 'perf_counter', lambda: now[0])

    def bare():
        now[0] += .5
        bare_steps.append(now[0])
        return 8

    ours, other = dict(seconds=3.), dict(seconds=4., bare=True)
    referee = Asks(other, ours, other, ours)
    pace = tool.Pace(referee, 'cpu', prefetched=2)
    pace.bare = bare
    for _ in range(tool.WARM_UP_STEPS):
        assert not bare_steps
        pace.step(10)
    assert len(bare_steps) == 1 + 2 + 8
    while len(referee.replies) < 4:
        now[0] += 1.
        pace.step(10)
    assert referee.replies[1:] == [
        dict(seconds=4., steps=8, images=64),
        dict(seconds=3., steps=3, images=30),
        dict(seconds=4., steps=8, images=64)
    ]


def test_bare_loop_trains_as_the_runner_does(import_tool, root, tmp_path):
    """The same batches, the same weights after them."""
    variants = import_tool('variants')
    cfg = variants.load(str(root / 'configs/ride_r32_digits_lt.py'), {})
    variants.set_endless(cfg, str(tmp_path))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)

    def build():
        runner = launch.build_runner(cfg)
        runner._init_model_weights()
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.model.set_class_counts([9] * 10)
        return runner.model.train(), runner

    model, runner = build()
    batches = list(islice(runner.build_dataloader(cfg.train_dataloader), 3))
    start = {k: v.clone() for k, v in model.state_dict().items()}
    for batch in batches:
        model.train_step(batch, runner.optim_wrapper)
    expected = {k: v.clone() for k, v in model.state_dict().items()}

    model.load_state_dict(start)
    runner.optim_wrapper.optimizer.state.clear()
    loop = import_tool('pace').BareLoop(runner)
    for batch in batches:
        loop.keep(batch)
    assert [loop() for _ in range(3)] == [len(b['inputs']) for b in batches]
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


def test_summary_of_data(import_tool):
    data = import_tool('data')
    turns = {
        ('ours', 'train', 'worker'): turns_of(30, 20),
        ('theirs', 'train', 'worker'): turns_of(10, 10),
        ('ours', 'train', 'stages'): [dict(read=1.),
                                      dict(read=3.)]
    }
    ours, theirs = data.summarize(turns, dict(ours='theirs', theirs='theirs'))
    assert ours['ratio'].median == 2.5
    assert theirs['images_per_second'].median == 10
    (stage, ) = data.summarize_stages(turns)
    assert stage['stage'] == 'read' and stage['microseconds'].median == 2


def test_stopwatch_counts_by_image(import_tool, monkeypatch):
    data = import_tool('data')
    now = [0.]
    monkeypatch.setattr(data.time, 'perf_counter', lambda: now[0])

    def work(seconds):
        now[0] += seconds

    watch = data.Stopwatch()
    for seconds in (1e-3, 3e-3):
        watch.call('crop', work, seconds)
    watch.call('pack', work, 1e-3)
    watch.count(2)
    assert watch.microseconds() == pytest.approx(dict(crop=2000, pack=500))


def test_synthetic_lists(import_tool, root, tmp_path):
    data, variants = import_tool('data'), import_tool('variants')
    cfg = variants.load(str(root / 'configs/ride_r50_imagenet_lt.py'), {})
    data.write_synthetic(cfg, tmp_path / 'images')
    files = list((tmp_path / 'images').glob('*.jpg'))
    assert 60e3 < np.mean([file.stat().st_size for file in files]) < 160e3
    cfg = data.load(
        str(root / 'configs/ride_r50_imagenet_lt.py'), {},
        str(tmp_path / 'images'))
    loader = data.build_loader(
        dict(cfg.train_dataloader, num_workers=0, batch_size=4), 'train')
    assert next(iter(loader))['inputs'][0].shape == (3, 224, 224)
    cfg = variants.load(str(root / 'configs/ride_r32_digits_lt.py'), {})
    with pytest.raises(UserError, match='not for DigitsLT'):
        data.write_synthetic(cfg, tmp_path / 'others')


def test_summary_of_stage_2(import_tool):
    stage2 = import_tool('stage2')
    overall = dict(plain=[40., 42., 41.], kept=[40.5, 41.5, 41.])
    training = dict(plain=[10., 12., 10.], kept=[2., 2., 1.])
    runs = {
        name: [
            dict(
                seconds=dict(training=t, with_set_up=t + 1),
                metrics={'long_tail/overall': a})
            for t, a in zip(training[name], overall[name])
        ]
        for name in ('plain', 'kept')
    }
    plain, kept, difference = stage2.summarize(runs)
    assert plain['figures']['all'] == dict(mean=41., deviation=1.)
    assert kept['figures']['training']['mean'] == pytest.approx(5 / 3)
    # 0.5, -0.5 and 0
    assert difference['figures'] == dict(
        all=dict(mean=0., deviation=np.std([.5, -.5, 0], ddof=1)))
    assert stage2.speed_up(runs)['training'].median == 6
