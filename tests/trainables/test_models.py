"""The registry of networks: known parameter counts, seeded initialisation, shapes, replaceable layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.models import MODELS, build_model

SMALL = {"resnet18-imagenet": 64, "resnet50-imagenet": 64, "lenet5": 28, "vgg13": 32, "vgg13-5x5": 32, "mobilenet": 32}


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
    ],
)
def test_parameter_counts(name: str, channels: int, size: int, classes: int, parameters: int) -> None:
    model = build_model(name, channels=channels, size=size, classes=classes, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_logits(self, name: str) -> None:
        for channels in (1, 3):
            model = build(name, channels=channels, width=8).eval()
            size = SMALL.get(name, 16)
            images = torch.randn(2, channels, size, size)
            assert model(images).shape == (2, 7)
            stacked = torch.func.functional_call(model, dict(model.named_parameters()), (images,))
            assert torch.equal(stacked, model(images))

    def test_the_seed_alone_decides(self, name: str) -> None:
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
        narrow, wide = (sum(p.numel() for p in build(name, width=width).parameters()) for width in (4, 8))
        assert 1.5 < wide / narrow < 4.5 or name == "resnet50-imagenet"
        assert wide > narrow

    def test_too_small_images(self, name: str) -> None:
        smallest = MODELS[name].smallest
        size = smallest
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
