"""Write a trained model as a bundle: ONNX graphs, a manifest and a program."""

import copy
import hashlib
import json
import logging
import runpy
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.image.geometric import cv2_interp_codes, pillow_interp_codes
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS, TRANSFORMS

from ride_mm.engine.config import innermost_dataset
from ride_mm.models import RIDEClassifier
from ride_mm.models.macs import macs_by_part, relative_compute
from ride_mm.models.routing import router_bound, thresholds_by_router
from ride_mm.utils.config_names import home
from ride_mm.utils.errors import UserError
from ride_mm.utils.files import new_folder
from ride_mm.version import __version__

from .parts import ExpertPart, FirstPart

OPSET = 20
# JSON has no infinity.
_LARGEST = 3e38
# Images of different shapes, to compare with the model.
_SHAPES = ((120, 90), (90, 131), (100, 100))
_TOLERANCE = 1e-3


def write_bundle(
    model: RIDEClassifier,
    cfg: Config,
    folder: str | Path,
    size: tuple[int, int] | None = None,
    torch_too: bool = False,
    int8: int = 0,
) -> dict:
    """Export a model, and compare the bundle with it before it gets its name.

    Args:
        model (RIDEClassifier): The model, with its weights, on the CPU.
        cfg (Config): Its config.
        folder (str | Path): A new folder.
        size (tuple[int, int], optional): Height and width of the network's
            input. Defaults to None, which means those of the test pipeline or,
            if it has none, of the first test image.
        torch_too (bool): Whether to write each part as a program of
            ``torch.export`` as well. Defaults to False.
        int8 (int): If above 0, convolutions are quantized, by the activations
            on so many training images. Defaults to 0.

    Returns:
        dict: The manifest.

    Raises:
        UserError: If the folder exists, a transform of the test pipeline has
            no counterpart, or the bundle gives other results than the model.
    """
    with new_folder(folder) as content:
        preprocessing = preprocessing_of(model, cfg)
        shape = (3, *(size or _size_of(preprocessing['steps'], cfg)))
        files = [path.name for path in _write_parts(model, shape, content, torch_too)]
        shutil.copy(home() / 'tools' / 'predict.py', content)
        manifest = dict(
            ride_mm=__version__,
            opset=OPSET,
            input_shape=shape,
            preprocessing=preprocessing,
            **settings_of(model, shape),
        )
        _write_manifest(content, manifest, files)
        _compare(content, model, cfg)
        if int8:
            manifest['int8'] = _quantize(content, files, cfg, int8)
            _write_manifest(content, manifest, files)
    return manifest


def _write_manifest(folder: Path, manifest: dict, files: list[str]) -> None:
    """Write the manifest with the digests of the graphs."""
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files]
    manifest['parts'] = [dict(file=name, sha256=sha) for name, sha in zip(files, digests)]
    text = json.dumps(manifest, indent=1)
    Path(folder, 'manifest.json').write_text(text, encoding='utf-8')


def _quantize(folder: Path, files: list[str], cfg: Config, number: int) -> dict[str, float]:
    """Quantize the graphs, and say how many training images keep their answer."""
    from .quantize import quantize

    dataset = copy.deepcopy(innermost_dataset(cfg.get('train_dataloader')))
    pipeline = [
        transform
        for transform in innermost_dataset(cfg.test_dataloader).get('pipeline', ())
        if transform['type'] == 'LoadImageFromFile'
    ]
    images = DATASETS.build(dict(dataset, pipeline=pipeline))
    chosen = np.random.default_rng(0).choice(len(images), min(number, len(images)), replace=False)
    bundle = _open(folder)
    inputs = np.stack([bundle.preprocess(images[index]['img']) for index in chosen.tolist()])
    scores, used = bundle.predict(inputs)
    quantize(folder, files, inputs)
    _write_manifest(folder, bundle.manifest, files)
    new_scores, new_used = _open(folder).predict(inputs)
    return dict(
        images=len(inputs),
        same_class=float((scores.argmax(1) == new_scores.argmax(1)).mean()),
        same_experts=float((used == new_used).mean()),
    )


def _open(folder: Path) -> Any:
    """The bundle in a folder, opened by the program that it holds."""
    return runpy.run_path(str(folder / 'predict.py'))['Bundle'](folder)


def preprocessing_of(model: RIDEClassifier, cfg: Config) -> dict[str, Any]:
    """Translate the test pipeline and the normalization.

    Args:
        model (RIDEClassifier): The model with its data preprocessor.
        cfg (Config): The config with ``test_dataloader``.

    Returns:
        dict: ``steps``, ``to_rgb``, ``mean`` and ``std`` of a manifest.

    Raises:
        UserError: If a transform has no counterpart in the bundle.
    """
    steps = []
    dataset = innermost_dataset(cfg.get('test_dataloader'))
    pipeline = dataset.get('pipeline', ())
    if not any(transform['type'] == 'LoadImageFromFile' for transform in pipeline) and not (
        dataset.get('to_bgr')
    ):
        print_log(
            'The test set gives images as arrays: the bundle takes their channels as blue, green, '
            'red. If they are red, green, blue, export with data_preprocessor.to_rgb=True',
            logger='current',
            level=logging.WARNING,
        )
    for transform in pipeline:
        options = {key: value for key, value in transform.items() if key != 'type'}
        if transform['type'] not in ('LoadImageFromFile', 'PackInputs'):
            steps.append(_step(transform['type'], options))
        elif options.keys() - {'backend_args'}:
            raise _unknown(transform['type'], options)
    preprocessor = model.data_preprocessor
    mean, std = getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None)
    return dict(
        steps=steps,
        to_rgb=bool(preprocessor.to_rgb),
        mean=[0.0] * 3 if mean is None else mean.flatten().tolist(),
        std=[1.0] * 3 if std is None else std.flatten().tolist(),
    )


def _step(kind: str, options: dict) -> dict[str, Any]:
    """A transform as the program in the bundle does it."""
    filters = dict(
        backend=options.pop('backend', 'cv2'),
        interpolation=options.pop('interpolation', 'bilinear'),
    )
    codes = dict(cv2=cv2_interp_codes, pillow=pillow_interp_codes).get(filters['backend'], {})
    if kind in ('Resize', 'ResizeEdge') and filters['interpolation'] not in codes:
        raise _unknown(kind, filters)
    filters['interpolation'] = int(codes.get(filters['interpolation'], 0))
    size = options.pop('crop_size' if kind == 'CenterCrop' else 'scale', None)
    if kind == 'ResizeEdge' and options.pop('edge', 'short') == 'short' and not options:
        return dict(edge=size, **filters)
    pair = [size, size] if isinstance(size, int) else size
    if kind == 'Resize' and not options.pop('keep_ratio', False) and not options and pair:
        return dict(size=list(pair), **filters)
    if kind == 'CenterCrop' and not options:
        return dict(crop=list(pair)[::-1])  # height first
    raise _unknown(kind, options)


def _unknown(kind: str, options: dict) -> UserError:
    shown = ', '.join(f'{key}={value!r}' for key, value in options.items())
    return UserError(
        f'test_dataloader.dataset.pipeline: {kind}({shown}) has no counterpart in a bundle, which '
        'knows LoadImageFromFile, Resize(scale), ResizeEdge(scale) of the short edge and '
        'CenterCrop(crop_size)'
    )


def _size_of(steps: list[dict], cfg: Config) -> tuple[int, int]:
    """Height and width of the network's input."""
    last = steps[-1] if steps else {}
    if 'crop' in last:
        height, width = last['crop']
    elif 'size' in last:
        width, height = last['size']
    elif 'edge' in last:
        raise UserError(
            'test_dataloader.dataset.pipeline gives images of different shapes: end it with '
            'CenterCrop(crop_size) or Resize(scale)'
        )
    else:
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        height, width = dataset[0]['inputs'].shape[1:]
    return height, width


def names_of(model: RIDEClassifier) -> list[str]:
    """Names of the K classes in the checkpoint; without them, their numbers."""
    names = getattr(model, '_dataset_meta', {}).get('classes') or ()
    number = model.head.num_classes
    return list(map(str, names if len(names) == number else range(number)))


def settings_of(model: RIDEClassifier, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Describe how the outputs of the graphs become predictions.

    Args:
        model (RIDEClassifier): The model.
        shape (tuple[int, int, int]): Shape of its input, (3, H, W).

    Returns:
        dict: ``classes``, ``thresholds`` and, as logits, ``router_bounds``;
        ``offsets``, ``temperature`` and ``log_prior`` of the logits;
        ``set_thresholds`` of the scores, or None; and
        ``relative_compute`` by experts used, as in a manifest.

    Raises:
        UserError: If the logits are adjusted and the class counts unknown.
    """
    head, tau, prior = model.head, model.test_cfg['logit_adjustment'], model.test_cfg['prior']
    thresholds = thresholds_by_router(model.test_cfg['threshold'], model.num_experts - 1)
    zeros = torch.zeros(head.num_classes)
    return dict(
        classes=names_of(model),
        thresholds=thresholds,
        router_bounds=[min(max(router_bound(t), -_LARGEST), _LARGEST) for t in thresholds],
        offsets=(zeros - head.adjust(zeros, tau)).tolist(),
        log_prior=(head.score_logits(zeros, prior=prior) if prior else zeros).tolist(),
        temperature=1.0 if head.temperature is None else head.temperature.item(),
        set_thresholds=head.set_thresholds.tolist() if model.gives_sets else None,
        relative_compute=list(relative_compute(macs_by_part(model, shape), model.routes)),
    )


def _write_parts(
    model: RIDEClassifier, shape: tuple[int, int, int], folder: Path, torch_too: bool
) -> Iterator[Path]:
    """Write a graph per expert, and yield its path."""
    # Two images: a dimension of 1 would be taken as fixed.
    inputs: tuple[torch.Tensor, ...] = (torch.randn(2, *shape),)
    parts = [FirstPart(model), *(ExpertPart(model, k) for k in range(1, model.num_experts))]
    for number, part in enumerate(parts, start=1):
        part.eval()
        path = folder / f'expert_{number}.onnx'
        _write_part(part, inputs, path, torch_too)
        if number == 1:
            with torch.no_grad():
                inputs = part(*inputs)[:2]
        yield path


def _write_part(part: Any, inputs: tuple[torch.Tensor, ...], path: Path, torch_too: bool) -> None:
    images = torch.export.Dim('images')
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.export.export(part, inputs, dynamic_shapes=({0: images},) * len(inputs))
        outputs = part.outputs[: len(part(*inputs))]
        graph: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=part.inputs,
            output_names=outputs,
            verbose=False,
        )
        graph.save(path)
        if torch_too:
            torch.export.save(program, path.with_suffix('.pt2'))


@torch.no_grad()
def _compare(folder: Path, model: RIDEClassifier, cfg: Config) -> None:
    """Compare the program in a bundle with the model on random images.

    Raises:
        UserError: If they differ.
    """
    bundle = _open(folder)
    pipeline = [
        transform
        for transform in innermost_dataset(cfg.test_dataloader).get('pipeline', ())
        if transform['type'] != 'LoadImageFromFile'
    ]
    generator = np.random.default_rng(0)
    steps = bundle.manifest['preprocessing']['steps']
    shapes = _SHAPES if steps else [bundle.manifest['input_shape'][1:]] * len(_SHAPES)
    images = [generator.integers(256, size=(*shape, 3), dtype=np.uint8) for shape in shapes]
    transforms = Compose([TRANSFORMS.build(transform) for transform in pipeline])
    samples = [
        transforms(dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2]))
        for image in images
    ]
    batch = dict(inputs=torch.stack([sample['inputs'] for sample in samples]))
    expected = model.data_preprocessor(batch)['inputs']
    inputs = np.stack([bundle.preprocess(image) for image in images])
    if not np.array_equal(inputs, expected.numpy()):
        raise UserError('the bundle would resize or normalize images otherwise than the config')
    found = model.infer(expected)
    scores, used = bundle.predict(inputs)
    options = (model.test_cfg[name] for name in ('logit_adjustment', 'prior'))
    wanted = model.head.scores(found.mean_logits, *options)
    near = np.abs(scores - wanted.numpy()).max(1) < _TOLERANCE
    if not near[used == found.used.numpy()].all() or not near.any():
        raise UserError('the exported graphs give other results than the model')
