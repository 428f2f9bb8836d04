"""One driver at a time on a sweep: on a disk and on S3, after a kill, and when two see the same dead driver."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
import s3fs
from aiohttp import ClientPayloadError

from analysis.command_line import InputError
from sweeps.driver import lease
from sweeps.driver.lease import Lease


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.2)
    monkeypatch.setattr(lease, "STALE_AFTER", 1.5)


@pytest.fixture(params=["disk", "s3"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "demo") if request.param == "disk" else f"{request.getfixturevalue('s3')}/demo"


def content(sweep: str) -> dict[str, object]:
    fs, path = fsspec.core.url_to_fs(sweep, use_listings_cache=False)
    found: dict[str, object] = json.loads(fs.cat_file(f"{path}/driver.json"))
    return found


def test_the_second_is_told_and_changes_nothing(sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STALE_AFTER", 60.0)  # the first renewal is waited for, however slow the server is
    with Lease(sweep) as first:
        held = content(sweep)
        with pytest.raises(InputError, match=f"another driver is at work on this sweep \\(process {os.getpid()} on "):
            Lease(sweep).__enter__()
        assert content(sweep)["driver"] == held["driver"]
        assert not first.lost.is_set()
    with Lease(sweep):  # free again
        pass
    fs, path = fsspec.core.url_to_fs(sweep, use_listings_cache=False)
    assert not fs.exists(f"{path}/driver.json")


def test_a_killed_driver_of_this_machine_is_known_to_be_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STALE_AFTER", 90.0)
    script = f"from sweeps.driver.lease import Lease; import os; Lease({str(tmp_path)!r}).__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (tmp_path / "driver.json").exists()
    start = time.monotonic()
    with Lease(str(tmp_path)):
        assert time.monotonic() - start < 60  # without waiting until it is stale


def test_a_dead_driver_of_another_machine_is_waited_for(sweep: str) -> None:
    fs, path = fsspec.core.url_to_fs(sweep, use_listings_cache=False)
    fs.makedirs(path, exist_ok=True)
    fs.pipe_file(f"{path}/driver.json", json.dumps({"driver": "x", "host": "far", "pid": 1, "processes": "?"}).encode())
    start = time.monotonic()
    with Lease(sweep):
        assert time.monotonic() - start >= 1.4
        assert content(sweep)["driver"] != "x"


def test_a_damaged_file_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "driver.json").write_text('{"driver": "x", "ho')
    with Lease(str(tmp_path)):
        assert content(str(tmp_path))["pid"] == os.getpid()


def test_of_several_that_see_a_dead_driver_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "driver.json").write_text(json.dumps({"driver": "x", "processes": "?"}))
    entered: list[Lease] = []
    refused: list[str] = []

    def enter() -> None:
        try:
            entered.append(Lease(str(tmp_path)).__enter__())
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 1
    assert len(refused) == 5
    entered[0].__exit__()


def test_a_driver_that_lost_its_lease_notices(tmp_path: Path) -> None:
    with Lease(str(tmp_path)) as held:
        other = {**content(str(tmp_path)), "driver": "another"}
        (tmp_path / "driver.json").write_text(json.dumps(other))
        assert held.lost.wait(30)
    assert "another driver has taken over this sweep (process " in str(held.reason)
    assert content(str(tmp_path))["driver"] == "another"  # which is left alone


def test_a_driver_that_is_stopped_in_the_middle_of_a_renewal_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continued, it does not write over the file of the one that has taken over meanwhile."""
    with Lease(str(tmp_path)) as held:
        read, stopped = held._read, threading.Event()

        def slowly() -> dict[str, object] | None:
            found = read()
            if not stopped.is_set():
                (tmp_path / "driver.json").write_text(json.dumps({"driver": "another"}))
                stopped.set()
                time.sleep(lease.STALE_AFTER)
            return found

        monkeypatch.setattr(held, "_read", slowly)
        assert held.lost.wait(30)
    assert "another driver has taken over this sweep" in str(held.reason)
    assert json.loads(content_of(tmp_path)) == {"driver": "another"}


def test_every_renewal_differs_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    held = Lease(str(tmp_path))
    assert len({held._encoded() for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("text", "told"), [(None, "driver.json, .* was removed"), ("{", "driver.json, .* was changed")]
)
def test_what_has_become_of_the_file_is_told(text: str | None, told: str, tmp_path: Path) -> None:
    with Lease(str(tmp_path)) as held:
        if text is None:
            (tmp_path / "driver.json").unlink()
        else:
            (tmp_path / "driver.json").write_text(text)
        assert held.lost.wait(30)
    with pytest.raises(InputError, match=told):
        raise held.reason
    assert "another driver" not in str(held.reason)


class Cut:
    """The storage, until it fails."""

    def __init__(self, fs: fsspec.AbstractFileSystem) -> None:
        self.fs, self.error, self.asked = fs, None, 0
        self.read = fs.cat_file

    def cat_file(self, path: str, **options: object) -> bytes:
        self.asked += 1
        if self.error is not None:
            raise self.error
        found: bytes = self.read(path)
        return found

    error: Exception | None


@pytest.mark.parametrize("error", [OSError("no route"), ClientPayloadError("cut short")])
def test_a_driver_that_cannot_reach_the_storage_goes_on_for_a_while(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What passes costs nothing, whatever is raised; what lasts stops the driver, as another may be at work."""
    with Lease(str(tmp_path)) as held:
        storage = Cut(held.fs)
        monkeypatch.setattr(held.fs, "cat_file", storage.cat_file)
        before = content_of(tmp_path)
        storage.error, storage.asked = error, 0
        while storage.asked < 3:
            time.sleep(0.05)
        storage.error = None
        while content_of(tmp_path) == before:  # it renews again
            time.sleep(0.05)
        assert not held.lost.is_set()
        monkeypatch.setattr(lease, "CUT_OFF_AFTER", 0.5)
        storage.error = error
        assert held.lost.wait(30)
        with pytest.raises(
            OSError, match=f"neither read nor written for .* s \\({error}\\), so this driver has stopped"
        ):
            raise held.reason
        storage.error = None


def content_of(folder: Path) -> str:
    return (folder / "driver.json").read_text()


def test_the_end_does_not_wait_for_a_store_that_says_nothing(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C in a failure of the storage."""
    monkeypatch.setattr(lease, "JOINED_WITHIN", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = Lease(f"{s3}/demo").__enter__()
        silent = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}", skip_instance_cache=True)
        held.fs = silent
        server.accept()  # a renewal is under way
        ended = threading.Thread(target=held.__exit__, daemon=True)
        ended.start()
        ended.join(60)
        assert not ended.is_alive()


def test_an_answer_to_the_making_of_the_file_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made, and tried again: the file that is there is this driver's own."""
    made = Lease._create

    def twice(held: Lease) -> bool:
        made(held)
        return made(held)

    monkeypatch.setattr(Lease, "_create", twice)
    monkeypatch.setattr(Lease, "_take_over", lambda *_: pytest.fail("waits for itself"))
    with Lease(str(tmp_path)):
        pass
