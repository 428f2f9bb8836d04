"""A data set by its name, folder:/path or parquet:/path: identified, described without loading it, and loaded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data import masks as mask_files
from trainables.data.configuration import TASKS, DataConfig, check_folds, random_labels
from trainables.data.folders import class_folder, fingerprint_of_folder, imagenet, shape_of_folder
from trainables.data.images import Images
from trainables.data.memory import check_memory, fits
from trainables.data.named import NAMED, open_or_download, read_digits, read_torchvision
from trainables.data.parquet import fingerprint_of_parquet, first_image, parquet_files, parquet_labels, read_parquet
from trainables.data.pictures import FOLDER_SIZE, as_array, decode, in_threads, read_files, square
from trainables.data.splits import InMemory, Streamed, Tasks
from trainables.data.streamed import StreamedImages


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set without loading it; `train_images` include what a validation split takes."""

    name: str
    channels: int
    size: int
    classes: int
    train_images: int
    test_images: int
    streamed: bool
    present: bool
    """Whether its files are there (else they are downloaded where that is possible)."""
    rarest: int | None = None
    """Images of the rarest class; None: not known before it is loaded."""

    def outside_test(self, config: DataConfig) -> int:
        """Number of images that are not to test on. Raises `InputError` for more folds than can be."""
        if config.folds is None or config.fold is None:
            return self.train_images
        if self.rarest is not None:
            check_folds(config, self.rarest)
        images = self.train_images + self.test_images
        # scikit-learn deals the images of all classes to the folds in turn
        return images - len(range(config.fold, images, config.folds))

    def training_images(self, config: DataConfig) -> int:
        """Number of images that a trial trains on."""
        images = self.outside_test(config)
        return config.train_images or images - round(config.validation * images)


def identify(spec: str, root: str) -> str:
    """The data set's name in the record, which holds no path: a named set's own, or for `folder:/x/pets` and
    `parquet:/x/cifar` the last part of the path and eight digits of a fingerprint, `parquet:cifar@1a2b3c4d`, so that
    the same data elsewhere are the same and other data are not. It covers names, sizes and content of a folder's files
    (above 4 GiB together the first 4 KiB of each), and names, sizes and footers of Parquet files.

    Raises `ValueError` for an unknown name or missing files.
    """
    kind, path = parse_spec(spec)
    if kind == "named":
        return spec
    fingerprint = fingerprint_of_folder(path) if kind == "folder" else fingerprint_of_parquet(path)
    return f"{kind}:{path.rstrip('/').rsplit('/', 1)[-1]}@{fingerprint}"


def parse_spec(spec: str) -> tuple[str, str]:
    """A flag's value as its kind, "named", "folder" or "parquet", and its name or path. Raises `InputError`."""
    kind, _, path = spec.partition(":")
    if kind in ("folder", "parquet"):
        if not path:
            raise InputError(f"dataset: {spec!r}, allowed is {kind}:/path")
        return kind, path if "://" in path else os.path.abspath(os.path.expanduser(path))
    if spec not in NAMED:
        raise InputError(f"dataset: {spec!r}, allowed are {', '.join(NAMED)}, folder:/path, parquet:/path")
    return "named", spec


def describe(spec: str, root: str) -> DataInfo:
    """What a data set has, without loading it; for named sets also when its files are missing."""
    kind, path = parse_spec(spec)
    if kind == "named":
        known = NAMED[spec]
        present = not known.folder or (Path(root) / known.folder).is_dir()
        return DataInfo(
            spec,
            known.channels,
            known.size,
            known.classes,
            known.train_images,
            known.test_images,
            streamed=spec == "imagenet",
            present=present,
        )
    name = identify(spec, root)
    if kind == "parquet":
        files = parquet_files(path)
        labels = {split: parquet_labels(path, files[split]) for split in files}
        first = decode(first_image(path, files["train"][0]), None, f"{path}: first image")
        classes = 1 + max(int(part.max()) for part in labels.values())
        counts = len(labels["train"]), len(labels["test"])
        size = first.shape[1] if first.shape[1] == first.shape[2] else FOLDER_SIZE
        rarest = _rarest(labels["train"], labels["test"])
        return DataInfo(name, first.shape[0], size, classes, *counts, streamed=False, present=True, rarest=rarest)
    folder = class_folder(path)
    counts = len(folder.train[0]), len(folder.test[0])
    size, channels = shape_of_folder(folder)
    streamed = not fits(sum(counts), channels, size)
    return DataInfo(
        name,
        3 if streamed else channels,
        size,
        len(folder.classes),
        *counts,
        streamed=streamed,
        present=True,
        rarest=_rarest(folder.train[1], folder.test[1]),
    )


def _rarest(*labels: NDArray[np.int64]) -> int:
    return int(np.unique(np.concatenate(labels), return_counts=True)[1].min())


def load(spec: str, root: str, config: DataConfig, *, masks: bool = False) -> Images | StreamedImages:
    """The data set with its splits, see the package's docstring; with the masks of its test images, if they are asked
    for. `root` is where named sets are, or are downloaded to.

    Raises `ValueError` in one line for an unknown set, missing or damaged files, a download that fails, a root that
    cannot be written when it has to be, settings that the images are too small for, and more folds than the rarest
    class has images.
    """
    return load_each(spec, root, [config], masks=masks)[config]


def load_each(
    spec: str, root: str, configs: Sequence[DataConfig], *, masks: bool = False
) -> dict[DataConfig, Images | StreamedImages]:
    """The data set for each of some configurations that differ in their fold alone. It is read once, and its images
    are in memory once, however many folds there are. Raises what `load` raises."""
    source = _read(spec, root, configs[0])
    # configurations that show the same images in other ways have them once
    split: dict[DataConfig, Images | StreamedImages] = {}
    loaded = {}
    for config in configs:
        shown = {"labels": "real", "deformation_strength": None if config.dataset != TASKS else 0.0}
        plain = dataclasses.replace(config, **shown)  # type: ignore[arg-type]
        if plain not in split:
            split[plain] = source.split(plain)
        loaded[config] = _shown(split[plain], config)
    for data in loaded.values() if masks else ():
        _add_masks(data, spec, root)
    return loaded


def _shown(data: Images | StreamedImages, config: DataConfig) -> Images | StreamedImages:
    """The same images deformed as the configuration says, and with its labels."""
    if config == data.config:
        return data
    if config.labels == "real":
        return dataclasses.replace(data, config=config)
    labels = random_labels(data.count("train"), data.classes)
    if isinstance(data, StreamedImages):
        files = {**data.files, "train": (data.files["train"][0], labels)}
        return dataclasses.replace(data, config=config, files=files)
    return dataclasses.replace(data, config=config, train=dataclasses.replace(data.train, labels=labels))


def _add_masks(data: Images | StreamedImages, spec: str, root: str) -> None:
    """Those of the test images. Raises `InputError` where they are missing."""
    if isinstance(data, StreamedImages):
        top = Path(_with_masks(spec))
        data.masks = [mask_files.in_folder(top, file) for file in data.files["test"][0]]
        mask_files.check(data.masks, spec)
        return
    files = _mask_files(spec, root)
    chosen = [files[row] for row in data.test_rows]
    mask_files.check(chosen, spec)
    size = data.size

    def read(file: mask_files.MaskFile) -> NDArray[np.uint8]:
        return as_array(square(file.read(), size))[0]

    data.masks = mask_files.from_grey(np.stack(in_threads(read, chosen)))


def check_masks(spec: str, root: str) -> None:
    """Raise `InputError` if the test images of a data set have no masks, without loading it."""
    path = _with_masks(spec)
    if path:
        mask_files.check([mask_files.in_folder(Path(path), file) for file in class_folder(path).test[0]], spec)


def _with_masks(spec: str) -> str:
    """The path of a folder, "" for Oxford's pets: what may have masks."""
    kind, path = parse_spec(spec)
    if kind != "folder" and spec != "oxford-pets":
        raise InputError(
            f"dataset: {spec} has no masks, allowed are oxford-pets and a folder: with "
            f"{mask_files.FOLDER}/<an image's path>.png at its top"
        )
    return path if kind == "folder" else ""


def _mask_files(spec: str, root: str) -> list[mask_files.MaskFile]:
    """Of all images as the source has them: those that are not for testing, then those that are."""
    path = _with_masks(spec)
    if path:
        folder = class_folder(path)
        return [mask_files.in_folder(Path(path), file) for file in [*folder.train[0], *folder.test[0]]]
    from torchvision.datasets import OxfordIIITPet

    parts = [open_or_download(OxfordIIITPet, spec, root, root, {"split": split}) for split in ("trainval", "test")]
    return [mask_files.of_pet(str(image)) for part in parts for image in part._images]


def _read(spec: str, root: str, config: DataConfig) -> Streamed | InMemory | Tasks:
    kind, path = parse_spec(spec)
    if spec == "imagenet":
        return Streamed(imagenet(root), NAMED["imagenet"].size)
    if kind == "folder":
        folder = class_folder(path)
        own, channels = shape_of_folder(folder)
        size = config.image_size or own
        if not fits(len(folder.train[0]) + len(folder.test[0]), channels, size):
            return Streamed(folder, own)
        _refuse_streaming_options(spec, config)
        mode = "L" if channels == 1 else "RGB"
        train, test = (read_files(*part, size, mode) for part in (folder.train, folder.test))
        return InMemory(folder.classes, train, test)
    _refuse_streaming_options(spec, config)
    if kind == "parquet":
        return read_parquet(path, config)
    known = NAMED[spec]
    images = known.train_images + known.test_images
    check_memory(spec, images, known.channels, config.image_size or known.size)
    if spec == "digits":
        return read_digits(config)
    if spec == TASKS:
        return Tasks(read_torchvision("mnist", root, config).pool[0])
    return read_torchvision(spec, root, config)


def _refuse_streaming_options(spec: str, config: DataConfig) -> None:
    for name, value in (("zoom", config.zoom), ("evaluation_size", config.evaluation_size)):
        if value:
            raise InputError(f"{name}: {value}, allowed with streamed data sets alone; {spec} is held in memory")
