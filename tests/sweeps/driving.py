"""Sweeps driven as a user drives them, and killed as the world kills them: what the tests of whole sweeps share."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from analysis.records import read_sweep

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "sweeps" / "pilcro.py")
# everything else in the record is a result and must be equal bit for bit
CLOCKS_AND_PLACES = {
    "train_seconds",
    "measure_seconds",
    "images_per_second",
    "started_at",
    "finished_at",
    "attempts",
    "cpus",
    "gpus",
    "host",
    "seconds",
    "sweep",
}
_STARTED: set[int] = set()
_PR_SET_CHILD_SUBREAPER = 36
SMALL = ["--alpha", "1", "--variant", "target", "curvature", "--train-images", "600", "--initialisations", "2"]
LONGER = [*SMALL, "--epochs", "25", "--checkpoint-seconds", "0"]
# four trials, for what is to be seen in minutes
SHORTER = [
    *("--alpha", "1", "--variant", "curvature", "--train-images", "300", "--initialisations", "2"),
    *("--epochs", "12", "--checkpoint-seconds", "0"),
]
# two cores for each trial: one process trains them all, which starts but once
ONE_BY_ONE = ["--cpus-per-trial", str(min(2, os.cpu_count() or 1))]


def start(
    storage: Path | str, *argv: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, script: str = SCRIPT
) -> subprocess.Popen[str]:
    command = [sys.executable, script, "--storage", str(storage), *argv]
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS",)} | dict(env or {})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _STARTED.add(process.pid)
    return process


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    """Wait for its end, and for that of everything it has started."""
    out, err = process.communicate(timeout=seconds)
    wait_for(lambda: not orphans(), "the end of the sweep's workers", 30)
    return process.returncode, out, err


def orphans() -> list[str]:
    """What of their Rays sweeps have left running, by command line: `start` has made this process adopt it."""
    children = processes_below(os.getpid(), deep=False)
    return [name for pid, name in children.items() if pid not in _STARTED and alive(pid) and "ray" in name]


def end() -> None:
    """Kill what a test that failed has left behind: the next would use its Ray."""
    children = processes_below(os.getpid(), deep=False)
    left = [pid for pid, name in children.items() if alive(pid) and (pid in _STARTED or "ray" in name)]
    kill([*left, *(below for pid in left for below in processes_below(pid))])
    if left:
        wait_for(lambda: not orphans(), "the end of what was killed")


def results(storage: Path | str, name: str = "pilcro") -> dict[str, pa.Table]:
    sweep = read_sweep(f"{storage}/{name}")
    tables = {name: getattr(sweep, name) for name in ("trials", "epochs", "measurements", "maps")}
    return {
        name: table.drop_columns([column for column in table.column_names if column in CLOCKS_AND_PLACES])
        for name, table in tables.items()
    }


def same(found: str | Path, wanted: Path) -> None:
    expected, tables = results(wanted), results(found)
    for name, table in expected.items():
        assert tables[name].equals(table), name


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script with mounts, processes and network of its own."""
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=400, cwd=folder
    )


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare for a namespace"
)


def processes_below(pid: int, deep: bool = True) -> dict[int, str]:
    """All descendants of a process, or its children alone, with their command lines."""
    parents: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended while we looked
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                parents.setdefault(parent, []).append(int(entry.name))
    found, queue = {}, [pid]
    while queue:
        for child in parents.get(queue.pop(), []):
            found[child] = names[child]
            if deep:
                queue.append(child)
    return found


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """The addresses, as the kernel writes them, and ports at which these processes listen."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended while we looked
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if socket := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry)):
                        inodes.add(socket[1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.add((address, int(port, 16)))
    return found


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


_HARMED = """
import importlib.abc, importlib.machinery, sys


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "trainables.training":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            train = module.Run.train_epoch

            def harmed(run):
                if {when}:
                    {harm}
                return train(run)

            module.Run.train_epoch = harmed

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""


def patched(folder: Path, when: str, harm: str) -> dict[str, str]:
    """An environment in which trials do this before an epoch `when` it is so; `run` is what trains."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HARMED.replace("{when}", when).replace("{harm}", harm))
    return {"PYTHONPATH": str(folder)}
