"""The checkpoints of one trial: the last two, each verified when read, nothing ever unpickled.

A file's name carries its epoch and the digest of its content, `000012-<sha256[:16]>.pt`, so one that was cut short or
changed is noticed and the one before it used. The folder also counts the trial's starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import re
from collections.abc import Iterator
from typing import Any

from analysis.records import open_place, put_file, remove_folder
from trainables.lazily import torch

_NAME = re.compile(r"^(\d{6})-([0-9a-f]{16})\.pt$")
KEPT = 2
MOST_EPOCHS = 999_999
EPOCHS = "a checkpoint's name has six digits for its epoch"


class CheckpointError(RuntimeError):
    """A trial has checkpoint files and none of them can be used. The message names them."""


class Checkpoints:
    """The checkpoint folder of one trial, a folder or a prefix on S3."""

    def __init__(self, folder: str) -> None:
        self.fs, self.path = open_place(folder)
        self.folder = folder

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Write `state` (tensors, numbers, strings, lists and dicts of them) atomically; keep the last two."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        name = f"{epoch:06d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
        self._put(name, content)
        for old in self._names()[:-KEPT]:
            # a run of the same trial that lost its node may have been faster
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(f"{self.path}/{old}")

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest usable state (None if there is no checkpoint at all) and a line for every file passed over.

        Raises `CheckpointError` if there are files and none is usable.
        """
        complaints: list[str] = []
        for name, content in self._sound(complaints):
            try:
                return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"), complaints
            except pickle.UnpicklingError:
                complaints.append(f"{self.folder}/{name}: refused, it holds more than tensors and plain values")
        if complaints:
            raise CheckpointError("; ".join(complaints))
        return None, complaints

    def check(self) -> None:
        """Raises `CheckpointError` if there are files and none is what its name says, which reads no more than that."""
        complaints: list[str] = []
        if next(self._sound(complaints), None) is None and complaints:
            raise CheckpointError("; ".join(complaints))

    def _sound(self, complaints: list[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of the files that are whole, the newest first; a complaint for each other."""
        for name in reversed(self._names()):
            try:
                content = self.fs.cat_file(f"{self.path}/{name}")
            except FileNotFoundError:
                continue  # a worker of a driver before this one has just ended its trial, or gone on with it
            match = _NAME.match(name)
            if match is None or hashlib.sha256(content).hexdigest()[:16] != match[2]:
                complaints.append(f"{self.folder}/{name}: damaged ({len(content)} bytes, which do not match its name)")
                continue
            yield name, content

    def count_start(self) -> int:
        """Record that the trial starts once more; the number of starts so far, this one included."""
        attempts = 1 + self.starts()
        self._put("attempts", str(attempts).encode())
        return attempts

    def starts(self) -> int:
        """How often the trial has been started."""
        path = f"{self.path}/attempts"
        text = self.fs.cat_file(path).decode(errors="replace") if self.fs.exists(path) else ""
        return int(text) if text.isdigit() else 0  # a damaged count is no reason to stop

    def delete(self) -> None:
        remove_folder(self.fs, self.path)

    def _names(self) -> list[str]:
        """Checkpoint files, oldest first."""
        if not self.fs.exists(self.path):
            return []
        names = (entry.rsplit("/", 1)[-1] for entry in self.fs.ls(self.path, detail=False))
        return sorted(name for name in names if name.endswith(".pt"))

    def _put(self, name: str, content: bytes) -> None:
        put_file(self.fs, f"{self.path}/{name}", content)


def checkpoints_of(sweep: str, trial_id: str) -> Checkpoints:
    """Those of a trial of the sweep, a folder or s3:// URL."""
    return Checkpoints(f"{sweep}/checkpoints/{trial_id}")
