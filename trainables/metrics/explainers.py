"""Explainers: saliency maps of a network, signed attributions per image and pixel (De Moor et al., Section 3.2).

Notation: B images, C channels, H×W pixels, D classes. A model is any callable from (B, C, H, W) to logits (B, D) that
treats images apart, as one with BatchNorm does in evaluation mode; an explainer is any callable from (model, images,
labels) to attributions of the images' shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.command_line import InputError
from trainables.lazily import nn, torch
from trainables.metrics.chunks import Model, hooked, in_chunks
from trainables.models.feature_maps import PRODUCTS

if TYPE_CHECKING:
    from torch import Tensor

Explainer = Callable[[Model, "Tensor", "Tensor"], "Tensor"]

DEEPLIFT_EPSILON = 1e-10


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
    """DeepLIFT with the Rescale rule (Shrikumar et al. 2017) against an input of zeros, (B, C, H, W); the attributions
    of an image sum to the difference of its label's logit from that of the zeros.

    A nonlinearity passes on Δoutput/Δinput instead of its gradient, or its gradient where the inputs differ by less
    than 1e-10. **[reading]** Max pooling, for which the paper has no rule, passes on its gradient, as the authors' own
    implementation does, and captum where the pooling follows a nonlinearity; the sum above is exact where the maps
    of the zeros are constant within each window, as they are but for padded borders. So does Top-GAP pooling.

    Raises `ValueError` for a model that is no `nn.Module` in evaluation mode, or has a layer that is neither linear
    nor one of these nonlinearities.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: {type(model).__name__}, allowed is an nn.Module, whose layers DeepLIFT reads")
    if model.training:
        raise InputError("model: in training mode, allowed is evaluation mode")
    layers = _nonlinear_layers(model)
    inputs: dict[nn.Module, Tensor] = {}
    reference: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}
    uses = dict.fromkeys(layers, 0)

    def keep_input(layer: nn.Module, given: tuple[Tensor, ...]) -> Any:
        inputs[layer] = given[0]
        # one that works in place shall not change what was kept
        return given[0].clone() if getattr(layer, "inplace", False) else None

    def keep_reference(layer: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> None:
        reference[layer].append((inputs[layer], output))

    def rescale(layer: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x0, output0 = reference[layer][uses[layer]]  # a layer may be used again, in the same order
        uses[layer] += 1
        return _rescaled(layer, inputs[layer], output.detach(), x0, output0)

    with torch.no_grad(), hooked(layers, keep_reference, keep_input):
        model(torch.zeros_like(images[:1]))
    with hooked(layers, rescale, keep_input):
        multipliers = _target_gradients(model, images, labels)
    return multipliers * images


def _nonlinear_layers(model: nn.Module) -> list[nn.Module]:
    from trainables.models.pooling import TopGapPooling

    elementwise = (
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.ELU,
        nn.GELU,
        nn.SiLU,
        nn.Hardswish,
        nn.Tanh,
        nn.Sigmoid,
        nn.Softplus,
    )
    linear = (
        nn.Conv2d,
        nn.Linear,
        nn.modules.batchnorm._BatchNorm,
        nn.AvgPool2d,
        nn.AdaptiveAvgPool2d,
        nn.Identity,
        nn.Flatten,
        nn.Unflatten,
        nn.Dropout,
        nn.Dropout2d,
    )
    found: list[nn.Module] = []
    for name, layer in model.named_modules():
        if isinstance(layer, elementwise):
            found.append(layer)
        elif type(layer).__name__ in PRODUCTS or (
            not any(layer.children()) and not isinstance(layer, (*linear, nn.MaxPool2d, TopGapPooling))
        ):
            raise InputError(
                f"model: layer {name or 'itself'} is a {type(layer).__name__}, which DeepLIFT has no rule for; allowed "
                "are convolutions, linear layers, BatchNorm, pooling and element-wise nonlinearities"
            )
    return found


def _rescaled(layer: nn.Module, x: Tensor, output: Tensor, x0: Tensor, output0: Tensor) -> Tensor:
    """The output, with Δoutput/Δinput for a gradient."""
    with torch.no_grad():
        difference = x - x0
        small = difference.abs() < DEEPLIFT_EPSILON
        if isinstance(layer, nn.ReLU):
            slope = (x > 0).to(x.dtype)
        else:
            with torch.enable_grad():
                inputs = x.detach().requires_grad_(True)
                # a copy, which a layer that works in place may overwrite; past the hooks
                (slope,) = torch.autograd.grad(type(layer).forward(layer, inputs.clone()).sum(), inputs)
        multiplier = torch.where(small, slope, (output - output0) / torch.where(small, 1, difference))
    return output + multiplier * (x - x.detach())


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
