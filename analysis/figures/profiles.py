"""Performance profiles, and probabilities of improvement beside them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from analysis.figures.style import _GREY, NARROW, STYLE, Direction, _handle, _legend, _look, _wrapped, axis_name

MOST_PROFILES = 6


@dataclass(frozen=True)
class ProfileCurve:
    """A setting's profile: the share of its n runs beyond each of `tau`, with its band; and how probable it is that one
    of them is better than one of the reference, with an interval, nan for the reference itself."""

    label: str
    tau: ArrayLike
    share: ArrayLike
    low: ArrayLike
    high: ArrayLike
    n: int
    probability: float = math.nan
    probability_low: float = math.nan
    probability_high: float = math.nan


def profile_figure(
    curves: Sequence[ProfileCurve], *, metric: str, direction: Direction, reference: str, narrow: bool = False
) -> Figure:
    """Performance profiles with pointwise 95% bands, and the probability of improvement over the `reference` with its
    interval (Agarwal et al. 2021). `narrow` is as wide as a telephone.

    Raises `ValueError` for no curve, or more than six.
    """
    if not 0 < len(curves) <= MOST_PROFILES:
        raise ValueError(f"curves: {len(curves)}, allowed are 1 to {MOST_PROFILES}")
    beside = [(index, curve) for index, curve in enumerate(curves) if not math.isnan(curve.probability)]
    with mpl.rc_context(STYLE):
        height = 2.9
        if not beside:
            figure = Figure(figsize=(NARROW if narrow else 5.2, height), layout="constrained")
            left = figure.add_subplot()
        elif narrow:
            figure = Figure(figsize=(NARROW, height + 0.7 + 0.3 * len(beside)), layout="constrained")
            left, right = figure.subplots(2, 1, height_ratios=[height, 0.7 + 0.3 * len(beside)])
        else:
            figure = Figure(figsize=(7.6, height), layout="constrained")
            left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        handles = []
        # runs that have a score are not beyond it
        step: Literal["post", "pre"] = "post" if direction == "max" else "pre"
        for index, curve in enumerate(curves):
            colour, _, line = _look(index)
            left.fill_between(curve.tau, curve.low, curve.high, step=step, color=colour, alpha=0.16, linewidth=0)
            left.plot(curve.tau, curve.share, drawstyle=f"steps-{step}", color=colour, linestyle=line)
            label = f"{_wrapped(curve.label, 30 if narrow else 46)} (n = {curve.n})"
            handles.append(_handle(index, label, marker="" if math.isnan(curve.probability) else _look(index)[1]))
        name = axis_name(metric)
        way = "above" if direction == "max" else "below"
        left.set(xlabel=f"τ, {name}", ylabel=f"share of runs {way} τ", ylim=(-0.02, 1.02))
        left.set_xlim(_where_they_fall(curves, step))
        if beside:
            _draw_probabilities(right, beside, reference)
        _legend(figure, handles, "outside upper center", "share of runs and its 95% bootstrap band")
    return figure


def _draw_probabilities(axes: Axes, beside: Sequence[tuple[int, ProfileCurve]], reference: str) -> None:
    axes.axvline(0.5, color=_GREY, linewidth=1.0, linestyle=":")
    for place, (index, curve) in enumerate(beside):
        colour, marker, _ = _look(index)
        axes.plot([curve.probability_low, curve.probability_high], [place, place], color=colour, linewidth=1.2)
        axes.plot([curve.probability], [place], marker, color=colour)
    axes.set_ylim(len(beside) - 0.5, -0.5)
    axes.set(xlim=(-0.03, 1.03), yticks=[])
    axes.set_xlabel(textwrap.fill(f"P(better than {reference}), 95% bootstrap interval", 34))


def _where_they_fall(curves: Sequence[ProfileCurve], step: Literal["post", "pre"]) -> tuple[float, float]:
    """Limits of τ: where one of the profiles is neither 0 nor 1, and a little around it."""
    steps: list[float] = []
    for curve in curves:
        levels = np.asarray(curve.tau, dtype=float)
        after = np.flatnonzero(np.diff(np.asarray(curve.share, dtype=float)))
        steps += levels[after + (step == "post")].tolist()
    every = steps or [float(level) for curve in curves for level in np.asarray(curve.tau, dtype=float)]
    margin = 0.05 * (max(every) - min(every)) or 0.01
    return min(every) - margin, max(every) + margin
