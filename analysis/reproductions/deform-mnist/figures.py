"""Print the page's tables: `python analysis/reproductions/deform-mnist/figures.py [SWEEP]`."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from analysis.comparisons import compare
from analysis.multiplicity import adjust
from analysis.records import read_sweep


def shown(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main() -> None:
    sweep = read_sweep(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
    trials = {row["trial_id"]: row for row in sweep.trials.to_pylist()}
    strengths = sorted({row["deformation_strength"] for row in trials.values()})
    last = max(row["epochs"] for row in trials.values())
    values: dict[tuple[str, str, int, float], list[float]] = defaultdict(list)
    for row in sweep.measurements.to_pylist():
        at = trials[row["trial_id"]]["deformation_strength"]
        values[row["metric"], row["component"] or "mean over layers", row["epoch"], at].append(row["value"])
    print("test Top-1: " + ", ".join(
        f"C = {c:g}: {shown([row['top1'] for row in trials.values() if row['deformation_strength'] == c])}"
        for c in strengths
    ))  # fmt: skip
    first, second = (
        {
            trials[row["trial_id"]]["seed"]: row["value"]
            for row in sweep.measurements.to_pylist()
            if (row["metric"], row["component"], row["epoch"]) == ("filter_total_variation", "", last)
            and trials[row["trial_id"]]["deformation_strength"] == at
        }
        for at in (strengths[0], strengths[-1])
    )
    test = compare([second[seed] for seed in sorted(first)], [first[seed] for seed in sorted(first)], paired=True)
    print(
        f"mean over layers of filter_total_variation, C = {strengths[-1]:g} less C = {strengths[0]:g}, paired seeds: "
        f"{test.difference:+.4f} [{test.low:.4f}, {test.high:.4f}], p = {test.p_value:.2g}; "
        f"falls in {sum(second[seed] < first[seed] for seed in first)} of {len(first)} seeds"
    )
    for metric in ("filter_total_variation", "deformation_sensitivity"):
        layers = list(dict.fromkeys(key[1] for key in values if key[0] == metric))
        rows, tests = [], []
        for layer in layers:
            found = [values[metric, layer, last, c] for c in strengths]
            start = [value for c in strengths for value in values[metric, layer, 0, c]]
            strength = [c for c, own in zip(strengths, found, strict=True) for _ in own]
            trend = stats.spearmanr(strength, [value for own in found for value in own])
            tests.append(float(trend.pvalue))
            rows.append((layer, np.mean(start), [shown(own) for own in found], float(trend.statistic)))
        adjusted = adjust(tests)
        print(
            f"\n{metric}\n\n| layer | at initialisation | " + " | ".join(f"C = {c:g}" for c in strengths) + " | ρ | p |"
        )
        print("|---" * (len(strengths) + 4) + "|")
        for (layer, at_start, cells, rho), p in zip(rows, adjusted, strict=True):
            print(f"| {layer.removesuffix('.conv')} | {at_start:.3f} | {' | '.join(cells)} | {rho:.2f} | {p:.2g} |")


if __name__ == "__main__":
    main()
