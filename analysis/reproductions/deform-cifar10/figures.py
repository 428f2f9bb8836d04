"""Print the page's tables: `python analysis/reproductions/deform-cifar10/figures.py [SWEEP]`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from analysis.comparisons import Comparison, compare
from analysis.multiplicity import adjust
from analysis.records import read_sweep

Setting = tuple[str, str]
"""The downsampling layer and the labels."""
BySeed = dict[int, float]
POOLED, STRIDED = "max-pool", "strided-relu"
MEAN = "mean over layers"


def shown(values: Iterable[float]) -> str:
    found = list(values)
    return f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}"


def tested(pairs: dict[str, tuple[BySeed, BySeed]]) -> dict[str, tuple[Comparison, float]]:
    """The second less the first of each pair of values by seed: t-test of the seeds that both have, p after Holm."""
    tests = {}
    for name, (first, second) in pairs.items():
        seeds = sorted(first.keys() & second.keys())
        tests[name] = compare([second[seed] for seed in seeds], [first[seed] for seed in seeds], paired=True)
    adjusted = adjust([test.p_value for test in tests.values()])
    return {name: (test, float(p)) for (name, test), p in zip(tests.items(), adjusted, strict=True)}


def told(tests: dict[str, tuple[Comparison, float]]) -> str:
    return "; ".join(
        f"{name.removesuffix('.conv')} {test.difference:+.3f} (p = {p:.2g})" for name, (test, p) in tests.items()
    )


def main() -> None:
    sweep = read_sweep(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
    trials = {row["trial_id"]: row for row in sweep.trials.to_pylist()}
    setting = {trial: (row["downsampling"], row["labels"]) for trial, row in trials.items()}
    settings = sorted(set(setting.values()), key=lambda one: (one[1] != "real", one[0]))
    last = max(row["epochs"] for row in trials.values())
    values: dict[tuple[str, Setting, str, int], BySeed] = defaultdict(dict)
    epochs: set[int] = set()
    for row in sweep.measurements.to_pylist():
        trial = trials[row["trial_id"]]
        key = row["metric"], setting[row["trial_id"]], row["component"] or MEAN, row["epoch"]
        values[key][trial["seed"]] = row["value"]
        epochs.add(row["epoch"])

    print("| network, labels | training Top-1 | test Top-1 | n |\n|---|---|---|---|")
    for one in settings:
        ids = [trial for trial, own in setting.items() if own == one]
        rows = [row for row in sweep.epochs.to_pylist() if row["trial_id"] in ids and row["epoch"] == last]
        train, test = (
            shown(numbers) for numbers in ([row["train_top1"] for row in rows], [trials[i]["top1"] for i in ids])
        )
        print(f"| {', '.join(one)} | {train} | {test} | {len(ids)} |")

    for metric in ("deformation_sensitivity", "filter_total_variation"):
        layers = list(dict.fromkeys(key[2] for key in values if key[0] == metric))
        inner = [layer for layer in layers if layer not in ("input", MEAN)]
        heads = ["layer", *(f"{kind}: at initialisation" for kind in (POOLED, STRIDED))]
        heads += [f"{', '.join(one)}: trained" for one in settings]
        print(f"\n{metric}\n\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
        for layer in layers:
            cells = [shown(values[metric, (kind, "real"), layer, 0].values()) for kind in (POOLED, STRIDED)]
            cells += [shown(values[metric, one, layer, last].values()) for one in settings]
            print(f"| {layer.removesuffix('.conv')} | " + " | ".join(cells) + " |")

        print("\ntrained less at initialisation (paired seeds, p after Holm over the layers)")
        for one in settings:
            pairs = {
                layer: (values[metric, one, layer, 0], values[metric, one, layer, last]) for layer in [*inner, MEAN]
            }
            print(f"  {', '.join(one)}: {told(tested(pairs))}")

        print("\nstrided-relu less max-pool (the same test), and the mean magnitude of it over layers, by seed")
        for labels, at in (("real", 0), ("real", last), ("random", last)):
            pairs = {
                layer: (values[metric, (POOLED, labels), layer, at], values[metric, (STRIDED, labels), layer, at])
                for layer in inner
            }
            seeds = sorted(set.intersection(*(set(own) for pair in pairs.values() for own in pair)))
            gaps = [float(np.mean([abs(two[seed] - one[seed]) for one, two in pairs.values()])) for seed in seeds]
            print(f"  {labels}, epoch {at}: {shown(gaps)} (n = {len(seeds)}); {told(tested(pairs))}")

        print("\nspread over seeds: mean over layers of the standard deviation")
        for one in settings:
            spread = np.mean([np.std(list(values[metric, one, layer, last].values()), ddof=1) for layer in inner])
            print(f"  {', '.join(one)}: {spread:.4f}")

        print("\nalong the epochs: mean over layers and seeds; the layers whose mean rises and falls by 0.01 in total")
        for one in settings:
            means = {
                layer: [float(np.mean(list(values[metric, one, layer, at].values()))) for at in sorted(epochs)]
                for layer in [*inner, MEAN]
            }
            curve = " ".join(f"{at}:{value:.3f}" for at, value in zip(sorted(epochs), means[MEAN], strict=True))
            steps = {layer: np.diff(means[layer]) for layer in inner}
            both = [layer for layer, own in steps.items() if min(own[own > 0].sum(), -own[own < 0].sum()) > 0.01]
            print(f"  {', '.join(one)}: {curve}; both ways: {', '.join(both) or 'none'}")


if __name__ == "__main__":
    main()
