"""The registry of networks: known parameter counts, seeded initialisation, shapes, replaceable layers."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from analysis.command_line import InputError
from trainables.models import MODELS, build_model, copy_weights
from trainables.models.pyramid import Pyramid, cut

SMALL = {"resnet18-imagenet": 64, "resnet50-imagenet": 64, "lenet5": 28, "vgg13": 32, "vgg13-5x5": 32, "mobilenet": 32}
SMALL |= {"vgg-imagenet": 32}
SMALL |= {"vgg11-bn": 32, "efficientnet-b0": 32, "densenet-121": 32, "convnext-tiny": 32}
HUGE = {"vgg11-bn", "convnext-tiny"}
"""Built as the others of timm's are, and slow to draw."""


def build(name: str, seed: int = 0, **changed: int) -> nn.Module:
    options = {"channels": 3, "size": SMALL.get(name, 16), "classes": 7, **changed}
    return build_model(name, **options, seed=seed)


@pytest.mark.parametrize(
    ("name", "channels", "size", "classes", "parameters"),
    [
        ("lenet5", 1, 28, 10, 61_706),
        ("lenet5", 3, 32, 10, 62_006),
        ("resnet18", 3, 32, 10, 11_173_962),
        ("resnet34", 3, 32, 10, 21_282_122),
        ("resnet50", 3, 32, 10, 23_520_842),
        ("resnet18-imagenet", 3, 224, 1000, 11_689_512),
        ("resnet50-imagenet", 3, 224, 1000, 25_557_032),
        # stem 432 + 32, stages 4672 + 13952+512+64 + 55552+2048+128, with 1×1 projections, linear 650
        ("resnet8", 3, 32, 10, 78_042),
        # He et al.'s 269 722 with parameter-free shortcuts, and two projections of 512+64 and 2048+128 here
        ("resnet20", 3, 32, 10, 272_474),
        # Table 3 of LOCO-REG's paper, added up by hand: convolutions 9 402 048, BatchNorm 5 888, linear 5 130
        ("vgg13", 3, 32, 10, 9_413_066),
        # the first six convolutions have 25/9 of their 1 144 512
        ("vgg13-5x5", 3, 32, 10, 11_447_754),
        # 1 728 + depth-wise 19 584 + 1×1 847 872 + BatchNorm 9 728 + linear 5 130
        ("mobilenet", 3, 32, 10, 884_042),
        # Zagoruyko and Komodakis' Table 1: 8.9 million
        ("wide-resnet40-4", 3, 32, 10, 8_949_210),
        # 11 173 962 of the ResNet-18, less BatchNorm of the stem and three shortcuts (64 + 128 + 256 + 512 twice), and
        # that of what comes into a block in place of what its second convolution gives: 64 + 64, 64 + 128, … ; 512 last
        ("preact-resnet18", 3, 32, 10, 11_172_170),
        # timm's own table of its weights
        ("vgg11-bn", 3, 224, 1000, 132_868_840),
        ("efficientnet-b0", 3, 224, 1000, 5_288_548),
        ("densenet-121", 3, 224, 1000, 7_978_856),
        ("convnext-tiny", 3, 224, 1000, 28_589_128),
    ],
)
def test_parameter_counts(name: str, channels: int, size: int, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        model = build_model(name, channels=channels, size=size, classes=classes, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_logits(self, name: str) -> None:
        for channels in (1, 3):
            width = 8 if MODELS[name].any_width else MODELS[name].width
            model = build(name, channels=channels, width=width).eval()
            size = SMALL.get(name, 16)
            images = torch.randn(2, channels, size, size)
            assert model(images).shape == (2, 7)
            stacked = torch.func.functional_call(model, dict(model.named_parameters()), (images,))
            assert torch.equal(stacked, model(images))

    def test_the_seed_alone_decides(self, name: str) -> None:
        if name in HUGE:
            return
        torch.manual_seed(1)
        first = build(name, seed=3)
        state = torch.get_rng_state()
        torch.manual_seed(2)
        again, other = build(name, seed=3), build(name, seed=4)
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)
        pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
        assert all(torch.equal(left, right) for left, right in pairs)
        convolution = next(module for module in other.modules() if isinstance(module, nn.Conv2d))
        same = next(module for module in first.modules() if isinstance(module, nn.Conv2d))
        assert not torch.equal(convolution.weight, same.weight)

    def test_width_is_the_first_stage_s(self, name: str) -> None:
        if not MODELS[name].any_width:
            with pytest.raises(ValueError, match=f"width: 8, allowed is {MODELS[name].width}, the only one of {name}"):
                build(name, width=8)
            return
        narrow, wide = (sum(p.numel() for p in build(name, width=width).parameters()) for width in (4, 8))
        assert 1.5 < wide / narrow < 4.5 or name == "resnet50-imagenet"
        assert wide > narrow

    def test_too_small_images(self, name: str) -> None:
        smallest = MODELS[name].smallest
        size = smallest
        with torch.device("meta"):
            assert build(name, size=size).eval()(torch.randn(1, 3, size, size)).shape == (1, 7)
        with pytest.raises(ValueError, match=str(smallest)):
            build(name, size=smallest - 1)


def test_he_initialisation() -> None:
    """Convolutions of residual networks have variance 2 / (k²·out): 2% is three standard errors for 590k weights."""
    model = build_model("resnet18", channels=3, size=32, classes=10, seed=0)
    largest = max((m for m in model.modules() if isinstance(m, nn.Conv2d)), key=lambda m: m.weight.numel())
    assert float(largest.weight.detach().var()) == pytest.approx(2 / (9 * largest.out_channels), rel=0.02)


def test_unknown_names_and_widths() -> None:
    with pytest.raises(ValueError, match="resnet8"):
        build("resnet9")
    with pytest.raises(ValueError, match="width"):
        build("resnet8", width=0)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in HUGE])
def test_a_cut_network_is_the_network(name: str) -> None:
    """Its last feature map, and what classifies it; that map is the pyramid's last one where that has no other."""
    size = SMALL.get(name, 16)
    model = build(name, width=8 if MODELS[name].any_width else MODELS[name].width).eval()
    images = torch.randn(2, 3, size, size)
    parts = cut(model)
    last = parts.features(images)
    assert torch.equal(parts.classify(last), model(images))
    assert parts.linear is not None
    assert parts.linear.out_features == 7
    assert torch.equal(Pyramid(model, (3, size, size)).eval()(images)[0], last)


@pytest.mark.parametrize(
    ("name", "size", "channels", "sides"),
    [
        # strides 2, 4 and 8 of CIFAR-10's networks, of WideResNet 2 and 4
        ("preact-resnet18", 32, [128, 256, 512], [16, 8, 4]),
        ("resnet50", 32, [512, 1024, 2048], [16, 8, 4]),
        ("wide-resnet40-4", 32, [128, 256], [16, 8]),
        # strides 4 to 32; VGG has no convolution at 32
        ("resnet18-imagenet", 224, [64, 128, 256, 512], [56, 28, 14, 7]),
        ("vgg11-bn", 224, [256, 512, 512], [56, 28, 14]),
        ("efficientnet-b0", 224, [24, 40, 112, 320], [56, 28, 14, 7]),
        ("densenet-121", 224, [256, 512, 1024, 1024], [56, 28, 14, 7]),
        ("convnext-tiny", 224, [96, 192, 384, 768], [56, 28, 14, 7]),
    ],
)
def test_the_pyramid_s_maps(name: str, size: int, channels: list[int], sides: list[int]) -> None:
    with torch.device("meta"):
        model = build_model(name, channels=3, size=size, classes=7, seed=0)
        pyramid = Pyramid(model, (3, size, size), largest=16 if size == 32 else 56)
        maps = pyramid(torch.empty(1, 3, size, size))
    assert (pyramid.channels, pyramid.sides) == (channels, sides)
    assert [(found.shape[1], found.shape[2]) for found in maps] == list(zip(channels, sides, strict=True))


def test_the_pyramid_s_maps_are_what_the_stages_give() -> None:
    model = build("resnet18", width=8).eval()
    images = torch.randn(2, 3, 16, 16)
    outputs = []
    for stage in (4, 5, 6):  # stem of three layers, four stages
        model[stage].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    model(images)
    assert all(map(torch.equal, Pyramid(model, (3, 16, 16), largest=8)(images), outputs))


class TestPretrained:
    """What is behind the download: weights that timm would have fetched, here drawn by it."""

    @pytest.mark.parametrize("name", ["resnet18-imagenet", "resnet50-imagenet", "efficientnet-b0"])
    def test_weights_are_timms(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        known = timm.create_model(MODELS[name].timm).eval()
        for module in known.modules():  # running statistics belong to the weights
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr, operator]
        asked = []

        def create(model: str, pretrained: bool = False, **options: int) -> nn.Module:
            asked.append(pretrained)
            return known if pretrained else original(model, **options)

        original = timm.create_model
        monkeypatch.setattr(timm, "create_model", create)
        model = build_model(name, channels=3, size=64, classes=7, pretrained=True, seed=0).eval()
        assert True in asked
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(cut(model).features(images), known.forward_features(images))
        # the classifier is the seed's own
        plain, linear = (
            cut(each).linear for each in (build_model(name, channels=3, size=64, classes=7, seed=0), model)
        )
        assert plain is not None
        assert linear is not None
        assert torch.equal(plain.weight, linear.weight)

    def test_networks_without_weights_are_refused(self) -> None:
        message = "pretrained: there are no weights for resnet18 of width 64, allowed are resnet18-imagenet \\(64\\), "
        with pytest.raises(ValueError, match=message):
            build_model("resnet18", channels=3, size=32, classes=7, pretrained=True, seed=0)
        with pytest.raises(ValueError, match="no weights for resnet18-imagenet of width 16"):
            build_model("resnet18-imagenet", channels=3, size=64, classes=7, width=16, pretrained=True, seed=0)

    def test_weights_that_cannot_be_fetched_are_told_in_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def create(model: str, pretrained: bool = False, **options: int) -> nn.Module:
            raise OSError("We couldn't connect to the hub\nand more") if pretrained else ValueError("not this one")

        monkeypatch.setattr(timm, "create_model", create)
        with pytest.raises(
            InputError, match=r"pretrained: timm's weights of resnet18 cannot be had .*hub and more.*HF_HOME"
        ):
            build_model("resnet18-imagenet", channels=3, size=64, classes=7, pretrained=True, seed=0)

    def test_weights_of_other_layers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="other layers"):
            copy_weights(build("resnet18-imagenet"), build("resnet50-imagenet"))
