"""Machines that are hostile to a sweep: stopped, with a clock that jumps, without room, or with storage that goes away.
In the end every trial is recorded once, with equal numbers."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from analysis.records import read_sweep
from tests.sweeps.driving import (
    LONGER,
    SCRIPT,
    SHORTER,
    alive,
    finish,
    in_namespace,
    needs_root,
    orphans,
    processes_below,
    same,
    start,
    wait_for,
)

pytestmark = pytest.mark.ray


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder whose name can be part of those of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t") as found:
        yield Path(found)


def in_training(storage: Path, checkpoints: int = 3) -> Callable[[], bool]:
    return lambda: len(list((storage / "pilcro" / "checkpoints").glob("*/*.pt"))) >= checkpoints


def test_the_ray_of_a_killed_driver_goes_at_the_next_start(shorter: Path, place: Path, tmp_path: Path) -> None:
    """Where they do not fall to the machine's first process, Ray's workers would train on for a minute."""
    environment = {"TMPDIR": str(place)}
    process = start(tmp_path, *SHORTER, env=environment)
    wait_for(in_training(tmp_path), "training")
    below = processes_below(process.pid)
    for pid, name in below.items():
        if name.startswith("ray::Trial"):
            os.kill(pid, signal.SIGSTOP)  # as if they were in the middle of something: they do not notice
    process.kill()
    process.communicate()
    (session,) = [path for path in place.glob("sweep-*/ray/session_*") if not path.is_symlink()]
    wait_for(lambda: bool(orphans()), "that what the driver started has another parent")
    again = start(tmp_path, *SHORTER, env=environment)
    wait_for(lambda: not any(alive(pid) for pid in below), "the end of what was left", 30)
    code, _, err = finish(again)
    assert code == 0, err
    assert err.startswith("ended what the Ray of a killed sweep had left running: ")
    assert err.count("\n") == 1
    assert not session.exists()
    assert not list(place.glob("sweep-*"))
    same(tmp_path, shorter)


@pytest.mark.long  # minutes
@pytest.mark.parametrize("whole", [False, True], ids=["driver", "all"])
def test_stopped_for_a_minute_and_continued(whole: bool, uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *LONGER)
    wait_for(in_training(tmp_path), "training")
    stopped = [process.pid, *(processes_below(process.pid) if whole else [])]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(65)
    for pid in reversed(stopped):
        os.kill(pid, signal.SIGCONT)
    code, out, err = finish(process)
    assert code == 0, err
    assert err == ""
    assert "6/6 trials done" in out
    same(tmp_path, uninterrupted)
    assert set(read_sweep(str(tmp_path / "pilcro")).trials["attempts"].to_pylist()) == {1}


@pytest.mark.long  # a minute
@needs_root
def test_a_driver_that_was_stopped_while_another_took_over(uninterrupted: Path, place: Path, tmp_path: Path) -> None:
    """It says so and stops; the other, on a machine of its own, is not disturbed."""
    first = start(tmp_path, *LONGER)
    wait_for(in_training(tmp_path), "training")
    os.kill(first.pid, signal.SIGSTOP)
    lease = tmp_path / "pilcro" / "driver.json"
    before = json.loads(lease.read_text())["driver"]
    apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c"]
    command = f"ip link set lo up; {sys.executable} {SCRIPT} --storage {tmp_path} {' '.join(LONGER)}"
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen(
        [*apart, command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as second:
        wait_for(lambda: _driver(lease) not in ("", before), "the take-over", 90)
        other = _driver(lease)
        os.kill(first.pid, signal.SIGCONT)
        code, _, err = finish(first)
        assert code == 2
        assert "another driver has taken over this sweep (process " in err
        assert err.count("\n") == 1, err
        assert _driver(lease) in (other, "")
        out, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert "6/6 trials done" in out
    same(tmp_path, uninterrupted)


def _driver(lease: Path) -> str:
    try:
        return str(json.loads(lease.read_text())["driver"])
    except (OSError, ValueError):
        return ""


_CLOCK = """
import datetime, importlib.abc, importlib.machinery, mmap, os, struct, sys, time

with open(os.environ["SHIFTED_CLOCK"], "rb") as file:
    shift = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)

seconds = lambda: struct.unpack("q", shift[:8])[0]
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + seconds()
time.time_ns = lambda: real_ns() + seconds() * 10**9


class Shifted(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return datetime.datetime.now(zone) + datetime.timedelta(seconds=seconds())

    fromisoformat = datetime.datetime.fromisoformat


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in ("trainables.training", "sweeps.driver.usage", "sweeps.driver.lease"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.datetime = Shifted
            if name == "sweeps.driver.lease":
                module.RENEWED_EVERY = 0.1

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""


def test_a_clock_that_is_set_back_an_hour_and_forward_a_day(shorter: Path, tmp_path: Path) -> None:
    """As Python tells it, to the driver, to Tune and to the workers; the clocks that no one sets go on."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(_CLOCK)
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("q", 0))
    storage = tmp_path / "results"
    process = start(storage, *SHORTER, env={"PYTHONPATH": str(tmp_path / "patch"), "SHIFTED_CLOCK": str(clock)})
    began = time.monotonic()
    wait_for(in_training(storage, 1), "training")
    for seconds in (-3600, 86400 - 3600):
        with clock.open("r+b") as file:
            file.write(struct.pack("q", seconds))
        renewed = _renewals(storage)
        wait_for(lambda before=renewed: _renewals(storage) > before + 2, "renewals of the lease")
    assert process.poll() is None
    code, _, err = finish(process)
    took = time.monotonic() - began
    assert code == 0, err
    assert err == ""
    same(storage, shorter)
    for row in read_sweep(str(storage / "pilcro")).trials.to_pylist():
        assert 0 <= (row["finished_at"] - row["started_at"]).total_seconds() <= took
        assert 0 < row["train_seconds"] + row["measure_seconds"] <= took
    (run,) = [row for file in (storage / "pilcro" / "runs").iterdir() for row in pq.read_table(file).to_pylist()]
    assert 0 < (run["finished_at"] - run["started_at"]).total_seconds() <= took
    assert 0 < run["worker_hours"] <= took / 3600


def _renewals(storage: Path) -> int:
    return int(json.loads((storage / "pilcro" / "driver.json").read_text())["renewed"])


@pytest.mark.long
@needs_root
def test_storage_that_is_read_only_for_a_while(uninterrupted: Path, tmp_path: Path) -> None:
    storage, kept = tmp_path / "results", tmp_path / "kept"
    storage.mkdir()
    sweep = f"{sys.executable} {SCRIPT} --storage {storage} {' '.join(LONGER)}"
    done = in_namespace(
        f"""
        ip link set lo up
        mount -t tmpfs -o size=100m none {storage}
        {sweep} > {tmp_path}/out 2> {tmp_path}/err &
        until [ $(ls {storage}/pilcro/checkpoints/*/*.pt | wc -l) -gt 2 ]; do sleep 0.1; done 2> {tmp_path}/waited
        mount -o remount,ro {storage}
        sleep 7
        mount -o remount,rw {storage}
        wait $!
        echo $? > {tmp_path}/code
        cp -r {storage} {kept}
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    err = (tmp_path / "err").read_text()
    code = (tmp_path / "code").read_text().strip()
    if code != "0":
        # its trials were tried again, as often as Tune does, in less time than that
        assert code == "1"
        assert "Read-only file system" in err
        assert "Traceback" not in err
        assert not (kept / "pilcro" / "trials").exists() or "failed" not in _statuses(kept)
        code, _, err = finish(start(kept, *LONGER))
        assert code == 0, err
    same(kept, uninterrupted)


def _statuses(storage: Path) -> set[str]:
    return {row["status"] for row in read_sweep(str(storage / "pilcro")).trials.to_pylist()}


@pytest.mark.long
@pytest.mark.parametrize("removed", ["pilcro", "."], ids=["sweep", "storage"])
def test_storage_that_is_deleted(removed: str, uninterrupted: Path, tmp_path: Path) -> None:
    """Said in a line; the same command begins again and ends the same."""
    storage = tmp_path / "results"
    process = start(storage, *LONGER)
    wait_for(in_training(storage), "training")
    subprocess.run(["rm", "-rf", str(storage / removed if removed != "." else storage)], check=False)
    code, _, err = finish(process)
    assert code == 2
    assert "driver.json, by which one driver at a time works on a sweep, was removed" in err
    assert "is the whole folder gone, or no longer mounted?" in err
    assert err.count("\n") == 1, err
    code, _, err = finish(start(storage, *LONGER))
    assert code == 0, err
    same(storage, uninterrupted)


@pytest.mark.long
@needs_root
def test_a_temporary_folder_that_fills_up(uninterrupted: Path, place: Path, tmp_path: Path) -> None:
    """It is named, and with room there the same command goes on."""
    sweep = f"{sys.executable} {SCRIPT} --storage {tmp_path}/results {' '.join(LONGER)}"
    done = in_namespace(
        f"""
        ip link set lo up
        mount -t tmpfs -o size=4m none {place}
        export TMPDIR={place}
        {sweep} > {tmp_path}/out1 2> {tmp_path}/err1 &
        until [ $(ls {tmp_path}/results/pilcro/checkpoints/*/*.pt | wc -l) -gt 2 ]; do sleep 0.1; done 2> {tmp_path}/w
        dd if=/dev/zero of={place}/fill bs=1k 2> {tmp_path}/filled
        wait $!
        echo $? > {tmp_path}/code1
        {sweep} --name other > {tmp_path}/out2 2> {tmp_path}/err2
        echo $? > {tmp_path}/code2
        rm {place}/fill
        {sweep} > {tmp_path}/out3 2> {tmp_path}/err3
        echo $? > {tmp_path}/code3
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    codes = [(tmp_path / f"code{number}").read_text().strip() for number in (1, 2, 3)]
    first, second, third = ((tmp_path / f"err{number}").read_text() for number in (1, 2, 3))
    assert codes[1:] == ["2", "0"], first + second + third
    told = f"error: the temporary folder {place}, which Ray needs: No space left on device; make some room there"
    # Tune writes now and then: what ends before, ends well
    assert codes[0] in ("0", "1"), first
    assert codes[0] == "0" or (told in first and "storage" not in first), first
    assert "Traceback" not in first
    assert second.startswith(told)
    assert second.count("\n") == 1
    same(tmp_path / "results", uninterrupted)


@pytest.mark.long
@needs_root
def test_shared_memory_of_64_megabytes(uninterrupted: Path, tmp_path: Path) -> None:
    """As in containers: Ray's object store lies in the temporary folder then."""
    done = in_namespace(
        f"""
        ip link set lo up
        mount -t tmpfs -o size=64m none /dev/shm
        {sys.executable} {SCRIPT} --storage {tmp_path} {" ".join(LONGER)}
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    same(tmp_path, uninterrupted)


@needs_root
def test_data_for_which_there_is_no_room(place: Path, tmp_path: Path) -> None:
    """Neither in shared memory nor in the temporary folder: told with what each of them has."""
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(200):
            image = Image.fromarray(draws.integers(0, 255, (96, 96, 3), dtype="u1"))
            image.save(tmp_path / "images" / name / f"{number}.png")
    options = "--image-size 96 --epochs 1 --alpha 1 --seeds 1 --batch-size 32 --interval 1"
    done = in_namespace(
        f"""
        ip link set lo up
        mount -t tmpfs -o size=4m none /dev/shm
        mount -t tmpfs -o size=4m none {place}
        export TMPDIR={place}
        {sys.executable} {SCRIPT} --storage {tmp_path} --dataset folder:{tmp_path}/images {options}
        """,
        tmp_path,
    )
    assert done.returncode == 2, done.stderr
    told = "error: the data of the sweep do not fit into Ray's object store: /dev/shm has 4 MB free, "
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"{told}{place} has 4 MB free; give either more")
    assert "Traceback" not in done.stderr


def test_a_temporary_folder_with_a_long_name(shorter: Path, place: Path, tmp_path: Path) -> None:
    """Too long for Ray's sockets, which lie in /tmp then."""
    folder = place / ("x" * 60)
    folder.mkdir()
    code, _, err = finish(start(tmp_path, *SHORTER, env={"TMPDIR": str(folder)}))
    assert code == 0, err
    assert err == ""
    same(tmp_path, shorter)
