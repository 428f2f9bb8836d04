"""A small cluster in network namespaces, and a node of it lost while a sweep runs. Run as root, in namespaces:

    unshare --mount --net --pid --fork --kill-child --mount-proc python -m tests.sweeps.nodes_drill FOLDER FAULT

A head without processors and two workers with one each, joined by a bridge. FAULT is what happens to the first worker
when both have a trial in training: "removed" (its processes are killed), "hung" (stopped, not killed) or "cut" (its
link goes down; its trial waits before its last epoch, and when its successor is recorded the link comes up again and it
goes on, so that it records too late). With "head" the driver is killed with
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

from ray._raylet import GcsClient
from ray.core.generated import gcs_pb2

from tests.sweeps.driving import LONGER, SCRIPT, patched

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
"""More than a trial's worker may die (`sweeps.driver.losses.MAX_WORKER_LOSSES`)."""
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


# what the trial that is to be cut off does before its last epoch
_HOLD = """
import os, time
import analysis.records as records

if not os.path.exists(HELD):
    write = records.write_trial

    def late(sweep, trial, *tables):
        written = write(sweep, trial, *tables)
        with open(LATE, "w") as file:
            file.write(f"{trial['status']}, written: {written}")
        return written

    records.write_trial = late
    with open(HELD + ".tmp", "w") as file:
        file.write(str(os.getpid()))
    os.replace(HELD + ".tmp", HELD)
    while not os.path.exists(GO):
        time.sleep(0.05)
"""


def hold(folder: Path) -> dict[str, str]:
    """An environment of a node in which the first trial does so."""
    places = "".join(f"{name.upper()} = {str(folder / name)!r}\n" for name in ("held", "go", "late"))
    (folder / "hold.py").write_text(places + _HOLD)
    harm = f"exec(open({str(folder / 'hold.py')!r}).read(), {{}})"
    return patched(folder / "patch", "run.epoch == run.config.training.epochs - 1", harm)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> float:
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise SystemExit(f"{what} did not happen in {seconds} s")
        time.sleep(0.1)
    return time.monotonic() - start


def address(worker: int) -> str:
    return f"10.77.0.{10 + worker}"


def write_late(folder: Path, sweep: Path, trial: int) -> dict[str, object]:
    """When its successor is recorded the process of the cut-off trial goes on; what that has come to."""
    identity = next(path.parent.name for path in sweep.glob("checkpoints/*/attempts") if path.read_text() == "2")
    wait_for(lambda: (sweep / "trials" / f"{identity}.parquet").exists(), "the successor's record")
    files = sorted(sweep.glob(f"*/{identity}.parquet"))
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    # the node would learn that it was given up, and end the trial
    for pid in pids(1):
        if pid != trial:
            os.kill(pid, signal.SIGSTOP)
    sh("ip link set v1 up")
    (folder / "go").touch()
    wait_for((folder / "late").exists, "the late record")
    after = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    return {"late": (folder / "late").read_text(), "tables": len(files), "unchanged": before == after}


def main(folder: Path, fault: str) -> None:
    network(2)
    temporary = tempfile.mkdtemp(prefix="r")  # Ray's socket paths must stay under 107 bytes
    environment = {**os.environ, **CHECKS, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    if fault == "cut":
        environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "120"  # or the worker would end before it could write
    os.environ.update(environment)
    head = f"{RAY} start --head --node-ip-address {HEAD} --port {PORT} --num-cpus 0 --include-dashboard false"
    sh(f"{head} --temp-dir {temporary}")
    storage = folder / "results"
    storage.mkdir()

    def join(number: int) -> None:
        ray = f"{RAY} start --address {HEAD}:{PORT} --node-ip-address {address(number)} --num-cpus 1"
        if fault == "unseen" and number == 1:
            ray = f"unshare --mount bash -c 'mount -t tmpfs none {storage} && {ray}'"
        if fault == "cut" and number == 1:
            ray = f"env PYTHONPATH={hold(folder)['PYTHONPATH']} {ray}"
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

    client = GcsClient(address=f"{HEAD}:{PORT}")

    def given_up() -> bool:
        """Whether the cluster takes the first worker for dead."""
        found = client.get_all_node_info(timeout=10).values()
        return all(node.state != gcs_pb2.GcsNodeInfo.ALIVE for node in found if node.node_manager_address == address(1))

    held = folder / "held"
    wait_for(lambda: held.exists() if fault == "cut" else training() >= 2, "two trials in training")
    assert not given_up()
    started = time.monotonic()
    seen: dict[str, object] = {}
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

    if fault != "head":
        wait_for(given_up, "that the cluster gives up the node")
        seen["noticed_seconds"] = round(time.monotonic() - started, 1)
    wait_for(lambda: attempt(2), "a second attempt", 90)
    if fault == "cut":
        seen |= write_late(folder, storage / "pilcro", int(held.read_text()))
    seen["code"] = sweep.wait(300)
    end(1)
    end(2)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
