"""Two metrics against each other, and the settings that no other beats in both."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from analysis.figures.style import (
    _BANDS,
    _COLOURS,
    _GREY,
    NARROW,
    STYLE,
    Band,
    Direction,
    _bar_handle,
    _handle,
    _legend,
    _log_ticks,
    _look,
    _padded,
    _summary,
    _wrapped,
    axis_name,
)


def pareto_front(x: ArrayLike, y: ArrayLike, x_direction: Direction, y_direction: Direction) -> NDArray[np.bool_]:
    """Which points (n,) no other beats: none is at least as good in both and better in one. Equal points are both on
    the front or both not; a point with a coordinate that is not finite is not, and beats none.

    Raises `ValueError` for lengths that differ and directions other than "max" (more is better) and "min".
    """
    for direction in (x_direction, y_direction):
        if direction not in ("max", "min"):
            raise ValueError(f"direction: {direction!r}, allowed are 'max' and 'min'")
    right, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if right.ndim != 1 or right.shape != up.shape:
        raise ValueError(f"x, y: shapes {right.shape}, {up.shape}, allowed are two equal ones (n,)")
    front = np.zeros(len(right), dtype=bool)
    known = np.isfinite(right) & np.isfinite(up)
    right, up = (right if x_direction == "max" else -right), (up if y_direction == "max" else -up)
    highest = -math.inf
    for value in np.unique(right[known])[::-1]:
        level = known & (right == value)
        best = up[level].max()
        if best > highest:
            front |= level & (up == best)
            highest = best
    return front


@dataclass(frozen=True)
class ParetoGroup:
    """Settings of one kind, for instance a method's strengths: one entry per setting in `x`, `y` and `names`."""

    label: str
    x: Sequence[ArrayLike]
    """The seeds' values of each setting, or one number."""
    y: Sequence[ArrayLike]
    names: Sequence[str] = ()
    """What stands beside a setting on the front, for instance "α=10"; empty: nothing."""


def pareto_figure(
    groups: Sequence[ParetoGroup],
    *,
    x: str,
    y: str,
    x_direction: Direction,
    y_direction: Direction,
    bars: Band = "ci",
    log_x: bool = False,
    log_y: bool = False,
    narrow: bool = False,
) -> Figure:
    """Two metrics against each other: a point per setting, the mean over seeds, with error bars both ways where there
    are several (`bars`, see `curves`). Settings whose means no other setting of any group beats are filled, named and
    joined by the line that bounds what they beat; the others are hollow. Arrows at the axes point to the better side.
    `narrow` is as wide as a telephone.

    Raises `ValueError` if there is no group or no setting with both values, there are more than six groups, lengths
    differ, a log axis gets a mean that is not above 0, or a direction or the bars are others.
    """
    if not 0 < len(groups) <= len(_COLOURS):
        raise ValueError(f"groups: {len(groups)}, allowed are 1 to {len(_COLOURS)}")
    for group in groups:
        if len(group.x) != len(group.y) or (len(group.names) and len(group.names) != len(group.x)):
            lengths = f"{len(group.x)} of x, {len(group.y)} of y, {len(group.names)} names"
            raise ValueError(f"{group.label}: {lengths}, allowed is one each per setting (names: or none)")
    of = np.array([index for index, group in enumerate(groups) for _ in group.x], dtype=int)
    names = [name for group in groups for name in (group.names if len(group.names) else [""] * len(group.x))]
    across = _summary(_padded([values for group in groups for values in group.x]), bars)
    up = _summary(_padded([values for group in groups for values in group.y]), bars)
    front = pareto_front(across[0], up[0], x_direction, y_direction)
    if not front.any():
        raise ValueError("groups: no setting with a finite x and y, allowed is at least one")
    for name, log, (mean, *_) in ((x, log_x, across), (y, log_y, up)):
        if log and (mean[np.isfinite(mean)] <= 0).any():
            raise ValueError(f"{name}: a mean of at most 0, allowed on a log axis are numbers above")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(NARROW if narrow else 5.2, 3.3), layout="constrained")
        axes = figure.add_subplot()
        handles: list[Any] = []
        for index, group in enumerate(groups):
            colour, marker, _ = _look(index)
            looks: Any
            for chosen, looks in (
                (front, {"markersize": 6.5, "markeredgecolor": "black", "markeredgewidth": 0.7, "zorder": 3.2}),
                (~front, {"markersize": 5.0, "fillstyle": "none", "markeredgewidth": 1.1, "zorder": 2.8}),
            ):
                mine = chosen & (of == index)
                if mine.any():
                    axes.errorbar(
                        across[0][mine],
                        up[0][mine],
                        xerr=_lengths(across, mine),
                        yerr=_lengths(up, mine),
                        fmt=marker,
                        color=colour,
                        elinewidth=0.8,
                        alpha=1.0 if chosen is front else 0.75,
                        **looks,
                    )
            handles.append(_handle(index, _wrapped(group.label, 34 if narrow else 50), linestyle=""))
        order = np.flatnonzero(front)[np.lexsort((up[0][front], across[0][front]))]
        step = "steps-pre" if x_direction == "max" else "steps-post"
        axes.plot(across[0][order], up[0][order], color=_GREY, linewidth=1.1, drawstyle=step, zorder=2.4)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        axes.margins(0.09)
        axes.autoscale_view()
        for log, axis, limits in ((log_x, axes.xaxis, axes.get_xlim()), (log_y, axes.yaxis, axes.get_ylim())):
            if log:
                _log_ticks(axis, *limits)
        arrows = {"max": "better →", "min": "← better"}  # the axis of y is turned, and the arrow with it
        across_name = f"{axis_name(x)}, {arrows[x_direction]}"
        axes.set_xlabel(textwrap.fill(across_name, 34) if narrow else across_name)
        axes.set_ylabel(f"{axis_name(y)}, {arrows[y_direction]}")
        _legend(figure, handles, "outside upper center")
        key: list[Any] = [
            Line2D([], [], color=_GREY, marker="o", label="Pareto front"),
            Line2D([], [], color=_GREY, marker="o", fillstyle="none", linestyle="", label="dominated"),
        ]
        if (across[3] > 1).any() or (up[3] > 1).any():
            key.append(_bar_handle(f"mean, {_BANDS[bars]}"))
        _legend(
            figure, key[: 1 if front[np.isfinite(across[0] + up[0])].all() else 2] + key[2:], "outside lower center"
        )
        toward = (1 if x_direction == "max" else -1, 1 if y_direction == "max" else -1)
        _name_points(figure, axes, np.c_[across[0], up[0]], order, names, toward)
    return figure


def _lengths(summary: tuple[NDArray[np.float64], ...], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of the error bars below and above the mean, 0 where there is none."""
    mean, low, high, _ = summary
    return np.nan_to_num(np.stack([mean - low, high - mean])[:, chosen])


def _name_points(
    figure: Figure,
    axes: Axes,
    points: NDArray[np.float64],
    named: NDArray[np.int64],
    names: Sequence[str],
    toward: tuple[int, int],
) -> None:
    """Names beside points, where they cover the least of points, lines and other names; the better side comes first."""
    figure.draw_without_rendering()  # only now the layout is known
    inch = figure.dpi
    places = axes.transData.transform(points[np.isfinite(points).all(axis=1)])
    steps = axes.transData.transform(points[named])
    corners = [[(b[0], a[1]), (a[0], b[1])][toward[0] > 0] for a, b in itertools.pairwise(steps)]
    path = np.array([steps[0], *[p for c, s in zip(corners, steps[1:], strict=True) for p in (c, s)]])
    line = np.concatenate([np.linspace(a, b, 30) for a, b in itertools.pairwise(path)] or [path])
    frame = axes.get_window_extent()
    taken: list[tuple[float, float, float, float]] = []
    right, up = toward
    sides = [(right, up), (right, 0), (0, up), (right, -up), (-right, up), (0, -up), (-right, 0), (-right, -up)]
    for index, (px, py) in zip(named, steps, strict=True):
        if not names[index]:
            continue
        width, height = (0.068 * len(names[index]) + 0.02) * inch, 0.12 * inch
        best: tuple[float, tuple[int, int], float, tuple[float, float, float, float]] | None = None
        for reach in (0.075, 0.16):
            for rank, (sx, sy) in enumerate(sides):
                far = reach * inch * (0.8 if sx and sy else 1.0)
                left = px + sx * far - (0 if sx > 0 else width if sx < 0 else width / 2)
                foot = py + sy * far - (0 if sy > 0 else height if sy < 0 else height / 2)
                box = (left, foot, left + width, foot + height)
                over = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
                out = left < frame.x0 or foot < frame.y0 or box[2] > frame.x1 or box[3] > frame.y1
                cost = 100 * over + 60 * out + 20 * _inside(places, box, 0.04 * inch) + 2 * _inside(line, box, 0)
                cost += rank + 40 * reach
                if best is None or cost < best[0]:
                    best = cost, (sx, sy), far / inch * 72, box
        assert best is not None
        _, (sx, sy), far, box = best
        taken.append(box)
        axes.annotate(
            names[index],
            (float(points[index, 0]), float(points[index, 1])),
            xytext=(sx * far, sy * far),
            textcoords="offset points",
            ha={1: "left", 0: "center", -1: "right"}[sx],
            va={1: "bottom", 0: "center", -1: "top"}[sy],
            fontsize=7.5,
            zorder=5,
        ).set_in_layout(False)


def _inside(points: NDArray[np.float64], box: tuple[float, float, float, float], margin: float) -> int:
    low, high = np.array(box[:2]) - margin, np.array(box[2:]) + margin
    return int(((points > low) & (points < high)).all(axis=1).sum())
