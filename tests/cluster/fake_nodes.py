"""The autoscaler on fake nodes with the worker type of cluster.yaml; `test_autoscaler.py` runs it in namespaces.

Writes to <folder>/seen.json which workers there were when, and where tasks that ask for a GPU ran.
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
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
IDLE_SECONDS = 4


def configuration() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = config["available_node_types"]
    types["ray.head.default"] = types.pop(config["head_node_type"])  # the name is the fake provider's
    return {
        "cluster_name": "fake",
        "max_workers": WORKERS,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "upscaling_speed": config["upscaling_speed"],
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        },
        "auth": {},
        "head_node_type": "ray.head.default",
        "available_node_types": types,
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


def start(folder: Path) -> None:
    """A head with the autoscaler, at 127.0.0.1:6379."""
    config = folder / "fake.json"
    config.write_text(json.dumps(configuration()))
    environment = {
        **os.environ,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",  # as `ray up` has it
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    head = ["start", "--head", "--port=6379", "--num-cpus=0", f"--autoscaling-config={config}"]
    temporary = ["--temp-dir", str(folder)]
    subprocess.run([f"{Path(sys.executable).parent}/ray", *head, *temporary], env=environment, check=True)


def main(folder: Path) -> dict[str, Any]:
    start(folder)
    ray.init(address="127.0.0.1:6379", log_to_driver=False)
    began = time.monotonic()
    seen: list[tuple[float, list[dict[str, float]]]] = []

    def look() -> int:
        """The number of workers; what they have of CPUs and GPUs is noted."""
        living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        now = [{name: found.get(name, 0) for name in ("CPU", "GPU")} for found in living if "GPU" in found]
        if not seen or len(seen[-1][1]) != len(now):
            seen.append((round(time.monotonic() - began, 1), now))
        return len(now)

    @ray.remote(num_cpus=1, num_gpus=1)
    def trial() -> str:
        time.sleep(2)
        return ray.get_runtime_context().get_node_id()

    waiting = [trial.remote() for _ in range(6)]
    while len(ray.wait(waiting, num_returns=len(waiting), timeout=0.3)[0]) < len(waiting):
        look()
        if time.monotonic() - began > 60:
            break
    look()
    finished, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
    ran_on = ray.get(finished)
    done = time.monotonic() - began
    while look() and time.monotonic() - began < done + 40:
        time.sleep(0.3)
    return {
        "workers": seen,
        "tasks": len(ran_on),
        "on_the_head": ran_on.count(FAKE_HEAD_NODE_ID),
        "done_after": round(done, 1),
    }


if __name__ == "__main__":
    result = main(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "seen.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result))
