"""Top-GAP pooling (Top-GAP's paper, Definition 3.5)."""

from __future__ import annotations

from torch import Tensor, nn

from analysis.command_line import InputError


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


class TopGapPooling(nn.Module):
    """Top-GAP pooling over k of maps of `side`² pixels, and of larger or smaller maps over the same share of them."""

    def __init__(self, pixels: int, side: int) -> None:
        super().__init__()
        self.pixels, self.side = pixels, side

    def forward(self, class_maps: Tensor) -> Tensor:
        return top_gap(class_maps, self.pixels_of(class_maps))

    def pixels_of(self, class_maps: Tensor) -> int:
        return max(1, round(self.pixels * class_maps.shape[-2] * class_maps.shape[-1] / self.side**2))
