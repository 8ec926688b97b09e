import errno
import os

import pytest

from ride_mm.utils.files import remove_leftovers, write_file


@pytest.mark.parametrize('step', ['write', 'fsync', 'replace'])
@pytest.mark.parametrize('exists', [True, False])
def test_full_disk(tmp_path, monkeypatch, step, exists):
    path = tmp_path / 'x.bin'
    if exists:
        path.write_bytes(b'old')
    before = os.listdir(tmp_path)

    def fail(*args):
        # the first half is on the disk already
        assert len(os.listdir(tmp_path)) == len(before) + 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == 'write':
        content = memoryview(b'new')
        monkeypatch.setattr('builtins.open', _opens_full(open))
    else:
        content = b'new'
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match='No space left.*x.bin') as caught:
        write_file(path, content)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert os.listdir(tmp_path) == before
    if exists:
        assert path.read_bytes() == b'old'


def _opens_full(real_open):

    def opens(path, mode='r', **kwargs):
        file = real_open(path, mode, **kwargs)
        if 'x' not in mode:
            return file

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def write(self, content):
                file.write(content[:1])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return Full()

    return opens


def test_link_mode_and_long_name(tmp_path):
    target, link = tmp_path / 'target', tmp_path / 'link'
    target.write_bytes(b'old')
    link.symlink_to(target)
    write_file(link, b'new')
    assert link.is_symlink() and target.read_bytes() == b'new'
    plain = tmp_path / 'plain'
    plain.write_bytes(b'')
    assert target.stat().st_mode == plain.stat().st_mode
    name = tmp_path / ('n' * 250)
    write_file(name, b'new')
    assert name.read_bytes() == b'new'
    write_file(os.devnull, b'gone')
    assert not os.path.isfile(os.devnull)


def test_leftovers(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'remove', lambda path: None)
    monkeypatch.setattr(os, 'replace', _killed)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / 'epoch_1.pth', b'half')
    monkeypatch.undo()
    (tmp_path / '.other.tmp').touch()
    (tmp_path / 'epoch_2.pth').touch()
    assert len(os.listdir(tmp_path)) == 3
    assert len(remove_leftovers(str(tmp_path))) == 1
    assert sorted(os.listdir(tmp_path)) == ['.other.tmp', 'epoch_2.pth']


def _killed(*args):
    raise KeyboardInterrupt
