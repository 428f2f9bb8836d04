"""The analysis of large sweeps: seconds, peak memory and growth; reading finals against pandas on Tune's JSON logs.

    uv run python -m tests.benchmarks.analysis [--trials 2500 5000 10000 --epochs 200]

For each number of trials a record is generated (settings of 50 strengths × 10 seeds whose accuracy tips over, six
measurements a trial) and worked on by the commands as a user runs them, each in a process of its own: compacting,
tipping points by setting, correlations, comparisons, report. The largest record's finals (Top-1 by α and seed) are then
read from the compacted record and by pandas from the `result.json` files that Tune's JSON logger writes of the same
run.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from analysis import records
from tests.benchmarks.record import COLUMNS, read_tune_logs, timed, write_tune_log

STRENGTHS, SEEDS = 50, 10
METRICS = ("faithfulness", "local_lipschitz", "max_sensitivity")
EXPLAINERS = ("gradient", "deeplift")
_EPOCH = ("learning_rate", "train_loss", "penalty", "train_top1", "top5", "loss", "total_variation", "seconds")
_COMMANDS = {
    "compact": ("records", "compact"),
    "tipping points": ("tipping_points",),
    "correlations": ("correlations",),
    "comparisons": ("comparisons",),
    "report": ("report",),
}


@dataclass(frozen=True)
class Benchmark:
    trials: tuple[int, ...] = (2500, 5000, 10000)
    epochs: int = 200
    repeats: int = 3
    logs: bool = True
    """Whether the JSON logs are written and read, too (1.4 GB for 10,000 trials of 200 epochs)."""


def generated(trials: int, epochs: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
    """Trials, their epochs and measurements: settings of 50 strengths × 10 seeds, and a baseline trial per seed."""
    rng = np.random.default_rng(0)
    now = datetime.now(UTC)
    settings = math.ceil((trials - SEEDS) / (STRENGTHS * SEEDS))
    number = 0
    for setting in range(-1, settings):
        for index in range(STRENGTHS if setting >= 0 else 1):
            x = 2 + 8 * index / (STRENGTHS - 1)
            for seed in range(SEEDS):
                if number == trials:
                    return
                fall = 0.0 if setting < 0 else 0.85 / (1 + math.exp(-4 * (x - 5 - 0.2 * (setting % 10))))
                top1 = float(np.clip(0.95 - fall + 0.005 * rng.normal(), 0, 1))
                columns = {
                    "method": "baseline" if setting < 0 else "pilcro",
                    "alpha": None if setting < 0 else 10**x,
                    "interval": None if setting < 0 else 1 + setting // 2,
                    "variant": None if setting < 0 else ("curvature", "target")[setting % 2],
                }
                trial = {
                    "trial_id": f"{number:016x}",
                    "sweep": "benchmark",
                    "dataset": "digits",
                    "model": "resnet8",
                    "width": 16,
                    **columns,
                    "seed": seed,
                    "epochs": epochs,
                    "batch_size": 128,
                    "learning_rate": 0.1,
                    "optimizer": "sgd",
                    "precision": "float32",
                    "config": json.dumps({**columns, "seed": seed}),
                    "status": "completed",
                    "top1": top1,
                    "loss": 2.3 * (1 - top1),
                    "total_variation": float(rng.random()),
                    "train_seconds": 60.0,
                    "attempts": 1,
                    "started_at": now,
                    "finished_at": now,
                }
                draws = rng.random((epochs, len(_EPOCH)))
                rows: list[dict[str, Any]] = [
                    {"epoch": epoch + 1, "top1": top1 * (epoch + 1) / epochs, **dict(zip(_EPOCH, row, strict=True))}
                    for epoch, row in enumerate(draws.tolist())
                ]
                measured = [
                    {
                        "epoch": epochs,
                        "metric": metric,
                        "component": explainer,
                        "value": float(rng.random() + x / 10),
                        "std": 0.1,
                        "n": 128,
                        "direction": "max" if metric == "faithfulness" else "min",
                    }
                    for metric in METRICS
                    for explainer in EXPLAINERS
                ]
                number += 1
                yield trial, rows, measured


# its own peak: that of the resource usage counts the memory of the process that started it, too
_WATCHED = """
import re, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def command(*arguments: str) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a command in a process of its own."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", _WATCHED, *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {run.returncode}\n{run.stderr}")
    return time.perf_counter() - start, int(run.stderr.split()[-1]) / 1024


def main(flags: Benchmark) -> None:
    largest = max(flags.trials)
    print(f"{'':16}" + "".join(f"{f'{n} trials':>24}" for n in flags.trials) + f"{'growth':>10}")
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in _COMMANDS}
    with tempfile.TemporaryDirectory() as temporary:
        logs = Path(temporary) / "tune"
        for trials in flags.trials:
            sweep = f"{temporary}/sweep-{trials}"

            def write(entry: Any, sweep: str = sweep, trials: int = trials) -> None:
                trial, rows, measured = entry
                records.write_trial(sweep, trial, rows, measured, [])
                if flags.logs and trials == largest:
                    config = {"alpha": trial["alpha"], "seed": trial["seed"]}
                    own = [{**row, "top1": trial["top1"]} for row in rows[:-1]] + [{**rows[-1], "top1": trial["top1"]}]
                    write_tune_log(logs / trial["trial_id"], config, own)

            with ThreadPoolExecutor(2) as pool:
                for _ in pool.map(write, generated(trials, flags.epochs)):
                    continue
            for name, arguments in _COMMANDS.items():
                module, *rest = arguments
                figures[name].append(command(f"analysis.{module}", *rest, sweep))
            size = os.path.getsize(f"{sweep}/analysis/report.html") / 1e6
            print(f"report of {trials} trials: {size:.2f} MB", file=sys.stderr)
        for name, numbers in figures.items():
            cells = "".join(f"{f'{seconds:.1f} s, {memory:.0f} MiB':>24}" for seconds, memory in numbers)
            growth = numbers[-1][0] / numbers[0][0] / (flags.trials[-1] / flags.trials[0])
            print(f"{name:16}{cells}{growth:10.2f}")
        print("growth: seconds per trial of the largest record over those of the smallest; 1 is linear")
        if not flags.logs:
            return
        sweep = f"{temporary}/sweep-{largest}"
        compacted = [
            timed(lambda: records.read_table(sweep, "trials", COLUMNS).to_pandas())[0] for _ in range(flags.repeats)
        ]
        spent, frame = timed(lambda: read_tune_logs(logs))
        found = records.read_table(sweep, "trials", COLUMNS).to_pandas()
        order = ["alpha", "seed"]
        pd.testing.assert_frame_equal(
            found.sort_values([*order, "top1"]).reset_index(drop=True),
            frame.sort_values([*order, "top1"]).reset_index(drop=True),
            check_dtype=False,
        )
        ours = statistics.median(compacted)
        print(
            f"finals of {largest} trials: pandas on Tune's JSON logs {spent:.1f} s, compacted record {ours:.4f} s, "
            f"{spent / ours:.0f} times faster (bar: 100)"
        )


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
