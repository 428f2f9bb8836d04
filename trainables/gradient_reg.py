"""Input-gradient regularisation by double backpropagation (Drucker and LeCun 1992).

De Moor et al., "On the Effect of Gradient Regularisation on Interpretability", Section 3.1: the loss is
`H + α · ‖∇H‖²`, H the cross-entropy and ∇ its gradient with respect to the input. What the norm is taken of decides
what α means: the paper's H is the mean over a batch of B images, so that its squared norm carries 1/B², and its α run
from 1e2 to 1e10. Both conventions are here under names of their own, and the record has the strength in both.

Notation: B images, C channels, H×W pixels, D classes; a model is any callable from (B, C, H, W) to logits (B, D).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from analysis.command_line import InputError
from trainables.lazily import F, nn, torch
from trainables.method import Method, Penalty, Step, evaluation_mode

if TYPE_CHECKING:
    from torch import Tensor

Convention = Literal["batch", "image"]
BatchNormMode = Literal["train", "eval"]


def input_gradient_penalty(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    convention: Convention = "batch",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Squared ℓ2 norm of the cross-entropy's gradient with respect to the images (Section 3.1), a scalar ≥ 0, nats²
    per squared unit of the input; differentiable with respect to the model's parameters.

    `convention` "batch", the paper's: ‖∇_x H‖² of the mean cross-entropy H of the batch, over all B·C·H·W inputs.
    "image": (1/B) Σ_b ‖∇_x_b (B · H)‖², for a model that treats images apart the mean over images of the squared norm
    of each image's own loss, which does not depend on the batch's size. The second is B times the first.

    `images` (B, C, H, W), `labels` (B,) class indices. Raises `ValueError` for another convention or other shapes.
    """
    if convention not in get_args(Convention):
        raise InputError(f"convention: {convention!r}, allowed are {', '.join(get_args(Convention))}")
    if images.dim() != 4 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images, labels: shapes {tuple(images.shape)}, {tuple(labels.shape)}, allowed are (B, C, H, W), (B,)"
        )

    def mean_loss(inputs: Tensor) -> Tensor:
        return F.cross_entropy(model(inputs), labels, label_smoothing=label_smoothing)

    return squared_norm(torch.func.grad(mean_loss)(images), convention)


def squared_norm(gradients: Tensor, convention: Convention) -> Tensor:
    """The penalty from the gradients (B, C, H, W) of a batch's mean loss."""
    return gradients.square().sum() * (len(gradients) if convention == "image" else 1)


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm in training mode normalises by the batch and leaves its running statistics alone, then as it was."""
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.track_running_stats
    ]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


@dataclass(frozen=True)
class GradientRegularisation(Method):
    """Double backpropagation's configuration: `CE + alpha · ‖∇_x CE‖²` at every step, CE the mean over the batch, with
    label smoothing where the training has it."""

    name: ClassVar[str] = "gradient_reg"
    metrics: ClassVar[tuple[str, ...]] = (
        "faithfulness",
        "local_lipschitz",
        "max_sensitivity",
        "entropy",
        "saliency_maps",
    )
    differentiates_images: ClassVar[bool] = True

    alpha: float
    """α ≥ 0, the strength."""
    convention: Convention = "batch"
    """batch: the gradient of the batch's mean loss, as in the paper; image: the mean over images, B times as much."""
    batchnorm: BatchNormMode = "train"
    """What BatchNorm does in the penalty: train, the batch's statistics as in the paper; eval, the running ones."""

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, int | float) and math.isfinite(self.alpha) and self.alpha >= 0):
            raise InputError(f"alpha: {self.alpha}, allowed are finite numbers of at least 0")
        if self.convention not in get_args(Convention):
            raise InputError(f"convention: {self.convention!r}, allowed are {', '.join(get_args(Convention))}")
        if self.batchnorm not in get_args(BatchNormMode):
            raise InputError(f"batchnorm: {self.batchnorm!r}, allowed are {', '.join(get_args(BatchNormMode))}")
        object.__setattr__(self, "alpha", float(self.alpha))

    def columns(self, batch_size: int) -> dict[str, Any]:
        # α · ‖∇ mean‖² = (α / B) · mean ‖∇‖²
        return {"alpha_per_image": self.alpha / (batch_size if self.convention == "batch" else 1)}

    @property
    def relative_cost(self) -> float:
        return 3.0 if self.batchnorm == "train" else 4.0  # measured: tests/benchmarks/penalty.py

    def penalty(self, step: Step) -> Penalty | None:
        if self.batchnorm == "eval":
            mode: contextlib.AbstractContextManager[None] = evaluation_mode(step.model)
        elif step.cross_entropy is not None:
            # double backpropagation proper: the graph of the step's own forward pass
            (gradients,) = torch.autograd.grad(step.cross_entropy, step.images, create_graph=True)
            return Penalty(squared_norm(gradients, self.convention), self.alpha)
        else:
            mode = batch_statistics(step.model)
        with mode:
            value = input_gradient_penalty(
                step.model,
                step.images,
                step.labels,
                convention=self.convention,
                label_smoothing=step.label_smoothing,
            )
        return Penalty(value, self.alpha)
