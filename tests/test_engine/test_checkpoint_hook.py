import errno
import multiprocessing
import os
import os.path as osp
import shutil
import time

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch.utils.data import Dataset

from ride_mm.compat.atomic_backend import install_atomic_backend
from ride_mm.compat.checkpoint_loading import (
    TRUST_VARIABLE,
    CheckpointError,
    find_damage,
    install_checkpoint_loader,
)
from ride_mm.engine.hooks.checkpoint_hook import CheckpointHook
from ride_mm.utils.errors import UserError

install_checkpoint_loader()
install_atomic_backend()
torch.set_num_threads(1)


class Points(Dataset):
    metainfo = dict(classes=('a', 'b'), class_counts=[3, 1])

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((2,), float(index))


class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(self.layer.weight)
        torch.nn.init.ones_(self.layer.bias)

    def forward(self, *inputs, mode='tensor'):
        out = self.layer(torch.stack(inputs))
        return dict(loss=out.pow(2).mean()) if mode == 'loss' else [out]


class Scores(BaseMetric):
    """Gives out one given result an epoch."""

    def __init__(self, scores):
        super().__init__(collect_device='cpu')
        self.scores = list(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        score = self.scores.pop(0)
        return score if isinstance(score, dict) else dict(acc=score)


def make_runner(
    work_dir, max_epochs=3, resume=False, load_from=None, scores=None, by_epoch=True, **checkpoint
):
    loader = dict(batch_size=2, num_workers=0)
    val = {}
    if scores is not None:
        val = dict(
            val_dataloader=dict(
                dataset=Points(), sampler=dict(type='DefaultSampler', shuffle=False), **loader
            ),
            val_cfg=dict(),
            val_evaluator=Evaluator([Scores(scores)]),
        )
    train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
    if not by_epoch:
        train_cfg = dict(by_epoch=False, max_iters=max_epochs)
    return Runner(
        model=ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Points(), sampler=dict(type='DefaultSampler', shuffle=True), **loader
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=dict(type='StepLR', step_size=1, gamma=0.5, end=100),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch, **checkpoint)
        ),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        resume=resume,
        load_from=None if load_from is None else str(load_from),
        experiment_name=f'toy_{time.monotonic_ns()}',
        **val,
    )


def checkpoints(work_dir):
    return sorted(
        name for name in os.listdir(work_dir) if name.endswith('.pth') or name.endswith('tmp')
    )


def pointer(work_dir):
    return (work_dir / 'last_checkpoint').read_text()


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_bit(path):
    """In the middle of the largest part, which is a tensor's."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        part = max(archive.infolist(), key=lambda info: info.file_size)
        content = archive.read(part)
    data = bytearray(path.read_bytes())
    start = bytes(data).index(content)
    data[start + len(content) // 2] ^= 4
    path.write_bytes(bytes(data))


@pytest.fixture
def warned(monkeypatch):
    messages = []
    real = MMLogger.warning
    monkeypatch.setattr(
        MMLogger,
        'warning',
        lambda self, text, *a, **k: (messages.append(str(text)), real(self, text, *a, **k)),
    )
    return messages


def test_takes_the_place_of_mmengines(tmp_path):
    assert HOOKS.get('CheckpointHook') is CheckpointHook
    runner = make_runner(tmp_path)
    (hook,) = [h for h in runner.hooks if 'Checkpoint' in type(h).__name__]
    assert type(hook) is CheckpointHook
    assert hook.priority == 'VERY_LOW'


def test_resume_equals_a_run_without_a_break(tmp_path):
    whole = make_runner(tmp_path / 'whole').train().state_dict()
    make_runner(tmp_path / 'parts', max_epochs=2).train()
    runner = make_runner(tmp_path / 'parts', resume=True)
    resumed = runner.train().state_dict()
    assert runner.epoch == 3
    for name, value in whole.items():
        assert torch.equal(value, resumed[name])
    loaded = make_runner(tmp_path / 'load', load_from=tmp_path / 'whole' / 'epoch_3.pth')
    loaded.load_or_resume()
    assert torch.equal(loaded.model.layer.weight, whole['layer.weight'])


def test_rotation_and_interval(tmp_path):
    make_runner(tmp_path, max_epochs=5, max_keep_ckpts=2).train()
    assert checkpoints(tmp_path) == ['epoch_4.pth', 'epoch_5.pth']
    assert pointer(tmp_path) == str(tmp_path / 'epoch_5.pth')
    make_runner(tmp_path, max_epochs=6, max_keep_ckpts=1, resume=True).train()
    assert checkpoints(tmp_path) == ['epoch_6.pth']


def test_by_iteration(tmp_path):
    make_runner(tmp_path, max_epochs=3, by_epoch=False, max_keep_ckpts=2).train()
    assert checkpoints(tmp_path) == ['iter_2.pth', 'iter_3.pth']
    truncate(tmp_path / 'iter_3.pth')
    runner = make_runner(tmp_path, max_epochs=4, by_epoch=False, resume=True)
    runner.call_hook('before_run')
    assert runner._load_from == str(tmp_path / 'iter_2.pth')


def test_other_folder_and_published_keys(tmp_path):
    work_dir, out_dir = tmp_path / 'run', tmp_path / 'out'
    options = dict(out_dir=str(out_dir), published_keys=['meta', 'state_dict'])
    make_runner(work_dir, max_epochs=2, **options).train()
    names = checkpoints(out_dir / 'run')
    assert names[0] == 'epoch_1.pth' and names[2] == 'epoch_2.pth'
    assert names[1].startswith('epoch_2-') and len(names) == 3
    published = torch.load(out_dir / 'run' / names[1], weights_only=True)
    assert set(published) == {'meta', 'state_dict'}
    truncate(out_dir / 'run' / 'epoch_2.pth')
    (work_dir / 'last_checkpoint').unlink()
    runner = make_runner(work_dir, resume=True, **options)
    runner.call_hook('before_run')
    assert runner._load_from == str(out_dir / 'run' / 'epoch_1.pth')


class DiskFull:
    """Fails the n-th time that bytes of a checkpoint go to the disk."""

    def __init__(self, monkeypatch, number):
        self.real, self.left = os.fsync, number
        monkeypatch.setattr(os, 'fsync', self)

    def __call__(self, descriptor):
        if osp.isfile(f'/proc/self/fd/{descriptor}'):
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real(descriptor)


# the 3rd and 4th write are those of epoch_2.pth and of the pointer to it
@pytest.mark.parametrize(
    'number, left',
    [
        (3, ['epoch_1.pth']),
        (4, ['epoch_1.pth', 'epoch_2.pth']),
    ],
)
def test_full_disk(tmp_path, monkeypatch, number, left):
    runner = make_runner(tmp_path, max_keep_ckpts=1)
    DiskFull(monkeypatch, number)
    with pytest.raises(OSError, match='No space left on device'):
        runner.train()
    monkeypatch.undo()
    assert checkpoints(tmp_path) == left
    assert pointer(tmp_path) == str(tmp_path / 'epoch_1.pth')
    for name in left:
        assert find_damage(str(tmp_path / name)) is None
    resumed = make_runner(tmp_path, resume=True, max_keep_ckpts=1)
    resumed.train()
    assert resumed.epoch == 3


def best_options(scores, **options):
    return dict(save_best='acc', rule='greater', scores=scores, **options)


def test_best(tmp_path):
    options = best_options([1.0, 2.0, 0.0], max_keep_ckpts=1)
    make_runner(tmp_path, **options).train()
    assert checkpoints(tmp_path) == ['best_acc_epoch_2.pth', 'epoch_3.pth']
    # the resumed run knows the best one, and replaces it
    options = best_options([3.0], max_keep_ckpts=1)
    make_runner(tmp_path, max_epochs=4, resume=True, **options).train()
    assert checkpoints(tmp_path) == ['best_acc_epoch_4.pth', 'epoch_4.pth']


def test_best_of_the_same_name(tmp_path):
    make_runner(tmp_path, max_epochs=2, **best_options([1.0, 2.0])).train()
    # epoch 2 again, from the first checkpoint that knows its best
    make_runner(
        tmp_path,
        max_epochs=2,
        resume=True,
        load_from=tmp_path / 'epoch_1.pth',
        **best_options([3.0]),
    ).train()
    assert checkpoints(tmp_path) == ['best_acc_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth']
    loaded = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert loaded['message_hub']['runtime_info']['best_ckpt'] == str(
        tmp_path / 'best_acc_epoch_2.pth'
    )


# writes: 1 2 epoch_1, 3 best_1, 4 5 epoch_1, 6 that epoch 1 is validated;
# 7 8 epoch_2, 9 best_2, 10 epoch_2
@pytest.mark.parametrize('number', [9, 10])
def test_full_disk_while_saving_the_best(tmp_path, monkeypatch, number):
    runner = make_runner(tmp_path, **best_options([1.0, 2.0, 3.0], max_keep_ckpts=1))
    DiskFull(monkeypatch, number)
    with pytest.raises(OSError, match='No space left on device'):
        runner.train()
    monkeypatch.undo()
    left = ['best_acc_epoch_1.pth', 'epoch_2.pth']
    if number == 10:
        left.insert(1, 'best_acc_epoch_2.pth')
    assert checkpoints(tmp_path) == left
    for name in left:
        assert find_damage(str(tmp_path / name)) is None
    # epoch 2 is validated once more, and is the best
    resumed = make_runner(tmp_path, resume=True, **best_options([2.0, 0.0], max_keep_ckpts=1))
    resumed.train()
    assert checkpoints(tmp_path) == ['best_acc_epoch_2.pth', 'epoch_3.pth']
    assert resumed.message_hub.get_info('best_ckpt') == str(tmp_path / 'best_acc_epoch_2.pth')


def test_several_best(tmp_path):
    runner = make_runner(
        tmp_path,
        scores=[dict(acc=1.0, auc=1.0), dict(acc=2.0, auc=0.0), dict(acc=0.0, auc=0.0)],
        save_best=['acc', 'auc'],
        rule='greater',
        max_keep_ckpts=1,
    )
    runner.train()
    assert checkpoints(tmp_path) == ['best_acc_epoch_2.pth', 'best_auc_epoch_1.pth', 'epoch_3.pth']


@pytest.mark.parametrize('harm, words', [(truncate, 'is truncated'), (flip_bit, 'checksum')])
def test_damaged_newest(tmp_path, warned, harm, words):
    make_runner(tmp_path).train()
    good = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    harm(tmp_path / 'epoch_3.pth')
    runner = make_runner(tmp_path, resume=True)
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert runner.epoch == 2
    assert torch.equal(runner.model.layer.weight, good['state_dict']['layer.weight'])
    (message,) = [text for text in warned if 'Resuming from' in text]
    assert str(tmp_path / 'epoch_3.pth') in message and words in message
    assert f'Resuming from {tmp_path / "epoch_2.pth"} instead' in message
    # through to the end, over the damaged file
    runner = make_runner(tmp_path, max_epochs=4, resume=True)
    runner.train()
    assert runner.epoch == 4
    assert find_damage(str(tmp_path / 'epoch_3.pth')) is None


def replace_by(content):

    def harm(path):
        path.unlink()
        if content is None:
            path.mkdir()
        else:
            torch.save(content, path)

    return harm


HUB = dict(log_scalars={}, runtime_info={}, resumed_keys={})


@pytest.mark.parametrize(
    'harm, words',
    [
        (replace_by(None), 'is a folder'),
        (replace_by([1]), 'has no `state_dict`'),
        (replace_by({'layer.weight': torch.ones(1, 2)}), 'has no `state_dict`'),
        (replace_by(dict(state_dict={}, meta={})), 'has no `message_hub.log_scalars`'),
        (
            replace_by(dict(state_dict={}, message_hub=HUB, meta=dict(iter=1))),
            'has no `meta.epoch`',
        ),
        (
            replace_by(dict(state_dict={}, message_hub=HUB, meta=dict(iter=1, epoch=-1))),
            'has no `meta.epoch`',
        ),
        (
            replace_by(dict(state_dict={}, message_hub=HUB, meta=dict(iter=1, epoch=1))),
            'has no `optimizer`',
        ),
        (replace_by(torch.nn.Linear(1, 1)), 'needs `torch.nn'),
    ],
)
def test_another_file_as_the_newest(tmp_path, warned, harm, words):
    make_runner(tmp_path).train()
    harm(tmp_path / 'epoch_3.pth')
    runner = make_runner(tmp_path, resume=True)
    runner.call_hook('before_run')
    assert runner._load_from == str(tmp_path / 'epoch_2.pth')
    (message,) = [text for text in warned if 'Resuming from' in text]
    assert words in message and len(message.splitlines()) == 1
    # the same by its name
    runner = make_runner(tmp_path, resume=True, load_from=tmp_path / 'epoch_3.pth')
    runner.call_hook('before_run')
    assert runner._load_from == str(tmp_path / 'epoch_2.pth')


def test_state_that_does_not_fit(tmp_path):
    make_runner(tmp_path, max_epochs=1).train()
    path = tmp_path / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['optimizer']['param_groups'] = []
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match='epoch_1.pth: its content'):
        make_runner(tmp_path, resume=True).train()


@pytest.mark.parametrize(
    'options, name', [({}, 'epoch'), (best_options([1, 2, 3, 4]), 'best_acc_epoch')]
)
def test_killed_before_the_old_ones_are_removed(tmp_path, monkeypatch, options, name):
    """What was about to be removed is removed when the run goes on."""
    from ride_mm.engine.hooks import checkpoint_hook

    options = dict(options, max_keep_ckpts=1)
    runner = make_runner(tmp_path, **options)
    carry_out = checkpoint_hook._DeferredRemovals.carry_out

    def killed(self, but):
        if (tmp_path / f'{name}_2.pth').exists():
            raise KeyboardInterrupt
        carry_out(self, but)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_hook._DeferredRemovals, 'carry_out', killed)
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    assert {f'{name}_1.pth', f'{name}_2.pth'} <= set(checkpoints(tmp_path))
    if 'scores' in options:
        # epoch 2 is validated once more
        options['scores'] = [2, -1]
    make_runner(tmp_path, max_epochs=3, resume=True, **options).train()
    last = ['best_acc_epoch_2.pth'] if 'scores' in options else []
    assert checkpoints(tmp_path) == [*last, 'epoch_3.pth']


def test_a_checkpoint_removes_nothing_else(tmp_path):
    """Whatever it says: only checkpoints by their names, in this folder."""
    options = dict(best_options([1, 2]), max_keep_ckpts=1)
    make_runner(tmp_path / 'a', max_epochs=2, **options).train()
    notes = tmp_path / 'b' / 'notes.txt'
    for best in (str(notes), str(tmp_path / 'a' / 'best_acc_epoch_2.pth')):
        shutil.rmtree(tmp_path / 'b', ignore_errors=True)
        shutil.copytree(tmp_path / 'a', tmp_path / 'b')
        notes.touch()
        path = tmp_path / 'b' / 'epoch_2.pth'
        checkpoint = torch.load(path, weights_only=False)
        checkpoint['message_hub']['runtime_info'].update(
            best_ckpt=best, outdated_ckpts=['notes.txt', '../a/epoch_2.pth', 3]
        )
        torch.save(checkpoint, path)
        (tmp_path / 'b' / 'last_checkpoint').write_text(str(path))
        make_runner(tmp_path / 'b', resume=True, **dict(options, scores=[9])).train()
        assert notes.exists()
        assert checkpoints(tmp_path / 'a') == ['best_acc_epoch_2.pth', 'epoch_2.pth']
    assert checkpoints(tmp_path / 'b') == ['best_acc_epoch_3.pth', 'epoch_3.pth']


def test_what_the_user_keeps_stays(tmp_path, monkeypatch):
    make_runner(tmp_path, max_keep_ckpts=1).train()
    for name in ('epoch_1.pth', 'epoch_7.pth', 'best_acc_epoch_1.pth'):
        shutil.copy(tmp_path / 'epoch_3.pth', tmp_path / name)
    make_runner(tmp_path, max_epochs=4, resume=True, max_keep_ckpts=1).train()
    assert checkpoints(tmp_path) == [
        'best_acc_epoch_1.pth',
        'epoch_1.pth',
        'epoch_4.pth',
        'epoch_7.pth',
    ]


def test_two_damaged(tmp_path, warned):
    make_runner(tmp_path, max_epochs=11).train()
    truncate(tmp_path / 'epoch_11.pth')
    (tmp_path / 'epoch_10.pth').write_bytes(b'')
    runner = make_runner(tmp_path, max_epochs=12, resume=True)
    runner.call_hook('before_run')
    assert runner._load_from == str(tmp_path / 'epoch_9.pth')
    (message,) = [text for text in warned if 'Resuming from' in text]
    assert 'epoch_11.pth' in message and 'epoch_10.pth is empty' in message


@pytest.mark.parametrize('text', ['', '/moved/away/epoch_2.pth', None])
def test_bad_pointer(tmp_path, warned, text):
    make_runner(tmp_path, max_epochs=2).train()
    if text is None:
        (tmp_path / 'last_checkpoint').unlink()
    else:
        (tmp_path / 'last_checkpoint').write_text(text)
    runner = make_runner(tmp_path, resume=True)
    runner.call_hook('before_run')
    assert runner._load_from == str(tmp_path / 'epoch_2.pth')
    (message,) = [text for text in warned if 'Resuming from' in text]
    assert 'is empty' in message or 'does not exist' in message


def test_nothing_whole_is_an_error(tmp_path):
    make_runner(tmp_path, max_epochs=2).train()
    truncate(tmp_path / 'epoch_1.pth')
    truncate(tmp_path / 'epoch_2.pth')
    runner = make_runner(tmp_path, resume=True)
    with pytest.raises(CheckpointError) as caught:
        runner.train()
    message = str(caught.value)
    assert 'epoch_1.pth' in message and 'epoch_2.pth' in message
    assert 'no other checkpoint' in message and '\n' not in message
    # a pointer alone as well
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'last_checkpoint').write_text('gone/epoch_1.pth')
    with pytest.raises(CheckpointError, match='gone/epoch_1.pth does not'):
        make_runner(other, resume=True).train()


def test_nothing_to_resume_starts_anew(tmp_path):
    runner = make_runner(tmp_path, max_epochs=1, resume=True)
    runner.train()
    assert runner.epoch == 1


def test_named_checkpoint(tmp_path):
    make_runner(tmp_path / 'a').train()

    def choose(path, work_dir='a'):
        runner = make_runner(tmp_path / work_dir, resume=True, load_from=tmp_path / path)
        runner.call_hook('before_run')
        return runner._load_from

    # whole: as it was named
    assert choose('a/epoch_1.pth') == str(tmp_path / 'a' / 'epoch_1.pth')
    # damaged, of this run: only an older one
    truncate(tmp_path / 'a' / 'epoch_2.pth')
    assert choose('a/epoch_2.pth') == str(tmp_path / 'a' / 'epoch_1.pth')
    truncate(tmp_path / 'a' / 'epoch_1.pth')
    with pytest.raises(CheckpointError, match='no other checkpoint'):
        choose('a/epoch_1.pth')
    # damaged, of another run, or none at all: nothing else is meant
    with pytest.raises(CheckpointError, match='epoch_2.pth is truncated'):
        choose('a/epoch_2.pth', work_dir='b')
    with pytest.raises(CheckpointError, match='epoch_9.pth does not exist'):
        choose('a/epoch_9.pth')


def test_all_ranks_take_the_choice_of_rank_0(tmp_path, monkeypatch):
    from ride_mm.engine.hooks import checkpoint_hook, main_process

    monkeypatch.setattr(main_process, 'is_main_process', lambda: False)
    monkeypatch.setattr(checkpoint_hook, 'find_resume_problem', None)
    for sent in (['x.pth', None], [None, CheckpointError('broken')]):

        def receive(data):
            data[:] = sent

        monkeypatch.setattr(main_process, 'broadcast_object_list', receive)
        runner = make_runner(tmp_path, resume=True)
        if sent[0]:
            runner.call_hook('before_run')
            assert runner._load_from == 'x.pth'
        else:
            with pytest.raises(CheckpointError, match='broken'):
                runner.call_hook('before_run')


def test_config_text_in_a_checkpoint_is_not_run(tmp_path):
    make_runner(tmp_path, max_epochs=1).train()
    marker, path = tmp_path / 'marker', tmp_path / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    code = f'open({str(marker)!r}, "w").close()\n'
    checkpoint['meta'].update(config=code, cfg=code)
    checkpoint['message_hub']['runtime_info'].update(cfg=code)
    torch.save(checkpoint, path)
    runner = make_runner(tmp_path, max_epochs=2, resume=True)
    runner.train()
    assert runner.epoch == 2 and not marker.exists()
    # it is code that would have run
    Config.fromstring(code, file_format='.py')
    assert marker.exists()


def test_hostile_checkpoint_is_not_resumed(tmp_path, monkeypatch):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    make_runner(tmp_path, max_epochs=1).train()
    marker, path = tmp_path / 'marker', tmp_path / 'epoch_1.pth'

    class Payload:
        def __reduce__(self):
            return exec, (f'open({str(marker)!r}, "w").close()',)

    checkpoint = torch.load(path, weights_only=False)
    checkpoint['message_hub']['runtime_info']['payload'] = Payload()
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match='builtins.exec'):
        make_runner(tmp_path, max_epochs=2, resume=True).train()
    assert not marker.exists()
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    with pytest.warns(UserWarning, match='builtins.exec'):
        make_runner(tmp_path, max_epochs=2, resume=True).train()
    assert marker.exists()


def train_until_the_third_write(work_dir, ready):
    fsync, writes = os.fsync, []

    def stop_in_the_third(descriptor):
        if osp.isfile(f'/proc/self/fd/{descriptor}'):
            writes.append(descriptor)
            if len(writes) == 3:
                os.ftruncate(descriptor, 1000)
                ready.set()
                time.sleep(600)
        fsync(descriptor)

    os.fsync = stop_in_the_third
    make_runner(work_dir, max_keep_ckpts=1).train()


@pytest.mark.skipif(not osp.isdir('/proc/self/fd'), reason='needs /proc to tell the files')
def test_killed_while_writing(tmp_path):
    work_dir = tmp_path / 'run'
    context = multiprocessing.get_context('forkserver')
    ready = context.Event()
    child = context.Process(target=train_until_the_third_write, args=(work_dir, ready))
    child.start()
    try:
        assert ready.wait(120)
    finally:
        child.kill()
        child.join()
    # epoch_2.pth was half-written when the process ended
    left = checkpoints(work_dir)
    assert len(left) == 2 and left[1] == 'epoch_1.pth'
    assert left[0].startswith('.epoch_2.pth.')
    assert pointer(work_dir) == str(work_dir / 'epoch_1.pth')
    assert find_damage(str(work_dir / 'epoch_1.pth')) is None
    runner = make_runner(work_dir, resume=True, max_keep_ckpts=1)
    runner.call_hook('before_run')
    assert runner._load_from is None
    runner.train()
    assert runner.epoch == 3
    assert checkpoints(work_dir) == ['epoch_3.pth']


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(save_best='acuracy'), "save_best=.'acuracy'.*Cannot infer the rule"),
        (dict(save_best='acc', rule='more'), "rule=.'more'.*must be greater"),
    ],
)
def test_what_cannot_be_the_best(options, message):
    with pytest.raises(UserError, match=message):
        CheckpointHook(**options)
