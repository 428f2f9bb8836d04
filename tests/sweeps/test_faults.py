"""What goes wrong under a sweep, made to happen: in the end every trial is recorded once, with equal numbers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from analysis.records import read_sweep
from tests.sweeps.driving import LONGER, SCRIPT, finish, in_namespace, needs_root, patched, same, start, wait_for
from tests.sweeps.store import Answer, Store

pytestmark = pytest.mark.ray

FAULTS: dict[str, list[Answer]] = {
    "5xx": [(500, "InternalError"), (503, "ServiceUnavailable")],
    "expired": [(400, "ExpiredToken")],
    "silent": [(0, "")],
}


def checkpoints(endpoint: str) -> int:
    """Trials that have a checkpoint."""
    fs = s3fs.S3FileSystem(endpoint_url=endpoint, key="test", secret="test", use_listings_cache=False)
    found = fs.glob("bucket/sweeps/pilcro/checkpoints/*/*.pt")
    return len({path.split("/")[-2] for path in found})


@pytest.mark.long  # in CI S3 fails in test_records_s3
@pytest.mark.parametrize("seconds", [6, 30])
def test_s3_answers_500_and_503_for_a_while(
    seconds: float, store: Store, s3_endpoint: str, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url})
    wait_for(lambda: checkpoints(s3_endpoint) >= 2, "two trials in training")
    store.answers = FAULTS["5xx"]
    time.sleep(seconds)
    store.answers = []
    code, out, err = finish(process)
    assert code == 0, err
    assert store.failed > 3
    assert "6/6 trials done" in out
    same("s3://bucket/sweeps", uninterrupted)
    # nothing was lost, and nothing begun again: the workers waited
    attempts = read_sweep("s3://bucket/sweeps/pilcro").trials["attempts"].to_pylist()
    assert max(attempts) == 1


@pytest.mark.long
def test_s3_is_not_there_at_the_start(store: Store, nobody: str, uninterrupted: Path) -> None:
    """Said in a line before anything starts; when it is there the same command runs."""
    store.answers = FAULTS["5xx"]
    for endpoint, said in ((store.url, "the drill"), (f"http://{nobody}", nobody)):
        code, out, err = finish(start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": endpoint}))
        assert code == 2, err
        assert out == ""
        assert err.count("\n") == 1, err
        assert "storage s3://bucket/sweeps" in err
        assert said in err
    store.answers = []
    assert not s3fs.S3FileSystem(use_listings_cache=False).exists("bucket/sweeps/pilcro")
    code, _, err = finish(start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url}))
    assert code == 0, err
    same("s3://bucket/sweeps", uninterrupted)


@pytest.mark.long
def test_s3_takes_requests_and_says_nothing(store: Store, s3_endpoint: str, uninterrupted: Path) -> None:
    """For good: after its two minutes the driver stops with a line, nothing is recorded as failed, and it goes on."""
    process = start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url})
    wait_for(lambda: checkpoints(s3_endpoint) >= 2, "two trials in training")
    store.answers = FAULTS["silent"]
    began = time.monotonic()
    code, _, err = finish(process, 600)
    print(f"ended after {time.monotonic() - began:.0f} s")
    store.answers = []
    assert code == 1, err
    assert "give the same command again" in err
    assert "Traceback" not in err
    recorded = read_sweep("s3://bucket/sweeps/pilcro").trials if _recorded() else None
    assert recorded is None or set(recorded["status"].to_pylist()) <= {"completed"}
    code, _, err = finish(start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url}))
    assert code == 0, err
    same("s3://bucket/sweeps", uninterrupted)


@pytest.mark.long
def test_s3_credentials_that_expire(store: Store, s3_endpoint: str, uninterrupted: Path) -> None:
    """No trial is recorded as failed: the run ends with what is wrong, and the same command goes on."""
    process = start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url})
    wait_for(lambda: checkpoints(s3_endpoint) >= 2, "two trials in training")
    store.answers = FAULTS["expired"]
    code, _, err = finish(process)
    store.answers = []
    assert code == 1, err
    # S3 answers HEAD requests without a body: the code that says so is not there
    assert "credentials" in err
    assert "give the same command again" in err
    assert "Traceback" not in err
    recorded = read_sweep("s3://bucket/sweeps/pilcro").trials if _recorded() else None
    assert recorded is None or set(recorded["status"].to_pylist()) <= {"completed"}
    code, _, err = finish(start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url}))
    assert code == 0, err
    same("s3://bucket/sweeps", uninterrupted)


def _recorded() -> bool:
    return bool(s3fs.S3FileSystem(use_listings_cache=False).glob("bucket/sweeps/pilcro/trials/*.parquet"))


@pytest.mark.long  # a minute; its parts are tested without Ray
def test_two_drivers_at_once(uninterrupted: Path, tmp_path: Path) -> None:
    """The second is told, and changes nothing; the first is not disturbed."""
    first = start(tmp_path, *LONGER)
    wait_for(lambda: (tmp_path / "pilcro" / "driver.json").exists(), "the first driver's lease")
    code, out, err = finish(start(tmp_path, *LONGER))
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "another driver is at work on this sweep" in err
    code, out, err = finish(first)
    assert code == 0, err
    same(tmp_path, uninterrupted)
    assert not (tmp_path / "pilcro" / "driver.json").exists()


@pytest.mark.long
@needs_root
def test_a_full_disk(uninterrupted: Path, tmp_path: Path) -> None:
    """Storage of 300 kB fills up in the middle; with more room the same command goes on and ends the same."""
    storage = tmp_path / "results"
    storage.mkdir()
    kept = tmp_path / "kept"
    sweep = f"{sys.executable} {SCRIPT} --storage {storage} {' '.join(LONGER)}"
    done = in_namespace(
        f"""
        ip link set lo up
        mount -t tmpfs -o size=300k none {storage}
        {sweep} > {tmp_path}/out1 2> {tmp_path}/err1
        echo $? > {tmp_path}/code1
        mount -o remount,size=100M {storage}
        {sweep} > {tmp_path}/out2 2> {tmp_path}/err2
        echo $? > {tmp_path}/code2
        cp -r {storage} {kept}
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "err1").read_text()
    assert (tmp_path / "code1").read_text().strip() == "1", first
    assert "No space left on device" in first
    assert "give the same command again" in first
    assert "Traceback" not in first
    assert (tmp_path / "code2").read_text().strip() == "0", (tmp_path / "err2").read_text()
    same(kept, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        # torch is told that there is no more
        ("import torch; torch.ones(2**50)", "Cannot allocate memory"),
        # the kernel's way, and that of Ray's memory monitor
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "given up after 4 attempts"),
    ],
    ids=["no memory", "killed for memory"],
)
def test_a_trial_out_of_memory(harm: str, told: str, uninterrupted: Path, tmp_path: Path) -> None:
    """It is recorded as failed, once; the others are as if nothing had happened."""
    environment = patched(tmp_path / "patch", "run.config.seed == 1 and run.epoch == 2", harm)
    code, _, err = finish(start(tmp_path, *LONGER, env=environment))
    assert code == 1
    assert told in err
    trials = read_sweep(str(tmp_path / "pilcro")).trials.to_pylist()
    assert sorted(row["status"] for row in trials) == ["completed"] * 3 + ["failed"] * 3
    assert {row["seed"] for row in trials if row["status"] == "failed"} == {1}
    assert all(told in row["error"] for row in trials if row["status"] == "failed")
    wanted = {row["trial_id"]: row["top1"] for row in read_sweep(str(uninterrupted / "pilcro")).trials.to_pylist()}
    for row in trials:
        if row["status"] == "completed":
            assert row["top1"] == wanted[row["trial_id"]]
    # without the harm the same command, asked to, runs them again
    code, _, err = finish(start(tmp_path, *LONGER, "--retry-failed"))
    assert code == 0, err
    same(tmp_path, uninterrupted)


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A memory cgroup of 6 GiB, removed when everything in it has ended."""
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(parent) / f"sweeps-drill-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            (group / limit).write_text(str(6 * 2**30))
            break
        with contextlib.suppress(OSError):
            group.rmdir()
    else:
        pytest.skip("no memory cgroup can be made here")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), "the end of everything in the cgroup")
    group.rmdir()


@pytest.mark.long
@needs_root
def test_out_of_memory_by_rays_monitor(memory_group: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Ray kills the worker that takes too much, as often as it is tried; the others go on, and what to do is said."""
    # the sweep needs 2 GiB of the cgroup's 6, and 2.5 more with the hungry trial; at first Ray stops at 3.3
    hungry = "import time; hold = [(bytearray(b'x') * 2**28, time.sleep(0.2)) for _ in range(10)]"
    when = "run.config.seed == 1 and run.epoch == 2 and not hasattr(run.config.method, 'alpha')"
    environment = patched(tmp_path / "patch", when, hungry)
    sweep = f"{sys.executable} {SCRIPT} --storage {tmp_path}/results {' '.join(LONGER)}"
    done = in_namespace(
        f"""
        set -e
        ip link set lo up
        echo 0 > {memory_group}/cgroup.procs
        mount --bind {memory_group} {memory_group.parent}
        export PYTHONPATH={environment["PYTHONPATH"]}
        set +e
        RAY_memory_usage_threshold=0.55 {sweep} > {tmp_path}/out1 2> {tmp_path}/err1
        echo $? > {tmp_path}/code1
        cp -r {tmp_path}/results {tmp_path}/first
        {sweep} --retry-failed > {tmp_path}/out2 2> {tmp_path}/err2
        echo $? > {tmp_path}/code2
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    err = (tmp_path / "err1").read_text()
    assert (tmp_path / "code1").read_text().strip() == "1", err
    (line,) = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert "given up after 4 attempts: out of memory: Ray killed its worker as the node ran low (" in line
    assert line.endswith(
        "fewer trials on a node at a time (a larger --cpus-per-trial) or a smaller --batch-size need less"
    )
    assert "Traceback" not in err
    assert "Trials did not complete" not in err
    trials = read_sweep(str(tmp_path / "first" / "pilcro")).trials.to_pylist()
    assert sorted(row["status"] for row in trials) == ["completed"] * 5 + ["failed"]
    assert next(row["attempts"] for row in trials if row["status"] == "failed") == 4
    assert (tmp_path / "code2").read_text().strip() == "0", (tmp_path / "err2").read_text()
    same(tmp_path / "results", uninterrupted)


@pytest.mark.long
def test_a_driver_that_was_taken_over_stops(uninterrupted: Path, tmp_path: Path) -> None:
    """As after a long suspension: it notices, and leaves the sweep to the other. What it has done is of use."""
    first = start(tmp_path, *LONGER)
    held = tmp_path / "pilcro" / "driver.json"
    wait_for(lambda: len(list((tmp_path / "pilcro" / "checkpoints").glob("*/*.pt"))) > 2, "two trials in training")
    taken = json.dumps({**json.loads(held.read_text()), "driver": "another"})

    def ended() -> bool:
        if held.read_text() != taken:  # a renewal that was under way: a driver is taken over only when none has come
            held.write_text(taken)
        return first.poll() is not None

    wait_for(ended, "that it notices")
    code, _, err = finish(first)
    assert code == 2, err
    assert "another driver has taken over this sweep (process " in err
    assert "this one has stopped" in err
    assert json.loads(held.read_text())["driver"] == "another"
    held.unlink()
    code, _, err = finish(start(tmp_path, *LONGER))
    assert code == 0, err
    same(tmp_path, uninterrupted)
