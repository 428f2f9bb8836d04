"""Draws this page's figures and prints its tables from the records beside it.

python analysis/reproductions/gradreg-mnist/figures.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from analysis.command_line import run
from analysis.correlations import spearman_permutation
from analysis.figures import MetricPanel, StrengthGroup, metric_figure, saliency_figure, save, strength_figure
from analysis.records import read_sweep
from analysis.tipping_points import fit_tipping_point, paper_threshold

HERE = Path(__file__).resolve().parent
LIMITS = {"the paper's limit, 1e5": 1e5, "limit 1e3": 1e3}
"""The paper's rule: the reference level is the mean accuracy below the limit, the threshold is sought from it on. With
the batch size here accuracy tips over before 1e5; the second limit lies where it is still flat, and the figures use it.
"""
EXPLAINERS = {"gradient": "input gradient", "deeplift": "DeepLIFT"}
METRICS = ("faithfulness", "local_lipschitz", "max_sensitivity", "entropy")


@dataclass(frozen=True)
class Series:
    """A metric of one explainer by strength, and of the baseline."""

    strength: np.ndarray
    value: np.ndarray
    error: np.ndarray
    baseline: list[float]


def main() -> None:
    sweep = read_sweep(str(HERE))
    trials = {row["trial_id"]: row for row in sweep.trials.to_pylist()}
    swept = sorted((row for row in trials.values() if row["method"] != "baseline"), key=lambda row: row["alpha"])
    baseline = [row["top1"] for row in trials.values() if row["method"] == "baseline"]
    alphas, accuracies = [row["alpha"] for row in swept], [row["top1"] for row in swept]
    thresholds = {name: paper_threshold(alphas, accuracies, reference_below=limit) for name, limit in LIMITS.items()}
    threshold = thresholds["limit 1e3"]

    print("| α | Top-1 | status |\n|---|---|---|")
    print(f"| none | {baseline[0]:.4f} | {next(row['status'] for row in trials.values() if row['alpha'] is None)} |")
    for row in swept:
        print(f"| {row['alpha']:.3g} | {row['top1']:.4f} | {row['status']} |")
    for name, rule in thresholds.items():
        kept = sum(alpha <= rule.strength for alpha in alphas)
        print(
            f"\n{name}: threshold {rule.strength:.3g}, reference level {rule.reference:.4f} "
            f"(n = {rule.n_reference}), {kept} models up to it, {len(alphas) - kept} excluded"
        )
    fit = fit_tipping_point(alphas, accuracies, [row["seed"] for row in swept], rng=np.random.default_rng(0))
    interval = f"t80 = 10^{fit.log10_strength:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
    print(f"\nfitted: {fit.status}, {interval}, p = {fit.p_value:.2g}, plateau {fit.plateau:.4f}\n")

    data = {(metric, name): series(sweep, trials, metric, name) for metric in METRICS for name in EXPLAINERS}
    print("| metric | of | limit | first | last | Spearman ρ (p) | Pearson r of log₁₀ α (p) | n |")
    print("|---|---|---|---|---|---|---|---|")
    captions = {}
    for (metric, name), found in data.items():
        for label, rule in thresholds.items():
            inside = np.asarray(found.strength <= rule.strength)
            x, y, error = np.log10(found.strength[inside]), found.value[inside], found.error[inside]
            rho, p = spearman_permutation(x, y, rng=np.random.default_rng(0))
            pearson = stats.pearsonr(x, y)
            captions[metric, name] = f"ρ = {rho:.2f} (p = {p:.2g}), r = {pearson.statistic:.2f}"
            ends = f"{y[0]:.3g} ± {error[0]:.2g} | {y[-1]:.3g} ± {error[-1]:.2g}"
            tests = f"{rho:.2f} ({p:.2g}) | {pearson.statistic:.2f} ({pearson.pvalue:.2g}) | {inside.sum()}"
            print(f"| {metric} | {EXPLAINERS[name]} | {label} | {ends} | {tests} |")
    print()

    def panel(metric: str, name: str) -> MetricPanel:
        found = data[metric, name]
        title = f"{EXPLAINERS[name]}: {captions[metric, name]}"
        return MetricPanel(
            title,
            metric,
            found.strength.tolist(),
            found.value.tolist(),
            found.error.tolist(),
            threshold.strength,
            found.baseline,
        )

    level = threshold.share * threshold.reference
    accuracy = StrengthGroup(
        "LeNet-5 on MNIST",
        alphas,
        accuracies,
        [row["status"] == "diverged" for row in swept],
        level,
        threshold.strength,
        baseline,
    )
    panels = {
        "gradreg-2": [panel("faithfulness", name) for name in EXPLAINERS],
        "gradreg-3": [panel(metric, name) for metric in ("local_lipschitz", "max_sensitivity") for name in EXPLAINERS],
        "gradreg-4": [panel("entropy", name) for name in EXPLAINERS],
    }
    figures = {
        "gradreg-1": strength_figure([accuracy]),
        **{stem: metric_figure(shown, excluded="beyond the threshold") for stem, shown in panels.items()},
        "gradreg-b": panels_along(sweep, trials, choice(alphas, threshold.strength), ""),
    }
    for stem, figure in figures.items():
        for path in save(figure, str(HERE / "analysis" / stem), sweep):
            print(path)
    other = read_sweep(str(HERE / "grey-cifar"))
    rows = {row["trial_id"]: row for row in other.trials.to_pylist()}
    strengths = sorted(row["alpha"] for row in rows.values() if row["alpha"] is not None)
    figure = panels_along(other, rows, [None, *strengths], " on mnist")
    for path in save(figure, str(HERE / "analysis" / "gradreg-b-other"), other):
        print(path)


def series(sweep: Any, trials: dict[str, Any], metric: str, name: str) -> Series:
    """Values by rising strength with the half-widths of their 95% intervals over images (t)."""
    rows = [row for row in sweep.measurements.to_pylist() if (row["metric"], row["component"]) == (metric, name)]
    baseline = [row["value"] for row in rows if trials[row["trial_id"]]["method"] == "baseline"]
    rows = [row for row in rows if trials[row["trial_id"]]["method"] != "baseline" and row["value"] is not None]
    rows.sort(key=lambda row: trials[row["trial_id"]]["alpha"])
    n = np.array([row["n"] for row in rows])
    error = stats.t.ppf(0.975, n - 1) * np.array([row["std"] for row in rows]) / np.sqrt(n)
    strengths = np.array([trials[row["trial_id"]]["alpha"] for row in rows])
    return Series(strengths, np.array([row["value"] for row in rows]), error, baseline)


def choice(alphas: Sequence[float], threshold: float) -> list[float | None]:
    """No α, and some spread over the sweep, the threshold among them."""
    spread = [alphas[0], *[alphas[round(i * (len(alphas) - 1) / 5)] for i in range(1, 6)], threshold]
    return [None, *sorted(set(spread))]


def panels_along(sweep: Any, trials: dict[str, Any], strengths: Sequence[float | None], where: str) -> Any:
    """Images, and for each explainer a row per strength, saliency maps of the first images."""
    maps = {
        (trials[row["trial_id"]]["alpha"], row["name"].removesuffix(where)): np.reshape(
            row["values"], (row["height"], row["width"])
        )
        for row in sweep.maps.to_pylist()
        if row["name"].endswith(where)
    }
    images = sorted({name for _, name in maps if name.startswith("image/")})[:3]
    indices = [name.split("/")[1] for name in images]
    first = strengths[0]
    rows = [("image", [maps[first, name] for name in images] * len(EXPLAINERS))]
    for alpha in strengths:
        label = "no α" if alpha is None else f"α = {alpha:.3g}"
        rows.append((label, [maps[alpha, f"saliency/{name}/{index}"] for name in EXPLAINERS for index in indices]))
    titles = [EXPLAINERS[name] if i == 0 else "" for name in EXPLAINERS for i in range(len(indices))]
    return saliency_figure(rows, titles)


if __name__ == "__main__":
    run(main)
