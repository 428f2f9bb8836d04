"""What a killed driver has left on its machine goes; what is a living one's, another user's or nobody's stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.command_line import InputError
from sweeps.driver import leftovers
from sweeps.driver.leftovers import Scratch
from tests.sweeps.driving import wait_for

_DRIVER = """
import os, subprocess, sys, time
from sweeps.driver.leftovers import Scratch
with Scratch() as scratch:
    print(scratch.folder, flush=True)
    scratch.started(sys.argv[1])
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of this process and of those that it starts, with a name short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as found:
        monkeypatch.setattr(tempfile, "tempdir", found)
        monkeypatch.setenv("TMPDIR", found)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        yield Path(found)


@pytest.fixture
def session(place: Path) -> Path:
    found = place / "ray" / "session_1"
    (found / "logs").mkdir(parents=True)
    (found / "logs" / "raylet.out").write_text("words\n")
    return found


@pytest.fixture
def processes() -> Iterator[Callable[[Path, str], subprocess.Popen[str]]]:
    """Starts processes that have a file open."""
    started: list[subprocess.Popen[str]] = []

    def start(file: Path, mode: str) -> subprocess.Popen[str]:
        code = f"held = open({str(file)!r}, {mode!r}); print('open', flush=True); import time; time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def driver(session: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A driver that lives, has started a Ray, and kills itself when it reads a line; its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(session)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    wait_for(lambda: b"session" in (folder / "driver.lock").read_bytes(), "the driver's Ray")
    yield process, folder
    process.kill()
    process.communicate()


def test_what_a_killed_driver_has_left_goes(
    driver: tuple[subprocess.Popen[str], Path],
    session: Path,
    processes: Callable[[Path, str], subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    process, folder = driver
    log = session / "logs" / "raylet.out"
    agent, reader, other = processes(log, "a"), processes(log, "r"), processes(session.parent / "another.out", "a")
    leftovers.clear()  # the driver lives
    assert folder.exists()
    assert log.exists()
    assert agent.poll() is None
    process.communicate("die\n")
    with Scratch() as scratch:
        assert agent.wait(30) == -signal.SIGKILL
        assert not folder.exists()
        assert not session.exists()
        assert (reader.poll(), other.poll()) == (None, None)  # someone who looks at its logs; another's Ray
        assert sorted(os.listdir(session.parent.parent)) == ["ray", Path(scratch.folder).name]
    assert capsys.readouterr().err == "ended what the Ray of a killed sweep had left running: 1 process\n"
    assert not Path(scratch.folder).exists()


def _dead(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "driver.lock").write_text("")


def test_nothing_is_cleared_by_its_name(place: Path) -> None:
    (place / "sweep-notes").mkdir()
    (place / "sweep-list.txt").write_text("mine")
    elsewhere = place / "elsewhere"
    _dead(elsewhere)
    (place / "sweep-link").symlink_to(elsewhere)
    (place / "sweep-marked-by-a-link").mkdir(mode=0o700)
    (place / "sweep-marked-by-a-link" / "driver.lock").symlink_to(elsewhere / "driver.lock")
    _dead(place / "sweep-open-to-all")
    (place / "sweep-open-to-all").chmod(0o777)  # another user may have put the file there
    before = {path: path.lstat().st_ino for path in place.rglob("*")}
    leftovers.clear()
    assert {path: path.lstat().st_ino for path in place.rglob("*")} == before
    _dead(place / "sweep-dead")
    leftovers.clear()
    assert {path: path.lstat().st_ino for path in place.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for what is another user's")
def test_what_is_another_users_stays(
    place: Path, session: Path, processes: Callable[[Path, str], subprocess.Popen[str]]
) -> None:
    _dead(place / "sweep-theirs")
    os.chown(place / "sweep-theirs", 12345, 12345)
    writer = processes(session / "logs" / "raylet.out", "a")
    os.chown(session, 12345, 12345)
    _dead(place / "sweep-mine")
    (place / "sweep-mine" / "driver.lock").write_text(f'{{"session": "{session}"}}')
    leftovers.clear()
    assert (place / "sweep-theirs").exists()
    assert not (place / "sweep-mine").exists()
    assert session.exists()
    assert writer.poll() is None


def test_a_temporary_folder_that_takes_nothing_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(place / "file"))
    with pytest.raises(InputError) as found:
        Scratch().__enter__()
    told = f"the temporary folder {place}/file, which Ray needs: {os.strerror(errno.EEXIST)}; make some room there, or"
    assert str(found.value).startswith(told)
    assert os.listdir(place) == ["file"]
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(place / "file")])
    with pytest.raises(InputError, match="there is none that can be written; set TMPDIR"):
        Scratch().__enter__()


def test_an_error_that_a_full_temporary_folder_may_have_made_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> list[str]:
        held = Scratch().__enter__()
        monkeypatch.setattr(leftovers, "trouble", lambda: "full")
        held.__exit__(type(error), error, None)
        monkeypatch.setattr(leftovers, "trouble", lambda: "")
        return getattr(error, "__notes__", [])

    assert fails(OSError(28, "No space left on device")) == ["full"]
    assert fails(ValueError("another")) == []
