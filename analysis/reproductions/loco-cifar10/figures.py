"""Prints this page's tables from the record beside it.

python analysis/reproductions/loco-cifar10/figures.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from analysis.command_line import print_table, run
from analysis.comparisons import compare
from analysis.records import read_sweep

HERE = Path(__file__).resolve().parent
PARTS = ("all", "lower", "upper")
PAIRS = {"c-n": "m(c, n)", "n-co": "m(n, co)"}


def main() -> None:
    sweep = read_sweep(str(HERE))
    trials = {row["trial_id"]: row for row in sweep.trials.to_pylist()}
    settings: dict[str, list[str]] = defaultdict(list)
    for trial_id, row in sorted(trials.items(), key=lambda item: (item[1]["modulation"] or 0, item[1]["seed"])):
        settings["plain L2" if row["method"] == "baseline" else f"c = {row['modulation']:g}"].append(trial_id)
    values = {
        (row["trial_id"], row["metric"], row["component"], row["epoch"]): row for row in sweep.measurements.to_pylist()
    }
    epochs = next(iter(trials.values()))["epochs"]

    print("Test error in % (loco-5)")
    plain = [100 * (1 - trials[trial]["top1"]) for trial in settings["plain L2"]]
    rows = []
    for name, ids in settings.items():
        errors = [100 * (1 - trials[trial]["top1"]) for trial in ids]
        row = [name, str(len(errors)), f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}", "", ""]
        if name != "plain L2":
            test = compare(errors, plain, paired=True)
            difference = np.subtract(errors, plain)
            row[3:] = f"{difference.mean():+.2f} ± {difference.std(ddof=1):.2f}", f"{test.p_value:.2f}"
        rows.append(tuple(row))
    print_table(("setting", "seeds", "error", "difference to plain L2", "p (paired t)"), rows)

    print(
        "\nLocality (loco-4): mean over seeds; t-test over seeds of mean > 0 (the paper's is over one network's slices)"
    )
    rows = []
    for moment, epoch in (("initialisation", 0), ("trained", epochs)):
        for name, ids in settings.items():
            if moment == "initialisation" and name != "plain L2":
                continue  # a seed's weights are the same
            cells = []
            for pair in PAIRS:
                for part in PARTS:
                    found = [values[trial, "locality", f"{pair}/{part}", epoch]["value"] for trial in ids]
                    p = stats.ttest_1samp(found, 0, alternative="greater").pvalue
                    stars = "***" if p < 0.001 else "**" if p < 0.01 else "*" if p < 0.1 else ""
                    cells.append(f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}{stars}")
            rows.append((f"{name}, {moment}", *cells))
    print_table(("setting", *(f"{title}: {part}" for title in PAIRS.values() for part in PARTS)), rows)

    print("\nRatios of a layer's mean weights after training with plain L2: mean over seeds (least to greatest)")
    layers = [
        component.removeprefix("n-c/")
        for trial, metric, component, epoch in values
        if (trial, metric, epoch) == (settings["plain L2"][0], "weight_ratio", 0) and component.startswith("n-c/")
    ]
    rows = []
    for layer in layers:
        cells = []
        for metric in ("weight_ratio", "weight_ratio_absolute"):
            for pair in ("n-c", "co-n"):
                found = [values[trial, metric, f"{pair}/{layer}", epochs]["value"] for trial in settings["plain L2"]]
                cells.append(f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})")
        rows.append((layer, *cells))
    columns = [f"{kind} r({a}, {b})" for kind in ("signed", "absolute") for a, b in (("n", "c"), ("co", "n"))]
    print_table(("layer", *columns), rows)


if __name__ == "__main__":
    run(main)
