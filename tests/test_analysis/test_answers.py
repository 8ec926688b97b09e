"""The page of answers is that of the comparisons in results/answers/."""

import importlib
import json

import pytest


@pytest.fixture
def page(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'docs')
    return importlib.import_module('make_answers')


def comparison(page, **differences):
    """What compare.py writes, of RIDE against cross entropy."""
    figures = {
        figure: dict(difference=value, low=value - 1, high=value + 1, verdict=verdict)
        for (figure, value), verdict in zip(
            differences.items(), ('better', 'not told apart', 'worse', 'not told apart')
        )
    }
    mean = dict.fromkeys(page.FIGURES, 40.0)
    return dict(
        baseline='CE',
        methods=dict(
            CE=dict(mean=mean, deviation=dict.fromkeys(mean, 0.25)),
            RIDE=dict(
                mean={key: 40 + value for key, value in differences.items()},
                deviation=dict.fromkeys(mean),
            ),
        ),
        differences=dict(RIDE=dict(figures=figures)),
    )


def test_page(page, tmp_path):
    folder = tmp_path / 'results/answers'
    folder.mkdir(parents=True)
    found = comparison(page, overall=2.0, many=0.5, medium=-3.0, few=-0.25)
    (folder / 'methods.json').write_text(json.dumps(found))
    text = page.make_page(tmp_path)
    assert text.count('\n## ') == 1
    assert f'## {page.QUESTIONS["methods"]}\n' in text
    assert (
        '- RIDE against CE: better: all +2.0 (+1.0 to +3.0); worse: medium -3.0 (-4.0 to -2.0); '
        'no difference seen: many, few.\n'
    ) in text
    assert '| CE | 40.0 ± 0.2 | 40.0 ± 0.2 |' in text
    assert '| RIDE | 42.0<br>+2.0 (+1.0 to +3.0) | 40.5<br>' in text


def test_page_is_that_of_the_results(page, root):
    assert (root / 'docs/answers.md').read_text() == page.make_page(root)
