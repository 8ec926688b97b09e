"""Feature maps of a frozen trunk, kept in files, as a dataset."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ride_mm.structures import BatchDataSample, TrunkMaps
from ride_mm.utils.files import write_file

from .class_counts import get_labels

# Maps in a file, of consecutive images of one view.
CHUNK = 512


class MapFiles:
    """Files with the maps of several augmented views of N images.

    Each file is written whole or not at all, so an interrupted extraction goes
    on where it was.

    Args:
        folder (Path): Folder of the files, ``view_0/0.npy`` and so on.
        views (int): Number of views.
        num_images (int): Number of images N.
    """

    def __init__(self, folder: Path, views: int, num_images: int) -> None:
        self.folder = folder
        self.views = views
        self.num_images = num_images
        self._open: dict[tuple[int, int], np.ndarray] = {}

    def chunks(self) -> list[tuple[int, range]]:
        """View and images of every file."""
        starts = range(0, self.num_images, CHUNK)
        return [
            (view, range(start, min(start + CHUNK, self.num_images)))
            for view in range(self.views)
            for start in starts
        ]

    def path(self, view: int, first: int) -> Path:
        """The file with the maps of a view of image ``first`` and those after it."""
        return self.folder / f'view_{view}' / f'{first // CHUNK}.npy'

    def missing(self) -> list[tuple[int, range]]:
        """View and images of the files that do not exist."""
        return [(view, images) for view, images in self.chunks() if not self._exists(view, images)]

    def _exists(self, view: int, images: range) -> bool:
        return self.path(view, images[0]).exists()

    def write(self, view: int, images: range, maps: np.ndarray) -> None:
        """Write a file, (len(images), ...)."""
        content = io.BytesIO()
        np.save(content, maps)
        write_file(self.path(view, images[0]), content.getvalue())

    def read(self, views: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Maps of the given views of B images, (B, ...)."""
        return np.stack(
            [self._chunk(view, image)[image % CHUNK] for view, image in zip(views, images)]
        )

    def _chunk(self, view: int, image: int) -> np.ndarray:
        key = (int(view), int(image) // CHUNK)
        if key not in self._open:
            self._open[key] = np.load(self.path(view, image), mmap_mode='r')
        return self._open[key]


class TrunkMapsDataset(Dataset):
    """Maps in place of the images of a dataset, returned batch by batch.

    In every epoch an image has the next of its views.

    Args:
        dataset (Any): The N images; its other attributes are those of this
            dataset.
        files (MapFiles): Their maps.
    """

    def __init__(self, dataset: Any, files: MapFiles) -> None:
        self.dataset = dataset
        self.files = files
        self.labels = np.asarray(get_labels(dataset))
        self.epoch = 0

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> dict:
        images = np.array(indices, dtype=np.int64)
        maps = self.files.read((images + self.epoch) % self.files.views, images)
        return dict(
            inputs=TrunkMaps(torch.from_numpy(maps)),
            data_samples=BatchDataSample(torch.from_numpy(self.labels[images])),
        )
