"""Print the page's tables: `python analysis/reproductions/deform-init/figures.py [SWEEP]`."""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from analysis.comparisons import compare
from analysis.multiplicity import adjust
from analysis.records import read_sweep

DOWNSAMPLING = ("subsample", "max-pool", "average-pool", "strided", "strided-relu")


def shown(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main() -> None:
    sweep = read_sweep(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
    trials = {row["trial_id"]: row for row in sweep.trials.to_pylist()}
    values: dict[tuple[str, str, float, str], dict[int, float]] = defaultdict(dict)
    for row in sweep.measurements.to_pylist():
        if row["epoch"] == 0 and row["component"]:
            trial = trials[row["trial_id"]]
            key = row["metric"], trial["downsampling"], trial["sigma"], row["component"]
            values[key][trial["seed"]] = row["value"]
    sigmas = sorted({trial["sigma"] for trial in trials.values()})
    layers = [key[3] for key in values if key[:3] == ("deformation_sensitivity", "max-pool", 0.0)]

    for layer in ("conv1_2", "down1", "conv4_2", "down4"):
        print(f"\nsensitivity of {layer}, mean ± standard deviation over seeds\n")
        print("| downsampling | " + " | ".join(f"σ = {sigma:g}" for sigma in sigmas) + " |")
        print("|---" * (len(sigmas) + 1) + "|")
        for kind in DOWNSAMPLING:
            found = [list(values["deformation_sensitivity", kind, sigma, layer].values()) for sigma in sigmas]
            print(f"| {kind} | " + " | ".join(map(shown, found)) + " |")

    print("\nlayers in which the mean falls from each σ to the next, of", len(layers) - 1)
    for kind in DOWNSAMPLING:
        means = np.array(
            [
                [np.mean(list(values["deformation_sensitivity", kind, sigma, layer].values())) for layer in layers[1:]]
                for sigma in sigmas
            ]
        )
        print(f"  {kind}: {[int(falls.sum()) for falls in np.diff(means, axis=0) < 0]}")

    print("\nthe last layer at σ = 0, each pair of downsampling layers: t-test over paired seeds, Holm")
    pairs = list(itertools.combinations(DOWNSAMPLING, 2))
    tests = []
    for pair in pairs:
        one, other = (values["deformation_sensitivity", kind, 0.0, "down4"] for kind in pair)
        seeds = sorted(one)
        tests.append(compare([one[s] for s in seeds], [other[s] for s in seeds], paired=True))
    for pair, test, p_value in zip(pairs, tests, adjust([test.p_value for test in tests]), strict=True):
        print(f"  {' − '.join(pair)}: {test.difference:+.3f}, p = {p_value:.2g}")

    print("\nsmoothness, max-pool, by layer: mean over seeds")
    names = [key[3] for key in values if key[:3] == ("filter_total_variation", "max-pool", 0.0)]
    print("| layer | " + " | ".join(f"σ = {sigma:g}" for sigma in sigmas) + " | standard deviation at σ = 0 |")
    print("|---" * (len(sigmas) + 2) + "|")
    for name in names:
        found = [list(values["filter_total_variation", "max-pool", sigma, name].values()) for sigma in sigmas]
        cells = " | ".join(f"{np.mean(one):.3f}" for one in found)
        print(f"| {name.removesuffix('.conv')} | {cells} | {np.std(found[0], ddof=1):.4f} |")


if __name__ == "__main__":
    main()
