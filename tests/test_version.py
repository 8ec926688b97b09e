"""The packages that this one stands on."""

from types import SimpleNamespace

import pytest

from ride_mm import version


def check(found):
    package = SimpleNamespace(__name__='mmcv', __version__=found)
    version.check_versions([(package, '2.0.1', '2.4.0')])


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Versions by name, of what is installed."""
    installed = {}
    monkeypatch.setattr(version, 'version', installed.get)
    return installed


@pytest.mark.parametrize('found', ['2.0.1', '2.2.0', '2.3.6'])
def test_supported(found):
    check(found)


@pytest.mark.parametrize('found', ['2.0.0', '1.7.2', '2.4.0'])
def test_not_supported(found):
    with pytest.raises(ImportError, match='mmcv>=2.0.1, <2.4.0, found'):
        check(found)


def test_a_fork_goes_on_counting(installed):
    installed['onedl-mmcv'] = '2.4.0'
    check('2.4.0')
    with pytest.raises(ImportError, match='found 2.0.0'):
        check('2.0.0')
