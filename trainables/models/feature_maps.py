"""A network's feature maps: its last one and what classifies it, and the larger ones before it.

Of the own networks, which are sequences of layers, a feature map is the last output of its resolution; those of timm's
are what its own interface gives (`forward_intermediates`). A resolution that pooling alone has made is none: VGG's
last map is that of its last convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from trainables.lazily import nn

if TYPE_CHECKING:
    from torch import Tensor


class Cut(NamedTuple):
    """A network in two: `classify(features(images))` are its logits (B, D)."""

    features: Callable[[Tensor], Tensor]
    """Images (B, C, H, W) to the last feature map (B, channels, h, w)."""
    classify: Callable[[Tensor], Tensor]
    linear: nn.Linear | None
    """Its last layer."""


def cut(network: nn.Module) -> Cut:
    """The network cut after its last feature map; the parts share its parameters and have its mode.

    Raises `ValueError` for a network that is neither a sequence of layers nor one of timm's.
    """
    if of_timm(network):
        linear = network.get_classifier()  # type: ignore[operator]
        timm: Any = network
        return Cut(timm.forward_features, timm.forward_head, linear if isinstance(linear, nn.Linear) else None)
    layers = sequence(network)
    end = end_of(layers)
    linear = layers[-1]
    return Cut(layers[:end], layers[end:], linear if isinstance(linear, nn.Linear) else None)


def averages(network: nn.Module) -> bool:
    """Whether what classifies the last feature map is global average pooling and a linear layer, and nothing else."""
    if of_timm(network):
        # timm's networks with a head of more layers have their pooling in it
        return hasattr(network, "global_pool")
    layers = sequence(network)
    tail = layers[end_of(layers) :]
    kinds = (nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear)
    return len(tail) == len(kinds) and all(isinstance(layer, kind) for layer, kind in zip(tail, kinds, strict=True))


def activations(network: nn.Module) -> list[nn.Module]:
    """The nonlinearities of a network, in the order in which it defines them; timm has some of its own (ConvNeXt's)."""
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Sigmoid, nn.Hardswish)
    return [
        module
        for module in network.modules()
        if isinstance(module, kinds) or type(module).__module__ == "timm.layers.activations"
    ]


def is_pooling(layer: nn.Module) -> bool:
    """Whether a layer pools over windows."""
    return isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)


def of_timm(network: nn.Module) -> bool:
    """Whether a network has timm's interface."""
    return hasattr(network, "forward_intermediates")


def sequence(network: nn.Module) -> nn.Sequential:
    """The layers of a network one after the other; they share its parameters. Raises `ValueError` for one that is none
    of these."""
    if isinstance(network, nn.Sequential):
        return network
    if type(network).__module__ == "torchvision.models.resnet":
        *layers, linear = network.children()
        return nn.Sequential(*layers, nn.Flatten(), linear)
    raise ValueError(f"network: {type(network).__name__}, allowed are sequences of layers and networks of timm")


def end_of(layers: nn.Sequential) -> int:
    """The number of layers up to the last feature map."""
    ends = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten)
    end = next((index for index, layer in enumerate(layers) if isinstance(layer, ends)), len(layers))
    while end > 0 and is_pooling(layers[end - 1]):
        end -= 1
    return end
