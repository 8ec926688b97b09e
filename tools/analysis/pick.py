"""Choose the unlabelled images to label next."""

import argparse
import csv
import io
from collections.abc import Sequence

from ride_mm.analysis.next_labels import (
    MEASURES,
    for_smallest_classes,
    measure_doubt,
)
from ride_mm.datasets.class_counts import stated_counts
from ride_mm.datasets.folders import EXTENSIONS
from ride_mm.engine import launch
from ride_mm.engine.config import positive
from ride_mm.engine.posthoc import build_test_loader, checkpoint_parser, load_runner
from ride_mm.utils.errors import UserError, run_tool
from ride_mm.utils.files import write_file

EXAMPLE = """example:
  python tools/analysis/pick.py CONFIG CHECKPOINT unlabelled -n 500 \\
      --out work_dirs/picked.csv

unlabelled is a folder of images; the names of its sub-folders mean nothing. The
images to label first are at the top of picked.csv. Each one is chosen for the
class with the fewest images, those of the training set and those chosen before:
of the images predicted as this class, it is the one with the largest doubt.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = checkpoint_parser(__doc__, EXAMPLE, 'table to write (.csv)')
    parser.add_argument('images', help='folder of images without labels')
    parser.add_argument(
        '-n',
        '--number',
        type=positive,
        default=100,
        metavar='N',
        help='how many images to choose (default: 100)',
    )
    parser.add_argument(
        '--by',
        choices=list(MEASURES),
        default='router',
        help='what doubt is: the probability with which the routers ask for the last expert, the '
        'margin between the two highest scores, or the disagreement of the experts (default: '
        'router)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    launch.check_output_file(args.out, ('.csv',))
    runner = load_runner(args, check=launch.enable_all_experts)
    model, meta = runner.model, runner.test_dataloader.dataset.metainfo
    counts = stated_counts(runner.test_dataloader.dataset)
    if counts is None:
        raise UserError("the test set has no metainfo['class_counts']: use a dataset of ride_mm")
    if model.adjusts_logits:
        model.set_class_counts(counts)
    dataset = dict(
        type='CustomDataset', data_root=args.images, with_label=False, extensions=EXTENSIONS
    )
    try:
        loader = build_test_loader(runner, dataset, files=True)
    except (OSError, RuntimeError) as error:  # there is none, or it is empty
        raise UserError(f'{args.images}: expected a folder with images') from error
    doubts = measure_doubt(model, loader, args.by)
    classes = meta.get('classes') or range(len(counts))
    text = io.StringIO(newline='')
    table = csv.writer(text)
    table.writerow(('file', 'class', 'doubt'))
    for index in for_smallest_classes(doubts, counts, args.number):
        path = loader.dataset.get_data_info(int(index))['img_path']
        table.writerow((path, classes[doubts.pred_label[index]], f'{doubts.doubt[index]:.6f}'))
    write_file(args.out, text.getvalue())
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
