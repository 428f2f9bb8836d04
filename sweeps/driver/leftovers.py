"""What a sweep has on its machine while it runs, a temporary folder and the Ray that it started; and what one that was
killed has left of these, which the next sweep of the same user clears.

Nothing is known by its name alone. A driver locks a file in its folder, which the kernel unlocks when the process ends,
however it ends, and writes there which folder its Ray's session has. A folder is left behind if it is this user's own,
nobody else's to write in, and its file is there and not locked. A process is of a Ray that was left behind if it is
this user's and has a file open to write in that session's folder: all of Ray's have their logs there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from analysis.command_line import InputError

_PREFIX = "sweep-"
_MARK = "driver.lock"
LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path."""
IN_FOLDER = len("/sweep-12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
ROOM = 1_000_000
"""Bytes of which a temporary folder must take: Ray's sockets and logs of a run of minutes, and Tune's state."""


class Scratch:
    """The temporary folder of this driver while the context is open; `folder` says where. On entry what dead drivers
    have left is cleared.

    Raises `InputError` on entry if the temporary folder cannot take what a run puts there. An `OSError` that leaves the
    context gets a note if it can no more.
    """

    folder: str

    def __enter__(self) -> Scratch:
        clear()
        problem = trouble()
        if problem:
            raise InputError(problem)
        self.folder = tempfile.mkdtemp(prefix=_PREFIX, dir=_place())
        self._mark: int | None = None
        # a file system that knows no locks: such a folder is nobody's to clear
        with contextlib.suppress(OSError):
            started = os.open(f"{self.folder}/.{_MARK}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._mark = started
            fcntl.flock(started, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # it is never there without its lock
            os.rename(f"{self.folder}/.{_MARK}", f"{self.folder}/{_MARK}")
        return self

    def started(self, session: str) -> None:
        """This driver has started a Ray whose session has that folder."""
        if self._mark is not None:
            os.pwrite(self._mark, json.dumps({"session": session}).encode(), 0)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            problem = trouble()
            if problem:
                error.add_note(problem)  # what Tune and Ray raise then names no folder, or no way out
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._mark is not None:
            os.close(self._mark)


def clear() -> None:
    """End and remove what drivers of this user that are dead have left on this machine; a line says what was ended."""
    try:
        entries = sorted(Path(_place()).glob(f"{_PREFIX}*"))
    except OSError:
        return  # there is none, which `trouble` tells
    ended = 0
    for folder in entries:
        # it may be gone, or being cleared by another sweep; what cannot be removed now, the next one removes
        with contextlib.suppress(OSError), _unlocked(folder) as text:
            session = _session(text)
            if session:
                ended += end(session)
                shutil.rmtree(session, ignore_errors=True)
            shutil.rmtree(folder)
    if ended:
        number = f"{ended} process{'es' if ended > 1 else ''}"
        print(f"ended what the Ray of a killed sweep had left running: {number}", file=sys.stderr)


@contextlib.contextmanager
def _unlocked(folder: Path) -> Iterator[str]:
    """What the driver's file in the folder says, locked meanwhile by this process. Raises `OSError` if the folder is
    not a dead driver's of this user's."""
    if not _is_ours(folder):
        raise PermissionError(folder)
    mark = os.open(folder / _MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.read(mark, 10_000).decode(errors="replace")
    finally:
        os.close(mark)


def _is_ours(folder: Path) -> bool:
    """Whether it is a folder, not a link to one, of this user's, in which nobody else may write."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _session(text: str) -> str:
    """The folder of the Ray's session that the file names; empty where the driver had not started one."""
    try:
        session = json.loads(text)["session"]
        status = os.lstat(session)
    except (ValueError, KeyError, TypeError, OSError):
        return ""
    # Ray lets everyone write there; whose it is, is its owner's say
    return session if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() else ""


def end(session: str) -> int:
    """Kill this user's other processes that write into the folder, as all of a Ray do: where one of its parts is
    killed, others go on for a minute. How many there were."""
    ended = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if entry.stat().st_uid != os.geteuid() or int(entry.name) == os.getpid():
                continue
            held = os.pidfd_open(int(entry.name))  # its number is no other's from here on
            try:
                if _writes_in(entry, session):
                    signal.pidfd_send_signal(held, signal.SIGKILL)
                    ended += 1
            finally:
                os.close(held)
    return ended


def _writes_in(process: Path, folder: str) -> bool:
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            if os.readlink(descriptor).startswith(f"{folder}/"):
                flags = (process / "fdinfo" / descriptor.name).read_text().split("flags:")[1].split()[0]
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                    return True
    return False


def trouble() -> str:
    """Why the temporary folder cannot take what a run puts there, and what to do; empty where it can."""
    try:
        place = _place()
    except OSError:
        return "the temporary folder: there is none that can be written; set TMPDIR to a folder with some space"
    try:
        os.makedirs(place, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        return (
            f"the temporary folder {place}, which Ray needs: {error.strerror or error}; "
            "make some room there, or set TMPDIR to another folder"
        )
    return ""


def no_room_for_data() -> str:
    """What to tell, and to do, where Ray's object store has not taken the data."""
    # Ray takes the temporary folder where shared memory is smaller than its store, or full
    places = [place for place in ("/dev/shm", _place()) if os.path.isdir(place)]
    free = ", ".join(f"{place} has {_size(shutil.disk_usage(place).free)} free" for place in places)
    return (
        f"the data of the sweep do not fit into Ray's object store: {free}; give either more (to a container: "
        "docker run --shm-size=8g), or set TMPDIR to a folder that has more"
    )


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _place() -> str:
    """Where the folder is made: where Ray shall have its files, unless that name is too long for its sockets."""
    place = os.path.abspath(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return place if len(os.fsencode(place)) + IN_FOLDER <= LONGEST_SOCKET else "/tmp"
