"""Draws this page's figures from the record beside it.

python analysis/reproductions/pilcro-cifar10/figures.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.command_line import run
from analysis.figures import curves, map_panels, save
from analysis.records import read_sweep
from analysis.reproductions.pages import code_of

HERE = Path(__file__).resolve().parent
page = code_of("pilcro-cifar10")
Settings = dict[str, list[dict[str, Any]]]


def main() -> None:
    sweep = read_sweep(str(HERE))
    settings: Settings = defaultdict(list)
    trials = sweep.trials.to_pylist()
    for trial in sorted(trials, key=lambda t: (t["method"], t["variant"] or "", t["reduction"] or "", t["alpha"] or 0)):
        settings[page.label(trial)].append(trial)

    of_trial = {trial["trial_id"]: page.label(trial) for trial in trials}
    first_seed = {trial["trial_id"] for trial in trials if trial["seed"] == 0}
    maps = {
        (of_trial[row["trial_id"]], row["name"], row["epoch"]): np.reshape(row["values"], (row["height"], row["width"]))
        for row in sweep.maps.to_pylist()
        if row["trial_id"] in first_seed
    }
    last = trials[0]["epochs"]
    # at chance there is nothing to look at, and its spikes would take the common scale
    learned = {name: np.mean([trial["top1"] for trial in group]) > 2 * page.CHANCE for name, group in settings.items()}
    panels = [(name, maps[name, "importance_landscape", last]) for name in settings if learned[name]]
    paths = [
        ("path counts (predicted)", maps["baseline", "path_importance", 0]),
        ("measured, 10 initialisations", maps["baseline", "initial_landscape", 0]),
        ("baseline, one initialisation", maps["baseline", "importance_landscape", 0]),
        ("baseline, trained", maps["baseline", "importance_landscape", last]),
    ]
    by_trial = defaultdict(list)
    for row in sweep.epochs.to_pylist():
        by_trial[row["trial_id"]].append(row)
    figures = {
        "landscapes": map_panels(panels, label="importance I'", columns=4),
        "paths": map_panels(paths, label="importance I'", columns=4),
        "curves": curves_of(settings, by_trial, "total_variation"),
        "accuracy": curves_of(settings, by_trial, "top1"),
    }
    for stem, figure in figures.items():
        for path in save(figure, str(HERE / "analysis" / stem), sweep):
            print(path)


def curves_of(settings: Settings, by_trial: dict[str, list[dict[str, Any]]], metric: str) -> Figure:
    """The baseline and the two weaker strengths of the penalties that learn."""
    groups = {}
    for name, group in settings.items():
        if name == "baseline" or (name.endswith(("α=1", "α=10")) and "sum" not in name):
            runs = [[row[metric] for row in by_trial[trial["trial_id"]]] for trial in group]
            groups[name] = np.arange(1, len(runs[0]) + 1), np.array(runs, dtype=float)
    return curves(groups, metric=metric, log=metric == "total_variation")


if __name__ == "__main__":
    run(main)
