"""The feature maps of a network as a network of their own: the last one, and the larger ones before it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainables.models.feature_maps import end_of, is_pooling, of_timm, sequence


class Pyramid(nn.Module):
    """Feature maps of a network, the largest first, without the layers that none of them needs; or the last one alone.

    With `largest`, the most pixels a side that a map may have, the last `maps` of those. `image` (C, H, W) is the shape
    of the images; `channels` and `sides` are those of the maps.
    """

    def __init__(self, network: nn.Module, image: Sequence[int], *, largest: int | None = None, maps: int = 4) -> None:
        super().__init__()
        self.network: Any
        self.indices: list[int] | None = None  # None: timm's own last map, which is none of its intermediate ones
        if of_timm(network):
            self.network = network
            found = _timm_maps(network)
        else:
            self.network = sequence(network)[: end_of(sequence(network))]
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
        if of_timm(self.network):
            found: list[Tensor] = self.network.forward_intermediates(
                images, indices=self.indices, intermediates_only=True
            )
            return found
        outputs = _outputs(self.network, images)
        return [outputs[index] for index in self.indices]


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
        if not is_pooling(layers[index]):
            found[output.shape[2]] = index
    return sorted(found.values())


def _timm_maps(network: Any) -> list[int]:
    """Which of timm's intermediate maps are none of pooling alone."""
    return [
        index
        for index, info in enumerate(network.feature_info)
        if not is_pooling(network.get_submodule(info["module"]))
    ]


def _shapes_of(maps: Pyramid, image: Sequence[int]) -> list[torch.Size]:
    """Shapes of the maps, without computing anything: on a copy that has no numbers."""
    empty = copy.deepcopy(maps).to("meta").eval()
    return [output.shape for output in empty(torch.empty(1, *image, device="meta"))]
