"""A data set that each machine loads once, and whose arrays all its processes map into their memory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import mmap
import os
import pickle
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from analysis.command_line import InputError
from trainables.data.configuration import DataConfig
from trainables.data.images import Images
from trainables.data.shift import load_others
from trainables.data.sources import identify, load_each
from trainables.data.streamed import StreamedImages


class Prepares(Protocol):
    """A method, as far as data are concerned."""

    def prepare(self, data: Images | StreamedImages) -> None: ...


@dataclass(frozen=True)
class SharedData:
    """Where every machine can load a data set from (S3, or a file system that they share), and how.

    The first process of a machine that asks loads it and leaves it in a folder of the user's in the machine's temporary
    one; the others wait for it, and map it. What no process has mapped any more is removed when another set is loaded.
    """

    spec: str
    root: str
    configs: tuple[DataConfig, ...]
    """They differ in their fold alone."""
    methods: tuple[Prepares, ...] = ()
    """What derives something from the data does so at the same time, once."""
    masks: bool = False
    """Whether the test images' masks are wanted."""
    shift: tuple[str, ...] = ()
    """Other data sets to test on, loaded with it."""
    exclude: tuple[str, ...] = ()
    """Patterns of what is no data in those."""

    def load(self) -> dict[DataConfig, Images | StreamedImages]:
        """The data set for each configuration, its arrays read-only. Raises what `trainables.data.load`
        raises, `InputError` where the data are not those any more that the sweep was planned with, and `OSError` where
        the temporary folder has no room."""
        folder = _folder()
        asked = (self.spec, self.root, self.configs, self.methods, self.masks, self.shift, self.exclude)
        name = hashlib.sha256(repr(asked).encode()).hexdigest()[:32]
        entry = folder / name
        with _locked(folder / "lock"):
            if (entry / "whole").exists():
                try:
                    return _map(entry)
                except (OSError, ValueError, EOFError, pickle.UnpicklingError):
                    # what cleans temporary folders has taken a part of it
                    shutil.rmtree(entry)
            _remove_unused(folder)
            self._check()
            data = load_each(self.spec, self.root, self.configs, masks=self.masks)
            load_others(list(data.values()), self.spec, self.shift, self.root, self.exclude)
            self._check()  # nor did they change meanwhile
            for images, method in itertools.product(data.values(), self.methods):
                method.prepare(images)
            _write(entry, data)
            return _map(entry)

    def _check(self) -> None:
        found = identify(self.spec, self.root, self.configs[0].exclude)
        planned = self.configs[0].dataset
        if found != planned:
            raise InputError(
                f"dataset: {self.spec} is {found}, and was {planned} when this was planned: the data have changed"
            )


def _folder() -> Path:
    """The user's own: what lies there is unpickled, so nobody else may write it, and it is no link to elsewhere."""
    folder = Path(tempfile.gettempdir()) / f"spatial-sweeps-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InputError(f"{folder}: not a folder of yours alone; remove it, or set TMPDIR to a folder of your own")
    return folder


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process of the machine at a time; the lock of a process that is killed is free."""
    with open(file, "w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _remove_unused(folder: Path) -> None:
    """Data sets that no process uses, and what a killed one left half written."""
    for entry in folder.iterdir():
        if not re.fullmatch("[0-9a-f]{32}", entry.name) or entry.is_symlink():
            continue
        with open(entry / "used", "w") as used, contextlib.suppress(BlockingIOError):
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry)


def _write(entry: Path, data: Mapping[DataConfig, Images | StreamedImages]) -> None:
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    entry.mkdir()
    sizes = []
    with open(entry / "arrays", "wb") as arrays:
        for buffer in buffers:
            raw = buffer.raw()
            sizes.append(raw.nbytes)
            arrays.write(raw)
            arrays.write(bytes(-raw.nbytes % 64))  # arrays begin at multiples of 64 bytes
        os.fsync(arrays.fileno())
    with open(entry / "rest", "wb") as file:
        pickle.dump((rest, sizes), file)
        os.fsync(file.fileno())
    (entry / "used").touch()
    (entry / "whole").touch()


_IN_USE: dict[Path, Any] = {}
"""Locks that say that this process has mapped a set; free when it ends, however it does."""


def _map(entry: Path) -> dict[DataConfig, Images | StreamedImages]:
    rest, sizes = pickle.loads((entry / "rest").read_bytes())
    if sum(size + -size % 64 for size in sizes) != (entry / "arrays").stat().st_size:
        raise ValueError(f"{entry}: cut off")
    if entry not in _IN_USE:
        used = open(entry / "used")  # noqa: SIM115 - open as long as this process lives
        fcntl.flock(used, fcntl.LOCK_SH)
        _IN_USE[entry] = used
    views, start = [], 0
    if sizes:
        with open(entry / "arrays", "rb") as arrays:
            mapped = memoryview(mmap.mmap(arrays.fileno(), 0, access=mmap.ACCESS_READ))
        for size in sizes:
            views.append(mapped[start : start + size])
            start += size + -size % 64
    data: dict[DataConfig, Images | StreamedImages] = pickle.loads(rest, buffers=views)
    return data
