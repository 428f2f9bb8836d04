"""What `page.md` says, from the record beside it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from analysis.correlations import correlations
from analysis.paper.printed import claims
from analysis.reproductions.pages import Record, mean_sd, table

ATTACKS = {
    "FGSM": "fgsm",
    "PGD-20": "pgd20",
    "PGD-50": "pgd50",
    "Square": "square",
    "APGD-20": "apgd20",
    "APGD-50": "apgd50",
}
STAYS, RIGHT = "robust_accuracy", "robust_accuracy_correct"
MAPS = {
    "ERF centre": ("erf", "centre"),
    "ERF corner": ("erf", "corner"),
    "ERF distance": ("erf_distance", ""),
    "CAM ‖X‖₁": ("cam_sparsity", ""),
}
Setting = tuple[int, float, int]
"""The pyramid (0, 1; −1: baseline), λ and k."""
BASELINE: Setting = (-1, 0.0, 0)


def name(setting: Setting) -> str:
    pyramid, sparsity, pixels = setting
    if setting == BASELINE:
        return "baseline"
    whole = " (all)" if pixels == (256 if pyramid else 16) else ""
    return f"{'pyramid' if pyramid else 'last map'}, λ = {sparsity:g}, k = {pixels}{whole}"


def numbers(record: Record) -> dict[str, Any]:
    settings: dict[Setting, list[str]] = defaultdict(list)
    for trial in record.ids():
        row = record.trials[trial]
        plain = row["method"] == "baseline"
        settings[BASELINE if plain else (int(row["fpn"]), row["sparsity"], row["pixels"])].append(trial)
    settings = dict(sorted(settings.items()))
    options = [json.loads(row["measured"])["attacks"] for row in record.trials.values()]
    fewer, images = sorted({chosen["images"] for chosen in options})
    # the others were attacked with FGSM alone, on fewer images: nothing of theirs belongs into these tables
    measured = {
        key: [trial for trial in ids if json.loads(record.trials[trial]["measured"])["attacks"]["images"] == images]
        for key, ids in settings.items()
    }
    (queries,) = {chosen["queries"] for chosen in options if chosen["images"] == images}
    (step,) = {chosen["step_size"] for chosen in options}

    def mean(metric: str, component: str, key: Setting) -> float:
        return float(np.mean(list(record.values(metric, component, ids=measured[key]).values())))

    top1 = {key: float(np.mean(list(record.column("top1", ids).values()))) for key, ids in settings.items()}
    swept = [key for key in settings if key[:2] == (1, 1.0)]
    fgsm = {key: mean(STAYS, "fgsm", key) for key in settings}
    distance = {key: mean("erf_distance", "", key) for key in settings}

    def trend(metric: str) -> Any:
        """Of the pyramid's networks with λ = 1: Spearman's ρ of FGSM with k."""
        pairs = [(k, v) for k in swept for v in record.values(metric, "fgsm", ids=measured[k]).values()]
        return stats.spearmanr([key[2] for key, _ in pairs], [value for _, value in pairs])

    fill = correlations(record.sweep, strength="pixels", metrics=["cam_sparsity"])
    ((filled, filled_p),) = (
        (test, p)
        for test, p in zip(fill.tests, fill.adjusted, strict=True)
        if test.group.trials[0]["fpn"] and test.group.trials[0]["sparsity"] == 1
    )
    return {
        "name": name,
        "swept": swept,
        "baseline": BASELINE,
        "images": images,
        "fewer": fewer,
        "queries": queries,
        "step_share": 1 / float(step.removeprefix("eps/")),
        "epsilon": record.one("epsilon") if "epsilon" in record.sweep.trials.column_names else options[0]["epsilon"][0],
        "without": [trial for key, ids in settings.items() for trial in ids if trial not in measured[key]],
        "complete": sum(len(ids) for ids in measured.values()),
        "seeds": {key: len(ids) for key, ids in settings.items()},
        "stays": robustness(record, settings, measured, STAYS, list(settings)),
        "right": robustness(record, settings, measured, RIGHT, [BASELINE, *swept]),
        "maps": table(
            ["setting", "n", *MAPS],
            [
                [
                    name(key),
                    str(len(measured[key])),
                    *(mean_sd(record.values(*what, ids=measured[key]).values()) for what in MAPS.values()),
                ]
                for key in settings
            ],
        ),
        "top1": top1,
        "fgsm": [fgsm[key] for key in swept],
        "fgsm_right": [mean(RIGHT, "fgsm", key) for key in swept],
        "accuracy": [top1[key] for key in swept],
        "pgd20": [mean(STAYS, "pgd20", key) for key in swept],
        "pgd50": [mean(STAYS, "pgd50", key) for key in swept],
        "apgd": [mean(STAYS, attack, key) for attack in ("apgd20", "apgd50") for key in swept],
        "baseline_pgd20": mean(STAYS, "pgd20", BASELINE),
        "trend": trend(STAYS),
        "trend_right": trend(RIGHT),
        "sparse_fgsm": [fgsm[key] for key in settings if key[1] == 1 and key[2] != 2],
        "dense_fgsm": [fgsm[key] for key in settings if key[1] == 0],
        "small": fgsm[0, 1.0, 2],
        "small_dense": fgsm[0, 0.0, 2],
        "small_n": len(measured[0, 1.0, 2]),
        "best": max(top1, key=top1.__getitem__),
        "best_sparse": max(value for key, value in top1.items() if key[1] == 1),
        "papers_worst": papers_worst(),
        "fills": [mean("cam_sparsity", "", key) for key in swept],
        "filled": filled,
        "filled_p": float(filled_p),
        "panels": sum(not test.reason for test in fill.tests),
        "not_above": [key[2] for key in swept if distance[key] < distance[BASELINE]],
        "distance": [distance[key] for key in swept],
        "smallest_spread": float(np.std(list(record.values("erf_distance", ids=measured[swept[0]]).values()), ddof=1)),
        "papers_queries": papers_queries(),
        "baseline_distance": distance[BASELINE],
    }


def robustness(
    record: Record,
    settings: dict[Setting, list[str]],
    measured: dict[Setting, list[str]],
    metric: str,
    order: Sequence[Setting],
) -> str:
    rows = []
    for key in order:
        cells = [mean_sd(record.values(metric, attack, ids=measured[key]).values()) for attack in ATTACKS.values()]
        clean = mean_sd(record.column("top1", settings[key]).values())
        rows.append([name(key), f"{len(measured[key])} of {len(settings[key])}", clean, *cells])
    return table(["setting", "n", "Top-1", *ATTACKS], rows)


def papers_queries() -> int:
    """Of Square, in the component with which the paper's number is compared."""
    (claim,) = (claim for claim in claims() if claim.table == "topgap-4" and claim.column == "Square Attack")
    found = re.search(r"square(\d+)", claim.quantity)
    assert found is not None
    return int(found[1])


def papers_worst() -> bool:
    """Of the paper's ablation, whether the pyramid with Top-GAP and without ℓ1 has the lowest accuracy."""
    found = {claim.row: claim.value for claim in claims() if (claim.table, claim.column) == ("topgap-7", "Acc_COCO ↑")}
    return min(found, key=found.__getitem__) == "FPN ✓ | ℓ1 loss × | Top-GAP ✓"
