"""A small cluster in network namespaces, and a node of it lost while a sweep runs. Run as root, in namespaces:

    unshare --mount --net --pid --fork --kill-child --mount-proc python -m tests.sweeps.nodes_drill FOLDER FAULT

A head without processors and two workers with one each, joined by a bridge. FAULT is what happens to the first worker
when both have a trial in training: "removed" (its processes are killed), "hung" (stopped, not killed) or "cut" (its
link goes down, and up again when the sweep has ended, so that it writes late). With "head" the driver is killed with
the head, the workers' trials end by themselves, and the same command is given on a new cluster at the same address.
With "unseen" nothing happens to it, but from the beginning it does not see the folder of the record. With "again and
again" there is one worker and one trial, and each attempt of it but the last loses the worker, which then joins anew.
Prints what was seen as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.sweeps.driving import LONGER, SCRIPT

HEAD, PORT = "10.77.0.1", 6399
# a node is given up after two checks of three seconds that failed, a second apart
CHECKS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "2",
    # a worker ends when it has not seen its head for so long
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
LOSSES = 5
"""More than a trial's worker may die (`sweeps.launch.MAX_WORKER_LOSSES`)."""
ONE = [*LONGER, "--variant", "target", "--seeds", "1", "--no-baseline"]
RAY = str(Path(sys.executable).parent / "ray")


def sh(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def network(workers: int) -> None:
    sh("mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up")
    sh(f"ip link add br0 type bridge && ip addr add {HEAD}/24 dev br0 && ip link set br0 up")
    sh("ip route add default via 10.77.0.254 dev br0")
    for number in range(1, workers + 1):
        sh(f"ip netns add w{number} && ip link add v{number} type veth peer name e{number}")
        sh(f"ip link set v{number} master br0 && ip link set v{number} up && ip link set e{number} netns w{number}")
        inside = f"ip netns exec w{number}"
        sh(f"{inside} ip addr add 10.77.0.{10 + number}/24 dev e{number} && {inside} ip link set e{number} up")
        sh(f"{inside} ip link set lo up && {inside} ip route add default via {HEAD}")


def pids(worker: int) -> list[int]:
    return [int(pid) for pid in sh(f"ip netns pids w{worker}").split()]


def trials(worker: int) -> list[int]:
    """Processes that train, or could start one that does."""
    found = []
    for pid in pids(worker):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"/raylet/raylet" in name or b"Trainable" in name or name.startswith(b"ray::Trial"):
                found.append(pid)
    return found


def send(worker: int, number: int) -> None:
    for pid in pids(worker):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(worker: int) -> None:
    while pids(worker):
        send(worker, signal.SIGKILL)
        time.sleep(0.1)


def take_back(worker: int, orderly: bool) -> None:
    """As a cloud does with a machine: at once, or as machines are shut down, everything asked to end before it must."""
    if orderly:
        send(worker, signal.SIGTERM)
        time.sleep(2)
    end(worker)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> float:
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise SystemExit(f"{what} did not happen in {seconds} s")
        time.sleep(0.1)
    return time.monotonic() - start


def main(folder: Path, fault: str) -> None:
    network(2)
    temporary = tempfile.mkdtemp(prefix="r")  # Ray's socket paths must stay under 107 bytes
    environment = {**os.environ, **CHECKS, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    os.environ.update(environment)
    head = f"{RAY} start --head --node-ip-address {HEAD} --port {PORT} --num-cpus 0 --include-dashboard false"
    sh(f"{head} --temp-dir {temporary}")
    storage = folder / "results"
    storage.mkdir()

    def join(number: int) -> None:
        ray = f"{RAY} start --address {HEAD}:{PORT} --node-ip-address 10.77.0.{10 + number} --num-cpus 1"
        if fault == "unseen" and number == 1:
            ray = f"unshare --mount bash -c 'mount -t tmpfs none {storage} && {ray}'"
        sh(f"ip netns exec w{number} {ray}")

    join(1)
    if fault != "again and again":
        join(2)
    command = [sys.executable, SCRIPT, "--storage", str(storage), *(ONE if fault == "again and again" else LONGER)]

    def begin() -> subprocess.Popen[bytes]:
        with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
            return subprocess.Popen(
                command, env={**environment, "RAY_ADDRESS": f"{HEAD}:{PORT}"}, stdout=out, stderr=err
            )

    sweep = begin()
    if fault == "unseen":
        print(json.dumps({"code": sweep.wait(120), "files": [path.name for path in storage.rglob("*")]}))
        return
    checkpoints = storage / "pilcro" / "checkpoints"

    def attempt(number: int) -> bool:
        return any(path.read_text() == str(number) for path in checkpoints.glob("*/attempts"))

    if fault == "again and again":
        for number in range(1, LOSSES + 1):
            wait_for(lambda number=number: attempt(number), f"attempt {number}")
            take_back(1, orderly=number % 2 == 0)
            join(1)
        wait_for(lambda: sweep.poll() is not None, "the end of the sweep")
        end(1)
        print(json.dumps({"code": sweep.returncode}))
        return

    def training() -> int:
        return len({path.parent for path in checkpoints.glob("*/*.pt") if int(path.name[:6]) >= 3})

    wait_for(lambda: training() >= 2, "two trials in training")
    started = time.monotonic()
    if fault == "cut":
        sh("ip link set v1 down")
    elif fault == "head":
        elsewhere = {os.getpid(), *pids(1), *pids(2)}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in elsewhere:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGKILL)
        sweep.wait()
        # Ray's log monitors stay, and are of no harm
        wait_for(lambda: not trials(1) and not trials(2), "the end of the workers' trials without a head")
        end(1)
        end(2)
        sh(f"{head} --temp-dir {tempfile.mkdtemp(prefix='r')}")
        join(1)
        join(2)
        sweep = begin()
    else:
        for pid in pids(1):
            os.kill(pid, signal.SIGKILL if fault == "removed" else signal.SIGSTOP)

    wait_for(lambda: attempt(2), "a second attempt", 90)
    resumed = time.monotonic() - started
    sweep.wait(300)
    if fault == "cut":
        # what the cut-off worker has trained meanwhile it may write now, too late
        sh("ip link set v1 up")
        time.sleep(10)
    end(1)
    end(2)
    print(json.dumps({"code": sweep.returncode, "resumed_seconds": round(resumed, 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
