"""Explainers: saliency maps of a network, signed attributions per image and pixel (De Moor et al., Section 3.2).

Notation: B images, C channels, H×W pixels, D classes. A model is any callable from (B, C, H, W) to logits (B, D) that
treats images apart, as one with BatchNorm does in evaluation mode; an explainer is any callable from (model, images,
labels) to attributions of the images' shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from analysis.command_line import InputError
from trainables.lazily import nn, torch
from trainables.metrics.chunks import Model, in_chunks

if TYPE_CHECKING:
    from torch import Tensor

Explainer = Callable[[Model, "Tensor", "Tensor"], "Tensor"]


def _target_gradients(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        target = model(inputs).gather(1, labels.unsqueeze(1)).sum()
        (gradients,) = torch.autograd.grad(target, inputs)
    return gradients


def input_gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """∂f_y/∂x, the gradient of each image's label's logit with respect to the image, signed, (B, C, H, W)."""
    return _target_gradients(model, images, labels)


def integrated_gradients(model: Model, images: Tensor, labels: Tensor, *, steps: int = 50) -> Tensor:
    """Integrated Gradients (Sundararajan et al. 2017) along the straight path from an input of zeros, (B, C, H, W):
    x · ∫₀¹ ∂f_y/∂x(t·x) dt, by Gauss-Legendre quadrature with `steps` points, as captum has it."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(images)
    for node, weight in zip(nodes, weights, strict=True):
        total += weight / 2 * _target_gradients(model, images * ((1 + node) / 2), labels)
    return total * images


def deeplift(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """DeepLIFT with the Rescale rule (Shrikumar et al. 2017) against an input of zeros, (B, C, H, W).

    A nonlinearity passes on Δoutput/Δinput instead of its gradient, or its gradient where the inputs differ by less
    than 1e-10; wherever in the network's `forward` it is, which is traced. **[reading]** Max pooling, for which the
    paper has no rule, passes on its gradient, as the authors' own implementation does, and captum where the pooling
    follows a nonlinearity. So does Top-GAP pooling.

    An image's attributions sum to the difference of its label's logit from that of the zeros, but for what the rule of
    max pooling leaves: nothing where the maps of the zeros are constant within each window, as without padding. With
    padded convolutions before the pooling they are not, and the rest is 0.2 to 0.8 of the difference on VGGs and
    MobileNet, as captum's is: see `completeness_gap`.

    Raises `ValueError` for a model that is no `nn.Module` in evaluation mode, that cannot be traced, or has a step that
    is neither linear nor one of these nonlinearities.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: {type(model).__name__}, allowed is an nn.Module, whose steps DeepLIFT reads")
    if model.training:
        raise InputError("model: in training mode, allowed is evaluation mode")
    from trainables.models.rescaling import rescaled_logits

    return _target_gradients(lambda inputs: rescaled_logits(model, inputs), images, labels) * images


COMPLETE = ("deeplift", "integrated_gradients")
"""The explainers whose attributions shall sum to a difference of logits."""


def completeness_gap(model: Model, images: Tensor, labels: Tensor, attributions: Tensor) -> Tensor:
    """How far the attributions of an explainer against an input of zeros are from summing to the difference that they
    explain, relative to it, (B,): |Σa − (f_y(x) − f_y(0))| / |f_y(x) − f_y(0)|; nan where there is no difference."""

    def logits(some: Tensor, classes: Tensor) -> Tensor:
        return model(some).gather(1, classes.unsqueeze(1)).squeeze(1).double()

    with torch.no_grad():
        difference = in_chunks(logits, model, images, labels)
        difference -= model(torch.zeros_like(images[:1]))[0, labels]
        gap = (attributions.flatten(1).double().sum(1) - difference).abs()
    return torch.where(difference == 0, torch.nan, gap / difference.abs())


EXPLAINERS: dict[str, Explainer] = {
    "gradient": input_gradient,
    "deeplift": deeplift,
    "integrated_gradients": integrated_gradients,
}


def explain_in_chunks(
    explain: Explainer, model: Model, images: Tensor, labels: Tensor, chunk: int | None = None
) -> Tensor:
    """The explainer's attributions (B, C, H, W) of many images, detached."""
    return in_chunks(lambda *part: explain(model, *part).detach(), model, images, labels, chunk=chunk)
