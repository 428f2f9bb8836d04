"""A network's feature maps: its last one and what classifies it, and the larger ones before it.

Of the own networks, which are sequences of layers, a feature map is the last output of its resolution; those of timm's
are what its own interface gives (`forward_intermediates`). A resolution that pooling alone has made is none: VGG's
last map is that of its last convolution.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

POOLING = (nn.MaxPool2d, nn.AvgPool2d)


PRODUCTS = ("SqueezeExcite", "SEModule", "EffectiveSEModule")
"""timm's layers that multiply what comes in by what they make of it: neither linear nor element-wise."""


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
    if _of_timm(network):
        linear = network.get_classifier()  # type: ignore[operator]
        timm: Any = network
        return Cut(timm.forward_features, timm.forward_head, linear if isinstance(linear, nn.Linear) else None)
    layers = _sequence(network)
    end = _end(layers)
    linear = layers[-1]
    return Cut(layers[:end], layers[end:], linear if isinstance(linear, nn.Linear) else None)


def averages(network: nn.Module) -> bool:
    """Whether what classifies the last feature map is global average pooling and a linear layer, and nothing else."""
    if _of_timm(network):
        # timm's networks with a head of more layers have their pooling in it
        return hasattr(network, "global_pool")
    layers = _sequence(network)
    tail = layers[_end(layers) :]
    kinds = (nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear)
    return len(tail) == len(kinds) and all(isinstance(layer, kind) for layer, kind in zip(tail, kinds, strict=True))


class Pyramid(nn.Module):
    """Feature maps of a network, the largest first, without the layers that none of them needs; or the last one alone.

    With `largest`, the most pixels a side that a map may have, the last `maps` of those. `image` (C, H, W) is the shape
    of the images; `channels` and `sides` are those of the maps.
    """

    def __init__(self, network: nn.Module, image: Sequence[int], *, largest: int | None = None, maps: int = 4) -> None:
        super().__init__()
        self.network: Any
        self.indices: list[int] | None = None  # None: timm's own last map, which is none of its intermediate ones
        if _of_timm(network):
            self.network = network
            found = _timm_maps(network)
        else:
            self.network = _sequence(network)[: _end(_sequence(network))]
            found = _last_of_resolution(self.network, image)
            self.indices = found[-1:]
        if largest is not None:
            self.indices = found
            chosen = [at for at, shape in zip(found, _shapes_of(self, image), strict=True) if shape[2] <= largest]
            self.indices = chosen[-maps:] or found[-1:]
        if isinstance(self.network, nn.Sequential):
            assert self.indices is not None
            self.network = self.network[: self.indices[-1] + 1]
        elif self.indices is None:
            for name in ("pre_logits", "head", "classifier", "fc"):
                if hasattr(network, name):
                    setattr(network, name, nn.Identity())
        else:
            self.network.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        shapes = _shapes_of(self, image)
        self.channels, self.sides = [shape[1] for shape in shapes], [shape[2] for shape in shapes]

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.indices is None:
            return [self.network.forward_features(images)]
        if _of_timm(self.network):
            found: list[Tensor] = self.network.forward_intermediates(
                images, indices=self.indices, intermediates_only=True
            )
            return found
        outputs = _outputs(self.network, images)
        return [outputs[index] for index in self.indices]


def activations(network: nn.Module) -> list[nn.Module]:
    """The nonlinearities of a network, in the order in which it defines them; timm has some of its own (ConvNeXt's)."""
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Sigmoid, nn.Hardswish)
    return [
        module
        for module in network.modules()
        if isinstance(module, kinds) or type(module).__module__ == "timm.layers.activations"
    ]


def _of_timm(network: nn.Module) -> bool:
    return hasattr(network, "forward_intermediates")


def _sequence(network: nn.Module) -> nn.Sequential:
    if isinstance(network, nn.Sequential):
        return network
    if type(network).__module__ == "torchvision.models.resnet":
        *layers, linear = network.children()
        return nn.Sequential(*layers, nn.Flatten(), linear)
    raise ValueError(f"network: {type(network).__name__}, allowed are sequences of layers and networks of timm")


def _end(layers: nn.Sequential) -> int:
    """The number of layers up to the last feature map."""
    ends = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten)
    end = next((index for index, layer in enumerate(layers) if isinstance(layer, ends)), len(layers))
    while end > 0 and isinstance(layers[end - 1], POOLING):
        end -= 1
    return end


def _outputs(layers: nn.Sequential, images: Tensor) -> list[Tensor]:
    outputs = []
    for layer in layers:
        images = layer(images)
        outputs.append(images)
    return outputs


def _last_of_resolution(layers: nn.Sequential, image: Sequence[int]) -> list[int]:
    """Indices of the layers that give the last map of each resolution, but of those that pooling alone has made."""
    found: dict[int, int] = {}
    empty = copy.deepcopy(layers).to("meta").eval()
    for index, output in enumerate(_outputs(empty, torch.empty(1, *image, device="meta"))):
        if not isinstance(layers[index], POOLING):
            found[output.shape[2]] = index
    return sorted(found.values())


def _timm_maps(network: Any) -> list[int]:
    """Which of timm's intermediate maps are none of pooling alone."""
    return [
        index
        for index, info in enumerate(network.feature_info)
        if not isinstance(network.get_submodule(info["module"]), POOLING)
    ]


def _shapes_of(maps: Pyramid, image: Sequence[int]) -> list[torch.Size]:
    """Shapes of the maps, without computing anything: on a copy that has no numbers."""
    empty = copy.deepcopy(maps).to("meta").eval()
    return [output.shape for output in empty(torch.empty(1, *image, device="meta"))]
