"""Top-GAP against torch's pooling, numbers by hand, and the paper's counts."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images
from trainables.method import Step
from trainables.models import MODELS, build_model
from trainables.models.feature_maps import averages
from trainables.models.top_gap import TopGapNetwork, pyramid_of
from trainables.top_gap import TopGap, built_map_side, class_activation_map, is_baseline, map_side, top_gap
from trainables.training import Run, build_network

DATA = DataConfig("digits", train_images=200)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(config: TopGap, data: Images, model: str = "resnet8", seed: int = 0) -> TopGapNetwork:
    trial = TrialConfig(config, ModelConfig(model, MODELS[model].width), DATA, TrainingConfig(epochs=1), seed)
    network = build_network(trial, data, data.classes, seed)
    assert isinstance(network, TopGapNetwork)
    return network


class TestTopGap:
    def test_is_the_mean_of_the_largest(self) -> None:
        class_maps = torch.tensor([[[[3.0, -1.0], [7.0, 2.0]], [[0.0, 0.0], [-4.0, -2.0]]]])
        assert top_gap(class_maps, 1).tolist() == [[7.0, 0.0]]
        assert top_gap(class_maps, 2).tolist() == [[5.0, 0.0]]
        assert top_gap(class_maps, 3).tolist() == [[4.0, pytest.approx(-2 / 3)]]
        assert top_gap(class_maps, 4).tolist() == [[2.75, -1.5]]

    def test_one_is_torchs_max_pooling_exactly(self) -> None:
        class_maps = maps(4, 10, 7, 5)
        assert torch.equal(top_gap(class_maps, 1), F.adaptive_max_pool2d(class_maps, 1).flatten(1))

    def test_all_is_torchs_average_pooling_exactly(self) -> None:
        for shape in ((4, 10, 7, 5), (2, 3, 16, 16), (1, 2, 56, 56)):
            class_maps = maps(*shape)
            pooled = top_gap(class_maps, shape[2] * shape[3])
            assert torch.equal(pooled, F.adaptive_avg_pool2d(class_maps, 1).flatten(1))

    def test_equals_sorting(self) -> None:
        """Against the definition: order each map, average the first k. Sums of other order round differently: 1e-6."""
        class_maps = maps(3, 4, 6, 6)
        ordered = class_maps.flatten(2).sort(dim=2, descending=True).values
        for pixels in (1, 2, 5, 20, 35, 36):
            torch.testing.assert_close(top_gap(class_maps, pixels), ordered[..., :pixels].mean(2), rtol=0, atol=1e-6)

    def test_differentiates_to_one_kth_of_the_largest(self) -> None:
        class_maps = maps(2, 3, 4, 4).requires_grad_()
        top_gap(class_maps, 5).sum().backward()
        assert class_maps.grad is not None
        gradient = class_maps.grad.flatten(2)
        assert torch.equal((gradient != 0).sum(2), torch.full((2, 3), 5))
        assert torch.allclose(gradient[gradient != 0], torch.tensor(0.2))
        largest = class_maps.detach().flatten(2).topk(5).indices
        assert bool((gradient.gather(2, largest) != 0).all())

    @pytest.mark.parametrize("pixels", [0, -1, 17])
    def test_refuses_other_numbers(self, pixels: int) -> None:
        with pytest.raises(ValueError, match=rf"pixels: {pixels}, allowed are whole numbers from 1 to 16, .* 4×4"):
            top_gap(maps(1, 1, 4, 4), pixels)


class TestClassActivationMap:
    def test_scales_the_labels_map_to_the_unit_interval(self) -> None:
        class_maps = torch.tensor([[[[9.0, 9.0], [9.0, 9.0]], [[1.0, 3.0], [2.0, 5.0]]]])
        cam = class_activation_map(class_maps, torch.tensor([1]), 2, 2)
        assert cam.tolist() == [[[0.0, 0.5], [0.25, 1.0]]]

    def test_of_a_constant_map_is_zero(self) -> None:
        for value, side, size in ((3.0, 2, 4), (-1.2345, 4, 8), (0.1, 16, 32)):  # interpolation rounds the last two
            constant = torch.full((1, 1, side, side), value)
            assert class_activation_map(constant, torch.tensor([0]), size, size).abs().max() == 0

    def test_of_a_single_pixel_is_none(self) -> None:
        assert class_activation_map(torch.full((2, 3, 1, 1), 0.3), torch.tensor([0, 2]), 8, 8).isnan().all()

    def test_is_enlarged_before_it_is_scaled(self) -> None:
        cam = class_activation_map(maps(3, 5, 4, 4), torch.tensor([0, 4, 2]), 9, 9)
        assert cam.shape == (3, 9, 9)
        assert torch.equal(cam.amin((1, 2)), torch.zeros(3))
        assert torch.equal(cam.amax((1, 2)), torch.ones(3))


class TestNetwork:
    def test_adds_the_pyramid_as_written(self, data: Images) -> None:
        """Figure 2 step by step: each map through its convolution, enlarged, added, one convolution more."""
        network = build(TopGap(5), data).eval()
        images = maps(2, 1, 8, 8)
        features = network.backbone(images)
        assert [tuple(feature.shape[1:]) for feature in features] == [(32, 4, 4), (64, 2, 2)]
        assert network.laterals is not None
        first, second = (layer(feature) for layer, feature in zip(network.laterals, features, strict=True))
        summed = first + second.repeat_interleave(2, 2).repeat_interleave(2, 3)
        expected = network.classifier(summed)
        torch.testing.assert_close(network.class_maps(images), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(network(images), top_gap(expected, 5), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("model", ["resnet8", "preact-resnet18", "wide-resnet40-4"])
    def test_without_its_parts_is_the_baseline(self, data: Images, model: str) -> None:
        """A linear layer after average pooling, and average pooling after it as 1×1 convolution: equal but for the
        order of sums, to 1e-4 of logits that are up to some 30."""
        side = map_side(model, MODELS[model].width, 1, 8, False)
        network = build(TopGap(side**2, 0.0, fpn=False, fpn_channels=None), data, model)
        plain = build_model(model, channels=1, size=8, classes=10, seed=0)
        images = maps(16, 1, 8, 8)
        torch.testing.assert_close(network(images), plain(images), rtol=1e-4, atol=1e-4)
        assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.parameters())

    def test_its_head_is_drawn_from_the_seed(self, data: Images) -> None:
        torch.manual_seed(5)
        first = build(TopGap(4), data).state_dict()
        torch.manual_seed(6)
        again, other = build(TopGap(4), data).state_dict(), build(TopGap(4), data, seed=1).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["classifier.weight"], other["classifier.weight"])

    def test_k_grows_with_larger_images(self, data: Images) -> None:
        """Average pooling over 4×4 pixels stays average pooling over the 8×8 of images twice as large."""
        network = build(TopGap(16), data).eval()
        images = maps(2, 1, 16, 16)
        assert torch.equal(network(images), network.class_maps(images).mean((2, 3)))
        network = build(TopGap(4), data).eval()
        assert torch.equal(network(images), top_gap(network.class_maps(images), 16))

    def test_a_cam_is_of_the_images_size(self, data: Images) -> None:
        network = build(TopGap(4), data).eval()
        cam = network.cam(maps(3, 1, 8, 8), torch.tensor([0, 1, 2]))
        assert cam.shape == (3, 8, 8)
        assert float(cam.detach().min()) == 0
        assert float(cam.detach().max()) == 1

    def test_keeps_no_maps_in_evaluation(self, data: Images) -> None:
        network = build(TopGap(4), data)
        network(maps(2, 1, 8, 8))
        assert network.maps is not None
        network.eval()(maps(2, 1, 8, 8))
        assert network.maps is None

    @pytest.mark.parametrize(("pixels", "fpn", "side"), [(17, True, 4), (5, False, 2)])
    def test_refuses_more_pixels_than_there_are(self, data: Images, pixels: int, fpn: bool, side: int) -> None:
        with pytest.raises(ValueError, match=rf"pixels: {pixels}, .* 1 to {side**2}, .* {side}×{side}"):
            build(TopGap(pixels, fpn=fpn, fpn_channels=256 if fpn else None), data)


class TestPenalty:
    @staticmethod
    def step(network: nn.Module, images: torch.Tensor, data: Images) -> Step:
        labels = torch.zeros(len(images), dtype=torch.int64)
        return Step(network, images, labels, 1, torch.Generator(), data)

    def test_is_the_norm_of_the_maps(self, data: Images) -> None:
        images = maps(3, 1, 8, 8)
        for reduction, per in (("mean", 3 * 10 * 16), ("sum", 3)):
            config = TopGap(4, 0.5, reduction=reduction)  # type: ignore[arg-type]
            network = build(config, data).train()
            network(images)
            penalty = config.penalty(self.step(network, images, data))
            assert penalty is not None
            assert penalty.weight == 0.5
            # the same batch gives BatchNorm the same statistics
            summed = network.class_maps(images).detach().double().abs().sum()
            assert float(penalty.value.detach()) == pytest.approx(float(summed) / per, rel=1e-5)

    def test_on_the_last_map_and_on_all_activations(self, data: Images) -> None:
        images = maps(3, 1, 8, 8)
        last = TopGap(4, fpn=False, fpn_channels=None, variant="last", reduction="sum")
        network = build(last, data).train()
        network(images)
        penalty = last.penalty(self.step(network, images, data))
        features = network.backbone(images)[-1]
        assert penalty is not None
        assert float(penalty.value.detach()) == pytest.approx(float(features.detach().abs().sum()) / 3, rel=1e-5)

        everywhere = TopGap(4, fpn=False, fpn_channels=None, variant="all")
        network = build(everywhere, data).train()
        outputs: list[torch.Tensor] = []
        # resnet8: a stem and three blocks of two, seven nonlinearities
        relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
        for module in relus:
            module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        network(images)
        penalty = everywhere.penalty(self.step(network, images, data))
        assert penalty is not None
        assert len(outputs) == 7
        expected = sum(float(output.detach().abs().mean()) for output in outputs) / 7
        assert float(penalty.value.detach()) == pytest.approx(expected, rel=1e-5)

    def test_is_none_without_strength(self, data: Images) -> None:
        config = TopGap(4, 0.0)
        network = build(config, data).train()
        network(maps(2, 1, 8, 8))
        assert config.penalty(self.step(network, maps(2, 1, 8, 8), data)) is None

    def test_empties_the_maps(self, data: Images) -> None:
        """With a strength that swamps the cross-entropy nothing is left of the maps."""

        def mean_of_maps(sparsity: float) -> float:
            training = TrainingConfig(epochs=8, batch_size=32, learning_rate=0.01)
            method = TopGap(4, sparsity, fpn_channels=16)
            run = Run(TrialConfig(method, ModelConfig("resnet8", 4), DATA, training, 0), data)
            while not run.finished:
                run.train_epoch()
            network = run.model.eval()
            assert isinstance(network, TopGapNetwork)
            images, _ = next(iter(data.batches("test", 100, device=torch.device("cpu"))))
            return float(network.class_maps(images).detach().abs().mean())

        assert mean_of_maps(10.0) < 0.2 * mean_of_maps(0.0)


def test_dropout_resumes_to_the_same_numbers(data: Images) -> None:
    """Its draws are torch's own: they must not depend on what happened before."""
    training = TrainingConfig(epochs=2, batch_size=64, learning_rate=0.01)
    config = TrialConfig(TopGap(4, dropout=0.5), ModelConfig("resnet8", 8), DATA, training, 3)
    whole = Run(config, data)
    whole.train_epoch()
    state = whole.state()
    state["model"] = {name: value.clone() for name, value in state["model"].items()}
    torch.rand(7)
    resumed = Run(config, data)
    resumed.restore(state)
    resumed.train_epoch()
    torch.rand(3)
    before = torch.get_rng_state()
    again = Run(config, data)
    again.train_epoch()
    again.train_epoch()
    assert torch.equal(torch.get_rng_state(), before)
    assert again.epochs[-1]["train_loss"] == resumed.epochs[-1]["train_loss"]
    plain = Run(TrialConfig(TopGap(4), ModelConfig("resnet8", 8), DATA, training, 3), data)
    plain.train_epoch()
    assert plain.epochs[0]["train_loss"] != again.epochs[0]["train_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": 0}, "pixels: 0, allowed are whole numbers of at least 1"),
        ({"pixels": 4, "sparsity": -1.0}, "sparsity: -1.0, allowed"),
        ({"pixels": 4, "sparsity": float("nan")}, "sparsity: nan, allowed"),
        ({"pixels": 4, "dropout": 1.0}, "dropout: 1.0, allowed"),
        ({"pixels": 4, "fpn_channels": 0}, "fpn_channels: 0, allowed are whole numbers of at least 1"),
        ({"pixels": 4, "fpn_channels": None}, "fpn_channels: None, allowed are whole numbers"),
        ({"pixels": 4, "fpn": False}, "fpn_channels: 256, allowed are none without the pyramid"),
        ({"pixels": 4, "variant": "everywhere"}, "variant: 'everywhere', allowed are class_maps, last, all"),
        ({"pixels": 4, "reduction": "max"}, "reduction: 'max', allowed are mean, sum"),
    ],
)
def test_refuses_what_it_cannot_mean(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopGap(**options)  # type: ignore[arg-type]


def test_every_network_takes_it() -> None:
    """The paper's backbones and all others: class maps of the size that is planned for, every weight trained."""
    for (name, architecture), fpn in itertools.product(MODELS.items(), (True, False)):
        size = 224 if architecture.timm else max(32, architecture.smallest)
        data = SimpleNamespace(channels=3, size=size)
        side = map_side(name, architecture.width, 3, size, fpn)
        with torch.device("meta"):  # shapes and graphs without numbers
            plain = build_model(name, channels=3, size=size, classes=7, seed=0)
            network = TopGap(side**2, fpn=fpn, fpn_channels=256 if fpn else None).build(plain, data)  # type: ignore[arg-type]
            assert isinstance(network, TopGapNetwork)
            network.train()
            logits = network(torch.empty(2, 3, size, size))
        assert logits.shape == (2, 7)
        assert network.maps is not None
        assert network.maps.shape == (2, 7, side, side)
        logits.square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters()), name


def test_sizes_of_the_papers_class_maps() -> None:
    """56×56 for images of 224 pixels, 16×16 for CIFAR-10's 32, 7×7 of the last feature map (Sections 4 and 4.5)."""
    for name in ("vgg11-bn", "efficientnet-b0", "densenet-121", "convnext-tiny", "resnet18-imagenet"):
        assert map_side(name, MODELS[name].width, 3, 224, True) == 56
        assert map_side(name, MODELS[name].width, 3, 224, False) == 7
    for name in ("preact-resnet18", "resnet18", "resnet34", "resnet50", "wide-resnet40-4"):
        assert map_side(name, MODELS[name].width, 3, 32, True) == 16


@pytest.mark.parametrize(
    ("model", "size", "sides"),
    # halved and rounded up, as convolutions of stride 2 do; a quarter above 64 pixels
    [
        ("resnet18", 33, [17, 9, 5]),
        ("resnet18", 32, [16, 8, 4]),
        ("resnet8", 9, [5, 3]),
        ("wide-resnet40-4", 33, [17, 9]),
        ("resnet18-imagenet", 65, [17, 9, 5, 3]),
        ("resnet18-imagenet", 225, [57, 29, 15, 8]),
        ("vgg-cifar", 33, [16, 8, 4]),
    ],
)
def test_the_largest_map_is_that_of_its_stride_for_sizes_that_it_does_not_divide(
    model: str, size: int, sides: list[int]
) -> None:
    with torch.device("meta"):
        network = build_model(model, channels=1, size=size, classes=2, width=4, seed=0)
        assert pyramid_of(network, (1, size, size), True).sides == sides
    assert map_side(model, 4, 1, size, True) == sides[0]


@pytest.mark.parametrize("model", [name for name, known in MODELS.items() if known.sides is not None])
def test_maps_are_known_without_building_the_network(model: str) -> None:
    """A plan asks how large they are: it is told what building the network would tell."""
    smallest = MODELS[model].smallest
    for size in sorted({smallest, smallest + 1, 31, 32, 33, 45, 64, 65, 224} - set(range(smallest))):
        for fpn in (True, False):
            assert map_side(model, 4, 1, size, fpn) == built_map_side(model, 4, 1, size, fpn), (size, fpn)
    with torch.device("meta"):
        network = build_model(model, channels=1, size=smallest, classes=2, width=4, seed=0)
    assert is_baseline(model, 4, 1, smallest) == averages(network)
