"""Auto-PGD (Croce and Hein 2020) on the cross-entropy, on the DLR loss, and on its targeted form: see `attacks.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from analysis.command_line import InputError
from trainables.lazily import torch
from trainables.metrics.ball import (
    Loss,
    _check,
    _checked,
    _evaluated,
    _gradient,
    _numbers,
    _project,
    _stuck,
    _uniform,
    cross_entropy,
    predictions,
)
from trainables.metrics.chunks import Model, chunk_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ApgdLoss = Literal["ce", "dlr"]

MOMENTUM, PROGRESS = 0.75, 0.75
"""α of Equation 2 and ρ of Condition 1 (Croce and Hein 2020)."""


def checkpoints(steps: int) -> list[int]:
    """The steps after which APGD looks whether to halve its step (Croce and Hein 2020, Section 3.1): the first period
    is 22% of the steps, each next one 3% shorter, and at least 6%, as the authors' code counts them in whole steps."""
    period, shorter, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found, at = [], period
    while at <= steps:
        found.append(at)
        period = max(period - shorter, least)
        at += period
    return found


TARGETS = 9
"""Classes that the targeted attack tries, the most likely ones first, as AutoAttack does."""


def dlr(labels: Tensor) -> Loss:
    """The difference of logits ratio, −(z_y − max z_k) / (z_π1 − z_π3), π the order of the logits from the largest on
    (Croce and Hein 2020, Equation 5): like the margin it is unchanged by shifts of the logits, and unlike the
    cross-entropy by their scale, so that a network that is very sure has a gradient."""

    def loss(logits: Tensor) -> Tensor:
        ordered, order = logits.sort(dim=1)
        other = torch.where(order[:, -1] == labels, ordered[:, -2], ordered[:, -1])
        own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        return -(own - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)

    return loss


def targeted_dlr(labels: Tensor, targets: Tensor) -> Loss:
    """The targeted form, −(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2) (Equation 6)."""

    def loss(logits: Tensor) -> Tensor:
        ordered = logits.sort(dim=1).values
        own, other = (logits.gather(1, of.unsqueeze(1)).squeeze(1) for of in (labels, targets))
        return -(own - other) / (ordered[:, -1] - 0.5 * ordered[:, -3] - 0.5 * ordered[:, -4] + 1e-12)

    return loss


def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    loss: ApgdLoss = "ce",
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Auto-PGD (Croce and Hein 2020, Algorithm 1), one run; adversarial images in [0, 1], (B, C, H, W): the first with
    another class, or of those that keep theirs the one of the highest `loss`: ce, the cross-entropy, or dlr, the
    difference of logits ratio, which needs three classes.

    Steps begin at 2ε, with momentum 0.75. At each checkpoint an image's step is halved, and it goes back to its best
    point, if the loss rose in at most 75% of the steps since the one before, or if neither step nor best loss has
    changed since. **[reading]** As in their code, "at most" where the paper says "fewer", and the first step counts as
    one in which the loss rose where the loss is above 0. It starts from a uniform draw, stretched to the ball's faces,
    as there. An image that is lost is left alone.

    Raises `ValueError` for an ε that is no size, no steps, another loss, images that are not in [0, 1], and logits that
    are no numbers, or too few.
    """
    return apgd_run(model, images, labels, epsilon=epsilon, steps=steps, loss=loss, generator=generator, chunk=chunk)[0]


def apgd_run(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    loss: ApgdLoss = "ce",
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """What `apgd` gives, and whose gradient was zero where it began, (B,)."""
    if loss not in get_args(ApgdLoss):
        raise InputError(f"loss: {loss!r}, allowed are {', '.join(get_args(ApgdLoss))}")
    _check(images, epsilon, steps=steps)

    if loss == "dlr" and len(images):
        _check_classes(model, images, 3)
    kind = cross_entropy if loss == "ce" else dlr

    def some(part: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        start = _start(part, epsilon, generator)
        return _apgd(model, part, own, start, epsilon, steps, lambda at: kind(own[at]))

    return _run(some, model, images, labels, epsilon, chunk)


def apgd_targeted(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    targets: int = TARGETS,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """APGD on the targeted DLR loss (Croce and Hein 2020, Section 4), a run for each of the `targets` most likely
    classes of the image but its own, on the images that the runs before have not changed; adversarial images in [0, 1],
    (B, C, H, W), those that keep their class as the last run leaves them. An image with another class is left as it is.

    Raises `ValueError` as `apgd` does; it needs four classes.
    """
    options = {"epsilon": epsilon, "steps": steps, "targets": targets}
    return apgd_targeted_run(model, images, labels, **options, generator=generator, chunk=chunk)[0]  # type: ignore[arg-type]


def apgd_targeted_run(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    targets: int = TARGETS,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """What `apgd_targeted` gives, and whose gradient was zero where every run began, (B,)."""
    _check(images, epsilon, steps=steps, targets=targets)
    answer = images.detach().clone()
    if not len(images):
        return answer, torch.zeros_like(labels, dtype=torch.bool)
    classes = _check_classes(model, images, 4)
    stuck = predictions(model, images, chunk=chunk) == labels
    rows = stuck.nonzero().squeeze(1)
    for rank in range(2, min(targets, classes - 1) + 2):
        if not len(rows):
            break

        def some(part: Tensor, own: Tensor, rank: int = rank) -> tuple[Tensor, Tensor]:
            target = _numbers(model(part)).sort(dim=1).indices[:, -rank]
            start = _start(part, epsilon, generator)
            return _apgd(model, part, own, start, epsilon, steps, lambda at: targeted_dlr(own[at], target[at]))

        answer[rows], still = _run(some, model, images[rows], labels[rows], epsilon, chunk)
        stuck[rows] &= still
        rows = rows[predictions(model, answer[rows], chunk=chunk) == labels[rows]]
    return answer, stuck


def _check_classes(model: Model, images: Tensor, least: int) -> int:
    with torch.no_grad(), _evaluated(model):
        classes = model(images[:1]).shape[1]
    if classes < least:
        raise InputError(f"model: {classes} classes, allowed with this loss are {least} and more")
    return classes


def _start(images: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """A uniform draw, stretched to the faces of the ball."""
    noise = _uniform(images, generator)
    return (images + epsilon * noise / noise.abs().amax((1, 2, 3), keepdim=True)).clamp(0, 1)


def _run(
    some: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    model: Model,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    chunk: int | None,
) -> tuple[Tensor, Tensor]:
    """Chunk by chunk, and checked."""
    images = images.detach()
    if not len(images):
        return images.clone(), torch.zeros_like(labels, dtype=torch.bool)
    with _evaluated(model):
        size = chunk or chunk_size(model, images)
        parts = [some(*part) for part in zip(images.split(size), labels.split(size), strict=True)]
    answers, stuck = (torch.cat(values) for values in zip(*parts, strict=True))
    return _checked(images, answers, epsilon), stuck


def _apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    epsilon: float,
    steps: int,
    loss_of: Callable[[Tensor], Loss],
) -> tuple[Tensor, Tensor]:
    """One chunk, and whose gradient was zero at the start. The tensors of the state have a row for each image that is
    not lost; `loss_of` gives the loss of some rows."""
    answer = start.clone()
    rows = torch.arange(len(images), device=images.device)
    logits, loss, gradient = _gradient(model, start, loss_of(rows))
    without_gradient = _stuck(gradient)
    state: dict[str, Tensor] = {
        "rows": rows,
        "image": images,
        "x": start,
        "x_before": start,
        "gradient": gradient,
        "best": start,
        "best_gradient": gradient,
        "best_loss": loss,
        # of the step before: none at first, with the authors' code, so that the first step counts as a rise above 0
        "loss": torch.zeros_like(loss),
        "step": torch.full_like(loss, 2 * epsilon),
        "rises": torch.zeros_like(loss),
        "checked_loss": loss,
        # the first checkpoint has none before it with which to compare
        "halved": torch.ones_like(rows, dtype=torch.bool),
    }
    looked = 0
    ends = set(checkpoints(steps))
    state = _still_open(state, logits, labels)
    for done in range(1, steps + 1):
        if not len(state["rows"]):
            break
        x, step = state["x"], state["step"].reshape(-1, 1, 1, 1)
        ahead = _project(x + step * state["gradient"].sign(), state["image"], epsilon)
        share = MOMENTUM if done > 1 else 1.0
        moved = _project(x + share * (ahead - x) + (1 - share) * (x - state["x_before"]), state["image"], epsilon)
        logits, loss, gradient = _gradient(model, moved, loss_of(state["rows"]))
        answer[state["rows"]] = moved
        better = loss > state["best_loss"]
        state |= {
            "x_before": x,
            "x": moved,
            "gradient": gradient,
            "rises": state["rises"] + (loss > state["loss"]),
            "loss": loss,
            "best": _where(better, moved, state["best"]),
            "best_gradient": _where(better, gradient, state["best_gradient"]),
            "best_loss": torch.where(better, loss, state["best_loss"]),
        }
        if done in ends:
            stuck = state["rises"] <= PROGRESS * (done - looked)
            halve = stuck | (~state["halved"] & (state["checked_loss"] >= state["best_loss"]))
            state |= {
                "step": torch.where(halve, state["step"] / 2, state["step"]),
                "x": _where(halve, state["best"], state["x"]),
                "gradient": _where(halve, state["best_gradient"], state["gradient"]),
                "halved": halve,
                "checked_loss": state["best_loss"],
                "rises": torch.zeros_like(state["rises"]),
            }
            looked = done
        state = _still_open(state, logits, labels)
    answer[state["rows"]] = state["best"]
    return answer, without_gradient


def _where(chosen: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Images of `left` where chosen (B,), else of `right`."""
    return torch.where(chosen.reshape(-1, 1, 1, 1), left, right)


def _still_open(state: dict[str, Tensor], logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The state of the images that still have their class."""
    kept = logits.argmax(1) == labels[state["rows"]]
    return state if bool(kept.all()) else {name: values[kept] for name, values in state.items()}
