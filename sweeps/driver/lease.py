"""One driver at a time on a sweep: a file beside its record that the driver renews while it lives.

The file is made so that only one can make it (exclusive creation on a disk, a conditional put on S3). A driver that
was killed leaves it behind; it is taken over at once where its process is known to have ended, else when it has not
been renewed for a while, as seen here by what no one sets: no clock that tells the day is read, nor are two compared.

A driver that cannot reach the storage, or not write on it, goes on for `CUT_OFF_AFTER` seconds, as its trials do, so
that a failure of the storage that passes costs nothing; when it reaches it again it reads whose the sweep is. If
another driver is started in that time and does reach it, both work until then: two minutes at most, which is harmless,
as a trial's numbers are those of its configuration, a recorded one is not replaced and a checkpoint's name is that of
its content.
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

from analysis.command_line import InputError
from analysis.records import PATIENCE, STORAGE_ERRORS, open_briefly, open_place, put_file

RENEWED_EVERY = 5.0
"""Seconds between renewals."""
STALE_AFTER = 25.0
"""Seconds without a renewal after which a driver is taken for dead by another that wants the sweep."""
CUT_OFF_AFTER = PATIENCE
"""Seconds after which a driver that cannot reach the storage stops."""
JOINED_WITHIN = 5.0
"""Seconds that the end of a run waits for a renewal under way."""
_NAME = "driver.json"


class Lease:
    """Held while the context is open. Raises `InputError` on entry if another driver holds it.

    `lost` is set when the run is to stop, and `reason` says why: another driver has taken the sweep over, which saw no
    renewal for `STALE_AFTER` seconds (after a long suspension of this process or a failure of the storage), the file
    is gone or changed, or the storage has not been reached for `CUT_OFF_AFTER` seconds.
    """

    def __init__(self, sweep: str) -> None:
        self.sweep = sweep
        self.fs, folder = open_place(sweep)
        self.limit: dict[str, float] = {}
        self.path = f"{folder}/{_NAME}"
        self.content: dict[str, Any] = {
            "driver": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": _processes(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.renewals = 0
        self.lost = threading.Event()
        self.reason: Exception = InputError("the sweep's lease is held")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        if not self._create():
            held = self._read()
            # where the answer to a put is lost, it is tried again
            if held is None or held.get("driver") != self.content["driver"]:
                self._take_over(held)
        self.fs, _, self.limit = open_briefly(self.sweep)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(JOINED_WITHIN)
        # a file that stays is that of a driver known to be dead, or not renewed
        with contextlib.suppress(*STORAGE_ERRORS):
            if not self._thread.is_alive() and (self._read() or {}).get("driver") == self.content["driver"]:
                self.fs.rm_file(self.path, **self.limit)

    def _encoded(self) -> bytes:
        self.renewals += 1  # no renewal looks like another, whatever becomes of the clock
        return json.dumps({**self.content, "renewed": self.renewals}).encode()

    def _create(self) -> bool:
        """Make the file; False if it is there."""
        if "file" in self.fs.protocol:
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
            content = json.loads(self.fs.cat_file(self.path, **self.limit))
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
        failing: float | None = None
        while not self._ended.wait(RENEWED_EVERY):
            begun = time.monotonic()
            try:
                held = self._read()
                if held is None or held.get("driver") != self.content["driver"]:
                    self._lose(InputError(f"{self.sweep}: {self._seen(held)}; this one has stopped"))
                    return
                if time.monotonic() - begun >= STALE_AFTER:
                    continue  # this process was stopped meanwhile: what was read is another's by now, perhaps
                put_file(self.fs, self.path, self._encoded(), **self.limit)
                failing = None
            except Exception as error:  # noqa: BLE001 - whatever it is, without renewals this driver is taken for dead
                # since it was tried first in vain, not since it last was: this process may have been stopped for long
                failing = begun if failing is None else failing
                # else the next renewal may succeed; whoever takes over meanwhile is seen then
                if time.monotonic() - failing >= CUT_OFF_AFTER:
                    told = " ".join(str(error).split()) or type(error).__name__
                    since = f"{time.monotonic() - failing:.0f} s"
                    self._lose(OSError(f"neither read nor written for {since} ({told}), so this driver has stopped"))
                    return

    def _lose(self, reason: Exception) -> None:
        self.reason = reason
        self.lost.set()

    def _seen(self, held: dict[str, Any] | None) -> str:
        """What has become of the file, for the driver whose it was."""
        if held is not None:
            return _of_another(held)
        removed = f"{_NAME}, by which one driver at a time works on a sweep, was removed"
        if not self.fs.exists(f"{self.path.rsplit('/', 1)[0]}/sweep.json", **self.limit):
            return f"{removed}, and there is no sweep.json: is the whole folder gone, or no longer mounted?"
        return f"{removed}, by hand or by another driver that has taken this sweep over and ended"


def _of_another(held: dict[str, Any]) -> str:
    if "driver" not in held:
        return f"{_NAME}, by which one driver at a time works on a sweep, was changed"
    place = f"process {held.get('pid')} on {held.get('host')}, since {held.get('started')}"
    return f"another driver has taken over this sweep ({place})"


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
