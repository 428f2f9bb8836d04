"""The record against Tune's own logs: the same results of one run, written and read both ways.

    python -m tests.benchmarks.record [--trials 1000 --epochs 200]

Writes `trials` trials of `epochs` epochs as this project's record and as the `result.json` files that Tune's JSON
logger writes (one line an epoch, with the fields Tune adds), and times loading the final Top-1 by α and seed: from the
record, uncompacted and compacted, and with pandas from the JSON logs. Medians of `repeats` readings, in turn.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from analysis import records

COLUMNS = ["alpha", "seed", "top1"]


@dataclass(frozen=True)
class Benchmark:
    trials: int = 1000
    epochs: int = 200
    repeats: int = 3


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def write_tune_log(folder: Path, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """What `JsonLoggerCallback` writes: params.json, and result.json with a line per reported result."""
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(config))
    lines = []
    for row in rows:
        added = {
            "timestamp": 1790000000 + row["epoch"],
            "checkpoint_dir_name": None,
            "done": row["epoch"] == len(rows),
            "training_iteration": row["epoch"],
            "trial_id": folder.name,
            "date": "2026-11-20_12-00-00",
            "time_this_iter_s": row["seconds"],
            "time_total_s": row["seconds"] * row["epoch"],
            "pid": 4242,
            "hostname": "worker",
            "node_ip": "10.0.0.1",
            "config": config,
            "time_since_restore": row["seconds"] * row["epoch"],
            "iterations_since_restore": row["epoch"],
            "experiment_tag": f"{config['seed']}_alpha={config['alpha']}",
        }
        lines.append(json.dumps({**row, **added}))
    (folder / "result.json").write_text("\n".join(lines) + "\n")


def read_tune_logs(root: Path) -> pd.DataFrame:
    """Final Top-1 by α and seed, as one reads Tune's logs with pandas."""
    final = []
    for path in sorted(root.glob("*/result.json")):
        last = pd.read_json(path, lines=True).iloc[-1]
        final.append({"alpha": last["config"]["alpha"], "seed": last["config"]["seed"], "top1": last["top1"]})
    return pd.DataFrame(final)


def main(flags: Benchmark) -> None:
    draw = random.Random(0)
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as temporary:
        sweep, logs = f"{temporary}/sweep", Path(temporary) / "tune"
        ours = theirs = 0.0
        for index in range(flags.trials):
            config = {"alpha": 10.0 ** (index % 50 / 10), "seed": index // 50}
            rows = [
                {
                    "epoch": epoch,
                    "learning_rate": draw.random(),
                    "train_loss": draw.random(),
                    "penalty": draw.random(),
                    "train_top1": draw.random(),
                    "top1": draw.random(),
                    "top5": draw.random(),
                    "loss": draw.random(),
                    "total_variation": draw.random(),
                    "seconds": draw.random(),
                }
                for epoch in range(1, flags.epochs + 1)
            ]
            trial = {
                "trial_id": f"{index:016x}",
                "sweep": "benchmark",
                "method": "pilcro",
                "dataset": "digits",
                "model": "resnet8",
                **config,
                "epochs": flags.epochs,
                "batch_size": 128,
                "config": json.dumps(config),
                "status": "completed",
                "top1": rows[-1]["top1"],
                "attempts": 1,
                "started_at": now,
                "finished_at": now,
            }
            ours += timed(lambda t=trial, r=rows: records.write_trial(sweep, t, r, [], []))[0]
            folder = logs / trial["trial_id"]
            theirs += timed(lambda f=folder, c=config, r=rows: write_tune_log(f, c, r))[0]
        print(f"writing {flags.trials} trials × {flags.epochs} epochs: record {ours:.2f} s, JSON logs {theirs:.2f} s")

        def from_record() -> pd.DataFrame:
            return records.read_table(sweep, "trials", COLUMNS).to_pandas()

        def from_logs() -> pd.DataFrame:
            return read_tune_logs(logs)

        seconds: dict[str, list[float]] = {"uncompacted": [], "compacted": [], "JSON": [], "whole": []}
        for _ in range(flags.repeats):
            seconds["uncompacted"].append(timed(from_record)[0])
            spent, frame = timed(from_logs)
            seconds["JSON"].append(spent)
        wanted = frame.sort_values(["alpha", "seed"]).reset_index(drop=True)
        for label in ("uncompacted", "compacted"):
            found = from_record().sort_values(["alpha", "seed"]).reset_index(drop=True)
            pd.testing.assert_frame_equal(found, wanted, check_dtype=False)
            if label == "uncompacted":
                print(f"compaction: {timed(lambda: records.compact(sweep))[0]:.2f} s")
        for _ in range(flags.repeats):
            seconds["compacted"].append(timed(from_record)[0])
            seconds["whole"].append(timed(lambda: records.read_sweep(sweep).epochs)[0])
        median = {name: statistics.median(values) for name, values in seconds.items()}
        print(f"final Top-1 by α and seed, pandas on Tune's JSON logs: {median['JSON']:.3f} s")
        for name, bar in (("uncompacted", 10), ("compacted", 100)):
            ratio = median["JSON"] / median[name]
            print(f"  from the {name} record: {median[name]:.4f} s, {ratio:.0f} times faster (bar: {bar})")
        print(f"  all {flags.trials * flags.epochs} epochs of the compacted record: {median['whole']:.3f} s")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
