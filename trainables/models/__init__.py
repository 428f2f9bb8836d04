"""The networks, by name, each built for given channels, size, classes and width, and initialised from a seed alone.

Every nonlinearity, pooling and normalisation is an `nn.Module`, so that layers can be replaced (for path counts) and
hooked. Classes of layers are in files of their own (`blocks.py`, `pooling.py`, `top_gap.py`, …), which are imported
where a network is built: which networks there are is known without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analysis.command_line import InputError
from trainables.lazily import nn, torch
from trainables.models.downsampled import downsampled_vgg
from trainables.models.preactivation import he_normal_, preactivation_resnet


@dataclass(frozen=True)
class Architecture:
    """`build(channels, size, classes, width)`; `width` is the default one, `smallest` the least image side."""

    build: Callable[[int, int, int, int], nn.Module]
    width: int
    smallest: int
    millions: tuple[float, float]
    """Of parameters at the default width, and of activations (what its layers give out) for an image of 32 pixels:
    about, to see that a network is too large without building it."""
    channels_last: bool = False
    """Whether its weights lie so in memory: what is faster on the CPU, measured with every method's penalty."""
    timm: str | None = None
    """timm's name of the network whose ImageNet weights it can take, at its default width."""
    any_width: bool = True
    sides: Callable[[int], list[int]] | None = None
    """Pixels a side of its feature maps for images of so many, the largest first (see `feature_maps.py`); None: they
    are known once it is built."""
    dense: bool = False
    """Whether most of its weights see each pixel of a feature map of its own: they grow with the image."""
    averages: bool = False
    """Of a network with `sides`: whether global average pooling and a linear layer classify its last feature map."""


def halved(times: int) -> Callable[[int], list[int]]:
    """A side, and what so many convolutions of stride 2 leave of it."""
    return lambda size: list(dict.fromkeys(-(-size // 2**time) for time in range(times + 1)))


def pooled(times: int) -> Callable[[int], list[int]]:
    """A side, and what pooling over 2×2 pixels, so many times, leaves of it."""
    return lambda size: list(dict.fromkeys(size // 2**time for time in range(times + 1)))


def _small_stem(channels: int, width: int) -> list[nn.Module]:
    """For images of some 32 pixels: 3×3, no pooling."""
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def _large_stem(channels: int, width: int) -> list[nn.Module]:
    """For images of some 224 pixels (He et al. 2016): 7×7 of stride 2 and 3×3 max pooling of stride 2."""
    convolution = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]


def _resnet(depths: tuple[int, ...], *, bottleneck: bool = False, large: bool = False) -> Callable[..., nn.Module]:
    """A residual network: the stem, that of `large` images or of small ones, a stage per depth, each half as large and
    twice as wide as the one before, global average pooling, one linear layer."""

    def build(channels: int, size: int, classes: int, width: int) -> nn.Module:
        from trainables.models.blocks import BasicBlock, Bottleneck

        block = Bottleneck if bottleneck else BasicBlock
        stem = _large_stem if large else _small_stem
        stages = []
        inputs = width
        for stage, depth in enumerate(depths):
            planes = width * 2**stage
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(inputs, planes, stride=2 if stage > 0 and index == 0 else 1))
                inputs = planes * (4 if bottleneck else 1)
            stages.append(nn.Sequential(*blocks))
        network = nn.Sequential(
            *stem(channels, width),
            *stages,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(inputs, classes),
        )
        he_normal_(network)
        return network

    return build


def _lenet5(channels: int, size: int, classes: int, width: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: 6@5×5, 16@5×5, 120, 84; other widths in proportion.

    The first convolution is padded by 2 where images are smaller than 32 pixels, as MNIST's 28 are padded to 32.
    """

    def scaled(number: int) -> int:
        return max(1, round(number * width / 6))

    padding = 2 if size < 32 else 0
    side = ((size + 2 * padding - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, scaled(16), 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(scaled(16) * side * side, scaled(120)),
        nn.ReLU(),
        nn.Linear(scaled(120), scaled(84)),
        nn.ReLU(),
        nn.Linear(scaled(84), classes),
    )


def _lenet5_sides(size: int) -> list[int]:
    first = size if size < 32 else size - 4
    return [first, first // 2 - 4]


def _normalised(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution of half its filters' size as padding, BatchNorm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out" if groups == 1 else "fan_in", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _vgg13(kernel: int) -> Callable[[int, int, int, int], nn.Module]:
    """VGG13 as LOCO-REG's paper adapts it (Schneider 2022, Table 3): pairs of 3×3 convolutions of 64, 128, 256, 512 and
    512 channels (width 64), each with BatchNorm and ReLU, max pooling after each pair, one linear layer. With `kernel`
    5 filters are 5×5 where the feature map is larger than that (Section 7.1), the first six for 32 pixels."""

    def build(channels: int, size: int, classes: int, width: int) -> nn.Module:
        layers: list[nn.Module] = []
        inputs, side = channels, size
        for planes in (width, 2 * width, 4 * width, 8 * width, 8 * width):
            for _ in range(2):
                layers += _normalised(inputs, planes, kernel if side > kernel else 3)
                inputs = planes
            layers.append(nn.MaxPool2d(2))
            side //= 2
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * side**2, classes))

    return build


def _mobilenet(channels: int, size: int, classes: int, width: int) -> nn.Module:
    """MobileNet as LOCO-REG's paper adapts it (Schneider 2022, Table 3): a 3×3 convolution, then 3×3 depth-wise ones,
    every other with stride 2, each with a 1×1 convolution after it; BatchNorm and ReLU after each; max pooling."""
    layers = _normalised(channels, width, 3)
    inputs = width
    for stride, factor in ((2, 1), (1, 2), (2, 2), (1, 4), (1, 4), (2, 4), (1, 8), (1, 8), (2, 8)):
        layers += [*_normalised(inputs, inputs, 3, stride, groups=inputs), *_normalised(inputs, factor * width, 1)]
        inputs = factor * width
    side = -(-size // 16) // 2
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(inputs * side**2, classes))


def _torchvision_resnet50(channels: int, size: int, classes: int, width: int) -> nn.Module:
    """torchvision's ResNet-50 (7×7 stem of stride 2, max pooling); `width` 64 is the original, others its width/64."""
    from torchvision.models import resnet  # here, as it takes a second to import, in every worker

    network = resnet.ResNet(resnet.Bottleneck, [3, 4, 6, 3], num_classes=classes, width_per_group=width)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


def _timm(name: str) -> Callable[[int, int, int, int], nn.Module]:
    """timm's network of this name, with its initialisation; of one width."""

    def build(channels: int, size: int, classes: int, width: int) -> nn.Module:
        return create(name, num_classes=classes, in_chans=channels)

    return build


def create(name: str, **options: Any) -> nn.Module:
    """`timm.create_model`, which fetches weights where it is asked to. Raises `InputError` if they cannot be had."""
    import timm  # here, as it takes a second to import, in every worker

    try:
        network: nn.Module = timm.create_model(name, **options)
    except Exception as error:  # the libraries raise what they like; it is told in one line
        if not options.get("pretrained"):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"pretrained: timm's weights of {name} cannot be had ({reason}); they are looked for on Hugging Face's hub "
            "and in its cache, HF_HOME"
        ) from None
    return network


MODELS: dict[str, Architecture] = {
    "lenet5": Architecture(
        _lenet5, dense=True, width=6, smallest=12, millions=(0.117, 0.023), channels_last=True, sides=_lenet5_sides
    ),
    "resnet8": Architecture(
        _resnet((1, 1, 1)), width=16, smallest=4, millions=(0.078, 0.262), sides=halved(2), averages=True
    ),
    "resnet20": Architecture(
        _resnet((3, 3, 3)), width=16, smallest=4, millions=(0.272, 0.664), sides=halved(2), averages=True
    ),
    "resnet18": Architecture(
        _resnet((2, 2, 2, 2)), width=64, smallest=8, millions=(11.2, 1.98), sides=halved(3), averages=True
    ),
    "resnet34": Architecture(
        _resnet((3, 4, 6, 3)), width=64, smallest=8, millions=(21.3, 3.41), sides=halved(3), averages=True
    ),
    "resnet50": Architecture(
        _resnet((3, 4, 6, 3), bottleneck=True),
        width=64,
        smallest=8,
        millions=(23.5, 11.1),
        sides=halved(3),
        averages=True,
    ),
    "vgg13": Architecture(
        _vgg13(3), width=64, smallest=32, millions=(9.74, 0.781), channels_last=True, sides=pooled(4)
    ),
    "vgg13-5x5": Architecture(
        _vgg13(5), width=64, smallest=32, millions=(26.5, 0.781), channels_last=True, sides=pooled(4)
    ),
    "vgg-cifar": Architecture(
        downsampled_vgg((2, 1), (2, 2), (2, 4), (2, 8)),
        width=32,
        smallest=16,
        millions=(1.18, 0.385),
        channels_last=True,
        sides=pooled(3),
    ),
    "vgg-imagenet": Architecture(
        downsampled_vgg((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)),
        width=64,
        smallest=32,
        millions=(14.7, 0.862),
        channels_last=True,
        sides=pooled(4),
    ),
    "mobilenet": Architecture(
        _mobilenet, width=64, smallest=17, millions=(1.21, 0.787), channels_last=True, sides=halved(4)
    ),
    "preact-resnet18": Architecture(
        preactivation_resnet((2, 2, 2, 2)), width=64, smallest=8, millions=(11.2, 1.73), sides=halved(3), averages=True
    ),
    "wide-resnet40-4": Architecture(
        preactivation_resnet((6, 6, 6), widening=4),
        width=64,
        smallest=4,
        millions=(8.95, 4.29),
        sides=halved(2),
        averages=True,
    ),
    "resnet18-imagenet": Architecture(
        _resnet((2, 2, 2, 2), large=True),
        width=64,
        smallest=32,
        millions=(11.2, 0.165),
        timm="resnet18",
        sides=lambda size: halved(5)(size)[1:],
        averages=True,
    ),
    "resnet50-imagenet": Architecture(
        _torchvision_resnet50, width=64, smallest=32, millions=(23.5, 0.656), timm="resnet50"
    ),
    "vgg11-bn": Architecture(
        _timm("vgg11_bn"), width=64, smallest=32, millions=(129, 0.519), timm="vgg11_bn", any_width=False
    ),
    "efficientnet-b0": Architecture(
        _timm("efficientnet_b0"), width=32, smallest=32, millions=(4.02, 0.485), timm="efficientnet_b0", any_width=False
    ),
    "densenet-121": Architecture(
        _timm("densenet121"), width=64, smallest=32, millions=(6.96, 0.791), timm="densenet121", any_width=False
    ),
    "convnext-tiny": Architecture(
        _timm("convnext_tiny"), width=96, smallest=32, millions=(27.8, 1.0), timm="convnext_tiny", any_width=False
    ),
}


def check_size(name: str, size: int) -> None:
    """Raise `ValueError` if images of `size` pixels a side are too small for the network `name`."""
    if size < MODELS[name].smallest:
        raise InputError(f"model: {name} on images of {size} pixels, allowed are {MODELS[name].smallest} and more")


MOST_PARAMETERS = 2_000_000_000
"""With gradients and Adam's moments 32 GB in float32; the largest ResNets, BiT's, have half of that."""
MOST_ACTIVATIONS = 8_000_000_000
"""Of one image: 32 GB in float32, of which a step of training keeps several copies."""
MOST_OF_A_BATCH = 250_000_000_000
"""A terabyte in float32: several times what any one device has."""


def numbers_of(name: str, width: int, size: int) -> tuple[float, float]:
    """About how many parameters a network has, and activations for one image, from those at its default width."""
    architecture = MODELS[name]
    wider, area = width / architecture.width, (size / 32) ** 2
    parameters, activations = (1e6 * million for million in architecture.millions)
    return parameters * wider**2 * (area if architecture.dense else 1.0), activations * wider * area


def check_memory_of(name: str, width: int, size: int, batch: int) -> None:
    """Raise `InputError` for a network that is too large for any device, alone, with one image or with such a batch."""
    parameters, activations = numbers_of(name, width, size)
    network = f"{name} of width {width}"
    if parameters > MOST_PARAMETERS:
        raise InputError(
            f"width: {width}, {network} has about {parameters:.2g} parameters, allowed are at most "
            f"{MOST_PARAMETERS:.2g}: with their gradients and an optimiser's moments no device holds more"
        )
    if activations > MOST_ACTIVATIONS:
        raise InputError(
            f"image_size: {size}, {network} has about {activations:.2g} activations for one image, allowed are at most "
            f"{MOST_ACTIVATIONS:.2g}: no device holds more"
        )
    if batch * activations > MOST_OF_A_BATCH:
        raise InputError(
            f"batch_size: {batch}, {network} has about {activations:.2g} activations for each image of {size} pixels, "
            f"allowed are at most {int(MOST_OF_A_BATCH / activations)} images: no device holds more"
        )


def check_model(name: str, width: int, pretrained: bool) -> None:
    """Raise `ValueError` for an unknown network, a width it cannot have, or weights that there are none of."""
    if name not in MODELS:
        raise InputError(f"model: {name!r}, allowed are {', '.join(MODELS)}")
    architecture = MODELS[name]
    if width < 1:
        raise InputError(f"width: {width}, allowed are whole numbers of at least 1")
    if width != architecture.width and not architecture.any_width:
        raise InputError(f"width: {width}, allowed is {architecture.width}, the only one of {name}")
    if pretrained and (architecture.timm is None or width != architecture.width):
        there = ", ".join(f"{known} ({MODELS[known].width})" for known in MODELS if MODELS[known].timm is not None)
        raise InputError(f"pretrained: there are no weights for {name} of width {width}, allowed are {there}")


def build_model(
    name: str,
    *,
    channels: int,
    size: int,
    classes: int,
    width: int | None = None,
    pretrained: bool = False,
    seed: int,
) -> nn.Module:
    """The network `name` for images (channels, size, size), its weights drawn from `seed` alone: logits (B, classes).

    With `pretrained` all weights but the last layer's are timm's, trained on ImageNet, where `architecture.timm` has
    them. Raises `ValueError` for an unknown name, a width below 1, images smaller than the network can take, and
    weights that there are none of, or that cannot be fetched.
    """
    width = MODELS[name].width if width is None and name in MODELS else width or 0
    check_model(name, width, pretrained)
    architecture = MODELS[name]
    check_size(name, size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: weights are drawn there
        network = architecture.build(channels, size, classes, width)
    if pretrained:
        assert architecture.timm is not None
        # timm adapts the first layer to the channels; its classifier is as large as the original's
        copy_weights(create(architecture.timm, pretrained=True, in_chans=channels), network)
    memory_format = torch.channels_last if architecture.channels_last else torch.contiguous_format
    return network.to(memory_format=memory_format)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and running statistics of a network into one of the same layers in the same order, which may
    name them otherwise; the last layer, which belongs to the classes, stays the target's own."""
    theirs, ours = list(source.state_dict().values()), list(target.state_dict().values())
    last = [name for name, _ in target.named_parameters()][-2:]
    kept = [name in last for name in target.state_dict()]
    if len(theirs) != len(ours) or any(
        not own and left.shape != right.shape for left, right, own in zip(theirs, ours, kept, strict=True)
    ):
        raise ValueError(f"weights: of {type(source).__name__}, which has other layers than {type(target).__name__}")
    with torch.no_grad():
        for left, right, own in zip(theirs, ours, kept, strict=True):
            if not own:
                right.copy_(left)
