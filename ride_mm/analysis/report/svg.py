"""Figures as a part of a page."""
import re
from typing import Dict
from xml.etree import ElementTree

from ..plots.style import GRID, GROUP_COLORS, INK, SOFT

# What the page's style sheet chooses, for light and dark alike.
_VARIABLES = {
    INK: 'ink',
    '#000000': 'ink',
    SOFT: 'soft',
    GRID: 'grid',
    '#ffffff': 'paper',
    **{
        color.lower(): name
        for name, color in GROUP_COLORS.items()
    }
}
_COLOR = re.compile('|'.join(_VARIABLES))
_FONT = re.compile(r"'DejaVu Sans'[^;]*")
_LONG_NUMBER = re.compile(r'-?\d+\.\d{3,}')
_LINK = re.compile(r'(?<=#)[^)]+')
_DROPPED = ('metadata', 'style')


def inline_svg(svg: str, key: str, label: str, kind: str) -> str:
    """Turn a figure of matplotlib into a part of an HTML page.

    It takes the page's colors and font, fills the width it is given, and
    shares no id with other figures.

    Args:
        svg (str): The content of the file.
        key (str): What its ids begin with, unique in the page.
        label (str): What it shows, for those who do not see it.
        kind (str): Its class.

    Returns:
        str: An ``svg`` element.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.split('}')[1] in _DROPPED:
                parent.remove(child)
    names = _rename_ids(root, key)
    for element in root.iter():
        element.tag = element.tag.split('}')[1]
        element.tail = None
        if element.text and not element.text.strip():
            element.text = None
        element.attrib = {
            name.split('}')[-1]: _restyle(value, names)
            for name, value in element.attrib.items()
        }
    root.attrib = {
        'class': kind,
        'role': 'img',
        'aria-label': label,
        'viewBox': root.get('viewBox')
    }
    return ElementTree.tostring(root, encoding='unicode')


def _rename_ids(root: ElementTree.Element, key: str) -> Dict[str, str]:
    """Drop the ids that nothing refers to, and make the others unique."""
    used = set()
    for element in root.iter():
        for value in element.attrib.values():
            if value.startswith(('#', 'url(#')):
                used.add(_LINK.search(value).group())
    names = {}
    for element in root.iter():
        name = element.attrib.pop('id', None)
        if name in used:
            names[name] = f'{key}-{len(names)}'
            element.set('id', names[name])
    return names


def _restyle(value: str, names: Dict[str, str]) -> str:
    if value.startswith(('#', 'url(#')):
        return _LINK.sub(lambda match: names[match.group()], value)
    value = _COLOR.sub(lambda m: f'var(--{_VARIABLES[m.group()]})', value)
    value = _FONT.sub('var(--sans)', value)
    return _LONG_NUMBER.sub(lambda m: f'{float(m.group()):.2f}', value)
