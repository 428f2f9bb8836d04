"""What the papers say of layers: orders and trends worked out by hand, on seeds in pairs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from analysis.paper.items import ITEMS, METHODS
from analysis.paper.lines import Line
from analysis.paper.printed import orders
from analysis.paper.verdicts import check
from analysis.records import read_sweep, write_trial
from analysis.schema import TABLES
from tests.analysis.conftest import make_trial
from tests.analysis.test_claims import text_of

LAYERS = ("conv1_1", "down1", "conv2_1", "down2")
SENSITIVITY, SMOOTHNESS = "deformation_sensitivity", "filter_total_variation"
DATA = {"validation": 0.0, "train_images": None}
PAPER: dict[str, Any] = {
    "method": "deformation", "dataset": "cifar10", "model": "vgg-cifar", "width": 32, "alpha": None, "variant": None,
    "labels": "real", "sigma": 0.0,
}  # fmt: skip
# what four networks differ in
NOISE = (0.0, 0.02, -0.01, 0.005)

Values = dict[int, dict[str, float]]
"""By epoch and layer, without the noise of the seed."""


def put(path: Path, name: str, metric: str, values: Values, noise: tuple[float, ...] = NOISE, **columns: Any) -> None:
    """Four seeds of a setting; seed s adds noise[s] to every layer at the end, and half of it at initialisation."""
    for seed, extra in enumerate(noise):
        settings = {**PAPER, "config": json.dumps({"data": DATA}), **columns}
        trial, epochs, _, _ = make_trial(f"{name}{seed}", seed=seed, **settings)
        measured = [
            {
                "epoch": epoch,
                "metric": metric,
                "component": f"{layer}.conv" if metric == SMOOTHNESS else layer,
                "direction": "none",
                "value": value + (extra if epoch else extra / 2),
            }
            for epoch, by_layer in values.items()
            for layer, value in by_layer.items()
        ]
        if metric == SENSITIVITY:
            measured.append({**measured[0], "component": "input", "value": 9.0})
        write_trial(str(path), trial, epochs, measured, [])


def lines(path: Path, table: str, statement: str) -> list[Line]:
    return [line for line in check(read_sweep(str(path)), table).lines if statement in line.row]


def level(value: float) -> dict[str, float]:
    return dict.fromkeys(LAYERS, value)


def test_an_order_is_of_pairs_of_one_seed(tmp_path: Path) -> None:
    """Pooled networks are .1 below at initialisation, but for what their seeds differ in."""
    put(tmp_path, "m", SENSITIVITY, {0: level(0.2), 2: level(0.3)}, downsampling="max-pool")
    other = (0.01, 0.0, 0.03, -0.02)
    put(tmp_path, "s", SENSITIVITY, {0: level(0.3), 2: level(0.31)}, other, downsampling="strided-relu")
    (line,) = lines(tmp_path, "deform-3", "pooling leads")
    first, second = ([0.2 + e / 2 for e in NOISE], [0.3 + e / 2 for e in other])
    p = stats.ttest_rel(first, second, alternative="less").pvalue
    # the statements about initialisation and training are as comparable as each other, here: a family of six, of which
    # this is neither the smallest p nor the largest
    family = check(read_sweep(str(tmp_path)), "deform-3").lines
    assert {line.why for line in family if line.verdict == "not comparable"} == set()
    assert (line.n, line.ours) == (4, pytest.approx(sum(first) / 4 - sum(second) / 4))
    assert p <= line.order_p <= len(family) * p
    assert (line.finding, line.verdict) == ("holds", "agrees")
    assert line.paper == "deformation_sensitivity below that of strided-relu (at initialisation), last layer"


def test_what_an_order_comes_to(tmp_path: Path) -> None:
    """Sensitivity rises by training in the first half of the layers and falls in the last; of the other network nothing
    is to be seen."""
    start = level(0.2)
    end = {"conv1_1": 0.4, "down1": 0.3, "conv2_1": 0.2, "down2": 0.1}
    put(tmp_path, "m", SENSITIVITY, {0: start, 2: end}, downsampling="max-pool")
    put(tmp_path, "a", SENSITIVITY, {0: start, 2: level(0.2)}, downsampling="average-pool")
    put(tmp_path, "s", SENSITIVITY, {0: start, 2: level(0.4)}, downsampling="strided")
    of = {line.column.split(", ")[-1]: line for line in lines(tmp_path, "deform-3", "it often increases")}
    assert (of["max-pool"].finding, of["max-pool"].verdict) == ("holds", "agrees")
    assert of["max-pool"].ours == pytest.approx(0.15 + sum(NOISE) / 8)
    assert "above in conv1_1 and down1" in of["max-pool"].order
    assert (of["average-pool"].finding, of["average-pool"].verdict) == ("not shown", "too wide to tell")
    (strided,) = lines(tmp_path, "deform-3", "networks without pooling are")
    assert (strided.finding, strided.verdict) == ("the opposite holds", "differs")
    (changes,) = [it for it in lines(tmp_path, "deform-3", "changes significantly") if "max-pool" in it.column]
    assert changes.finding == "holds"
    assert changes.order.startswith("below in down2, above in conv1_1 and down1")


@pytest.mark.parametrize(
    ("difference", "noise", "finding", "verdict"),
    [
        (0.01, (0.0, 0.0005, -0.0005, 0.0002), "does not hold", "differs"),
        (0.0, (0.0, 0.0005, -0.0005, 0.0001), "holds", "agrees"),  # within a tenth of .3
        (0.0, (0.3, -0.2, 0.1, -0.25), "not shown", "too wide to tell"),
    ],
)
def test_alike_is_shown_by_intervals_and_not_by_large_p(
    difference: float, noise: tuple[float, ...], finding: str, verdict: str, tmp_path: Path
) -> None:
    put(tmp_path, "m", SENSITIVITY, {0: level(0.2), 2: level(0.3)}, downsampling="max-pool")
    apart = tuple(a + b for a, b in zip(NOISE, noise, strict=True))
    put(tmp_path, "s", SENSITIVITY, {0: level(0.5), 2: level(0.3 + difference)}, apart, downsampling="strided")
    (line,) = lines(tmp_path, "deform-3", "these differences have vanished")
    assert (line.finding, line.verdict) == (finding, verdict)


def test_trends_along_a_hyperparameter_are_within_seeds(tmp_path: Path) -> None:
    """Three σ, four seeds that differ by far more: 6⁴ orders within seeds, of which one is as far out."""
    wide = (0.0, 5.0, -4.0, 9.0)
    for index, sigma in enumerate((0.0, 0.5, 2.0)):
        values = {0: level(20 - index), 2: level(1.0)}
        put(tmp_path, f"{index}", SENSITIVITY, values, wide, sigma=sigma, downsampling="max-pool")
    (line,) = lines(tmp_path, "deform-4", "smoother random filters")
    assert (line.n, line.finding, line.verdict) == (12, "holds", "agrees")
    assert line.order_p == pytest.approx(2 / 6**4)
    assert "at every step in 4 of 4 layers" in line.order


def test_trends_along_the_layers_are_of_the_means(tmp_path: Path) -> None:
    names = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2")
    rising = {0: dict.fromkeys(names, 1.9), 2: {name: 1.5 + 0.1 * index for index, name in enumerate(names)}}
    put(tmp_path, "m", SMOOTHNESS, rising, downsampling="max-pool")
    (line,) = lines(tmp_path, "deform-6", "for CIFAR10 (b)")
    # of 6! orders two are as far out on either side
    assert (line.n, line.ours, line.finding) == (6, pytest.approx(1), "holds")
    assert line.order_p >= 2 / 720


def test_what_is_not_as_in_the_paper_is_said_beside_what_is_found(tmp_path: Path) -> None:
    columns = {"dataset": "kmnist", "config": json.dumps({"data": {**DATA, "train_images": 500}})}
    columns |= {"measured": '{"deformation_sensitivity": {"images": 64, "grid": null, "max_displacement": 2}}'}
    put(tmp_path, "m", SENSITIVITY, {0: level(0.2), 2: level(0.3)}, downsampling="max-pool", **columns)
    (line,) = lines(tmp_path, "deform-3", "it often increases")
    assert (line.verdict, line.finding) == ("not comparable", "holds")
    assert line.why == (
        "dataset is kmnist (paper: cifar10); 500 training images (paper: all); measured with images=64 (paper: 128)"
    )


def test_numbers_of_other_options_are_no_pair(tmp_path: Path) -> None:
    for name, images in (("max-pool", 128), ("strided", 64)):
        text = json.dumps({"deformation_sensitivity": {"images": images, "grid": 3, "max_displacement": 2, "seed": 0}})
        put(tmp_path, name, SENSITIVITY, {0: level(0.2), 2: level(0.3)}, downsampling=name, measured=text)
    assert lines(tmp_path, "deform-3", "pooling leads") == []


@pytest.mark.parametrize("order", orders(), ids=lambda order: f"{order.table}-{order.order}")
def test_the_papers_say_so(order: Any) -> None:
    assert order.table in ITEMS
    assert order.order in ("below", "above", "apart", "alike", "falls", "rises")
    assert (order.order in ("falls", "rises")) == bool(order.along)
    assert order.along in ("", "layer", *TABLES["trials"].names)
    assert order.layers in ("all", "early", "last")
    assert bool(order.than_quantity) != bool(order.along)
    assert order.settings["method"] == METHODS[order.paper]
    assert order.statement in re.sub(r"\s+", " ", text_of(order.paper))
