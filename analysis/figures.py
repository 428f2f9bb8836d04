"""Figures in one style, that stay readable when printed in grey: groups differ by marker and line as well as colour.

| function | what it draws |
|---|---|
| `strength_figure` | a score against strength, with tipping points and their intervals |
| `metric_figure` | metrics against strength, the excluded trials greyed |
| `curves` | a metric over epochs, with bands over seeds |
| `layer_profile` | a metric by layer, with bands over seeds |
| `map_panels` | heat maps on a common scale |
| `saliency_figure`, `cam_panels` | images with saliency maps, each on its own scale, or under class activation maps |
| `pareto_figure` | two metrics against each other, the settings that no other beats joined |
| `corruption_table` | a score by corruption and setting, as numbers on a common scale |

Each returns a matplotlib figure and changes no global setting; `save` writes it as PNG, SVG and PDF, `render` gives one
of them as bytes, both with the sweep, its numbers of trials, seeds and images, and the record's hash in the metadata.
Numbers that are nan are left out everywhere.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.groups import count, replicates
from analysis.records import Sweep, write_file

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "analysis",  # equal figures give equal files
}

# Okabe and Ito's colours, safe for the colour-blind, in an order whose neighbours differ in lightness
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LINES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
)
_LEVEL: Any = (0, (1, 2))
_BASELINE: Any = (0, (9, 3))

_GREY = "0.35"

_MAX_GROUPS_ON_ONE_AXES = 4
_MAX_CURVES_ON_ONE_AXES = 6
_NAMES = {
    # strengths and other settings
    "alpha": "strength α",
    "alpha_per_image": "strength α (per image)",
    "interval": "interval T (steps)",
    "laplacian_width": "width k of the Laplacian (pixels)",
    "pixels": "pooled pixels k",
    "sparsity": "strength λ of the ℓ1 norm",
    "gamma": "weight γ of the centre",
    "eta": "weight η of the corners",
    "modulation": "modulation c",
    "weight_decay": "weight decay",
    "sigma": "smoothing σ of the initialisation (pixels)",
    "deformation_strength": "strength C of the deformation (pixels)",
    "learning_rate": "learning rate",
    "epoch": "epoch",
    # the tables of trials and epochs
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "loss": "cross-entropy (nats)",
    "train_top1": "Top-1 accuracy in training",
    "train_loss": "training loss (nats)",
    "total_variation": "total variation of the landscape",
    "penalty": "penalty",
    "seconds": "time per epoch (s)",
    "train_seconds": "training time (s)",
    "measure_seconds": "measuring time (s)",
    "images_per_second": "images per second",
    # measurements
    "faithfulness": "Faithfulness Estimate",
    "local_lipschitz": "local Lipschitz estimate",
    "max_sensitivity": "Max-Sensitivity",
    "entropy": "entropy (nats)",
    "path_importance_correlation": "Pearson's r of importance and path counts",
    "salience_ablation": "area under the ablation curve",
    "corruption_accuracy": "Top-1 accuracy under corruption",
    "robust_accuracy": "robust accuracy (class unchanged)",
    "robust_accuracy_correct": "robust accuracy (class correct)",
    "erf_distance": "ERF distance, centre − corner",
    "cam_sparsity": "mean |CAM| of the true class",
    "iou": "IoU of CAM and mask",
    "cam_iou": "IoU of CAM and mask",
    "shift_accuracy": "Top-1 accuracy under shift",
    "locality": "locality, mean of standardised differences",
    "deformation_sensitivity": "sensitivity to deformation",
    "filter_smoothness": "normalised TV of the filters",
    "filter_total_variation": "normalised TV of the filters",
}

Band = Literal["range", "sd", "sd2", "ci"]
Direction = Literal["max", "min"]
_BANDS = {
    "range": "range of the seeds",
    "sd": "± 1 standard deviation over seeds",
    "sd2": "± 2 standard deviations over seeds",
    "ci": "95% t interval over seeds",
}


def axis_name(column: str) -> str:
    """What stands at an axis that shows this column."""
    return _NAMES.get(column, column.replace("_", " "))


def _look(index: int) -> tuple[str, str, Any]:
    """Colour, marker and line of a group."""
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)], _LINES[index % len(_LINES)]


def _summary(values: NDArray[np.float64], band: str) -> tuple[NDArray[np.float64], ...]:
    """Mean, lower and upper end of the band, and n, of the finite values (S, N) of each column. nan without a value; no
    band (nan) of one value, but for the range, which is the value."""
    if band not in _BANDS:
        raise ValueError(f"band: {band!r}, allowed are {', '.join(_BANDS)}")
    known = np.isfinite(values)
    n = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0).sum(axis=0) / n
        if band == "range":
            low = np.where(n > 0, np.where(known, values, np.inf).min(axis=0, initial=np.inf), np.nan)
            high = np.where(n > 0, np.where(known, values, -np.inf).max(axis=0, initial=-np.inf), np.nan)
            return mean, low, high, n
        # the standard deviation of a sample
        square = np.where(known, (np.where(known, values, 0) - mean) ** 2, 0).sum(axis=0)
        spread = np.where(n > 1, np.sqrt(square / (n - 1)), np.nan)
        half = {"sd": 1.0, "sd2": 2.0}.get(band, stats.t.ppf(0.975, n - 1) / np.sqrt(n)) * spread
    return mean, mean - half, mean + half, n


def _padded(rows: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Rows of different lengths as columns, filled up with nan."""
    columns = [np.atleast_1d(np.asarray(row, dtype=float)) for row in rows]
    table = np.full((max(map(len, columns), default=0), len(columns)), np.nan)
    for index, column in enumerate(columns):
        table[: len(column), index] = column
    return table


def _panels(count: int, most: int, size: tuple[float, float] = (5.2, 2.9)) -> tuple[Figure, list[Axes]]:
    """One axes for all groups, or from `most` + 1 on a grid with one each, on common axes."""
    if count <= most:
        figure = Figure(figsize=size, layout="constrained")
        return figure, [figure.add_subplot()]
    usual = 3 if count <= 9 else 4
    columns = min((usual, 7 - usual), key=lambda n: -count % n)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(2.4 * columns + 0.4, 1.85 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    # the places left over are in the first row: the numbers at the axis stand below the last, for all columns
    unused = -count % columns
    for axes in grid[0, columns - unused :]:
        axes.remove()
    return figure, [*grid[0, : columns - unused], *grid[1:].flat]


def _name_axes(figure: Figure, panels: Sequence[Axes], x: str, y: str) -> None:
    if len(panels) == 1:
        panels[0].set(xlabel=x, ylabel=y)
    else:
        figure.supylabel(y, fontsize=9)
        spec = panels[-1].get_subplotspec()
        assert spec is not None
        for axes in panels[-spec.get_gridspec().ncols :]:
            axes.set_xlabel(textwrap.fill(x, 32))


def _legend(
    figure: Figure,
    handles: Sequence[Any],
    place: Literal["outside upper center", "outside lower center"],
    title: str | None = None,
) -> None:
    """A legend outside the axes, in as many columns as there is room for; the figure grows by its height."""
    if not handles:
        return
    labels = [str(handle.get_label()).splitlines() or [""] for handle in handles]
    # an entry is as wide as its letters at 8 pt and the sample of its line
    widths = [0.062 * max(map(len, lines)) + 0.6 for lines in labels]
    columns = len(handles)
    while columns > 1 and sum(max(part) for part in np.array_split(widths, columns)) > figure.get_figwidth():
        columns -= 1
    heights = np.array_split([len(lines) for lines in labels], columns)
    lines = max(int(part.sum()) for part in heights) + (title is not None)
    figure.set_figheight(figure.get_figheight() + 0.165 * lines + 0.1)
    figure.legend(
        handles=handles, loc=place, ncols=columns, columnspacing=1.4, handlelength=2.4, title=title, title_fontsize=8
    )


def _bar_handle(label: str) -> ErrorbarContainer:
    """An error bar for the legend."""
    line = Line2D([], [], color=_GREY, linestyle="")
    cap = Line2D([], [], color=_GREY, marker="_", linestyle="")
    bar = LineCollection([np.zeros((2, 2))], colors=_GREY, linewidths=0.9)
    return ErrorbarContainer((line, (cap,), (bar,)), has_yerr=True, label=label)


def _wrapped(text: str, width: int) -> str:
    """Break a label of several parts "a=1, b=2" between parts, so that no line is much longer than `width`."""
    lines = [""]
    for part in text.split(", "):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) > width and lines[-1]:
            lines[-1] += ","
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(lines)


# --- numbers and log axes ---------------------------------------------------------------------------------------------

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _is_plain(values: Sequence[float]) -> bool:
    """Whether they read better without powers of ten."""
    return min(values) >= 0.001 and max(values) < 10000


def _number(value: float, digits: int, *, plain: bool) -> str:
    """A number above 0 with so many significant digits."""
    factor, exponent = f"{value:.{digits - 1}e}".split("e")
    if plain:
        return f"{float(f'{factor}e{exponent}'):.{max(0, digits - 1 - int(exponent))}f}"
    return f"{factor}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def _interval_text(location: float, low: float, high: float) -> str:
    """Like 3.2·10⁶ [1.0·10⁶, 5.6·10⁶], with as many digits as tell the three apart."""
    values = [location] if math.isnan(low) else [location, low, high]
    plain = _is_plain(values)
    for digits in range(2, 7):
        texts = [_number(value, digits, plain=plain) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if len(values) == 3 else "")


def _check_strengths(name: str, strength: Sequence[float], *others: tuple[str, Sequence[Any]]) -> None:
    for other, values in others:
        if len(values) != len(strength):
            raise ValueError(f"{name}: {len(values)} of {other} for {len(strength)} of strength, allowed is one each")
    for value in strength:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: strength {value}, allowed are finite numbers above 0, for a log axis")


def _strength_axis(axes: Axes, strengths: Sequence[float]) -> None:
    """A log axis around these strengths, in rising order; where they are few and round, they are the ticks."""
    axes.set_xscale("log")
    low, high = strengths[0], strengths[-1]
    decades = math.log10(high / low)
    margin = 10 ** max(0.04 * decades, 0.02)
    axes.set_xlim(low / margin, high * margin)
    round_ones = _is_plain(strengths) and all(float(f"{value:.4g}") == value for value in strengths)
    if len(strengths) > 8 or decades > 2.5 or not round_ones:
        _log_ticks(axes.xaxis, low / margin, high * margin)
        return
    spec, figure = axes.get_subplotspec(), axes.figure
    assert spec is not None
    assert isinstance(figure, Figure)
    # as many as there is room for
    longest = max(len(f"{value:g}") for value in strengths)
    room = figure.get_figwidth() / spec.get_gridspec().ncols - 0.7
    apart = (0.065 * longest + 0.12) / room * math.log10(high / low * margin**2)
    shown: list[float] = []
    for value in strengths:
        if not shown or math.log10(value / shown[-1]) >= apart:
            shown.append(value)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(FixedLocator([value for value in strengths if value not in shown]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks of a log axis with these limits: powers of ten, or where less than three are in view, round numbers."""
    decades = math.log10(high / low)
    powers = math.floor(math.log10(high)) - math.ceil(math.log10(low)) + 1
    axis.set_minor_formatter(NullFormatter())
    # beyond six decades only the powers between the ticks
    axis.set_minor_locator(LogLocator(subs=tuple(range(2, 10)) if decades <= 6.5 else (1.0,), numticks=60))
    if powers >= 3:
        axis.set_major_locator(LogLocator(numticks=8))
        text = _tick_text([low, high])
    else:
        ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if tick > 0]
        if decades >= 0.35:
            exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            factors: tuple[float, ...] = (1, 2, 5) if _is_plain([low, high]) else (1, 3)
            if decades < 0.95:
                factors = (1, 1.5, 2, 3, 4, 5, 7) if _is_plain([low, high]) else (1, 2, 3, 5)
            ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        axis.set_major_locator(FixedLocator(ticks))
        text = _tick_text(ticks or [low, high])
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def _tick_text(values: Sequence[float]) -> Callable[[float], str]:
    """How numbers of this kind are written at an axis: with three digits, or more where these need them."""
    plain = _is_plain(values)
    digits = next((d for d in range(3, 8) if len({f"{value:.{d}g}" for value in values}) == len(set(values))), 8)

    def text(value: float) -> str:
        factor, exponent = f"{value:.{digits - 1}e}".split("e")
        if plain:
            return f"{value:.{max(digits, int(exponent) + 1)}g}"
        power = f"10^{{{int(exponent)}}}"
        return f"${power}$" if float(factor) == 1 else f"${float(factor):g}\\cdot {power}$"

    return text


# --- against strength -------------------------------------------------------------------------------------------------


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
    """Why there is no tipping point, for instance "none in range" or "inconclusive"."""


def strength_figure(
    groups: Sequence[StrengthGroup],
    *,
    strength: str = "alpha",
    metric: str = "top1",
    share: float = 0.8,
    bars: Literal["ci", "range"] | None = None,
) -> Figure:
    """Score against strength on a log axis: a point per trial, the mean per strength with a bar where there are several
    seeds, the baseline's mean dashed. More than four groups get a panel each.

    A fitted tipping point is a vertical line with its interval shaded, and again a bar with caps at the foot of the
    axes, one above the other; the legend (a panel's title) says the numbers or, where there is none, the `note`. The
    threshold of the paper's rule is a ring on the mean, and the level it is judged by (`share` of the reference level)
    dotted; in a group that has neither tipping point nor note it is a vertical line, too.

    `bars`: the mean's 95% t interval ("ci") or the smallest to the largest ("range"); by default the interval, but the
    range where a strength has only two trials. The legend says which. Intervals may reach beyond the axes.

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
        figure, panels = _panels(len(groups), _MAX_GROUPS_ON_ONE_AXES)
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
            _strength_axis(axes, strengths)
            if not one:
                title = _wrapped(members[0][1].label, 34)
                tips = _tips(members[0][1])
                axes.set_title(f"{title}\n{tips}" if tips else title, fontsize=8)
        rows = max(sum(math.isfinite(group.location) for _, group in members) for members in shown)
        _score_axis(panels, scores, ends, _FOOT + _FOOT_STEP * (rows - 0.4) + (0 if one else 0.05) if rows else 0.0)
        _name_axes(figure, panels, axis_name(strength), axis_name(metric))
        if one:
            _legend(figure, _group_handles(groups), "outside upper center")
        _legend(figure, _key_handles(groups, share, bars if several else None, one_axes=one), "outside lower center")
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
    axes.plot(x[~diverged], y[~diverged], marker, color=colour, alpha=0.45, markeredgewidth=0, zorder=2.5)
    axes.plot(x[diverged], y[diverged], "x", color=colour, markersize=5, markeredgewidth=1.1, zorder=2.6)
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


def _group_handles(groups: Sequence[StrengthGroup]) -> list[Any]:
    handles = []
    for index, group in enumerate(groups):
        colour, marker, line = _look(index)
        end = _tips(group)
        if not end and math.isfinite(group.threshold):
            end = f"threshold {group.threshold:.4g}"
        elif not end and math.isfinite(group.level):
            end = "no threshold in range"
        label = _wrapped(group.label, 60)
        if end:
            fits = len(label.splitlines()[-1]) + len(end) <= 62 if label else True
            label += f": {end}" if fits else f":\n{end}"
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=label))
    return handles


def _key_handles(groups: Sequence[StrengthGroup], share: float, bars: str | None, *, one_axes: bool) -> list[Any]:
    """What the marks mean that all groups have."""
    handles: list[Any] = []
    if not one_axes:
        colour, marker, line = _look(0)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label="trial, mean over seeds"))
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
        label = f"{100 * share:.4g}% of the reference level"
        handles.append(Line2D([], [], color=_GREY, linestyle=_LEVEL, linewidth=1.0, label=label))
    if any(math.isfinite(score) for group in groups for score in group.baseline):
        handles.append(Line2D([], [], color=_GREY, linestyle=_BASELINE, linewidth=1.0, label="baseline"))
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
    """Trials of a larger strength are greyed: excluded from what is said about the metric."""
    baseline: Sequence[float] = ()
    """Values of the unregularised trials."""
    note: str = ""
    """What stands in the panel, where it is emptiest, for instance "ρ = .83, p = .0002 (Holm)"."""
    log: bool = False
    """Whether the metric's axis is logarithmic."""


def metric_figure(
    panels: Sequence[MetricPanel], *, strength: str = "alpha", excluded: str = "excluded", columns: int = 2
) -> Figure:
    """Metrics against strength on a log axis: a point per trial with its interval, those that are `excluded` grey and
    hollow, the largest strength that is not as a vertical line, the baseline's mean dashed.

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
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * columns + 0.2, 2.3 * rows + 0.1), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for unused in grid.flat[len(panels) :]:
            unused.remove()
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_metric(axes, panel)
            axes.set(xlabel=axis_name(strength), ylabel=axis_name(panel.metric))
        figure.align_ylabels()
        handles = [Line2D([], [], color=_COLOURS[0], marker="o", linestyle="", label="trial")]
        if any(len(panel.error) for panel in panels):
            handles[0].set_label("trial, 95% interval over images")
        if any(max(panel.strength) > panel.beyond for panel in panels):
            handles.append(Line2D([], [], color="0.6", marker="o", fillstyle="none", linestyle="", label=excluded))
        if any(math.isfinite(panel.beyond) for panel in panels):
            handles.append(Line2D([], [], color=_GREY, linestyle=_LEVEL, linewidth=1.0, label="threshold"))
        if any(len(panel.baseline) for panel in panels):
            handles.append(Line2D([], [], color=_GREY, linestyle=_BASELINE, linewidth=1.0, label="baseline"))
        _legend(figure, handles, "outside lower center")
    return figure


def _draw_metric(axes: Axes, panel: MetricPanel) -> None:
    x, y = np.asarray(panel.strength, float), np.asarray(panel.value, float)
    error = np.asarray(panel.error, float) if len(panel.error) else np.full_like(y, np.nan)
    error = np.nan_to_num(error)
    out = x > panel.beyond
    if panel.log:
        axes.set_yscale("log")
    for chosen, colour, fill in ((~out, _COLOURS[0], "full"), (out, "0.6", "none")):
        axes.errorbar(
            x[chosen], y[chosen], error[chosen], fmt="o", color=colour, fillstyle=fill, markersize=3.6, elinewidth=0.9
        )
    if math.isfinite(panel.beyond):
        axes.axvline(panel.beyond, color=_GREY, linestyle=_LEVEL, linewidth=1.0)
    _draw_baseline(axes, panel.baseline, _GREY)
    _strength_axis(axes, sorted(set(x.tolist())))
    axes.set_title(panel.title, fontsize=8)
    if panel.note:
        base = [value for value in panel.baseline if math.isfinite(value)]
        along = np.geomspace(*axes.get_xlim(), 40 if base else 0)
        level = np.full((3, len(along)), np.mean(base) if base else np.nan)
        _draw_note(axes, panel.note, np.r_[x, along], np.c_[np.stack([y - error, y, y + error]), level])
    if panel.log:
        _log_ticks(axes.yaxis, *axes.get_ylim())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_note(axes: Axes, note: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """In the corner that holds the fewest of the points (N,), (…, N); where all hold some, above them."""
    low, high = axes.get_ylim()
    known = np.isfinite(y).all(axis=0) & ((y > 0).all(axis=0) | (axes.get_yscale() != "log"))
    scale = axes.transScale
    corners = scale.transform([(axes.get_xlim()[0], low), (axes.get_xlim()[1], high)])
    places = (scale.transform(np.c_[np.tile(x[known], len(y)), y[:, known].ravel()]) - corners[0]) / np.ptp(corners, 0)
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


# --- images and maps --------------------------------------------------------------------------------------------------


def saliency_figure(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str], *, image_rows: int = 1
) -> Figure:
    """A row of panels each: `(label, maps (H, W))`. The first `image_rows` are images, in grey; the others saliency
    maps, blue below and red above zero, each on a scale of its own, as their sizes differ by orders of magnitude.

    Raises `ValueError` if there is no row or no title, or a row has not as many maps as there are titles.
    """
    if not rows or not titles:
        raise ValueError("rows, titles: none, allowed is at least one each")
    for label, maps in rows:
        if len(maps) != len(titles):
            raise ValueError(f"{label}: {len(maps)} maps for {len(titles)} titles")
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        size = (0.85 * len(titles) + 0.9, 0.85 * len(rows) + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), len(titles), squeeze=False)
        for index, (label, maps) in enumerate(rows):
            for axes, values in zip(grid[index], maps, strict=True):
                if index < image_rows:
                    axes.imshow(values, cmap="gray", interpolation="nearest")
                else:
                    limit = float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0
                    axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            grid[index, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=8)
    return figure


def map_panels(panels: Sequence[tuple[str, np.ndarray]], *, label: str = "", columns: int = 4) -> Figure:
    """Maps (H, W), each with its title, as heat maps on one common colour scale; `label` is what the scale shows.

    Raises `ValueError` if there is no map, or one that is not two-dimensional or has no finite value.
    """
    if not panels:
        raise ValueError("panels: none, allowed is at least one")
    for title, values in panels:
        if values.ndim != 2 or not np.isfinite(values).any():
            raise ValueError(f"{title}: shape {values.shape}, allowed are two-dimensional maps with finite values")
    low = min(float(np.nanmin(values[np.isfinite(values)])) for _, values in panels)
    high = max(float(np.nanmax(values[np.isfinite(values)])) for _, values in panels)
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.75 * columns + 0.9, 1.95 * rows + 0.1), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for unused in grid.flat[len(panels) :]:
            unused.remove()
        used = list(grid.flat[: len(panels)])
        for axes, (title, values) in zip(used, panels, strict=True):
            image = axes.imshow(values, vmin=low, vmax=high, cmap="cividis", interpolation="nearest")
            axes.set_title(_wrapped(title, 24), fontsize=8)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=used, label=label, fraction=0.05, aspect=max(12, 9 * rows), shrink=0.9, pad=0.03)
    return figure


def cam_panels(
    rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, np.ndarray | None]]]],
    titles: Sequence[str],
    *,
    label: str = "class activation",
    contour: float | None = 0.5,
) -> Figure:
    """A row of panels each: `(label, [(image, map), …])`, an image (H, W) or (H, W, 3) with numbers in [0, 1], in grey,
    and over it a class activation map (h, w) in [0, 1], interpolated to the image's size; None shows the image alone,
    in its colours. One colour bar for all; a line where the map is `contour`, to tell it from the image when printed.

    Raises `ValueError` if there is no row, one has not as many panels as there are titles, or a shape or a number is
    not of the kind said.
    """
    if not rows or not titles:
        raise ValueError("rows, titles: none, allowed is at least one each")
    for name, panels in rows:
        if len(panels) != len(titles):
            raise ValueError(f"{name}: {len(panels)} panels for {len(titles)} titles")
        for image, cam in panels:
            _check_unit(name, image, "an image", (2, 3))
            if cam is not None:
                _check_unit(name, cam, "a map", (2,))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        tall, wide = rows[0][1][0][0].shape[:2]
        longest = max(len(line) for name, _ in rows for line in _wrapped(name, 18).splitlines() or [""])
        size = (1.05 * len(titles) + 0.065 * longest + 0.85, max(1.05 * len(rows) * tall / wide + 0.3, 1.6))
        figure = Figure(figsize=size, layout="compressed")
        grid = figure.subplots(len(rows), len(titles), squeeze=False)
        scale = ScalarMappable(Normalize(0, 1), "inferno")
        for line, (name, panels) in zip(grid, rows, strict=True):
            for axes, (image, cam) in zip(line, panels, strict=True):
                height, width = image.shape[:2]
                under = image if cam is None or image.ndim == 2 else image @ np.array([0.299, 0.587, 0.114])
                axes.imshow(under, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                if cam is not None:
                    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
                    axes.imshow(
                        cam, cmap=scale.cmap, norm=scale.norm, alpha=0.6, interpolation="bilinear", extent=extent
                    )
                    if contour is not None and cam.min() < contour < cam.max():
                        fine = _upsampled(cam, height, width)
                        for colour, thick in (("black", 1.8), ("white", 0.8)):
                            axes.contour(fine, levels=[contour], colors=colour, linewidths=thick)
                axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(_wrapped(name, 18), rotation=0, ha="right", va="center", fontsize=8)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(_wrapped(title, 18), fontsize=8)
        bar = figure.colorbar(scale, ax=grid, label=label, fraction=0.05, aspect=max(10, 10 * len(rows)), pad=0.03)
        if contour is not None:
            bar.ax.axhline(contour, color="black", linewidth=1.8)
            bar.ax.axhline(contour, color="white", linewidth=0.8)
    return figure


def _upsampled(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) → (height, width), bilinear, the outermost values up to the edge."""
    for axis, size in ((0, height), (1, width)):
        known = (np.arange(values.shape[axis]) + 0.5) * size / values.shape[axis] - 0.5
        wanted = np.arange(size)
        values = np.apply_along_axis(lambda line: np.interp(wanted, known, line), axis, values)  # noqa: B023
    return values


def _check_unit(name: str, values: np.ndarray, what: str, dimensions: tuple[int, ...]) -> None:
    if values.ndim not in dimensions or (values.ndim == 3 and values.shape[2] != 3):
        shapes = " or ".join({2: "(H, W)", 3: "(H, W, 3)"}[n] for n in dimensions)
        raise ValueError(f"{name}: {what} of shape {values.shape}, allowed is {shapes}")
    if values.size == 0 or not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{name}: {what} with numbers outside [0, 1], allowed are finite ones inside")


# --- over epochs and layers -------------------------------------------------------------------------------------------


def curves(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    metric: str = "top1",
    band: Band = "range",
    log: bool = False,
    x: str = "epoch",
    title: str = "",
) -> Figure:
    """A metric over epochs, or what `x` says: by group `(epochs (E,), values (S, E))` of S seeds, nan where a seed has
    no value.

    Drawn are the mean over seeds and a band: from the smallest to the largest value ("range"), one or two standard
    deviations each way ("sd", "sd2"), or the mean's 95% t interval ("ci"); the last three need two seeds. More than six
    groups get a panel each, with the others' means in grey. The legend begins with the `title`. Raises `ValueError` if
    there is no group, the shapes do not fit, or the band is another.
    """
    if not groups:
        raise ValueError("groups: none, allowed is at least one")
    for label, (epochs, values) in groups.items():
        if values.ndim != 2 or values.shape[1] != len(epochs):
            raise ValueError(f"{label}: values of shape {values.shape} for {len(epochs)} epochs")
    lines = {}
    for label, (epochs, values) in groups.items():
        known = np.isfinite(values).any(axis=0)
        lines[label] = np.asarray(epochs)[known], _summary(values[:, known].astype(float), band)[:3]
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(groups), _MAX_CURVES_ON_ONE_AXES)
        counts = {label: len(values) for label, (_, values) in groups.items()}
        _draw_bands(figure, panels, lines, counts, band, log, title=title)
        for axes in panels:
            axes.xaxis.set_major_locator(MaxNLocator(integer=x == "epoch"))
        _name_axes(figure, panels, axis_name(x), axis_name(metric))
    return figure


def panel_curves(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    metric: str,
    band: Band = "sd2",
    x: str = "epoch",
    title: str = "",
) -> Figure:
    """`curves` with a panel for each part, such as a layer, on common axes: `{part: {group: (epochs (E,), values
    (S, E))}}`. Up to six groups, which look the same in every panel. Raises `ValueError` as `curves` does, for other
    numbers of groups, and if there is no part.
    """
    names = list(dict.fromkeys(name for groups in panels.values() for name in groups))
    if not panels or not 0 < len(names) <= _MAX_CURVES_ON_ONE_AXES:
        raise ValueError(
            f"panels: {len(panels)} of {len(names)} groups, allowed are at least one of 1 to {_MAX_CURVES_ON_ONE_AXES}"
        )
    counts: dict[str, int] = {}
    with mpl.rc_context(STYLE):
        figure, grid = _panels(len(panels), 0)
        for axes, (part, groups) in zip(grid, panels.items(), strict=True):
            for name, (epochs, values) in groups.items():
                if values.ndim != 2 or values.shape[1] != len(epochs):
                    raise ValueError(f"{part}, {name}: values of shape {values.shape} for {len(epochs)} epochs")
                known = np.isfinite(values).any(axis=0)
                mean, low, high, _ = _summary(values[:, known].astype(float), band)
                colour, marker, line = _look(names.index(name))
                at = np.asarray(epochs)[known]
                axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
                axes.plot(at, mean, linestyle=line, color=colour, marker=marker, markersize=3)
                counts[name] = max(counts.get(name, 0), len(values))
            axes.set_title(_short_layers([part])[0], fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=x == "epoch", nbins=5))
        handles = []
        for index, name in enumerate(names):
            colour, marker, line = _look(index)
            text = f"{_wrapped(name, 60)} (n = {counts[name]})"
            handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=text))
        _legend(figure, handles, "outside upper center", _band_title(title, band))
        _name_axes(figure, grid, axis_name(x), axis_name(metric))
    return figure


def _band_title(title: str, band: str) -> str:
    return ": ".join(part for part in (title, f"mean and {_BANDS[band]}".replace("and ±", "±")) if part)


def _draw_bands(
    figure: Figure,
    panels: Sequence[Axes],
    lines: Mapping[str, tuple[np.ndarray, tuple[np.ndarray, ...]]],
    counts: Mapping[str, int],
    band: str,
    log: bool,
    key: Sequence[Any] = (),
    *,
    title: str = "",
    ordered: bool = False,
) -> None:
    """Means with bands, `{label: (x, (mean, low, high))}`, all on one axes or each on its own, with legends. `ordered`
    groups darken from the first to the last, where they are on one axes."""
    one = len(panels) == 1
    shades = _shades(len(lines)) if one and ordered else []
    labels = {label: f"{_wrapped(label, 60 if one else 30)} (n = {counts[label]})" for label in lines}
    handles = []
    for index, (label, (x, (mean, low, high))) in enumerate(lines.items()):
        look = 0 if not one else index
        colour, marker, line = _look(look)
        if shades:
            colour, line = shades[index], "-"
        axes = panels[0] if one else panels[index]
        if not one:
            for other, (other_x, (other_mean, *_)) in lines.items():
                if other != label:
                    axes.plot(other_x, other_mean, color="0.8", linewidth=0.7, zorder=1.8)
            axes.set_title(labels[label], fontsize=8)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        every = max(1, len(x) // 8)
        axes.plot(x, mean, linestyle=line, color=colour, marker=marker, markevery=(look % every, every))
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=labels[label]))
    if log:
        for axes in panels:
            axes.set_yscale("log")
        # a band that reaches zero would take the axis with it
        means = np.concatenate([mean for _, (mean, _, _) in lines.values()])
        parts = [np.ravel(part) for _, summary in lines.values() for part in summary]
        seen = np.concatenate(parts)
        seen = seen[np.isfinite(seen) & (seen > 0)]
        if (means > 0).any():
            panels[0].set_ylim(max(seen.min(), means[means > 0].min() / 10) / 1.15, seen.max() * 1.15)
        for axes in panels:
            _log_ticks(axes.yaxis, *axes.get_ylim())
    title = _band_title(title, band)
    if one:
        _legend(figure, handles, "outside upper center", title)
        _legend(figure, key, "outside lower center")
    else:
        colour, marker, line = _look(0)
        own = Line2D([], [], color=colour, marker=marker, linestyle=line, label=title)
        others = Line2D([], [], color="0.8", linewidth=0.7, label="means of the other panels")
        _legend(figure, [own, others, *key], "outside lower center")


def _shades(count: int) -> list[str]:
    """Colours of one hue from light to dark, the lightest still to be seen on white."""
    scale = mpl.colormaps["Blues"]
    return [to_hex(scale(place)) for place in np.linspace(0.35, 1, count)]


_KINDS: tuple[dict[str, Any], ...] = (
    {"facecolor": "0.87", "edgecolor": "none"},
    {"facecolor": "none", "edgecolor": "0.78", "hatch": "////", "linewidth": 0},
    {"facecolor": "none", "edgecolor": "0.72", "hatch": "....", "linewidth": 0},
    {"facecolor": "none", "edgecolor": "0.82", "hatch": "xxxx", "linewidth": 0},
)


def layer_profile(
    groups: Mapping[str, tuple[Sequence[str], np.ndarray]],
    *,
    metric: str,
    layers: Sequence[str] | None = None,
    band: Band = "sd2",
    log: bool = False,
    kinds: Mapping[str, str] | None = None,
    reference: tuple[str, ArrayLike] | None = None,
    ordered: bool = False,
    title: str = "",
) -> Figure:
    """A metric by layer: by group `(names (L,), values (S, L))` of S seeds, nan where a seed has no value.

    The layers stand in the order of `layers` (others are left out), by default in that in which they first appear.
    Drawn are the mean over seeds and a band (see `curves`), a gap where a group lacks a layer; `kinds` says which kind
    a layer is of, e.g. {"down1": "downsampling"}: its layers are shaded, up to four kinds apart. `reference` are a name
    and a value for each layer, a dotted black line. Groups that are `ordered` darken from the first to the last. The
    legend begins with the `title`. Names lose the beginning that all share. More than six groups get a panel each.

    Raises `ValueError` if there is no group or no layer, a group has a layer twice or none that is shown, the shapes do
    not fit, there are more than four kinds, or the band is another.
    """
    if not groups:
        raise ValueError("groups: none, allowed is at least one")
    for label, (names, values) in groups.items():
        if values.ndim != 2 or values.shape[1] != len(names):
            raise ValueError(f"{label}: values of shape {values.shape} for {len(names)} layers")
        if len(set(names)) != len(names):
            raise ValueError(f"{label}: a layer twice, allowed is once each")
    order = list(dict.fromkeys(name for names, _ in groups.values() for name in names) if layers is None else layers)
    if not order or len(set(order)) != len(order):
        raise ValueError(f"layers: {order}, allowed is at least one, each once")
    if reference is not None and np.shape(reference[1]) != (len(order),):
        raise ValueError(f"reference: of shape {np.shape(reference[1])} for {len(order)} layers")
    lines = {}
    for label, (names, values) in groups.items():
        place = {name: index for index, name in enumerate(names)}
        shown = np.full((len(values), len(order)), np.nan)
        for index, name in enumerate(order):
            if name in place:
                shown[:, index] = values[:, place[name]]
        if not np.isfinite(shown).any():
            raise ValueError(f"{label}: no value of a layer that is shown, allowed is at least one")
        lines[label] = np.arange(len(order)), _summary(shown, band)[:3]
    found = list(dict.fromkeys(kinds[name] for name in order if name in kinds)) if kinds else []
    if len(found) > len(_KINDS):
        raise ValueError(f"kinds: {', '.join(found)}, allowed are up to {len(_KINDS)}")
    with mpl.rc_context(STYLE):
        names = _short_layers(order)
        size = min(9.0, max(5.2, 0.19 * len(order) + 1.4)), 2.5 + 0.06 * max(map(len, names))
        figure, panels = _panels(len(groups), _MAX_CURVES_ON_ONE_AXES, size)
        for axes in panels:
            for index, name in enumerate(order):
                if kinds and name in kinds:
                    axes.axvspan(index - 0.5, index + 0.5, zorder=0.5, **_KINDS[found.index(kinds[name])])
        counts = {label: len(values) for label, (_, values) in groups.items()}
        key: list[Any] = [Patch(**_KINDS[index], label=kind) for index, kind in enumerate(found)]
        if reference is not None:
            name, at = reference
            for axes in panels:
                axes.plot(np.arange(len(order)), at, color="black", linestyle=_LEVEL)
            key.append(Line2D([], [], color="black", linestyle=_LEVEL, label=name))
        _draw_bands(figure, panels, lines, counts, band, log, key, title=title, ordered=ordered)
        _layer_axis(panels, names)
        _name_axes(figure, panels, "layer", axis_name(metric))
    return figure


def _short_layers(order: Sequence[str]) -> list[str]:
    """Without the beginning ("features.") that all with a dot in their names share, and at most 22 letters."""
    dotted = [name.split(".")[:-1] for name in order if "." in name]
    common = list(itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*dotted, strict=False)))
    start = ".".join([*(parts[0] for parts in common), ""]) if common else ""
    names = [name.removeprefix(start) for name in order]
    if len(set(names)) < len(names):
        names = list(order)
    return [name if len(name) <= 22 else f"{name[:9]}…{name[-12:]}" for name in names]


def _layer_axis(panels: Sequence[Axes], names: Sequence[str]) -> None:
    figure, spec = panels[0].figure, panels[0].get_subplotspec()
    assert isinstance(figure, Figure)
    assert spec is not None
    room = (figure.get_figwidth() / spec.get_gridspec().ncols - 0.8) / len(names)
    # as wide as the longest name at 8 pt, or as high as a line of it
    level = 0.065 * max(map(len, names)) + 0.06 < room
    every = 1 if level else max(1, math.ceil(0.135 / room))
    for axes in panels:
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.xaxis.set_major_locator(FixedLocator(list(range(0, len(names), every))))
        axes.xaxis.set_minor_locator(FixedLocator(list(range(len(names)))) if every > 1 else NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names[round(value)]))
        axes.grid(False, axis="x")
        if not level:
            axes.tick_params(axis="x", labelrotation=90, labelsize=7 if every > 1 or room < 0.16 else 8)


# --- settings against each other --------------------------------------------------------------------------------------


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
) -> Figure:
    """Two metrics against each other: a point per setting, the mean over seeds, with error bars both ways where there
    are several (`bars`, see `curves`). Settings whose means no other setting of any group beats are filled, named and
    joined by the line that bounds what they beat; the others are hollow. Arrows at the axes point to the better side.

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
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
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
            handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", label=_wrapped(group.label, 50)))
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
        axes.set_xlabel(f"{axis_name(x)}, {arrows[x_direction]}")
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
    with mpl.rc_context({**STYLE, "axes.grid": False}):
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


# --- differences ------------------------------------------------------------------------------------------------------


_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "0.45"
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


def forest_figure(rows: Sequence[ForestRow], *, label: str, beside: str = "", title: str = "") -> Figure:
    """Differences with their intervals, one under the other; an interval far wider than the differences runs off the
    edge, and a difference far larger than most is an arrow there. `label` is what stands at the axis, `beside` above
    the entries on the right.

    Raises `ValueError` if there is no row, or one of another kind.
    """
    if not rows:
        raise ValueError("rows: none, allowed is at least one")
    for row in rows:
        if row.kind not in _FOREST:
            raise ValueError(f"{row.label}: kind {row.kind!r}, allowed are {', '.join(_FOREST)}")
    names = [textwrap.fill(row.label, 46) for row in rows]
    lines = sum(max(1, name.count("\n") + 1) for name in names)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6.4, 1.25 + 0.19 * max(lines, 3)), layout="constrained")
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
        axes.set_xlabel(label)
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
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.4)
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


# --- files ------------------------------------------------------------------------------------------------------------

_FILES = ("png", "svg", "pdf")


def render(
    figure: Figure, sweep: Sweep, title: str, kind: str, images: int | str | None = None, *, dpi: int = 200
) -> bytes:
    """The figure as a file of this kind: "png", "svg" or "pdf". Equal figures give equal bytes, in whatever
    order: the first call lays the figure out and fixes that.

    The metadata name the title, the sweep, its numbers of trials and seeds, the number of images (128, or "128 test
    images") if given, and the hash of its record's content. Raises `ValueError` for another kind.
    """
    if kind not in _FILES:
        raise ValueError(f"kind: {kind!r}, allowed are {', '.join(_FILES)}")
    parts = [f"sweep {sweep.name}"]
    parts += [count(len(sweep.trials), "trial"), replicates(sweep.trials.select(["seed", "fold"]).to_pylist())]
    if images is not None:
        parts.append(images if isinstance(images, str) else f"{images} images")
    source = ", ".join([*parts, f"record {sweep.content_hash}"])
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Title": title, "Description": source},
        "svg": {"Title": title, "Description": source, "Date": None},  # no dates: equal figures give equal files
        "pdf": {"Title": title, "Subject": source, "CreationDate": None},
    }
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # else each drawing would start from the one before, and move things
        figure.savefig(content, format=kind, dpi=dpi, metadata=metadata[kind])
    return content.getvalue()


def files(figure: Figure, stem: str, sweep: Sweep, *, images: int | str | None = None) -> dict[str, bytes]:
    """`<stem>.png`, `.svg` and `.pdf` (see `render`), by their names."""
    title = f"{stem.rstrip('/').rsplit('/', 1)[-1]} of sweep {sweep.name}"
    return {f"{stem}.{kind}": render(figure, sweep, title, kind, images) for kind in _FILES}


def save(figure: Figure, stem: str, sweep: Sweep, *, images: int | str | None = None) -> list[str]:
    """Write `files` locally or on S3, each atomically; their paths. Raises `InputError` if they cannot be written."""
    return [write_file(name, content) for name, content in files(figure, stem, sweep, images=images).items()]
