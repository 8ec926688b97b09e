import io
import sys

from ride_mm.utils.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_is_for_terminals_only(monkeypatch, capsys):
    assert list(track(range(3), 'Counting')) == [0, 1, 2]
    assert capsys.readouterr() == ('', '')

    terminal = Terminal()
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setattr(sys, 'stderr', terminal)
    assert list(track(iter(range(3)), 'Counting', 3)) == [0, 1, 2]
    assert 'Counting' in terminal.getvalue()
    assert capsys.readouterr().out == ''
