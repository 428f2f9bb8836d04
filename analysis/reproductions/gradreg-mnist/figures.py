"""Draws this page's figures from the records beside it.

python analysis/reproductions/gradreg-mnist/figures.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.command_line import run
from analysis.figures import MetricPanel, StrengthGroup, metric_figure, saliency_figure, save, strength_figure
from analysis.reproductions.pages import Record, code_of, read
from analysis.symbols import number

HERE = Path(__file__).resolve().parent
page = code_of("gradreg-mnist")
PANELS = {
    "gradreg-2": ("faithfulness",),
    "gradreg-3": ("local_lipschitz", "max_sensitivity"),
    "gradreg-4": ("entropy",),
}


def main() -> None:
    record = read("gradreg-mnist")
    alphas, top1 = page.accuracies(record)
    threshold = page.thresholds(record)[page.OURS]
    data = {(metric, name): page.series(record, metric, name) for metric in page.METRICS for name in page.EXPLAINERS}

    def panel(metric: str, name: str) -> MetricPanel:
        found = data[metric, name]
        test = page.judged(found, threshold.strength)
        return MetricPanel(
            f"{page.EXPLAINERS[name]}: ρ = {test.rho.rho:.2f} (p = {test.rho.p_value:.2g}), r = {test.r:.2f}",
            metric,
            found.strength.tolist(),
            found.value.tolist(),
            found.error.tolist(),
            threshold.strength,
            [found.baseline],
        )

    status = {row["alpha"]: row["status"] for row in record.trials.values()}
    accuracy = StrengthGroup(
        "LeNet-5 on MNIST",
        alphas,
        top1,
        [status[alpha] == "diverged" for alpha in alphas],
        threshold.share * threshold.reference,
        threshold.strength,
        [row["top1"] for row in record.trials.values() if row["method"] == "baseline"],
    )
    figures = {
        "gradreg-1": strength_figure([accuracy]),
        **{
            stem: metric_figure(
                [panel(metric, name) for metric in metrics for name in page.EXPLAINERS], excluded="beyond the threshold"
            )
            for stem, metrics in PANELS.items()
        },
        "gradreg-b": panels_along(record, page.choice(alphas, threshold.strength), ""),
    }
    for stem, figure in figures.items():
        for path in save(figure, str(HERE / "analysis" / stem), record.sweep):
            print(path)
    other = read("gradreg-mnist/grey-cifar")
    strengths = sorted(row["alpha"] for row in other.trials.values() if row["alpha"] is not None)
    figure = panels_along(other, [None, *strengths], " on mnist")
    for path in save(figure, str(HERE / "analysis" / "gradreg-b-other"), other.sweep):
        print(path)


def panels_along(record: Record, strengths: Sequence[float | None], where: str) -> Any:
    """Images, and for each explainer a row per strength, saliency maps of the first images."""
    maps = {
        (record.trials[row["trial_id"]]["alpha"], row["name"].removesuffix(where)): np.reshape(
            row["values"], (row["height"], row["width"])
        )
        for row in record.sweep.maps.to_pylist()
        if row["name"].endswith(where)
    }
    images = sorted({name for _, name in maps if name.startswith("image/")})[:3]
    indices = [name.split("/")[1] for name in images]
    first = strengths[0]
    rows = [("image", [maps[first, name] for name in images] * len(page.EXPLAINERS))]
    for alpha in strengths:
        label = "no α" if alpha is None else f"α = {number(alpha, 3)}"
        rows.append((label, [maps[alpha, f"saliency/{name}/{index}"] for name in page.EXPLAINERS for index in indices]))
    titles = [page.EXPLAINERS[name] if i == 0 else "" for name in page.EXPLAINERS for i in range(len(indices))]
    return saliency_figure(rows, titles)


if __name__ == "__main__":
    run(main)
