"""Share a trained model as a folder, or as a repository of the Hugging Face Hub."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from safetensors.torch import save
from torch import nn

from ride_mm.analysis.predictions import Predictions
from ride_mm.datasets.class_groups import ClassGroups
from ride_mm.evaluation import long_tail_accuracy
from ride_mm.utils.errors import UserError
from ride_mm.utils.files import new_folder
from ride_mm.version import __version__

HUB = 'hf://'
WEIGHTS, CONFIG, CARD, SUMS = 'model.safetensors', 'config.py', 'README.md', 'SHA256SUMS'
# Settings of one training, not of the model.
_OF_A_RUN = ('load_from', 'resume', 'work_dir', 'launcher')
_TEMPLATE = """---
library_name: mmpretrain
pipeline_tag: image-classification
tags:
- ride_mm
- long-tailed
---
# {name}

{kind}, {parameters:.1f} M parameters, {classes} classes, for
[MMPretrain](https://github.com/open-mmlab/mmpretrain) with ride_mm {version}.
{table}
```python
import ride_mm
from mmpretrain import ImageClassificationInferencer, get_model

model = get_model('{config}', pretrained='{weights}')
print(ImageClassificationInferencer(model)('photo.jpg')[0]['pred_class'])
```

`{config}` is a Python program, as every config of MMPretrain is: read it before
you load it. The weights are plain tensors; `sha256sum -c {sums}` checks them.
"""


def write_model(
    model: nn.Module,
    cfg: Config,
    folder: str | Path,
    name: str,
    predictions: Predictions | None = None,
) -> None:
    """Write a model as a folder: weights, config, model card and checksums.

    Args:
        model (nn.Module): The model, from ``get_model``.
        cfg (Config): Its config.
        folder (str | Path): Folder to write, a new one.
        name (str): Title of the model card.
        predictions (Predictions, optional): Predictions of this model, for a
            table of accuracy by class group in the model card. Defaults to None.

    Raises:
        UserError: If the folder exists.
    """
    meta = getattr(model, '_dataset_meta', None) or {}
    known = {key: list(meta[key]) for key in ('classes', 'class_counts') if meta.get(key)}
    with new_folder(folder) as content:
        tensors = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
        metadata = dict(format='pt', ride_mm=__version__, dataset_meta=json.dumps(known))
        (content / WEIGHTS).write_bytes(save(tensors, metadata))
        shared = Config({key: value for key, value in cfg.items() if key not in _OF_A_RUN})
        shared.dump(content / CONFIG)
        card = _TEMPLATE.format(
            name=name,
            kind=_kind(model),
            parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
            classes=cfg.model.head.num_classes,
            version=__version__,
            table='' if predictions is None else _accuracy_table(predictions),
            config=CONFIG,
            weights=WEIGHTS,
            sums=SUMS,
        )
        (content / CARD).write_text(card, encoding='utf-8')
        lines = [f'{_sha256(content / file)}  {file}\n' for file in (WEIGHTS, CONFIG, CARD)]
        (content / SUMS).write_text(''.join(lines), encoding='utf-8')


def upload(folder: str | Path, repository: str, private: bool = False) -> str:
    """Upload the folder of a model to the Hugging Face Hub.

    Args:
        folder (str | Path): See :func:`write_model`.
        repository (str): ``USER/NAME``. It is created if it does not exist.
        private (bool): Whether a new repository is private. Defaults to False.

    Returns:
        str: The URL of the commit.

    Raises:
        UserError: If the hub cannot be reached, or refuses.
    """
    with _hub_errors(repository) as hub:
        api = hub.HfApi(library_name='ride_mm', library_version=__version__)
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder)
    return str(commit.commit_url)


def fetch(source: str, folder: str | Path) -> None:
    """Copy a shared model, and check it.

    Args:
        source (str): ``hf://USER/NAME``, ``hf://USER/NAME@REVISION``, or a
            folder.
        folder (str | Path): Folder to write, a new one.

    Raises:
        UserError: If the source is not a whole model, a file differs from its
            checksum, or the folder exists.
    """
    with new_folder(folder) as content:
        if source.startswith(HUB):
            repository, _, revision = source[len(HUB) :].partition('@')
            with _hub_errors(repository) as hub:
                hub.snapshot_download(
                    repository,
                    revision=revision or None,
                    local_dir=content,
                    allow_patterns=[WEIGHTS, CONFIG, CARD, SUMS],
                )
            shutil.rmtree(content / '.cache', ignore_errors=True)
        else:
            for name in (WEIGHTS, CONFIG, CARD, SUMS):
                if Path(source, name).is_file():
                    shutil.copy(Path(source, name), content)
        _check(content, source)


def _check(folder: Path, source: str) -> None:
    """Compare the files with their checksums."""
    sums = folder / SUMS
    lines = sums.read_text(encoding='utf-8').splitlines() if sums.is_file() else []
    digests = {name: digest for digest, _, name in (line.partition('  ') for line in lines)}
    for name in (WEIGHTS, CONFIG, CARD):
        if name not in digests or not (folder / name).is_file():
            raise UserError(
                f'{source}: expected a model of ride-mm push, but {name} is missing, or not '
                f'in {SUMS}'
            )
        if digests[name] != _sha256(folder / name):
            raise UserError(f'{source}: {name} differs from its checksum in {SUMS}')


@contextmanager
def _hub_errors(repository: str) -> Iterator:
    """Import the package of the hub, and turn its errors into one line."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f'{HUB}{repository} needs huggingface_hub: pip install huggingface_hub'
        ) from None
    try:
        yield huggingface_hub
    except Exception as error:
        lines = str(error).strip().splitlines() or ['']
        raise UserError(f'{HUB}{repository}: {type(error).__name__}: {lines[0]}') from error


def _kind(model: nn.Module) -> str:
    backbone = type(model.backbone).__name__
    experts = getattr(model, 'num_experts', None)
    return f'RIDE with {experts} experts on {backbone}' if experts else backbone


def _accuracy_table(predictions: Predictions) -> str:
    """Accuracy by class group, and compute, as Markdown."""
    run, labels = predictions.run, predictions.gt_label
    groups = ClassGroups(run['class_counts'], run['thresholds'])
    figures = long_tail_accuracy(predictions.hits, labels, groups)
    cells = {name: f'{figures[name]:.1f}' for name in groups.of_images(labels)}
    if predictions.relative_compute is not None:
        cells['compute'] = f'{predictions.relative_compute.mean():.2f}'
    rows = [list(cells), ['---'] * len(cells), list(cells.values())]
    lines = '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
    split = run.get('split', 'test')
    return (
        f'\nAccuracy on {len(predictions):,} {split} images in percent, by class group; compute\n'
        f'is 1 where all experts run.\n\n{lines}\n'
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
