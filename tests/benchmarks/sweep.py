"""How much of the cores' time a sweep turns into training, beside a plain Ray Tune script, in one run.

    python -m tests.benchmarks.sweep                          # digits, about two minutes of sweep on two cores
    python -m tests.benchmarks.sweep --dataset mnist --data-root DIR --model lenet5 --epochs 2 --train-images 10000

Three ways through the same trials, one after another on the same machine:
  one process   every trial after the other in one process on one thread, data in memory: the time the maths needs
  this project  `python sweeps/pilcro.py`, from the command to its end, Ray's start included
  plain Tune    a function trainable with `DataLoader`, as a user would first write it (plain_tune.py), likewise
Prints efficiency = (sum of seconds in one process) / (cores x wall time), the ratio of the two sweeps' wall times, and
of this project's the fixed cost: seconds from the command to the first trial's start (imports, Ray, data, workers), and
from the last trial's end to the command's. `--fixed-cost [CHECKOUT]` prints that alone, of a sweep of two short trials,
in turn with that of another checkout of this project which has its environment in `.venv`:

    git worktree add ../before COMMIT && (cd ../before && uv sync --compile-bytecode)
    python -m tests.benchmarks.sweep --fixed-cost ../before
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ["--seeds", "6", "--epochs", "30", "--flip", "--crop", "--crop-pixels", "1"]

ONE_PROCESS = """
import sys, time, torch
torch.set_num_threads(1)
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.flags import read_flags
from sweeps.plan import make_plan
from trainables.data import load_each
from trainables.metrics import METRICS
from trainables.training import Run
flags = read_flags(PilcroSweep, PRESETS, sys.argv[1:], "")
plan = make_plan(flags)
(spec,) = flags.dataset
data = load_each(spec, flags.data_root, list(dict.fromkeys(trial.config.data for trial in plan.trials)))
for trial in plan.trials:
    trial.config.method.prepare(data[trial.config.data])
total = 0.0
for trial in plan.trials:
    start = time.perf_counter()
    metrics = {name: METRICS[name](**options) for name, options in flags.metrics().items()}
    run = Run(trial.config, data[trial.config.data], metrics=metrics)
    run.begin()
    while not run.finished:
        run.train_epoch()
    total += time.perf_counter() - start
print(len(plan.trials), total)
"""


def timed(command: list[str], root: Path = ROOT, **environment: str) -> tuple[float, str]:
    """Wall seconds of a command and the last line it prints."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - start, done.stdout.strip().splitlines()[-1]


def fixed_cost(storage: str, started: float, ended: float) -> tuple[float, float]:
    """Seconds before the first trial of the record in `storage` started, and after its last ended."""
    rows = pq.read_table(f"{storage}/pilcro/trials", columns=["started_at", "finished_at"]).to_pylist()
    first, last = min(row["started_at"] for row in rows), max(row["finished_at"] for row in rows)
    return first.timestamp() - started, ended - last.timestamp()


def compare_fixed_costs(roots: list[Path], repetitions: int = 5) -> None:
    """The least of the repetitions: whatever else runs on the machine makes it longer, never shorter."""
    command = ["sweeps/pilcro.py", "--variant", "curvature", "--alpha", "1", "--seeds", "1", "--epochs", "1"]
    costs: dict[Path, list[tuple[float, float]]] = {root: [] for root in roots}
    for _ in range(repetitions):
        for root in roots:
            python = sys.executable if root == ROOT else str(root / ".venv" / "bin" / "python")
            with tempfile.TemporaryDirectory() as storage:
                started = time.time()
                timed([python, *command, "--storage", storage], root)
                costs[root].append(fixed_cost(storage, started, time.time()))
    least = {root: [min(part) for part in zip(*found, strict=True)] for root, found in costs.items()}
    for root, (before, after) in least.items():
        print(f"{root}: {before:.1f} s to the first trial's start, {after:.1f} s after the last trial's end")
    if len(roots) > 1:
        here, there = least[roots[0]][0], least[roots[1]][0]
        print(f"to the first trial's start: {here / there:.2f} of the other checkout's (goal: 0.50)")


def main() -> None:
    argv = sys.argv[1:] or DEFAULT
    if argv[0] == "--fixed-cost":
        compare_fixed_costs([ROOT, *(Path(other).resolve() for other in argv[1:])])
        return
    cores = len(os.sched_getaffinity(0))
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    _, printed = timed([sys.executable, "-c", ONE_PROCESS, *argv], ROOT, **one)
    trials, seconds = int(printed.split()[0]), float(printed.split()[1])
    print(f"one process, one thread: {seconds:.1f} s for {trials} trials", flush=True)
    with tempfile.TemporaryDirectory() as storage:
        started = time.time()
        ours, _ = timed([sys.executable, "sweeps/pilcro.py", *argv, "--storage", storage])
        before, after = fixed_cost(storage, started, time.time())
    efficiency = seconds / (cores * ours)
    print(f"this project: {ours:.1f} s wall on {cores} cores, efficiency {efficiency:.3f} (bar: 0.90)", flush=True)
    print(f"its fixed cost: {before:.1f} s to the first trial's start, {after:.1f} s after the last trial's end")
    plain, _ = timed([sys.executable, "-m", "tests.benchmarks.plain_tune", *argv])
    print(f"plain Tune with DataLoader: {plain:.1f} s wall, efficiency {seconds / (cores * plain):.3f}")
    print(f"this project / plain Tune: {ours / plain:.2f} of the wall time (bar: 0.50)")


if __name__ == "__main__":
    main()
