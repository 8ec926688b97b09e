"""docs/make_results.py: the page made from results/."""
import importlib
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from ride_mm.analysis import write_result
from ride_mm.utils.errors import UserError

GROUPS = ('overall', 'many', 'medium', 'few', 'overall_top5')
CIFAR = dict(type='CIFAR100LT', imbalance=100)
QUOTED = [
    dict(name='ride_tiny', all=48.6, many=67., medium=49.9, few=25.7,
         source='the zoo', link='https://zoo'),
    dict(name='ride_tiny', stage='stage_1', all=48., source='a readme',
         link='https://readme'),
    dict(name='ce_tiny', stage='stage_1', all=39.1, source='the zoo',
         link='https://zoo'),
    dict(name='ldam_drw_tiny', all=42., source='a paper',
         link='https://paper'),
]  # yapf: disable


@pytest.fixture
def page(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'docs')
    return importlib.import_module('make_results')


@pytest.fixture
def project(tmp_path):
    """A project with four configs and no result."""
    for name in ('docs', 'results', 'configs/_base_', 'configs/baselines'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('_base_/model', 'baselines/ce_tiny',
                 'baselines/ldam_drw_tiny', 'ride_tiny', 'ride_other'):
        (tmp_path / 'configs' / f'{name}.py').touch()
    (tmp_path / 'results' / 'quoted.json').write_text(
        json.dumps(dict(quoted=QUOTED)))
    return tmp_path


def make_result(name,
                seed=0,
                overall=40.,
                experts=1,
                two_stages=False,
                **changes):
    """A result of 3 epochs, or of 3 and a routed one."""

    def figures(epoch, shift=0.):
        values = {
            f'long_tail/{group}': overall + i + epoch / 8 + shift
            for i, group in enumerate(GROUPS)
        }
        if two_stages:
            values.update({
                'experts/used_1': 25., 'experts/used_2': 75.,
                'experts/mean': 1.75, 'experts/compute': .8 + shift,
                'experts/many_compute': .7, 'experts/few_compute': .9
            })  # yapf: disable
        return dict(epoch=epoch, **values)

    val = [figures(2), figures(3)]
    stages = dict(final=val[-1])
    if two_stages:
        val.append(figures(4, shift=-.25))
        stages = dict(stage_1=val[-2], final=val[-1])
    return {
        **dict(
            name=name,
            config=f'configs/{name}.py',
            seed=seed,
            data=CIFAR,
            experts=experts,
            epochs=4 if two_stages else 3,
            epochs_of_config=4 if two_stages else 3,
            options={},
            command=f'train {name} {seed}',
            commit=None,
            pieces=[
                dict(
                    first_epoch=1,
                    last_epoch=3,
                    machine='a desk',
                    python='3.11',
                    torch='2.11',
                    torchvision='0.26',
                    mmengine='0.10')
            ],
            training_seconds=90,
            figures=stages,
            log=dict(
                train=[
                    dict(
                        epoch=i,
                        lr=.1,
                        loss=9.,
                        loss_cls=6. / i + seed,
                        seconds=30.) for i in (1, 2, 3)
                ],
                val=val)),
        **changes
    }


def write_all(project, *results):
    for result in results:
        write_result(result, project / 'results')


def cells(text, start):
    """The cells of the only table row that begins with `start`."""
    row, = [
        line for line in text.splitlines() if line.startswith(f'| {start}')
    ]
    return [cell.strip() for cell in row.strip('|').split('|')]


def section(text, title):
    return text.split(f'\n## {title}\n')[1].split('\n## ')[0]


def test_no_result(page, project):
    text = page.make_page(project)
    missing = section(text, 'Not measured yet')
    assert missing.count('\n- ') == 4
    assert ('- [`ce_tiny`](../configs/baselines/ce_tiny.py): '
            'quoted 39.1 <sup>1</sup>\n') in missing
    assert '- [`ride_other`](../configs/ride_other.py)\n' in missing
    assert '_base_' not in missing
    assert '|' not in text and 'svg' not in text and '## Runs' not in text
    page.write_page(project)
    assert not (project / 'docs' / 'results.svg').exists()
    page.check_page(project)


def test_one_seed(page, project):
    write_all(
        project,
        make_result('ride_tiny', experts=2, two_stages=True, overall=47.))
    text = page.make_page(project)
    link = '[RIDE, 2 experts](#ride_tiny)'
    assert cells(text, f'{link}: all experts') == [
        f'{link}: all experts', '3', '1', '47.4', '48.4', '49.4', '50.4',
        '51.4', '48.0 <sup>1</sup>', '–', '–', '–'
    ]
    first, _ = text.split('The router sends')
    assert cells(first, f'{link}: routed')[1:] == [
        '4', '1', '47.2', '48.2', '49.2', '50.2', '51.2', '48.6 <sup>2</sup>',
        '67.0', '49.9', '25.7'
    ]
    _, routing = text.split('The router sends')
    assert cells(routing, f'{link}: routed')[1:] == [
        '25 / 75', '1.75', '0.55', '0.70', '–', '0.90'
    ]
    assert '1. a readme: <https://readme>\n2. the zoo: <https://zoo>\n' in text
    assert '`ride_tiny`]' not in section(text, 'Not measured yet')


def test_mean_and_deviation_over_the_seeds(page, project):
    overall = [38.13, 41.77, 40.05]
    write_all(
        project,
        *(make_result('ce_tiny', seed, value)
          for seed, value in enumerate(overall)))
    row = cells(page.make_page(project), '[Cross entropy](#ce_tiny)')
    values = np.array(overall) + 3 / 8
    deviation = np.sqrt(((values - values.mean())**2).sum() / 2)
    assert row[2:5] == [
        '3', f'{values.mean():.1f} ± {deviation:.1f}',
        f'{values.mean() + 1:.1f} ± {deviation:.1f}'
    ]
    # a run of one stage has what is quoted of either
    assert row[8] == '39.1 <sup>1</sup>'


def test_order_and_labels(page, project):
    short = make_result(
        'ride_tiny_short',
        experts=3,
        two_stages=True,
        config='configs/ride_tiny.py',
        epochs_of_config=200,
        options={'train_cfg.max_epochs': 4})
    write_all(project, make_result('new_tiny'), short,
              make_result('ride_tiny', experts=3, two_stages=True),
              make_result('ldam_drw_tiny'), make_result('ce_tiny'),
              make_result('ride_digits', data=dict(type='DigitsLT')),
              make_result('ride_small', data=dict(CIFAR, max_count=300)))
    text = page.make_page(project)
    section(text, 'CIFAR-100-LT, imbalance 100, up to 300 images a class')
    tables = section(text, 'CIFAR-100-LT, imbalance 100')
    rows = [line for line in tables.splitlines() if line.startswith('| [')]
    assert [row.split('](')[0][3:] for row in rows] == [
        'Cross entropy', 'LDAM-DRW', *['RIDE, 3 experts'] * 2,
        *['RIDE, 3 experts, short (shortened schedule)'] * 2, 'new_tiny',
        'RIDE, 3 experts', 'RIDE, 3 experts, short (shortened schedule)'
    ]
    assert '[RIDE](#ride_digits)' in section(text, 'Digits-LT')
    assert 'router sends' not in section(text, 'Digits-LT')
    # what is quoted of the whole schedule is not beside the short one
    assert rows[4].endswith('| – | – | – | – |')
    assert '`train_cfg.max_epochs=4`' in section(text, 'Runs')


def test_shortened_schedule_is_no_measurement_of_the_config(page, project):
    write_all(project, make_result('ce_tiny', epochs_of_config=200))
    assert '`ce_tiny`' in section(page.make_page(project), 'Not measured yet')


def test_runs(page, project):
    moved = make_result('ce_tiny', seed=1, commit='abc')
    moved['pieces'].append(
        dict(
            moved['pieces'][0],
            first_epoch=2,
            machine='a GPU',
            options={'model.compile': True}))
    write_all(project, make_result('ce_tiny'), moved)
    text = section(page.make_page(project), 'Runs')
    assert '### ce_tiny\n' in text
    assert '```bash\ntrain ce_tiny 0\ntrain ce_tiny 1\n```' in text
    where = 'Python 3.11, torch 2.11, mmengine 0.10'
    assert ('- [seed 0](../results/ce_tiny_seed0.json), 2 min of training '
            f'steps: a desk; {where}\n') in text
    assert (
        f'seed1.json), commit `abc`, 2 min of training steps: from epoch 1 '
        f'a desk; {where}; from epoch 2 a GPU; {where} (with '
        'options: `model.compile=true`)') in text


def test_curves(page, project):
    write_all(
        project,
        *(make_result('ride_tiny', seed, 40. + seed, 2, True)
          for seed in (0, 1, 5)))
    shown = page.curves(page.read_groups(project))
    lines = shown['CIFAR-100-LT, imbalance 100']['RIDE, 2 experts']
    assert lines['switch'] == 3
    assert lines['loss'] == {
        epoch: pytest.approx((3 / epoch, 3 / epoch + 1, 3 / epoch + 2.5))
        for epoch in (1, 2, 3)
    }
    assert lines['all'][2] == pytest.approx((40.25, 42.25, 45.25))
    assert lines['few'][4] == pytest.approx((43.25, 45.25, 48.25))
    assert list(lines['all']) == [2, 3, 4]


def test_picture(page, project):
    """Two data sets; classes that are never few-shot have no such panel."""
    other = make_result('ride_other', data=dict(type='CIFAR10LT'))
    for record in other['log']['val']:
        del record['long_tail/few']
    write_all(project, other, make_result('ride_tiny', 0, 40., 2, True))
    path = project / 'docs' / 'results.svg'
    page.write_page(project)
    first = path.read_text()
    ids = [
        element.get('id')
        for element in ElementTree.fromstring(first).iterfind('.//{*}g')
    ]
    assert sum('axes_' in (name or '') for name in ids) == 5
    page.write_page(project)
    assert path.read_text() == first


def test_picture_shows_all_points(page, project, monkeypatch):
    figures = []
    monkeypatch.setattr('matplotlib.figure.Figure.savefig',
                        lambda figure, *_, **__: figures.append(figure))
    write_all(project, make_result('ride_tiny', 0, 40., 2, True))
    page.draw_curves(page.curves(page.read_groups(project)), project / 'x')
    axes = figures[0].axes or figures[0].subfigs[0].axes
    assert len(axes) == 3
    for panel in axes:
        low, high = panel.get_xlim()
        assert low == 0 and high >= 4  # the routed one is after epoch 4
        bottom, top = panel.get_ylim()
        for line in panel.lines:
            assert bottom == 0 and max(line.get_ydata()) <= top
    assert [line.get_marker() for line in axes[1].lines] == ['.', 'D']
    assert axes[1].lines[1].get_xydata().tolist() == [[4., 40.25]]


def test_check(page, project, monkeypatch):
    monkeypatch.setattr(page, 'ROOT', project)
    write_all(project, make_result('ride_tiny', 0, 40., 2, True))
    with pytest.raises(UserError, match='results.md is not'):
        page.main(['--check'])
    assert not list((project / 'docs').iterdir())
    page.main([])
    page.main(['--check'])

    # figures that the page does not show, but the picture does
    path = project / 'results' / 'ride_tiny_seed0.json'
    path.write_text(path.read_text().replace('"loss_cls": 6.0',
                                             '"loss_cls": 5.0'))
    with pytest.raises(UserError, match='results.svg is not.*run python docs'):
        page.main(['--check'])
    page.main([])
    page.main(['--check'])

    (project / 'docs' /
     'results.md').write_text((project / 'docs' / 'results.md').read_text() +
                              'by hand\n')
    with pytest.raises(UserError, match='results.md is not'):
        page.main(['--check'])
    page.main([])
    write_all(project, make_result('ride_tiny', 1, 41., 2, True))
    with pytest.raises(UserError, match='results.md is not'):
        page.main(['--check'])


def test_the_page_of_this_project(page, root):
    page.check_page(root)
