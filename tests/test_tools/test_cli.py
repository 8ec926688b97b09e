"""The command ride-mm."""

import sys

import pytest

from ride_mm.cli import find_commands, main, summary


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['ride-mm', *arguments])
    main()


def test_every_tool_is_a_command(root):
    commands = find_commands()
    assert list(commands)[:3] == ['init', 'check-data', 'train']
    tools = {
        path
        for folder in ('tools', 'tools/analysis', 'tools/decoupling')
        for path in (root / folder).glob('*.py')
    }
    others = {root / 'tools/setup_env.py', root / 'tools/mmpretrain_tool.py'}
    assert {path.resolve() for path in commands.values()} == tools - others
    for path in commands.values():
        assert summary(path)
        assert '\ndef main(' in path.read_text()


@pytest.mark.parametrize('arguments', [(), ('--help',), ('-h',)])
def test_list_of_commands(arguments, monkeypatch, capsys):
    call(monkeypatch, *arguments)
    found = capsys.readouterr().out
    assert 'usage: ride-mm COMMAND' in found
    assert '  train ' in found and 'Train a model' in found and '  get-flops' in found


def test_help_of_a_command(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, 'get-flops', '--help')
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith('usage: ride-mm get-flops [-h]')


def test_a_command_runs(root, monkeypatch, capsys):
    call(monkeypatch, 'get-flops', str(root / 'configs/ride_r32_digits_lt.py'), '--shape', '16')
    assert 'router' in capsys.readouterr().out


def test_unknown_command(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, 'trian', 'x.py')
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error == (
        "error: ride-mm has no command 'trian'. Did you mean 'train'? See ride-mm --help\n"
    )
