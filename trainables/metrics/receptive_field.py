"""The effective receptive field (ERF) of a network's centre and of its corner, for any method (Top-GAP's paper,
Definitions 3.1 and 4.1, Table 2 and Appendix B).

    E(i, j) = mean over input pixels and channels of |z(∂ Σ_c X[c, i, j] / ∂x)|,   ERF distance = E(centre) − E(corner)

X are the class maps of a Top-GAP network, and the last feature map of any other.

[reading] "The gradients were z-normalized to have mean at 0 and standard deviation at 1": each image's gradients of the
two locations together, over all input pixels and channels. Normalised apart, each location's mean |z| would say how
spread its gradient is and not how strong, and could not be below √(2/n) for n values: 0.0037 for 3·224², while Table A7
has 0.002. Together they are comparable: the rows of the paper are differences of the two. Image by image, so that an
image's value depends on no other and images of large gradients do not decide.
[reading] The centre is location (⌈h/2⌉, ⌈w/2⌉) of (1, 1) … (h, w): the paper's (4, 4) of 7×7, and of an even side the
one before the middle; the corner is (1, 1). The gradient is that with respect to the network's input, whose scale the
normalisation takes out.

Notation: B images, C channels, H×W pixels, P locations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.command_line import InputError
from trainables.lazily import nn, torch
from trainables.metrics.chunks import chunk_size
from trainables.metrics.moment import EVALUATION_BATCH, FORWARD, INPUT_GRADIENT, Measured, Moment
from trainables.models.feature_maps import cut

if TYPE_CHECKING:
    from torch import Tensor

Maps = Callable[["Tensor"], "Tensor"]
Location = tuple[int, int]


def last_maps(model: nn.Module) -> Maps:
    """What gives the last maps of images, (B, C, H, W) to (B, channels, h, w): the class maps of a Top-GAP network, the
    last feature map of any other."""
    from trainables.models.top_gap import TopGapNetwork

    return model.class_maps if isinstance(model, TopGapNetwork) else cut(model).features


def centre_of(height: int, width: int) -> Location:
    """The location ⌈h/2⌉, ⌈w/2⌉, counted from 0."""
    return (height - 1) // 2, (width - 1) // 2


def receptive_fields(maps: Maps, images: Tensor, locations: Sequence[Location]) -> Tensor:
    """∂ Σ_c X[c, i, j] / ∂x (Definition 3.1) for each location (i, j) of the maps X, counted from 0:
    (P, B, C, H, W). `maps` treats images apart, as a network in evaluation mode does: one backward pass a location."""
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        summed = maps(inputs).sum((0, 1))
        fields = []
        for number, (row, column) in enumerate(locations, 1):
            keep = number < len(locations)
            (gradient,) = torch.autograd.grad(summed[row, column], inputs, retain_graph=keep, materialize_grads=True)
            fields.append(gradient)
    return torch.stack(fields)


def z_normalised(fields: Tensor) -> Tensor:
    """Gradients (P, B, C, H, W) of each image, of all locations together, with mean 0 and standard deviation 1, in
    float64; nan for an image whose gradients are all the same."""
    values = fields.double()
    # divided by the largest first: squares of tiny gradients would underflow
    values = values / values.abs().amax((0, 2, 3, 4), keepdim=True)
    centred = values - values.mean((0, 2, 3, 4), keepdim=True)
    spread = centred.square().mean((0, 2, 3, 4), keepdim=True).sqrt()
    # of equal values no more is left than the rounding of their mean
    return torch.where(spread > 1e-12, centred / spread, torch.nan)


def erf(fields: Tensor) -> Tensor:
    """E of each image and location (Definition 4.1), float64, (B, P), from gradients (P, B, C, H, W); nan for an image
    whose gradients are all the same."""
    return z_normalised(fields).abs().mean((2, 3, 4)).T


@dataclass(frozen=True)
class ReceptiveField:
    """On the test split of the trained network: `erf`, its component "centre" or "corner", and `erf_distance`, means
    over images with their deviation; without a value where the maps have 2×2 locations or fewer, whose centre is a
    corner. Maps: the mean of |gradient| over images and channels, `erf/centre` and `erf/corner` (Figures A1, A2)."""

    images: int = 128
    """The first so many test images, whose order is shuffled and fixed."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"images: {self.images}, allowed are whole numbers of at least 1")

    def image_passes(self, features: int) -> float:
        return self.images * (FORWARD + 2 * INPUT_GRADIENT)

    def measure(self, moment: Moment) -> Measured:
        if moment.split != "test":
            if moment.epoch == 0:
                last_maps(moment.model)  # a network that cannot be cut is refused before it is trained
            return Measured()
        maps = last_maps(moment.model)
        parts: list[Tensor] = []
        sums: Tensor | None = None
        different = True
        for images, _ in moment.data.batches("test", EVALUATION_BATCH, device=moment.device, limit=self.images):
            with torch.no_grad():
                height, width = maps(images[:1]).shape[-2:]
            centre = centre_of(height, width)
            different = centre != (0, 0)
            for chunk in images.split(chunk_size(moment.model, images)):
                fields = receptive_fields(maps, chunk, [centre, (0, 0)])
                parts.append(erf(fields))
                total = fields.abs().double().mean(2).sum(1)
                sums = total if sums is None else sums + total
        values = torch.cat(parts)
        count = len(values)
        values = values[values.isfinite().all(1)] if different else values[:0]
        assert sums is not None
        measured = Measured(maps={"erf/centre": sums[0] / count, "erf/corner": sums[1] / count} if different else {})
        centre_values, corner_values = values.unbind(1)
        for metric, component, found, direction in (
            ("erf", "centre", centre_values, "max"),
            ("erf", "corner", corner_values, "min"),
            ("erf_distance", "", centre_values - corner_values, "max"),
        ):
            row = {"metric": metric, "component": component, "level": None, "unit": "", "direction": direction}
            mean = float(found.mean()) if len(found) else None
            std = float(found.std()) if len(found) > 1 else None
            measured.measurements.append({**row, "value": mean, "std": std, "n": len(found)})
        return measured
