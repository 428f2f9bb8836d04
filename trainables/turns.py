"""Processors that sweeps of one machine take in turns, where each has a Ray of its own that believes it has them all.

Who wants some takes a place in the queue, waits until as many are free, and holds them for an epoch with what is
measured in it. So no more is at work than the machine has, what a record says of an epoch's time is true, and who is
alone never waits. A process that dies gives back what it held, as the kernel takes its locks; of one that is stopped,
what it holds does not count.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOOKS_EVERY = 0.02


class Turns:
    """One process's place among those of this user on this machine that share its processors and GPUs.

    Raises `OSError` if the temporary folder cannot be written to, or another user has made the folder in it.
    """

    def __init__(self, **told: Any) -> None:
        """`told`: what others are to know of this process, in a few words."""
        self.told = {"pid": os.getpid(), **told}
        self.folder = Path(tempfile.gettempdir()) / f"sweeps-turns-{os.getuid()}"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        status = self.folder.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(f"{self.folder} is open to other users")
        name = uuid.uuid4().hex
        hidden, self.path = self.folder / f".{name}", self.folder / name
        self.file = hidden.open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self._write({})  # here, where a full disk is told: later the file grows no more
        hidden.rename(self.path)  # who looks for dead ones sees it locked
        with self._queue():
            pass

    @contextlib.contextmanager
    def held(self, wanted: Mapping[str, float], there: Mapping[str, float]) -> Iterator[None]:
        """While the context is open, so much is held of what is there, by name; of what is too little, all of it."""
        wanted = {name: amount for name, amount in wanted.items() if amount}
        self._write({}, waits_since=time.monotonic())
        with self._queue():
            while True:
                taken = [other["held"] for other in self.others() if other["held"] and not _is_stopped(other["pid"])]
                used = {name: sum(held.get(name, 0.0) for held in taken) for name in wanted}
                if all(not used[name] or used[name] + wanted[name] <= there.get(name, 0.0) + 1e-9 for name in wanted):
                    break
                time.sleep(LOOKS_EVERY)
            self._write(wanted)
        try:
            yield
        finally:
            self._write({})

    def others(self) -> list[dict[str, Any]]:
        """What the other living processes have told of themselves, with the "held" of each; files of dead ones go."""
        found = []
        for path in self.folder.iterdir():
            if path == self.path or path.name == "queue" or path.name.startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError), path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    with contextlib.suppress(ValueError):  # it is being written
                        found.append(json.loads(file.read()))
                else:
                    path.unlink()
        return found

    def close(self) -> None:
        self.path.unlink(missing_ok=True)
        self.file.close()

    @contextlib.contextmanager
    def _queue(self) -> Iterator[None]:
        with (self.folder / "queue").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, held: Mapping[str, float], **more: float) -> None:
        content = json.dumps({**self.told, "held": held, **more}).ljust(1000)
        self.file.seek(0)
        self.file.write(content)
        self.file.flush()


def _is_stopped(pid: int) -> bool:
    """Whether a process stands still, by SIGSTOP or a debugger: it uses nothing, and may never go on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False
