"""What a method of regularisation is to the training loop: a configuration that answers at most four questions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from trainables.lazily import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data import Images, StreamedImages


class Penalty(NamedTuple):
    """`weight · value` is added to the loss; the record keeps the mean of `value`, before its weight."""

    value: Tensor
    weight: float


@dataclass(frozen=True)
class Step:
    """One optimiser step as a method sees it: `number` counts from 1; images (B, C, H, W) are scaled and augmented."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    number: int
    generator: torch.Generator
    data: Images | StreamedImages
    label_smoothing: float = 0.0
    cross_entropy: Tensor | None = None
    """This step's loss, in training mode: a graph from `images` on, for a method that `differentiates_images`, unless
    it was computed at reduced precision."""
    batch_size: int | None = None
    """Images of a full batch; the last of an epoch may have fewer. None: this one is full."""


@dataclass(frozen=True)
class Method:
    """A frozen, validated set of hyperparameters and pure functions of it; this one, the baseline, adds nothing.

    A method is a subclass in a file of its own and one line in `trainables/methods.py`. Its fields are the
    hyperparameters; those named as columns of the trials table fill them.
    """

    name: ClassVar[str] = "baseline"
    metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics (`trainables/metrics`) that its sweep records by default."""
    differentiates_images: ClassVar[bool] = False
    """Whether its penalty differentiates the step's loss with respect to the images."""

    def check(self, height: int, width: int, steps: int) -> None:
        """Raise `ValueError` if the hyperparameters do not go with images of height × width or so many steps."""

    def prepare(self, data: Images | StreamedImages) -> None:
        """Fill `data.memo` with what is derived from the data, once, before the data are shared between trials."""

    def columns(self, batch_size: int, image: tuple[int, int, int] | None = None) -> dict[str, Any]:
        """Columns of the trials table that follow from the hyperparameters (which are columns themselves), and from the
        training images' shape (C, H, W), where it is known."""
        return {}

    @property
    def relative_cost(self) -> float:
        """Time of a training step over that of a plain one: to order the trials of a sweep and estimate its cost."""
        return 1.0

    def build(self, model: nn.Module, data: Images | StreamedImages) -> nn.Module:
        """The model to train: `model` as it is, or changed."""
        return model

    def penalty(self, step: Step) -> Penalty | None:
        """What to add to the loss at this step."""
        return None

    def adjust_gradients(self, model: nn.Module, weight_decay: float) -> None:
        """Add to the gradients in place, after the loss's backward pass; the optimiser adds weight_decay · w."""


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode (BatchNorm uses and leaves its running statistics), then each as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
