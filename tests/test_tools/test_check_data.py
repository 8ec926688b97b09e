import json

import numpy as np
import pytest
from conftest import load_tool
from PIL import Image

from ride_mm.utils.errors import UserError


@pytest.fixture
def run(capsys):

    def run(*args):
        code = 0
        try:
            load_tool('tools/check_data.py').main([str(arg) for arg in args])
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def images(tmp_path):
    """Two classes with four and two training images, and one validation image each."""
    random = np.random.default_rng(0)
    for name in (
        'train/cat/0',
        'train/cat/1',
        'train/cat/2',
        'train/cat/3',
        'train/dog/0',
        'train/dog/1',
        'val/cat/9',
        'val/dog/9',
    ):
        path = tmp_path / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path


def test_nothing_to_fix(run, images):
    code, out = run(images)
    assert code == 0 and 'Nothing to fix' in out
    row = next(line for line in out.splitlines() if '| train' in line)
    cells = [cell.strip() for cell in row.split('|')]
    assert cells[2:6] == ['6', '2 of 2', '4', '2']
    row = next(line for line in out.splitlines() if '| few (< 20)' in line)
    assert [cell.strip() for cell in row.split('|')][2:5] == ['2', '6', '2']


def test_all_that_may_be_wrong(run, images):
    (images / 'train/cat/1.png').write_bytes((images / 'train/dog/1.png').read_bytes())
    (images / 'val/dog/9.png').write_bytes((images / 'train/dog/0.png').read_bytes())
    (images / 'train/cat/2.png').write_bytes(b'')
    (images / 'train/cat/notes.txt').touch()
    found = images / 'found.json'
    code, out = run(images, '--json', found)
    assert code == 1
    for words in (
        'images that cannot be read: 1',
        'images under several labels, by their content: 1',
        'images of val that are in train as well, by their conten',
        'leaves out 1 file without an image extension (1 .txt)',
        str(images / 'train/cat/2.png'),
        'What to do: ',
    ):
        assert words in out
    written = json.loads(found.read_text())
    errors = [finding['error'] for finding in written['findings']]
    assert errors == [False] + 3 * [True]
    train, val = written['splits']
    assert train['class_counts'] == dict(cat=4, dog=2)
    assert val['groups'] == dict(few=dict(classes=2, images=2))


def test_a_list_names_its_lines(run, images):
    (images / 'train.txt').write_text('cat/0.png 0\n\ndog/0.png 1\ncat/0.png 1\n')
    config = images / 'config.py'
    config.write_text(f"""
train_dataloader = dict(dataset=dict(
    type='LongTailList', data_root={str(images)!r}, ann_file='train.txt',
    data_prefix='train'))
""")
    code, out = run(config)
    assert code == 1
    assert f'{images}/train.txt:4: {images}/train/cat/0.png' in out


def test_data_that_cannot_be_loaded(run, images):
    (images / 'train/eel').mkdir()
    code, out = run(images)
    assert code == 1 and 'ERROR (train)' in out and 'eel' in out


def test_all_lines_of_a_list_that_cannot_be_loaded(run, images):
    (images / 'train.txt').write_text('cat/0.png 0\ndog/0.png\neel/1.png x\n')
    config = images / 'config.py'
    config.write_text(f"""
train_dataloader = dict(dataset=dict(
    type='LongTailList', data_root={str(images)!r}, ann_file='train.txt',
    data_prefix='train'))
val_dataloader = dict(dataset=dict(
    type='LongTailList', data_root={str(images)!r}, data_prefix='val',
    class_counts='train'))
val_evaluator = dict(type='LongTailMetric', thresholds=(3, 4))
""")
    code, out = run(config)
    assert code == 1
    for line in (2, 3):
        assert f'{images}/train.txt:{line}: ' in out
    assert '| medium (3 to 4)' in out  # The other split is shown.


def test_classes_of_the_head(run, images):
    config = images / 'config.py'
    data = dict(type='LongTailList', data_root=str(images))
    text = f"""
model = dict(head=dict(num_classes=%d))
train_dataloader = dict(dataset=dict({data}, data_prefix='train'))
"""
    config.write_text(text % 2)
    assert run(config)[0] == 0
    config.write_text(text % 12)
    code, out = run(config)
    assert code == 1
    assert 'model.head.num_classes=12, but the data has 2 classes' in out


def test_a_users_mistake(images):
    for args, words in (
        ([images / 'none.py'], 'there is no config'),
        ([images, '--json', images / 'found.txt'], '.json'),
    ):
        with pytest.raises(UserError, match=words):
            load_tool('tools/check_data.py').main([str(arg) for arg in args])
