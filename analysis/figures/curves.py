"""A metric over epochs, or by layer, with bands over seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from analysis.figures.style import (
    _BANDS,
    _LEVEL,
    STYLE,
    Band,
    _handle,
    _legend,
    _log_ticks,
    _look,
    _name_axes,
    _panels,
    _summary,
    _thinned,
    _width,
    _wrapped,
    axis_name,
)

_MAX_CURVES_ON_ONE_AXES = 6


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
        shown, said = _thin(lines, _width(panels[0]))
        title = "; ".join(part for part in (title, said) if part)
        _draw_bands(figure, panels, shown, counts, band, log, title=title)
        for axes in panels:
            axes.xaxis.set_major_locator(MaxNLocator(integer=x == "epoch"))
        _name_axes(figure, panels, axis_name(x), axis_name(metric))
    return figure


_Lines = Mapping[str, tuple[np.ndarray, tuple[np.ndarray, ...]]]


def _thin(lines: _Lines, width: float) -> tuple[_Lines, str]:
    """The lines with no more points than there are pixels across so many inches, and what has to be said of it."""
    thin, said = {}, ""
    for label, (at, parts) in lines.items():
        shown, words = _thinned(len(at), width)
        thin[label] = at[shown], tuple(part[shown] for part in parts)
        said = said or words
    return thin, said


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
    said = ""
    with mpl.rc_context(STYLE):
        figure, grid = _panels(len(panels), 0)
        for axes, (part, groups) in zip(grid, panels.items(), strict=True):
            for name, (epochs, values) in groups.items():
                if values.ndim != 2 or values.shape[1] != len(epochs):
                    raise ValueError(f"{part}, {name}: values of shape {values.shape} for {len(epochs)} epochs")
                known = np.isfinite(values).any(axis=0)
                mean, low, high, _ = _summary(values[:, known].astype(float), band)
                colour, marker, line = _look(names.index(name))
                shown, words = _thinned(int(known.sum()), _width(axes))
                said = said or words
                at, mean, low, high = np.asarray(epochs)[known][shown], mean[shown], low[shown], high[shown]
                axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
                axes.plot(at, mean, linestyle=line, color=colour, marker=marker, markersize=3)
                counts[name] = max(counts.get(name, 0), len(values))
            axes.set_title(_short_layers([part])[0], fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=x == "epoch", nbins=5))
        handles = []
        for index, name in enumerate(names):
            handles.append(_handle(index, f"{_wrapped(name, 60)} (n = {counts[name]})"))
        title = "; ".join(part for part in (title, said) if part)
        _legend(figure, handles, "outside upper center", _band_title(title, band))
        _name_axes(figure, grid, axis_name(x), axis_name(metric))
    return figure


def _band_title(title: str, band: str) -> str:
    return ": ".join(part for part in (title, f"mean and {_BANDS[band]}".replace("and ±", "±")) if part)


def _draw_bands(
    figure: Figure,
    panels: Sequence[Axes],
    lines: _Lines,
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
        handles.append(_handle(look, labels[label], color=colour, linestyle=line))
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
        own = _handle(0, title)
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
    room = (_width(panels[0]) - 0.8) / len(names)
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
