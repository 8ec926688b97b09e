"""Answer with the deepest rank of a taxonomy that is certain enough."""

import argparse
import csv
import io
from collections.abc import Sequence

from ride_mm.analysis.predictions import read_predictions
from ride_mm.analysis.taxonomy import deepest_answers, rank_figures, read_taxonomy
from ride_mm.engine import launch
from ride_mm.evaluation.tables import build_table, print_tables
from ride_mm.utils.errors import UserError, run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  python tools/test.py CONFIG CHECKPOINT --out work_dirs/predictions.npz
  python tools/analysis/ranks.py work_dirs/predictions.npz taxonomy.csv \\
      --confidence 0.8 --out work_dirs/answers.csv

The first line of taxonomy.csv names the ranks, such as class,genus,family, and
each other line is a class with its groups.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('predictions', help='output of tools/test.py --out (.npz)')
    parser.add_argument('taxonomy', help='table of the ranks (.csv)')
    parser.add_argument(
        '--confidence',
        type=float,
        default=0.8,
        metavar='P',
        help='probability that an answer needs (default: 0.8)',
    )
    parser.add_argument('--out', metavar='FILE', help='write the answer for each image (.csv)')
    args = parser.parse_args(argv)
    if not 0 <= args.confidence <= 1:
        parser.error('--confidence must be from 0 to 1')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.out:
        launch.check_output_file(args.out, ('.csv',))
    predictions = read_predictions(args.predictions)
    classes = predictions.run['classes']
    if classes is None:
        raise UserError(f'{args.predictions} has no names of classes to find in {args.taxonomy}')
    taxonomy = read_taxonomy(args.taxonomy, list(map(str, classes)))
    answers = deepest_answers(predictions.pred_score, taxonomy, args.confidence)
    figures = rank_figures(answers, predictions.gt_label, taxonomy)
    columns = ['rank', 'images (%)', 'mean score (%)', 'right (%)']
    rows = [[rank, *(f'{value:.1f}' for value in row.values())] for rank, row in figures.items()]
    print_tables(
        build_table(f'Answers with a score of at least {args.confidence:g}', columns, rows)
    )
    if args.out:
        text = io.StringIO(newline='')
        table = csv.writer(text)
        table.writerow(('image', 'rank', 'answer', 'score'))
        for image, (rank, group, score) in enumerate(zip(*answers)):
            known = rank < len(taxonomy.ranks)
            answer = (taxonomy.ranks[rank], taxonomy.names[rank][group]) if known else ('', '')
            table.writerow((image, *answer, f'{score:.6f}' if known else ''))
        write_file(args.out, text.getvalue())
        print(args.out)


if __name__ == '__main__':
    run_tool(main)
