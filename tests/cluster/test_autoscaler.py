"""The autoscaler with the worker type of cluster.yaml, on nodes that are processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster.fake_nodes import IDLE_SECONDS, WORKERS

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.mark.ray
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="needs root, unshare and ip (Debian: util-linux, iproute2): Ray's nodes listen on all interfaces",
)
def test_gpu_workers_come_for_trials_and_go_when_idle() -> None:
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's socket paths must stay under 107 bytes
    script = f"""
        set -e
        ip link set lo up
        {Path(sys.executable).parent}/ray get-auth-token --generate > /dev/null
        {sys.executable} -m tests.cluster.fake_nodes {short} > {short}/log 2>&1
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"HOME": short, "RAY_TMPDIR": short, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([*NAMESPACES, "bash", "-c", script], cwd=ROOT, env=environment, check=False, timeout=180)
    try:
        assert done.returncode == 0, (Path(short) / "log").read_text()
        seen = json.loads((Path(short) / "seen.json").read_text())
    finally:
        shutil.rmtree(short)
    assert seen["tasks"] == 6
    assert seen["on_the_head"] == 0
    numbers = [len(workers) for _, workers in seen["workers"]]
    assert numbers[0] == 0
    assert max(numbers) == WORKERS
    assert numbers[-1] == 0
    assert all(worker == {"CPU": 4, "GPU": 1} for _, workers in seen["workers"] for worker in workers)
    # idle workers are kept for the time-out, as the next trial may come
    assert seen["workers"][-1][0] - seen["done_after"] >= IDLE_SECONDS - 2
