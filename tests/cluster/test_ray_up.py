"""cluster.yaml carried from `ray up` to `ray down`: `pytest -m cluster`. What is emulated is AWS; see `machines.py`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.drill import COMMIT, SET_UP_SECONDS, SILENT_SECONDS
from tests.cluster.permissions import POLICIES, listed, statements

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
# what is needed only when something fails, or by a user who measures more than a sweep has recorded
FAILED_UPLOAD = ("ReadAndWrite", "s3:AbortMultipartUpload")
NOT_SEEN = {
    "user": {FAILED_UPLOAD, ("ReadAndWrite", "s3:PutObject"), ("ReadAndWrite", "s3:DeleteObject")},
    "sweeps-head": {FAILED_UPLOAD},
    "sweeps-worker": {FAILED_UPLOAD},
}
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


def pinned(kind: str) -> dict[str, str]:
    """uv's version, file and hash for a kind of machine, from sweeps/cluster/uv.sh."""
    text = (ROOT / "sweeps" / "cluster" / "uv.sh").read_text()
    version = re.findall(r"(?m)^VERSION=(\S+)$", text)[0]
    block = text.split(f"    {kind})")[1].split(";;")[0].replace("$VERSION", version)
    return {"version": version, **dict(re.findall(r"(WHEEL|SHA256)=(\S+)", block))}


def fetch_uv(folder: Path, kind: str) -> Path:
    """The wheel of the pinned version, as the package index has it."""
    pip = ["uv", "run", "--quiet", "--no-project", "--with", "pip", "python", "-m", "pip", "download", "--quiet"]
    which = [
        "--no-deps",
        "--only-binary=:all:",
        "--platform",
        f"manylinux_2_17_{kind}",
        f"uv=={pinned(kind)['version']}",
    ]
    subprocess.run([*pip, *which, "--dest", str(folder)], check=True, capture_output=True, cwd="/")
    return next(folder.glob("*.whl"))


@pytest.mark.parametrize("kind", ["x86_64", "aarch64"])
def test_uv_is_the_one_of_the_index(kind: str, tmp_path: Path) -> None:
    wheel = fetch_uv(tmp_path, kind)
    assert wheel.name == pinned(kind)["WHEEL"].rsplit("/", 1)[-1]
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == pinned(kind)["SHA256"]


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
    fetch_uv(folder / "wheels", "x86_64")
    command = [*NAMESPACES, sys.executable, "-m", "tests.cluster.drill", str(folder), str(cache)]
    environment = {key: value for key, value in environment.items() if not key.startswith(("RAY_", "AWS_"))}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False, timeout=1800)
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


def test_workers_that_lose_their_head_end(seen: dict[str, Any]) -> None:
    """By themselves: the head, as far as AWS knows, runs, and its user has done nothing."""
    assert seen["lost_head_state"] == "running"
    assert len(seen["lost_head_ended_seconds"]) == 2
    assert all(SILENT_SECONDS - 5 <= after <= SILENT_SECONDS + 30 for after in seen["lost_head_ended_seconds"])
    assert SET_UP_SECONDS <= seen["never_set_up_ended_seconds"] <= SET_UP_SECONDS + 20


def test_nobody_needs_more_than_the_policies_allow(seen: dict[str, Any]) -> None:
    """What they do not allow, the drill's AWS refuses: here once, when it is tried."""
    assert seen["refused_with"] == "UnauthorizedOperation"
    assert [(one["who"], one["action"]) for one in seen["refused"]] == [("of-sweeps-head", "ec2:TerminateInstances")]


@pytest.mark.parametrize(("who", "names"), POLICIES.items())
def test_no_policy_allows_more_than_is_needed(seen: dict[str, Any], who: str, names: list[str]) -> None:
    used = {(by, action) for one, action, bys in seen["calls"] if one.removeprefix("of-") == who for by in bys}
    given = {
        (statement["Sid"], action)
        for name in names
        for statement in statements(name, {})
        for action in listed(statement["Action"])
    }
    assert used <= given
    assert given - used == NOT_SEEN[who]


def test_disks_are_encrypted(seen: dict[str, Any]) -> None:
    assert seen["encrypted"]
    assert all(seen["encrypted"])


def test_machines_of_ones_own(seen: dict[str, Any]) -> None:
    assert seen["own_nodes"] == 2


def test_ray_down_leaves_nothing(seen: dict[str, Any]) -> None:
    assert seen["states_in_the_end"] == ["terminated"]
    assert seen["volumes_in_the_end"] == 0
