"""Image files that do not fit into memory, read by `torch.utils.data.DataLoader` workers (ImageNet, large folders)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data.configuration import DataConfig
from trainables.data.images import Images, scale_and_offset, scaled
from trainables.data.masks import MaskFile, from_grey
from trainables.data.pictures import picture
from trainables.lazily import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.459,), (0.226,)
"""[reading] Of grey images: ImageNet's, weighted as grey is made of colours."""


class _Files:
    """Images of some files; each is transformed under a seed of its own, so that no worker's state matters."""

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int],
        seeds: Sequence[int],
        transform: Any,
        channels: int,
        as_stored: bool,
    ) -> None:
        self.paths, self.labels, self.seeds, self.transform = paths, labels, seeds, transform
        self.channels, self.as_stored = channels, as_stored

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        shown = picture(path, self.channels, path, as_stored=self.as_stored)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seeds[index])
            return self.transform(shown), self.labels[index]


def _each(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's batches. A worker's `InputError` is raised as it was, without the worker's traceback in it."""
    try:
        yield from loader
    except InputError as error:
        line = str(error).strip().splitlines()[-1]
        raise InputError(line.partition(f"{InputError.__name__}: ")[2] or line) from None


@dataclass
class StreamedImages:
    """A data set of image files, with the interface of `Images`. Pickles as paths: every node needs the files."""

    config: DataConfig
    class_names: tuple[str, ...]
    files: dict[str, tuple[list[str], NDArray[np.int64]]]
    """Paths and labels of the splits train, validation and test."""
    size: int = 224
    workers: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    memo: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    masks: list[MaskFile] | None = None
    """Where the masks of the test images are, if they were asked for."""
    others: dict[str, Images | StreamedImages] = field(default_factory=dict, repr=False)
    """Data sets of the same classes to test on, by their names in the record: see `shift`."""
    channels: int = 3
    as_stored: bool = False
    """Whether images are taken without regard to EXIF data and transparency, as ImageNet was published."""

    def __post_init__(self) -> None:
        self.config.check_size(self.size)
        if not self.mean:
            grey = self.channels == 1
            self.mean, self.std = (GREY_MEAN, GREY_STD) if grey else (IMAGENET_MEAN, IMAGENET_STD)

    @property
    def name(self) -> str:
        return self.config.dataset

    @property
    def evaluation_size(self) -> int:
        return self.config.evaluation_size or self.size

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def count(self, split: str) -> int:
        """Number of images of a split: train, validation or test."""
        return len(self.files[split][0])

    def _training_transform(self) -> Any:
        from torchvision.transforms import v2

        if self.config.zoom:
            steps: list[Any] = [v2.RandomResizedCrop(self.size, antialias=True)]
        else:
            steps = [v2.Resize(self.size, antialias=True), v2.CenterCrop(self.size)]
        if self.config.crop:
            mode = "reflect" if self.config.padding == "reflect" else "constant"
            steps.append(v2.RandomCrop(self.size, padding=self.config.crop, padding_mode=mode))
        if self.config.flip:
            steps.append(v2.RandomHorizontalFlip())
        return v2.Compose([*steps, v2.PILToTensor()])

    def _plain_transform(self, size: int) -> Any:
        from torchvision.transforms import v2

        return v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size), v2.PILToTensor()])

    def _loader(
        self, split: str, indices: Tensor, seeds: Tensor, transform: Any, batch_size: int, device: torch.device
    ) -> DataLoader[tuple[Tensor, int]]:
        from torch.utils.data import DataLoader

        paths, labels = self.files[split]
        chosen = indices.tolist()
        files = _Files(
            [paths[i] for i in chosen],
            labels[chosen].tolist(),
            seeds.tolist(),
            transform,
            self.channels,
            self.as_stored,
        )
        # a generator of its own: otherwise every loader would draw from torch's global one
        own = torch.Generator()
        pin = device.type == "cuda"
        readable = cast("Dataset[tuple[Tensor, int]]", files)  # what it is taken for; a class of torch's it need not be
        return DataLoader(readable, batch_size, num_workers=self.workers, pin_memory=pin, generator=own)

    def training_batches(
        self, batch_size: int, *, generator: torch.Generator, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (images float32 (B, C, H, W), labels (B,)) in random order, augmented.

        Order and each image's own seed are drawn from `generator`, so that equal generators give equal batches however
        many workers read them. A last batch of a single image is dropped: BatchNorm cannot train on one.
        """
        number = self.count("train")
        order = torch.randperm(number, generator=generator)
        seeds = torch.randint(0, 2**62, (number,), generator=generator)
        if number % batch_size == 1 and number > 1 and batch_size > 1:
            order, seeds = order[:-1], seeds[:-1]
        loader = self._loader("train", order, seeds, self._training_transform(), batch_size, device)
        factors = scale_and_offset(self.config, self.mean, self.std)
        for images, labels in _each(loader):
            yield scaled(images.to(device, non_blocking=True), factors), labels.to(device, non_blocking=True)

    def batches(
        self, split: str, batch_size: int, *, device: torch.device, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images of a split (None: all) in their fixed order, not augmented, at evaluation size."""
        order = torch.arange(min(limit or self.count(split), self.count(split)))
        # whole batches of many large images would not fit: the result does not depend on the batch
        batch_size = min(batch_size, 250)
        loader = self._loader(split, order, order, self._plain_transform(self.evaluation_size), batch_size, device)
        factors = scale_and_offset(self.config, self.mean, self.std)
        for images, labels in _each(loader):
            yield scaled(images.to(device, non_blocking=True), factors), labels.to(device, non_blocking=True)

    def select(self, split: str, indices: Tensor, *, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) of a split at `indices` (B,), not augmented, at evaluation size."""
        transform = self._plain_transform(self.evaluation_size)
        parts = list(_each(self._loader(split, indices, indices, transform, 250, device)))
        images, labels = (torch.cat([part[i] for part in parts]).to(device) for i in (0, 1))
        return scaled(images, scale_and_offset(self.config, self.mean, self.std)), labels

    def test_masks(self, start: int, end: int) -> Tensor:
        """Where the object is in the test images from `start` to before `end`, bool (B, H, W), at evaluation size.

        Raises `ValueError` if the data were loaded without masks, or one cannot be read.
        """
        if self.masks is None:
            raise InputError(f"dataset: {self.name} was loaded without masks")
        transform = self._plain_transform(self.evaluation_size)
        found = [from_grey(transform(file.read())[0].numpy()) for file in self.masks[start:end]]
        return torch.from_numpy(np.stack(found))

    def training_pixels(self) -> Iterator[Tensor]:
        """All training images at training size, uint8 (B, C, H, W), in parts."""
        order = torch.arange(self.count("train"))
        transform = self._plain_transform(self.size)
        for images, _ in _each(self._loader("train", order, order, transform, 256, torch.device("cpu"))):
            yield images
