"""The results by name: their order, and what a reader calls them."""
from pathlib import Path
from typing import Dict, List, Optional

from ride_mm.analysis import read_results

# By the beginning of a name, in the order of the tables.
METHODS = dict(
    ce='Cross entropy',
    balanced_softmax='Balanced softmax',
    ldam_drw='LDAM-DRW',
    crt='cRT',
    lws='LWS',
    sade='SADE',
    ride='RIDE')
DATA = dict(
    CIFAR100LT='CIFAR-100-LT',
    CIFAR10LT='CIFAR-10-LT',
    DigitsLT='Digits-LT',
    ImageNetLT='ImageNet-LT',
    PlacesLT='Places-LT',
    INaturalist2018='iNaturalist 2018')


def read_groups(root: Path) -> Dict[str, List[dict]]:
    """The results by name, in the order of the tables."""
    groups = read_results(root / 'results')
    prefixes = list(METHODS)

    def order(name):
        method = _method(name)
        first = groups[name][0]
        return (_data_title(first),
                prefixes.index(method) if method else len(prefixes),
                is_shortened(groups[name]), name)

    return {name: groups[name] for name in sorted(groups, key=order)}


def by_data(groups: Dict[str, List[dict]]) -> Dict[str, List[str]]:
    """The names of the results on each data set, by its title."""
    names = {}
    for name, results in groups.items():
        names.setdefault(_data_title(results[0]), []).append(name)
    return names


def _data_title(result: dict) -> str:
    data = result['data']
    title = DATA.get(data['type'], data['type'])
    if 'imbalance' in data:
        title += f", imbalance {data['imbalance']}"
    if 'max_count' in data:
        title += f", up to {data['max_count']} images a class"
    return title


def _method(name: str) -> Optional[str]:
    for prefix in METHODS:
        if name.startswith(f'{prefix}_'):
            return prefix
    return None


def is_shortened(results: List[dict]) -> bool:
    """Whether these runs were shorter than their config says."""
    return results[0]['epochs'] < results[0]['epochs_of_config']


def label_of(results: List[dict]) -> str:
    """Name a method, with what its name adds to that of the config."""
    name, config = results[0]['name'], Path(results[0]['config']).stem
    method = _method(name)
    if method is None:
        return name
    label, experts = METHODS[method], results[0]['experts'] or 1
    if experts > 1:
        label += f', {experts} experts'
    variant = name[len(config):] if name.startswith(config) else f' {name}'
    if variant:
        label += f', {variant[1:]}'
    if is_shortened(results):
        label += ' (shortened schedule)'
    return label
