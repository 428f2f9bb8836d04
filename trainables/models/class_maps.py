"""What is made of class maps X (B, D, h, w): logits by Top-GAP pooling (Top-GAP's paper, Definition 3.5), and class
activation maps (Section 3.1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis.command_line import InputError
from trainables.lazily import F, torch

if TYPE_CHECKING:
    from torch import Tensor

PYRAMID_MAPS = 4
"""The most feature maps that class maps are made of."""


def largest_side(size: int) -> int:
    """Pixels a side that the feature maps of the pyramid have at most, for images of so many: what one convolution of
    stride 2, or of larger images two, leaves of them."""
    return -(-size // (4 if size > 64 else 2))


def top_gap(class_maps: Tensor, pixels: int) -> Tensor:
    """Top-GAP pooling (Definition 3.5): the mean of the k = `pixels` largest values of each map, (B, D, h, w) to
    (B, D). k = 1 is global max pooling, k = h·w global average pooling.

    Raises `ValueError` for a k that is not in 1 … h·w.
    """
    height, width = class_maps.shape[-2:]
    if not 1 <= pixels <= height * width:
        raise InputError(
            f"pixels: {pixels}, allowed are whole numbers from 1 to {height * width}, as the class maps have "
            f"{height}×{width}"
        )
    if pixels == height * width:
        return class_maps.mean((-2, -1))
    return class_maps.flatten(-2).topk(pixels, dim=-1, sorted=False).values.mean(-1)


def class_activation_map(class_maps: Tensor, labels: Tensor, height: int, width: int) -> Tensor:
    """The maps (B, D, h, w) of the classes `labels` (B,) at height × width pixels, each scaled from its least and
    largest value to [0, 1] (Section 3.1, mode "CAM"): (B, height, width). A map of one value everywhere is 0.

    [reading] Enlarged bilinearly, without aligning corners.
    """
    chosen = class_maps[torch.arange(len(labels), device=labels.device), labels]
    return enlarged(chosen, height, width)


def enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (B, h, w) at height × width pixels, bilinearly, each scaled to [0, 1]; one that is the same everywhere is 0,
    and maps of a single pixel, which locate nothing, are nan."""
    if maps.shape[1:] == (1, 1):
        return torch.full((len(maps), height, width), math.nan, device=maps.device)
    large = F.interpolate(maps.unsqueeze(1), (height, width), mode="bilinear", align_corners=False).squeeze(1)
    # of a map of one value interpolation makes several, by rounding
    varied = maps.amin((1, 2), keepdim=True) < maps.amax((1, 2), keepdim=True)
    return torch.where(varied, scaled_to_unit(large), 0)


def scaled_to_unit(maps: Tensor) -> Tensor:
    """Maps (B, H, W), each shifted and scaled to [0, 1]; one of the same value everywhere is 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (maps - low) / torch.where(spread > 0, spread, 1), 0)
