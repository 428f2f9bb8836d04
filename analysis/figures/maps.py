"""Images and maps: saliency, heat maps on a common scale, class activation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.figures.style import _BARE, _grid, _without_axis, _wrapped


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
    with mpl.rc_context(_BARE):
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
                _without_axis(axes)
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
    with mpl.rc_context(_BARE):
        figure, used = _grid(len(panels), columns, (1.75, 1.95), (0.9, 0.1))
        for axes, (title, values) in zip(used, panels, strict=True):
            image = axes.imshow(values, vmin=low, vmax=high, cmap="cividis", interpolation="nearest")
            axes.set_title(_wrapped(title, 24), fontsize=8)
            _without_axis(axes)
        figure.colorbar(
            image,
            ax=used,
            label=label,
            fraction=0.05,
            aspect=max(12, 9 * math.ceil(len(panels) / columns)),
            shrink=0.9,
            pad=0.03,
        )
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
    with mpl.rc_context(_BARE):
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
                _without_axis(axes)
                axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
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
