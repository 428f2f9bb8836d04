"""A thousand short trials on sixteen nodes: what the driver adds to each, and whether that grows.

    uv run python -m tests.benchmarks.cluster [--trials 100 1000 --nodes 16]

A head and nodes of one processor each on this machine (Ray's own test cluster, so one network for all: run it where
nothing else of Ray runs), each sweep started as a user starts it. Trials of one epoch on a few images do next to
nothing, so a trial's seconds are those of placing, starting, checkpointing, recording and reporting it, on as many
processors as this machine really has. Prints for each number of trials the seconds per trial and the driver's processor
time and peak memory; growth is that of the seconds per trial, 1 is linear.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from ray.cluster_utils import Cluster

from analysis.records import read_sweep

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    *("--alpha", "1", "--variant", "curvature", "--no-baseline", "--epochs", "1", "--train-images", "64"),
    *("--width", "2", "--interval", "1", "--landscape-images", "16", "--initialisations", "1"),
]


@dataclass(frozen=True)
class Benchmark:
    trials: tuple[int, ...] = (100, 1000)
    nodes: int = 16


def sweep(number: int, storage: Path, address: str) -> tuple[float, float, float]:
    """Seconds from the first trial's start to the last one's end; the driver's peak memory (MiB) and CPU seconds."""
    argv = [
        sys.executable,
        str(ROOT / "sweeps" / "pilcro.py"),
        "--storage",
        str(storage),
        "--name",
        f"n{number}",
        *SHORT,
    ]
    argv += ["--seeds", str(number)]
    with open(storage / f"log{number}", "w") as log:
        process = subprocess.Popen(argv, env={**os.environ, "RAY_ADDRESS": address}, stdout=log, stderr=log)
    peak = 0.0
    while process.poll() is None:
        found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        peak = max(peak, int(found[1]) / 1024 if found else 0.0)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        busy = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit((storage / f"log{number}").read_text()[-3000:])
    trials = read_sweep(str(storage / f"n{number}")).trials
    if trials.num_rows != number or set(trials["status"].to_pylist()) != {"completed"}:
        raise SystemExit(f"{trials.num_rows} of {number} trials recorded")
    starts, ends = trials["started_at"].to_pylist(), trials["finished_at"].to_pylist()
    return (max(ends) - min(starts)).total_seconds(), peak, busy


def main(flags: Benchmark) -> None:
    os.environ["RAY_AUTH_MODE"] = (
        "disabled"  # the test cluster's nodes have no token, the sweep's driver would ask for one
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(flags.nodes):
        cluster.add_node(num_cpus=1)
    rates = []
    with tempfile.TemporaryDirectory() as temporary:
        # the first sweep starts the workers
        sweep(2 * flags.nodes, Path(temporary), cluster.address)
        for number in flags.trials:
            seconds, memory, busy = sweep(number, Path(temporary), cluster.address)
            rates.append(seconds / number)
            own = read_sweep(f"{temporary}/n{number}").trials
            work = statistics.fmean(
                (train or 0) + (measure or 0)
                for train, measure in zip(
                    own["train_seconds"].to_pylist(), own["measure_seconds"].to_pylist(), strict=True
                )
            )
            print(
                f"{number} trials on {flags.nodes} nodes of {os.cpu_count()} processors: {seconds:.1f} s, "
                f"{1000 * seconds / number:.0f} ms a trial; driver {1000 * busy / number:.0f} ms of processor a trial, "
                f"{memory:.0f} MiB at most; a trial's own work {1000 * work:.0f} ms",
                flush=True,
            )
    print(f"growth of the seconds per trial: {rates[-1] / rates[0]:.2f} (bar: 1.20)")
    cluster.shutdown()


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
