"""One driver at a time on a sweep: a file beside its record that the driver renews while it lives.

The file is made so that only one can make it (exclusive creation on a disk, a conditional put on S3). A driver that
was killed leaves it behind; it is taken over at once where its process is known to have ended, else when it has not
been renewed for a while, as seen here: no two machines' clocks are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from analysis.command_line import InputError
from analysis.records import STORAGE_ERRORS, put_file

RENEWED_EVERY = 5.0
"""Seconds between renewals."""
STALE_AFTER = 25.0
"""Seconds without a renewal after which a driver is taken for dead; its own renewals fail before that."""
_NAME = "driver.json"


class Lease:
    """Held while the context is open. Raises `InputError` on entry if another driver holds it.

    `lost` is set if another driver has taken it over, which saw no renewal for `STALE_AFTER` seconds: after a long
    suspension of this process or a long failure of the storage.
    """

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep
        self.fs, folder = fsspec.core.url_to_fs(sweep, use_listings_cache=False)
        self.path = f"{folder}/{_NAME}"
        self.content: dict[str, Any] = {
            "driver": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": _processes(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        if not self._create():
            self._take_over(self._read())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        held = self._read()
        if held is not None and held.get("driver") == self.content["driver"]:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.path)

    def _encoded(self) -> bytes:
        return json.dumps({**self.content, "renewed": time.time_ns()}).encode()

    def _create(self) -> bool:
        """Make the file; False if it is there."""
        if isinstance(self.fs, LocalFileSystem):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            try:
                with open(self.path, "xb") as file:
                    file.write(self._encoded())
            except FileExistsError:
                return False
            return True
        try:
            self.fs.pipe_file(self.path, self._encoded(), mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                return False
            raise
        return True

    def _read(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self.fs.cat_file(self.path))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}  # cut short by whoever was making it
        return content if isinstance(content, dict) else {}

    def _take_over(self, held: dict[str, Any] | None) -> None:
        deadline = time.monotonic() + STALE_AFTER
        while held is not None and not _has_ended(held):
            if time.monotonic() >= deadline:
                break
            time.sleep(min(1.0, RENEWED_EVERY / 5))
            now = self._read()
            if now is not None and now != held:
                place = f"process {now.get('pid')} on {now.get('host')}, since {now.get('started')}"
                raise InputError(
                    f"{self.sweep}: another driver is at work on this sweep ({place}); nothing was changed. "
                    "Wait for it, stop it, or choose another --name"
                )
            held = now
        # not what another may have made meanwhile, that saw the same dead driver
        if self._read() == held:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.path)
        if not self._create():
            raise InputError(f"{self.sweep}: another driver has just started on this sweep; nothing was changed")
        # two that saw the same dead driver may each have removed the other's file: the last to make it has it
        time.sleep(0.5)
        held = self._read()
        if held is None or held.get("driver") != self.content["driver"]:
            raise InputError(f"{self.sweep}: another driver has just started on this sweep; nothing was changed")

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            try:
                held = self._read()
                if held is None or held.get("driver") != self.content["driver"]:
                    self.lost.set()
                    return
                put_file(self.fs, self.path, self._encoded())
            except STORAGE_ERRORS:
                continue  # the next renewal may succeed; whoever takes over meanwhile is seen then


def _processes() -> str:
    """What makes a process's number mean the same: the boot of the machine and the namespace of its processes."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _has_ended(held: dict[str, Any]) -> bool:
    """Whether the driver is known to be dead: its process was one of this machine, and is there no more."""
    if not held.get("processes") or held["processes"] != _processes():
        return False
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, KeyError):
        return False
    return False
