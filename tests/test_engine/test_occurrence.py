"""Which classes can occur, and how often."""

import pytest

from ride_mm.engine.occurrence import class_prior
from ride_mm.utils.errors import UserError

NAMES = ['lynx', 'red fox', 'owl, barn', 'hare']


@pytest.fixture
def file(tmp_path):
    def write(text, name='file.txt'):
        path = tmp_path / name
        path.write_text(text, encoding='utf-8')
        return str(path)

    return write


def test_nothing_is_known():
    assert class_prior(NAMES) is None


def test_classes(file):
    assert class_prior(NAMES, file('red fox\n\n owl, barn \n')) == [0, 1, 1, 0]


def test_frequencies(file):
    assert class_prior(NAMES, prior='counts', counts=[9, 5, 2, 1]) == [9, 5, 2, 1]
    prior = file('owl, barn, 0.5\nlynx,3\nhare,1e-2\nred fox,0\n')
    assert class_prior(NAMES, prior=prior) == [3, 0, 0.5, 0.01]
    # Only those that can occur need a frequency.
    classes = file('lynx\nhare\n', 'classes.txt')
    assert class_prior(NAMES, classes, file('hare,2\nlynx,1\n')) == [1, 0, 0, 2]
    assert class_prior(NAMES, classes, 'counts', [9, 5, 2, 1]) == [9, 0, 0, 1]


@pytest.mark.parametrize(
    'classes, prior, words',
    [
        ('lynx\nred fix\n', None, r"classes.txt:2: there is no class 'red fix'\..*red fox"),
        ('lynx\nlynx\n', None, "classes.txt:2: 'lynx' is listed twice"),
        (None, 'lynx,1\nhare\n', 'prior.txt:2: expected "name,frequency", found \'hare\''),
        (None, 'lynx,-1\n', r'prior.txt:1: expected "name,frequency", found \'lynx,-1\''),
        (None, 'lynx,nan\n', r'prior.txt:1: expected'),
        (None, 'lynx,inf\n', r'prior.txt:1: expected'),
        (None, 'lynx,1\nhare,1\n', 'prior.txt has no line for .*red fox'),
        ('lynx\n', 'lynx,0\n', 'prior.txt: all frequencies are 0'),
        ('\n', None, 'classes.txt: all frequencies are 0'),
    ],
)
def test_mistakes(file, classes, prior, words):
    classes = classes and file(classes, 'classes.txt')
    prior = prior and file(prior, 'prior.txt')
    with pytest.raises(UserError, match=words):
        class_prior(NAMES, classes, prior)


def test_missing():
    with pytest.raises(UserError, match='there is no file absent.txt'):
        class_prior(NAMES, 'absent.txt')
    with pytest.raises(UserError, match='training images per class are not known'):
        class_prior(NAMES, prior='counts')
