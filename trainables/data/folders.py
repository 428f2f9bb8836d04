"""Folders of class folders: which images they have, of which class and split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data import masks as mask_files
from trainables.data import memory
from trainables.data.configuration import TEST_SEED, stratified
from trainables.data.pictures import FOLDER_SIZE, check_depth, opened

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


@dataclass(frozen=True)
class Folder:
    """Names of the classes, sorted, and paths and labels of the images to train and to test on."""

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


def class_folder(path: str) -> Folder:
    """The images of a folder, of train/ and test/ or val/ in it, or 20% of each class to test on where it has
    neither. Raises `InputError` where it is not laid out so."""
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
        return Folder(classes, _labelled(train, classes), _labelled(test, classes))
    files = _class_files(top)
    classes = sorted(files)
    paths, labels = _labelled(files, classes)
    held = stratified(labels, round(0.2 * len(labels)), TEST_SEED)
    rest = np.setdiff1d(np.arange(len(labels)), held)
    return Folder(classes, ([paths[i] for i in rest], labels[rest]), ([paths[i] for i in held], labels[held]))


def imagenet(root: str) -> Folder:
    """ImageNet's images below the data root."""
    top = Path(root) / "imagenet"
    if not (top / "train").is_dir() or not (top / "val").is_dir():
        raise InputError(
            f"dataset: imagenet not found in {top}; it cannot be downloaded without an account: put the ILSVRC 2012 "
            "images there as train/<class>/*.JPEG and val/<class>/*.JPEG, or give another --data-root"
        )
    return class_folder(str(top))


def fingerprint_of_folder(path: str) -> str:
    """Eight digits of a hash of names, sizes and content, of large folders the first 4 KiB of each file."""
    digest = hashlib.sha256()
    folder = class_folder(path)
    files = sorted([*folder.train[0], *folder.test[0]])
    sizes = [os.path.getsize(file) for file in files]
    # of a folder too large for memory the first part of each file: it would take as long to read as an epoch
    length = -1 if sum(sizes) <= memory.MEMORY_LIMIT else 4096
    for file, size in zip(files, sizes, strict=True):
        digest.update(f"{os.path.relpath(file, path)}\0{size}\n".encode())
        with open(file, "rb") as content:
            digest.update(content.read(length))
    return digest.hexdigest()[:8]


def shape_of_folder(folder: Folder) -> tuple[int, int]:
    """Pixels a side (the common one of the first images if they share one) and channels (1 if those are all grey)."""
    shapes, modes = set(), set()
    for path in folder.train[0][:: max(1, len(folder.train[0]) // 50)]:
        with opened(path) as picture:
            check_depth(picture, path)
            shapes.add(picture.size)
            modes.add(picture.mode)
    width, height = next(iter(shapes))
    size = width if len(shapes) == 1 and width == height else FOLDER_SIZE
    return size, 1 if modes <= {"L", "1"} else 3
