"""Whole sweeps on a cluster of one node: its GPUs are Ray's count alone (SWEEPS_DRILL_FAKE_GPUS=1), and fail with the
words of torch. `test_devices.py` has the parts without Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from analysis.records import read_sweep
from sweeps.driver.pending import GOES_ON
from tests.sweeps.driving import ROOT, SCRIPT, patched, results
from tests.sweeps.test_devices import ASSERT, ILLEGAL, MEMORY

pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
        reason="needs root, unshare and ip (Debian: util-linux, iproute2) for namespaces",
    ),
]
TEN = [
    *("--alpha", "1", "10", "--variant", "target", "curvature", "--train-images", "300", "--initialisations", "2"),
    *("--epochs", "8", "--checkpoint-seconds", "0"),
]


class Drill:
    """Sweeps on a cluster of this machine, one after another, in namespaces; each with the harm that is done to its
    trials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []
        # workers have the environment of their node, and not of their driver
        harm = folder / "harm"
        there = f"__import__('os').path.exists({str(harm)!r})"
        self.patch = patched(folder / "patch", there, f"exec(open({str(harm)!r}).read(), {{'run': run}})")

    def sweep(self, name: str, *argv: str, when: str = "", raised: str = "", storage: str = "") -> None:
        """One with more flags, in which a process raises an error when it is so, and from then on at every call."""
        harm = self.folder / "harm"
        if when:
            (self.folder / f"{name}.harm").write_text(
                "import os, sys, ray, torch\n"
                f"if hasattr(sys, 'sticky') or ({when}):\n    sys.sticky = True\n    raise {raised}\n"
            )
        self.commands.append(f"cp {self.folder / name}.harm {harm}" if when else f"rm -f {harm}")
        sweep = " ".join([sys.executable, SCRIPT, *TEN, *argv, "--storage", str(self.folder / (storage or name))])
        out = self.folder / name
        self.commands.append(f"RAY_ADDRESS=127.0.0.1:6399 {sweep} > {out}.out 2> {out}.err; echo $? > {out}.code")

    def run(self, cpus: int = 2, gpus: int = 2) -> None:
        short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's socket paths must stay under 107 bytes
        ray = f"{Path(sys.executable).parent}/ray"
        head = f"{ray} start --head --port 6399 --num-cpus {cpus} --num-gpus {gpus} --include-dashboard false"
        script = f"""
            ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add 10.77.0.1/24 dev v0
            ip link set v0 up && ip link set v1 up && ip route add default via 10.77.0.254 dev v0
            PYTHONPATH={self.patch["PYTHONPATH"]} {head} --temp-dir {short}
            {"; ".join(self.commands)}
            {ray} stop --force
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"HOME": short, "RAY_TMPDIR": short, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"SWEEPS_DRILL_FAKE_GPUS": "1"}
        inside = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
        subprocess.run(inside, cwd=ROOT, env=environment, check=False, timeout=900, capture_output=True)
        shutil.rmtree(short)

    def ended(self, name: str) -> tuple[int, str]:
        return int((self.folder / f"{name}.code").read_text()), (self.folder / f"{name}.err").read_text()

    def rows(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_sweep(str(self.folder / name / "pilcro")).trials.to_pylist()
        return rows

    def same(self, name: str, other: str) -> None:
        wanted, found = results(self.folder / other), results(self.folder / name)
        for table in wanted:
            assert found[table].equals(wanted[table]), table


def test_a_broken_gpu(tmp_path: Path) -> None:
    """One of two fails under every trial, from its third epoch on: it is named once, and the record is the same."""
    drill = Drill(tmp_path)
    raised = f"torch.AcceleratorError({ILLEGAL!r})"
    broken = "os.environ['CUDA_VISIBLE_DEVICES'] == '1' and run.epoch == 2"
    drill.sweep("plain", "--gpus-per-trial", "0.5")
    drill.sweep("one", "--gpus-per-trial", "0.5", when=broken, raised=raised)
    drill.sweep("both", "--gpus-per-trial", "0.5", when="run.epoch == 2", raised=raised)
    drill.sweep("again", "--gpus-per-trial", "0.5", storage="both")
    drill.run(cpus=4)
    assert drill.ended("plain") == (0, "")
    code, err = drill.ended("one")
    assert code == 0, err
    assert err.count("\n") == 1, err
    assert err.startswith("GPU 1 of ")
    assert "CUDA error: an illegal memory access was encountered; it failed 2 times; its trials go else" in err
    rows = drill.rows("one")
    assert [row["status"] for row in rows] == [row["status"] for row in drill.rows("plain")]
    assert "failed" not in {row["status"] for row in rows}
    assert [row["attempts"] for row in rows].count(2) >= 2
    assert max(row["attempts"] for row in rows) == 2
    drill.same("one", "plain")
    assert not (tmp_path / "one" / "pilcro" / "checkpoints").exists()
    # both are broken: one line, nothing recorded, and what was trained is of use
    code, err = drill.ended("both")
    assert code == 2, err
    assert err.splitlines()[-1].endswith(f"there is no other GPU: {GOES_ON}")
    assert err.count("\n") == 2, err
    code, err = drill.ended("again")
    assert (code, err) == (0, "")
    drill.same("both", "plain")
    assert max(row["attempts"] for row in drill.rows("both")) > 1


def test_a_trial_that_harms_every_gpu(tmp_path: Path) -> None:
    """It is given up, no GPU is named, the others are as if nothing had happened; it goes on when asked to."""
    drill = Drill(tmp_path)
    bad = "run.epoch == 2 and run.config.seed == 1 and not hasattr(run.config.method, 'alpha')"
    drill.sweep("plain", "--gpus-per-trial", "1")
    for name, words in (("illegal", ILLEGAL), ("assert", ASSERT)):
        drill.sweep(name, "--gpus-per-trial", "1", when=bad, raised=f"torch.AcceleratorError({words!r})")
    drill.sweep("dry", "--dry-run", "--forget-failed", storage="assert")
    drill.sweep("again", "--gpus-per-trial", "1", "--retry-failed", storage="illegal")
    drill.sweep("anew", "--gpus-per-trial", "1", "--retry-failed", "--forget-failed", storage="assert")
    drill.run()
    for name in ("illegal", "assert"):
        code, err = drill.ended(name)
        assert code == 1, err
        assert "go elsewhere" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("failed: ")]
        # the harm is done before the third is counted
        assert "given up after 3 attempts: GPUs failed under it, in epoch 2: GPU " in line
        assert "1 of 10 trials failed; --retry-failed runs them again; 1 of them from a checkpoint" in err
    assert "those of 1 trials" in (tmp_path / "dry.out").read_text()
    for name, storage in (("again", "illegal"), ("anew", "assert")):
        assert drill.ended(name) == (0, ""), name
        drill.same(storage, "plain")
        assert not (tmp_path / storage / "pilcro" / "checkpoints").exists()
    # from its checkpoint the trial's starts go on; from the beginning they begin anew
    attempts = {name: max(row["attempts"] for row in drill.rows(name)) for name in ("illegal", "assert")}
    assert attempts == {"illegal": 4, "assert": 1}


def test_out_of_memory_while_sharing(tmp_path: Path) -> None:
    """Two trials share a GPU, one of them has not enough of it, and succeeds alone; another never does."""
    drill = Drill(tmp_path)
    share = "ray.get_runtime_context().get_assigned_resources()['GPU']"
    shared = f"run.epoch == 3 and run.config.seed == 1 and {share} < 1"
    never = "run.epoch == 3 and not hasattr(run.config.method, 'alpha') and run.config.seed == 1"
    drill.sweep("plain", "--gpus-per-trial", "0.5")
    for name, when in (("shared", shared), ("never", never)):
        drill.sweep(name, "--gpus-per-trial", "0.5", when=when, raised=f"torch.OutOfMemoryError({MEMORY!r})")
    drill.sweep("again", "--gpus-per-trial", "0.5", "--retry-failed", storage="never")
    drill.run(gpus=1)
    assert drill.ended("plain") == (0, "")
    code, err = drill.ended("shared")
    assert code == 0, err
    assert err == (
        "out of GPU memory with --gpus-per-trial 0.5, and tried again with up to 1: 5 trials; "
        "a larger --gpus-per-trial or a smaller --batch-size spares that\n"
    )
    drill.same("shared", "plain")
    assert {(row["seed"], row["gpus"], row["attempts"]) for row in drill.rows("shared")} == {
        (0, 0.5, 1),
        (1, 1.0, 2),
    }
    code, err = drill.ended("never")
    assert code == 1, err
    assert "out of GPU memory with a GPU to itself, as by --gpus-per-trial 1: a smaller --batch-size or a GPU" in err
    assert "--retry-failed runs them again; 1 of them from a checkpoint, which --forget-failed deletes" in err
    assert drill.ended("again") == (0, "")
    drill.same("never", "plain")
