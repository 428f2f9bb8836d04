"""What all figures have in common: colours, marks, bands over seeds, panels, legends, log axes, numbers in words."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray
from scipy import special

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # where it would be put, too, after looking for what stands above the axes
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
    "text.parse_math": False,  # a name with two dollars is no formula
    "svg.hashsalt": "analysis",  # equal figures give equal files
}

_BARE: Any = {**STYLE, "axes.grid": False}

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

_GREY = "0.45"
_NAMES = {
    # strengths and other settings
    "alpha": "strength α",
    "alpha_per_image": "strength α (per image)",
    "alpha_batch": "strength α (sum over the batch)",
    "alpha_element": "strength α (mean over all values)",
    "alpha_pixel": "strength α (mean over an image's values)",
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
    "completeness_gap": "gap between attributions and what they explain",
    "robust_accuracy": "robust accuracy (class unchanged)",
    "robust_accuracy_correct": "robust accuracy (class correct)",
    "zero_gradient_share": "images without a gradient",
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
        half = {"sd": 1.0, "sd2": 2.0}.get(band, special.stdtrit(n - 1, 0.975) / np.sqrt(n)) * spread
    return mean, mean - half, mean + half, n


def _padded(rows: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Rows of different lengths as columns, filled up with nan."""
    columns = [np.atleast_1d(np.asarray(row, dtype=float)) for row in rows]
    table = np.full((max(map(len, columns), default=0), len(columns)), np.nan)
    for index, column in enumerate(columns):
        table[: len(column), index] = column
    return table


NARROW = 3.5
"""Width of a figure that is as wide as a telephone's screen, in inches: its letters keep their size there."""


def _panels(
    count: int, most: int, size: tuple[float, float] = (5.2, 2.9), *, narrow: bool = False
) -> tuple[Figure, list[Axes]]:
    """One axes for all groups, or from `most` + 1 on a grid with one each, on common axes; `narrow`: see `NARROW`."""
    if count <= most:
        figure = Figure(figsize=(NARROW, size[1]) if narrow else size, layout="constrained")
        return figure, [figure.add_subplot()]
    usual = 3 if count <= 9 else 4
    columns = min((usual, 7 - usual), key=lambda n: -count % n)
    if narrow:
        columns = 1 if count <= 8 else 2
    rows = math.ceil(count / columns)
    width = NARROW if narrow else 2.4 * columns + 0.4
    figure = Figure(figsize=(width, 1.85 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    # the places left over are in the first row: the numbers at the axis stand below the last, for all columns
    unused = -count % columns
    for axes in grid[0, columns - unused :]:
        axes.remove()
    return figure, [*grid[0, : columns - unused], *grid[1:].flat]


def _grid(count: int, columns: int, size: tuple[float, float], more: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """So many axes, row by row in so many columns, of `size` each and `more` around them, in inches."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(size[0] * columns + more[0], size[1] * rows + more[1]), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for unused in grid.flat[count:]:
        unused.remove()
    return figure, list(grid.flat[:count])


def _columns(axes: Axes) -> int:
    """How many axes stand beside each other in its figure."""
    spec = axes.get_subplotspec()
    assert spec is not None
    columns: int = spec.get_gridspec().ncols
    return columns


def _width(axes: Axes) -> float:
    """Its share of the figure's width, in inches."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure.get_figwidth() / _columns(axes)


_PIXELS = 200
"""To an inch: of the PNG files."""


def _thinned(places: int, width: float) -> tuple[NDArray[np.int64], str]:
    """Which of so many places on a line are drawn across so many inches: all, or evenly chosen no more than there are
    pixels, the first and the last among them; and what has to be said of it."""
    most = max(2, int(_PIXELS * width))
    if places <= most:
        return np.arange(places), ""
    return np.unique(np.linspace(0, places - 1, most).round().astype(np.int64)), f"{most} of {places} points drawn"


def _pixels(axes: Axes) -> tuple[int, int]:
    """Of axes on a grid, about: across and up."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    rows = math.ceil(len(figure.axes) / _columns(axes))
    return int(_PIXELS * _width(axes)), int(_PIXELS * figure.get_figheight() / rows)


def _apart(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of these points, x as it is drawn, are drawn: all, or where they are more than the axes have pixels, of
    those on one pixel the first."""
    if len(x) <= math.prod(_pixels(axes)):
        return np.arange(len(x))
    with np.errstate(invalid="ignore", divide="ignore"):
        places = x, np.log(y) if axes.get_yscale() == "log" else y
    known = np.flatnonzero(np.isfinite(places).all(axis=0))
    across, up = (
        np.floor((at[known] - at[known].min()) / (np.ptp(at[known]) or 1) * (pixels - 1)).astype(np.int64)
        for at, pixels in zip(places, _pixels(axes), strict=True)
    )
    return np.sort(known[np.unique(across * _pixels(axes)[1] + up, return_index=True)[1]])


def _without_axis(axes: Axes) -> None:
    """Of an image: no ticks and no frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _name_axes(figure: Figure, panels: Sequence[Axes], x: str, y: str) -> None:
    if len(panels) == 1:
        panels[0].set(xlabel=x, ylabel=y)
    else:
        figure.supylabel(y, fontsize=9)
        for axes in panels[-_columns(panels[-1]) :]:
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


def _handle(index: int, label: str, **options: Any) -> Line2D:
    """Mark and line of a group for the legend."""
    colour, marker, line = _look(index)
    return Line2D([], [], **{"color": colour, "marker": marker, "linestyle": line, "label": label, **options})


def _rule_handle(line: Any, label: str) -> Line2D:
    """A line across the axes for the legend, such as a level."""
    return Line2D([], [], color=_GREY, linestyle=line, linewidth=1.0, label=label)


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
        power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
        return power if float(factor) == 1 else f"{float(factor):g}·{power}"

    return text
