"""The network of Top-GAP (Section 3, Figure 2 of its paper): see `trainables/top_gap.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.command_line import InputError
from trainables.models.class_maps import PYRAMID_MAPS, class_activation_map, largest_side
from trainables.models.feature_maps import activations, cut
from trainables.models.pooling import TopGapPooling
from trainables.models.pyramid import Pyramid

if TYPE_CHECKING:
    from trainables.top_gap import TopGap


class TopGapNetwork(nn.Module):
    """A backbone with class maps in place of its classifier, pooled by Top-GAP."""

    def __init__(self, network: nn.Module, image: tuple[int, int, int], config: TopGap) -> None:
        super().__init__()
        linear = cut(network).linear
        classes = _classes(network, image)
        self.backbone = pyramid_of(network, image, config.fpn)
        self.laterals: nn.ModuleList | None = None
        width = self.backbone.channels[-1]
        if config.fpn_channels is not None:
            width = config.fpn_channels
            self.laterals = nn.ModuleList(nn.Conv2d(inputs, width, 3, padding=1) for inputs in self.backbone.channels)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(width, classes, 1)
        if not config.fpn and linear is not None and linear.in_features == width:
            with torch.no_grad():
                self.classifier.weight.copy_(linear.weight[:, :, None, None])
                if self.classifier.bias is not None and linear.bias is not None:
                    self.classifier.bias.copy_(linear.bias)
        self.side = max(self.backbone.sides)
        self.pool = TopGapPooling(config.pixels, self.side)
        self.place = config.variant
        self.maps: Tensor | None = None
        """Of the last pass in training mode: the class maps (B, D, h, w)."""
        self.activations: list[Tensor] = []
        """Of the same, with ℓ1 on them: what it is on, each (B, …)."""
        if config.variant == "all":
            found = activations(self.backbone)
            if not found:
                raise InputError("variant: all, allowed with a network without nonlinearities are class_maps and last")
            for module in found:
                module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self.training:
            self.activations.append(output)

    def class_maps(self, images: Tensor) -> Tensor:
        """One map per class, (B, D, h, w), before pooling."""
        self.activations = []
        maps = self.backbone(images)
        if self.training and self.place == "last":
            self.activations.append(maps[-1])
        if self.laterals is None:
            features = maps[-1]
        else:
            size = maps[0].shape[-2:]
            lateral = [layer(feature) for layer, feature in zip(self.laterals, maps, strict=True)]
            features = lateral[0]
            for smaller in lateral[1:]:
                features = features + F.interpolate(smaller, size, mode="nearest")
        found: Tensor = self.classifier(self.dropout(features))
        self.maps = found if self.training else None
        return found

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.pool(self.class_maps(images))
        return logits

    def cam(self, images: Tensor, labels: Tensor) -> Tensor:
        """The class activation maps of the classes `labels` (B,): (B, H, W) in [0, 1], of the images' size."""
        return class_activation_map(self.class_maps(images), labels, images.shape[-2], images.shape[-1])


def pyramid_of(network: nn.Module, image: tuple[int, int, int], fpn: bool) -> Pyramid:
    """The feature maps that class maps are made of: see `trainables/top_gap.py`."""
    largest = largest_side(image[-1])
    return Pyramid(network, image, largest=largest, maps=PYRAMID_MAPS) if fpn else Pyramid(network, image)


def _classes(network: nn.Module, image: tuple[int, int, int]) -> int:
    """The number of classes: what the last layer with weights gives."""
    last = [parameter for name, parameter in network.named_parameters() if name.endswith("weight")][-1]
    return last.shape[0]
