import errno
import os

import pytest
from mmengine import fileio
from mmengine.fileio import FileClient, LocalBackend, get_file_backend

from ride_mm.compat.atomic_backend import (
    AtomicLocalBackend,
    install_atomic_backend,
    remove_leftovers,
)

install_atomic_backend()


def test_takes_the_place_of_the_local_backend(tmp_path):
    path = str(tmp_path / 'a' / 'b.bin')
    for backend in (
        get_file_backend(path),
        get_file_backend(''),
        get_file_backend(backend_args=dict(backend='local')),
        get_file_backend(path, enable_singleton=True),
    ):
        assert type(backend) is AtomicLocalBackend
    fileio.put(b'one', path)
    fileio.put_text('zw\u00f6lf', path + '.txt')
    assert fileio.get(path) == b'one'
    assert fileio.get_text(path + '.txt') == 'zw\u00f6lf'
    assert fileio.join_path('a', 'b') == os.path.join('a', 'b')
    assert sorted(os.listdir(tmp_path / 'a')) == ['b.bin', 'b.bin.txt']
    client = FileClient.infer_client(None, path)
    client.put(b'two', path)
    assert client.get(path) == b'two'


def test_replaces_cached_backends(monkeypatch):
    monkeypatch.setitem(fileio.io.backend_instances, ':{}', LocalBackend())
    install_atomic_backend()
    assert type(get_file_backend('x', enable_singleton=True)) is AtomicLocalBackend


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
        AtomicLocalBackend().put(content, path)
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
    AtomicLocalBackend().put(b'new', link)
    assert link.is_symlink() and target.read_bytes() == b'new'
    plain = tmp_path / 'plain'
    plain.write_bytes(b'')
    assert target.stat().st_mode == plain.stat().st_mode
    name = tmp_path / ('n' * 250)
    AtomicLocalBackend().put(b'new', name)
    assert name.read_bytes() == b'new'
    AtomicLocalBackend().put(b'gone', os.devnull)
    assert not os.path.isfile(os.devnull)


def test_leftovers(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'remove', lambda path: None)
    monkeypatch.setattr(os, 'replace', _killed)
    with pytest.raises(KeyboardInterrupt):
        AtomicLocalBackend().put(b'half', tmp_path / 'epoch_1.pth')
    monkeypatch.undo()
    (tmp_path / '.other.tmp').touch()
    (tmp_path / 'epoch_2.pth').touch()
    assert len(os.listdir(tmp_path)) == 3
    assert len(remove_leftovers(str(tmp_path))) == 1
    assert sorted(os.listdir(tmp_path)) == ['.other.tmp', 'epoch_2.pth']


def _killed(*args):
    raise KeyboardInterrupt
