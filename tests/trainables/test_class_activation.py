"""Class activation maps against captum's GradCAM, and cases worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.command_line import InputError
from analysis.paper.figures import draw
from analysis.records import read_sweep, write_trial
from tests.analysis.conftest import make_trial
from trainables.data import DataConfig, Images, load
from trainables.metrics import METRICS, Moment
from trainables.metrics import class_activation as module
from trainables.metrics.class_activation import ClassActivation, cams, first_of_classes, grad_cam
from trainables.metrics.flags import MetricFlags
from trainables.metrics.moment import map_row
from trainables.models import MODELS, build_model
from trainables.models.top_gap import TopGapNetwork
from trainables.top_gap import TopGap

CPU = torch.device("cpu")


class Halves(nn.Module):
    """A network as captum takes it, with its last feature map as a layer."""

    def __init__(self, features: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.features, self.rest = features, rest

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.rest(self.features(images))
        return logits


class Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, given: Tensor) -> Tensor:
        found: Tensor = self.function(given)  # type: ignore[operator]
        return found


def warmed(network: nn.Module, size: int, channels: int = 3) -> nn.Module:
    torch.manual_seed(2)
    network.train()(torch.randn(16, channels, size, size))
    return network.double().eval()


@pytest.mark.parametrize("name", ["resnet8", "vgg13", "vgg11-bn", "preact-resnet18", "efficientnet-b0", "lenet5"])
def test_grad_cam_is_captums(name: str) -> None:
    size = max(32, MODELS[name].smallest)
    width = {"resnet8": 4, "vgg13": 4, "preact-resnet18": 4}.get(name, MODELS[name].width)
    network = warmed(build_model(name, channels=3, size=size, classes=5, width=width, seed=3), size)
    images, labels = torch.randn(4, 3, size, size, dtype=torch.float64), torch.tensor([0, 4, 2, 2])
    found = grad_cam(network, images, labels)

    parts = module.cut(network)
    halves = Halves(Function(parts.features), Function(parts.classify))
    torch.testing.assert_close(halves(images), network(images))  # the cut is the network
    expected = LayerGradCam(halves, halves.features).attribute(images, target=labels, relu_attributions=True)
    assert isinstance(expected, Tensor)
    assert found.shape == expected[:, 0].shape
    torch.testing.assert_close(found, expected[:, 0].detach(), rtol=1e-6, atol=1e-12)
    assert bool((found >= 0).all())
    assert bool((found > 0).any())


def test_grad_cam_of_a_network_with_global_pooling_is_cam() -> None:
    """Definition 3.4: "equivalent to the standard CAM for FCN", whose weights are the classifier's, over h·w."""
    network = warmed(build_model("resnet8", channels=3, size=16, classes=5, width=4, seed=3), 16)
    images, labels = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([1, 0, 4])
    parts = module.cut(network)
    assert parts.linear is not None
    features = parts.features(images)
    expected = torch.einsum("bkhw,bk->bhw", features, parts.linear.weight[labels]).relu() / features[0, 0].numel()
    torch.testing.assert_close(grad_cam(network, images, labels), expected.detach())


def test_a_cam_has_the_images_size_and_reaches_from_0_to_1() -> None:
    network = build_model("resnet8", channels=1, size=16, classes=10, width=4, seed=3)
    maps = warmed(network, 16, 1)
    images, labels = torch.randn(5, 1, 16, 16, dtype=torch.float64), torch.arange(5)
    found = cams(maps, images, labels, chunk=2)
    small = grad_cam(maps, images, labels)
    for cam, given in zip(found, small, strict=True):
        large = F.interpolate(given[None, None], (16, 16), mode="bilinear", align_corners=False)[0, 0]
        if float(large.max()) > float(large.min()):
            torch.testing.assert_close(cam, (large - large.min()) / (large.max() - large.min()))
            assert (float(cam.min()), float(cam.max())) == (0, 1)
        else:
            assert not cam.any()


def test_of_a_top_gap_network_it_is_its_class_map() -> None:
    network = TopGapNetwork(
        build_model("resnet8", channels=1, size=16, classes=10, width=4, seed=3), (1, 16, 16), TopGap(pixels=5)
    ).eval()
    images, labels = torch.randn(5, 1, 16, 16), torch.tensor([3, 1, 4, 1, 5])
    torch.testing.assert_close(cams(network, images, labels, chunk=2), network.cam(images, labels))


def test_a_class_without_evidence_is_black() -> None:
    """The class of a negative weight has no location that speaks for it."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    linear = nn.Linear(1, 2, bias=False)
    network.append(linear)
    with torch.no_grad():
        network[0].weight.fill_(1)  # type: ignore[union-attr,operator]
        linear.weight.copy_(torch.tensor([[2.0], [-1.0]]))
    image = torch.tensor([[0.0, 1], [3, 4]]).reshape(1, 1, 2, 2)
    found = cams(network, image.repeat(2, 1, 1, 1), torch.tensor([0, 1]))
    torch.testing.assert_close(found[0], image[0, 0] / 4)
    assert not found[1].any()


def test_the_first_of_each_class() -> None:
    assert first_of_classes(torch.tensor([7, 7, 3, 7, 0, 3, 1, 2]), 4) == [0, 2, 4, 6]
    assert first_of_classes(torch.tensor([1, 1]), 4) == [0]
    assert first_of_classes(torch.tensor([1, 1]), 0) == []


class TestAsAMetric:
    def moment(self, model: nn.Module, split: str = "test") -> Moment:
        data = load("digits", "unused", DataConfig("digits"))
        assert isinstance(data, Images)
        return Moment(model.eval(), data, split, 3, True, 0, CPU, lambda _seed: model)

    @pytest.mark.parametrize("kind", ["plain", "top_gap"])
    def test_its_row_and_maps(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model: nn.Module = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=3)
        if kind == "top_gap":
            model = TopGapNetwork(model, (1, 8, 8), TopGap(pixels=5))
        moment = self.moment(model)
        measured = ClassActivation(images=30, panels=3).measure(moment)
        images, labels = moment.data.select("test", torch.arange(30), device=CPU)
        maps = torch.stack([cams(model, images[i : i + 1], labels[i : i + 1])[0] for i in range(30)])
        of_image = maps.double().mean((1, 2))
        (row,) = measured.measurements
        assert row["metric"] == "cam_sparsity"
        assert row["value"] == pytest.approx(float(of_image.mean()), rel=1e-5)
        assert row["std"] == pytest.approx(float(of_image.std()), rel=1e-5)
        assert (row["component"], row["level"], row["n"], row["unit"]) == ("", None, 30, "fraction")
        assert row["direction"] == "min"
        shown = first_of_classes(labels, 3)
        assert set(measured.maps) == {f"{name}/{index}" for name in ("cam", "image", "label") for index in shown}
        assert len({int(labels[index]) for index in shown}) == 3
        for index in shown:
            torch.testing.assert_close(measured.maps[f"cam/{index}"], maps[index], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(measured.maps[f"image/{index}"], images[index].mean(0))
            assert measured.maps[f"label/{index}"].tolist() == [[int(labels[index])]]
        monkeypatch.setattr("trainables.metrics.chunks.chunk_size", lambda _model, _images: 4)
        again = ClassActivation(images=30, panels=0).measure(moment)
        assert again.measurements[0]["value"] == pytest.approx(row["value"], rel=1e-5)
        assert again.maps == {}
        assert ClassActivation().measure(self.moment(model, "validation")).measurements == []

    def test_every_image_where_there_are_fewer(self) -> None:
        model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=3)
        (row,) = ClassActivation(images=1000).measure(self.moment(model)).measurements
        assert row["n"] == 360

    def test_its_flags(self) -> None:
        options = MetricFlags(cam_images=7, cam_panels=2).metric_options(["cam"], "measure")
        assert METRICS["cam"](**options["cam"]) == ClassActivation(7, 2)
        with pytest.raises(InputError, match="images: 0, allowed are whole numbers of at least 1"):
            MetricFlags(cam_images=0).metric_options(["cam"], "measure")
        with pytest.raises(InputError, match="panels: -1, allowed are whole numbers of at least 0"):
            MetricFlags(cam_panels=-1).metric_options(["cam"], "measure")

    def test_the_papers_figures_are_drawn_from_it(self, tmp_path: Path) -> None:
        """Figures 1 and 3: maps by k, of the first images of different classes, and sparsity against k."""
        for pixels in (1, 4, 16):
            model = TopGapNetwork(
                build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=3),
                (1, 8, 8),
                TopGap(pixels=pixels),
            )
            measured = ClassActivation(images=40).measure(self.moment(model))
            trial, epochs, _, _ = make_trial(
                f"{pixels:02}",
                method="top_gap",
                pixels=pixels,
                dataset="digits",
                model="resnet8",
                variant=None,
                alpha=None,
            )
            maps = [map_row(3, name, values) for name, values in measured.maps.items()]
            rows = [{"epoch": 3, **row} for row in measured.measurements]
            write_trial(str(tmp_path / "demo"), trial, epochs, rows, maps)
        sweep = read_sweep(str(tmp_path / "demo"))
        (panels,) = draw(sweep, "topgap-f1")
        assert panels.images == 4
        assert len(draw(sweep, "topgap-f3")) == 1
