"""The command ride-mm."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT, load_tool

from ride_mm.cli import find_commands, main, summary, tool_parser

TOOLS = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.glob('tools/**/*.py'))}
COMMANDS = [name for name, path in TOOLS.items() if '\ndef main(' in path.read_text()]
# Its options are pip's.
COMMANDS.remove('tools/setup_env.py')


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


@pytest.mark.parametrize('name', COMMANDS)
def test_help_ends_with_an_example(name, capsys):
    with pytest.raises(SystemExit):
        load_tool(name).main(['--help'])
    text = capsys.readouterr().out
    example = text[text.index('\nexample:\n') :].replace('\\\n', ' ')
    commands = [
        find_tool(line) for line in re.findall(r'^  ((?:python|bash|ride-mm) .*)', example, re.M)
    ]
    assert name in [tool for tool, *_ in commands]
    for tool, *arguments in commands:
        assert tool_parser(TOOLS[tool]).parse_args(arguments)


def find_tool(line):
    """The tool of an example, and its arguments."""
    words = shlex.split(line.replace(' ...', ''), comments=True)
    if words[0] == 'ride-mm':
        return [str(find_commands()[words[1]].relative_to(ROOT)), *words[2:]]
    if words[0] == 'bash':  # dist_train.sh CONFIG GPUS
        return ['tools/train.py', words[2], *words[4:]]
    return [re.sub(r'.*/predict.py', 'tools/predict.py', words[1]), *words[2:]]


@pytest.fixture(scope='module')
def script(tmp_path_factory):
    pytest.importorskip('shtab')
    command = [sys.executable, '-m', 'ride_mm.cli', '--print-completion', 'bash']
    path = tmp_path_factory.mktemp('completion') / 'ride-mm.bash'
    path.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return path


@pytest.mark.parametrize(
    'words, expected',
    [
        (['trai'], ['train']),
        (['train', '--launcher', 's'], ['slurm']),
        (['test', '--all'], ['--all-experts']),
        (['train', 'ride_mm::ride_r32_dig'], ['ride_mm::ride_r32_digits_lt']),
        (['train', 'configs/ride_r32_dig'], ['configs/ride_r32_digits_lt.py']),
        (['fit'], ['fit-sets', 'fit-temperature']),
        (['train', '_base_'], []),
    ],
)
def test_completion(words, expected, script, root):
    line = f'''source {script}
COMP_WORDS=(ride-mm {' '.join(words)}) COMP_CWORD={len(words)}
_shtab_ride_mm 2> /dev/null; printf '%s\\n' "${{COMPREPLY[@]}}"'''
    run = subprocess.run(['bash', '-c', line], cwd=root, capture_output=True, text=True)
    assert run.stdout.split() == expected


def test_completion_of_an_unknown_shell(monkeypatch, capsys):
    pytest.importorskip('shtab')
    with pytest.raises(SystemExit):
        call(monkeypatch, '--print-completion', 'bsh')
    error = capsys.readouterr().err
    assert error.startswith('error: --print-completion needs one of bash, zsh')
    assert error.endswith("found 'bsh'\n")


def test_completion_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    with pytest.raises(SystemExit):
        call(monkeypatch, '--print-completion', 'bash')
    assert "pip install 'ride_mm[completion]'" in capsys.readouterr().err
