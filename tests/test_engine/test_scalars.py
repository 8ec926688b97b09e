import json

import pytest

from ride_mm.engine.scalars import read_curves
from ride_mm.utils.errors import UserError


def write(folder, name, *records, end=''):
    path = folder / name / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, records)) + '\n' + end)
    return path


def step(epoch, number, **losses):
    return dict(lr=0.1, **losses, time=1.0, epoch=epoch, iter=number, step=1)


def val(epoch, accuracy):
    return {'long_tail/overall': accuracy, 'time': 1.0, 'step': epoch}


def test_pieces_are_merged_by_epoch(tmp_path):
    write(
        tmp_path,
        '20260101_000000',
        step(1, 10, loss=3.0, loss_cls=4.0),
        step(1, 20, loss=5.0, loss_cls=5.0),
        val(1, 10.0),
        step(2, 30, loss=9.0, loss_cls=9.0),
        val(2, 99.0),
        # killed while it wrote
        end='{"lr": 0.',
    )
    last = write(
        tmp_path,
        '20260102_000000',
        step(2, 30, loss=2.0, loss_cls=1.0),
        val(2, 20.0),
        step(3, 40, loss=0.5, loss_router=0.5),
    )
    write(tmp_path, '20260103_000000', val(0, 50.0))  # a test
    curves = read_curves(tmp_path)
    assert curves.losses == {
        1: dict(loss=4.0, loss_cls=4.5),
        2: dict(loss=2.0, loss_cls=1.0),
        3: dict(loss=0.5, loss_router=0.5),
    }
    assert curves.metrics == {1: {'long_tail/overall': 10.0}, 2: {'long_tail/overall': 20.0}}
    assert curves.config == last.with_name('config.py')
    assert curves.router_begin == 2


def test_stages(tmp_path):
    write(tmp_path, 'a', step(1, 1, loss_cls=1.0))
    assert read_curves(tmp_path).router_begin is None
    write(tmp_path, 'b', step(1, 1, loss_router=1.0))
    assert read_curves(tmp_path).router_begin == 0


def test_no_training_by_epochs(tmp_path):
    assert read_curves(tmp_path) is None
    write(tmp_path, 'a', val(0, 50.0))
    write(tmp_path, 'b', dict(loss=1.0, iter=10, step=10), val(10, 50.0))
    assert read_curves(tmp_path) is None


def test_a_broken_line_is_named(tmp_path):
    path = write(tmp_path, 'a', step(1, 1, loss=1.0))
    path.write_text('{"lr"\n' + path.read_text())
    with pytest.raises(UserError, match='scalars.json, line 1'):
        read_curves(tmp_path)


@pytest.mark.parametrize(
    'record',
    [
        [1],
        {'loss': 1.0},
        {'loss': 'low', 'iter': 1, 'epoch': 1},
        {'loss': 1.0, 'iter': 1, 'epoch': 'one'},
        {'long_tail/overall': None, 'step': 1},
    ],
)
def test_a_record_of_something_else_is_named(tmp_path, record):
    write(tmp_path, '20260101_000000', step(1, 10, loss=3.0), record)
    with pytest.raises(UserError, match='scalars.json, line 2: expected'):
        read_curves(tmp_path)


def test_a_line_that_is_no_text_is_named(tmp_path):
    path = write(tmp_path, '20260101_000000', step(1, 10, loss=3.0))
    path.write_bytes(b'\xff\n' + path.read_bytes())
    with pytest.raises(UserError, match='scalars.json, line 1'):
        read_curves(tmp_path)
