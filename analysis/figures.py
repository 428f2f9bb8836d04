"""Figures in one style, that stay readable when printed in grey: groups differ by marker and line as well as colour."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

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

_MAX_GROUPS_ON_ONE_AXES = 4
_NAMES = {
    "alpha": "strength α",
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "loss": "cross-entropy (nats)",
    "total_variation": "total variation of the landscape",
    "epoch": "epoch",
    "faithfulness": "Faithfulness Estimate",
    "local_lipschitz": "local Lipschitz estimate",
    "max_sensitivity": "Max-Sensitivity",
    "entropy": "entropy (nats)",
}


def axis_name(column: str) -> str:
    """What stands at an axis that shows this column."""
    return _NAMES.get(column, column.replace("_", " "))


def _look(index: int) -> tuple[str, str, Any]:
    """Colour, marker and line of a group."""
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)], _LINES[index % len(_LINES)]


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


def strength_figure(
    groups: Sequence[StrengthGroup], *, strength: str = "alpha", metric: str = "top1", share: float = 0.8
) -> Figure:
    """Score against strength on a log axis: a point per trial, the mean per strength, the threshold as a vertical line
    and a ring, the level it is judged by (`share` of the reference level) dotted, the baseline's mean dashed. More than
    four groups get a panel each.

    Raises `ValueError` if there is no group.
    """
    if not groups:
        raise ValueError("groups: none, allowed is at least one")
    with mpl.rc_context(STYLE):
        if len(groups) <= _MAX_GROUPS_ON_ONE_AXES:
            figure = Figure(figsize=(5.2, 3.6), layout="constrained")
            axes = figure.add_subplot()
            panels = [(axes, list(enumerate(groups)))]
        else:
            columns = 3 if len(groups) <= 9 else 4
            rows = math.ceil(len(groups) / columns)
            figure = Figure(figsize=(2.4 * columns + 0.4, 1.95 * rows + 0.7), layout="constrained")
            grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
            for unused in grid.flat[len(groups) :]:
                unused.remove()
            panels = [(axes, [(0, group)]) for axes, group in zip(grid.flat, groups, strict=False)]
        for axes, shown in panels:
            common = len({tuple(group.baseline) for _, group in shown}) == 1
            for index, group in shown:
                _draw_group(axes, group, index, baseline=not common)
            if common:
                _draw_baseline(axes, shown[0][1].baseline, "0.35")
        strengths = sorted({float(x) for group in groups for x in group.strength})
        for axes, shown in panels:
            _strength_axis(axes, strengths)
            if len(panels) > 1:
                axes.set_title(_wrapped(shown[0][1].label, 34), fontsize=8)
                # with panels left out of the last row, the axis of those above them would have no numbers
                axes.tick_params(labelbottom=_is_lowest(panels, axes))
        scores = [float(y) for group in groups for y in [*group.score, *group.baseline]]
        _score_axis([axes for axes, _ in panels], scores)
        for axes, _ in panels:
            if _is_lowest(panels, axes):
                axes.set_xlabel(axis_name(strength))
            if _place(axes)[1] == 0:
                axes.set_ylabel(axis_name(metric))
        if len(panels) == 1:
            _legend(figure, _group_handles(groups), "outside upper center")
        _legend(figure, _key_handles(groups, share, one_axes=len(panels) == 1), "outside lower center")
    return figure


def _draw_group(axes: Axes, group: StrengthGroup, index: int, *, baseline: bool) -> None:
    colour, marker, line = _look(index)
    x, y = np.asarray(group.strength, float), np.asarray(group.score, float)
    diverged = np.asarray(group.diverged, bool)
    axes.plot(x[~diverged], y[~diverged], marker, color=colour, alpha=0.45, markeredgewidth=0, zorder=2.5)
    axes.plot(x[diverged], y[diverged], "x", color=colour, markersize=5, markeredgewidth=1.1, zorder=2.6)
    swept = np.unique(x)
    axes.plot(swept, [y[x == value].mean() for value in swept], linestyle=line, color=colour, zorder=3)
    if math.isfinite(group.level):
        axes.axhline(group.level, color=colour, linestyle=_LEVEL, linewidth=1.0)
    if math.isfinite(group.threshold):
        axes.axvline(group.threshold, color=colour, linestyle=line, linewidth=0.9, alpha=0.9)
        mean = y[x == group.threshold].mean()
        axes.plot([group.threshold], [mean], marker, color=colour, fillstyle="none", markersize=8, zorder=4)
    if baseline:
        _draw_baseline(axes, group.baseline, colour)


def _draw_baseline(axes: Axes, scores: Sequence[float], colour: str) -> None:
    if len(scores):
        axes.axhline(float(np.mean(scores)), color=colour, linestyle=_BASELINE, linewidth=1.0, zorder=1.5)


def _strength_axis(axes: Axes, strengths: Sequence[float]) -> None:
    axes.set_xscale("log")
    decades = math.log10(strengths[-1] / strengths[0])
    if decades < 1:
        # fewer than two powers of ten in view: the swept values themselves, no more than fit
        step = max(1, math.ceil(len(strengths) / 6))
        axes.xaxis.set_major_locator(FixedLocator(strengths[::step]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_minor_locator(LogLocator(subs=tuple(range(2, 10)) if decades <= 6 else (1.0,), numticks=60))
    plain = strengths[0] >= 0.001 and strengths[-1] < 10000
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if plain else _power(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    margin = 10 ** max(0.04 * decades, 0.02)
    axes.set_xlim(strengths[0] / margin, strengths[-1] * margin)


def _power(value: float) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = value / 10**exponent
    return f"$10^{{{exponent}}}$" if math.isclose(factor, 1) else f"${factor:.3g}\\cdot 10^{{{exponent}}}$"


def _score_axis(panels: Sequence[Axes], scores: Sequence[float]) -> None:
    low, high = min(scores), max(scores)
    margin = 0.06 * (high - low) or 0.05
    for axes in panels:
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(6))


def _place(axes: Axes) -> tuple[int, int]:
    """Row and column of a panel."""
    spec = axes.get_subplotspec()
    assert spec is not None
    return spec.rowspan.start, spec.colspan.start


def _is_lowest(panels: Sequence[tuple[Axes, Any]], axes: Axes) -> bool:
    row, column = _place(axes)
    return not any(_place(other) == (row + 1, column) for other, _ in panels)


def _group_handles(groups: Sequence[StrengthGroup]) -> list[Line2D]:
    handles = []
    for index, group in enumerate(groups):
        colour, marker, line = _look(index)
        if math.isfinite(group.threshold):
            end = f": threshold {group.threshold:.4g}"
        else:
            end = ": no threshold in range" if math.isfinite(group.level) else ""
        label = _wrapped(f"{group.label}{end}", 60)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=label))
    return handles


def _key_handles(groups: Sequence[StrengthGroup], share: float, *, one_axes: bool) -> list[Line2D]:
    """What the marks mean that all groups have."""
    grey = "0.35"
    handles = []
    if not one_axes:
        colour, marker, line = _look(0)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label="trial, mean over seeds"))
    if any(math.isfinite(group.threshold) for group in groups):
        ring = Line2D([], [], color=grey, marker="o", fillstyle="none", markersize=7, linestyle="")
        ring.set_label("threshold")
        handles.append(ring)
    if any(math.isfinite(group.level) for group in groups):
        label = f"{100 * share:.4g}% of the reference level"
        handles.append(Line2D([], [], color=grey, linestyle=_LEVEL, linewidth=1.0, label=label))
    if any(len(group.baseline) for group in groups):
        handles.append(Line2D([], [], color=grey, linestyle=_BASELINE, linewidth=1.0, label="baseline"))
    if any(any(group.diverged) for group in groups):
        handles.append(Line2D([], [], color=grey, marker="x", linestyle="", label="diverged"))
    return handles


def _legend(
    figure: Figure, handles: Sequence[Line2D], place: Literal["outside upper center", "outside lower center"]
) -> None:
    if not handles:
        return
    longest = max(len(line) for handle in handles for line in str(handle.get_label()).splitlines())
    # an entry is as wide as its letters at 8 pt and the sample of its line
    columns = max(1, min(len(handles), int(figure.get_figwidth() // (0.062 * longest + 0.45))))
    figure.legend(handles=handles, loc=place, ncols=columns, columnspacing=1.4, handlelength=2.4)


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


def metric_figure(
    panels: Sequence[MetricPanel], *, strength: str = "alpha", excluded: str = "excluded", columns: int = 2
) -> Figure:
    """Metrics against strength on a log axis: a point per trial with its interval, those that are `excluded` grey and
    hollow, the largest strength that is not as a vertical line, the baseline's mean dashed.

    Raises `ValueError` if there is no panel.
    """
    if not panels:
        raise ValueError("panels: none, allowed is at least one")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * columns + 0.2, 2.3 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for unused in grid.flat[len(panels) :]:
            unused.remove()
        for axes, panel in zip(grid.flat, panels, strict=False):
            x, y = np.asarray(panel.strength, float), np.asarray(panel.value, float)
            error = np.asarray(panel.error, float) if len(panel.error) else np.full_like(y, np.nan)
            out = x > panel.beyond
            for chosen, colour, fill in ((~out, _COLOURS[0], "full"), (out, "0.6", "none")):
                axes.errorbar(
                    x[chosen],
                    y[chosen],
                    np.nan_to_num(error[chosen]),
                    fmt="o",
                    color=colour,
                    fillstyle=fill,
                    markersize=3.6,
                    elinewidth=0.9,
                )
            if math.isfinite(panel.beyond):
                axes.axvline(panel.beyond, color="0.35", linestyle=_LEVEL, linewidth=1.0)
            _draw_baseline(axes, panel.baseline, "0.35")
            _strength_axis(axes, sorted(set(x.tolist())))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.set_title(panel.title, fontsize=8)
            axes.set(xlabel=axis_name(strength), ylabel=axis_name(panel.metric))
        grey = "0.35"
        handles = [Line2D([], [], color=_COLOURS[0], marker="o", linestyle="", label="trial")]
        if any(len(panel.error) for panel in panels):
            handles[0].set_label("trial, 95% interval over images")
        if any(max(panel.strength) > panel.beyond for panel in panels):
            handles.append(Line2D([], [], color="0.6", marker="o", fillstyle="none", linestyle="", label=excluded))
        if any(math.isfinite(panel.beyond) for panel in panels):
            handles.append(Line2D([], [], color=grey, linestyle=_LEVEL, linewidth=1.0, label="threshold"))
        if any(len(panel.baseline) for panel in panels):
            handles.append(Line2D([], [], color=grey, linestyle=_BASELINE, linewidth=1.0, label="baseline"))
        _legend(figure, handles, "outside lower center")
    return figure


def saliency_figure(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str], *, image_rows: int = 1
) -> Figure:
    """A row of panels each: `(label, maps (H, W))`. The first `image_rows` are images, in grey; the others saliency
    maps, blue below and red above zero, each on a scale of its own, as their sizes differ by orders of magnitude.

    Raises `ValueError` if a row has not as many maps as there are titles.
    """
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
                    limit = float(np.nanmax(np.abs(values))) or 1.0
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


def curves(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    metric: str = "top1",
    band: Literal["range", "sd"] = "range",
    log: bool = False,
) -> Figure:
    """A metric over epochs: by group `(epochs (E,), values (S, E))` of S seeds, nan where a seed has no value.

    Drawn are the mean over seeds and a band, from the smallest to the largest value or one standard deviation each way.
    Raises `ValueError` if there is no group or the shapes do not fit.
    """
    if not groups:
        raise ValueError("groups: none, allowed is at least one")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        handles = []
        for index, (label, (epochs, values)) in enumerate(groups.items()):
            if values.ndim != 2 or values.shape[1] != len(epochs):
                raise ValueError(f"{label}: values of shape {values.shape} for {len(epochs)} epochs")
            colour, marker, line = _look(index)
            known = np.isfinite(values).any(axis=0)
            x, y = np.asarray(epochs)[known], np.ma.masked_invalid(values[:, known])
            mean = np.asarray(y.mean(axis=0))
            if band == "range":
                low, high = np.asarray(y.min(axis=0)), np.asarray(y.max(axis=0))
            else:
                # the standard deviation of a sample: no band where there is only one seed
                count = y.count(axis=0)
                spread = np.sqrt(np.asarray(y.var(axis=0)) * count / np.maximum(count - 1, 1))
                low, high = mean - spread, mean + spread
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            every = max(1, len(x) // 8)
            axes.plot(x, mean, linestyle=line, color=colour, marker=marker, markevery=(index % every, every))
            text = f"{_wrapped(label, 60)} (n = {len(values)})"
            handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=text))
        if log:
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=axis_name(metric))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, handles, "outside upper center")
    return figure


def save(figure: Figure, stem: str, sweep: Sweep) -> list[str]:
    """Write `<stem>.png` (200 dpi), `.svg` and `.pdf`, locally or on S3, each atomically; their paths.

    The files' metadata name the sweep, its numbers of trials and seeds and the hash of its record's content.
    Raises `InputError` if they cannot be written.
    """
    seeds = len(set(sweep.trials["seed"].drop_null().to_pylist()))
    title = f"{stem.rstrip('/').rsplit('/', 1)[-1]} of sweep {sweep.name}"
    source = f"sweep {sweep.name}, {len(sweep.trials)} trials, {seeds} seeds, record {sweep.content_hash}"
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Title": title, "Description": source},
        "svg": {"Title": title, "Description": source, "Date": None},  # no dates: equal figures give equal files
        "pdf": {"Title": title, "Subject": source, "CreationDate": None},
    }
    written = []
    for kind, entries in metadata.items():
        content = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(content, format=kind, dpi=200, metadata=entries)
        written.append(write_file(f"{stem}.{kind}", content.getvalue()))
    return written
