"""Named data sets: what they are, and how they are read from scikit-learn and torchvision."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import os
import shutil
import tempfile
import urllib.error
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.command_line import InputError
from trainables.data.configuration import TASKS, TEST_SEED, DataConfig, stratified
from trainables.data.pictures import Arrays, one_line, read_files, resized
from trainables.data.splits import InMemory


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
    first: tuple[str, ...]
    """Names of its first classes."""
    files: tuple[str, ...] = ()
    """What lies in the folder."""

    def missing(self, root: str) -> list[str]:
        """What is not there of its files; a folder has to have something in it."""

        def there(path: Path) -> bool:
            # torchvision's archives do as well, unpacked or not
            packed = path.with_name(f"{path.name}.gz")
            return packed.is_file() or path.is_file() or (path.is_dir() and any(path.iterdir()))

        places = [Path(root) / self.folder / file for file in self.files]
        return [str(place) for place in places if not there(place)]


_IDX = tuple(f"{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_CIFAR10 = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_DIGITS = ("0", "1", "2")
_TENCH = ("tench", "English springer", "cassette player")

NAMED = {
    "digits": _Named(1, 8, 10, 1437, 360, "", "scikit-learn", _DIGITS),
    "mnist": _Named(1, 28, 10, 60000, 10000, "MNIST/raw", "MNIST", ("0 - zero", "1 - one", "2 - two"), _IDX),
    "fashion-mnist": _Named(
        1, 28, 10, 60000, 10000, "FashionMNIST/raw", "FashionMNIST", ("T-shirt/top", "Trouser", "Pullover"), _IDX
    ),
    "kmnist": _Named(1, 28, 10, 60000, 10000, "KMNIST/raw", "KMNIST", ("o", "ki", "su"), _IDX),
    "cifar10": _Named(
        3, 32, 10, 50000, 10000, "cifar-10-batches-py", "CIFAR10", ("airplane", "automobile", "bird"), _CIFAR10
    ),
    "cifar100": _Named(
        *(3, 32, 100, 50000, 10000, "cifar-100-python", "CIFAR100"),
        ("apple", "aquarium_fish", "baby"),
        ("train", "test", "meta"),
    ),
    "imagenette": _Named(3, 320, 10, 9469, 3925, "imagenette2-320", "Imagenette", _TENCH, ("train", "val")),
    "oxford-pets": _Named(
        *(3, 224, 37, 3680, 3669, "oxford-iiit-pet", "OxfordIIITPet"),
        ("Abyssinian", "American Bulldog", "American Pit Bull Terrier"),
        ("images", "annotations"),
    ),
    # how many is for the flags to say: see `Tasks`
    TASKS: _Named(1, 28, 0, 0, 0, "MNIST/raw", "MNIST", _DIGITS, _IDX),
    "imagenet": _Named(
        *(3, 224, 1000, 1281167, 50000, "imagenet", "class folders"),
        ("n01440764", "n01443537", "n01484850"),
        ("train", "val"),
    ),
}


def _digits_file() -> str:
    """What `sklearn.datasets.load_digits` reads: a line an image, 64 grey levels and the label."""
    found = importlib.util.find_spec("sklearn")
    assert found is not None
    assert found.submodule_search_locations
    return str(Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz")


def read_digits(config: DataConfig) -> InMemory:
    """scikit-learn's handwritten digits, 20% of each class to test on."""
    # the file itself: scikit-learn would take most of a second to import, in every sweep's start
    rows = np.loadtxt(_digits_file(), delimiter=",", dtype=np.int64)
    # 17 grey levels, 0 to 16
    images = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)[:, None]
    labels = rows[:, -1]
    held = stratified(labels, NAMED["digits"].test_images, TEST_SEED)
    rest = np.setdiff1d(np.arange(len(labels)), held)
    pool = resized(images[rest], config.image_size), labels[rest]
    test = resized(images[held], config.image_size), labels[held]
    return InMemory([str(digit) for digit in range(10)], pool, test)


def read_torchvision(name: str, root: str, config: DataConfig) -> InMemory:
    """One of torchvision's data sets below the data root, downloaded to it if it is not there."""
    from torchvision import datasets  # here, as it takes more than a second to import

    known = NAMED[name]
    kind = getattr(datasets, known.source)
    splits: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    if name == "imagenette":
        splits = [{"split": "train", "size": "320px"}, {"split": "val", "size": "320px"}]
    elif name == "oxford-pets":
        splits = [{"split": "trainval"}, {"split": "test"}]
    with _unpacked(root, known.folder) as folder:
        parts = [open_or_download(kind, name, folder, root, options) for options in splits]
        if known.folder.endswith("raw"):
            arrays = [(part.data.numpy()[:, None], part.targets.numpy().astype(np.int64)) for part in parts]
        elif known.folder.startswith("cifar"):
            arrays = [
                (np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.asarray(part.targets, dtype=np.int64))
                for part in parts
            ]
        else:
            size = config.image_size or known.size
            arrays = [_pictures(name, part, size) for part in parts]
        class_names = [name if isinstance(name, str) else name[0] for name in parts[0].classes]
    pool, test = ((resized(images, config.image_size), labels) for images, labels in arrays)
    return InMemory(class_names, pool, test)


def _pictures(name: str, dataset: Any, size: int) -> Arrays:
    """Its images as they are stored, as everybody takes these sets."""
    if name == "imagenette":
        paths, labels = zip(*dataset._samples, strict=True)
    else:
        paths, labels = dataset._images, dataset._labels
    return read_files([str(path) for path in paths], np.asarray(labels, dtype=np.int64), size, 3, as_stored=True)


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


def open_or_download(kind: Any, name: str, folder: str, root: str, options: dict[str, Any]) -> Any:
    """The torchvision data set, downloaded to the root if it is not there."""
    try:
        return kind(folder, download=False, **options)
    except RuntimeError:
        looked = f"dataset: {name} not found in {os.path.join(root, NAMED[name].folder)}"
    except (OSError, ValueError, EOFError, AssertionError) as error:  # torchvision asserts what the files' heads say
        raise InputError(
            f"dataset: {name} has damaged files in {root}: {one_line(error)}; remove and fetch them again"
        ) from None
    made = _make_folder(root, looked)
    try:
        # beside what is there, and put in its place when it is whole: a download that fails leaves nothing behind
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as fresh:
            kind(fresh, download=True, **options)
            for path in sorted(Path(fresh).rglob("*")):
                place = Path(root) / path.relative_to(fresh)
                if path.is_dir():
                    place.mkdir(exist_ok=True)
                else:
                    path.replace(place)
        return kind(root, download=False, **options)
    except (urllib.error.URLError, RuntimeError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{looked}, and the download failed ({one_line(error)}); put torchvision's {NAMED[name].source} files "
            f"there, or give the folder that has them as --data-root"
        ) from None
    finally:
        for below in reversed(made):
            with contextlib.suppress(OSError):  # not empty: it has the data
                below.rmdir()


def _make_folder(root: str, looked: str) -> list[Path]:
    """Make the folder where it is not there, and those above it; what was made. Raises `InputError` where that, or
    writing into it, cannot be done."""
    absent = [folder for folder in (Path(root), *Path(root).parents) if not folder.exists()]
    made: list[Path] = []
    try:
        for folder in reversed(absent):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        with tempfile.TemporaryFile(dir=root):
            pass  # can it be written at all?
    except OSError as error:
        for folder in reversed(made):
            folder.rmdir()
        raise InputError(
            f"{looked}, and {root} cannot be written ({error.strerror}); give another --data-root"
        ) from None
    return made
