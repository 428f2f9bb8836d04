"""Folders of class folders: which images they have, of which class and split."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data import masks as mask_files
from trainables.data import memory
from trainables.data.cache import remembered
from trainables.data.configuration import TEST_SEED, stratified
from trainables.data.contents import Contents, Survey, digest_of
from trainables.data.listing import SPLITS, File, Listing, Skipped, list_files
from trainables.data.pictures import FOLDER_SIZE, Look, in_threads, look

IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".jp2", ".tga"),
)
# how the files begin that are images without a suffix
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_MAGIC_AT = {4: (b"ftypavif", b"ftypavis"), 8: (b"WEBP",)}
_AT_ONCE = 64
_WORTH_TELLING = 2**30

Part = tuple[list[str], NDArray[np.int64]]
"""Paths and labels of images."""


@dataclass(frozen=True)
class Folder:
    """Names of the classes, sorted, and the images to train, to validate and to test on."""

    classes: list[str]
    train: Part
    test: Part
    validation: Part | None
    """Of its own; None: it is drawn from those to train on."""
    divided: bool
    """Whether the split to test on is its own; else 20% of each class."""
    files: list[File]
    """Of all images, by path."""
    top: str
    skipped: Skipped
    matched: tuple[str, ...]
    """The patterns of `exclude` that something matched."""

    def parts(self) -> dict[str, Part]:
        """Its splits, in this order: train, validation if it has one, test."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: part for split, part in parts.items() if part is not None}


def class_folder(path: str, exclude: Sequence[str] = ()) -> Folder:
    """The images of a folder: of train/, test/ and validation/ in it, called so or `training`, `Test`, `val`, or 20% of
    each class to test on where it has no train/. Without test/ the validation images are those to test on.

    Raises `InputError` where it is not laid out so.
    """
    if not os.path.isdir(path):
        raise InputError(f"dataset: no folder {path}; folder: needs one with a folder of images for each class")
    listing = list_files(path, exclude)
    images = {file.below: file for file in _images(listing)}
    folders = _split_folders(listing, images)
    if folders is None:
        by_class = _by_class(listing, images, "")
        _skip_others(listing, images, by_class.values())
        classes = sorted(by_class)
        paths, labels = _labelled(images, by_class, classes)
        held = stratified(labels, round(0.2 * len(labels)), TEST_SEED)
        rest = np.setdiff1d(np.arange(len(labels)), held)
        train, test = (([paths[i] for i in rows], labels[rows]) for rows in (rest, held))
        return _folder(listing, images, classes, train, test, None)
    found = {split: _by_class(listing, images, f"{folder}/") for split, folder in folders.items()}
    used = itertools.chain(*(by_class.values() for by_class in found.values()))
    _skip_others(listing, images, used, folders.values())
    classes = sorted(found["train"])
    for split, by_class in found.items():
        if set(by_class) - set(classes):
            unknown = ", ".join(sorted(set(by_class) - set(classes)))
            raise InputError(f"{path}/{folders[split]}: classes that {folders['train']}/ does not have: {unknown}")
    parts = {split: _labelled(images, by_class, classes) for split, by_class in found.items()}
    if "test" not in parts:
        parts["test"] = parts.pop("validation")
    return _folder(listing, images, classes, parts["train"], parts["test"], parts.get("validation"), divided=True)


def _folder(
    listing: Listing,
    images: dict[str, File],
    classes: list[str],
    train: Part,
    test: Part,
    validation: Part | None,
    divided: bool = False,
) -> Folder:
    used = {path for part in (train, test, validation) if part is not None for path in part[0]}
    files = [file for file in images.values() if file.path in used]
    skipped, matched = listing.skipped, listing.matched
    return Folder(classes, train, test, validation, divided, files, listing.top, skipped, matched)


def _images(listing: Listing) -> list[File]:
    """Those of the files that are images: by their suffix, without one by how they begin."""
    found = []
    for file in listing.files:
        suffix = Path(file.below).suffix.lower()
        if suffix in IMAGE_SUFFIXES or (not suffix and _begins_as_image(file.path)):
            found.append(file)
    return found


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb") as content:
            start = content.read(12)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return start.startswith(_MAGIC) or any(start.startswith(magic, place) for place, magic in _MAGIC_AT.items())


def _split_folders(listing: Listing, images: dict[str, File]) -> dict[str, str] | None:
    """The folder at the top of each split; None where there are none."""
    top = [folder for folder in listing.folders if "/" not in folder]
    found: dict[str, str] = {}
    doubled: list[str] = []
    for folder in top:
        split = SPLITS.get(folder.lower())
        if split in found:
            doubled = [found[split], folder]
        elif split is not None:
            found[split] = folder
    if "train" not in found:
        others = [folder for folder in top if folder not in found.values()]
        if found and not others:
            raise InputError(f"{listing.top}: has {', '.join(found.values())}/ and no train/ beside it")
        return None  # classes, of which one is called so
    if doubled:
        raise InputError(
            f"{listing.top}: {doubled[0]}/ and {doubled[1]}/ are both its {SPLITS[doubled[0].lower()]} split, allowed "
            "is one of them; --exclude leaves the other out"
        )
    if len(found) == 1:
        train = found["train"]
        if any(below.rpartition("/")[0] == train for below in images):
            return None  # a class called train
        raise InputError(f"{listing.top}: has {train}/ and neither test/ nor val/ beside it")
    if {"test", "validation"} <= set(found) and not any(
        folder.startswith(f"{found['test']}/") for folder in listing.folders
    ):
        # without labels, as ImageNet's
        test = found.pop("test")
        for below in [below for below in images if below.startswith(f"{test}/")]:
            del images[below]
            listing.skipped.add("images of a test split without labels", below)
    return found


def _by_class(listing: Listing, images: dict[str, File], prefix: str) -> dict[str, list[str]]:
    """Images by class, both sorted; classes are the folders in the folder `prefix`, "" for the top."""
    inside = [folder.removeprefix(prefix) for folder in listing.folders if folder.startswith(prefix)]
    classes = sorted(folder for folder in inside if folder and "/" not in folder)
    names = set(inside)
    classes = [name for name in classes if not mask_files.holds_masks(name, classes, names)]
    files: dict[str, list[str]] = {name: [] for name in classes}
    for below in images:
        name, inner, _ = below.removeprefix(prefix).partition("/")
        if below.startswith(prefix) and inner and name in files:
            files[name].append(below)
    where = os.path.join(listing.top, prefix)
    for name, found in files.items():
        if not found:
            raise InputError(
                f"{os.path.join(where, name)}: no images in this class ({', '.join(IMAGE_SUFFIXES)}); "
                f"--exclude {name} leaves a folder out"
            )
    if len(files) < 2:
        raise InputError(
            f"{where.rstrip('/')}: {len(files)} class folders, allowed are 2 and more, each with its images"
        )
    return files


def _labelled(images: dict[str, File], files: dict[str, list[str]], classes: Sequence[str]) -> Part:
    paths = [images[below].path for name in classes for below in files.get(name, [])]
    labels = [label for label, name in enumerate(classes) for _ in files.get(name, [])]
    return paths, np.asarray(labels, dtype=np.int64)


def _skip_others(
    listing: Listing, images: dict[str, File], used: Iterable[list[str]], splits: Iterable[str] = ()
) -> None:
    """Count the files that are in no class and split, but for masks."""
    taken = {below for part in used for below in part}
    divided = set(splits)
    classes = {below.partition("/")[0] for below in taken}
    reason = f"files beside {', '.join(f'{split}/' for split in sorted(divided))}"
    beside: Counter[str] = Counter()
    for file in listing.files:
        first, inner, _ = file.below.partition("/")
        masks = first == mask_files.FOLDER and inner and first not in classes
        if file.below in taken or masks or (divided and SPLITS.get(first.lower()) and first not in divided):
            continue  # the last: of a test split without labels, which are counted
        if divided and inner and first not in divided:
            beside[first] += 1
        elif file.below in images:
            listing.skipped.add("images in no class folder", file.below)
        else:
            listing.skipped.add("files that are no images by their names", file.below)
    for folder, number in beside.items():
        listing.skipped.add(reason, f"{folder}/", number)


def imagenet(root: str) -> Folder:
    """ImageNet's images below the data root."""
    top = Path(root) / "imagenet"
    if not (top / "train").is_dir() or not (top / "val").is_dir():
        raise InputError(
            f"dataset: imagenet not found in {top}; it cannot be downloaded without an account: put the ILSVRC 2012 "
            "images there as train/<class>/*.JPEG and val/<class>/*.JPEG, or give another --data-root"
        )
    return class_folder(str(top))


def contents_of_folder(folder: Folder) -> Contents:
    """What is in it, by opening each image, or as it was found before.

    The fingerprint is eight digits of a hash of the images' names, sizes and contents. Raises `InputError` for an image
    that is none, named.
    """
    splits = {path: split for split, part in folder.parts().items() for path in part[0]}
    return remembered(Contents, ["folder", folder.top], folder.files, lambda: _read(folder, splits))


def _read(folder: Folder, splits: dict[str, str]) -> Contents:
    digest = hashlib.sha256()
    survey, looks = Survey(), {}
    total = sum(file.size for file in folder.files)
    if total > _WORTH_TELLING:
        print(f"{folder.top}: {len(folder.files)} images of {total / 2**30:.1f} GiB are read once", file=sys.stderr)
    # the images by which size and channels were once chosen
    wanted = set(folder.train[0][:: max(1, len(folder.train[0]) // 50)])
    for start in range(0, len(folder.files), _AT_ONCE):
        files = folder.files[start : start + _AT_ONCE]
        for file, (content, seen, own) in zip(files, in_threads(_seen, files), strict=True):
            digest.update(f"{file.below}\0{file.size}\n".encode())
            digest.update(content)
            survey.add(splits[file.path], seen, own)
            if file.path in wanted:
                looks[file.path] = seen
    labels = np.concatenate([part[1] for part in folder.parts().values()])
    contents = survey.contents("", folder.classes, int(np.unique(labels, return_counts=True)[1].min()))
    chosen = (contents.size, contents.channels)
    if contents.turned or contents.transparent or chosen != _chosen_before(list(looks.values()), contents.number):
        # trials are recorded under the name without, of what was once made of these files
        digest.update(f"as shown, {chosen[0]}, {chosen[1]}".encode())
    return survey.contents(digest.hexdigest()[:8], folder.classes, contents.rarest)


def _seen(file: File) -> tuple[bytes, Look, bytes]:
    try:
        content = Path(file.path).read_bytes()
    except OSError as error:
        raise InputError(f"{file.path}: no readable image ({error.strerror})") from None
    return content, look(content, file.path), digest_of(content)


def _chosen_before(looks: Sequence[Look], number: int) -> tuple[int, int]:
    """Size and channels as they were once chosen: by a sample, and in colour where they do not fit into memory."""
    sizes = {look.size for look in looks}
    width, height = next(iter(sizes))
    size = width if len(sizes) == 1 and width == height else FOLDER_SIZE
    grey = {look.mode for look in looks} <= {"L", "1"}
    return size, 1 if grey and memory.fits(number, 1, size) else 3
