"""Which files there are below a path, here or on S3: the one listing of class folders and of Parquet files, with what
is not of the data, counted.

Hidden entries and those that systems leave behind are out, and so is what `--exclude` names. Links are followed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from analysis.command_line import InputError
from analysis.storage import open_place
from trainables.data.pictures import one_line

SPLITS: dict[str, str] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
"""What splits are called, in any case."""

_SYSTEM = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "@eadir",
}
_SHOWN = 3


@dataclass(frozen=True)
class File:
    """A file: its path below the top with / between the parts, what opens it, its size, and what is another once its
    content is (times; on S3 the ETag)."""

    below: str
    path: str
    size: int
    stamp: tuple[Any, ...]
    changed: float = 0.0
    """When it was changed last, in seconds; 0: not known."""


@dataclass
class Skipped:
    """Names of what is left out, by the reason why."""

    names: dict[str, list[str]] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, name: str, number: int = 1) -> None:
        """So many of that name."""
        self.names.setdefault(reason, []).append(name)
        self.numbers[reason] += number

    def told(self) -> list[str]:
        """`hidden or system entries: 2 (.ipynb_checkpoints, cat/.DS_Store)` for each reason."""
        lines = []
        for reason, names in self.names.items():
            rest = "" if len(names) <= _SHOWN else ", …"
            lines.append(f"{reason}: {self.numbers[reason]} ({', '.join(names[:_SHOWN])}{rest})")
        return lines


@dataclass(frozen=True)
class Listing:
    """Files and folders below a path, sorted, what is skipped, and which patterns of `exclude` something matches."""

    top: str
    files: list[File]
    folders: list[str]
    skipped: Skipped
    matched: tuple[str, ...]


def list_files(path: str, exclude: Sequence[str] = ()) -> Listing:
    """All files below a path, local or a URL. A pattern of `exclude` leaves out what it matches, whole folders too: by
    its name, or with a / in it by its path below the top; * stands for anything.

    Raises `InputError` for what cannot be read, a link into a folder that it lies in, and an empty pattern.
    """
    patterns = [pattern.strip("/") for pattern in exclude]
    if not all(patterns):
        raise InputError("exclude: an empty pattern, allowed are names and patterns such as annotations, '*_mask.png'")
    skipped = Skipped()
    matched: set[str] = set()

    def taken(below: str) -> bool:
        name = below.rsplit("/", 1)[-1]
        found = [pattern for pattern in patterns if fnmatchcase(below if "/" in pattern else name, pattern)]
        matched.update(found)
        if found:
            skipped.add("by --exclude", below)
        elif name.startswith(".") or name.lower() in _SYSTEM:
            skipped.add("hidden or system entries", below)
        else:
            return True
        return False

    files, folders = [], []
    found = _remote(path, taken) if "://" in path else _local(path, "", (_identity(path),), taken, skipped)
    for entry in found:
        if isinstance(entry, File):
            files.append(entry)
        else:
            folders.append(entry)
    kept = tuple(pattern for pattern, plain in zip(exclude, patterns, strict=True) if plain in matched)
    return Listing(path, sorted(files, key=lambda file: file.path), sorted(folders), skipped, kept)


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(f"dataset: {path} cannot be read ({error.strerror})") from None
    return found.st_dev, found.st_ino


def _local(
    path: str, below: str, within: tuple[tuple[int, int], ...], taken: Any, skipped: Skipped
) -> Iterator[File | str]:
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"dataset: {path} cannot be read ({error.strerror})") from None
    for entry in entries:
        name = f"{below}{entry.name}"
        if not taken(name):
            continue
        if entry.is_dir():
            inner = _identity(entry.path)
            if inner in within:
                raise InputError(
                    f"dataset: {entry.path} is a link to a folder that it lies in, allowed are links without loops; "
                    f"--exclude {entry.name} leaves it out"
                )
            yield name
            yield from _local(entry.path, f"{name}/", (*within, inner), taken, skipped)
        elif entry.is_file():
            found = entry.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            yield File(name, entry.path, found.st_size, stamp, max(found.st_mtime, found.st_ctime))
        elif entry.is_symlink():
            skipped.add("links to nothing", name)
        else:
            skipped.add("entries that are no files", name)


def storage_errors() -> tuple[type[Exception], ...]:
    """What may be raised by storage, S3's library imported where something was raised."""
    from botocore.exceptions import BotoCoreError

    return OSError, BotoCoreError


def file_system(path: str) -> tuple[Any, str]:
    """Of a path or URL, and what it is called there. Raises `InputError` for a protocol that there is not."""
    try:
        return open_place(path)
    except InputError as error:
        raise InputError(f"dataset: {error}") from None


def _remote(path: str, taken: Any) -> Iterator[File | str]:
    fs, inner = file_system(path)
    try:
        fs.invalidate_cache()  # what was listed minutes ago may have changed
        found = fs.find(inner, detail=True)
    except storage_errors() as error:
        raise InputError(f"dataset: {path} cannot be read ({one_line(error)})") from None
    known: dict[str, bool] = {}  # folders, whether they are taken
    top = inner.rstrip("/") + "/"
    for entry, detail in sorted(found.items()):
        below = entry.removeprefix(top) if entry.startswith(top) else entry.rsplit("/", 1)[-1]
        parts = below.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            if folder not in known:
                known[folder] = taken(folder)
                if known[folder]:
                    yield folder
            if not known[folder]:
                break
        else:
            if taken(below):
                changed = detail.get("LastModified") or detail.get("mtime")
                stamp = (str(detail.get("ETag")), str(changed))
                seconds = changed.timestamp() if hasattr(changed, "timestamp") else float(changed or 0)
                yield File(below, entry, int(detail["size"] or 0), stamp, seconds)
