"""What adversarial attacks in the ℓ∞ ball share: the ball, gradients of the image, predictions. See `attacks.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from analysis.command_line import InputError
from trainables.lazily import F, nn, torch
from trainables.method import evaluation_mode
from trainables.metrics.chunks import Model, in_chunks

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor"], "Tensor"]
"""From logits (B, D) to what an attack raises, (B,)."""


def in_ball(images: Tensor, adversarial: Tensor, epsilon: float) -> bool:
    """Whether every pixel lies within ε of its own, up to one rounding of numbers below 1, and in [0, 1]."""
    distance = (adversarial - images).abs()
    inside = (distance <= epsilon + torch.finfo(images.dtype).eps) & (adversarial >= 0) & (adversarial <= 1)
    return bool(inside.all())


def _checked(images: Tensor, adversarial: Tensor, epsilon: float) -> Tensor:
    if not in_ball(images, adversarial, epsilon):
        farthest = float((adversarial - images).abs().max())
        raise RuntimeError(f"attack: left the ball of {epsilon:g} around the image, or [0, 1]: distance {farthest:g}")
    return adversarial


def _check(images: Tensor, epsilon: float, **counts: int) -> None:
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise InputError(f"epsilon: {epsilon}, allowed are finite numbers of at least 0")
    for name, number in counts.items():
        if number < 1:
            raise InputError(f"{name}: {number}, allowed are whole numbers of at least 1")
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        raise InputError(
            f"images: values from {float(images.min()):g} to {float(images.max()):g}, allowed is [0, 1], "
            "with the normalisation inside the model"
        )


def _project(adversarial: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """The nearest point in the ε-ball and in [0, 1]."""
    return (images + (adversarial - images).clamp(-epsilon, epsilon)).clamp(0, 1)


def _evaluated(model: Model) -> AbstractContextManager[None]:
    return evaluation_mode(model) if isinstance(model, nn.Module) else nullcontext()


def _numbers(logits: Tensor) -> Tensor:
    """The logits. Raises `InputError` if some are none: what is predicted from them neither changes nor stays."""
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        raise InputError(f"model: the logits of {bad} of {len(logits)} images are nan or infinite, allowed are numbers")
    return logits


def cross_entropy(labels: Tensor) -> Loss:
    return lambda logits: F.cross_entropy(logits, labels, reduction="none")


def _gradient(model: Model, images: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, D), loss (B,), and the gradient of each image's with respect to it (B, C, H, W)."""
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        logits = _numbers(model(inputs))
        values = loss(logits)
        # of the sum: that of a mean would round, and underflow, by the number of images beside it
        (gradient,) = torch.autograd.grad(values.sum(), inputs)
    if bool(gradient.isnan().any()):
        raise InputError("model: the gradient of an image is nan, allowed are numbers")
    return logits.detach(), values.detach(), gradient


def _stuck(gradient: Tensor) -> Tensor:
    """Whose gradient is zero everywhere, (B,): an attack that follows it stays where it is."""
    return (gradient == 0).flatten(1).all(1)


def _uniform(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform in [−1, 1), of the images' shape: drawn on the generator's device and in float32, so that equal
    generators give equal draws on any device and in any precision."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.rand(images.shape, generator=generator, device=device).mul_(2).sub_(1).to(images)


def predictions(model: Model, images: Tensor, *, chunk: int | None = None) -> Tensor:
    """The predicted classes (B,) of images in [0, 1]; the first of equal logits.

    Raises `ValueError` for logits that are no numbers.
    """
    with torch.no_grad(), _evaluated(model):
        return in_chunks(lambda part: _numbers(model(part)).argmax(1), model, images, chunk=chunk)
