"""Receptive fields against a slow loop over outputs, and against a convolution worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.command_line import InputError
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, load
from trainables.method import Method
from trainables.metrics import METRICS, Moment
from trainables.metrics import receptive_field as module
from trainables.metrics.flags import MetricFlags
from trainables.metrics.receptive_field import (
    ReceptiveField,
    centre_of,
    erf,
    last_maps,
    receptive_fields,
    z_normalised,
)
from trainables.models import build_model
from trainables.models.feature_maps import cut
from trainables.models.top_gap import TopGapNetwork
from trainables.top_gap import TopGap
from trainables.training import Run

CPU = torch.device("cpu")


def digits(size: int = 8) -> object:
    return load("digits", "unused", DataConfig("digits", image_size=size))


def networks(size: int = 16) -> dict[str, nn.Module]:
    """A plain one and one with class maps, in evaluation mode with statistics that are not the initial ones."""
    torch.manual_seed(5)
    found: dict[str, nn.Module] = {}
    for name in ("plain", "top_gap"):
        network = build_model("resnet8", channels=1, size=size, classes=10, width=4, seed=1)
        found[name] = network if name == "plain" else TopGapNetwork(network, (1, size, size), TopGap(pixels=9))
        found[name](torch.randn(64, 1, size, size))
        found[name].eval()
    return found


def slow_fields(maps: Callable[[Tensor], Tensor], images: Tensor, location: tuple[int, int]) -> Tensor:
    """Σ_c ∂X[c, i, j] / ∂x, a backward pass for every image's every single output."""
    fields = torch.zeros_like(images)
    for number in range(len(images)):
        image = images[number : number + 1].clone().requires_grad_(True)
        outputs = maps(image)
        for channel in range(outputs.shape[1]):
            single = outputs[0, channel, location[0], location[1]]
            (gradient,) = torch.autograd.grad(single, image, retain_graph=True)
            fields[number] += gradient[0]
    return fields


@pytest.mark.parametrize("name", ["plain", "top_gap"])
def test_the_gradients_are_those_of_a_double_loop_over_images_and_outputs(name: str) -> None:
    network = networks()[name].double()
    images = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    maps = last_maps(network)
    side = maps(images).shape[-1]
    assert (name, side) in {("plain", 4), ("top_gap", 8)}
    locations = [centre_of(side, side), (0, 0), (side - 1, 1)]
    fields = receptive_fields(maps, images, locations)
    assert fields.shape == (3, 3, 1, 16, 16)
    expected = [slow_fields(maps, images, location) for location in locations]
    torch.testing.assert_close(fields, torch.stack(expected), rtol=1e-6, atol=1e-12)

    # and E by numpy, of each image's gradients of two locations together
    pair = np.stack([field.numpy() for field in expected[:2]])
    for number, found in enumerate(erf(fields[:2])):
        values = pair[:, number]
        scores = (values - values.mean()) / values.std()
        assert found.tolist() == pytest.approx([np.abs(scores[0]).mean(), np.abs(scores[1]).mean()], rel=1e-6)


def test_the_maps_are_class_maps_of_a_top_gap_network_and_the_last_feature_map_of_others() -> None:
    images = torch.randn(2, 1, 16, 16)
    found = networks()
    assert last_maps(found["top_gap"])(images).shape == (2, 10, 8, 8)
    assert last_maps(found["plain"])(images).shape == (2, 16, 4, 4)
    torch.testing.assert_close(last_maps(found["plain"])(images), cut(found["plain"]).features(images))


def test_a_convolution_by_hand() -> None:
    """Two channels of 3×3 with zero padding: at the centre both kernels are seen whole, in the corner their lower right
    2×2 alone."""
    layer = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight[0, 0] = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
        layer.weight[1, 0] = torch.tensor([[0.0, 0, 0], [0, -10, 0], [0, 0, 0]])
    fields = receptive_fields(layer, torch.randn(2, 1, 5, 5), [centre_of(5, 5), (0, 0)])
    centre, corner = torch.zeros(5, 5), torch.zeros(5, 5)
    centre[1:4, 1:4] = torch.tensor([[1.0, 2, 3], [4, -5, 6], [7, 8, 9]])
    corner[:2, :2] = torch.tensor([[-5.0, 6], [8, 9]])
    assert torch.equal(fields[0, :, 0], centre.expand(2, 5, 5))
    assert torch.equal(fields[1, :, 0], corner.expand(2, 5, 5))
    # 50 values: sum 35 + 18, squares 285 + 206
    mean = 53 / 50
    deviation = math.sqrt(491 / 50 - mean**2)
    values = {"centre": [1, 2, 3, 4, -5, 6, 7, 8, 9] + [0] * 16, "corner": [-5, 6, 8, 9] + [0] * 21}
    expected = [sum(abs(v - mean) for v in part) / 25 / deviation for part in values.values()]
    for found in erf(fields):
        assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert expected[0] > expected[1]


def test_the_scale_of_gradients_does_not_count_but_that_of_one_location_against_the_other_does() -> None:
    fields = torch.randn(2, 4, 3, 6, 6, dtype=torch.float64)
    scaled = fields * torch.tensor([1e-30, 1, 1e3, 1e30]).double().reshape(1, 4, 1, 1, 1)
    torch.testing.assert_close(erf(scaled), erf(fields))
    stronger = fields * torch.tensor([5.0, 1.0]).double().reshape(2, 1, 1, 1, 1)
    assert bool((erf(stronger)[:, 0] > 3 * erf(stronger)[:, 1]).all())
    together = z_normalised(fields)
    torch.testing.assert_close(together.mean((0, 2, 3, 4)), torch.zeros(4).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(together.square().mean((0, 2, 3, 4)), torch.ones(4).double())


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_gradients_that_are_all_the_same_have_no_value(value: float) -> None:
    fields = torch.randn(2, 3, 1, 4, 4)
    fields[:, 1] = value
    assert erf(fields).isnan().any(1).tolist() == [False, True, False]


def test_a_value_below_the_least_of_gradients_normalised_apart_is_in_the_paper() -> None:
    """Two values a and −a, all others 0, have the least mean |z| of n values, √(2/n): Table A7 has 0.002 and n is
    3·224², or 224² with the channels averaged."""
    for n in (3 * 224**2, 224**2):
        values = torch.zeros(1, 1, 1, n, 1, dtype=torch.float64)
        values[0, 0, 0, :2, 0] = torch.tensor([1.0, -1.0])
        assert float(erf(values)) == pytest.approx(math.sqrt(2 / n))
        assert float(erf(values)) > 0.002


def test_the_centre() -> None:
    """The paper's (4, 4) of 7×7, counted from 1."""
    assert centre_of(7, 7) == (3, 3)
    assert centre_of(56, 8) == (27, 3)
    assert centre_of(2, 1) == (0, 0)


class TestAsAMetric:
    def moment(self, model: nn.Module, *, split: str = "test", size: int = 16) -> Moment:
        data = digits(size)
        return Moment(model.eval(), data, split, 1, True, 0, CPU, lambda _seed: model)  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["plain", "top_gap"])
    def test_its_rows_and_maps(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = networks()[name]
        moment = self.moment(model)
        measured = ReceptiveField(images=20).measure(moment)
        images, _ = next(iter(moment.data.batches("test", 20, device=CPU)))
        maps = last_maps(model)
        side = maps(images).shape[-1]
        fields = torch.stack([slow_fields(maps, images, at) for at in (centre_of(side, side), (0, 0))])
        values = erf(fields)
        rows = {(row["metric"], row["component"]): row for row in measured.measurements}
        assert set(rows) == {("erf", "centre"), ("erf", "corner"), ("erf_distance", "")}
        distance = values[:, 0] - values[:, 1]
        for key, found in (
            (("erf", "centre"), values[:, 0]),
            (("erf", "corner"), values[:, 1]),
            (("erf_distance", ""), distance),
        ):
            assert rows[key]["value"] == pytest.approx(float(found.mean()), rel=1e-4)
            assert rows[key]["std"] == pytest.approx(float(found.std()), rel=1e-4)
            assert (rows[key]["n"], rows[key]["level"], rows[key]["unit"]) == (20, None, "")
        assert [row["direction"] for row in measured.measurements] == ["max", "min", "max"]
        assert list(measured.maps) == ["erf/centre", "erf/corner"]
        for map_, field in zip(measured.maps.values(), fields, strict=True):
            torch.testing.assert_close(map_, field.abs().mean((0, 1)).double(), rtol=1e-3, atol=1e-7)
        # however many images go through at once
        monkeypatch.setattr(module, "chunk_size", lambda _model, _images: 3)
        again = ReceptiveField(images=20).measure(moment)
        for row, other in zip(measured.measurements, again.measurements, strict=True):
            assert row["value"] == pytest.approx(other["value"], rel=1e-5)

    def test_maps_of_2x2_have_no_centre(self) -> None:
        model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=1)
        assert last_maps(model)(torch.randn(1, 1, 8, 8)).shape[-1] == 2
        measured = ReceptiveField(images=5).measure(self.moment(model, size=8))
        assert [(row["value"], row["std"], row["n"]) for row in measured.measurements] == [(None, None, 0)] * 3
        assert measured.maps == {}

    def test_a_dead_network_has_no_value(self) -> None:
        model = build_model("resnet8", channels=1, size=16, classes=10, width=4, seed=1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        measured = ReceptiveField(images=5).measure(self.moment(model))
        assert [(row["value"], row["n"]) for row in measured.measurements] == [(None, 0)] * 3

    def test_measured_at_the_end_alone_and_what_cannot_be_cut_is_refused_before(self) -> None:
        model = networks()["plain"]
        assert ReceptiveField().measure(self.moment(model, split="validation")).measurements == []
        data = digits(16)
        moment = Moment(nn.Flatten(), data, "validation", 0, False, 0, CPU, lambda _: model)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="network: Flatten, allowed are sequences of layers"):
            ReceptiveField().measure(moment)

    def test_as_a_run_measures_it(self) -> None:
        data = load("digits", "unused", DataConfig("digits", train_images=60))
        training = TrainingConfig(epochs=1, batch_size=30)
        for method in (Method(), TopGap(pixels=4)):
            config = TrialConfig(method, ModelConfig("resnet8", 4), data.config, training, 0)
            run = Run(config, data, metrics={"erf": ReceptiveField(images=3)})
            run.begin()
            run.train_epoch()
            assert run.status == "completed"
            assert [row["epoch"] for row in run.measurements] == [1, 1, 1]

    def test_its_flags(self) -> None:
        options = MetricFlags(erf_images=7).metric_options(["erf"], "measure")
        assert METRICS["erf"](**options["erf"]) == ReceptiveField(7)
        with pytest.raises(InputError, match="images: 0, allowed are whole numbers of at least 1"):
            MetricFlags(erf_images=0).metric_options(["erf"], "measure")
