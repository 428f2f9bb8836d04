"""Nodes of a real cluster lost while a sweep runs, each in network namespaces (see `nodes_drill`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from analysis.records import read_sweep
from sweeps.launch import MAX_WORKER_LOSSES
from tests.sweeps.driving import ROOT, results
from tests.sweeps.nodes_drill import LOSSES

pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
        reason="needs root, unshare and ip (Debian: util-linux, iproute2) for namespaces",
    ),
]


def drill(fault: str, folder: Path) -> dict[str, Any]:
    inside = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*inside, sys.executable, "-m", "tests.sweeps.nodes_drill", str(folder), fault]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(fault, seen)
    return seen


def test_a_folder_that_a_node_does_not_see_is_refused(tmp_path: Path) -> None:
    """Before anything starts, with the way out."""
    seen = drill("unseen", tmp_path)
    err = (tmp_path / "err").read_text().splitlines()[-1]
    assert seen["code"] == 2, err
    assert "node 10.77.0.11 does not see it; give --storage s3://bucket/prefix, or a folder that every node" in err
    assert seen["files"] in ([], ["pilcro"])


@pytest.mark.parametrize("fault", ["removed", "hung", "cut"])
def test_a_node_is_lost(fault: str, uninterrupted: Path, tmp_path: Path) -> None:
    """Its trial goes on elsewhere from its checkpoint; the record ends the same, bit for bit, late writes included."""
    seen = drill(fault, tmp_path)
    assert seen["code"] == 0, (tmp_path / "err").read_text()
    # noticed within 15 s, and then placed and started again on a processor that others want, too
    assert seen["resumed_seconds"] < 45
    wanted, found = results(uninterrupted), results(tmp_path / "results")
    assert all(found[table].equals(wanted[table]) for table in wanted)
    trials = read_sweep(str(tmp_path / "results" / "pilcro")).trials
    assert set(trials["status"].to_pylist()) == {"completed"}
    assert max(trials["attempts"].to_pylist()) == 2


def test_a_trial_that_loses_node_after_node(uninterrupted: Path, tmp_path: Path) -> None:
    """More often than its worker may die: nodes that are taken back, at once or in order, do not count against it."""
    assert LOSSES > MAX_WORKER_LOSSES
    seen = drill("again and again", tmp_path)
    assert seen["code"] == 0, (tmp_path / "err").read_text()
    wanted, found = results(uninterrupted), results(tmp_path / "results")
    (identity,) = found["trials"]["trial_id"].to_pylist()
    for name, table in wanted.items():
        assert found[name].equals(table.filter(pc.field("trial_id") == identity)), name
    trials = read_sweep(str(tmp_path / "results" / "pilcro")).trials
    assert trials["status"].to_pylist() == ["completed"]
    assert trials["attempts"].to_pylist() == [1 + LOSSES]
