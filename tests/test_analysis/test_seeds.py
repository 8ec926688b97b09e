"""Figures of runs with several seeds, and the page that is made of them."""

import importlib
import json

import pytest

from ride_mm.analysis.comparison.seeds import mean_text, read_seeds
from ride_mm.utils.errors import UserError


def write(folder, name, seed, overall, **stages):
    figures = {
        stage: {'epoch': epoch, 'long_tail/overall': overall}
        for stage, epoch in dict(stages, final=5).items()
    }
    path = folder / f'{name}_seed{seed}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            dict(
                name=name,
                seed=seed,
                figures=figures,
                command=f'run {name}',
                training_seconds=120,
                pieces=[dict(machine='a machine', torch='2.4')],
            )
        )
    )
    return path


def test_means_over_seeds(tmp_path):
    paths = [
        write(tmp_path, 'ride', seed, value, stage_1=4)
        for seed, value in enumerate((40.0, 42.0, 41.0))
    ]
    results = read_seeds(paths)['ride']
    assert mean_text(results, 'final', 'long_tail/overall') == '41.0 ± 1.0'
    assert mean_text(results[:1], 'stage_1', 'long_tail/overall') == '40.0'
    assert mean_text(results, 'final', 'experts/compute') == ''
    (tmp_path / 'other.json').write_text('{"name": "x"}')
    with pytest.raises(UserError, match="other.json: .*'figures'"):
        read_seeds([tmp_path / 'other.json'])


@pytest.fixture
def page(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'docs')
    return importlib.import_module('make_results')


def test_page(page, tmp_path):
    folder = tmp_path / 'results'
    for seed, value in enumerate((40.0, 42.0)):
        write(folder, 'ride_amp', seed, value, stage_1=4)
    write(folder, 'ride', 0, 39.0)
    (folder / 'quoted.json').write_text(
        json.dumps(
            dict(
                quoted=[
                    dict(
                        name='ride_amp',
                        method='RIDE',
                        all=48.6,
                        source='a paper',
                        link='https://paper',
                    )
                ]
            )
        )
    )
    text = page.make_page(tmp_path)
    lines = [line for line in text.splitlines() if line.startswith('| `')]
    assert [line.split(' | ')[:4] for line in lines] == [
        ['| `ride`', '1', '5', '39.0'],
        ['| `ride_amp`, all experts', '2', '4', '41.0 ± 1.4'],
        ['| `ride_amp`, routed', '2', '5', '41.0 ± 1.4'],
    ]
    assert '| *RIDE* |  |  | *48.6* |' in text.split('`ride_amp`, routed')[1]
    assert '```bash\nrun ride_amp\n```' in text
    assert '(../results/ride_seed0.json): 2 min of training' in text
    assert 'ten epochs' not in text


def test_page_is_that_of_the_results(page, root):
    assert (root / 'docs/results.md').read_text() == page.make_page(root)
