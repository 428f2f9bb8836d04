"""Tables that are drawn: scores by corruption, and differences with their intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.figures.style import _BARE, _COLOURS, _GREY, NARROW, _legend, _wrapped, axis_name

_CATEGORIES = ("noise", "blur", "weather", "digital")


def corruption_table(
    settings: Mapping[str, Mapping[tuple[str, str], Mapping[int, float]]],
    *,
    metric: str = "corruption_accuracy",
    by_severity: bool = False,
    digits: int = 2,
) -> Figure:
    """A score by corruption: `{setting: {(category, corruption): {severity: score}}}`, as a table of numbers on one
    common colour scale. A row for each corruption, by category, and below them their mean; a column for each setting,
    the mean over severities, or with `by_severity` a column for each severity of each setting.

    What was not measured is hatched, and so is a mean that lacks a severity or a corruption which the table has
    elsewhere, as it would compare with nothing. Raises `ValueError` if there is no finite score.
    """
    keys = dict.fromkeys(key for scores in settings.values() for key in scores)
    severities = sorted({level for scores in settings.values() for by_level in scores.values() for level in by_level})
    first = {category: index for index, category in enumerate(dict.fromkeys([*_CATEGORIES, *(key[0] for key in keys)]))}
    rows = sorted(keys, key=lambda key: first[key[0]])  # stable: in a category in the order given
    nothing: dict[int, float] = {}
    table = np.array(
        [
            [[scores.get(key, nothing).get(level, math.nan) for level in severities] for scores in settings.values()]
            for key in rows
        ],
        dtype=float,
    )
    table[~np.isfinite(table)] = np.nan
    if not np.isfinite(table).any():
        raise ValueError("settings: no finite score, allowed is at least one")
    cells = table.reshape(len(rows), -1) if by_severity else table.mean(axis=2)
    cells = np.vstack([cells, cells.mean(axis=0)])
    if not np.isfinite(cells).any():
        raise ValueError(
            "settings: each lacks severities that others have, allowed without by_severity is one that has"
        )
    parts = [(category, [i for i, key in enumerate(rows) if key[0] == category]) for category in first]
    parts = [(category, members) for category, members in parts if members] + [("", [len(rows)])]
    names = [key[1].replace("_", " ") for key in rows] + ["mean"]
    per_setting = len(severities) if by_severity else 1
    with mpl.rc_context(_BARE):
        cell = 0.35 if by_severity else max(0.6, min(1.0, 0.075 * max(map(len, settings)) + 0.1))
        cell = max(cell, 0.068 * (digits + 3))
        height = max(0.235 * len(cells) + 0.07 * len(parts), 2.2)
        figure = Figure(figsize=(cell * cells.shape[1] + 2.5, height + 0.6), layout="constrained")
        figure.get_layout_engine().set(hspace=0.0, h_pad=0.025)  # type: ignore[union-attr,call-arg]
        grid = figure.subplots(len(parts), 1, squeeze=False, height_ratios=[len(members) for _, members in parts])[:, 0]
        scale = ScalarMappable(Normalize(float(np.nanmin(cells)), float(np.nanmax(cells))), "cividis")
        for axes, (category, members) in zip(grid, parts, strict=True):
            _draw_cells(axes, cells[members], scale, digits)
            axes.set_yticks(range(len(members)), [names[i] for i in members])
            axes.set_ylabel(category, rotation=0, ha="right", va="center")
            axes.set_xticks([])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            for edge in range(per_setting, cells.shape[1], per_setting):
                axes.axvline(edge - 0.5, color="white", linewidth=3 if by_severity else 1)
        top, labels = grid[0], [_wrapped(label, 16 if by_severity else 60) for label in settings]
        top.xaxis.tick_top()
        if by_severity:
            top.set_xticks(range(cells.shape[1]), [f"{level:g}" for level in severities] * len(settings))
            side = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8}
            top.annotate("severity", (0, 1), xytext=(-4, 4), ha="right", va="bottom", annotation_clip=False, **side)
            for index, label in enumerate(labels):
                middle = per_setting * (index + 0.5) - 0.5
                spot = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8}
                top.annotate(
                    label, (middle, 1), xytext=(0, 15), ha="center", va="bottom", annotation_clip=False, **spot
                )
        else:
            wide = max(len(line) for label in labels for line in label.splitlines()) * 0.065 > cell
            top.set_xticks(range(len(labels)), labels)
            if wide:
                for text in top.get_xticklabels():
                    text.set(rotation=35, ha="left", rotation_mode="anchor")
        figure.align_ylabels(list(grid))
        figure.colorbar(
            scale,
            ax=list(grid),
            label=axis_name(metric),
            fraction=0.2 / figure.get_figwidth(),
            aspect=height / 0.13,
            pad=0.02,
        )
        if np.isnan(cells).any():
            _legend(figure, [Patch(**_MISSING, label="not measured, or not in full")], "outside lower center")
    return figure


_MISSING: Any = {"facecolor": "white", "edgecolor": "0.6", "hatch": "/////", "linewidth": 0}


def _draw_cells(axes: Axes, cells: NDArray[np.float64], scale: ScalarMappable, digits: int) -> None:
    low, high = scale.get_clim()
    shown = np.ma.masked_invalid(cells)
    axes.imshow(shown, cmap=scale.cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(cells):
        if math.isnan(value):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **_MISSING))
            continue
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in scale.to_rgba(cells)[row, column]
        ]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        colour = "black" if luminance > 0.179 else "white"  # where both have the same contrast (WCAG 2)
        axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color=colour, fontsize=7.5)


_BLUE, _ORANGE = _COLOURS[0], _COLOURS[4]
# verdicts differ in mark and fill, too
_FOREST: dict[str, tuple[str, str, str]] = {
    "better": ("o", _BLUE, "full"),
    "worse": ("s", _ORANGE, "full"),
    "higher": ("^", _BLUE, "full"),
    "lower": ("v", _ORANGE, "full"),
    "not shown": ("o", _GREY, "none"),
    "not testable": ("x", _GREY, "full"),
}


@dataclass(frozen=True)
class ForestRow:
    """A difference, with its 95% interval (nan: none), what it comes to, and what stands beside it."""

    label: str
    difference: float
    low: float
    high: float
    kind: str
    """ "better", "worse", "higher", "lower", "not shown" or "not testable"."""
    beside: str = ""


def forest_figure(
    rows: Sequence[ForestRow], *, label: str, beside: str = "", title: str = "", narrow: bool = False
) -> Figure:
    """Differences with their intervals, one under the other; an interval far wider than the differences runs off the
    edge, and a difference far larger than most is an arrow there. `label` is what stands at the axis, `beside` above
    the entries on the right. `narrow` is as wide as a telephone.

    Raises `ValueError` if there is no row, or one of another kind.
    """
    if not rows:
        raise ValueError("rows: none, allowed is at least one")
    for row in rows:
        if row.kind not in _FOREST:
            raise ValueError(f"{row.label}: kind {row.kind!r}, allowed are {', '.join(_FOREST)}")
    names = [textwrap.fill(row.label, 20 if narrow else 46) for row in rows]
    lines = sum(max(1, name.count("\n") + 1) for name in names)
    with mpl.rc_context(_BARE):
        height = 1.25 + 0.19 * max(lines, 3) + (0.3 if narrow else 0)
        figure = Figure(figsize=(NARROW if narrow else 6.4, height), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="0.35", linewidth=1.0, zorder=1)
        used = set()
        for place, row in enumerate(rows):
            axes.axhline(place, color="0.93", linewidth=0.6, zorder=0)
            if math.isnan(row.difference):
                continue
            mark, colour, fill = _FOREST[row.kind]
            used.add(row.kind)
            if math.isfinite(row.low):
                ends = row.low, row.high
                axes.plot(ends, [place, place], color=colour, linewidth=1.2, zorder=2, solid_capstyle="butt")
            face = "white" if fill == "none" else colour
            axes.plot([row.difference], [place], mark, color=colour, markerfacecolor=face, markersize=4.8, zorder=3)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _difference_axis(axes, rows)
        axes.set_xlabel(textwrap.fill(label, 34) if narrow else label)
        if any(row.beside for row in rows):
            right = axes.secondary_yaxis("right")
            marks = [row.beside for row in rows]
            right.set_yticks(range(len(rows)), marks)
            right.tick_params(length=0)
            right.spines["right"].set_visible(False)
            axes.text(1.01, 1.0, beside, transform=axes.transAxes, fontsize=8, va="bottom")
        if title:
            axes.set_title(title, loc="left", fontsize=8, pad=3)
        handles = []
        for kind, (mark, colour, fill) in _FOREST.items():
            if kind in used:
                name = "no difference shown" if kind == "not shown" else kind
                face = "white" if fill == "none" else colour
                width = 0 if kind == "not testable" else 1.2
                handles.append(
                    Line2D([], [], color=colour, marker=mark, markerfacecolor=face, linewidth=width, label=name)
                )
        if handles:
            columns = min(2, len(handles)) if narrow else len(handles)
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.4)
    return figure


def _difference_axis(axes: Axes, rows: Sequence[ForestRow]) -> None:
    """Linear limits around zero and most differences. One that is far larger than most, as that of a setting that
    collapsed, would leave no room for the others: it is an arrow at the edge, with its number."""
    known = [(place, row) for place, row in enumerate(rows) if not math.isnan(row.difference)]
    sizes = sorted(abs(row.difference) for _, row in known)
    usual = sizes[(len(sizes) - 1) // 2] if sizes else 0.0
    near = [row.difference for _, row in known if not usual or abs(row.difference) <= 8 * usual]
    values = [0.0, *near]
    span = max(values) - min(values) or max((abs(row.low) for _, row in known if math.isfinite(row.low)), default=0.1)
    ends = [end for _, row in known if row.difference in near and math.isfinite(row.low) for end in (row.low, row.high)]
    low = max(min([*values, *ends]), min(values) - 0.5 * span)
    high = min(max([*values, *ends]), max(values) + 0.5 * span)
    margin = 0.05 * (high - low) or 0.01
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    for place, row in known:
        if low - margin <= row.difference <= high + margin:
            continue
        left = row.difference < low
        axes.annotate(
            f"{row.difference:.3g}".replace("-", "−"),
            (low - margin if left else high + margin, place),
            (18 if left else -18, 0),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center",
            fontsize=7,
            color=_FOREST[row.kind][1],
            arrowprops={"arrowstyle": "->", "color": _FOREST[row.kind][1], "shrinkA": 0, "shrinkB": 0},
        )
