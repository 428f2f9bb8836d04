"""How a search for tipping points closed in: its strengths in their order, and the interval after each trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.figures import ClosingPanel, closing_figure
from analysis.groups import Row, numbered
from analysis.symbols import all_named, method_name
from analysis.tipping_fit import fit_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.tipping_points import Curve, TippingPoints

FEWEST = 4
"""Trials that an interval is asked of."""


def closing_of(result: TippingPoints) -> list[ClosingPanel]:
    """The curves of which a search for a tipping point has proposed trials (column `search`), in the order in which
    these began; each with the tipping points that were known when so many had been recorded, the baseline's trials
    known all along."""
    names = all_named([curve.group for curve in result.curves])
    found = []
    for curve, name in zip(result.curves, names, strict=True):
        searched = [row for row in curve.trials if row["search"] == "tipping"]
        if curve.fit is None or not searched or any(row["started_at"] is None for row in curve.trials):
            continue
        found.append(_panel(curve, name or method_name(curve.group.trials[0]["method"]), result))
    return found


def closing_figures(result: TippingPoints) -> dict[str, Figure]:
    """The figure of `closing_of` under what its file's name has more than the tipping points' own; {} for a grid."""
    panels = closing_of(result)
    return {"_search": closing_figure(panels, result.strength, result.stronger)} if panels else {}


def _panel(curve: Curve, name: str, result: TippingPoints) -> ClosingPanel:
    order = sorted(range(len(curve.trials)), key=lambda index: curve.trials[index]["started_at"])
    trials: Sequence[Row] = [curve.trials[index] for index in order]
    scores = [curve.scores[index] for index in order]
    strengths = [float(row[result.strength]) for row in trials]
    numbers = numbered(trials)
    location, low, high = (np.full(len(trials), math.nan) for _ in range(3))
    for known in range(FEWEST, len(trials) + 1):
        if len(set(strengths[:known])) < 2:
            continue
        fit = fit_curve(
            strengths[:known],
            scores[:known],
            numbers[:known],
            share=result.share,
            reference_below=result.reference_below,
            baseline=curve.baseline,
            stronger=result.stronger,
            direction=result.direction,
            rng=np.random.default_rng(0),
        )
        if fit.status == "tipping point":
            location[known - 1], low[known - 1], high[known - 1] = (
                10**value for value in (fit.log10_strength, fit.low, fit.high)
            )
    assert curve.fit is not None
    level = curve.fit.plateau * (result.share if result.direction == "max" else 1 / result.share)
    holds = [score >= level if result.direction == "max" else score <= level for score in scores]
    return ClosingPanel(name, strengths, holds, location, low, high)
