"""Input-gradient regularisation by double backpropagation (Drucker and LeCun 1992).

De Moor et al., "On the Effect of Gradient Regularisation on Interpretability", Section 3.1: the loss is
`H + α · ‖∇H‖²`, H the cross-entropy and ∇ its gradient with respect to the input. How the squares of the gradient are
summed decides what α means: the paper's H is the mean over a batch of B images, so that the sum of all squares carries
1/B², and its α run from 1e2 to 1e10. There are four conventions, under names of their own, which differ by a factor
(`converted_strength`); the record has the strength in each.

[reading, open] Which one the paper's numbers are in: its formula says `batch`, but it takes every network with α < 1e5
as unharmed and shows one with α = 1.15e7 that still works on MNIST, and its tipping points move from MNIST to images of
3·320² values by about as much as `element` and `pixel` do, by whose division an α is weaker the larger the images are.

Notation: B images, C channels, H×W pixels, D classes; a model is any callable from (B, C, H, W) to logits (B, D).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from analysis.command_line import InputError
from trainables.lazily import F, nn, torch
from trainables.method import Method, Penalty, Step, evaluation_mode

if TYPE_CHECKING:
    from torch import Tensor

Convention = Literal["batch", "image", "element", "pixel"]
BatchNormMode = Literal["train", "eval"]

STRENGTH_COLUMNS: dict[Convention, str] = {
    "batch": "alpha_batch",
    "element": "alpha_element",
    "pixel": "alpha_pixel",
    "image": "alpha_per_image",
}
"""The columns of the trials table that have the strength in each convention."""


def input_gradient_penalty(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    convention: Convention = "batch",
    label_smoothing: float = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    """Squared ℓ2 norm of the cross-entropy's gradient with respect to the images (Section 3.1), a scalar ≥ 0, nats²
    per squared unit of the input; differentiable with respect to the model's parameters.

    `convention` "batch", the paper's formula: ‖∇_x H‖² of the mean cross-entropy H of the batch, summed over all
    B·C·H·W inputs. "element": the mean over all B·C·H·W of them (`gradient.pow(2).mean()`). "pixel": summed over images
    and averaged over the C·H·W inputs of an image. "image": (1/B) Σ_b ‖∇_x_b (B · H)‖², for a model that treats images
    apart the mean over images of the squared norm of each image's own loss, which does not depend on the batch's size;
    B times "batch".

    Of a batch that is shorter than the others, `batch_size` says how many images those have: its penalty is scaled so
    that an image's part in it is that of an image of a full batch, which "batch", "element" and "pixel" are not by
    themselves, as a mean over fewer images has larger gradients.

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

    return squared_norm(torch.func.grad(mean_loss)(images), convention, batch_size)


def squared_norm(gradients: Tensor, convention: Convention, batch_size: int | None = None) -> Tensor:
    """The penalty from the gradients (b, C, H, W) of a batch's mean loss, b at most the `batch_size` of full ones."""
    number = len(gradients)
    full = batch_size or number
    # Σ‖∇ mean‖² is 1/b of the mean over images of ‖∇‖²: times b/B it has the 1/B of a full batch
    scale = of_the_batchs_sum(convention, full, math.prod(gradients.shape[1:])) * Fraction(number, full)
    return gradients.square().sum() * float(scale)


def of_the_batchs_sum(convention: Convention, batch_size: int, values: int) -> Fraction:
    """A convention's penalty over that of `batch`, exactly, for batches of B images of so many values C·H·W each."""
    return {
        "batch": Fraction(1),
        "element": Fraction(1, batch_size * values),
        "pixel": Fraction(1, values),
        "image": Fraction(batch_size),
    }[convention]


def converted_strength(
    alpha: float, source: Convention, target: Convention, *, batch_size: int, image: tuple[int, int, int]
) -> float:
    """The α of convention `target` that is the same penalty as `alpha` of `source`, for batches of B = `batch_size`
    images of shape `image` (C, H, W), rounded once:

        α_batch = α_element / (B·C·H·W) = α_pixel / (C·H·W) = α_image · B

    Raises `ValueError` for another convention, and `OverflowError` where no float is so large.
    """
    for convention in (source, target):
        if convention not in get_args(Convention):
            raise InputError(f"convention: {convention!r}, allowed are {', '.join(get_args(Convention))}")
    scales = (of_the_batchs_sum(convention, batch_size, math.prod(image)) for convention in (source, target))
    return float(Fraction(alpha) * next(scales) / next(scales))


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
    label smoothing where the training has it; as strong on each image of a short last batch as on one of a full one."""

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
    """How squares of the gradient are summed: batch, all of a batch's, as in the paper; element, their mean; pixel, the
    sum over images of the mean over an image's values; image, the mean over images of each one's own loss's."""
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

    def columns(self, batch_size: int, image: tuple[int, int, int] | None = None) -> dict[str, Any]:
        """The strength in every convention; null where it depends on the images' shape and that is not known."""

        def strength(target: Convention) -> float | None:
            if image is None and {self.convention, target} & {"element", "pixel"} and target != self.convention:
                return None
            try:
                return converted_strength(
                    self.alpha, self.convention, target, batch_size=batch_size, image=image or (1, 1, 1)
                )
            except OverflowError:
                return None

        return {column: strength(convention) for convention, column in STRENGTH_COLUMNS.items()}

    @property
    def relative_cost(self) -> float:
        return 3.0 if self.batchnorm == "train" else 4.0  # measured: tests/benchmarks/penalty.py

    def penalty(self, step: Step) -> Penalty | None:
        if self.batchnorm == "eval":
            mode: contextlib.AbstractContextManager[None] = evaluation_mode(step.model)
        elif step.cross_entropy is not None:
            # double backpropagation proper: the graph of the step's own forward pass
            (gradients,) = torch.autograd.grad(step.cross_entropy, step.images, create_graph=True)
            return Penalty(squared_norm(gradients, self.convention, step.batch_size), self.alpha)
        else:
            mode = batch_statistics(step.model)
        with mode:
            value = input_gradient_penalty(
                step.model,
                step.images,
                step.labels,
                convention=self.convention,
                label_smoothing=step.label_smoothing,
                batch_size=step.batch_size,
            )
        return Penalty(value, self.alpha)
