from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import figures, records
from analysis.figures import MetricPanel, StrengthGroup


def group(label: str, threshold: float = math.nan, baseline: tuple[float, ...] = (0.9,)) -> StrengthGroup:
    return StrengthGroup(
        label, [1, 1, 10, 10, 100], [0.9, 0.8, 0.7, 0.5, 0.1], [False] * 4 + [True], 0.68, threshold, baseline
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_strength_figure_shows_points_means_threshold_and_levels() -> None:
    figure = figures.strength_figure([group("a", 10.0), group("b")])
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert texts(figure)[:2] == ["a: threshold 10", "b: no threshold in range"]
    assert {"threshold", "80% of the reference level", "baseline", "diverged"} < set(texts(figure))
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert lines.count(([1, 1, 10, 10], [0.9, 0.8, 0.7, 0.5])) == 2
    assert lines.count(([100], [0.1])) == 2
    means = [y for x, y in lines if x == [1, 10, 100]]
    assert len(means) == 2
    np.testing.assert_allclose(means[0], [0.85, 0.6, 0.1])
    assert lines.count(([10.0, 10.0], [0, 1])) == 1
    assert lines.count(([0, 1], [0.68, 0.68])) == 2
    assert lines.count(([0, 1], [0.9, 0.9])) == 1  # the baseline they share is drawn once
    styles = {(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in axes.lines}
    assert len({marker for _, _, marker in styles if marker in "os^Dv"}) == 2


def test_more_than_four_groups_share_an_axis_in_panels() -> None:
    figure = figures.strength_figure([group(f"width={width}") for width in range(5)])
    assert [axes.get_title() for axes in figure.axes] == [f"width={width}" for width in range(5)]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    with pytest.raises(ValueError, match="at least one"):
        figures.strength_figure([])


def test_maps_have_one_scale() -> None:
    figure = figures.map_panels([("a", np.array([[0.0, 1.0]])), ("b", np.array([[5.0, np.nan]]))], label="importance")
    images = [image for axes in figure.axes for image in axes.images]
    assert [image.get_clim() for image in images] == [(0.0, 5.0)] * 2
    with pytest.raises(ValueError, match="b: shape"):
        figures.map_panels([("b", np.zeros(3))])
    with pytest.raises(ValueError, match="finite"):
        figures.map_panels([("b", np.full((2, 2), np.nan))])


def test_curves_show_mean_and_band_of_the_seeds_that_have_a_value() -> None:
    values = np.array([[0.2, 0.4, np.nan], [0.4, 0.8, np.nan], [0.6, np.nan, np.nan]])
    for band, low in (("range", [0.2, 0.4]), ("sd", [0.4 - 0.2, 0.6 - math.sqrt(0.08)])):
        figure = figures.curves({"a": (np.arange(1, 4), values)}, band=band)  # type: ignore[arg-type]
        (axes,) = figure.axes
        np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 0.4], [2, 0.6]])
        vertices = axes.collections[0].get_paths()[0].vertices
        for epoch, bottom in zip((1, 2), low, strict=True):
            assert vertices[vertices[:, 0] == epoch, 1].min() == pytest.approx(bottom)
        assert texts(figure) == ["a (n = 3)"]
    with pytest.raises(ValueError, match="for 2 epochs"):
        figures.curves({"a": (np.arange(2), values)})


def test_figures_are_saved_the_same_each_time_and_change_no_setting(
    tmp_path: Path, record: Callable[..., bool]
) -> None:
    record(tmp_path / "demo", "a")
    sweep = records.read_sweep(str(tmp_path / "demo"))
    before = dict(mpl.rcParams)
    files = []
    for name in ("one", "two"):
        paths = figures.save(figures.strength_figure([group("a", 10.0)]), str(tmp_path / name / "figure"), sweep)
        assert paths == [str(tmp_path / name / f"figure.{kind}") for kind in ("png", "svg", "pdf")]
        files.append([Path(path).read_bytes() for path in paths])
    assert files[0] == files[1]
    assert files[0][0].startswith(b"\x89PNG")
    assert b"sweep demo, 1 trials, 1 seeds" in files[0][0]
    assert dict(mpl.rcParams) == before


def test_metric_figure_greys_what_is_excluded_and_draws_intervals() -> None:
    panel = MetricPanel("a", "faithfulness", [10, 1, 100], [0.2, 0.1, 0.9], [0.02, 0.01, 0.09], 10.0, (0.5, 0.7))
    figure = figures.metric_figure(
        [panel, MetricPanel("b", "entropy", [1, 10], [2.0, 3.0])], excluded="over-regularised"
    )
    first, second = figure.axes
    assert (first.get_xscale(), first.get_title(), first.get_ylabel()) == ("log", "a", "Faithfulness Estimate")
    points = [line for line in first.lines if line.get_marker() == "o"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in points] == [
        ([10, 1], [0.2, 0.1]),
        ([100], [0.9]),
    ]
    assert [line.get_fillstyle() for line in points] == ["full", "none"]
    bars = [segment for collection in first.collections for segment in collection.get_segments()]  # type: ignore[attr-defined]
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0.18, 0.22], [0.09, 0.11], [0.81, 0.99]])
    levels = [list(line.get_ydata()) for line in first.lines if list(line.get_xdata()) == [0, 1]]
    np.testing.assert_allclose(levels, [[0.6, 0.6]])
    assert [list(line.get_xdata()) for line in first.lines if list(line.get_ydata()) == [0, 1]] == [[10.0, 10.0]]
    assert not [line for line in second.lines if list(line.get_ydata()) == [0, 1]]
    assert texts(figure) == ["trial, 95% interval over images", "over-regularised", "threshold", "baseline"]
    with pytest.raises(ValueError, match="at least one"):
        figures.metric_figure([])


def test_saliency_panels_each_have_a_symmetric_scale() -> None:
    image, small, large = np.eye(3), np.array([[1e-9, 0.0], [0.0, -3e-9]]), np.array([[5.0, -2.0], [0.0, 0.0]])
    figure = figures.saliency_figure([("image", [image, image]), ("α = 1", [small, large])], ["gradient", "DeepLIFT"])
    limits = [axes.images[0].get_clim() for axes in figure.axes]
    assert limits == [(0.0, 1.0), (0.0, 1.0), (-3e-9, 3e-9), (-5.0, 5.0)]
    assert [axes.get_ylabel() for axes in figure.axes] == ["image", "", "α = 1", ""]
    with pytest.raises(ValueError, match="x: 1 maps for 2 titles"):
        figures.saliency_figure([("x", [image])], ["a", "b"])
