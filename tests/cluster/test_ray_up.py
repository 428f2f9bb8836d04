"""cluster.yaml carried from `ray up` to `ray down`: `pytest -m cluster`. What is emulated is AWS; see `machines.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.drill import COMMIT

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
TOOLS = ("unshare", "ip", "ssh", "ssh-keygen", "rsync", "uv")


def lacking() -> str:
    """What this machine lacks, or nothing."""
    if os.geteuid() != 0:
        return "needs root for namespaces"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    missing += [] if Path("/usr/sbin/sshd").exists() else ["sshd"]
    if missing:
        return f"without {', '.join(missing)} (Debian: apt install openssh-server openssh-client iproute2 rsync)"
    namespaces = subprocess.run([*NAMESPACES, "ip", "link", "add", "br0", "type", "bridge"], capture_output=True)
    return f"no bridge in a namespace: {namespaces.stderr.decode().strip()}" if namespaces.returncode else ""


pytestmark = [pytest.mark.cluster]


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    reason = lacking()
    if reason:
        pytest.skip(reason)
    # the machines have no network: what they install has to be in uv's cache
    sync = ["uv", "sync", "--quiet", "--no-dev", "--extra", "cluster"]
    cache = Path(subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip())
    # beside the cache, on its file system, for hard links
    folder = Path(tempfile.mkdtemp(prefix="sweeps-drill-", dir=cache.parent))
    (folder / "cached").mkdir()
    for name in ("analysis", "sweeps", "trainables", "pyproject.toml", "README.md", "LICENSE"):
        (folder / "cached" / name).symlink_to(ROOT / name)
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "UV_PROJECT")}
    subprocess.run(sync, cwd=folder / "cached", env=environment, check=True)
    shutil.rmtree(folder / "cached")
    command = [*NAMESPACES, sys.executable, "-m", "tests.cluster.drill", str(folder), str(cache)]
    environment = {key: value for key, value in environment.items() if not key.startswith(("RAY_", "AWS_"))}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False, timeout=1200)
        logs = {path.name: path.read_text(errors="replace")[-3000:] for path in sorted(folder.glob("*.log"))}
        assert done.returncode == 0, "\n".join(f"--- {name}\n{text}" for name, text in logs.items())
        found = json.loads((folder / "seen.json").read_text())
        print(json.dumps(found))
        yield found
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=False)


def test_ray_up_twice_leaves_a_running_ray_alone(seen: dict[str, Any]) -> None:
    assert seen["up_twice_is_harmless"]
    assert seen["up_for_more_is_harmless"]  # and the sweep went on: see the attempts below


def test_the_dashboard_wants_the_token(seen: dict[str, Any]) -> None:
    assert seen["status_without_token"] == 401
    assert seen["status_with_token"] == 200


def test_the_sweep_is_recorded_on_s3_by_the_workers(seen: dict[str, Any]) -> None:
    assert seen["job_exit_code"] == 0
    assert len(seen["recorded"]) == len({trial for trial, _, _ in seen["recorded"]}) == 10
    assert {(status, attempts) for _, status, attempts in seen["recorded"]} == {("completed", 1)}
    assert seen["gpus"] == [1.0]  # where the cluster may have GPUs, without a flag
    assert seen["commits"] == [[COMMIT, True]]
    # the head has no trials, and what the workers write with comes from their instance profile
    assert set(seen["hosts"]) <= set(seen["workers"])


def test_two_workers_came_and_went(seen: dict[str, Any]) -> None:
    """One on spot, and as AWS has no second, one on demand."""
    assert seen["most_machines"] == {"head": 1, "g6.xlarge on spot": 1, "g6.xlarge on demand": 1}
    assert seen["workers_started"] == 2
    assert len(seen["hosts"]) == 2


def test_a_worker_that_is_cut_off(seen: dict[str, Any]) -> None:
    """It is noticed with the file's health check (Ray's own takes 65 s), and its trial goes on elsewhere."""
    assert seen["cut_off_noticed_seconds"] <= 15
    assert seen["cut_off_exit_code"] == 0
    assert len({trial for trial, _, _ in seen["cut_off_recorded"]}) == len(seen["cut_off_recorded"]) == 10
    assert {status for _, status, _ in seen["cut_off_recorded"]} == {"completed"}
    assert max(attempts for *_, attempts in seen["cut_off_recorded"]) > 1
    assert seen["cut_off_same_numbers"]


def test_machines_of_ones_own(seen: dict[str, Any]) -> None:
    assert seen["own_nodes"] == 2


def test_ray_down_leaves_nothing(seen: dict[str, Any]) -> None:
    assert seen["states_in_the_end"] == ["terminated"]
    assert seen["volumes_in_the_end"] == 0
