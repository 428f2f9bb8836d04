"""What `page.md` says, from the records beside it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.correlations import Correlation, spearman_permutation
from analysis.multiplicity import adjust
from analysis.reproductions.pages import Record, number, p_text, read, table
from analysis.tipping_points import PaperThreshold, fit_tipping_point, paper_threshold

PAPERS, OURS = "1e5 (paper)", "1e3"
LIMITS = {PAPERS: 1e5, OURS: 1e3}
"""The paper's rule: the reference level is the mean accuracy below the limit, the threshold is sought from it on. With
the batch size here accuracy tips over before 1e5; the second limit lies where it is still flat, and the figures use it.
"""
EXPLAINERS = {"gradient": "input gradient", "deeplift": "DeepLIFT"}
METRICS = {
    "faithfulness": "faithfulness",
    "local_lipschitz": "local Lipschitz",
    "max_sensitivity": "Max-Sensitivity",
    "entropy": "entropy",
}


@dataclass(frozen=True)
class Series:
    """A metric of one explainer by strength, and of the baseline."""

    strength: np.ndarray
    value: np.ndarray
    error: np.ndarray
    """Half-widths of the 95% intervals over images (t)."""
    baseline: float

    def at(self, alpha: float) -> float:
        return float(self.value[np.isclose(self.strength, alpha)].item())

    def where(self, low: float, high: float = math.inf) -> np.ndarray:
        return self.value[(self.strength >= low * (1 - 1e-9)) & (self.strength <= high * (1 + 1e-9))]

    @property
    def largest_at(self) -> float:
        return float(self.strength[self.value.argmax()])


@dataclass(frozen=True)
class Judged:
    """A metric against strength on the models up to a threshold."""

    n: int
    rho: Correlation
    r: float
    r_p: float
    ends: str


def series(record: Record, metric: str, name: str) -> Series:
    rows = record.measured[metric, name, record.last]
    swept = sorted((record.trials[trial]["alpha"], row) for trial, row in rows.items() if record.trials[trial]["alpha"])
    (baseline,) = (row["value"] for trial, row in rows.items() if record.trials[trial]["method"] == "baseline")
    n = np.array([row["n"] for _, row in swept])
    error = stats.t.ppf(0.975, n - 1) * np.array([row["std"] for _, row in swept]) / np.sqrt(n)
    return Series(
        np.array([alpha for alpha, _ in swept]), np.array([row["value"] for _, row in swept]), error, baseline
    )


def judged(found: Series, threshold: float) -> Judged:
    inside = found.strength <= threshold
    x, y, error = np.log10(found.strength[inside]), found.value[inside], found.error[inside]
    line = stats.pearsonr(x, y)
    ends = [f"{number(y[i], '.3g')} ± {error[i]:.2g}" for i in (0, -1)]
    return Judged(
        int(inside.sum()),
        spearman_permutation(x, y, rng=np.random.default_rng(0)),
        float(line.statistic),
        float(line.pvalue),
        " | ".join(ends),
    )


def accuracies(record: Record) -> tuple[list[float], list[float]]:
    """α and Top-1 of the swept trials, by rising α."""
    swept = sorted((row["alpha"], row["top1"]) for row in record.trials.values() if row["method"] != "baseline")
    return [alpha for alpha, _ in swept], [top1 for _, top1 in swept]


def thresholds(record: Record) -> dict[str, PaperThreshold]:
    alphas, top1 = accuracies(record)
    return {name: paper_threshold(alphas, top1, reference_below=limit) for name, limit in LIMITS.items()}


def choice(alphas: list[float], threshold: float) -> list[float | None]:
    """No α, and some spread over the sweep, the threshold among them: those whose maps are drawn."""
    spread = [alphas[0], *[alphas[round(i * (len(alphas) - 1) / 5)] for i in range(1, 6)], threshold]
    return [None, *sorted(set(spread))]


def needed_rho(n: int) -> float:
    """The smallest |ρ| of n models whose exact two-sided p is below .05."""
    ranks = np.arange(n) - (n - 1) / 2
    orders = np.array(list(itertools.permutations(ranks)))
    rho = np.sort(orders @ ranks / (ranks @ ranks))
    return next(float(at) for at in np.unique(rho.round(9)) if at > 0 and 2 * np.mean(rho >= at - 1e-9) < 0.05)


def numbers(record: Record) -> dict[str, Any]:
    alphas, top1 = accuracies(record)
    by_alpha = dict(zip(alphas, top1, strict=True))
    rules = thresholds(record)
    ours, papers = rules[OURS], rules[PAPERS]
    fit = fit_tipping_point(alphas, top1, [0] * len(alphas), rng=np.random.default_rng(0))
    data = {(metric, name): series(record, metric, name) for metric in METRICS for name in EXPLAINERS}
    tests = {(key, limit): judged(found, rule.strength) for key, found in data.items() for limit, rule in rules.items()}
    own = [key for key in tests if key[1] == OURS]
    holm = dict(zip((key[0] for key in own), adjust([tests[key].rho.p_value for key in own]), strict=True))
    rows = []
    for (metric, name), limit in tests:
        test = tests[(metric, name), limit]
        first, last = test.ends.split(" | ")
        rho = f"{number(test.rho.rho, '.2f')} ({p_text(test.rho.p_value)})"
        line = f"{number(test.r, '.2f')} ({p_text(test.r_p)})"
        rows.append([METRICS[metric], EXPLAINERS[name], limit, first, last, rho, line, str(test.n)])
    (baseline,) = (row for row in record.trials.values() if row["method"] == "baseline")
    batch = record.one("batch_size")
    grey = read("gradreg-mnist/grey-cifar")
    grey_top1 = {row["alpha"]: row["top1"] for row in grey.trials.values()}
    saliency = [float(chosen) for chosen in choice(alphas, ours.strength)[1:] if chosen is not None]
    return {
        "grey": grey,
        "grey_top1": [grey_top1[alpha] for alpha in (None, *sorted(alpha for alpha in grey_top1 if alpha))],
        "completed": {row["status"] for row in record.trials.values()} == {"completed"},
        "top1": by_alpha,
        "baseline": baseline["top1"],
        "best": max(by_alpha, key=by_alpha.__getitem__),
        "before": max(alpha for alpha in alphas if alpha < ours.strength),
        "chance_from": next(a for a in alphas if all(by_alpha[later] < 0.12 for later in alphas if later >= a)),
        "chance": (min(value for value in top1 if value < 0.12), max(value for value in top1 if value < 0.12)),
        "ours": ours,
        "papers": papers,
        "limits": LIMITS,
        "tipped": sum(by_alpha[a] < ours.share * ours.reference for a in alphas if a <= papers.strength),
        "fit": fit,
        "alphas": alphas,
        "batch": batch,
        "per_image": ours.strength / batch,
        "needed_batch": LIMITS[PAPERS] / (ours.strength / batch),
        "images": {row["n"] for rows in record.measured.values() for row in rows.values()},
        "table": table(
            ["metric", "of", "limit", "first", "last", "Spearman ρ (p)", "Pearson r of log₁₀ α (p)", "n"], rows
        ),
        "data": data,
        "t": {key: test for (key, limit), test in tests.items() if limit == OURS},
        "counts": {limit: tests[("entropy", "gradient"), limit].n for limit in LIMITS},
        "holm": holm,
        "needed_rho": needed_rho(tests[("entropy", "gradient"), OURS].n),
        "most_entropy": math.log(784),
        "noise_at": saliency[-2],
    }
