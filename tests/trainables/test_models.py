"""The registry of networks: known parameter counts, seeded initialisation, shapes, replaceable layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import timm
import torch
from scipy import stats
from torch import Tensor, nn

from analysis.command_line import InputError
from trainables.models import MODELS, build_model, copy_weights
from trainables.models.blocks import Subsample
from trainables.models.downsampled import set_downsampling_
from trainables.models.feature_maps import cut
from trainables.models.pyramid import Pyramid
from trainables.pilcro import path_importance

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
        # 3×3 convolutions 3-32-32-64-64-128-128-256-256: 1 171 296; BatchNorm 1 920; linear 2 570
        ("vgg-cifar", 3, 32, 10, 1_175_786),
        # 3-64-64-128-128-256-256-256-512-512-512-512-512-512: 14 710 464; BatchNorm 8 448; linear 513 000
        ("vgg-imagenet", 3, 224, 1000, 15_231_912),
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


class TestDownsampling:
    """The five downsampling layers of the networks of the deformation-stability paper."""

    def network(self, kind: str, size: int = 16, seed: int = 0) -> nn.Module:
        network = build("vgg-cifar", size=size, width=4)
        torch.manual_seed(seed)
        set_downsampling_(network, kind)
        return network

    @pytest.mark.parametrize(
        ("kind", "of_a_block"),
        [
            ("subsample", lambda block: block[0, 0]),
            ("max-pool", lambda block: block.max()),
            ("average-pool", lambda block: block.mean()),
        ],
    )
    def test_what_a_block_becomes(self, kind: str, of_a_block: Callable[[Tensor], Tensor]) -> None:
        """Of 2×2 pixels, channel by channel; the last row and column of an odd map are left out."""
        layer = self.network(kind).get_submodule("down1")
        for side in (6, 7):
            maps = torch.randn(2, 4, side, side)
            found = layer(maps)
            assert found.shape == (2, 4, 3, 3)
            for index in itertools.product(range(2), range(4), range(3), range(3)):
                image, channel, row, column = index
                block = maps[image, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                assert float(found[index]) == pytest.approx(float(of_a_block(block)), abs=1e-6)

    @pytest.mark.parametrize("kind", ["strided", "strided-relu"])
    def test_strided_convolutions(self, kind: str) -> None:
        """To as many channels, of weights 1/√n_in cut at two of these; without a bias."""
        network = self.network(kind)
        layer = network.get_submodule("down3")
        convolution = layer if kind == "strided" else layer.get_submodule("conv")
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.weight.shape == (16, 16, 2, 2)
        assert convolution.bias is None
        assert float(convolution.weight.detach().abs().max()) <= 2 / 64**0.5 + 1e-7
        maps = torch.randn(3, 16, 5, 5)
        expected = torch.einsum("bcrisj,ocij->bors", maps[..., :4, :4].reshape(3, 16, 2, 2, 2, 2), convolution.weight)
        if kind == "strided-relu":
            assert [type(each) for each in layer.children()] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
            expected = (expected / (1 + 1e-5) ** 0.5).relu()
        torch.testing.assert_close(layer.eval()(maps), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("kind", ["subsample", "max-pool", "average-pool", "strided", "strided-relu"])
    def test_the_network_with_it(self, kind: str) -> None:
        """Four times half the size and down to the smallest it names; cut and seen as a pyramid as the others are."""
        network = self.network(kind).train()
        assert network(torch.randn(2, 3, 16, 16)).shape == (2, 7)
        network = network.eval()
        assert all(not module.training for module in network.modules())
        images = torch.randn(2, 3, 28, 28)
        assert [network.get_submodule("conv1_1")(images).shape[2]] == [28]
        parts = cut(network)
        last = parts.features(images)
        strided = kind.startswith("strided")
        # a resolution that pooling alone has made is none
        assert last.shape == (2, 32, 1, 1) if strided else (2, 32, 3, 3)
        assert torch.equal(parts.classify(last), network(images))
        assert torch.equal(Pyramid(network, (3, 28, 28)).eval()(images)[0], last)
        # everything but what was exchanged is as it was
        plain = build("vgg-cifar", width=4).state_dict()
        kept = {name: value for name, value in network.state_dict().items() if not name.startswith("down")}
        assert all("num_batches" in n or "running" in n or torch.equal(plain[n], kept[n]) for n in plain)
        assert set(plain) == set(kept)
        # the same layers trained through, and new ones by torch's generator alone
        again, other = self.network(kind), self.network(kind, seed=1)
        state, same = (each.state_dict() for each in (self.network(kind), again))
        assert all(map(torch.equal, state.values(), same.values()))
        differ = [name for name, value in other.state_dict().items() if not torch.equal(value, same[name])]
        assert differ == (
            [f"down{i}.weight" if kind == "strided" else f"down{i}.conv.weight" for i in (1, 2, 3, 4)] * strided
        )

    def test_initial_weights(self) -> None:
        """A normal of deviation 1/√n_in cut at two of these, whose own deviation is 0.8796 of that (scipy's
        truncnorm); a hundredth is five standard errors for 590k weights."""
        network = build_model("vgg-cifar", channels=3, size=32, classes=10, seed=0)
        weight = network.get_submodule("conv4_2").get_submodule("conv").weight.detach() * (256 * 9) ** 0.5
        assert float(weight.abs().max()) <= 2 + 1e-5
        assert float(weight.std()) == pytest.approx(float(stats.truncnorm(-2, 2).std()), rel=0.01)
        statistic = stats.kstest(weight.flatten()[:20_000].numpy(), stats.truncnorm(-2, 2).cdf)
        assert statistic.pvalue > 1e-3
        linear = network.get_submodule("linear")
        assert float(linear.weight.detach().abs().max()) <= 2 / 256**0.5 + 1e-6
        assert not linear.bias.any()

    def test_only_these_networks_and_layers(self) -> None:
        with pytest.raises(InputError, match="allowed are vgg-cifar and vgg-imagenet"):
            set_downsampling_(build("resnet8", width=4), "strided")
        with pytest.raises(InputError, match="downsampling: 'pool', allowed are subsample, max-pool, "):
            set_downsampling_(build("vgg-cifar", width=4), "pool")

    def test_paths_through_a_subsampled_network(self) -> None:
        """One pixel of four has all the paths: of a 16² network's last 1×1 map, where the others have them spread."""
        layer = Subsample()
        network = nn.Sequential(layer, nn.Flatten(), nn.Linear(9, 2))
        paths = path_importance(network, (1, 7, 7))
        expected = torch.zeros(7, 7, dtype=torch.float64)
        expected[:6:2, :6:2] = 1
        torch.testing.assert_close(paths, expected * (49 / 9) ** 0.5)


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
