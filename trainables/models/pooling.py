"""Top-GAP pooling as a layer (Top-GAP's paper, Definition 3.5)."""

from __future__ import annotations

from torch import Tensor, nn

from trainables.models.class_maps import top_gap


class TopGapPooling(nn.Module):
    """Top-GAP pooling over k of maps of `side`² pixels, and of larger or smaller maps over the same share of them."""

    def __init__(self, pixels: int, side: int) -> None:
        super().__init__()
        self.pixels, self.side = pixels, side

    def forward(self, class_maps: Tensor) -> Tensor:
        return top_gap(class_maps, self.pixels_of(class_maps))

    def pixels_of(self, class_maps: Tensor) -> int:
        return max(1, round(self.pixels * class_maps.shape[-2] * class_maps.shape[-1] / self.side**2))
