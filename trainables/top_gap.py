"""Top-GAP: a network whose class maps may use no more than k pixels for a class.

Paper: "Top-GAP: Integrating Size Priors in CNNs for more Robustness, Interpretability, and Bias Mitigation" (Section
3). The classifier is replaced by a simplified feature pyramid: each of the last feature maps through a 3×3 convolution
to 256 channels, all brought to the size of the largest and added, then a 1×1 convolution to one class map X per class
(Figure 2). Logits are the means of each map's k largest values (Definition 3.5), and the loss is

    CE(TopGAP(X, k), y) + λ·‖X‖₁                                                                          (Equation 1)

Pyramid, ℓ1 and Top-GAP switch apart (Table 7): without the pyramid, X is the last feature map after the classifier as
1×1 convolution; λ = 0; and k = h·w, which is global average pooling.

[reading] The norm is the mean of |X| (with a sum λ = 1 would swamp the cross-entropy). The maps of the pyramid are the
last four, or fewer, of at most a quarter of the image's side, rounded up: 56×56 for 224 pixels, as in the paper; for
images of at most 64 pixels half of it: 16×16 for CIFAR-10's 32, where the paper's largest k is 256. The paper says "the
last 3 or 4"; WideResNet-40-4 has three, of 32, 16 and 8 pixels for CIFAR-10, and the pyramid takes two of them: a third
would make its class maps 32×32, where the paper's k are those of 16×16. Maps are enlarged by repeating pixels, as in
the original pyramid (Lin et al. 2017). No nonlinearity follows the 3×3 convolutions, which the paper does not mention.
Weights of the head are initialised as PyTorch does. Where images are larger in evaluation than in training k grows in
proportion to the maps, so that global average pooling stays that.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from analysis.command_line import InputError
from trainables.lazily import nn, torch
from trainables.method import Method, Penalty, Step
from trainables.models import MODELS, build_model, check_model, check_size
from trainables.models.class_maps import PYRAMID_MAPS, class_activation_map, largest_side, top_gap
from trainables.models.feature_maps import averages

if TYPE_CHECKING:
    from trainables.data import Images, StreamedImages

__all__ = ["TopGap", "class_activation_map", "is_baseline", "map_side", "top_gap"]

Place = Literal["class_maps", "last", "all"]
Reduction = Literal["mean", "sum"]


@functools.cache
def map_side(model: str, width: int, channels: int, size: int, fpn: bool) -> int:
    """Pixels a side of the class maps of a network, by its name, for images (channels, size, size).

    Raises `ValueError` as `build_model` does.
    """
    check_model(model, width, False)
    check_size(model, size)
    sides_of = MODELS[model].sides
    if sides_of is not None:
        sides = sides_of(size)
        small_enough = [side for side in sides if side <= largest_side(size)]
        return (small_enough[-PYRAMID_MAPS:] or sides[-1:])[0] if fpn else sides[-1]
    return built_map_side(model, width, channels, size, fpn)


def built_map_side(model: str, width: int, channels: int, size: int, fpn: bool) -> int:
    """The same by building the network, without its numbers."""
    from trainables.models.top_gap import pyramid_of

    with torch.device("meta"):
        network = build_model(model, channels=channels, size=size, classes=2, width=width, seed=0)
        return max(pyramid_of(network, (channels, size, size), fpn).sides)


@functools.cache
def is_baseline(model: str, width: int, channels: int, size: int) -> bool:
    """Whether a network without the three parts is the network itself: whether it ends in global average pooling and a
    linear layer."""
    if MODELS[model].sides is not None:
        return MODELS[model].averages
    with torch.device("meta"):
        return averages(build_model(model, channels=channels, size=size, classes=2, width=width, seed=0))


# --- the method -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TopGap(Method):
    """Top-GAP with its three parts: pooling over `pixels`, ℓ1 of strength `sparsity`, and the feature pyramid."""

    name: ClassVar[str] = "top_gap"
    metrics: ClassVar[tuple[str, ...]] = ("attacks", "erf", "cam", "parameters")

    pixels: int
    """k: how many pixels of a class map its logit is the mean of; h·w is global average pooling."""
    sparsity: float = 1.0
    """λ, at least 0."""
    fpn: bool = True
    """Whether class maps come from the feature pyramid, or from the last feature map alone."""
    dropout: float = 0.0
    """Share of the features before the classifier that are dropped in training, in [0, 1)."""
    fpn_channels: int | None = 256
    """Channels of the pyramid's maps; None without it."""
    variant: Place = "class_maps"
    """Where ℓ1 is: on the class maps, or as in Appendix F on the last feature map, or on all activations."""
    reduction: Reduction = "mean"
    """Of |X|: its mean, or its sum over an image's values, averaged over images; over all activations, the mean or sum
    over layers of that. [reading] Appendix F's strengths on all activations, 1e-5 to 1e-3, are of the sum: as a mean
    they would change nothing."""

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise InputError(f"pixels: {self.pixels}, allowed are whole numbers of at least 1")
        channels = self.fpn_channels
        if (channels is not None) != self.fpn or (channels is not None and channels < 1):
            allowed = "whole numbers of at least 1" if self.fpn else "none without the pyramid"
            raise InputError(f"fpn_channels: {channels}, allowed are {allowed}")
        if not (math.isfinite(self.sparsity) and self.sparsity >= 0):
            raise InputError(f"sparsity: {self.sparsity}, allowed are finite numbers of at least 0")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: {self.dropout}, allowed are numbers in [0, 1)")
        for name, choices in (("variant", get_args(Place)), ("reduction", get_args(Reduction))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}: {getattr(self, name)!r}, allowed are {', '.join(choices)}")

    @property
    def relative_cost(self) -> float:
        """The pyramid's; of a narrow network it is more than its own."""
        return 1.3 if self.fpn else 1.0

    def build(self, model: nn.Module, data: Images | StreamedImages) -> nn.Module:
        """The network with class maps. Raises `ValueError` if they have fewer pixels than k."""
        from trainables.models.top_gap import TopGapNetwork

        network = TopGapNetwork(model, (data.channels, data.size, data.size), self)
        if self.pixels > network.side**2:
            raise InputError(
                f"pixels: {self.pixels}, allowed are whole numbers from 1 to {network.side**2}, as the class maps have "
                f"{network.side}×{network.side}"
            )
        return network

    def penalty(self, step: Step) -> Penalty | None:
        """‖X‖₁ of the pass that gave the step's cross-entropy."""
        from trainables.models.top_gap import TopGapNetwork

        if self.sparsity == 0:
            return None
        network = step.model
        assert isinstance(network, TopGapNetwork)
        values = [network.maps] if self.variant == "class_maps" else network.activations
        norms = []
        for value in values:
            assert value is not None
            magnitude = value.float().abs()
            norms.append(magnitude.mean() if self.reduction == "mean" else magnitude.sum() / len(magnitude))
        total = torch.stack(norms)
        return Penalty(total.mean() if self.reduction == "mean" else total.sum(), self.sparsity)
