import os

from mmengine import fileio
from mmengine.fileio import FileClient, LocalBackend, get_file_backend

from ride_mm.compat.atomic_backend import AtomicLocalBackend, install_atomic_backend

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
