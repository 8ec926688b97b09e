"""Answers at the deepest rank of a taxonomy that is certain enough."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from mmengine.fileio import exists, get_text

from ride_mm.utils.errors import UserError, name_some, nearest


class Taxonomy(NamedTuple):
    """Ranks from the classes to the broadest one.

    Args:
        ranks (list[str]): Names of the R ranks.
        names (list[list[str]]): Names of the groups of each rank.
        group_of (np.ndarray): Group of each class at each rank, (R, K).
    """

    ranks: list[str]
    names: list[list[str]]
    group_of: np.ndarray


class Answers(NamedTuple):
    """An answer for each of N images.

    Args:
        rank (np.ndarray): Index of the rank, (N, ); R for no answer.
        group (np.ndarray): Index of the group at this rank, (N, ); -1 for no
            answer.
        score (np.ndarray): Probability of the group, (N, ); 1 for no answer.
    """

    rank: np.ndarray
    group: np.ndarray
    score: np.ndarray


def read_taxonomy(path: str, classes: Sequence[str]) -> Taxonomy:
    """Read a table such as ``class,genus,family``.

    Args:
        path (str): A CSV file whose first line names the ranks, from the
            classes to the broadest, and that has a line for each class.
        classes (Sequence[str]): Names of the K classes.

    Returns:
        Taxonomy: The ranks.

    Raises:
        UserError: If a line is wrong, a class is missing, or a group has two
            parents. The message names file and line.
    """
    if not exists(path):
        raise UserError(f'there is no file {path}')
    rows = list(csv.reader(io.StringIO(get_text(path))))
    ranks = [name.strip() for name in rows[0]] if rows else []
    if len(ranks) < 2:
        raise UserError(f'{path}:1: expected the names of two or more ranks, as in class,genus')
    lineages: dict[str, list[str]] = {}
    parents: list[dict[str, tuple[str, int]]] = [{} for _ in ranks[1:]]
    for number, row in enumerate(rows[1:], start=2):
        lineage = [cell.strip() for cell in row]
        if not any(lineage):
            continue
        if len(lineage) != len(ranks) or not all(lineage):
            raise UserError(f'{path}:{number}: expected {",".join(ranks)}, found {",".join(row)}')
        if lineage[0] not in classes:
            hint = nearest(lineage[0], classes)
            raise UserError(f'{path}:{number}: there is no class {lineage[0]!r}.{hint}')
        if lineage[0] in lineages:
            raise UserError(f'{path}:{number}: {lineage[0]!r} is listed twice')
        lineages[lineage[0]] = lineage
        for known, child, parent in zip(parents, lineage, lineage[1:]):
            first, line = known.setdefault(child, (parent, number))
            if first != parent:
                raise UserError(
                    f'{path}:{number}: {child} is in {parent}, but in {first} in line {line}'
                )
    missing = [name for name in classes if name not in lineages]
    if missing:
        raise UserError(f'{path} has no line for {name_some(missing)}')
    names, group_of = zip(
        *(
            np.unique([lineages[name][rank] for name in classes], return_inverse=True)
            for rank in range(1, len(ranks))
        )
    )
    return Taxonomy(
        ranks,
        [list(classes), *(groups.tolist() for groups in names)],
        np.stack([np.arange(len(classes)), *group_of]),
    )


def deepest_answers(scores: np.ndarray, taxonomy: Taxonomy, confidence: float) -> Answers:
    """Answer with the deepest rank at which a group is probable enough.

    Args:
        scores (np.ndarray): Probabilities of the classes, (N, K).
        taxonomy (Taxonomy): The ranks.
        confidence (float): Probability that an answer needs, from 0 to 1.

    Returns:
        Answers: The answers.
    """
    number = len(taxonomy.ranks)
    found = Answers(np.full(len(scores), number), np.full(len(scores), -1), np.ones(len(scores)))
    for rank in reversed(range(number)):
        sums = np.zeros((len(scores), len(taxonomy.names[rank])))
        np.add.at(sums.T, taxonomy.group_of[rank], scores.T)
        best, most = sums.argmax(1), sums.max(1)
        sure = most >= confidence
        found.rank[sure], found.group[sure], found.score[sure] = rank, best[sure], most[sure]
    return found


def rank_figures(
    answers: Answers, labels: np.ndarray, taxonomy: Taxonomy
) -> dict[str, dict[str, float]]:
    """Compute how many answers a rank gives, and how many of them are right.

    Args:
        answers (Answers): The answers for N images.
        labels (np.ndarray): Their classes, (N, ).
        taxonomy (Taxonomy): The ranks.

    Returns:
        dict[str, dict[str, float]]: For each rank with answers, and 'any',
        percent of the images ('images'), mean probability in percent
        ('stated') and percent that are right ('right').
    """
    ranks = np.minimum(answers.rank, len(taxonomy.ranks) - 1)
    right = taxonomy.group_of[ranks, labels] == answers.group
    chosen = {name: answers.rank == rank for rank, name in enumerate(taxonomy.ranks)}
    chosen['any'] = answers.rank < len(taxonomy.ranks)
    return {
        name: dict(
            images=100.0 * float(images.mean()),
            stated=100.0 * float(answers.score[images].mean()),
            right=100.0 * float(right[images].mean()),
        )
        for name, images in chosen.items()
        if images.any()
    }
