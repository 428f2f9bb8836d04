"""A score, or metrics, against strength."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from analysis.figures.style import (
    _BANDS,
    _BASELINE,
    _COLOURS,
    _GREY,
    _LEVEL,
    STYLE,
    _apart,
    _bar_handle,
    _grid,
    _handle,
    _interval_text,
    _is_plain,
    _legend,
    _log_ticks,
    _look,
    _name_axes,
    _padded,
    _panels,
    _pixels,
    _rule_handle,
    _summary,
    _width,
    _wrapped,
    axis_name,
)
from analysis.schema import Direction, Stronger
from analysis.schema import stronger as stronger_of

_MAX_GROUPS_ON_ONE_AXES = 4
_OF_A_PIXEL = " (of those on one pixel, one)"


def _check_strengths(name: str, strength: Sequence[float], *others: tuple[str, Sequence[Any]]) -> None:
    for other, values in others:
        if len(values) != len(strength):
            raise ValueError(f"{name}: {len(values)} of {other} for {len(strength)} of strength, allowed is one each")
    for value in strength:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: strength {value}, allowed are finite numbers above 0, for a log axis")


def _strength_axis(axes: Axes, strengths: Sequence[float], stronger: Stronger) -> None:
    """A log axis around these strengths, in rising order; where they are few and round, they are the ticks. The
    stronger ones are on the right."""
    axes.set_xscale("log")
    low, high = strengths[0], strengths[-1]
    decades = math.log10(high / low)
    margin = 10 ** max(0.04 * decades, 0.02)
    axes.set_xlim((low / margin, high * margin) if stronger == "larger" else (high * margin, low / margin))
    round_ones = _is_plain(strengths) and all(float(f"{value:.4g}") == value for value in strengths)
    if len(strengths) > 8 or decades > 2.5 or not round_ones:
        _log_ticks(axes.xaxis, low / margin, high * margin)
        return
    # as many as there is room for
    longest = max(len(f"{value:g}") for value in strengths)
    room = _width(axes) - 0.7
    apart = (0.065 * longest + 0.12) / room * math.log10(high / low * margin**2)
    shown: list[float] = []
    for value in strengths:
        if not shown or math.log10(value / shown[-1]) >= apart:
            shown.append(value)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(FixedLocator([value for value in strengths if value not in shown]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _strength_name(strength: str, stronger: Stronger | None) -> str:
    reversed_ = (stronger or stronger_of(strength)) == "smaller"
    return f"{axis_name(strength)}{', stronger to the right' if reversed_ else ''}"


@dataclass(frozen=True)
class StrengthGroup:
    """Scores of one group of trials by strength: one entry per trial in `strength` (> 0), `score`, `diverged`."""

    label: str
    strength: Sequence[float]
    score: Sequence[float]
    diverged: Sequence[bool]
    level: float = math.nan
    """The score below which the rule calls a strength beyond the threshold; nan: none."""
    threshold: float = math.nan
    """The strength at which it falls below; nan: none in range."""
    baseline: Sequence[float] = field(default=())
    """Scores of the unregularised trials."""
    location: float = math.nan
    """The fitted tipping point as a strength (not its logarithm); nan: none."""
    low: float = math.nan
    """Its 95% interval, as strengths; nan: none."""
    high: float = math.nan
    note: str = ""
    """Why there is no tipping point, for instance "no tipping point found" or "inconclusive"."""


def strength_figure(
    groups: Sequence[StrengthGroup],
    *,
    strength: str = "alpha",
    stronger: Stronger | None = None,
    metric: str = "top1",
    direction: Direction = "max",
    share: float = 0.8,
    bars: Literal["ci", "range"] | None = None,
    narrow: bool = False,
) -> Figure:
    """Score against strength on a log axis: a point per trial, the mean per strength with a bar where there are several
    seeds, the baseline's mean dashed. More than four groups get a panel each.

    A fitted tipping point is a vertical line with its interval shaded, and again a bar with caps at the foot of the
    axes, one above the other; the legend (a panel's title) says the numbers or, where there is none, the `note`. The
    threshold of the paper's rule is a ring on the mean, and the level it is judged by (`share` of the reference level)
    dotted; in a group that has neither tipping point nor note it is a vertical line, too. Where smaller strengths are
    the stronger ones (`stronger`; default: what the schema says), they lie to the right.

    `bars`: the mean's 95% t interval ("ci") or the smallest to the largest ("range"); by default the interval, but the
    range where a strength has only two trials. The legend says which. Intervals may reach beyond the axes. `narrow` is
    as wide as a telephone.

    Raises `ValueError` if there is no group or no finite score, lengths differ, a strength is not a finite number above
    0, or an interval is not around its tipping point.
    """
    if not groups:
        raise ValueError("groups: none, allowed is at least one")
    for group in groups:
        _check_strengths(group.label, group.strength, ("score", group.score), ("diverged", group.diverged))
        _check_location(group)
    scores = [float(y) for group in groups for y in [*group.score, *group.baseline] if math.isfinite(y)]
    strengths = sorted({float(x) for group in groups for x in group.strength})
    if not scores or not strengths:
        raise ValueError("groups: no trial with a finite score, allowed is at least one")
    repeats = [np.isfinite(seeds).sum() for group in groups for seeds in _by_strength(group)[1].T]
    several = any(n > 1 for n in repeats)
    if bars is None:
        bars = "range" if 2 in repeats else "ci"
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(groups), _MAX_GROUPS_ON_ONE_AXES, narrow=narrow)
        one = len(panels) == 1
        shown = [list(enumerate(groups))] if one else [[(0, group)] for group in groups]
        ends: list[float] = []
        for axes, members in zip(panels, shown, strict=True):
            common = len({tuple(group.baseline) for _, group in members}) == 1
            for index, group in members:
                ends += _draw_group(axes, group, index, bars, baseline=not common)
            if common:
                _draw_baseline(axes, members[0][1].baseline, _GREY)
            located = [member for member in members if math.isfinite(member[1].location)]
            for row, (index, group) in enumerate(reversed(located)):  # the first one on top, as in the legend
                _draw_location(axes, group, index, _FOOT + _FOOT_STEP * row + (0 if one else 0.03))
            _strength_axis(axes, strengths, stronger or stronger_of(strength))
            if not one:
                title = _wrapped(members[0][1].label, 24 if narrow and len(groups) > 8 else 34)
                tips = _tips(members[0][1])
                axes.set_title(f"{title}\n{tips}" if tips else title, fontsize=8)
        rows = max(sum(math.isfinite(group.location) for _, group in members) for members in shown)
        _score_axis(panels, scores, ends, _FOOT + _FOOT_STEP * (rows - 0.4) + (0 if one else 0.05) if rows else 0.0)
        _name_axes(figure, panels, _strength_name(strength, stronger), axis_name(metric))
        if one:
            _legend(figure, _group_handles(groups, 34 if narrow else 60), "outside upper center")
        level = f"{100 * share:.4g}% of the reference level" if direction == "max" else f"reference level / {share:.4g}"
        key = _key_handles(groups, level, bars if several else None, one_axes=one)
        if any(len(group.strength) > math.prod(_pixels(panels[0])) for group in groups):
            key.append(Line2D([], [], linestyle="", label=f"trials{_OF_A_PIXEL}"))
        _legend(figure, key, "outside lower center")
    return figure


_FOOT, _FOOT_STEP = 0.045, 0.055
"""Where at the foot of the axes the first interval's bar lies, and the next one above it, as shares of the height."""


def _check_location(group: StrengthGroup) -> None:
    location, low, high = group.location, group.low, group.high
    nothing = math.isnan(location) and math.isnan(low) and math.isnan(high)
    point = 0 < location < math.inf and math.isnan(low) and math.isnan(high)
    if not (nothing or point or 0 < low <= location <= high < math.inf):
        raise ValueError(
            f"{group.label}: tipping point {location} with interval {low} to {high}, allowed are finite strengths "
            "above 0, the tipping point inside, or nan"
        )


def _tips(group: StrengthGroup) -> str:
    if math.isfinite(group.location):
        return f"tips at {_interval_text(group.location, group.low, group.high)}"
    return group.note


def _by_strength(group: StrengthGroup) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The swept strengths that have a finite score, rising, and their scores (trials, strengths), nan where fewer."""
    x, y = np.asarray(group.strength, float), np.asarray(group.score, float)
    swept = np.unique(x[np.isfinite(y)])
    return swept, _padded([y[(x == value) & np.isfinite(y)] for value in swept])


def _draw_group(axes: Axes, group: StrengthGroup, index: int, bars: str, *, baseline: bool) -> list[float]:
    """The ends of its bars."""
    colour, marker, line = _look(index)
    x, y = np.asarray(group.strength, float), np.asarray(group.score, float)
    diverged = np.asarray(group.diverged, bool)
    marks: list[tuple[NDArray[np.bool_], str, dict[str, Any]]] = [
        (~diverged, marker, {"alpha": 0.45, "markeredgewidth": 0, "zorder": 2.5}),
        (diverged, "x", {"markersize": 5, "markeredgewidth": 1.1, "zorder": 2.6}),
    ]
    for chosen, mark, looks in marks:
        shown = _apart(axes, np.log(x[chosen]), y[chosen])
        axes.plot(x[chosen][shown], y[chosen][shown], mark, color=colour, **looks)
    swept, seeds = _by_strength(group)
    mean, low, high, n = _summary(seeds, bars)
    axes.plot(swept, mean, linestyle=line, color=colour, zorder=3)
    some = n > 1
    if some.any():
        axes.errorbar(
            swept[some],
            mean[some],
            [(mean - low)[some], (high - mean)[some]],
            fmt="none",
            ecolor=colour,
            elinewidth=0.9,
            capsize=2.2,
            capthick=0.9,
            zorder=2.9,
        )
    if math.isfinite(group.level):
        axes.axhline(group.level, color=colour, linestyle=_LEVEL, linewidth=1.0)
    if math.isfinite(group.threshold):
        if math.isnan(group.location) and not group.note:
            axes.axvline(group.threshold, color=colour, linestyle=line, linewidth=0.9, alpha=0.9)
        height = np.interp(math.log(group.threshold), np.log(swept), mean)
        axes.plot([group.threshold], [height], marker, color=colour, fillstyle="none", markersize=8, zorder=4)
    if baseline:
        _draw_baseline(axes, group.baseline, colour)
    return [*low[some].tolist(), *high[some].tolist()]


def _draw_location(axes: Axes, group: StrengthGroup, index: int, foot: float) -> None:
    """The tipping point as a line, its interval as a span, and both as a bar at this share of the axes' height."""
    colour, marker, line = _look(index)
    axes.axvline(group.location, color=colour, linestyle=line, linewidth=1.1, zorder=2.2)
    transform = axes.get_xaxis_transform()
    if math.isfinite(group.low):
        axes.axvspan(group.low, group.high, color=colour, alpha=0.13, linewidth=0, zorder=0.6)
        axes.plot(
            [group.low, group.high],
            [foot, foot],
            "|-",
            color=colour,
            linewidth=1.6,
            markersize=7,
            markeredgewidth=1.6,
            transform=transform,
            zorder=4,
        )
    axes.plot([group.location], [foot], marker, color=colour, markersize=5.5, transform=transform, zorder=4.1)


def _draw_baseline(axes: Axes, scores: Sequence[float], colour: str) -> None:
    known = [score for score in scores if math.isfinite(score)]
    if known:
        axes.axhline(float(np.mean(known)), color=colour, linestyle=_BASELINE, linewidth=1.0, zorder=1.5)


def _score_axis(panels: Sequence[Axes], scores: Sequence[float], ends: Sequence[float], foot: float) -> None:
    """The same limits and ticks for all, around the scores; bars' ends may move them by a tenth of the range. The
    lowest share `foot` of the axes stays free of scores and ticks."""
    low, high = min(scores), max(scores)
    margin, most = 0.06 * (high - low) or 0.05, 0.1 * (high - low)
    low, high = max(min([low, *ends]), low - most) - margin, min(max([high, *ends]), high + most) + margin
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    for axes in panels:
        axes.set_ylim((low - foot * high) / (1 - foot), high)
        axes.yaxis.set_major_locator(FixedLocator(ticks))


def _group_handles(groups: Sequence[StrengthGroup], width: int) -> list[Any]:
    handles = []
    for index, group in enumerate(groups):
        end = _tips(group)
        if not end and math.isfinite(group.threshold):
            end = f"threshold {group.threshold:.4g}"
        elif not end and math.isfinite(group.level):
            end = "no threshold in range"
        label = _wrapped(group.label, width)
        if end:
            fits = len(label.splitlines()[-1]) + len(end) <= width + 2 if label else True
            label += f": {end}" if fits else f":\n{end}"
        handles.append(_handle(index, label))
    return handles


def _key_handles(groups: Sequence[StrengthGroup], level: str, bars: str | None, *, one_axes: bool) -> list[Any]:
    """What the marks mean that all groups have."""
    handles: list[Any] = []
    if not one_axes:
        handles.append(_handle(0, "trial, mean over seeds"))
    if bars is not None:
        handles.append(_bar_handle(f"mean, {_BANDS[bars]}"))
    located = [group for group in groups if math.isfinite(group.location)]
    if located:
        interval = " with 95% interval" if any(math.isfinite(group.low) for group in located) else ""
        label = f"tipping point{interval}"
        handles.append(Line2D([], [], color=_GREY, marker="|", markersize=9, markeredgewidth=1.4, label=label))
    if any(math.isfinite(group.threshold) for group in groups):
        ring = Line2D([], [], color=_GREY, marker="o", fillstyle="none", markersize=7, linestyle="")
        ring.set_label("threshold of the paper's rule" if any(_tips(group) for group in groups) else "threshold")
        handles.append(ring)
    if any(math.isfinite(group.level) for group in groups):
        handles.append(_rule_handle(_LEVEL, level))
    if any(math.isfinite(score) for group in groups for score in group.baseline):
        handles.append(_rule_handle(_BASELINE, "baseline"))
    if any(any(group.diverged) for group in groups):
        handles.append(Line2D([], [], color=_GREY, marker="x", linestyle="", label="diverged"))
    return handles


@dataclass(frozen=True)
class MetricPanel:
    """A metric against the strength, for one way of measuring: an entry per trial, any order."""

    title: str
    metric: str
    """What stands at the axis."""
    strength: Sequence[float]
    value: Sequence[float]
    error: Sequence[float] = ()
    """Half-widths of intervals; empty: none."""
    beyond: float = math.inf
    """Trials of a stronger strength are greyed: excluded from what is said about the metric; inf: none."""
    baseline: Sequence[float] = ()
    """Values of the unregularised trials."""
    note: str = ""
    """What stands in the panel, where it is emptiest, for instance "ρ = .83, p = .0002 (Holm)"."""
    log: bool | None = None
    """Whether the metric's axis is logarithmic; None: where its values are above 0 and span decades."""


def metric_figure(
    panels: Sequence[MetricPanel],
    *,
    strength: str = "alpha",
    stronger: Stronger | None = None,
    excluded: str = "excluded",
    columns: int = 2,
) -> Figure:
    """Metrics against strength on a log axis: a point per trial with its interval, those that are `excluded` grey and
    hollow, the strongest strength that is not as a vertical line, the baseline's mean dashed. Where smaller strengths
    are the stronger ones (`stronger`; default: what the schema says), they lie to the right.

    Raises `ValueError` if there is no panel, one has no trial, lengths differ, or a strength is not a finite number
    above 0.
    """
    if not panels:
        raise ValueError("panels: none, allowed is at least one")
    for panel in panels:
        if len(panel.strength) == 0:
            raise ValueError(f"{panel.title}: no trial, allowed is at least one")
        error = (("error", panel.error),) if len(panel.error) else ()
        _check_strengths(panel.title, panel.strength, ("value", panel.value), *error)
    with mpl.rc_context(STYLE):
        figure, grid = _grid(len(panels), columns, (3.4, 2.3), (0.2, 0.1))
        for axes, panel in zip(grid, panels, strict=True):
            _draw_metric(axes, panel, stronger or stronger_of(strength))
            axes.set(xlabel=_strength_name(strength, stronger), ylabel=textwrap.fill(axis_name(panel.metric), 26))
        figure.align_ylabels()
        trial = "trial, 95% interval over images" if any(len(panel.error) for panel in panels) else "trial"
        many = any(len(panel.strength) > math.prod(_pixels(axes)) for axes, panel in zip(grid, panels, strict=True))
        handles = [_handle(0, f"{trial}{_OF_A_PIXEL if many else ''}", linestyle="")]
        if any(_beyond(panel, stronger or stronger_of(strength)).any() for panel in panels):
            handles.append(Line2D([], [], color="0.6", marker="o", fillstyle="none", linestyle="", label=excluded))
        if any(math.isfinite(panel.beyond) for panel in panels):
            handles.append(_rule_handle(_LEVEL, "threshold"))
        if any(len(panel.baseline) for panel in panels):
            handles.append(_rule_handle(_BASELINE, "baseline"))
        _legend(figure, handles, "outside lower center")
    return figure


def _beyond(panel: MetricPanel, stronger: Stronger) -> NDArray[np.bool_]:
    x = np.asarray(panel.strength, float)
    return np.isfinite(panel.beyond) & (x > panel.beyond if stronger == "larger" else x < panel.beyond)


def _spans_decades(values: Sequence[float]) -> bool:
    """Whether these are numbers above 0, the largest at least 100 times the smallest."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) / min(known) >= 100


def _draw_metric(axes: Axes, panel: MetricPanel, stronger: Stronger) -> None:
    x, y = np.asarray(panel.strength, float), np.asarray(panel.value, float)
    error = np.asarray(panel.error, float) if len(panel.error) else np.full_like(y, np.nan)
    error = np.nan_to_num(error)
    out = _beyond(panel, stronger)
    log = _spans_decades(panel.value) if panel.log is None else panel.log
    if log:
        axes.set_yscale("log")
    for part, colour, fill in ((~out, _COLOURS[0], "full"), (out, "0.6", "none")):
        chosen = np.flatnonzero(part)
        chosen = chosen[_apart(axes, np.log(x[chosen]), y[chosen])]
        if error.any():
            # all bars are one line with gaps: as many collections take most of the time of drawing
            ends = np.stack([y - error, y + error, np.full_like(y, np.nan)])[:, chosen]
            bars = np.stack([np.repeat(x[chosen], 3), ends.T.ravel()])
            axes.plot(*bars, color=colour, linewidth=0.9, zorder=1.99)
        axes.plot(x[chosen], y[chosen], "o", color=colour, fillstyle=fill, markersize=3.6)
    if math.isfinite(panel.beyond):
        axes.axvline(panel.beyond, color=_GREY, linestyle=_LEVEL, linewidth=1.0)
    _draw_baseline(axes, panel.baseline, _GREY)
    _strength_axis(axes, sorted(set(x.tolist())), stronger)
    axes.set_title(_wrapped(panel.title, 44), fontsize=8)
    if panel.note:
        base = [value for value in panel.baseline if math.isfinite(value)]
        along = np.geomspace(*axes.get_xlim(), 40 if base else 0)
        level = np.full((3, len(along)), np.mean(base) if base else np.nan)
        _draw_note(axes, panel.note, np.r_[x, along], np.c_[np.stack([y - error, y, y + error]), level])
    if log:
        _log_ticks(axes.yaxis, *axes.get_ylim())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_note(axes: Axes, note: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """In the corner that holds the fewest of the points (N,), (…, N); where all hold some, above them."""
    low, high = axes.get_ylim()
    known = np.isfinite(y).all(axis=0) & ((y > 0).all(axis=0) | (axes.get_yscale() != "log"))
    scale = axes.transScale
    corners = scale.transform([(axes.get_xlim()[0], low), (axes.get_xlim()[1], high)])
    places = (scale.transform(np.c_[np.tile(x[known], len(y)), y[:, known].ravel()]) - corners[0]) / (
        corners[1] - corners[0]
    )
    lines = note.splitlines()
    width, height = min(1.0, 0.025 * max(map(len, lines)) + 0.05), 0.09 * len(lines) + 0.07
    best, fewest = (1, 1), len(places) + 1
    for right, top in ((1, 1), (0, 1), (1, 0), (0, 0)):
        inside_x = places[:, 0] > 1 - width if right else places[:, 0] < width
        inside_y = places[:, 1] > 1 - height if top else places[:, 1] < height
        number = int((inside_x & inside_y).sum())
        if number < fewest:
            best, fewest = (right, top), number
    if fewest:
        best = (1, 1)
        if axes.get_yscale() == "log":
            axes.set_ylim(low, high * (high / low) ** (height / (1 - height)))
        else:
            axes.set_ylim(low, high + (high - low) * height / (1 - height))
    right, top = best
    axes.annotate(
        note,
        (right, top),
        xycoords="axes fraction",
        xytext=(-4 if right else 4, -4 if top else 4),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if top else "bottom",
        fontsize=8,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        zorder=5,
    )
