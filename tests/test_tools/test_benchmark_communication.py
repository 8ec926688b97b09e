import json
import subprocess
import sys

import pytest


@pytest.fixture
def communication(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'tools/benchmark')
    import communication
    return communication


def test_counted_bytes_are_those_on_paper(root, tmp_path):
    report = tmp_path / 'report.json'
    result = subprocess.run([
        sys.executable, 'tools/benchmark/communication.py',
        'configs/ride_r32_digits_lt.py', '--gpus', '4', '--json',
        str(report)
    ],
                            cwd=root,
                            capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'counted, two gloo processes' in result.stdout
    found = json.loads(report.read_text())
    assert found['bytes_counted'] == found['bytes_on_paper']
    # A router: 2 x (48 + 1) x 16 hidden weights, then 10 logits and 16.
    assert found['bytes_counted']['router'] == 4 * (2 * 49 * 16 + 27 + 1)
    # ResNet-32 with 3 experts and 100 classes has 783,856 parameters.
    assert found['bytes_counted']['experts'] == 4 * (783856 - 3 * 48 * 90 + 1)


def test_ring(communication):
    """Four GPUs, four parts: three sent to sum, three to hand round."""
    seconds = communication.ring_seconds(4 * 5e9, gpus=4, bandwidth=10e9)
    assert seconds == pytest.approx((3 + 3) * 5e9 / 10e9)
