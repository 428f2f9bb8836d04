"""Nodes of a real cluster lost while a sweep runs, each in network namespaces (see `nodes_drill`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from analysis.records import read_sweep
from sweeps.driver.losses import MAX_WORKER_LOSSES
from tests.cluster.fake_nodes import WORKERS
from tests.sweeps.driving import ROOT, SCRIPT, SMALL, results
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
    assert seen["noticed_seconds"] < 15
    wanted, found = results(uninterrupted), results(tmp_path / "results")
    assert all(found[table].equals(wanted[table]) for table in wanted)
    trials = read_sweep(str(tmp_path / "results" / "pilcro")).trials
    assert set(trials["status"].to_pylist()) == {"completed"}
    assert max(trials["attempts"].to_pylist()) == 2
    if fault == "cut":
        assert seen["late"] == "completed, written: False"
        assert seen["tables"] == 4
        assert seen["unchanged"]


def test_the_head_is_lost_with_the_driver(uninterrupted: Path, tmp_path: Path) -> None:
    """The workers' trials end by themselves; on a new cluster the same command goes on with what was in training."""
    seen = drill("head", tmp_path)
    assert seen["code"] == 0, (tmp_path / "err").read_text()
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


def test_a_spot_notice(uninterrupted: Path, tmp_path: Path) -> None:
    """The trial of the node that is taken back goes on, on one that the autoscaler brings; in the end none is left."""
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's socket paths must stay under 107 bytes
    script = f"""
        set -e
        ip link set lo up
        {Path(sys.executable).parent}/ray get-auth-token --generate > /dev/null
        {sys.executable} -m tests.sweeps.spot_drill {short} {tmp_path}/results > {short}/log 2>&1
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"HOME": short, "RAY_TMPDIR": short, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    inside = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    done = subprocess.run(inside, cwd=ROOT, env=environment, check=False, timeout=600)
    try:
        told = "".join((Path(short) / name).read_text() for name in ("log", "err") if (Path(short) / name).exists())
        assert done.returncode == 0, told
        seen = json.loads((Path(short) / "seen.json").read_text())
    finally:
        shutil.rmtree(short)
    assert seen["accepted"], seen["refusal"]
    assert seen["code"] == 0, told
    assert seen["workers"] > WORKERS
    wanted, found = results(uninterrupted), results(tmp_path / "results")
    assert all(found[table].equals(wanted[table]) for table in wanted)
    trials = read_sweep(str(tmp_path / "results" / "pilcro")).trials
    assert set(trials["status"].to_pylist()) == {"completed"}
    assert sorted(trials["attempts"].to_pylist())[-2:] == [1, 2]


def test_a_token_that_is_not_the_clusters(tmp_path: Path) -> None:
    """In one line, before anything starts; also where the cluster would be found on the node."""
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's socket paths must stay under 107 bytes
    sweep = f"{sys.executable} {SCRIPT} --storage {tmp_path}/results {' '.join(SMALL)} --epochs 2"
    ray = f"{Path(sys.executable).parent}/ray"
    head = f"{ray} start --head --port 6399 --num-cpus 1 --include-dashboard false --temp-dir {short}"
    at = "RAY_ADDRESS=127.0.0.1:6399"
    cases = {
        "open": f"RAY_AUTH_MODE=token {at}",
        "unset": at,
        "both open": f"RAY_AUTH_MODE=disabled {at}",
        "disabled": f"RAY_AUTH_MODE=disabled {at}",
        "on the node": "RAY_AUTH_MODE=disabled",
        "wrong": f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={'f' * 64} {at}",
        "none": f"HOME={tmp_path} RAY_AUTH_MODE=token {at}",
        "both": at,
    }
    runs = {
        name: f"env {case} {sweep} > /dev/null 2> '{tmp_path}/err {name}'; echo $? > '{tmp_path}/code {name}'"
        for name, case in cases.items()
    }
    # without a route Ray warns of it
    script = f"""
        ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add 10.77.0.1/24 dev v0
        ip link set v0 up && ip link set v1 up && ip route add default via 10.77.0.254 dev v0
        RAY_AUTH_MODE=disabled {head}
        {ray} get-auth-token --generate > /dev/null
        {runs["open"]}
        {runs["unset"]}
        {runs["both open"].replace("/results", "/open")}
        {ray} stop --force
        RAY_AUTH_MODE=token {head}
        {runs["disabled"]}
        {runs["on the node"]}
        {runs["wrong"]}
        {runs["none"]}
        {runs["both"].replace("/results", "/both")}
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"HOME": short, "RAY_TMPDIR": short, "RAY_USAGE_STATS_ENABLED": "0"}
    inside = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    subprocess.run(inside, cwd=ROOT, env=environment, check=False, timeout=400)
    shutil.rmtree(short)
    told = {
        "open": "was started without authentication and this sweep would use a token; set RAY_AUTH_MODE=disabled",
        "unset": "was started without authentication and this sweep would use a token; set RAY_AUTH_MODE=disabled",
        "disabled": "asks for its token; set RAY_AUTH_MODE=token",
        "on the node": "asks for its token; set RAY_AUTH_MODE=token",
        "wrong": "refuses the token of this sweep; have the cluster's in ~/.ray/auth_token",
        "none": "asks for its token, and there is none here; have the cluster's in ~/.ray/auth_token",
    }
    for name, words in told.items():
        err = (tmp_path / f"err {name}").read_text()
        assert err.count("\n") == 1, (name, err)
        assert words in err, (name, err)
        assert (tmp_path / f"code {name}").read_text().strip() == "2", name
    assert not (tmp_path / "results" / "pilcro" / "sweep.json").exists()
    for name, folder in (("both open", "open"), ("both", "both")):
        assert (tmp_path / f"code {name}").read_text().strip() == "0", (tmp_path / f"err {name}").read_text()
        assert read_sweep(str(tmp_path / folder / "pilcro")).trials.num_rows == 6


def test_a_node_without_its_gpu(tmp_path: Path) -> None:
    """Trials that land there go on elsewhere and are not counted; where there is no other node, the run ends so."""
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's socket paths must stay under 107 bytes
    ray = f"{Path(sys.executable).parent}/ray"
    head = f"{ray} start --head --port 6399 --num-cpus 1 --num-gpus 1 --include-dashboard false --temp-dir {short}"
    sweep = f"RAY_ADDRESS=127.0.0.1:6399 {sys.executable} {SCRIPT} {' '.join(SMALL)} --epochs 2 --gpus-per-trial 0.5"
    script = f"""
        ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add 10.77.0.1/24 dev v0
        ip link set v0 up && ip link set v1 up && ip route add default via 10.77.0.254 dev v0
        SWEEPS_DRILL_FAKE_GPUS=1 {head}
        {ray} start --address 127.0.0.1:6399 --num-cpus 1 --num-gpus 1
        {sweep} --storage {tmp_path}/one > {tmp_path}/out 2> {tmp_path}/err; echo $? > {tmp_path}/code
        {ray} stop --force
        {head}
        {sweep} --storage {tmp_path}/none > {tmp_path}/out0 2> {tmp_path}/err0; echo $? > {tmp_path}/code0
        {ray} stop --force
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"HOME": short, "RAY_TMPDIR": short, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    inside = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    subprocess.run(inside, cwd=ROOT, env=environment, check=False, timeout=500, capture_output=True)
    shutil.rmtree(short)
    err = (tmp_path / "err").read_text()
    assert (tmp_path / "code").read_text().strip() == "0", err
    assert err.count("\n") == 1
    assert "where torch finds none" in err
    assert err.endswith("; its trials go elsewhere\n")
    trials = read_sweep(str(tmp_path / "one" / "pilcro")).trials
    assert trials["status"].to_pylist() == ["completed"] * 6
    assert trials["attempts"].to_pylist() == [1] * 6
    err = (tmp_path / "err0").read_text()
    assert (tmp_path / "code0").read_text().strip() == "2", err
    assert err.count("\n") == 1
    assert "where torch finds none" in err
    assert "there is no other GPU: mend that" in err
    assert not (tmp_path / "none" / "pilcro" / "trials").exists()
