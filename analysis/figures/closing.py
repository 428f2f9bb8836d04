"""A search for a tipping point: where it looked, in its order, and what was known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.style import (
    _COLOURS,
    _GREY,
    STYLE,
    _grid,
    _interval_text,
    _legend,
    _log_ticks,
    _name_axes,
    _panels,
    _wrapped,
    axis_name,
)
from analysis.schema import Stronger
from analysis.schema import stronger as stronger_of


@dataclass(frozen=True)
class ClosingPanel:
    """One curve's trials in the order in which they began, and the tipping point with its interval when each had been
    recorded; nan where none was known."""

    label: str
    strength: Sequence[float]
    holds: Sequence[bool]
    """Whether the trial's score is at least the level by which the curve tips over."""
    location: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def closing_figure(
    panels: Sequence[ClosingPanel],
    strength: str = "alpha",
    stronger: Stronger | None = None,
    *,
    narrow: bool = False,
) -> Figure:
    """Strength on a log axis against the number of the trial: filled where accuracy holds, a cross where it has fallen,
    the tipping point of all trials so far as a line with its 95% interval shaded, and in grey the bracket from the
    strongest strength that holds to the weakest beyond it that has fallen. More than one panel share their axes.
    Stronger ones are above.

    Raises `ValueError` if there is no panel, lengths differ, or a strength is not a finite number above 0.
    """
    if not panels:
        raise ValueError("panels: none, allowed is at least one")
    for panel in panels:
        lengths = [len(part) for part in (panel.holds, panel.location, panel.low, panel.high)]
        if set(lengths) != {len(panel.strength)}:
            raise ValueError(
                f"{panel.label}: {lengths} values for {len(panel.strength)} strengths, allowed is one each"
            )
        if not all(math.isfinite(value) and value > 0 for value in panel.strength):
            raise ValueError(f"{panel.label}: strengths, allowed are finite numbers above 0, for a log axis")
    every = [value for panel in panels for value in panel.strength]
    bottom, top = min(every) / 3, max(every) * 3
    smaller = (stronger or stronger_of(strength)) == "smaller"
    with mpl.rc_context(STYLE):
        if len(panels) in (2, 3) and not narrow:
            figure, drawn = _grid(len(panels), 3, (3.0, 2.1), (0.4, 0.3))
        else:
            figure, drawn = _panels(len(panels), 1, narrow=narrow)
        for axes, panel in zip(drawn, panels, strict=True):
            number, at = np.arange(1, len(panel.strength) + 1), np.asarray(panel.strength, float)
            holds = np.asarray(panel.holds, bool)
            location, low, high = (np.asarray(part, float) for part in (panel.location, panel.low, panel.high))
            axes.fill_between(number, *_bracket(panel, smaller), step="mid", color=_GREY, alpha=0.16, linewidth=0)
            axes.fill_between(
                number, low, high, where=np.isfinite(low), step="mid", color=_COLOURS[0], alpha=0.22, linewidth=0
            )
            axes.step(number, location, where="mid", color=_COLOURS[0], linewidth=1.2)
            axes.plot(number[holds], at[holds], "o", color=_COLOURS[0], markersize=4)
            axes.plot(number[~holds], at[~holds], "x", color=_COLOURS[1], markersize=5)
            axes.set_yscale("log")
            axes.set_ylim(bottom, top)
            axes.set_xlim(0.4, max(len(one.strength) for one in panels) + 0.6)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            _log_ticks(axes.yaxis, bottom, top)
            known = np.flatnonzero(np.isfinite(location))
            words = _wrapped(panel.label, 34)
            if len(known):
                last = known[-1]
                words += f"\n{_interval_text(float(location[last]), float(low[last]), float(high[last]))}"
            axes.set_title(words, fontsize=8)
            if smaller and not axes.yaxis_inverted():  # panels may share it
                axes.invert_yaxis()
        _name_axes(figure, drawn, "trial, in the order in which they began", axis_name(strength))
        handles = [
            Line2D([], [], color=_COLOURS[0], marker="o", linestyle="", markersize=4, label="accuracy holds"),
            Line2D([], [], color=_COLOURS[1], marker="x", linestyle="", markersize=5, label="it has fallen"),
            Line2D([], [], color=_COLOURS[0], linewidth=1.2, label="tipping point of the trials so far"),
            Patch(color=_COLOURS[0], alpha=0.22, linewidth=0, label="its 95% interval"),
            Patch(color=_GREY, alpha=0.16, linewidth=0, label="from what holds to what has fallen"),
        ]
        _legend(figure, handles, "outside lower center")
    return figure


def _bracket(panel: ClosingPanel, smaller: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """After each trial, the weakest strength that has fallen, and the strongest weaker one that holds: nan as long as
    there is none."""
    turn = -1 if smaller else 1
    at, holds = turn * np.log10(panel.strength), np.asarray(panel.holds, bool)
    ends = np.full((2, len(at)), np.nan)
    for known in range(1, len(at) + 1):
        fallen = at[:known][~holds[:known]]
        weakest = fallen.min(initial=np.inf)
        held = at[:known][holds[:known] & (at[:known] < weakest)]
        if len(fallen) and len(held):
            ends[:, known - 1] = held.max(), weakest
    held_at, fallen_at = 10 ** (turn * ends)
    return held_at, fallen_at
