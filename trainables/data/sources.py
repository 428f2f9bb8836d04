"""Where data sets come from: scikit-learn, torchvision, class folders, Parquet files (local or on S3)."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import io
import os
import shutil
import tempfile
import urllib.error
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from analysis.command_line import InputError
from trainables.data import masks as mask_files
from trainables.data.configuration import (
    TASK_SEED,
    TASKS,
    TEST_SEED,
    DataConfig,
    check_folds,
    fold_splits,
    random_labels,
    shuffled,
    split_indices,
    stratified,
)
from trainables.data.images import Images, Moved, Split
from trainables.data.streamed import StreamedImages

MEMORY_LIMIT = 4 * 2**30
"""Bytes of uint8 pixels above which a set of image files is streamed."""
FOLDER_SIZE = 224
"""Pixels a side of images from folders and Parquet files whose own sizes differ."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
STORAGE_ERRORS = (OSError, BotoCoreError)


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


@dataclass(frozen=True)
class _Named:
    """A named data set: what it is, and where torchvision keeps it below the data root ("" : comes with a package)."""

    channels: int
    size: int
    classes: int
    train_images: int
    test_images: int
    folder: str
    source: str


NAMED = {
    "digits": _Named(1, 8, 10, 1437, 360, "", "scikit-learn"),
    "mnist": _Named(1, 28, 10, 60000, 10000, "MNIST/raw", "MNIST"),
    "fashion-mnist": _Named(1, 28, 10, 60000, 10000, "FashionMNIST/raw", "FashionMNIST"),
    "kmnist": _Named(1, 28, 10, 60000, 10000, "KMNIST/raw", "KMNIST"),
    "cifar10": _Named(3, 32, 10, 50000, 10000, "cifar-10-batches-py", "CIFAR10"),
    "cifar100": _Named(3, 32, 100, 50000, 10000, "cifar-100-python", "CIFAR100"),
    "imagenette": _Named(3, 320, 10, 9469, 3925, "imagenette2-320", "Imagenette"),
    "oxford-pets": _Named(3, 224, 37, 3680, 3669, "oxford-iiit-pet", "OxfordIIITPet"),
    TASKS: _Named(1, 28, 0, 0, 0, "MNIST/raw", "MNIST"),  # how many is for the flags to say: see `_Tasks`
    "imagenet": _Named(3, 224, 1000, 1281167, 50000, "imagenet", "class folders"),
}


def identify(spec: str, root: str) -> str:
    """The data set's name in the record, which holds no path: a named set's own, or for `folder:/x/pets` and
    `parquet:/x/cifar` the last part of the path and eight digits of a fingerprint, `parquet:cifar@1a2b3c4d`, so that
    the same data elsewhere are the same and other data are not. It covers names, sizes and content of a folder's files
    (above 4 GiB together the first 4 KiB of each), and names, sizes and footers of Parquet files.

    Raises `ValueError` for an unknown name or missing files.
    """
    kind, path = _parse(spec)
    if kind == "named":
        return spec
    fingerprint = _folder_fingerprint(path) if kind == "folder" else _parquet_fingerprint(path)
    return f"{kind}:{path.rstrip('/').rsplit('/', 1)[-1]}@{fingerprint}"


def _parse(spec: str) -> tuple[str, str]:
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
    kind, path = _parse(spec)
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
        files = _parquet_files(path)
        labels = {split: _parquet_labels(path, files[split]) for split in files}
        first = _decode(_first_image(path, files["train"][0]), None, f"{path}: first image")
        classes = 1 + max(int(part.max()) for part in labels.values())
        counts = len(labels["train"]), len(labels["test"])
        size = first.shape[1] if first.shape[1] == first.shape[2] else FOLDER_SIZE
        rarest = _rarest(labels["train"], labels["test"])
        return DataInfo(name, first.shape[0], size, classes, *counts, streamed=False, present=True, rarest=rarest)
    folder = _folder(path)
    counts = len(folder.train[0]), len(folder.test[0])
    size, channels = _folder_shape(folder)
    streamed = sum(counts) * channels * size * size > MEMORY_LIMIT
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
        return _array(_square(file.read(), size))[0]

    data.masks = mask_files.from_grey(np.stack(_in_threads(read, chosen)))


def check_masks(spec: str, root: str) -> None:
    """Raise `InputError` if the test images of a data set have no masks, without loading it."""
    path = _with_masks(spec)
    if path:
        mask_files.check([mask_files.in_folder(Path(path), file) for file in _folder(path).test[0]], spec)


def _with_masks(spec: str) -> str:
    """The path of a folder, "" for Oxford's pets: what may have masks."""
    kind, path = _parse(spec)
    if kind != "folder" and spec != "oxford-pets":
        raise InputError(
            f"dataset {spec}: has no masks, allowed are oxford-pets and a folder: with "
            f"{mask_files.FOLDER}/<an image's path>.png at its top"
        )
    return path if kind == "folder" else ""


def _mask_files(spec: str, root: str) -> list[mask_files.MaskFile]:
    """Of all images as the source has them: those that are not for testing, then those that are."""
    path = _with_masks(spec)
    if path:
        folder = _folder(path)
        return [mask_files.in_folder(Path(path), file) for file in [*folder.train[0], *folder.test[0]]]
    from torchvision.datasets import OxfordIIITPet

    parts = [_open_or_download(OxfordIIITPet, spec, root, root, {"split": split}) for split in ("trainval", "test")]
    return [mask_files.of_pet(str(image)) for part in parts for image in part._images]


def _read(spec: str, root: str, config: DataConfig) -> _Streamed | _InMemory | _Tasks:
    kind, path = _parse(spec)
    if spec == "imagenet":
        return _Streamed(_imagenet(root), NAMED["imagenet"].size)
    if kind == "folder":
        folder = _folder(path)
        own, channels = _folder_shape(folder)
        size = config.image_size or own
        if (len(folder.train[0]) + len(folder.test[0])) * channels * size * size > MEMORY_LIMIT:
            return _Streamed(folder, own)
        _refuse_streaming_options(spec, config)
        mode = "L" if channels == 1 else "RGB"
        train, test = (_read_files(*part, size, mode) for part in (folder.train, folder.test))
        return _InMemory(folder.classes, train, test)
    _refuse_streaming_options(spec, config)
    if kind == "parquet":
        return _load_parquet(path, config)
    known = NAMED[spec]
    images = known.train_images + known.test_images
    _check_memory(f"dataset {spec}", images, known.channels, config.image_size or known.size)
    if spec == "digits":
        return _digits(config)
    if spec == TASKS:
        return _Tasks(_torchvision("mnist", root, config).pool[0])
    return _torchvision(spec, root, config)


def _refuse_streaming_options(spec: str, config: DataConfig) -> None:
    if config.zoom or config.evaluation_size:
        raise InputError(f"zoom, evaluation_size: {spec} is held in memory, allowed are streamed data sets")


def _check_memory(what: str, images: int, channels: int, size: int) -> None:
    if images * channels * size * size > MEMORY_LIMIT:
        raise InputError(
            f"{what}: {images} images of {size} pixels need more than {MEMORY_LIMIT // 2**30} GiB; give a smaller "
            "--image-size, or unpack them into class folders, which are streamed"
        )


@dataclass
class _InMemory:
    """A data set as it was read: names of its classes, the images that are not for testing, and those that are."""

    class_names: Sequence[str]
    pool: Arrays
    test: Arrays
    moved: Moved = field(default_factory=Moved)

    def split(self, config: DataConfig) -> Images:
        """Its splits, each in its fixed order; a fold's are rows of all images, which the folds have in common."""
        if config.folds is not None:
            return self._fold(config)
        images, labels = self.pool
        train, held = split_indices(labels, config)
        order = shuffled(np.arange(len(self.test[1])))
        test = Split(np.ascontiguousarray(self.test[0][order]), self.test[1][order])
        validation = Split(np.ascontiguousarray(images[held]), labels[held]) if len(held) else test
        training = Split(np.ascontiguousarray(images[train]), labels[train])
        rows = len(labels) + order
        return Images(config, tuple(self.class_names), training, validation, test, test_rows=rows)

    def _fold(self, config: DataConfig) -> Images:
        images, labels = self._together
        splits = fold_splits(labels, config)
        train, held, test = (Split(images, labels[rows], rows) for rows in splits)
        validation = held if len(held.labels) else test
        names = tuple(self.class_names)
        return Images(config, names, train, validation, test, moved=self.moved, test_rows=splits[-1])

    @functools.cached_property
    def _together(self) -> Arrays:
        """All images, of which there is one array however many folds: also in Ray's store and on a device."""
        (images, labels), (test_images, test_labels) = self.pool, self.test
        return np.concatenate([images, test_images]), np.concatenate([labels, test_labels])


@dataclass
class _Tasks:
    """Tasks that require stability to deformation (Ruderman et al. 2018, Section 4.3): each class is one image of
    MNIST's training split, of any digit, and its examples are deformations of it.

    [reading] The paper does not say how many classes and examples there are, nor what "strength C" is: here the most
    that a control point of 3×3 is displaced in each direction, in pixels.
    """

    images: NDArray[np.uint8]

    def split(self, config: DataConfig) -> Images:
        """Its splits. An example is a row of the class's image: how it is deformed is drawn where it is shown."""
        classes, number, tests = config.task_classes, config.task_images, config.task_tests
        assert classes is not None
        assert number is not None
        assert tests is not None
        if classes > len(self.images):
            raise InputError(f"task_classes: {classes}, allowed are at most the {len(self.images)} images of MNIST")
        held = round(config.validation * number)
        if config.validation and not 0 < held < number:
            least = 1 / number
            raise InputError(
                f"validation: {config.validation} of {number} examples a class are {held}, allowed are 0 and shares "
                f"that leave one of each, from {least:.2g} to {1 - least:.2g}"
            )
        images = self.images[np.random.RandomState(TASK_SEED).permutation(len(self.images))[:classes]]

        def examples(each: int) -> Split:
            rows = shuffled(np.repeat(np.arange(classes, dtype=np.int64), each))
            return Split(images, rows, rows)

        test = examples(tests)
        names = tuple(str(label) for label in range(classes))
        return Images(config, names, examples(number - held), examples(held) if held else test, test)


def _resized(images: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Arrays (N, C, H, W) at `size` pixels a side, by Pillow's antialiased bilinear filter."""
    if size is None or images.shape[2:] == (size, size):
        return images
    pictures = (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images)
    return np.stack([_array(_square(picture, size)) for picture in pictures])


def _square(picture: Image.Image, size: int) -> Image.Image:
    """Short side to `size`, then the centre."""
    width, height = picture.size
    if (width, height) != (size, size):
        short = min(width, height)
        shape = (max(size, round(width * size / short)), max(size, round(height * size / short)))
        picture = picture.resize(shape, Image.Resampling.BILINEAR)
        left, top = (shape[0] - size) // 2, (shape[1] - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
    return picture


def _array(picture: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


# --- scikit-learn and torchvision -------------------------------------------------------------------------------------


def _digits(config: DataConfig) -> _InMemory:
    from sklearn.datasets import load_digits  # here, as it takes most of a second to import

    digits = load_digits()
    # 17 grey levels, 0 to 16
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    held = stratified(labels, NAMED["digits"].test_images, TEST_SEED)
    rest = np.setdiff1d(np.arange(len(labels)), held)
    pool = _resized(images[rest], config.image_size), labels[rest]
    test = _resized(images[held], config.image_size), labels[held]
    return _InMemory([str(digit) for digit in range(10)], pool, test)


def _torchvision(name: str, root: str, config: DataConfig) -> _InMemory:
    from torchvision import datasets  # here, as it takes more than a second to import

    known = NAMED[name]
    kind = getattr(datasets, known.source)
    splits: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    if name == "imagenette":
        splits = [{"split": "train", "size": "320px"}, {"split": "val", "size": "320px"}]
    elif name == "oxford-pets":
        splits = [{"split": "trainval"}, {"split": "test"}]
    with _unpacked(root, known.folder) as folder:
        parts = [_open_or_download(kind, name, folder, root, options) for options in splits]
        if known.folder.endswith("raw"):
            arrays = [(part.data.numpy()[:, None], part.targets.numpy().astype(np.int64)) for part in parts]
        elif known.folder.startswith("cifar"):
            arrays = [
                (np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.asarray(part.targets, dtype=np.int64))
                for part in parts
            ]
        else:
            size = config.image_size or known.size
            arrays = [_pictures(part, size) for part in parts]
        class_names = [name if isinstance(name, str) else name[0] for name in parts[0].classes]
    pool, test = ((_resized(images, config.image_size), labels) for images, labels in arrays)
    return _InMemory(class_names, pool, test)


def _pictures(dataset: Any, size: int) -> Arrays:
    images, labels = [], []
    for picture, label in dataset:
        images.append(_array(_square(picture.convert("RGB"), size)))
        labels.append(label)
    return np.stack(images), np.asarray(labels, dtype=np.int64)


class _unpacked:
    """A root in which the gzipped files of `folder` lie unpacked: `root` itself, or a temporary copy if only the .gz
    files are there (the root may be read-only)."""

    def __init__(self, root: str, folder: str) -> None:
        self.root, self.folder = Path(root), folder
        self.temporary: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> str:
        packed = sorted((self.root / self.folder).glob("*.gz"))
        if not packed or all(path.with_suffix("").exists() for path in packed):
            return str(self.root)
        self.temporary = tempfile.TemporaryDirectory()
        target = Path(self.temporary.name) / self.folder
        target.mkdir(parents=True)
        for path in packed:
            try:
                with gzip.open(path) as source, open(target / path.stem, "wb") as copy:
                    shutil.copyfileobj(source, copy)
            except (EOFError, gzip.BadGzipFile, OSError) as error:
                self.temporary.cleanup()
                raise InputError(f"{path}: damaged ({error}); fetch it again") from None
        return self.temporary.name

    def __exit__(self, *_: object) -> None:
        if self.temporary is not None:
            self.temporary.cleanup()


def _open_or_download(kind: Any, name: str, folder: str, root: str, options: dict[str, Any]) -> Any:
    """The torchvision data set, downloaded to the root if it is not there."""
    try:
        return kind(folder, download=False, **options)
    except RuntimeError:
        looked = f"dataset {name}: not found in {os.path.join(root, NAMED[name].folder)}"
    except (OSError, ValueError, EOFError, AssertionError) as error:  # torchvision asserts what the files' heads say
        raise InputError(
            f"dataset {name}: damaged files in {root}: {_line(error)}; remove and fetch them again"
        ) from None
    try:
        os.makedirs(root, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass  # can it be written at all?
    except OSError as error:
        raise InputError(
            f"{looked}, and {root} cannot be written ({error.strerror}); give another --data-root"
        ) from None
    try:
        return kind(root, download=True, **options)
    except (urllib.error.URLError, RuntimeError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{looked}, and the download failed ({_line(error)}); put torchvision's {NAMED[name].source} files there, "
            f"or give the folder that has them as --data-root"
        ) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# --- class folders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folder:
    classes: list[str]
    train: tuple[list[str], NDArray[np.int64]]
    test: tuple[list[str], NDArray[np.int64]]


def _class_files(folder: Path) -> dict[str, list[str]]:
    """Image files by class, both sorted; classes are the folder's folders."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    classes = [entry for entry in classes if not mask_files.holds_masks(entry, classes)]
    files = {
        entry.name: sorted(str(path) for path in entry.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        for entry in classes
    }
    for name, paths in files.items():
        if not paths:
            raise InputError(f"{folder / name}: no images in this class ({', '.join(IMAGE_SUFFIXES)})")
    if len(files) < 2:
        raise InputError(f"{folder}: {len(files)} class folders, allowed are 2 and more, each with its images")
    return files


def _labelled(files: dict[str, list[str]], classes: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    paths = [path for name in classes for path in files.get(name, [])]
    labels = [label for label, name in enumerate(classes) for _ in files.get(name, [])]
    return paths, np.asarray(labels, dtype=np.int64)


def _folder(path: str) -> _Folder:
    top = Path(path)
    if not top.is_dir():
        raise InputError(f"dataset: no folder {path}; folder: needs one with a folder of images for each class")
    if (top / "train").is_dir():
        names = [name for name in ("test", "val", "validation") if (top / name).is_dir()]
        if not names:
            raise InputError(f"{top}: has train/ and neither test/ nor val/ beside it")
        train, test = _class_files(top / "train"), _class_files(top / names[0])
        if set(test) - set(train):
            unknown = ", ".join(sorted(set(test) - set(train)))
            raise InputError(f"{top / names[0]}: classes that train/ does not have: {unknown}")
        classes = sorted(train)
        return _Folder(classes, _labelled(train, classes), _labelled(test, classes))
    files = _class_files(top)
    classes = sorted(files)
    paths, labels = _labelled(files, classes)
    held = stratified(labels, round(0.2 * len(labels)), TEST_SEED)
    rest = np.setdiff1d(np.arange(len(labels)), held)
    return _Folder(classes, ([paths[i] for i in rest], labels[rest]), ([paths[i] for i in held], labels[held]))


def _imagenet(root: str) -> _Folder:
    top = Path(root) / "imagenet"
    if not (top / "train").is_dir() or not (top / "val").is_dir():
        raise InputError(
            f"dataset imagenet: not found in {top}; it cannot be downloaded without an account: put the ILSVRC 2012 "
            "images there as train/<class>/*.JPEG and val/<class>/*.JPEG, or give another --data-root"
        )
    return _folder(str(top))


def _folder_fingerprint(path: str) -> str:
    digest = hashlib.sha256()
    folder = _folder(path)
    files = sorted([*folder.train[0], *folder.test[0]])
    sizes = [os.path.getsize(file) for file in files]
    # of a folder too large for memory the first part of each file: it would take as long to read as an epoch
    length = -1 if sum(sizes) <= MEMORY_LIMIT else 4096
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{os.path.relpath(file, path)}\0{size}\n".encode())
        with open(file, "rb") as opened:
            digest.update(opened.read(length))
    return digest.hexdigest()[:8]


def _folder_shape(folder: _Folder) -> tuple[int, int]:
    """Pixels a side (the common one of the first images if they share one) and channels (1 if those are all grey)."""
    shapes, modes = set(), set()
    for path in folder.train[0][:: max(1, len(folder.train[0]) // 50)]:
        with _opened(path) as picture:
            _check_depth(picture, path)
            shapes.add(picture.size)
            modes.add(picture.mode)
    width, height = next(iter(shapes))
    size = width if len(shapes) == 1 and width == height else FOLDER_SIZE
    return size, 1 if modes <= {"L", "1"} else 3


def _opened(source: str | io.BytesIO, name: str | None = None) -> Image.Image:
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        raise InputError(f"{name or source}: no readable image (no known format)") from None
    except OSError as error:
        raise InputError(f"{name or source}: no readable image ({_line(error)})") from None


def _check_depth(picture: Image.Image, name: str) -> None:
    # Pillow would cut 16 bits off at 255 without a word
    if picture.mode.startswith(("I", "F")):
        raise InputError(f"{name}: pixels of {picture.mode} mode, allowed are 8 bits a channel")


def _converted(picture: Image.Image, mode: str, name: str) -> Image.Image:
    """The picture as grey (L) or RGB. Raises `ValueError` where that would lose what it shows, or it is damaged."""
    _check_depth(picture, name)
    if mode == "L" and picture.mode not in ("L", "1"):
        raise InputError(f"{name}: {picture.mode} among grey images, allowed are images that are all grey or in colour")
    try:
        return picture.convert(mode)
    except OSError as error:
        raise InputError(f"{name}: no readable image ({_line(error)})") from None


def _read_files(paths: Sequence[str], labels: NDArray[np.int64], size: int, mode: str) -> Arrays:
    def read(path: str) -> NDArray[np.uint8]:
        with _opened(path) as picture:
            return _array(_square(_converted(picture, mode, path), size))

    return np.stack(_in_threads(read, paths)), labels


def _in_threads(function: Callable[..., NDArray[np.uint8]], *items: Sequence[Any]) -> list[NDArray[np.uint8]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, *items))


@dataclass
class _Streamed:
    """A data set of files that are read during training, and its own pixels a side."""

    folder: _Folder
    size: int

    def split(self, config: DataConfig) -> StreamedImages:
        """Its splits, each in its fixed order."""
        paths = [*self.folder.train[0], *self.folder.test[0]]
        labels = np.concatenate([self.folder.train[1], self.folder.test[1]])
        if config.folds is not None:
            train, held, test = fold_splits(labels, config)
        else:
            first = len(self.folder.train[0])
            train, held = split_indices(labels[:first], config)
            test = shuffled(np.arange(first, len(paths)))
        splits = {"train": train, "validation": held if len(held) else test, "test": test}
        files = {name: ([paths[i] for i in rows], labels[rows]) for name, rows in splits.items()}
        return StreamedImages(config, tuple(self.folder.classes), files, size=config.image_size or self.size)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        fs, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError(f"dataset: {path}: {_line(error)}") from None
    return fs, inner


def _parquet_files(path: str) -> dict[str, list[str]]:
    """Files of the train and the test split, sorted by name."""
    fs, inner = _filesystem(path)
    try:
        entries = sorted(entry for entry in fs.find(inner) if entry.endswith(".parquet"))
    except STORAGE_ERRORS as error:
        raise InputError(f"dataset: {path} cannot be read ({_line(error)})") from None
    base = {entry: entry.rsplit("/", 1)[-1] for entry in entries}
    found = {"train": [entry for entry in entries if base[entry].startswith("train")]}
    for prefix in ("test", "validation", "val"):
        found.setdefault("test", [])
        found["test"] = found["test"] or [entry for entry in entries if base[entry].startswith(prefix)]
    for split, files in found.items():
        if not files:
            raise InputError(f"dataset: no {split}*.parquet in {path}; it needs train*.parquet and test*.parquet")
    return found


def _parquet(path: str, file: str, columns: list[str]) -> pa.Table:
    fs, _ = _filesystem(path)
    try:
        with fs.open(file, "rb") as opened:
            table = pq.read_table(opened, columns=columns)
    except (pa.ArrowException, *STORAGE_ERRORS) as error:
        raise InputError(
            f"dataset: {file}: no readable Parquet file with columns image, label ({_line(error)})"
        ) from None
    for column in ("image", "label"):
        if any(name.split(".")[0] == column for name in columns) and column not in table.column_names:
            raise InputError(f"dataset: {file}: no column {column}; the layout is image {{bytes, path}}, label")
    return table


def _parquet_labels(path: str, files: Sequence[str]) -> NDArray[np.int64]:
    parts = [_parquet(path, file, ["label"])["label"] for file in files]
    if any(part.null_count or not pa.types.is_integer(part.type) for part in parts):
        raise InputError(f"dataset: {path}: label has to be whole numbers without nulls")
    labels = np.concatenate([part.to_numpy() for part in parts]).astype(np.int64)
    if len(labels) == 0 or labels.min() < 0:
        raise InputError(f"dataset: {path}: labels have to be 0, 1, …, and at least one")
    return labels


def _first_image(path: str, file: str) -> bytes:
    fs, _ = _filesystem(path)
    try:
        with fs.open(file, "rb") as opened:
            batch = next(pq.ParquetFile(opened).iter_batches(batch_size=1, columns=["image"]))
        content: bytes = batch.column(0)[0].as_py()["bytes"]
    except (pa.ArrowException, KeyError, IndexError, TypeError, StopIteration, *STORAGE_ERRORS) as error:
        raise InputError(f"dataset: {file}: no column image {{bytes, path}} with images ({_line(error)})") from None
    return content


def _parquet_fingerprint(path: str) -> str:
    """Over the files' names, sizes and footers, which hold counts and statistics of all columns."""
    digest = hashlib.sha256()
    files = _parquet_files(path)
    fs, _ = _filesystem(path)
    for file in [*files["train"], *files["test"]]:
        size = fs.info(file)["size"]
        with fs.open(file, "rb") as opened:
            opened.seek(max(0, size - 65536))
            end = opened.read()
        footer = int.from_bytes(end[-8:-4], "little") + 8
        digest.update(f"{file.rsplit('/', 1)[-1]}\0{size}\n".encode() + end[-footer:])
    return digest.hexdigest()[:8]


def _decode(content: bytes, mode: str | None, name: str, size: int | None = None) -> NDArray[np.uint8]:
    with _opened(io.BytesIO(content), name) as picture:
        converted = _converted(picture, mode or ("L" if picture.mode in ("L", "1") else "RGB"), name)
    return _array(_square(converted, size) if size is not None else converted)


def _load_parquet(path: str, config: DataConfig) -> _InMemory:
    files = _parquet_files(path)
    first = _decode(_first_image(path, files["train"][0]), None, path)
    mode = "L" if first.shape[0] == 1 else "RGB"
    size = config.image_size or (first.shape[1] if first.shape[1] == first.shape[2] else FOLDER_SIZE)
    labels = {split: _parquet_labels(path, names) for split, names in files.items()}
    _check_memory(f"dataset: {path}", sum(map(len, labels.values())), first.shape[0], size)
    arrays = {}
    for split, names in files.items():
        images = []
        for name in names:
            column = _parquet(path, name, ["image"])["image"]
            # a row or its bytes may be null: then there is no image to read, which is said where it is decoded
            contents = [(entry.as_py() or {"bytes": None})["bytes"] for chunk in column.chunks for entry in chunk]
            names_of_images = [f"{name}: image {row}" for row in range(len(contents))]

            def decode(content: bytes, shown: str) -> NDArray[np.uint8]:
                return _decode(content, mode, shown, size)

            images += _in_threads(decode, contents, names_of_images)
        arrays[split] = np.stack(images), labels[split]
    classes = 1 + max(int(part.max()) for part in labels.values())
    return _InMemory([str(label) for label in range(classes)], arrays["train"], arrays["test"])
