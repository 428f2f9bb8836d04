from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import figures, records
from analysis.figures import MetricPanel, ParetoGroup, StrengthGroup, maps, style


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


@pytest.mark.parametrize("label", ["dataset=$y$", "a_b^2", "_hidden", "<b>&amp;", "%s {0} \\frac{1}{2} $"])
def test_a_name_is_no_formula(label: str, tmp_path: Path, record: Callable[..., bool]) -> None:
    figure = figures.strength_figure([group(label), group("b")])
    assert f"{label}: no threshold in range" in texts(figure)
    record(tmp_path / "$x$<i>", "a")
    figures.save(figure, str(tmp_path / "figure"), records.read_sweep(str(tmp_path / "$x$<i>")))
    assert not any(text.get_parse_math() for text in figure.findobj(Text))
    assert "sweep $x$&lt;i&gt;" in (tmp_path / "figure.svg").read_text()


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
    assert b"sweep demo, 1 trial, 1 seed" in files[0][0]
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
    # one line for those of a look, with a gap after each
    bars = [line for line in first.lines if np.isnan(np.asarray(line.get_ydata(), float)).any()]
    assert [list(bar.get_xdata()) for bar in bars] == [[10, 10, 10, 1, 1, 1], [100, 100, 100]]
    ends = np.concatenate([np.reshape(bar.get_ydata(), (-1, 3)) for bar in bars])
    np.testing.assert_allclose(ends, [[0.18, 0.22, np.nan], [0.09, 0.11, np.nan], [0.81, 0.99, np.nan]])
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


def xs(axes: Axes, zorder: float) -> list[float]:
    """Where vertical lines with this zorder stand."""
    lines = [line for line in axes.lines if line.get_zorder() == zorder and list(line.get_ydata()) == [0, 1]]
    return [float(np.asarray(line.get_xdata())[0]) for line in lines]


def bars(axes: Axes) -> list[list[list[float]]]:
    return [
        segment.tolist()
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]


def labels(axis: Axis) -> list[str]:
    low, high = sorted(axis.get_view_interval())
    shown = zip(
        axis.get_majorticklocs(), axis.get_major_formatter().format_ticks(axis.get_majorticklocs()), strict=True
    )
    return [text for place, text in shown if low <= place <= high]


def located(label: str = "a", **fields: Any) -> StrengthGroup:
    return dataclasses.replace(group(label, 10.0), **{"location": 5.0, "low": 1.0, "high": 10.0, **fields})


def test_a_tipping_point_is_a_line_its_interval_a_span_and_a_bar_and_the_threshold_a_ring() -> None:
    other = located("b", location=20.0, low=3.0, high=50.0)
    figure = figures.strength_figure([located(), other, dataclasses.replace(group("c", 10.0), note="inconclusive")])
    (axes,) = figure.axes
    assert texts(figure)[:3] == ["a: tips at 5.0 [1.0, 10]", "b: tips at 20 [3.0, 50]", "c: inconclusive"]
    assert {"tipping point with 95% interval", "threshold of the paper's rule"} < set(texts(figure))
    assert xs(axes, 2.2) == [20.0, 5.0]
    assert [[span.get_x(), span.get_x() + span.get_width()] for span in axes.patches] == [[3.0, 50.0], [1.0, 10.0]]
    feet = [line for line in axes.lines if line.get_marker() == "|"]
    assert [list(line.get_xdata()) for line in feet] == [[3.0, 50.0], [1.0, 10.0]]
    heights = [np.asarray(line.get_ydata())[0] for line in feet]
    assert 0 < heights[0] < heights[1] < 0.2  # one above the other, below all scores
    rings = [line for line in axes.lines if line.get_fillstyle() == "none"]
    np.testing.assert_allclose([line.get_xydata() for line in rings], [[[10.0, 0.6]]] * 3)
    assert not [line for line in axes.lines if list(line.get_xdata()) == [10.0, 10.0]]  # the ring alone
    low, high = axes.get_ylim()
    lowest = (0.1 - low) / (high - low)
    assert lowest > heights[1] + 0.03
    assert min(axes.get_yticks()) >= 0.1 - 0.06 * 0.8 - 1e-9


def test_panels_say_each_tipping_point() -> None:
    groups = [located(f"w={width}", location=10.0 * width, low=5.0, high=50.0) for width in range(1, 5)]
    figure = figures.strength_figure([*groups, dataclasses.replace(group("w=5"), note="none in range")])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "w=1\ntips at 10 [5.0, 50]"
    assert titles[4] == "w=5\nnone in range"
    assert [xs(axes, 2.2) for axes in figure.axes] == [[10.0], [20.0], [30.0], [40.0], []]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "strength α", "strength α", "strength α"]


def test_bars_over_seeds_are_the_t_interval_or_the_range() -> None:
    scores = [0.9, 0.8, 0.7, 0.5, 0.4, 0.3, 0.1]
    three = StrengthGroup("a", [1, 1, 1, 10, 10, 10, 100], scores, [False] * 7)
    figure = figures.strength_figure([three])
    # n = 3, standard deviation 0.1: 4.3027 · 0.1 / √3
    half = 4.302653 * 0.1 / math.sqrt(3)
    found = bars(figure.axes[0])
    np.testing.assert_allclose(
        found, [[[1, 0.8 - half], [1, 0.8 + half]], [[10, 0.4 - half], [10, 0.4 + half]]], rtol=1e-6
    )
    assert "mean, 95% t interval over seeds" in texts(figure)
    figure = figures.strength_figure([three], bars="range")
    np.testing.assert_allclose(bars(figure.axes[0]), [[[1, 0.7], [1, 0.9]], [[10, 0.3], [10, 0.5]]])
    assert "mean, range of the seeds" in texts(figure)
    two = StrengthGroup("b", [1, 1, 10], [0.9, 0.8, 0.1], [False] * 3)
    assert "mean, range of the seeds" in texts(figures.strength_figure([three, two]))
    single = StrengthGroup("c", [1, 10], [0.9, 0.1], [False] * 2)
    assert not [text for text in texts(figures.strength_figure([single])) if text.startswith("mean")]


def test_stronger_ones_lie_to_the_right() -> None:
    """k of Top-GAP: the small ones; what is beyond the threshold is below it."""
    points = StrengthGroup("a", [1, 10, 100], [0.1, 0.8, 0.9], [False] * 3)
    for figure, falls in (
        (figures.strength_figure([points], strength="pixels"), True),
        (figures.strength_figure([points], strength="alpha"), False),
        (figures.strength_figure([points], strength="alpha", stronger="smaller"), True),
    ):
        low, high = figure.axes[0].get_xlim()
        assert (low > high) == falls
        assert ("stronger to the right" in figure.axes[0].get_xlabel()) == falls
    panel = MetricPanel("a", "entropy", [1, 10, 100], [1, 2, 3], beyond=10.0, note="ρ = 1")
    figure = figures.metric_figure([panel], strength="pixels", excluded="too strong")
    assert figure.axes[0].get_xlim()[0] > 100
    grey = [line for line in figure.axes[0].lines if line.get_fillstyle() == "none"]
    assert [line.get_xdata().tolist() for line in grey] == [[1.0]]
    assert "too strong" in texts(figure)
    level = figures.strength_figure([dataclasses.replace(points, level=0.5)], metric="loss", direction="min")
    assert "reference level / 0.8" in texts(level)


def test_strength_figure_leaves_nan_out_and_refuses_what_it_cannot_draw() -> None:
    figure = figures.strength_figure([StrengthGroup("a", [1, 1, 10, 100], [0.9, math.nan, 0.5, math.nan], [False] * 4)])
    (mean,) = [line for line in figure.axes[0].lines if line.get_zorder() == 3]
    np.testing.assert_allclose(mean.get_xydata(), [[1, 0.9], [10, 0.5]])
    for wrong, message in (
        (StrengthGroup("a", [1, 2], [0.5], [False] * 2), "a: 1 of score for 2"),
        (StrengthGroup("a", [0], [0.5], [False]), "above 0"),
        (StrengthGroup("a", [1], [math.nan], [False]), "finite score"),
        (located(low=6.0), "tipping point 5.0 with interval 6.0 to 10.0"),
        (located(high=math.inf), "nan"),
        (located(location=math.nan), "nan"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.strength_figure([wrong])
    figures.strength_figure([located(low=math.nan, high=math.nan)])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((3.2e6, 1e6, 5.6e6), "3.2·10⁶ [1.0·10⁶, 5.6·10⁶]"),
        ((9.99e6, 1e-4, 1e12), "1.0·10⁷ [1.0·10⁻⁴, 1.0·10¹²]"),
        ((12.04, 12.01, 12.3), "12.04 [12.01, 12.30]"),
        ((1377, 998, 2154), "1400 [1000, 2200]"),
        ((0.012, math.nan, math.nan), "0.012"),
    ],
)
def test_intervals_are_written_with_the_digits_that_tell_their_ends_apart(
    values: tuple[float, float, float], text: str
) -> None:
    assert style._interval_text(*values) == text


@pytest.mark.parametrize(
    ("strengths", "shown"),
    [
        (np.logspace(2, 10, 50), ["10²", "10⁴", "10⁶", "10⁸", "10¹⁰"]),
        (np.logspace(1, 13, 27), ["10¹", "10³", "10⁵", "10⁷", "10⁹", "10¹¹", "10¹³"]),
        (np.logspace(3, 5, 9), ["10³", "10⁴", "10⁵"]),
        (np.array([1.0, 10.0, 100.0]), ["1", "10", "100"]),
        (np.array([64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0]), ["64", "128", "256", "512", "1024", "2048"]),
        (np.logspace(5, 5.8, 9), ["10⁵", "2·10⁵", "3·10⁵", "5·10⁵"]),
        (np.logspace(0.1, 0.6, 9), ["1.5", "2", "3", "4"]),
        (np.array([1.0, 1.01, 1.02, 5.0]), ["1", "5"]),
        (np.array([3.0]), ["3"]),
    ],
)
def test_log_axes_have_few_ticks_that_read_well(strengths: np.ndarray, shown: list[str]) -> None:
    scores = np.linspace(0.9, 0.1, len(strengths)).tolist()
    figure = figures.strength_figure([StrengthGroup("a", strengths.tolist(), scores, [False] * len(scores))])
    assert labels(figure.axes[0].xaxis) == shown


def test_a_metric_panel_has_its_note_where_no_point_is() -> None:
    rising = MetricPanel("a", "entropy", [1, 10, 100, 1000], [1, 2, 3, 4], note="ρ = .83, p = .0002 (Holm)")
    falling = dataclasses.replace(rising, value=[4, 3, 2, 1])
    full = dataclasses.replace(rising, strength=[1, 1, 30, 1000, 1000], value=[1, 4, 2, 1, 4])
    figure = figures.metric_figure([rising, falling, full])
    notes = [axes.texts[0] for axes in figure.axes]
    assert [note.get_text() for note in notes] == [rising.note] * 3
    assert [note.xy for note in notes] == [(0, 1), (1, 1), (1, 1)]  # type: ignore[attr-defined]
    assert figure.axes[0].get_ylim()[1] < 4.5
    assert figure.axes[2].get_ylim()[1] > 4.5  # room above the points
    figure = figures.metric_figure([dataclasses.replace(rising, value=[1e-4, 1e-2, math.nan, 1], log=True)])
    assert figure.axes[0].get_yscale() == "log"
    for wrong, message in (
        (MetricPanel("a", "entropy", [1, 2], [1]), "a: 1 of value for 2"),
        (MetricPanel("a", "entropy", [1, 2], [1, 2], [0.1]), "1 of error"),
        (MetricPanel("a", "entropy", [], []), "no trial"),
        (MetricPanel("a", "entropy", [-1], [1]), "above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.metric_figure([wrong])


def band(axes: Axes, x: float) -> tuple[float, float]:
    vertices = np.asarray(axes.collections[0].get_paths()[0].vertices)
    there = vertices[np.isclose(vertices[:, 0], x), 1]
    return there.min(), there.max()


def test_curves_have_t_intervals_and_from_seven_groups_on_panels() -> None:
    values = np.array([[0.2, 0.5], [0.4, 0.5], [0.6, np.nan]])
    figure = figures.curves({"a": (np.array([1, 2]), values)}, band="ci")
    half = 4.302653 * 0.2 / math.sqrt(3)
    assert band(figure.axes[0], 1) == pytest.approx((0.4 - half, 0.4 + half), rel=1e-6)
    assert figure.legends[0].get_title().get_text() == "mean and 95% t interval over seeds"
    one = figures.curves({"a": (np.array([1, 2]), values[:1])}, band="sd2")
    assert not one.axes[0].collections[0].get_paths()  # one seed has no interval
    groups = {f"α={n}": (np.arange(1, 4), np.full((2, 3), float(n + 1))) for n in range(7)}
    assert len(figures.curves(dict(list(groups.items())[:6])).axes) == 1
    panels = figures.curves(groups, log=True)
    assert [axes.get_title() for axes in panels.axes] == [f"α={n} (n = 2)" for n in range(7)]
    assert [sum(line.get_color() == "0.8" for line in axes.lines) for axes in panels.axes] == [6] * 7
    assert {axes.get_yscale() for axes in panels.axes} == {"log"}
    with pytest.raises(ValueError, match="band: 'iqr', allowed are range, sd, sd2, ci"):
        figures.curves(groups, band="iqr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        figures.curves({})


def test_a_band_that_reaches_zero_does_not_take_the_log_axis_with_it() -> None:
    values = np.array([[1.0, 1.0], [3.0, 1.1]])
    figure = figures.curves({"a": (np.array([1, 2]), values)}, band="ci", log=True)
    assert 0.05 < figure.axes[0].get_ylim()[0] < 1


def test_layers_stand_in_order_with_bands_and_kinds() -> None:
    names = ["net.conv1", "net.down1", "net.conv2"]
    values = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 5.0]])
    groups = {"a": (names, values), "b": (names[::-1][:2], np.array([[1.0, 4.0]]))}
    figure = figures.layer_profile(groups, metric="filter_smoothness", kinds={"net.down1": "downsampling"})
    (axes,) = figure.axes
    assert labels(axes.xaxis) == ["conv1", "down1", "conv2"]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 2], [1, 2], [2, 4]])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [np.nan, 4, 1])
    assert band(axes, 0) == pytest.approx((2 - 2 * math.sqrt(2), 2 + 2 * math.sqrt(2)))
    (span,) = axes.patches
    assert (span.get_x(), span.get_width()) == (0.5, 1.0)  # type: ignore[attr-defined]
    assert texts(figure) == ["a (n = 2)", "b (n = 1)", "downsampling"]
    figure = figures.layer_profile(groups, metric="x", layers=["net.conv2", "net.conv1"], band="sd")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [4, 2])
    assert len(figures.layer_profile({str(n): groups["a"] for n in range(7)}, metric="x").axes) == 7
    long = [f"features.stage{n}.a_layer_with_a_long_name.conv" for n in range(3)]
    shown = labels(figures.layer_profile({"a": (long, values)}, metric="x").axes[0].xaxis)
    assert shown == [f"stage{n}.a_…ng_name.conv" for n in range(3)]
    for wrong, options, message in (
        ({}, {}, "at least one"),
        ({"a": (names[:2], values)}, {}, "for 2 layers"),
        ({"a": (["x", "x", "y"], values)}, {}, "a layer twice"),
        ({"a": (names, values)}, {"layers": []}, "layers"),
        ({"a": (names, values)}, {"layers": ["other"]}, "a: no value"),
        ({"a": (list("abcde"), np.ones((1, 5)))}, {"kinds": dict(zip("abcde", "abcde", strict=True))}, "kinds"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.layer_profile(wrong, metric="x", **options)  # type: ignore[arg-type]


def test_class_activation_maps_lie_over_the_whole_image_on_one_scale() -> None:
    image, colours = np.linspace(0, 1, 24).reshape(4, 6), np.full((4, 6, 3), 0.5)
    cam = np.array([[0.0, 0.2], [0.4, 1.0]])
    figure = figures.cam_panels(
        [("image", [(image, None), (colours, None)]), ("k=8", [(image, cam), (colours, cam)])], list("ab")
    )
    panels = figure.axes[:4]
    assert [len(axes.images) for axes in panels] == [1, 1, 2, 2]
    for axes in panels[2:]:
        under, over = axes.images
        assert under.get_extent() == over.get_extent() == [-0.5, 5.5, 3.5, -0.5]
        assert over.get_clim() == (0, 1)
        assert over.get_interpolation() == "bilinear"
        np.testing.assert_array_equal(over.get_array(), cam)
        assert axes.collections  # the line at one half
    assert len(figure.axes) == 5
    assert figure.axes[4].get_ylabel() == "class activation"
    # bilinear: centres of 2 cells at 0.5 and 2.5 of 4 pixels, the ends held
    np.testing.assert_allclose(maps._upsampled(np.array([[0.0, 1.0]]), 1, 4), [[0, 0.25, 0.75, 1]])
    for wrong, message in (
        ([], "at least one"),
        ([("k", [(image, cam)])], "k: 1 panels for 2 titles"),
        ([("k", [(image, cam * 2), (image, cam)])], "outside"),
        ([("k", [(image, cam), (image * np.nan, cam)])], "outside"),
        ([("k", [(image[0], cam), (image, cam)])], "shape"),
        ([("k", [(image, colours), (image, cam)])], "a map of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.cam_panels(wrong, ["a", "b"])  # type: ignore[arg-type]


def test_saliency_maps_without_a_finite_value_are_drawn_empty() -> None:
    figure = figures.saliency_figure([("a", [np.full((2, 2), np.nan)])], ["x"], image_rows=0)
    assert figure.axes[0].images[0].get_clim() == (-1.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        figures.saliency_figure([], ["x"])


@pytest.mark.parametrize("x_direction", ["max", "min"])
@pytest.mark.parametrize("y_direction", ["max", "min"])
def test_the_front_holds_what_no_other_point_beats(x_direction: Any, y_direction: Any) -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 5, 40):
        for _ in range(20):
            x, y = rng.integers(0, 6, (2, n)).astype(float)  # many ties
            if n == 40:
                x[:3], y[2:5] = math.nan, math.nan
            front = []
            for a, b in zip(x, y, strict=True):
                sign_x, sign_y = (1 if way == "max" else -1 for way in (x_direction, y_direction))
                beaten = any(
                    sign_x * c >= sign_x * a and sign_y * d >= sign_y * b and (c != a or d != b)
                    for c, d in zip(x, y, strict=True)
                    if not math.isnan(c + d)
                )
                front.append(not beaten and not math.isnan(a + b))
            assert figures.pareto_front(x, y, x_direction, y_direction).tolist() == front


def test_pareto_front_refuses_other_directions_and_lengths() -> None:
    with pytest.raises(ValueError, match="'none', allowed are 'max' and 'min'"):
        figures.pareto_front([1], [1], "max", "none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shapes"):
        figures.pareto_front([1, 2], [1], "max", "max")


def test_pareto_figure_joins_and_names_the_front() -> None:
    settings = ParetoGroup("a", [[1, 3], [4], [2, 2]], [[9, 7], [5], [4, 4]], ["α=1", "α=10", "α=100"])
    other = ParetoGroup("b", [5, math.nan], [1, 3])
    figure = figures.pareto_figure(
        [settings, other], x="top1", y="loss", x_direction="max", y_direction="max", bars="range"
    )
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-pre"]
    np.testing.assert_allclose(line.get_xydata(), [[2, 8], [4, 5], [5, 1]])
    assert [text.get_text() for text in axes.texts] == ["α=1", "α=10"]
    assert [text.xy for text in axes.texts] == [(2, 8), (4, 5)]  # type: ignore[attr-defined]
    points = {marker: [] for marker in "os"}  # type: ignore[var-annotated]
    for item in axes.lines:
        if item.get_marker() in points:
            points[item.get_marker()].append((item.get_fillstyle(), np.asarray(item.get_xydata()).tolist()))
    assert points["o"] == [("full", [[2, 8], [4, 5]]), ("none", [[2, 4]])]
    assert points["s"][0] == ("full", [[5, 1]])
    assert [[1, 8], [3, 8]] in bars(axes)
    assert [[2, 7], [2, 9]] in bars(axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Top-1 accuracy, better →", "cross-entropy (nats), better →")
    figure = figures.pareto_figure(
        [settings], x="x", y="y", x_direction="min", y_direction="min", log_x=True, log_y=True
    )
    assert [line.get_drawstyle() for line in figure.axes[0].lines].count("steps-post") == 1
    assert figure.axes[0].get_ylabel() == "y, ← better"
    common: Any = {"x": "x", "y": "y", "x_direction": "max", "y_direction": "max"}
    for wrong, options, message in (
        ([], {}, "1 to 6"),
        ([ParetoGroup("a", [1], [1, 2])], {}, "a: 1 of x, 2 of y, 0 names"),
        ([ParetoGroup("a", [1], [1], ["x", "y"])], {}, "2 names"),
        ([ParetoGroup("a", [math.nan], [1])], {}, "finite x and y"),
        ([ParetoGroup("a", [-1, 2], [1, 2])], {"log_x": True}, "log axis"),
        ([settings], {"y_direction": "none"}, "direction"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.pareto_figure(wrong, **{**common, **options})


def test_names_on_the_front_do_not_cover_each_other() -> None:
    x = [float(n) for n in range(8)]
    crowd = ParetoGroup("a", x, [-value for value in x], [f"α=10^{n}" for n in range(8)])
    figure = figures.pareto_figure([crowd], x="x", y="y", x_direction="max", y_direction="max")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 8
    assert not [1 for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def test_corruptions_stand_by_category_and_what_is_missing_is_hatched() -> None:
    full = {("digital", "jpeg"): {1: 0.9, 2: 0.7}, ("noise", "gaussian_noise"): {1: 0.5, 2: 0.1}}
    partial = {("noise", "gaussian_noise"): {1: 0.4, 2: math.nan}, ("digital", "jpeg"): {1: 0.6, 2: 0.4}}
    figure = figures.corruption_table({"a": full, "b": partial})
    noise, digital, mean = figure.axes[:3]
    assert [axes.get_ylabel() for axes in (noise, digital, mean)] == ["noise", "digital", ""]
    assert [text.get_text() for text in noise.get_yticklabels()] == ["gaussian noise"]
    assert [[text.get_text() for text in axes.texts] for axes in (noise, digital, mean)] == [
        ["0.30"],
        ["0.80", "0.50"],
        ["0.55"],
    ]
    assert [len(axes.patches) for axes in (noise, digital, mean)] == [1, 0, 1]
    assert {patch.get_hatch() for axes in (noise, mean) for patch in axes.patches} == {"/////"}
    assert texts(figure) == ["not measured, or not in full"]
    np.testing.assert_allclose([axes.images[0].get_clim() for axes in (noise, digital, mean)], [(0.3, 0.8)] * 3)
    assert [text.get_color() for text in digital.texts] == ["black", "white"]
    figure = figures.corruption_table({"a": full, "b": partial}, by_severity=True, digits=1)
    cells = [text.get_text() for text in figure.axes[0].texts if text.get_color() in ("white",)]
    assert cells == ["0.1", "0.4"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1", "2", "1", "2"]
    assert not figures.corruption_table({"a": full}).legends
    for wrong in (
        {},
        {"a": {("noise", "x"): {1: math.nan}}},
        {"a": {("n", "x"): {1: 0.5}}, "b": {("n", "x"): {2: 0.5}}},
    ):
        with pytest.raises(ValueError, match="settings"):
            figures.corruption_table(wrong)


def test_files_name_sweep_seeds_images_and_hash(tmp_path: Path, record: Callable[..., bool]) -> None:
    record(tmp_path / "demo", "a", seed=0)
    record(tmp_path / "demo", "b", seed=1)
    sweep = records.read_sweep(str(tmp_path / "demo"))
    figure = figures.strength_figure([located()])
    expected = f"sweep demo, 2 trials, 2 seeds, 128 images, record {sweep.content_hash}".encode()
    paths = figures.save(figure, str(tmp_path / "figure"), sweep, images=128)
    for path, kind in zip(paths, ("png", "svg", "pdf"), strict=True):
        content = Path(path).read_bytes()
        assert expected in content
        assert b"figure of sweep demo" in content
        assert content == figures.render(figures.strength_figure([located()]), sweep, "figure of sweep demo", kind, 128)
    assert b"2 seeds, 64 test images, record" in figures.render(figure, sweep, "α", "svg", "64 test images")
    with pytest.raises(ValueError, match="kind: 'jpg', allowed are png, svg, pdf"):
        figures.render(figure, sweep, "x", "jpg")


def every_kind() -> dict[str, Callable[[], Figure]]:
    image = np.linspace(0, 1, 16).reshape(4, 4)
    layers = {"a": (["a", "b"], np.array([[1.0, 2.0], [2.0, 3.0]]))}
    pareto = [ParetoGroup("a", [[1, 2], 3], [[4, 5], 1], ["α=1", "α=2"])]
    return {
        "strength": lambda: figures.strength_figure([located(str(n)) for n in range(5)]),
        "metric": lambda: figures.metric_figure([MetricPanel("a", "top1", [1, 10], [1, 2], [0.1, 0.2], note="ρ")]),
        "curves": lambda: figures.curves({"a": (np.arange(2), np.ones((2, 2)))}, band="ci"),
        "layers": lambda: figures.layer_profile(layers, metric="top1", kinds={"a": "x"}),
        "cam": lambda: figures.cam_panels([("a", [(image, image)])], ["b"]),
        "pareto": lambda: figures.pareto_figure(pareto, x="x", y="y", x_direction="min", y_direction="max"),
        "table": lambda: figures.corruption_table({"a": {("noise", "x"): {1: 0.5}, ("blur", "y"): {1: math.nan}}}),
    }


@pytest.mark.parametrize("name", every_kind())
def test_equal_figures_of_every_kind_give_equal_bytes(
    name: str, tmp_path: Path, record: Callable[..., bool], recwarn: pytest.WarningsRecorder
) -> None:
    record(tmp_path / "demo", "a")
    sweep = records.read_sweep(str(tmp_path / "demo"))
    before = dict(mpl.rcParams)
    make = every_kind()[name]
    for kind in ("png", "svg", "pdf"):
        assert figures.render(make(), sweep, "x", kind) == figures.render(make(), sweep, "x", kind)
    assert dict(mpl.rcParams) == before
    assert not [str(warning.message) for warning in recwarn]


def test_a_line_has_no_more_points_than_pixels() -> None:
    epochs = np.arange(1, 5001)
    values = np.sin(epochs / 100)[None] + [[0.0], [1.0]]
    figure = figures.curves({"a": (epochs, values)}, title="seen")
    (line,) = figure.axes[0].lines
    x = np.asarray(line.get_xdata())
    assert 1000 <= len(x) <= 5.2 * 200
    assert (x[0], x[-1]) == (1, 5000)
    np.testing.assert_array_equal(line.get_ydata(), values.mean(axis=0)[x - 1])
    assert figure.legends[0].get_title().get_text() == (
        f"seen; {len(x)} of 5000 points drawn: mean and range of the seeds"
    )
    few = figures.curves({"a": (epochs[:200], values[:, :200])})
    assert len(few.axes[0].lines[0].get_xdata()) == 200
    assert "drawn" not in few.legends[0].get_title().get_text()
    layers = figures.panel_curves({"first": {"a": (epochs, values)}, "second": {"a": (epochs, values)}}, metric="top1")
    assert all(len(axes.lines[0].get_xdata()) < 600 for axes in layers.axes)
    assert "of 5000 points drawn" in layers.legends[0].get_title().get_text()


def test_no_more_trials_are_drawn_than_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of points on one pixel the first, all others; on fewer pixels, so that few points are many."""
    monkeypatch.setattr(style, "_PIXELS", 4)
    rng = np.random.default_rng(0)
    strength, score = np.repeat([1.0, 10.0, 100.0], 100), rng.random(300)
    panel = MetricPanel("a", "entropy", strength.tolist(), score.tolist(), log=False)
    figure = figures.metric_figure([panel], columns=1)
    (axes,) = figure.axes
    points = next(line for line in axes.lines if line.get_marker() == "o")
    up = int(4 * (2.3 + 0.1))
    assert {*np.asarray(points.get_xdata())} == {1.0, 10.0, 100.0}
    assert 3 < len(points.get_xdata()) <= 3 * up
    assert "trial (of those on one pixel, one)" in texts(figure)
    group = figures.StrengthGroup("a", strength.tolist(), score.tolist(), [False] * 300)
    assert "trials (of those on one pixel, one)" in texts(figures.strength_figure([group]))
    monkeypatch.setattr(style, "_PIXELS", 200)
    figure = figures.metric_figure([panel], columns=1)
    assert len(next(line for line in figure.axes[0].lines if line.get_marker() == "o").get_xdata()) == 300
    assert "trial" in texts(figure)
