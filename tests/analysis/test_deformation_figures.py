"""The figures of the deformation-stability paper, from records whose means are known."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.command_line import InputError
from analysis.correlations import correlations
from analysis.paper.figures import Drawn, draw
from analysis.records import Sweep, read_sweep, write_trial
from tests.analysis.conftest import make_trial

LAYERS = ("input", "conv1_1", "down1")
EPOCHS = (0, 1, 2)


def sensitivity(seed: int, layer: str, epoch: int, **columns: Any) -> float:
    """No two settings, layers, epochs or seeds alike; the mean over seeds 0 and 2 is that of seed 1."""
    number = LAYERS.index(layer) + 1
    return (
        0.01 * seed
        + 0.1 * number
        + 0.5 * epoch
        + 2 * columns["sigma"]
        + {"max-pool": 10, "strided-relu": 20}[columns["downsampling"]]
        + {"real": 100, "random": 200}[columns["labels"]]
        + (columns.get("deformation_strength") or 0)
    )


def write(path: Path, *settings: dict[str, Any], without: tuple[int, str] | None = None) -> Sweep:
    for index, setting in enumerate(settings):
        for seed in (0, 2):
            trial, epochs, _, _ = make_trial(
                f"{index:02}{seed}", seed=seed, **{"method": "deformation", "variant": None, "alpha": None, **setting}
            )
            measured = []
            for epoch, layer in itertools.product(EPOCHS, LAYERS):
                value: float | None = sensitivity(seed, layer, epoch, **setting)
                if without == (epoch, layer):
                    value = None
                same = {"epoch": epoch, "component": layer, "value": value, "direction": "none"}
                measured.append({**same, "metric": "deformation_sensitivity", "n": 128})
                if layer.startswith("conv"):
                    measured.append({**same, "metric": "filter_total_variation"})
            for epoch in EPOCHS:
                inner = [sensitivity(seed, layer, epoch, **setting) for layer in LAYERS[1:]]
                whole = None if without is not None and without[0] == epoch else sum(inner) / 2
                same = {"epoch": epoch, "component": "", "value": whole, "direction": "none"}
                measured.append({**same, "metric": "deformation_sensitivity", "n": 128})
                measured.append({**same, "metric": "filter_total_variation", "value": inner[0]})
            write_trial(str(path), trial, epochs, measured, [])
    return read_sweep(str(path))


def grid(**columns: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())]


POOLS = ("max-pool", "strided-relu")


def by_suffix(drawn: list[Drawn]) -> dict[str, dict[tuple[Any, ...], float]]:
    """Means by figure, setting and layer or epoch."""
    for one in drawn:
        assert {row[3] for row in one.rows} <= {2.0, 0.0}
    return {one.suffix: {(row[0], row[1]): float(row[2]) for row in one.rows} for one in drawn}


def test_before_and_after_training_by_downsampling(tmp_path: Path) -> None:
    """Figures 3 and 7: a figure for each σ and moment; figure 3 of real labels, figure 7 of random ones."""
    sweep = write(tmp_path / "demo", *grid(sigma=(0.0, 1.0), downsampling=POOLS, labels=("real", "random")))
    for name, base in (("deform-3", 100), ("deform-7", 200)):
        found = by_suffix(draw(sweep, name))
        start = "-deformation_sensitivity-sigma="
        assert set(found) == {f"{start}{sigma}-{at}" for sigma in "01" for at in ("initialisation", "trained")}
        assert found[f"{start}1-trained"] == {
            (pool, layer): pytest.approx(base + 2 + add + 0.01 + 0.1 * number + 1.0)
            for (pool, add), (number, layer) in itertools.product(
                (("max-pool", 10), ("strided-relu", 20)), enumerate(LAYERS, 1)
            )
        }
        assert found[f"{start}0-initialisation"]["max-pool", "input"] == pytest.approx(base + 10 + 0.01 + 0.1)


def test_one_sigma_needs_no_figures_apart(tmp_path: Path) -> None:
    sweep = write(tmp_path / "demo", *grid(sigma=(0.0,), downsampling=POOLS, labels=("real",)))
    found = by_suffix(draw(sweep, "deform-3"))
    assert set(found) == {f"-deformation_sensitivity-{at}" for at in ("initialisation", "trained")}
    with pytest.raises(InputError, match="labels=random"):
        draw(sweep, "deform-7")
    with pytest.raises(InputError, match="method=deformation and a deformation_strength"):
        draw(sweep, "deform-5")


def test_smoothed_initialisation(tmp_path: Path) -> None:
    """Figure 4: a figure for each downsampling layer, a line for each σ, darker for smoother filters."""
    sweep = write(tmp_path / "demo", *grid(sigma=(0.0, 0.5, 1.0), downsampling=POOLS, labels=("real",)))
    drawn = draw(sweep, "deform-4")
    found = by_suffix(drawn)
    assert set(found) == {f"-deformation_sensitivity-{pool}-initialisation" for pool in POOLS}
    assert found["-deformation_sensitivity-max-pool-initialisation"] == {
        (f"σ = {sigma:g}", layer): pytest.approx(110 + 2 * sigma + 0.01 + 0.1 * number)
        for sigma, (number, layer) in itertools.product((0.0, 0.5, 1.0), enumerate(LAYERS, 1))
    }
    (axes,) = drawn[0].figure.axes
    rgb = [tuple(int(str(line.get_color())[i : i + 2], 16) for i in (1, 3, 5)) for line in axes.lines[:3]]
    brightness = [sum(colour) for colour in rgb]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 3


def test_smoothness_by_task(tmp_path: Path) -> None:
    """Figure 5: smoothness by layer with a line for each C, and against C."""
    sweep = write(
        tmp_path / "demo",
        *grid(sigma=(0.0,), downsampling=("max-pool",), labels=("real",), deformation_strength=(1.0, 2.0, 3.0)),
    )
    drawn = draw(sweep, "deform-5")
    profile = by_suffix(drawn[:1])["-filter_total_variation-trained"]
    assert profile == {(f"C = {c}", "conv1_1"): pytest.approx(110 + 0.01 + 0.2 + 1.0 + c) for c in (1, 2, 3)}
    (axes,) = drawn[0].figure.axes
    (reference,) = (line for line in axes.lines if line.get_color() == "black")
    assert reference.get_ydata() == pytest.approx([110 + 0.01 + 0.2 + 2])  # the mean over all at epoch 0
    values = sorted((float(x), float(y)) for _, x, y in drawn[1].rows)
    # of the layer and of all layers, of which it is the only one
    assert values == [
        (c, pytest.approx(110 + 0.01 * seed + 0.2 + 1.0 + c))
        for c in (1.0, 2.0, 3.0)
        for seed in (0, 2)
        for _ in range(2)
    ]


def test_smoothness_of_trained_filters(tmp_path: Path) -> None:
    """Figure 6: a figure for real and one for random labels, and the value at initialisation as a line."""
    sweep = write(tmp_path / "demo", *grid(sigma=(0.0,), downsampling=POOLS, labels=("real", "random")))
    drawn = draw(sweep, "deform-6")
    found = by_suffix(drawn)
    assert set(found) == {f"-filter_total_variation-{labels}-trained" for labels in ("real", "random")}
    assert found["-filter_total_variation-random-trained"] == {
        ("max-pool", "conv1_1"): pytest.approx(211.21),
        ("strided-relu", "conv1_1"): pytest.approx(221.21),
    }
    lines = {
        one.suffix: line.get_ydata()
        for one in drawn
        for line in one.figure.axes[0].lines
        if line.get_color() == "black"
    }
    assert lines["-filter_total_variation-real-trained"] == pytest.approx([115.21])
    assert lines["-filter_total_variation-random-trained"] == pytest.approx([215.21])


def test_along_the_epochs(tmp_path: Path) -> None:
    """Beyond the paper: the mean over layers by setting, and each layer of each setting."""
    sweep = write(tmp_path / "demo", *grid(sigma=(0.0,), downsampling=POOLS, labels=("real",)), without=(1, "down1"))
    drawn = draw(sweep, "deform-t")
    found = by_suffix([one for one in drawn if not one.suffix.endswith("-layers")])
    assert {one.suffix for one in drawn} == {
        f"-{metric}{end}" for metric in ("deformation_sensitivity", "filter_total_variation") for end in ("", "-layers")
    }
    means = found["-deformation_sensitivity"]
    expected = {
        (pool, float(epoch)): pytest.approx(100 + add + 0.01 + 0.5 * epoch + 0.25)
        for (pool, add), epoch in itertools.product((("max-pool", 10), ("strided-relu", 20)), (0, 2))
    }
    assert {key: value for key, value in means.items() if key[1] != 1.0} == expected
    assert 1.0 not in {epoch for (_, epoch), value in means.items() if not np.isnan(value)}
    (layers,) = (one for one in drawn if one.suffix == "-deformation_sensitivity-layers")
    rows = {row[:3]: float(row[3]) for row in layers.rows}
    assert rows["conv1_1", "max-pool", 2.0] == pytest.approx(111.21)
    assert rows["down1", "strided-relu", 2.0] == pytest.approx(121.31)
    assert np.isnan(rows["down1", "max-pool", 1.0])
    assert [axes.get_title() for axes in layers.figure.axes] == list(LAYERS)
    for axes, number in zip(layers.figure.axes, (1, 2), strict=False):
        assert axes.lines[0].get_ydata() == pytest.approx([110.01 + 0.1 * number + 0.5 * epoch for epoch in EPOCHS])


def test_two_moments_are_no_trajectory(tmp_path: Path) -> None:
    trial, epochs, _, _ = make_trial("0", method="deformation", variant=None, alpha=None, sigma=0.0)
    row = {"metric": "filter_total_variation", "component": "", "direction": "none", "value": 1.0}
    write_trial(str(tmp_path / "demo"), trial, epochs, [{**row, "epoch": 0}, {**row, "epoch": 2}], [])
    with pytest.raises(InputError, match="--measure-every"):
        draw(read_sweep(str(tmp_path / "demo")), "deform-t")


def test_the_unregularised_network_is_in_every_figure(tmp_path: Path) -> None:
    """Another method's baseline has no σ and no downsampling layer of its own: it stands beside each."""
    settings = grid(sigma=(0.0, 1.0), downsampling=("max-pool",), labels=("real",))
    plain = {"method": "baseline", "labels": "real"}
    write(tmp_path / "demo", *settings)
    for seed in (0, 2):
        trial, epochs, _, _ = make_trial(f"plain{seed}", seed=seed, variant=None, alpha=None, **plain)
        row = {"metric": "deformation_sensitivity", "component": "input", "direction": "none"}
        write_trial(str(tmp_path / "demo"), trial, epochs, [{**row, "epoch": at, "value": 7.0} for at in (0, 2)], [])
    for means in by_suffix(draw(read_sweep(str(tmp_path / "demo")), "deform-3")).values():
        assert means["baseline", "input"] == 7.0


def test_a_diverged_network_is_no_trained_one(tmp_path: Path) -> None:
    """What was measured of it half-way is not how it ended."""
    write(tmp_path / "demo", *grid(sigma=(0.0,), downsampling=("max-pool",), labels=("real",)))
    lost = {"sigma": 0.0, "downsampling": "strided-relu", "labels": "real"}
    for seed in (0, 2):
        columns = {"method": "deformation", "variant": None, "alpha": None, "status": "diverged", **lost}
        trial, epochs, _, _ = make_trial(f"lost{seed}", seed=seed, **columns)
        row = {"metric": "deformation_sensitivity", "component": "conv1_1", "direction": "none"}
        write_trial(str(tmp_path / "demo"), trial, epochs, [{**row, "epoch": at, "value": 9.0} for at in (0, 1)], [])
    found = by_suffix(draw(read_sweep(str(tmp_path / "demo")), "deform-3"))
    assert {name for name, _ in found["-deformation_sensitivity-initialisation"]} == set(POOLS)
    assert {name for name, _ in found["-deformation_sensitivity-trained"]} == {"max-pool"}


def test_a_harder_task_is_not_beyond_a_tipping_point(tmp_path: Path) -> None:
    """Accuracy falls with C as the task gets harder, and those networks are what the claim is about."""
    for strength in (1.0, 2.0, 3.0, 4.0):
        (setting,) = grid(sigma=(0.0,), downsampling=("max-pool",), labels=("real",), deformation_strength=(strength,))
        columns = {"method": "deformation", "variant": None, "alpha": None, "top1": 0.9 if strength < 3 else 0.3}
        for seed in (0, 1):
            trial, epochs, _, _ = make_trial(f"{strength}{seed}", seed=seed, **columns, **setting)
            row = {"epoch": 2, "metric": "filter_total_variation", "component": "", "direction": "none"}
            write_trial(str(tmp_path / "demo"), trial, epochs, [{**row, "value": 2 - strength / 10}], [])
    sweep = read_sweep(str(tmp_path / "demo"))
    (test,) = correlations(sweep, strength="deformation_strength", metrics=["filter_total_variation"]).tests
    assert (test.kept, test.dropped) == (8, 0)
    assert test.rho.rho == pytest.approx(-1)
    chosen = {"strength": "deformation_strength", "metrics": ["filter_total_variation"]}
    (test,) = correlations(sweep, **chosen, until="paper").tests
    assert test.dropped > 0


def test_what_was_measured_on_another_data_set_is_no_layer(tmp_path: Path) -> None:
    columns = {"method": "deformation", "variant": None, "alpha": None, "sigma": 0.0}
    trial, epochs, _, _ = make_trial("0", **columns)
    row = {"metric": "deformation_sensitivity", "direction": "none"}
    own = [{**row, "component": "down1", "epoch": at, "value": 0.5} for at in (0, 1, 2)]
    mean = [{**row, "component": "", "epoch": at, "value": 0.5} for at in (0, 1, 2)]
    elsewhere = [{**row, "component": name, "epoch": 2, "value": 0.9} for name in ("down1 on kmnist", "on kmnist")]
    write_trial(str(tmp_path / "demo"), trial, epochs, [*own, *mean, *elsewhere], [])
    sweep = read_sweep(str(tmp_path / "demo"))
    assert {row[1] for drawn in draw(sweep, "deform-3") for row in drawn.rows} == {"down1"}
    means, layers = draw(sweep, "deform-t")
    assert {float(row[2]) for row in means.rows} == {0.5}
    assert {row[0] for row in layers.rows} == {"down1"}
