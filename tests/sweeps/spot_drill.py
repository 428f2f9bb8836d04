"""A spot notice in the middle of a sweep on the autoscaler's fake nodes; `test_nodes.py` runs it in namespaces.

    python -m tests.sweeps.spot_drill FOLDER STORAGE

When two nodes train, Ray is told that one of them will be taken back, as it is told of a spot notice; when its time is
up all its processes are killed, as the cloud does. The rest is the autoscaler's. Writes FOLDER/seen.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2

from tests.cluster import fake_nodes
from tests.sweeps.driving import LONGER, SCRIPT, kill, patched, processes_below, wait_for

ADDRESS = "127.0.0.1:6379"
NOTICE_SECONDS = 2


def main(folder: Path, storage: Path) -> dict[str, Any]:
    # slow enough that a trial is in training when the notice is over
    os.environ |= patched(folder / "patch", "True", "import time; time.sleep(0.3)")
    os.environ |= {"SWEEPS_DRILL_FAKE_GPUS": "1"}
    fake_nodes.start(folder)
    ray.init(ADDRESS, log_to_driver=False)
    seen: list[str] = []

    def workers() -> list[str]:
        now = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
        seen.extend(node for node in now if node not in seen)
        return now

    command = [sys.executable, SCRIPT, "--storage", str(storage), "--gpus-per-trial", "1", *LONGER]
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
        sweep = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": ADDRESS}, stdout=out, stderr=err)
    checkpoints = storage / "pilcro" / "checkpoints"

    def training() -> set[Path]:
        return {path.parent for path in checkpoints.glob("*/*.pt") if int(path.name[:6]) >= 3}

    wait_for(lambda: len(training()) >= 2, "two trials in training", 240)
    taken = workers()[0]
    accepted, refusal = ray._raylet.GcsClient(address=ADDRESS).drain_node(
        taken,
        autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION,
        "spot notice",
        int((time.time() + NOTICE_SECONDS) * 1000),
    )
    time.sleep(NOTICE_SECONDS + 0.5)
    for raylet, name in processes_below(1).items():
        if "/raylet/raylet " in name and f"--node_id={taken}" in name:
            kill([raylet, *processes_below(raylet)])

    def ended() -> bool:
        workers()
        return sweep.poll() is not None

    wait_for(ended, "the end of the sweep", 300)
    wait_for(lambda: not workers(), "the end of the last worker", 60)
    return {"code": sweep.returncode, "accepted": accepted, "refusal": refusal, "workers": len(seen)}


if __name__ == "__main__":
    result = main(Path(sys.argv[1]), Path(sys.argv[2]))
    (Path(sys.argv[1]) / "seen.json").write_text(json.dumps(result))
