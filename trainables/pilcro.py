"""PILCRO, the Pixel-wise Importance Landscape Curvature Regularised Objective (¶).

A convolutional network pays, at initialisation, more attention to some pixels than to others: its importance
landscape follows the number of paths from the output to each pixel (Section 3.1, Proposition 1). PILCRO adds to the
cross-entropy a penalty on the curvature of that landscape (¶c) or on its distance to the data's own smoothness (¶t).

Notation: B images, C channels, H×W pixels, D classes; a model is any callable from (B, C, H, W) to logits (B, D). The
functions here are pure: they change no mode, no running statistics and no global random state, and they can be
differentiated again and put under `torch.func.vmap`. A model with BatchNorm is to be in evaluation mode, where an
image's logits depend on that image alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from analysis.command_line import InputError
from trainables.data.configuration import OMIT_DEFAULT
from trainables.lazily import F, nn, torch
from trainables.method import Method, Penalty, Step, evaluation_mode

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data import Images, StreamedImages

Model = Callable[["Tensor"], "Tensor"]
Reduction = Literal["mean", "sum"]
Variant = Literal["curvature", "target"]


def input_gradients(
    model: Model, images: Tensor, targets: Tensor | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    """Gradient of each image's target logit with respect to the image, (B, C, H, W).

    One backward pass of Σ_b f_{y_b}(x_b) serves the batch, because an image's logits depend on that image alone.
    `targets` (B,) are class indices; None draws one y per image from softmax(f(x)), detached, by inverting the
    cumulative distribution at one uniform number per image from `generator`.
    """
    logits, vector_jacobian = torch.func.vjp(model, images)[:2]
    if targets is None:
        source = generator.device if generator is not None else images.device
        uniform = torch.rand(len(images), generator=generator, device=source, dtype=logits.dtype)
        cumulative = logits.detach().softmax(1).cumsum(1)
        targets = (cumulative < uniform.to(images.device).unsqueeze(1) * cumulative[:, -1:]).sum(1)
    (gradients,) = vector_jacobian(F.one_hot(targets, logits.shape[1]).to(logits.dtype))
    return gradients


def normalised_landscape(squares: Tensor) -> Tensor:
    """I'[i,j] = sqrt(H·W) · ‖I²[:,i,j]‖₂ / ‖I²‖_F (Section 3.3, equation 6), (H, W) from I² (C, H, W).

    Its mean square over pixels is 1. The result does not depend on the scale of I², so I² is first divided by its
    largest entry: squares of small gradients would underflow in float32.

    **[reading]** A network whose gradient vanishes everywhere has no landscape (0/0). Its I' is zero, with zero
    derivatives, so that a penalty does not end the training of a network that is dead for one batch; whoever measures
    has to tell that case apart.
    """
    squares = squares / _at_least_tiny(squares.detach().amax())
    per_pixel = torch.linalg.vector_norm(squares, dim=0)
    # the norm is at least 1, that of the largest entry alone, or 0
    return math.sqrt(per_pixel.numel()) * per_pixel / torch.linalg.vector_norm(squares).clamp_min(0.5)


def _at_least_tiny(scale: Tensor) -> Tensor:
    return scale.clamp_min(torch.finfo(scale.dtype).tiny)


def importance_landscape(
    model: Model,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
) -> Tensor:
    """The normalised importance landscape I' of a batch, (H, W), dimensionless, mean square 1 (Section 3.3); zero for
    a network whose gradient vanishes everywhere, which has none.

    I²[c,i,j] = mean_b (∂f_{y_b}/∂x_b[c,i,j])² with y_b drawn from softmax(f(x_b)), or given as `targets` (B,). With
    `create_graph` the landscape can be differentiated with respect to the model's parameters.

    Raises `ValueError` if `images` is not (B, C, H, W).
    """
    if images.dim() != 4:
        raise ValueError(f"images: shape {tuple(images.shape)}, allowed are (B, C, H, W)")
    if not create_graph:
        with torch.no_grad():
            gradients = input_gradients(model, images, targets, generator=generator)
    else:
        from trainables.models.first_order import FirstOrder

        with FirstOrder():
            gradients = input_gradients(model, images, targets, generator=generator)
    gradients = gradients / _at_least_tiny(gradients.detach().abs().amax())
    return normalised_landscape(gradients.square().mean(0))


def expected_squares(model: Model, images: Tensor) -> Tensor:
    """Σ_b E_{y~softmax(f(x_b))} (∂f_y/∂x_b)², exact over the D classes by D backward passes, (C, H, W), float64."""
    with torch.no_grad():
        logits, vector_jacobian = torch.func.vjp(model, images)[:2]
        probabilities = logits.softmax(1).double()
        squares = torch.zeros(images.shape[1:], dtype=torch.float64, device=images.device)
        for y in range(logits.shape[1]):
            direction = torch.zeros_like(logits)
            direction[:, y] = 1
            (gradients,) = vector_jacobian(direction)
            squares += torch.einsum("b,bchw->chw", probabilities[:, y], gradients.double().square())
    return squares


def sampled_squares(model: Model, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Σ_b (∂f_{y_b}/∂x_b)² with one sampled y per image, (C, H, W), float64: one batch's share of a split's I²."""
    with torch.no_grad():
        return input_gradients(model, images, generator=generator).double().square().sum(0)


def expected_landscape(model: Model, images: Tensor) -> Tensor:
    """I' of `images` (B, C, H, W) with the exact expectation over classes instead of a sampled y, (H, W)."""
    return normalised_landscape(expected_squares(model, images)).to(images.dtype)


def landscape_of_batches(
    model: Model,
    batches: Iterable[Tensor],
    *,
    expectation: Literal["sampled", "exact"] = "sampled",
    generator: torch.Generator | None = None,
) -> Tensor:
    """I' over a whole split, (H, W), float64: Σ g² accumulated over batches (B, C, H, W), then normalised once."""
    total: Tensor | float = 0.0
    for images in batches:
        total = total + (
            expected_squares(model, images)
            if expectation == "exact"
            else sampled_squares(model, images, generator=generator)
        )
    if not isinstance(total, torch.Tensor):
        raise ValueError("batches: none given, allowed is at least one")
    return normalised_landscape(total)


def check_width(width: int, height: int, breadth: int) -> None:
    """Raise `ValueError` unless `width` is an odd Laplacian width of at least 3 that fits an H×W map."""
    if width < 3 or width % 2 == 0 or width > min(height, breadth):
        raise InputError(
            f"laplacian_width: {width}, allowed are odd numbers from 3 to the image's smaller side ({height}×{breadth})"
        )


def laplacian(landscape: Tensor, width: int = 3) -> Tensor:
    """Δ_k * I', the k-wide discrete Laplacian of a map (..., H, W), same shape.

    **[reading]** The paper cites a family of focus measures and gives no kernel: here the box Laplacian, all ones with
    centre 1 − k², divided by the sum of its absolute values 2(k² − 1); borders by replication.

    Raises `ValueError` if `width` is even, below 3 or wider than the map.
    """
    check_width(width, *landscape.shape[-2:])
    area, margin = width * width, width // 2
    maps = landscape.reshape(1, -1, *landscape.shape[-2:])
    padded = F.pad(maps, (margin,) * 4, mode="replicate")
    box_sum = F.avg_pool2d(padded, width, stride=1, divisor_override=1)
    return ((box_sum - area * maps) / (2 * (area - 1))).reshape(landscape.shape)


def curvature_penalty(landscape: Tensor, width: int = 3) -> Tensor:
    """L_c = Var_ij(Δ_k * I'), the ¶c penalty: a scalar ≥ 0. The variance is the empirical one (divided by H·W)."""
    return laplacian(landscape, width).var(correction=0)


def target_penalty(landscape: Tensor, smoothness: Tensor, reduction: Reduction = "mean") -> Tensor:
    """L_t = ‖I' − Ŝ‖²₂, the ¶t penalty: a scalar ≥ 0, from two maps (H, W).

    The paper writes the sum over pixels; **[reading]** the mean is the default here, H·W times smaller.

    Raises `ValueError` for another reduction or if the shapes differ.
    """
    if reduction not in get_args(Reduction):
        raise InputError(f"reduction: {reduction!r}, allowed are 'mean' and 'sum'")
    if landscape.shape != smoothness.shape:
        raise ValueError(f"smoothness: shape {tuple(smoothness.shape)}, allowed is {tuple(landscape.shape)}")
    squares = (landscape - smoothness).square()
    return squares.mean() if reduction == "mean" else squares.sum()


def _smoothness_sum(images: Tensor, width: int) -> tuple[Tensor, int]:
    """Sum over images of sqrt(H·W)·‖(Δ_k X)[:,i,j]‖₂/‖Δ_k X‖_F (H, W), float64, and the number of images with one."""
    energy = laplacian(images.double(), width).square().sum(1)
    total = energy.sum((1, 2), keepdim=True)
    has_edges = total.flatten() > 0
    share = energy[has_edges] / total[has_edges]
    return math.sqrt(energy[0].numel()) * share.sqrt().sum(0), int(has_edges.sum())


def data_smoothness(images: Tensor, width: int = 3) -> Tensor:
    """Ŝ[i,j] = mean_m sqrt(H·W)·‖(Δ_k X_m)[:,i,j]‖₂ / ‖Δ_k X_m‖_F, the data's smoothness map (H, W), for images
    (M, C, H, W), uint8 or float in any linear scale (each image's share is normalised, so the scale cancels).

    **[reading]** An image without any edge has no such map (0/0) and is left out of the mean.

    Raises `ValueError` if no image has an edge or `width` does not fit.
    """
    return _mean_smoothness(images.split(1024), width).to(images.dtype if images.is_floating_point() else torch.float32)


def _mean_smoothness(chunks: Iterable[Tensor], width: int) -> Tensor:
    total, number = torch.zeros((), dtype=torch.float64), 0
    for chunk in chunks:
        part, images = _smoothness_sum(chunk, width)
        total, number = total.to(part.device) + part, number + images
    if number == 0:
        raise InputError("images: every one is constant, allowed are images of which at least one has an edge")
    return total / number


def smoothness_of(data: Images | StreamedImages, width: int) -> Tensor:
    """Ŝ of the training split, (H, W), float32, computed once and kept with the data for every trial that shares it.

    **[reading]** The pixels are taken before normalisation (per-channel scales weigh the channels alike).
    """
    key = f"smoothness-{width}"
    if key not in data.memo:
        data.memo[key] = _mean_smoothness(data.training_pixels(), width).float().cpu().numpy()
    # copied: what Ray shares between processes is read-only, which torch cannot express
    return torch.from_numpy(np.array(data.memo[key]))


def total_variation(landscape: Tensor) -> Tensor:
    """TV: the mean squared difference of I' between horizontally and vertically adjacent pixels, a scalar ≥ 0.

    The mean is over all H·(W−1) + (H−1)·W pairs of a map (H, W) (Section 4.1.1, "average square difference between
    nearby locations").
    """
    across = landscape.diff(dim=1).square()
    down = landscape.diff(dim=0).square()
    return (across.sum() + down.sum()) / (across.numel() + down.numel())


def path_importance(model: Model, image_shape: tuple[int, int, int]) -> Tensor:
    """The landscape that Proposition 1 predicts at initialisation, (H, W), float64, mean square 1, from path counts.

    E[(∂h_j/∂x_i)²] is proportional to the sum over output-to-input paths of the product of the weight variances on the
    path (equation 3), summed over outputs j. Computed exactly and without data, on the network's graph: every weight
    has its layer's variance (the mean square of the weights it has now, as they are drawn with mean zero), biases and
    nonlinearities are dropped. Paths that differ in layers without weights alone (pooling that overlaps or follows
    pooling, a sum of a tensor and itself pooled) are added before they are squared.

    **[reading]** A convolution's weights count as different ones wherever they are used, as in equation 3. BatchNorm
    multiplies by γ/σ of its running statistics; of n inputs of a maximum, each is the one that passes with probability
    1/n, independently in every window; average pooling gives each the weight 1/n.

    `image_shape` is (C, H, W). Raises `ValueError` for a model that is no `nn.Module`, whose `forward` cannot be
    traced, that uses weights twice, or has a step whose paths cannot be counted, such as a product, or pooling by a
    function instead of a layer.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: {type(model).__name__}, allowed is an nn.Module, whose steps can be traced")
    from trainables.models.paths import path_squares

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return normalised_landscape(path_squares(model, image_shape)).to(device)


@dataclass(frozen=True)
class Pilcro(Method):
    """PILCRO's configuration: `CE + alpha · interval · L`, L computed at every `interval`-th optimiser step.

    **[reading]** "α = α₀T" with a footnote mark, not α₀T². ¶t's target Ŝ is that of the training split. Whether the α
    of the paper's tables is α₀, or the product ("which in practice amends to choosing an α that scales with T"), it
    does not say: without `interval_factor` it is the product, `CE + alpha · L`.
    """

    name: ClassVar[str] = "pilcro"
    metrics: ClassVar[tuple[str, ...]] = ("landscape", "paths")

    alpha: float
    """α₀ ≥ 0, the strength: what one step's penalty is multiplied by, apart from the interval T."""
    interval: int = 10
    """T ≥ 1: the penalty is computed at optimiser steps T, 2T, …, and multiplied by T, see `interval_factor`."""
    laplacian_width: int = 3
    """k, odd, at least 3: width of the discrete Laplacian."""
    variant: Variant = "curvature"
    """curvature (¶c) or target (¶t)."""
    reduction: Reduction | None = None
    """¶t alone: mean (default) or sum over pixels; the sum's α is H·W times stronger."""
    interval_factor: bool = field(default=True, metadata=OMIT_DEFAULT)
    """Whether α is multiplied by T."""

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, int | float) and math.isfinite(self.alpha) and self.alpha >= 0):
            raise InputError(f"alpha: {self.alpha}, allowed are finite numbers of at least 0")
        if self.interval < 1:
            raise InputError(f"interval: {self.interval}, allowed are whole numbers of at least 1")
        if self.laplacian_width < 3 or self.laplacian_width % 2 == 0:
            raise InputError(f"laplacian_width: {self.laplacian_width}, allowed are odd numbers of at least 3")
        if self.variant not in get_args(Variant):
            raise InputError(f"variant: {self.variant!r}, allowed are 'curvature' and 'target'")
        if self.variant == "curvature" and self.reduction is not None:
            raise InputError(f"reduction: {self.reduction!r}, allowed is none with the curvature variant (a variance)")
        if self.reduction is not None and self.reduction not in get_args(Reduction):
            raise InputError(f"reduction: {self.reduction!r}, allowed are 'mean' and 'sum'")
        object.__setattr__(self, "alpha", float(self.alpha))
        if self.variant == "target" and self.reduction is None:
            object.__setattr__(self, "reduction", "mean")

    def check(self, height: int, width: int, steps: int) -> None:
        check_width(self.laplacian_width, height, width)
        if self.interval > steps:
            raise InputError(f"interval: {self.interval}, allowed are at most the {steps} steps of the training")

    def prepare(self, data: Images | StreamedImages) -> None:
        if self.variant == "target":
            smoothness_of(data, self.laplacian_width)

    @property
    def relative_cost(self) -> float:
        # a landscape pass and its double backward cost about 2.5 plain steps (measured: tests/benchmarks)
        return 1 + 2.5 / self.interval

    def penalty(self, step: Step) -> Penalty | None:
        if step.number % self.interval != 0:
            return None
        with evaluation_mode(step.model):
            landscape = importance_landscape(step.model, step.images, generator=step.generator, create_graph=True)
        if self.variant == "curvature":
            value = curvature_penalty(landscape, self.laplacian_width)
        else:
            smoothness = smoothness_of(step.data, self.laplacian_width).to(landscape)
            value = target_penalty(landscape, smoothness, self.reduction or "mean")
        return Penalty(value, self.alpha * self.interval if self.interval_factor else self.alpha)
