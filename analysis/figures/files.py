"""A figure as files: PNG, SVG and PDF, with what they are of in their metadata."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from analysis.figures.style import STYLE
from analysis.groups import count, replicates
from analysis.records import Sweep, write_file

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
    parts += [count(len(sweep.trials), "trial"), replicates(sweep.rows)]
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
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            # else each drawing would start from the one before, and move things; and each file would be drawn twice
            figure.set_layout_engine("none")
            figure.set_layout_engine(None)
            _fix_labels(figure)
        figure.savefig(content, format=kind, dpi=dpi, metadata=metadata[kind])
    return content.getvalue()


def _fix_labels(figure: Figure) -> None:
    """Leave the axes' labels where the layout has put them: each drawing would measure all numbers at all axes again to
    put them there."""
    canvas = figure.canvas
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        for axis, across in ((axes.xaxis, True), (axes.yaxis, False)):
            if not axis.label.get_text():
                axis.set_label_coords(0, 0)
                continue
            axis.get_tightbbox(renderer)
            x, y = axis.label.get_position()
            # along the axis in its length, away from it in inches
            if across:
                place = x, y / figure.dpi
                transform = blended_transform_factory(axes.transAxes, figure.dpi_scale_trans)
            else:
                place = x / figure.dpi, y
                transform = blended_transform_factory(figure.dpi_scale_trans, axes.transAxes)
            axis.set_label_coords(*place, transform=transform)
    figure.set_canvas(canvas)


def files(figure: Figure, stem: str, sweep: Sweep, *, images: int | str | None = None) -> dict[str, bytes]:
    """`<stem>.png`, `.svg` and `.pdf` (see `render`), by their names."""
    title = f"{stem.rstrip('/').rsplit('/', 1)[-1]} of sweep {sweep.name}"
    return {f"{stem}.{kind}": render(figure, sweep, title, kind, images) for kind in _FILES}


def save(figure: Figure, stem: str, sweep: Sweep, *, images: int | str | None = None) -> list[str]:
    """Write `files` locally or on S3, each atomically; their paths. Raises `InputError` if they cannot be written."""
    return [write_file(name, content) for name, content in files(figure, stem, sweep, images=images).items()]
