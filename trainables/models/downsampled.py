"""VGG networks whose downsampling layers can be exchanged (Ruderman et al. 2018, "Learned Deformation Stability in
Convolutional Neural Networks", Section 2.2).

Blocks of 3×3 convolutions, each with BatchNorm and ReLU, a downsampling layer after each block, global average pooling
and one linear layer. Weights are drawn from a normal distribution of standard deviation 1/√n_in that is cut at two of
these (Section 4.2, footnote 2).

[reading] n_in = channels · k · k, the numbers that a weight's output is made of, and of the linear layer its inputs;
cut at two standard deviations without being rescaled, as TensorFlow's truncated normal is; biases, which only the
linear layer has, are zero. Of a map of odd size the last row and column are left out by every downsampling layer.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

from analysis.command_line import InputError
from trainables.lazily import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

Downsampling = Literal["subsample", "max-pool", "average-pool", "strided", "strided-relu"]


def _subsample() -> nn.Module:
    from trainables.models.blocks import Subsample

    return Subsample()


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, bias=False)
    _truncated_normal_(layer.weight)
    return layer


def _truncated_normal_(weight: Tensor) -> None:
    deviation = 1 / math.sqrt(weight[0].numel())
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    """A convolution with BatchNorm and ReLU."""
    layers = {"conv": convolution, "norm": nn.BatchNorm2d(convolution.out_channels), "relu": nn.ReLU()}
    return nn.Sequential(OrderedDict(layers))


_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "subsample": lambda channels: _subsample(),
    "max-pool": lambda channels: nn.MaxPool2d(2),
    "average-pool": lambda channels: nn.AvgPool2d(2),
    "strided": lambda channels: _convolution(channels, channels, 2, 2),
    "strided-relu": lambda channels: _normalised(_convolution(channels, channels, 2, 2)),
}
assert tuple(_LAYERS) == get_args(Downsampling)


def downsampled_vgg(*blocks: tuple[int, int]) -> Callable[[int, int, int, int], nn.Module]:
    """Blocks of (layers, multiple of the width), with max pooling after each."""

    def build(channels: int, size: int, classes: int, width: int) -> nn.Module:
        from trainables.models.blocks import DownsampledNetwork

        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = channels
        for block, (depth, multiple) in enumerate(blocks, 1):
            for layer in range(1, depth + 1):
                layers[f"conv{block}_{layer}"] = _normalised(_convolution(inputs, multiple * width, 3))
                inputs = multiple * width
            layers[f"down{block}"] = _LAYERS["max-pool"](inputs)
        linear = nn.Linear(inputs, classes)
        _truncated_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": linear}
        return DownsampledNetwork(layers)

    return build


def set_downsampling_(network: nn.Module, kind: str) -> None:
    """Replace, in place, the downsampling layers of one of these networks: `subsample` (the top-left of each 2×2),
    `max-pool`, `average-pool`, `strided` (a 2×2 convolution of stride 2 to as many channels), or `strided-relu` (the
    same with BatchNorm and ReLU). New weights are drawn from torch's current generator.

    Raises `ValueError` for another network or kind.
    """
    from trainables.models.blocks import DownsampledNetwork

    if not isinstance(network, DownsampledNetwork):
        raise InputError(
            f"network: {type(network).__name__}, whose downsampling layers cannot be exchanged; allowed are vgg-cifar "
            "and vgg-imagenet"
        )
    if kind not in _LAYERS:
        raise InputError(f"downsampling: {kind!r}, allowed are {', '.join(_LAYERS)}")
    weight = next(network.parameters())
    channels = 0
    for name, layer in network.named_children():
        if name.startswith("conv"):
            convolution = layer.get_submodule("conv")
            assert isinstance(convolution, nn.Conv2d)
            channels = convolution.out_channels
        elif name.startswith("down"):
            new = _LAYERS[kind](channels).to(weight.device, weight.dtype).train(layer.training)
            if weight.is_contiguous(memory_format=torch.channels_last):
                new = new.to(memory_format=torch.channels_last)
            setattr(network, name, new)
