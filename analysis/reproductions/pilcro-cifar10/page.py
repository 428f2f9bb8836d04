"""What `page.md` says, from the record beside it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from analysis.paper.printed import claims
from analysis.reproductions.pages import Record, mean_sd, number, table
from analysis.tipping_points import Curve, tipping_points

CHANCE = 0.1
COLUMNS = {"Top-1": "top1", "Top-5": "top5", "loss": "loss", "TV": "total_variation"}


def label(trial: dict[str, Any]) -> str:
    if trial["method"] == "baseline":
        return "baseline"
    kind = "¶c" if trial["variant"] == "curvature" else f"¶t {trial['reduction']}"
    return f"{kind} α={trial['alpha']:g}"


def numbers(record: Record) -> dict[str, Any]:
    settings: dict[str, list[str]] = defaultdict(list)
    for row in sorted(
        record.trials.values(), key=lambda t: (t["method"], t["variant"] or "", t["reduction"] or "", t["alpha"] or 0)
    ):
        settings[label(row)].append(row["trial_id"])
    mean = {
        title: {
            name: float(np.mean(list(known)))
            for name, ids in settings.items()
            if (known := record.column(column, ids).values())
        }
        for title, column in COLUMNS.items()
    }
    top1, tv = mean["Top-1"], mean["TV"]
    curvature, target, summed = (
        [f"{kind} α={alpha}" for alpha in (1, 10, 100)] for kind in ("¶c", "¶t mean", "¶t sum")
    )
    paths = record.measured["path_importance_correlation", "", 0]
    by_seed = record.values("path_importance_correlation", ids=record.ids(method="baseline"), epoch=0)
    (initialisations,) = {row["n"] for row in paths.values()}
    curves = {curve.group.label(): curve for curve in tipping_points(record.sweep).curves}
    return {
        "table": table(
            ["setting", *COLUMNS],
            [[name, *(cell(record, column, ids) for column in COLUMNS.values())] for name, ids in settings.items()],
        ),
        "seeds": sorted({row["seed"] for row in record.trials.values()}),
        "completed": {row["status"] for row in record.trials.values()} == {"completed"},
        "top1": top1,
        "tv": tv,
        "settings": settings,
        "lower_tv": all(tv[name] < tv["baseline"] for name in (*curvature[:2], *target[:2])),
        "target_is_flatter": all(tv[t] < tv[c] for t, c in zip(target[:2], curvature[:2], strict=True)),
        "not_at_100": tv[target[2]] > tv[curvature[2]] and abs(top1[target[2]] - CHANCE) < 0.02,
        "sum_at_chance": all(abs(top1[name] - CHANCE) < 0.02 for name in summed),
        "no_trend": np.ptp([tv[name] for name in curvature]) < min(sd(record, name, settings) for name in curvature),
        "order_of_target": falling(top1, "baseline", *target),
        "order_of_curvature": falling(top1, "baseline", *curvature),
        "best": max(top1, key=top1.__getitem__),
        "points": {name: 100 * (top1["baseline"] - value) for name, value in top1.items()},
        "baseline_tv_sd": float(np.std(list(record.column("total_variation", settings["baseline"]).values()), ddof=1)),
        "learned": [name for name, value in top1.items() if value > 2 * CHANCE],
        "mean_curve": told(curves["target, mean"]),
        "sum_curve": told(curves["target, sum"]),
        "curvature_curve": told(curves["curvature"]),
        "paths": by_seed,
        "initialisations": initialisations,
        "landscape_images": next(row["n"] for row in record.measured["total_variation", "", 0].values()),
        "best_of_paper": papers_order(),
        "training": record.total("train_seconds"),
        "measuring": record.total("measure_seconds"),
    }


def cell(record: Record, column: str, ids: list[str]) -> str:
    """Mean ± standard deviation over seeds; of one seed alone, its value."""
    known = list(record.column(column, ids).values())
    if len(known) == 1:
        return f"one seed only: {number(known[0], '.4f')}"
    return mean_sd(known, ".4f")


def sd(record: Record, name: str, settings: dict[str, list[str]]) -> float:
    return float(np.std(list(record.column("total_variation", settings[name]).values()), ddof=1))


def falling(values: dict[str, float], *names: str) -> bool:
    found = [values[name] for name in names]
    return found == sorted(found, reverse=True)


def told(curve: Curve) -> dict[str, Any]:
    assert curve.fit is not None
    assert curve.rule is not None
    fit, rule = curve.fit, curve.rule
    return {
        "status": fit.status,
        "p": fit.p_value,
        "at": 10**fit.log10_strength,
        "low": 10**fit.low,
        "high": 10**fit.high,
        "rule": rule.strength,
        "reference": rule.reference,
    }


def papers_order() -> dict[str, bool]:
    """What the page says of the paper's Table 1 with random crops."""
    value = {
        (claim.row, claim.column): claim.value
        for claim in claims()
        if claim.table == "pilcro-1" and claim.column.startswith("RC+")
    }
    top1 = {row: number for (row, column), number in value.items() if column == "RC+ | Top-1"}
    tv = {row: number for (row, column), number in value.items() if column == "RC+ | TV"}
    return {
        "lower_tv": all(tv[row] < tv["SOTA"] for row in tv if row != "SOTA"),
        "target_is_flatter": all(tv[f"¶t | α={a}"] < tv[f"¶c | α={a}"] for a in (1, 10, 100)),
        "target_falls": tv["¶t | α=10"] < tv["¶t | α=1"],
        "curvature_rises": tv["¶c | α=1"] < tv["¶c | α=10"] < tv["¶c | α=100"],
        "best": max(top1["¶t | α=10"], top1["¶c | α=1"]) == max(top1.values()) > top1["SOTA"],
        "target": falling(top1, "¶t | α=10", "¶t | α=100", "¶t | α=1", "SOTA"),
        "curvature": falling(top1, "¶c | α=1", "SOTA", "¶c | α=100", "¶c | α=10"),
    }
