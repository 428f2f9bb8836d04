"""Whole sweeps on a local Ray, started as a user starts them, and killed as the world kills them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs

from analysis.records import read_sweep
from tests.sweeps.driving import (
    LONGER,
    ONE_BY_ONE,
    SCRIPT,
    SHORTER,
    alive,
    finish,
    kill,
    patched,
    processes_below,
    results,
    start,
    wait_for,
)

pytestmark = pytest.mark.ray


def test_the_record_is_whole(shorter: Path) -> None:
    tables = results(shorter)
    assert tables["trials"].num_rows == 4
    assert set(tables["trials"]["status"].to_pylist()) == {"completed"}
    assert tables["epochs"].num_rows == 4 * 12
    # neither checkpoints, nor the driver's lease, nor anything of Tune's
    written = {"trials", "epochs", "measurements", "maps", "runs", "sweep.json"}
    assert {path.name for path in (shorter / "pilcro").iterdir()} <= written


def test_the_same_command_again_runs_nothing(shorter: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (shorter / "pilcro").rglob("*.parquet")}
    code, out, _ = finish(start(shorter, *SHORTER))
    assert code == 0
    assert "nothing to run" in out
    assert "used by its one run: " in out  # what it has cost is said all the same
    assert " 0 trial-hours" not in out
    assert {path: path.stat().st_mtime_ns for path in (shorter / "pilcro").rglob("*.parquet")} == before


def test_killed_worker_driver_and_everything(shorter: Path, tmp_path: Path) -> None:
    """kill -9 of a worker, then of the driver, then of all processes at once; the record ends the same, bit for bit."""
    storage = tmp_path / "storage"
    checkpoints = storage / "pilcro" / "checkpoints"
    # so that there are trials in training when they are killed: all but the baseline's wait for their seed's gate
    gates = [tmp_path / f"gate{seed}" for seed in (0, 1)]
    when = "run.epoch >= 3 and run.config.method.name != 'baseline'"
    wait = f"import time; [time.sleep(0.02) for _ in iter(Path(f'{tmp_path}/gate{{run.config.seed}}').exists, True)]"
    environment = patched(tmp_path / "patch", when, f"from pathlib import Path; {wait}")
    environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "3"  # how long workers look for a killed Ray; else a minute

    def training(number: int) -> Callable[[], bool]:
        """`number` trials have reached at least their third epoch."""
        return lambda: len({p.parent for p in checkpoints.glob("*/*.pt") if int(p.name[:6]) >= 3}) >= number

    def go_on(*seeds: int) -> None:
        """They train, for a moment."""
        for seed in seeds:
            gates[seed].touch()
        time.sleep(0.1)

    first = start(storage, *SHORTER, env=environment)
    wait_for(training(2), "two trials in training")
    workers = [
        pid for pid, name in processes_below(first.pid).items() if "Trainable" in name or name.startswith("ray::Trial")
    ]
    assert workers
    go_on(0, 1)
    kill(workers)
    for gate in gates:
        gate.unlink()
    wait_for(
        lambda: any((p / "attempts").exists() and (p / "attempts").read_text() == "2" for p in checkpoints.glob("*")),
        "a second attempt",
    )
    family = processes_below(first.pid)
    kill([first.pid])
    first.wait()
    # its agents would try to tell that it has ended for another minute, and disturb nobody
    agents = [pid for pid, name in family.items() if name.endswith("Agent")]
    wait_for(lambda: not any(alive(pid) for pid in family if pid not in agents), "the end of the driver's Ray")
    assert len(list((storage / "pilcro" / "trials").glob("*.parquet"))) < 4
    assert len(list((storage / "pilcro" / "runs").iterdir())) == 1

    gates[0].touch()
    second = start(storage, *SHORTER, env=environment)
    wait_for(lambda: any((storage / "pilcro" / "trials").glob("*.parquet")), "a first recorded trial")
    wait_for(training(1), "a trial in training")
    go_on(1)
    everything = [second.pid, *processes_below(second.pid), *agents]
    kill(everything)
    second.wait()
    wait_for(lambda: not any(alive(pid) for pid in everything), "the end of everything")
    recorded = {path.name: path.read_bytes() for path in (storage / "pilcro" / "trials").glob("*.parquet")}
    assert 0 < len(recorded) < 4

    code, out, err = finish(start(storage, *SHORTER))
    assert code == 0, err
    assert "used by all " in out  # the second may have been killed before it had used anything
    for name, content in recorded.items():
        assert (storage / "pilcro" / "trials" / name).read_bytes() == content
    wanted, found = results(shorter), results(storage)
    for table in wanted:
        assert found[table].equals(wanted[table]), table
    attempts = read_sweep(str(storage / "pilcro")).trials["attempts"].to_pylist()
    assert max(attempts) >= 2


@pytest.mark.long
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped(number: int, expected: int, uninterrupted: Path, tmp_path: Path) -> None:
    """By Ctrl-C or SIGTERM: in a line, with nothing left but what the same command goes on with."""
    # in the background of a script SIGINT is ignored, and would be in the sweep too
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(tmp_path, *LONGER)
    signal.signal(signal.SIGINT, before)
    folder = tmp_path / "pilcro"
    wait_for(lambda: len({path.parent for path in folder.glob("checkpoints/*/*.pt")}) >= 2, "two trials in training")
    process.send_signal(number)
    code, _, err = finish(process)
    assert (code, err) == (expected, "stopped; the same command goes on\n")
    assert not (folder / "driver.json").exists()
    assert list(folder.glob("checkpoints/*/*.pt"))
    code, _, err = finish(start(tmp_path, *LONGER))
    assert code == 0, err
    wanted, found = results(uninterrupted), results(tmp_path)
    assert all(found[table].equals(wanted[table]) for table in wanted)


def test_a_cut_record_is_named_and_run_again_only_on_request(shorter: Path, tmp_path: Path) -> None:
    shutil.copytree(shorter / "pilcro", tmp_path / "pilcro")
    victim = sorted((tmp_path / "pilcro" / "trials").glob("*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:-20])
    code, _, err = finish(start(tmp_path, *SHORTER))
    assert code == 2
    assert err.count("\n") == 1
    assert victim.name in err
    assert "--retry-failed" in err
    code, _, err = finish(start(tmp_path, *SHORTER, "--retry-failed"))
    assert code == 0, err
    pq.read_table(victim)
    wanted, found = results(shorter), results(tmp_path)
    assert all(found[table].equals(wanted[table]) for table in wanted)


@pytest.mark.long
def test_diverged_trials_are_data(tmp_path: Path) -> None:
    """A learning rate of 1e30 diverges: that is data, and exit code 0."""
    argv = ["--alpha", "1", "--variant", "curvature", "--seeds", "1", "--train-images", "300", "--epochs", "4"]
    code, out, err = finish(start(tmp_path, *argv, "--learning-rate", "1e30", "--no-baseline"))
    assert code == 0, err
    assert "(1 diverged)" in out
    trials = read_sweep(str(tmp_path / "pilcro")).trials.to_pylist()
    assert [(trial["status"], trial["top1"], trial["loss"]) for trial in trials] == [("diverged", 0.1, None)]


TINY = [
    "--alpha",
    "1",
    "--variant",
    "curvature",
    "--interval",
    "3",
    "--seeds",
    "1",
    "--train-images",
    "300",
    "--epochs",
    "2",
    "--width",
    "4",
]


def test_on_s3(tmp_path: Path, s3: str) -> None:
    """Record and checkpoints on an object store; nothing is left behind but the record."""
    argv = [*TINY, *ONE_BY_ONE, "--initialisations", "1", "--checkpoint-seconds", "0"]
    command = [sys.executable, SCRIPT, "--storage", f"{s3}/sweeps", *argv]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"record: {s3}/sweeps/pilcro" in done.stdout
    assert not list(tmp_path.iterdir())
    sweep = read_sweep(f"{s3}/sweeps/pilcro")
    assert sweep.trials["status"].to_pylist() == ["completed"] * 2
    assert sweep.epochs.num_rows == 4
    written = s3fs.S3FileSystem(use_listings_cache=False).find("bucket/sweeps/pilcro")
    folders = {path.removeprefix("bucket/sweeps/pilcro/").split("/")[0] for path in written}
    assert folders == {"sweep.json", "trials", "epochs", "measurements", "maps", "runs"}


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare for a namespace")
@pytest.mark.parametrize("how", ["running on the node", "RAY_ADDRESS"])
def test_uses_a_ray_that_is_there(tmp_path: Path, how: str) -> None:
    """In network and process namespaces of its own: a Ray started before the sweep is used and outlives it."""
    short = tempfile.mkdtemp(prefix="ray-")  # Ray's socket paths must stay under 107 bytes
    address = "RAY_ADDRESS=127.0.0.1:6399" if how == "RAY_ADDRESS" else ""
    script = f"""
        set -e
        ip link set lo up
        {Path(sys.executable).parent}/ray start --head --port 6399 --num-cpus 2 --temp-dir {short} > {tmp_path}/log
        {address} {sys.executable} {SCRIPT} --storage {tmp_path}/results {" ".join(TINY)}
        pgrep gcs_server > {tmp_path}/still-running
    """
    command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment["RAY_TMPDIR"] = short
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "still-running").read_text().count("\n") == 1
    # a Ray of the sweep's own would have left a session of its own
    assert len([path for path in Path(short).glob("session_*") if not path.is_symlink()]) == 1
    shutil.rmtree(short)
    assert read_sweep(str(tmp_path / "results" / "pilcro")).trials.num_rows == 2
