"""Classify images with a bundle of tools/export.py.

Every bundle holds a copy of this file. It needs numpy, opencv-python and
onnxruntime, and Pillow where the manifest names it.
"""

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

EXAMPLE = """example:
  python BUNDLE/predict.py PHOTOS --out photos.csv
"""
SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'}
BATCH = 64
KEYS = 'input_shape preprocessing classes router_bounds offsets temperature log_prior'.split()


class Bundle:
    """The graphs and settings in a folder."""

    def __init__(self, folder):
        try:
            self.manifest = json.loads(Path(folder, 'manifest.json').read_text(encoding='utf-8'))
            parts = [
                (Path(folder, part['file']), part['sha256']) for part in self.manifest['parts']
            ]
            graphs = [path.read_bytes() for path, _ in parts]
            [self.manifest[key] for key in KEYS]
        except (OSError, ValueError, LookupError, TypeError) as error:
            sys.exit(f'error: {folder} is not a whole bundle of tools/export.py: {error!r}')
        for (path, digest), graph in zip(parts, graphs):
            if hashlib.sha256(graph).hexdigest() != digest:
                sys.exit(f'error: {path} has changed since it was exported')
        self.sessions = [onnxruntime.InferenceSession(graph) for graph in graphs]

    def preprocess(self, image):
        """Resize, crop and normalize a BGR image, (H, W, 3), to (3, H', W')."""
        settings, given = self.manifest['preprocessing'], image.shape
        for step in settings['steps']:
            height, width = image.shape[:2]
            if 'crop' in step:
                y, x = (max(0, round((a - b) / 2)) for a, b in zip((height, width), step['crop']))
                image = image[y : y + step['crop'][0], x : x + step['crop'][1]]
            elif 'edge' in step:  # the shorter one gets this length
                edge = step['edge']
                upright = edge, int(edge * height / width)
                size = upright if width < height else (int(edge * width / height), edge)
                image = resize(image, size, step)
            else:
                image = resize(image, step['size'], step)
        image = image[..., :: -1 if settings['to_rgb'] else 1].transpose(2, 0, 1)
        if list(image.shape) != self.manifest['input_shape']:
            expected = ' x '.join(map(str, self.manifest['input_shape'][1:]))
            raise ValueError(f'has {given[0]} x {given[1]} pixels, expected {expected}')
        mean, std = (np.float32(settings[key]).reshape(3, 1, 1) for key in ('mean', 'std'))
        return (image.astype(np.float32) - mean) / std

    def predict(self, images):
        """Probabilities, (N, K), and experts used, (N, ), for images, (N, 3, H, W)."""
        trunk, total, *router = self.sessions[0].run(None, {'images': images})
        used, active = np.ones(len(images), dtype=int), np.arange(len(images))
        for session, bound in zip(self.sessions[1:], self.manifest['router_bounds']):
            asks = router[0] > bound if router else np.ones(len(active), dtype=bool)
            trunk, active = trunk[asks], active[asks]
            if len(active) == 0:
                break
            total[active], *router = session.run(None, {'trunk': trunk, 'total': total[active]})
            used[active] += 1
        logits = total / used[:, None].astype(np.float32) - np.float32(self.manifest['offsets'])
        logits = logits / np.float32(self.manifest['temperature'])
        logits += np.float32(self.manifest['log_prior'])
        scores = np.exp(logits - logits.max(1, initial=-np.inf, keepdims=True))
        return scores / scores.sum(1, keepdims=True), used


def resize(image, size, step):
    """Resize to (width, height) as the manifest says."""
    if step['backend'] == 'cv2':
        return cv2.resize(image, size, interpolation=step['interpolation'])
    from PIL import Image

    return np.array(Image.fromarray(image).resize(size, step['interpolation']))


def set_of(bundle, score):
    """The classes in the prediction set of an image, most probable first, in a column."""
    thresholds = bundle.manifest.get('set_thresholds')
    if thresholds is None:
        return ()
    labels = (-score).argsort()
    chosen = [i for i in labels if i == labels[0] or score[i] >= thresholds[i]]
    return ('|'.join(bundle.manifest['classes'][i] for i in chosen),)


def load(bundle, path):
    """The input of the network for a file, or None."""
    try:
        content = np.frombuffer(path.read_bytes() or b'-', np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError('is not an image')
        return bundle.preprocess(image)
    except (OSError, ValueError, cv2.error) as error:
        print(f'{path} is left out: {error}', file=sys.stderr)
        return None


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('images', type=Path, help='folder of images, or one image')
    parser.add_argument('--bundle', default=Path(__file__).resolve().parent, help='its folder')
    parser.add_argument('--out', type=Path, required=True, help='new CSV file')
    args = parser.parse_args(argv)
    if args.out.exists():
        sys.exit(f'error: {args.out} exists and is not overwritten')
    found = args.images.rglob('*') if args.images.is_dir() else [args.images]
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    bundle, rows = Bundle(args.bundle), []
    for start in range(0, len(paths), BATCH):
        loaded = {path: load(bundle, path) for path in paths[start : start + BATCH]}
        batch = {path: image for path, image in loaded.items() if image is not None}
        scores, used = bundle.predict(np.stack([*batch.values()])) if batch else ((), ())
        for path, score, number in zip(batch, scores, used):
            name = path.relative_to(args.images).as_posix() if path != args.images else path.name
            label = score.argmax()
            answer = (name, label, bundle.manifest['classes'][label], score[label], number)
            rows.append(answer + set_of(bundle, score))
        if sys.stderr.isatty():
            print(f'\r{start + len(loaded)} of {len(paths)}', end='\r', file=sys.stderr)
    if not rows:
        sys.exit(f'error: there is no image that can be read in {args.images}')
    with open(args.out, 'w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        heads = ('file', 'class_index', 'class', 'score', 'num_experts_used', 'set')
        table.writerow(heads[: len(rows[0])])
        table.writerows(sorted(rows))
    print(f'{args.out}: {len(rows)} images')


if __name__ == '__main__':
    main()
