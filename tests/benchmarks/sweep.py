"""How much of the cores' time a sweep turns into training, beside a plain Ray Tune script, in one run.

    python -m tests.benchmarks.sweep                          # digits, about two minutes of sweep on two cores
    python -m tests.benchmarks.sweep --dataset mnist --data-root DIR --model lenet5 --epochs 2 --train-images 10000

Three ways through the same trials, one after another on the same machine:
  one process   every trial after the other in one process on one thread, data in memory: the time the maths needs
  this project  `python sweeps/pilcro.py`, from the command to its end, Ray's start included
  plain Tune    a function trainable with `DataLoader`, as a user would first write it (plain_tune.py), likewise
Prints efficiency = (sum of seconds in one process) / (cores x wall time), and the ratio of the two sweeps' wall times.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    """Wall seconds of a command and the last line it prints."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - start, done.stdout.strip().splitlines()[-1]


def main() -> None:
    argv = sys.argv[1:] or DEFAULT
    cores = len(os.sched_getaffinity(0))
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    _, printed = timed([sys.executable, "-c", ONE_PROCESS, *argv], **one)
    trials, seconds = int(printed.split()[0]), float(printed.split()[1])
    print(f"one process, one thread: {seconds:.1f} s for {trials} trials", flush=True)
    with tempfile.TemporaryDirectory() as storage:
        ours, _ = timed([sys.executable, "sweeps/pilcro.py", *argv, "--storage", storage])
    efficiency = seconds / (cores * ours)
    print(f"this project: {ours:.1f} s wall on {cores} cores, efficiency {efficiency:.3f} (bar: 0.85)", flush=True)
    plain, _ = timed([sys.executable, "-m", "tests.benchmarks.plain_tune", *argv])
    print(f"plain Tune with DataLoader: {plain:.1f} s wall, efficiency {seconds / (cores * plain):.3f}")
    print(f"this project / plain Tune: {ours / plain:.2f} of the wall time (bar: 0.50)")


if __name__ == "__main__":
    main()
