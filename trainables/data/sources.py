"""A data set by its name, folder:/path or parquet:/path: identified, described without loading it, and loaded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data import masks as mask_files
from trainables.data.configuration import TASKS, DataConfig, check_folds, random_labels
from trainables.data.contents import Contents
from trainables.data.folders import Folder, class_folder, contents_of_folder, imagenet
from trainables.data.images import Images
from trainables.data.listing import file_system, storage_errors
from trainables.data.memory import check_memory, fits
from trainables.data.named import NAMED, open_or_download, read_digits, read_torchvision
from trainables.data.parquet import Choice, ParquetSet, contents_of_parquet, parquet_set, read_parquet
from trainables.data.pictures import Arrays, as_array, in_threads, one_line, read_files, square, with_channels
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
    validation_images: int = 0
    """Those of a validation split of the set's own, from which none are drawn then."""
    class_names: tuple[str, ...] = ()
    """As far as they are known: of named sets the first."""
    contents: Contents | None = None
    """What was found by opening every image of a folder or Parquet set."""
    skipped: tuple[str, ...] = ()
    """What of its files is not used, in words."""
    matched: tuple[str, ...] = ()
    """The patterns of `exclude` that something matched."""

    def outside_test(self, config: DataConfig) -> int:
        """Number of images that may be trained on, with those that a validation split takes of them. Raises
        `InputError` for more folds than can be."""
        if config.folds is None or config.fold is None:
            return self.train_images
        if self.rarest is not None:
            check_folds(config, self.rarest)
        images = self.train_images + self.validation_images + self.test_images
        # scikit-learn deals the images of all classes to the folds in turn
        return images - len(range(config.fold, images, config.folds))

    def training_images(self, config: DataConfig) -> int:
        """Number of images that a trial trains on."""
        images = self.outside_test(config)
        own = self.validation_images > 0 and config.folds is None
        return config.train_images or images - (0 if own else round(config.validation * images))

    def told(self, size: int, channels: int) -> list[str]:
        """What a person is to know of it, a line each: what is skipped, what of its images is converted to be of this
        size and to have these channels, and how many are in two splits."""
        lines = [f"skipped: {'; '.join(self.skipped)}"] if self.skipped else []
        if self.contents is not None:
            converted = self.contents.converted(size, channels)
            lines += [f"converted: {', '.join(converted)}"] if converted else []
            for split, number in self.contents.copies.items():
                whole = self.contents.images[split]
                lines.append(f"{number} of {whole} {split} images are in its training split, too (equal byte for byte)")
        return lines


@dataclass(frozen=True)
class Place:
    """A flag's value: its kind, "named", "folder" or "parquet", its name or path, and what is chosen of Parquet."""

    kind: str
    path: str
    choice: Choice = field(default_factory=Choice)


def identify(spec: str, root: str, exclude: Sequence[str] = ()) -> str:
    """The data set's name in the record, which holds no path: a named set's own, or for `folder:/x/pets` and
    `parquet:/x/cifar` the last part of the path and eight digits of a fingerprint, `parquet:cifar@1a2b3c4d`, so that
    the same data elsewhere are the same and other data are not. It covers names, sizes and contents of a folder's
    images, and class names, labels and images of Parquet files, however they are written.

    Raises `ValueError` for an unknown name, missing files and images that are none.
    """
    place = parse_spec(spec)
    if place.kind == "named":
        return spec
    return _name(place, _contents(_files(place, exclude)))


def _files(place: Place, exclude: Sequence[str]) -> Folder | ParquetSet:
    if place.kind == "folder":
        return class_folder(place.path, exclude)
    return parquet_set(place.path, place.choice, exclude)


def _contents(files: Folder | ParquetSet) -> Contents:
    return contents_of_folder(files) if isinstance(files, Folder) else contents_of_parquet(files)


def _name(place: Place, contents: Contents) -> str:
    return f"{place.kind}:{place.path.rstrip('/').rsplit('/', 1)[-1]}@{contents.fingerprint}"


def parse_spec(spec: str) -> Place:
    """A flag's value. Raises `InputError` for what it cannot be."""
    kind, _, path = spec.partition(":")
    if kind not in ("folder", "parquet"):
        if spec not in NAMED:
            raise InputError(f"dataset: {spec!r}, allowed are {', '.join(NAMED)}, folder:/path, parquet:/path")
        return Place("named", spec)
    if not path:
        raise InputError(f"dataset: {spec!r}, allowed is {kind}:/path")
    if kind == "folder" or "?" not in path or _exists(path):
        return Place(kind, _absolute(path))
    path, _, text = path.rpartition("?")
    fields = [entry.name for entry in dataclasses.fields(Choice)]
    chosen: dict[str, str] = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        if name not in fields or not value or name in chosen:
            allowed = "&".join(f"{field}=NAME" for field in fields)
            raise InputError(f"dataset: {spec}: {part!r}, allowed after ? are {allowed}, each once")
        chosen[name] = value
    return Place(kind, _absolute(path), Choice(**chosen))


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _exists(path: str) -> bool:
    """Whether there is something that is called so, its ? included."""
    if "://" not in path:
        return os.path.exists(_absolute(path))
    fs, inner = file_system(path)
    try:
        return bool(fs.exists(inner))
    except storage_errors() as error:
        raise InputError(f"dataset: {path} cannot be read ({one_line(error)})") from None


def describe(spec: str, root: str, exclude: Sequence[str] = ()) -> DataInfo:
    """What a data set has, without loading it; for named sets also when its files are missing."""
    place = parse_spec(spec)
    if place.kind == "named":
        known = NAMED[spec]
        return DataInfo(
            spec,
            known.channels,
            known.size,
            known.classes,
            known.train_images,
            known.test_images,
            streamed=spec == "imagenet",
            present=not known.missing(root),
            class_names=known.first,
        )
    files = _files(place, exclude)
    contents = _contents(files)
    return DataInfo(
        _name(place, contents),
        contents.channels,
        contents.size,
        len(contents.classes),
        contents.images["train"],
        contents.images["test"],
        streamed=place.kind == "folder" and not fits(contents.number, contents.channels, contents.size),
        present=True,
        rarest=contents.rarest,
        validation_images=contents.images.get("validation", 0),
        class_names=tuple(contents.classes),
        contents=contents,
        skipped=(*files.skipped.told(), *contents.left_out),
        matched=files.matched,
    )


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
        _add_masks(data, spec, root, configs[0].exclude)
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


def _add_masks(data: Images | StreamedImages, spec: str, root: str, exclude: Sequence[str]) -> None:
    """Those of the test images. Raises `InputError` where they are missing."""
    if isinstance(data, StreamedImages):
        top = Path(_with_masks(spec))
        data.masks = [mask_files.in_folder(top, file) for file in data.files["test"][0]]
        mask_files.check(data.masks, spec)
        return
    files = _mask_files(spec, root, exclude)
    chosen = [files[row] for row in data.test_rows]
    mask_files.check(chosen, spec)
    size = data.size

    def read(file: mask_files.MaskFile) -> NDArray[np.uint8]:
        return as_array(square(file.read(), size))[0]

    data.masks = mask_files.from_grey(np.stack(in_threads(read, chosen)))


def check_masks(spec: str, root: str, exclude: Sequence[str] = ()) -> None:
    """Raise `InputError` if the test images of a data set have no masks, without loading it."""
    path = _with_masks(spec)
    if path:
        test, _ = class_folder(path, exclude).test
        mask_files.check([mask_files.in_folder(Path(path), file) for file in test], spec)


def _with_masks(spec: str) -> str:
    """The path of a folder, "" for Oxford's pets: what may have masks."""
    place = parse_spec(spec)
    if place.kind != "folder" and spec != "oxford-pets":
        raise InputError(
            f"dataset: {spec} has no masks, allowed are oxford-pets and a folder: with "
            f"{mask_files.FOLDER}/<an image's path>.png at its top"
        )
    return place.path if place.kind == "folder" else ""


def _mask_files(spec: str, root: str, exclude: Sequence[str]) -> list[mask_files.MaskFile]:
    """Of all images as the source has them: to train, to validate and to test on."""
    path = _with_masks(spec)
    if path:
        parts = class_folder(path, exclude).parts()
        return [mask_files.in_folder(Path(path), file) for files, _ in parts.values() for file in files]
    from torchvision.datasets import OxfordIIITPet

    pets = [open_or_download(OxfordIIITPet, spec, root, root, {"split": split}) for split in ("trainval", "test")]
    return [mask_files.of_pet(str(image)) for part in pets for image in part._images]


def _read(spec: str, root: str, config: DataConfig) -> Streamed | InMemory | Tasks:
    place = parse_spec(spec)
    if spec == "imagenet":
        known = NAMED[spec]
        return Streamed(imagenet(root), known.size, config.channels or known.channels, as_stored=True)
    if place.kind == "folder":
        folder = class_folder(place.path, config.exclude)
        contents = contents_of_folder(folder)
        size, channels = config.image_size or contents.size, config.channels or contents.channels
        if not fits(contents.number, channels, size):
            return Streamed(folder, contents.size, channels)
        _refuse_streaming_options(spec, config)
        parts = {split: read_files(*part, size, channels) for split, part in folder.parts().items()}
        return InMemory(folder.classes, parts["train"], parts["test"], validation=parts.get("validation"))
    _refuse_streaming_options(spec, config)
    if place.kind == "parquet":
        return read_parquet(parquet_set(place.path, place.choice, config.exclude), config)
    known = NAMED[spec]
    images = known.train_images + known.test_images
    channels = config.channels or known.channels
    check_memory(spec, images, channels, config.image_size or known.size)
    name = "mnist" if spec == TASKS else spec
    found = read_digits(config) if spec == "digits" else read_torchvision(name, root, config)
    pool, test = (_converted(part, config.channels) for part in (found.pool, found.test))
    return Tasks(pool[0]) if spec == TASKS else InMemory(found.class_names, pool, test)


def _converted(part: Arrays, channels: int | None) -> Arrays:
    return with_channels(part[0], channels), part[1]


def _refuse_streaming_options(spec: str, config: DataConfig) -> None:
    for name, value in (("zoom", config.zoom), ("evaluation_size", config.evaluation_size)):
        if value:
            raise InputError(f"{name}: {value}, allowed with streamed data sets alone; {spec} is held in memory")
