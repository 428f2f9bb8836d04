"""One driver at a time on a sweep: on a disk and on S3, after a kill, and when two see the same dead driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from analysis.command_line import InputError
from sweeps import lease
from sweeps.lease import Lease


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


def test_the_second_is_told_and_changes_nothing(sweep: str) -> None:
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


def test_a_killed_driver_of_this_machine_is_known_to_be_dead(tmp_path: Path) -> None:
    script = f"from sweeps.lease import Lease; import os; Lease({str(tmp_path)!r}).__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (tmp_path / "driver.json").exists()
    start = time.monotonic()
    with Lease(str(tmp_path)):
        assert time.monotonic() - start < 1.4  # without waiting until it is stale


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
        assert held.lost.wait(5)
    assert content(str(tmp_path))["driver"] == "another"  # which is left alone
