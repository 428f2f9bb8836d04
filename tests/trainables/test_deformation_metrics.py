"""Sensitivity to deformation against a slow computation that holds every layer; smoothness by hand and by chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial import distance
from torch import Tensor, nn

from analysis.command_line import InputError
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, load
from trainables.deformation import deform, random_deformations
from trainables.method import Method
from trainables.metrics import METRICS, Moment
from trainables.metrics.deformation import (
    DeformationSensitivity,
    FilterSmoothness,
    deformation_of,
    deformation_sensitivity,
    filter_total_variation,
    largest_activation,
    measured_layers,
    normalised_distances,
)
from trainables.metrics.flags import MetricFlags
from trainables.models import MODELS, build_model
from trainables.models.downsampled import set_downsampling_
from trainables.models.top_gap import TopGapNetwork
from trainables.top_gap import TopGap
from trainables.training import Run

CPU = torch.device("cpu")
PAPERS_LAYERS = [
    f"{kind}{block}{which}" for block in (1, 2, 3, 4) for kind, which in (("conv", "_1"), ("conv", "_2"), ("down", ""))
]


def images_and_deformations(number: int, size: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(number, channels, size, size, generator=generator)
    return images, deform(images, random_deformations(number, size, size, 3, 1.5, generator=generator))


def slow_sensitivity(model: nn.Module, layers: list[nn.Module], images: Tensor, deformed: Tensor) -> list[float]:
    """Every layer's outputs held, each pair of images by scipy's cosine distance; the input first."""
    found: list[list[np.ndarray]] = []
    for batch in (images, deformed):
        held = [batch]
        handles = [layer.register_forward_hook(lambda _m, _i, output, to=held: to.append(output)) for layer in layers]
        with torch.no_grad():
            model(batch)
        for handle in handles:
            handle.remove()
        found.append([outputs.double().flatten(1).numpy() for outputs in held])
    values = []
    for original, moved in zip(*found, strict=True):
        number = len(original)
        pairs = [distance.cosine(original[i], original[j]) for i in range(number) for j in range(i)]
        own = [distance.cosine(original[i], moved[i]) for i in range(number)]
        values.append(float(np.mean(own) / np.median(pairs)))
    return values


class TestSensitivity:
    def test_a_network_of_two_layers_by_hand(self) -> None:
        """Images of two pixels, a 1×1 convolution to x and −x, and its ReLU."""
        network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU())
        network[0].weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).reshape(3, 1, 1, 2)
        deformed = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, -1.0]]).reshape(3, 1, 1, 2)
        # input: pairs 1, 1 − 1/√2 twice: median 1 − 1/√2; of the deformations 1, 0 (of another length), 1
        # ReLU of (x, −x): (1,0,0,0), (0,1,0,0), (1,1,0,0); deformed (0,1,0,0), (0,2,0,0), (1,0,0,1): 1, 0, 1 − 1/2
        median = 1 - 1 / math.sqrt(2)
        found = deformation_sensitivity(network, images, deformed)
        assert found == {
            "input": pytest.approx((1 + 0 + 1) / 3 / median, abs=1e-12),
            "1": pytest.approx((1 + 0 + 0.5) / 3 / median, abs=1e-12),
        }
        assert list(found) == ["input", "1"]

    @pytest.mark.parametrize("kind", ["subsample", "max-pool", "average-pool", "strided", "strided-relu"])
    def test_it_is_what_a_slow_computation_gives(self, kind: str) -> None:
        """Of each of the paper's downsampling layers, with running statistics that are not the initial ones."""
        torch.manual_seed(0)
        model = build_model("vgg-cifar", channels=3, size=16, classes=5, width=4, seed=0)
        set_downsampling_(model, kind)
        model(torch.randn(64, 3, 16, 16) + 1)
        images, deformed = images_and_deformations(7, 16)
        found = deformation_sensitivity(model.train(), images, deformed)
        assert all(module.training for module in model.modules())
        assert list(found) == ["input", *PAPERS_LAYERS]
        layers = [model.get_submodule(name) for name in PAPERS_LAYERS]
        expected = slow_sensitivity(model.eval(), layers, images, deformed)
        # the network's own rounding, which depends on the batch
        np.testing.assert_allclose(list(found.values()), expected, rtol=1e-4)

    @pytest.mark.parametrize("name", ["lenet5", "resnet8", "preact-resnet18", "mobilenet"])
    def test_other_networks_nonlinearities_and_poolings(self, name: str) -> None:
        model = build_model(name, channels=3, size=32, classes=5, width=4, seed=0).double().eval()
        images, deformed = (each.double() for each in images_and_deformations(6, 32))
        layers = dict(measured_layers(model))
        assert all(isinstance(layer, (nn.ReLU, nn.MaxPool2d)) for layer in layers.values())
        kinds = (nn.ReLU, nn.MaxPool2d)
        assert len(layers) == sum(isinstance(module, kinds) for module in model.modules())
        found = deformation_sensitivity(model, images, deformed)
        assert list(found) == ["input", *layers]
        expected = slow_sensitivity(model, list(layers.values()), images, deformed)
        np.testing.assert_allclose(list(found.values()), expected, rtol=1e-9)

    @pytest.mark.parametrize("name", MODELS)
    def test_every_network_has_layers(self, name: str) -> None:
        with torch.device("meta"):
            model = build_model(name, channels=3, size=MODELS[name].smallest, classes=5, seed=0)
        assert len(measured_layers(model)) >= 4

    def test_a_layer_that_runs_again_is_another(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second, self.relu = nn.Linear(16, 8), nn.Linear(8, 8), nn.ReLU(inplace=True)

            def forward(self, x: Tensor) -> Tensor:
                return self.relu(self.second(self.relu(self.first(x.flatten(1)))))

        torch.manual_seed(0)
        images, deformed = images_and_deformations(5, 4, 1)
        found = deformation_sensitivity(Twice(), images, deformed)
        assert list(found) == ["input", "relu", "relu#2"]
        assert found["relu"] != found["relu#2"]

    def test_in_a_network_that_a_method_has_changed(self) -> None:
        plain = build_model("vgg-cifar", channels=3, size=16, classes=5, width=4, seed=0)
        changed = TopGapNetwork(plain, (3, 16, 16), TopGap(4))
        names = [name for name, _ in measured_layers(changed)]
        assert [name.rpartition(".")[2] for name in names] == PAPERS_LAYERS[:-1]  # no pooling follows the last map
        images, deformed = images_and_deformations(4, 16)
        found = deformation_sensitivity(changed, images, deformed)
        assert list(found) == ["input", *names]
        # before what the method has changed, the layers give what they gave
        before = deformation_sensitivity(plain, images, deformed)
        assert list(before.values())[: len(found)] == pytest.approx(list(found.values()), rel=1e-9)

    @pytest.mark.parametrize("name", ["lenet5", "resnet8", "vgg-cifar"])
    def test_no_deformation_is_0(self, name: str) -> None:
        model = build_model(name, channels=3, size=16, classes=5, width=8, seed=0)
        images, deformed = images_and_deformations(33, 16)
        assert set(deformation_sensitivity(model, images, images.clone()).values()) == {0.0}
        # of a part of the images: theirs alone
        some = torch.cat([images[:5], deformed[5:]])
        for values in normalised_distances(model, images, some).values():
            assert bool((values[:5] == 0).all())
            assert bool((values[5:] > 0).all())

    def test_unrelated_images_are_1(self) -> None:
        """As far as the median pair: mean over median of the pairs' distances, and chance; 64 draws."""
        model = build_model("vgg-cifar", channels=3, size=16, classes=5, width=8, seed=0)
        images = torch.rand(128, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        found = deformation_sensitivity(model, images[:64], images[64:])
        assert all(value == pytest.approx(1, abs=0.1) for value in found.values())

    @pytest.mark.parametrize("chunk", [1, 3, 4, 5])
    def test_chunks_change_nothing(self, chunk: int) -> None:
        model = build_model("vgg-cifar", channels=3, size=16, classes=5, width=4, seed=0).double().eval()
        images, deformed = (each.double() for each in images_and_deformations(9, 16))
        whole = deformation_sensitivity(model, images, deformed)
        largest = largest_activation(model, images)
        assert largest == 8 * 4 * 16 * 16
        passed: list[int] = []
        handle = model.register_forward_hook(lambda _m, given, _o: passed.append(len(given[0])))
        parts = deformation_sensitivity(model, images, deformed, budget=2 * chunk * largest)
        handle.remove()
        assert max(passed) == 2 * chunk
        chunks = -(-9 // chunk)
        assert len(passed) - 1 == chunks + chunks * (chunks - 1) // 2  # and one image to size them
        assert list(parts) == list(whole)
        np.testing.assert_allclose(list(parts.values()), list(whole.values()), rtol=1e-9)

    def test_a_budget_below_one_image_is_one_pair_at_once(self) -> None:
        model = build_model("lenet5", channels=1, size=16, classes=5, width=4, seed=0)
        images, deformed = images_and_deformations(3, 16, 1)
        whole, single = (deformation_sensitivity(model, images, deformed, budget=budget) for budget in (2**30, 1))
        np.testing.assert_allclose(list(single.values()), list(whole.values()), rtol=1e-4)

    def test_a_dead_layer_has_no_value(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU())
        nn.init.constant_(network[2].weight, 0.0)
        nn.init.constant_(network[2].bias, -1.0)
        images, deformed = images_and_deformations(4, 8, 1)
        for moved in (deformed, images):
            found = deformation_sensitivity(network, images, moved)
            assert math.isfinite(found["1"])
            assert math.isnan(found["3"])
        # the same for all images, which has no distances
        nn.init.constant_(network[2].bias, 1.0)
        assert math.isnan(deformation_sensitivity(network, images, deformed)["3"])
        nn.init.constant_(network[2].bias, math.nan)
        assert math.isnan(deformation_sensitivity(network, images, deformed)["3"])

    def test_what_has_no_pairs_is_refused(self) -> None:
        model = build_model("lenet5", channels=1, size=16, classes=5, width=4, seed=0)
        images, deformed = images_and_deformations(3, 16, 1)
        for pair in [(images[:1], deformed[:1]), (images, deformed[:2]), (images[0], deformed[0])]:
            with pytest.raises(ValueError, match="allowed are equal ones"):
                deformation_sensitivity(model, *pair)


class TestSmoothness:
    def test_by_hand(self) -> None:
        """|1−2| + |2−4| + |0−1| + |1−0| + … of one slice, and another of equal entries, over both."""
        first = torch.tensor([[1.0, 2.0, 4.0], [0.0, -1.0, 0.0], [0.0, 0.0, 3.0]])
        # right: 1 + 2 + 1 + 1 + 0 + 3 = 8; down: 1 + 3 + 4 + 0 + 1 + 3 = 12; sum of magnitudes 11
        assert float(filter_total_variation(first.reshape(1, 1, 3, 3))) == pytest.approx(20 / 11)
        both = torch.stack([first, torch.full((3, 3), -2.0)])
        for shape in [(2, 1, 3, 3), (1, 2, 3, 3)]:
            assert float(filter_total_variation(both.reshape(shape))) == pytest.approx(20 / (11 + 18))

    def test_edges(self) -> None:
        assert float(filter_total_variation(torch.ones(2, 2, 3, 3))) == 0
        assert float(filter_total_variation(torch.randn(2, 2, 1, 1))) == 0
        assert math.isnan(float(filter_total_variation(torch.zeros(2, 2, 3, 3))))
        assert float(filter_total_variation(1e3 * torch.eye(3)[None, None])) == pytest.approx(8 / 3)
        with pytest.raises(ValueError, match="weight: of shape"):
            filter_total_variation(torch.ones(3, 3))

    def test_at_random_initialisation(self) -> None:
        """12 differences for 9 entries: 12/9 · E|a − b| / E|a| of the truncated normal, near the paper's 1.87 in every
        layer, with the paper's deviation of 0.035 for 3 → 32 channels."""
        of = stats.truncnorm(-2, 2)
        magnitude = of.expect(abs)
        # E|a − b| = 2 ∫ F (1 − F)
        grid = np.linspace(-2, 2, 20_001)
        apart = 2 * np.trapezoid(of.cdf(grid) * of.sf(grid), grid)
        expected = 12 / 9 * apart / magnitude
        assert expected == pytest.approx(1.8566, abs=1e-4)
        assert expected == pytest.approx(1.87, abs=0.015)
        found: dict[str, list[float]] = {}
        for seed in range(100):
            model = build_model("vgg-cifar", channels=3, size=32, classes=10, width=32, seed=seed)
            for name in ("conv1_1", "conv1_2"):
                weight = model.get_submodule(name).get_submodule("conv").weight.detach()
                found.setdefault(name, []).append(float(filter_total_variation(weight)))
        # four standard errors of the mean of 100, and of their standard deviation (7%)
        for name, deviation in (("conv1_1", 0.035), ("conv1_2", 0.0107)):
            assert np.mean(found[name]) == pytest.approx(expected, abs=4 * deviation / 10)
            assert np.std(found[name]) == pytest.approx(deviation, rel=0.28)
        larger = float(filter_total_variation(model.get_submodule("conv4_2").get_submodule("conv").weight.detach()))
        assert larger == pytest.approx(expected, abs=0.006)


# --- as metrics -------------------------------------------------------------------------------------------------------


def measured(options: dict[str, dict[str, Any]], epochs: int = 5, seed: int = 0, model: str = "resnet8") -> Run:
    data = load("digits", "unused", DataConfig("digits", image_size=16, train_images=100))
    training = TrainingConfig(epochs=epochs, batch_size=50, learning_rate=0.05)
    run = Run(
        TrialConfig(Method(), ModelConfig(model, 4), data.config, training, seed),
        data,
        metrics={name: METRICS[name](**chosen) for name, chosen in options.items()},
    )
    run.begin()
    while not run.finished:
        run.train_epoch()
    assert run.status == "completed"
    return run


@pytest.mark.parametrize(("every", "epochs"), [(0, [0, 5]), (1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5]), (5, [0, 5])])
def test_when_it_is_measured(every: int, epochs: list[int]) -> None:
    run = measured(
        {
            "deformation_sensitivity": {"images": 8, "every": every},
            "filter_smoothness": {"every": every},
        }
    )
    for metric in ("deformation_sensitivity", "filter_total_variation"):
        rows = [row for row in run.measurements if row["metric"] == metric]
        assert sorted({row["epoch"] for row in rows}) == epochs
        keys = [(row["epoch"], row["component"]) for row in rows]
        assert len(set(keys)) == len(keys)


def test_the_rows() -> None:
    options = {"images": 20, "grid": 4, "max_displacement": 2.0, "seed": 3}
    run = measured({"deformation_sensitivity": options, "filter_smoothness": {}}, epochs=1, model="vgg-cifar")
    last = [row for row in run.measurements if row["epoch"] == 1]
    rows = [row for row in last if row["metric"] == "deformation_sensitivity"]
    assert [row["component"] for row in rows] == ["input", *PAPERS_LAYERS, ""]
    images, _ = run.data.select("test", torch.arange(20), device=CPU)
    deformed = DeformationSensitivity(**options).deformed(images)
    with torch.no_grad():
        values = normalised_distances(run.model, images, deformed)
    # the mean over layers of each image, without the input
    values[""] = torch.stack([values[name] for name in PAPERS_LAYERS]).mean(0)
    for row in rows:
        own = values[row["component"]]
        assert (row["value"], row["std"]) == (pytest.approx(float(own.mean())), pytest.approx(float(own.std())))
        assert (row["n"], row["unit"], row["direction"], row["level"]) == (20, "", "none", None)
    smooth = [row for row in last if row["metric"] == "filter_total_variation"]
    *smooth, whole = smooth
    assert [row["component"] for row in smooth] == [f"{name}.conv" for name in PAPERS_LAYERS if "conv" in name]
    assert whole["component"] == ""
    assert whole["value"] == pytest.approx(sum(row["value"] for row in smooth) / 8, rel=1e-12)
    for row in smooth:
        weight = run.model.get_submodule(row["component"]).weight.detach()
        assert row["value"] == pytest.approx(float(filter_total_variation(weight)), rel=1e-6)
        assert (row["unit"], row["direction"], row["level"]) == ("", "none", None)
    metrics = [DeformationSensitivity(), FilterSmoothness()]
    shown = [row for row in last if not any(m.is_detail(row["metric"], row["component"]) for m in metrics)]
    assert [(row["metric"], row["component"]) for row in shown] == [
        ("deformation_sensitivity", ""),
        ("filter_total_variation", ""),
    ]


def test_images_and_deformations_are_every_trial_s_and_moment_s() -> None:
    """The input's sensitivity depends on nothing else; measuring changes nothing that is trained."""
    inputs = {}
    for seed in (0, 1):
        run = measured({"deformation_sensitivity": {"images": 8, "every": 1}}, epochs=2, seed=seed)
        found = {row["value"] for row in run.measurements if row["component"] == "input"}
        assert len(found) == 1
        inputs[seed] = found
    assert inputs[0] == inputs[1]
    plain = measured({}, epochs=2, seed=1)
    assert all(map(torch.equal, plain.model.state_dict().values(), run.model.state_dict().values()))
    one, other = (DeformationSensitivity(seed=seed).deformed(torch.rand(2, 1, 16, 16)) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_value_that_is_none_is_recorded_as_such() -> None:
    run = measured({}, epochs=1)
    for module in run.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.0)
            nn.init.constant_(module.bias, -1.0)
    moment = Moment(run.model.eval(), run.data, "test", 1, True, 0, CPU, lambda seed: run.model)
    rows = DeformationSensitivity(images=4).measure(moment).measurements
    assert rows[0]["value"] > 0
    assert all(row["value"] is None and row["std"] is None for row in rows[1:])


def test_the_paper_s_deformations_and_others_in_proportion() -> None:
    assert deformation_of(32) == (3, 2.0)
    assert deformation_of(224) == (5, 10.0)
    assert deformation_of(8) == (3, 0.5)
    assert deformation_of(64) == (3, 4.0)
    assert deformation_of(112) == (5, 5.0)


def test_flags_reach_the_metrics() -> None:
    flags = MetricFlags(
        deformation_images=16, deformation_grid=4, deformation_max=1.5, deformation_seed=2, measure_every=3
    )
    found = flags.metric_options(["deformation_sensitivity,filter_smoothness"], "metrics")
    assert found == {
        "deformation_sensitivity": {"images": 16, "grid": 4, "max_displacement": 1.5, "seed": 2, "every": 3},
        "filter_smoothness": {"every": 3},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deformation_images": 1}, "deformation_images: 1"),
        ({"deformation_grid": 1}, "deformation_grid: 1"),
        ({"deformation_max": -1.0}, "deformation_max: -1.0"),
        ({"deformation_max": math.inf}, "deformation_max: inf"),
        ({"measure_every": -1}, "measure_every: -1"),
    ],
)
def test_bad_flags_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MetricFlags(**options).metric_options(["deformation_sensitivity"], "metrics")
