"""A resumed run follows its config."""

import time

import pytest
import torch
from conftest import ROOT, load_tool
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from runs import STAGE_1, build_runner, digits_config, train
from torch.utils.data import Dataset

from ride_mm.compat.checkpoint_loading import load_checkpoint_file
from ride_mm.utils.errors import UserError


class Points(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, *inputs, mode='tensor'):
        return dict(loss=self.layer(torch.stack(inputs)).pow(2).mean())


class Rates(Hook):
    """Notes the learning rate and weight decay of every step."""

    def __init__(self):
        self.rates = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        group = runner.optim_wrapper.param_groups[0]
        self.rates[runner.iter] = group['lr'], group['weight_decay']


STEPS = dict(type='MultiStepLR', milestones=[3, 5], gamma=0.1)
WARM_UP = dict(type='LinearLR', start_factor=0.2, end=3)
BY_STEP = dict(WARM_UP, by_epoch=True, convert_to_iter_based=True)
COSINE = dict(type='CosineAnnealingLR', T_max=8, eta_min=1e-3)


def toy(work_dir, schedulers, epochs=8, load_from=None, optimizer=None, **options):
    rates = Rates()
    runner = Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Points(),
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(dict(type='SGD', lr=0.1, weight_decay=1e-3), **optimizer or {})
        ),
        param_scheduler=schedulers,
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, **options),
            schedule=dict(type='ScheduleHook'),
        ),
        custom_hooks=[rates],
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        resume=load_from is not None,
        load_from=load_from,
        experiment_name=f'toy_{time.monotonic_ns()}',
    )
    warnings = []
    runner.logger.warning = lambda text, *_: warnings.append(text)
    runner.cfg.param_scheduler = schedulers
    runner.train()
    return rates.rates, [text for text in warnings if 'differs' in text]


@pytest.mark.parametrize(
    'old, new, change',
    [
        (
            dict(schedulers=[STEPS]),
            dict(schedulers=[dict(STEPS, milestones=[1, 6])]),
            'param_scheduler.0.milestones [3, 5] -> [1, 6]',
        ),
        (
            dict(schedulers=[WARM_UP, STEPS]),
            dict(schedulers=[WARM_UP, dict(STEPS, gamma=0.5)]),
            'param_scheduler.1.gamma 0.1 -> 0.5',
        ),
        # the default `end` is the number of epochs
        (
            dict(schedulers=[dict(STEPS, milestones=[3, 7])], epochs=5),
            dict(schedulers=[dict(STEPS, milestones=[3, 7])], epochs=9),
            'param_scheduler.0.end 5 -> 9',
        ),
        (
            dict(schedulers=[COSINE], epochs=8),
            dict(schedulers=[dict(COSINE, T_max=10)], epochs=10),
            'T_max 8 -> 10',
        ),
        (
            dict(schedulers=[BY_STEP, COSINE]),
            dict(schedulers=[dict(BY_STEP, end=6), COSINE]),
            'end 9 -> 18',
        ),
        (
            dict(schedulers=[STEPS]),
            dict(schedulers=[COSINE]),
            'param_scheduler.0 is another scheduler',
        ),
        (
            dict(schedulers=[STEPS]),
            dict(schedulers=[WARM_UP, STEPS]),
            'param_scheduler: 1 schedulers -> 2',
        ),
        (
            dict(schedulers=[STEPS], optimizer=dict(lr=0.1)),
            dict(schedulers=[STEPS], optimizer=dict(lr=0.3)),
            'lr 0.1 -> 0.3',
        ),
        (
            dict(schedulers=[STEPS], optimizer=dict(weight_decay=1e-3)),
            dict(schedulers=[STEPS], optimizer=dict(weight_decay=5e-4)),
            'weight_decay 0.001 -> 0.0005',
        ),
        # a checkpoint without them begins with the warm-up once more
        (
            dict(schedulers=[WARM_UP], save_param_scheduler=False),
            dict(schedulers=[WARM_UP]),
            'param_scheduler: 0 schedulers -> 1',
        ),
    ],
)
def test_rates_are_those_of_a_run_with_the_new_config(tmp_path, old, new, change):
    whole, _ = toy(tmp_path / 'whole', **new)
    toy(tmp_path / 'old', **old)
    resumed, warnings = toy(tmp_path / 'new', load_from=str(tmp_path / 'old/epoch_4.pth'), **new)
    assert len(warnings) == 1 and change in warnings[0]
    assert min(resumed) == 12
    for step, (rate, decay) in resumed.items():
        assert rate == pytest.approx(whole[step][0], rel=1e-12)
        assert decay == whole[step][1]


def test_an_unchanged_config_changes_nothing(tmp_path):
    schedulers = [BY_STEP, STEPS]
    whole, _ = toy(tmp_path / 'whole', schedulers)
    for epoch in (1, 3, 7):
        resumed, warnings = toy(
            tmp_path / f'{epoch}', schedulers, load_from=str(tmp_path / f'whole/epoch_{epoch}.pth')
        )
        assert warnings == []
        assert resumed == {step: whole[step] for step in resumed}


def test_what_cannot_be_followed(tmp_path):
    toy(tmp_path, [STEPS], epochs=2)
    start = str(tmp_path / 'epoch_1.pth')
    with pytest.raises(UserError, match='an optimizer of another type'):
        toy(tmp_path / 'a', [STEPS], load_from=start, optimizer=dict(type='Adagrad'))
    plateau = dict(type='ReduceOnPlateauLR', monitor='loss')
    with pytest.raises(UserError, match='cannot be repeated'):
        toy(tmp_path / 'b', [plateau], load_from=start)


class LastRate(Hook):
    """Notes the learning rate of the last epoch."""

    def before_train_epoch(self, runner):
        self.rate = runner.optim_wrapper.param_groups[0]['lr']


@pytest.fixture(scope='module')
def two_stages(tmp_path_factory):
    from conftest import ROOT

    work_dir = tmp_path_factory.mktemp('two_stages')
    cfg = digits_config(ROOT, work_dir)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg, train(cfg)


def resume(cfg, work_dir, epoch, **options):
    cfg = cfg.copy()
    cfg.merge_from_dict(
        {
            'load_from': f'{cfg.work_dir}/epoch_{epoch}.pth',
            'work_dir': str(work_dir),
            'resume': True,
            **options,
        }
    )
    runner = build_runner(cfg)
    texts = []
    runner.logger.info = lambda text, *_: texts.append(text)
    runner.logger.warning = lambda text, *_: texts.append(text)
    last = LastRate()
    runner.register_hook(last)
    runner.train()
    return last.rate, [
        text for text in texts if text.startswith(('The config', 'Trained', 'Not', 'Classes re-w'))
    ]


SUMMARY = [
    'Trained: stage 1 (experts), epochs 1 to 3, 15 steps.',
    'Trained: stage 2 (router), epochs 4 to 5, 8 steps.',
    'Classes re-weighted: epochs 3 to 3, 5 steps.',
]


def test_stage_2_of_a_changed_config_and_the_summary(two_stages, tmp_path):
    cfg, _ = two_stages
    for epoch in (2, STAGE_1, STAGE_1 + 1):
        _, texts = resume(cfg, tmp_path / f'{epoch}', epoch)
        assert texts == SUMMARY
    key = 'default_hooks.two_stage.param_scheduler.0.T_max'
    rate, texts = resume(cfg, tmp_path / 'new', STAGE_1 + 1, **{key: 2})
    assert rate == pytest.approx(0.005)  # half of a cosine from .01
    assert texts[0].endswith(f'precedence: {key} 5 -> 2.')
    assert texts[1:] == SUMMARY


def test_stage_2_keeps_its_begin(two_stages, tmp_path):
    cfg, _ = two_stages
    with pytest.raises(UserError, match='begin=3, not 2: keep 3'):
        resume(cfg, tmp_path, STAGE_1 + 1, **{'default_hooks.two_stage.begin': 2})


def test_early_stopping_in_stage_1(tmp_path, monkeypatch):
    """Its last epoch is saved, and what the summary says trains stage 2."""
    cfg = digits_config(
        ROOT,
        tmp_path / 'run',
        **{
            'train_cfg.val_interval': 1,
            'default_hooks.checkpoint.interval': 10,
            'custom_hooks': [
                dict(
                    type='EarlyStoppingHook',
                    monitor='long_tail/overall',
                    rule='greater',
                    min_delta=100.0,
                    patience=1,
                )
            ],
        },
    )
    runner = build_runner(cfg)
    texts = []
    runner.logger.warning = lambda text, *_: texts.append(text)
    runner.train()
    saved = tmp_path / 'run/epoch_2.pth'
    assert texts[1].startswith('custom_hooks.0 stops the whole run: if it stops')
    assert texts[-2:] == [
        f'The training ends after epoch 2 of 5, {saved} is saved. Continue with --resume.',
        'Not trained: stage 2 (router). To train it: python '
        f'tools/train.py {tmp_path}/run/ride_r32_digits_lt.py --stage router '
        f'--work-dir {tmp_path}/run_router --cfg-options load_from={saved}',
    ]
    monkeypatch.setenv('LOCAL_RANK', '0')
    command = texts[-1].partition('tools/train.py ')[2]
    load_tool('tools/train.py').main(command.split())
    experts, both = (
        load_checkpoint_file(str(path))['state_dict']
        for path in (saved, tmp_path / 'run_router/epoch_2.pth')
    )
    assert not experts['head.router.num_updates']
    assert both['head.router.num_updates']
    assert all(
        torch.equal(value, experts[key]) for key, value in both.items() if 'router' not in key
    )
