"""Filters made smooth: what learned deformation stability is caused with; the deformations are in the data's room.

Paper: Ruderman et al., "Learned Deformation Stability in Convolutional Neural Networks" (Section 4.2, Figure 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from analysis.command_line import InputError
from trainables.data.deformations import deform, random_deformations
from trainables.lazily import nn, torch
from trainables.method import Method
from trainables.models.downsampled import Downsampling, set_downsampling_

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data import Images, StreamedImages

__all__ = ["Deformation", "deform", "random_deformations", "smooth_filters_"]

# --- smooth filters ---------------------------------------------------------------------------------------------------


def smooth_filters_(model: nn.Module, sigma: float) -> None:
    """Convolve the filters of every convolution larger than 1×1, slice by slice and in place, with a Gaussian of
    standard deviation `sigma` in pixels (Section 4.2); 0 leaves them bit for bit.

    [reading] The Gaussian is sampled on the kernel's own k×k pixels (of an even size, on the next odd one, which has a
    centre) and normalised to sum 1; outside the filter are zeros. Afterwards each layer is rescaled to the standard
    deviation it had over all its weights, so that σ changes smoothness and not strength; a layer of equal weights has
    none, and is left as it is.

    Raises `ValueError` for a σ that is no size.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise InputError(f"sigma: {sigma}, allowed are finite numbers of at least 0")
    if sigma == 0:
        return
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
                weight = module.weight.double()
                rows, columns = (_blur(size, sigma).to(weight.device) for size in weight.shape[2:])
                smooth = rows @ weight @ columns
                scale = weight.std() / smooth.std()
                if weight.std() > 0 and scale.isfinite():
                    module.weight.copy_(smooth * scale)


def _blur(size: int, sigma: float) -> Tensor:
    """What convolves `size` numbers with the Gaussian, zeros around them: a symmetric matrix (size, size), float64."""
    offsets = torch.arange(size)
    distances = (offsets.unsqueeze(1) - offsets).double()
    reach = size // 2
    window = torch.arange(-reach, reach + 1).double()
    weights = torch.exp(-((distances / sigma).square()) / 2) * (distances.abs() <= reach)
    return weights / torch.exp(-((window / sigma).square()) / 2).sum()


# --- the method ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Deformation(Method):
    """Filters that are smooth at initialisation (Section 4.2), and the downsampling layers that are between them."""

    name: ClassVar[str] = "deformation"
    metrics: ClassVar[tuple[str, ...]] = ("deformation_sensitivity", "filter_smoothness")

    sigma: float = 0.0
    """σ of the Gaussian that filters are convolved with at initialisation, in pixels, at least 0."""
    downsampling: str | None = None
    """The layer after each block of the networks `vgg-cifar` and `vgg-imagenet`; None: the network as it is."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise InputError(f"sigma: {self.sigma}, allowed are finite numbers of at least 0")
        if self.downsampling not in (None, *get_args(Downsampling)):
            raise InputError(f"downsampling: {self.downsampling!r}, allowed are {', '.join(get_args(Downsampling))}")

    def build(self, model: nn.Module, data: Images | StreamedImages) -> nn.Module:
        """The network with its downsampling layers exchanged and its filters smoothed, those of the new layers too."""
        if self.downsampling is not None:
            set_downsampling_(model, self.downsampling)
        smooth_filters_(model, self.sigma)
        return model
