"""How often a trial that `--scheduler collapse` would have ended would still have learned.

    uv run python -m tests.benchmarks.collapse [SWEEP ...]

The rule is asked of the epochs of recorded trials that were trained to their end; default: the reproductions. It was
wrong where a trial that it would have ended is better than guessing at the end, on the test split. Of no wrong ones
among n the true share is with 95% confidence below the upper end of Clopper's and Pearson's interval.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import beta

from analysis.command_line import print_table
from analysis.records import read_sweep
from trainables.collapse import AT_CHANCE, has_collapsed


@dataclass
class Counts:
    trials: int = 0
    at_chance: int = 0
    """Of them, at their end."""
    ended: int = 0
    wrong: int = 0
    spared: int = 0
    """Epochs, of so many."""
    epochs: int = 0


def counted(path: str) -> Counts:
    """The rule's decisions about the trials of a record that have more than one epoch."""
    sweep, found = read_sweep(path), Counts()
    curves: dict[str, dict[int, float | None]] = defaultdict(dict)
    for row in sweep.read("epochs", ["trial_id", "epoch", "top1"]).to_pylist():
        curves[row["trial_id"]][row["epoch"]] = row["top1"]
    for row in sweep.rows:
        if row["status"] != "completed" or row["epochs"] < 2:
            continue
        classes, epochs = len(json.loads(row["class_names"] or "null") or range(10)), row["epochs"]
        curve = [curves[row["trial_id"]].get(epoch) for epoch in range(1, epochs + 1)]
        at_chance = row["top1"] <= AT_CHANCE / classes
        end = next((n for n in range(1, epochs) if has_collapsed(curve[:n], classes, epochs)), None)
        found.trials += 1
        found.at_chance += at_chance
        found.epochs += epochs
        if end is not None:
            found.ended += 1
            found.wrong += not at_chance
            found.spared += epochs - end
    return found


def main() -> None:
    folder = Path(__file__).resolve().parents[2] / "analysis" / "reproductions"
    paths = sys.argv[1:] or [str(path.parent) for path in sorted(folder.glob("*/trials"))]
    rows, total = [], Counts()
    for path in paths:
        own = counted(path)
        for name, number in vars(own).items():
            setattr(total, name, getattr(total, name) + number)
        rows.append((Path(path).name, own))
    rows.append(("all", total))
    names = ("record", "trials", "at chance at the end", "ended early", "of them wrongly", "epochs spared")
    print_table(
        names,
        [(name, *map(str, (n.trials, n.at_chance, n.ended, n.wrong)), f"{n.spared} of {n.epochs}") for name, n in rows],
    )
    bound = beta.ppf(0.975, total.wrong + 1, total.ended - total.wrong) if total.ended > total.wrong else 1.0
    print(f"wrong decisions: {total.wrong} of {total.ended}, at most {100 * bound:.1f}% with 95% confidence")


if __name__ == "__main__":
    main()
