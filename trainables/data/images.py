"""Images in memory: uint8 arrays, shared by the trials of a node, augmented in batches on the device."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data.configuration import DataConfig
from trainables.data.deformations import deform, random_deformations
from trainables.lazily import torch

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data.streamed import StreamedImages


CONTROL_POINTS = 3
"""[reading] A side, of deformations of strength C: those of the paper for images of about this size."""
# where the seeds of each split's images start: apart, and within the 32 bits that torch's generator takes of a seed
_DEFORMATION_SEEDS = {"test": 0, "validation": 2**30, "train": 2**31}


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, C, H, W) and labels int64 (n,): all of the images, n = N, or those at `rows` (n,), which a fold
    of a cross-validation has in memory once with the other folds."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None


class Moved(dict[tuple[int, str], tuple[NDArray[Any], "Tensor"]]):
    """Arrays on devices, each moved there once per process also where several folds have it; they are not pickled."""

    def __reduce__(self) -> Any:
        return Moved, ()

    def to(self, array: NDArray[Any], device: torch.device) -> Tensor:
        key = (id(array), str(device))
        if key not in self:
            with warnings.catch_warnings():
                # Ray's shared arrays are read-only, which torch cannot express; nothing here writes into them
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                # with the array, whose id is nobody else's as long as it lives
                self[key] = array, torch.from_numpy(array).to(device)
        return self[key][1]


def shift_and_flip(images: Tensor, down: Tensor, right: Tensor, flip: Tensor, padding: str) -> Tensor:
    """Crops of padded images in one flattened gather: what shifting a window over the padded image would cut out.

    `images` (B, C, H, W) of any type; the window of image b starts `down[b]` rows and `right[b]` columns from the
    image's own corner (both may be negative, |shift| < H, W) and is mirrored left to right where `flip[b]`. Outside the
    image lies its reflection (without repeating the edge), or zeros.
    """
    number, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) + down.unsqueeze(1)
    columns = torch.arange(width, device=images.device).expand(number, -1)
    columns = torch.where(flip.unsqueeze(1), width - 1 - columns, columns) + right.unsqueeze(1)
    inside = None
    if padding == "zero":
        inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((columns >= 0) & (columns < width)).unsqueeze(1)
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    else:
        rows = (height - 1) - ((height - 1) - rows.abs()).abs()
        columns = (width - 1) - ((width - 1) - columns.abs()).abs()
    index = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).reshape(number, 1, height * width)
    moved = images.flatten(2).gather(2, index.expand(-1, channels, -1)).reshape(images.shape)
    return moved if inside is None else moved * inside.unsqueeze(1)


def scale_and_offset(
    config: DataConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[list[float], list[float]]:
    """Per channel, what a pixel in 0..255 is multiplied by and what is added, for `config.scaling`."""
    if config.scaling == "unit":
        return [1 / 255] * len(mean), [0.0] * len(mean)
    if config.scaling == "symmetric":
        return [2 / 255] * len(mean), [-1.0] * len(mean)
    return [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]


def scaled(images: Tensor, factors: tuple[list[float], list[float]]) -> Tensor:
    """uint8 (B, C, H, W) to the network's input, float32."""
    scale, offset = (torch.tensor(values, device=images.device).reshape(1, -1, 1, 1) for values in factors)
    return images.to(torch.float32).mul_(scale).add_(offset)


def channel_statistics(
    images: NDArray[np.uint8], rows: NDArray[np.int64] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels (of the images at `rows`), in [0, 1], exactly, from
    integer histograms."""
    means, deviations = [], []
    levels = np.arange(256)
    rows = np.arange(len(images)) if rows is None else rows
    histograms = np.zeros((images.shape[1], 256), dtype=np.int64)
    for part in np.array_split(rows, max(1, len(rows) // 1024)):
        for counts, values in zip(histograms, images[part].swapaxes(0, 1), strict=True):
            counts += np.bincount(values.ravel(), minlength=256)
    for counts in histograms:
        total, first, second = int(counts.sum()), int(counts @ levels), int(counts @ levels**2)
        means.append(first / total / 255)
        variance = max(second * total - first * first, 0) / total**2
        # a channel without contrast is left as it is
        deviations.append(variance**0.5 / 255 or 1.0)
    return tuple(means), tuple(deviations)


@dataclass
class Images:
    """A data set in memory. Pickles as numpy arrays, which Ray shares between processes without copying, read-only."""

    config: DataConfig
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    memo: dict[str, Any] = field(default_factory=dict)
    """Arrays derived from the data by methods, shared with them."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    moved: Moved = field(default_factory=Moved, repr=False)
    test_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Which the test images are of all that the source has: those that are not for testing, then those that are."""
    masks: NDArray[np.bool_] | None = None
    """Where the object is in the test images (N, H, W), if that was asked for."""
    others: dict[str, Images | StreamedImages] = field(default_factory=dict, repr=False)
    """Data sets of the same classes to test on, by their names in the record: see `shift`."""

    def __post_init__(self) -> None:
        self.config.check_size(self.size)
        if not self.mean:
            self.mean, self.std = channel_statistics(self.train.images, self.train.rows)

    @property
    def name(self) -> str:
        return self.config.dataset

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.train.images.shape[2]

    @property
    def evaluation_size(self) -> int:
        return self.size

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def _split(self, split: str) -> Split:
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    def count(self, split: str) -> int:
        """Number of images of a split: train, validation or test."""
        return len(self._split(split).labels)

    def _at(self, split: str, places: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, C, H, W) and labels (B,) of a split at `places` (B,), on the device, as they are."""
        part, places = self._split(split), places.to(device)
        rows = places if part.rows is None else self.moved.to(part.rows, device)[places]
        return self.moved.to(part.images, device)[rows], self.moved.to(part.labels, device)[places]

    def _shown(self, split: str, places: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The same as they are measured on: deformed, if that is wanted, each image in one way."""
        images, labels = self._at(split, places, device)
        if self.config.deformation_strength:
            start = _DEFORMATION_SEEDS[split]
            generators = (torch.Generator().manual_seed(start + int(place)) for place in places)
            images = self._deformed(images, [(1, generator) for generator in generators])
        return images, labels

    def _deformed(self, images: Tensor, draws: Iterable[tuple[int, torch.Generator]]) -> Tensor:
        """Images deformed at random, so many by each generator."""
        strength, size, device = self.config.deformation_strength, self.size, images.device
        assert strength is not None
        fields = [
            random_deformations(number, size, size, CONTROL_POINTS, strength, generator=generator, device=device)
            for number, generator in draws
        ]
        return deform(images.float(), torch.cat(fields)).round_().to(torch.uint8)

    def training_batches(
        self, batch_size: int, *, generator: torch.Generator, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (images float32 (B, C, H, W), labels (B,)) in random order, augmented.

        Order, crops and flips are drawn from `generator`, a CPU one, batch by batch, so that equal generators give
        equal batches on any device. A last batch of a single image is dropped: BatchNorm cannot train on one.
        """
        number = self.count("train")
        factors = scale_and_offset(self.config, self.mean, self.std)
        for places in torch.randperm(number, generator=generator).split(batch_size):
            if len(places) == 1 and number > 1 and batch_size > 1:
                continue
            batch, labels = self._at("train", places, device)
            if self.config.deformation_strength:
                batch = self._deformed(batch, [(len(batch), generator)])
            if self.config.crop or self.config.flip:
                batch = self._augmented(batch, generator)
            yield scaled(batch, factors), labels

    def _augmented(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        number, crop = len(batch), self.config.crop
        down, right = torch.randint(-crop, crop + 1, (2, number), generator=generator)
        flip = torch.zeros(number, dtype=torch.bool)
        if self.config.flip:
            flip = torch.randint(0, 2, (number,), generator=generator).bool()
        device = batch.device
        return shift_and_flip(batch, down.to(device), right.to(device), flip.to(device), self.config.padding)

    def batches(
        self, split: str, batch_size: int, *, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images of a split (None: all) in their fixed order, not augmented."""
        factors = scale_and_offset(self.config, self.mean, self.std)
        for places in torch.arange(min(limit or self.count(split), self.count(split))).split(batch_size):
            images, labels = self._shown(split, places, device)
            yield scaled(images, factors), labels

    def select(self, split: str, indices: Tensor, *, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) of a split at `indices` (B,), not augmented."""
        images, labels = self._shown(split, indices, device)
        return scaled(images, scale_and_offset(self.config, self.mean, self.std)), labels

    def test_masks(self, start: int, end: int) -> Tensor:
        """Where the object is in the test images from `start` to before `end`, bool (B, H, W).

        Raises `ValueError` if the data were loaded without masks.
        """
        if self.masks is None:
            raise InputError(f"dataset: {self.name} was loaded without masks")
        return torch.from_numpy(self.masks[start:end].copy())

    def training_pixels(self) -> Iterator[Tensor]:
        """All training images as they are, uint8 (B, C, H, W), in parts."""
        for places in torch.arange(self.count("train")).split(2048):
            yield self._at("train", places, torch.device("cpu"))[0]
