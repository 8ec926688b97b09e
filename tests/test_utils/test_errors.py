import errno

import pytest

from ride_mm.utils.errors import UserError, name_some, nearest, run_tool, user_message


def test_nearest():
    stages = ['experts', 'router']
    assert nearest('expets', stages) == " Did you mean 'experts'?"
    assert nearest('unlike', stages) == ''
    assert nearest('num_stages', ['frozen_stages'], cutoff=0.85) == ''


def test_name_some():
    assert name_some(range(10)).endswith('8, 9')
    assert name_some(range(12)).endswith('8, 9 and 2 more')


def wrapped_as_by_a_registry():
    try:
        raise UserError('topk=50 is larger than num_classes=10.')
    except Exception as error:
        raise type(error)(f'class `RIDEHead` in ride_head.py: {error}')


def test_user_message_is_the_innermost():
    with pytest.raises(UserError) as info:
        wrapped_as_by_a_registry()
    assert str(info.value).startswith('class `RIDEHead`')
    assert user_message(info.value) == 'topk=50 is larger than num_classes=10.'


def test_user_message_keeps_a_message_that_is_better_than_its_cause():
    try:
        try:
            raise UserError('no such key')
        except UserError as error:
            raise UserError('model.head: no such key, see docs') from error
    except UserError as error:
        assert user_message(error).endswith('see docs')


def test_user_message_keeps_the_file_before_a_message():
    try:
        try:
            raise UserError('it has no state_dict')
        except UserError as error:
            raise UserError(f'x.pth: {error}') from error
    except UserError as error:
        assert user_message(error) == 'x.pth: it has no state_dict'


def test_run_tool_ends_a_user_error_in_one_line(capsys, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.delenv('RIDE_MM_DEBUG', raising=False)
    with pytest.raises(SystemExit) as info:
        run_tool(wrapped_as_by_a_registry)
    assert info.value.code == 2
    assert capsys.readouterr().err == ('error: topk=50 is larger than num_classes=10.\n')


def test_run_tool_ends_what_the_system_refuses_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.delenv('RIDE_MM_DEBUG', raising=False)
    with pytest.raises(SystemExit):
        run_tool(tmp_path.read_text)
    assert capsys.readouterr().err == f'error: {tmp_path}: Is a directory\n'

    def full():
        raise OSError(errno.ENOSPC, 'No space left on device')

    with pytest.raises(SystemExit):
        run_tool(full)
    assert capsys.readouterr().err == ('error: a file: No space left on device\n')

    def interrupted():
        raise TimeoutError('of a process group')

    with pytest.raises(TimeoutError):
        run_tool(interrupted)


def test_run_tool_keeps_the_trace_on_request(monkeypatch):
    monkeypatch.setenv('RIDE_MM_DEBUG', '1')
    with pytest.raises(UserError):
        run_tool(wrapped_as_by_a_registry)


def test_run_tool_keeps_other_errors():

    def main():
        raise KeyError('a bug')

    with pytest.raises(KeyError):
        run_tool(main)
