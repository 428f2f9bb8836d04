"""Adversarial attacks in the ℓ∞ ball, and robust accuracy, for any method (Top-GAP's paper, Sections 4.3 and E.1).

FGSM (Goodfellow et al. 2015), PGD (Madry et al. 2018), APGD on the cross-entropy (Croce and Hein 2020) and Square
(Andriushchenko et al. 2020), untargeted. Images are in their own [0, 1], ε in the same unit; the normalisation belongs
inside the model (`PixelModel`). An attacked image lies in the ε-ball around its own and in [0, 1], which is checked of
every one that is given back.

Notation: B images, C channels, H×W pixels, D classes. A model is any callable from (B, C, H, W) to logits (B, D) that
treats images apart; an `nn.Module` is attacked in evaluation mode and left as it was. Nothing is drawn but from the
generator (None: torch's own). Memory is bounded (`chunks.py`): so many images go through the model at once as their
activations fill 128 MiB, or `chunk` of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.command_line import InputError
from trainables.lazily import F, nn, torch
from trainables.method import evaluation_mode
from trainables.metrics.chunks import Model, chunk_size, in_chunks
from trainables.metrics.moment import EVALUATION_BATCH, FORWARD, INPUT_GRADIENT, Measured, Moment, derived_seed

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.models.pixels import PixelModel

# --- what the attacks share -------------------------------------------------------------------------------------------


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


def _gradient(model: Model, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, D), cross-entropy (B,), and the gradient of each image's with respect to it (B, C, H, W)."""
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        logits = model(inputs)
        loss = F.cross_entropy(logits, labels, reduction="none")
        # of the sum: that of a mean would round, and underflow, by the number of images beside it
        (gradient,) = torch.autograd.grad(loss.sum(), inputs)
    return logits.detach(), loss.detach(), gradient


def _uniform(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform in [−1, 1), of the images' shape: drawn on the generator's device and in float32, so that equal
    generators give equal draws on any device and in any precision."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.rand(images.shape, generator=generator, device=device).mul_(2).sub_(1).to(images)


def predictions(model: Model, images: Tensor, *, chunk: int | None = None) -> Tensor:
    """The predicted classes (B,) of images in [0, 1]; the first of equal logits."""
    with torch.no_grad(), _evaluated(model):
        return in_chunks(lambda part: model(part).argmax(1), model, images, chunk=chunk)


# --- FGSM and PGD -----------------------------------------------------------------------------------------------------


def fgsm(model: Model, images: Tensor, labels: Tensor, *, epsilon: float, chunk: int | None = None) -> Tensor:
    """One step of ε along the sign of the cross-entropy's gradient (Goodfellow et al. 2015, Section 4); adversarial
    images in [0, 1], (B, C, H, W).

    Raises `ValueError` for an ε that is no size, or images that are not in [0, 1].
    """
    return pgd(model, images, labels, epsilon=epsilon, steps=1, step_size=epsilon, random_start=False, chunk=chunk)


def pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float | None = None,
    random_start: bool = True,
    generator: torch.Generator | None = None,
    skip_lost: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018, Section 2.1): `steps` steps of `step_size` along the sign of the
    cross-entropy's gradient, each projected onto the ε-ball and [0, 1]; adversarial images in [0, 1], (B, C, H, W).

    It starts at the image, or with `random_start` at a point drawn uniformly from the ball. `labels` (B,) are the
    classes to leave. With `skip_lost` an image is left alone once it has another class: it costs nothing more, and
    cannot wander back, so that what counts is the worst of the iterates and not the last.

    **[reading]** The step is ε/4 unless given: Top-GAP's paper has none. Its library, Foolbox, steps by ε/30 by
    default, with which 20 steps cover two thirds of the way from the image to the ball's faces.

    Raises `ValueError` for an ε or a step that is no size, no steps, or images that are not in [0, 1].
    """
    _check(images, epsilon, steps=steps)
    step = epsilon / 4 if step_size is None else step_size
    if not (math.isfinite(step) and step >= 0):
        raise InputError(f"step_size: {step}, allowed are finite numbers of at least 0")
    start = _somewhere(images, epsilon, generator) if random_start else images
    return _pgd(model, images, labels, start, epsilon, steps, step, skip_lost, chunk)[0]


def _somewhere(images: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """Points drawn uniformly from the images' ε-balls, projected onto [0, 1]."""
    return _project(images + epsilon * _uniform(images, generator), images, epsilon)


def _pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    epsilon: float,
    steps: int,
    step: float,
    skip_lost: bool,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Adversarial images, and the number of steps after which each was first seen with another class, (B,); `steps` is
    said of those that were not, whether they are lost after the last step or not at all."""
    adversarial = start.detach().clone()
    lost_after = torch.full_like(labels, steps)
    if not len(images):
        return adversarial, lost_after
    with _evaluated(model):
        for part in torch.arange(len(images), device=images.device).split(chunk or chunk_size(model, images)):
            rows = part
            for done in range(steps):
                current = adversarial[rows]
                logits, _, gradient = _gradient(model, current, labels[rows])
                if skip_lost:
                    kept = logits.argmax(1) == labels[rows]
                    lost_after[rows[~kept]] = done
                    rows, current, gradient = rows[kept], current[kept], gradient[kept]
                    if not len(rows):
                        break
                adversarial[rows] = _project(current + step * gradient.sign(), images[rows].detach(), epsilon)
    return _checked(images, adversarial, epsilon), lost_after


# --- APGD -------------------------------------------------------------------------------------------------------------

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


def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Auto-PGD on the cross-entropy (Croce and Hein 2020, Algorithm 1), one run; adversarial images in [0, 1],
    (B, C, H, W): the first with another class, or of those that keep theirs the one of the highest loss.

    Steps begin at 2ε, with momentum 0.75. At each checkpoint an image's step is halved, and it goes back to its best
    point, if the loss rose in at most 75% of the steps since the one before, or if neither step nor best loss has
    changed since. **[reading]** As in their code, "at most" where the paper says "fewer", and the first step counts as
    one in which the loss rose. It starts from a uniform draw, stretched to the ball's faces, as there. An image that is
    lost is left alone.

    Raises `ValueError` for an ε that is no size, no steps, or images that are not in [0, 1].
    """
    _check(images, epsilon, steps=steps)
    if not len(images):
        return images.clone()

    def some(part: Tensor, classes: Tensor) -> Tensor:
        noise = _uniform(part, generator)
        start = (part + epsilon * noise / noise.abs().amax((1, 2, 3), keepdim=True)).clamp(0, 1)
        return _apgd(model, part, classes, start, epsilon, steps)

    with _evaluated(model):
        return _checked(images, in_chunks(some, model, images.detach(), labels, chunk=chunk), epsilon)


def _apgd(model: Model, images: Tensor, labels: Tensor, start: Tensor, epsilon: float, steps: int) -> Tensor:
    """One chunk. The tensors of the state have a row for each image that is not lost."""
    answer = start.clone()
    logits, loss, gradient = _gradient(model, start, labels)
    rows = torch.arange(len(images), device=images.device)
    state: dict[str, Tensor] = {
        "rows": rows,
        "image": images,
        "x": start,
        "x_before": start,
        "gradient": gradient,
        "best": start,
        "best_gradient": gradient,
        "best_loss": loss,
        # of the step before: none at first, with the authors' code, so that the first step counts as a rise
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
        logits, loss, gradient = _gradient(model, moved, labels[state["rows"]])
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
    return answer


def _where(chosen: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Images of `left` where chosen (B,), else of `right`."""
    return torch.where(chosen.reshape(-1, 1, 1, 1), left, right)


def _still_open(state: dict[str, Tensor], logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The state of the images that still have their class."""
    kept = logits.argmax(1) == labels[state["rows"]]
    return state if bool(kept.all()) else {name: values[kept] for name, values in state.items()}


# --- Square -----------------------------------------------------------------------------------------------------------


class SquareDraws:
    """What `square_attack` draws: for each image of its own, whether it is lost or not."""

    def __init__(self, images: Tensor, generator: torch.Generator | None) -> None:
        self.images, self.generator = images, generator
        self.device = generator.device if generator is not None else torch.device("cpu")

    def _below(self, number: int, *shape: int) -> Tensor:
        draw = torch.randint(number, shape, generator=self.generator, device=self.device)
        return draw.to(self.images.device)

    def stripes(self) -> Tensor:
        """±1 for each column and channel, (B, C, 1, W)."""
        number, channels, _, width = self.images.shape
        return self._below(2, number, channels, 1, width).mul(2).sub(1).to(self.images.dtype)

    def square(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Upper row and left column (B,), uniform over all places, and ±1 for each channel (B, C)."""
        number, channels, height, width = self.images.shape
        rows, columns = self._below(height - side + 1, number), self._below(width - side + 1, number)
        return rows, columns, self._below(2, number, channels).mul(2).sub(1).to(self.images.dtype)


def square_share(query: int, queries: int, share: float = 0.8) -> float:
    """Share of the image's area that the square of a query (counted from 0) covers: `share`, halved after 10, 50, 200,
    500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries (Andriushchenko et al. 2020, Section 4.1), here rescaled to
    `queries`."""
    of_ten_thousand = int(query / queries * 10_000)
    halvings = sum(of_ten_thousand > after for after in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    return share / 2**halvings


def square_attack(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    queries: int = 5000,
    share: float = 0.8,
    generator: torch.Generator | None = None,
    draws: SquareDraws | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Square Attack in the ℓ∞ ball (Andriushchenko et al. 2020, Algorithms 1 and 2); adversarial images in [0, 1],
    (B, C, H, W). It asks for logits alone, no gradient, so that masking gradients does not help against it.

    It starts with vertical stripes of ±ε. Each query sets a square, at a place and with a sign per channel that are
    drawn, to ±ε, and is kept where the margin f_y − max f_k falls; an image that is lost is left alone. `queries` are
    those after the start; `share` of the area is the first square's. `draws` may be given instead of a generator.

    Raises `ValueError` for an ε that is no size, no queries, or images that are not in [0, 1].
    """
    _check(images, epsilon, queries=queries)
    if not len(images):
        return images.clone()
    images = images.detach()
    draws = draws or SquareDraws(images, generator)
    height, width = images.shape[2:]
    down, right = (torch.arange(number, device=images.device) for number in (height, width))
    with torch.no_grad(), _evaluated(model):
        size = chunk or chunk_size(model, images)

        def margins(candidates: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
            """f_y − max f_k over k ≠ y, and whether the class is kept."""
            logits = torch.cat([model(part) for part in candidates.split(size)])
            own = logits.gather(1, classes.unsqueeze(1))
            others = logits.scatter(1, classes.unsqueeze(1), -math.inf).amax(1)
            return own.squeeze(1) - others, logits.argmax(1) == classes

        best = _project(images + epsilon * draws.stripes(), images, epsilon)
        margin, kept = margins(best, labels)
        for query in range(queries):
            rows = kept.nonzero().squeeze(1)
            if not len(rows):
                break
            area = square_share(query, queries, share) * height * width
            side = min(max(round(math.sqrt(area)), 1), height, width)
            top, left, signs = (drawn[rows] for drawn in draws.square(side))
            vertical = (down >= top.unsqueeze(1)) & (down < top.unsqueeze(1) + side)
            horizontal = (right >= left.unsqueeze(1)) & (right < left.unsqueeze(1) + side)
            window = vertical.reshape(-1, 1, height, 1) & horizontal.reshape(-1, 1, 1, width)
            change = 2 * epsilon * signs.reshape(*signs.shape, 1, 1) * window
            candidates = _project(best[rows] + change, images[rows], epsilon)
            value, still = margins(candidates, labels[rows])
            better = (value < margin[rows]) | ~still
            taken = rows[better]
            best[taken], margin[taken], kept[taken] = candidates[better], value[better], still[better]
    return _checked(images, best, epsilon)


# --- as a metric of a trial -------------------------------------------------------------------------------------------

ATTACKS = ("fgsm", "pgd", "square", "apgd")


def fraction(name: str, text: str) -> float:
    """A number written as one, or as a fraction such as 8/255. Raises `InputError` if it is neither, or below 0."""
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name}: {text!r}, allowed are numbers of at least 0 such as 0.03 or 8/255")
    return value


_OF_EPSILON = re.compile(r"(?:eps|ε)/(.+)")


@dataclass(frozen=True)
class Attacks:
    """Robust accuracy on the first test images after training: `robust_accuracy`, the share whose predicted class does
    not change under attack (Top-GAP's paper, Section 4.3), and `robust_accuracy_correct`, the share that is also
    classified rightly. The component is the attack with its steps (`pgd20`), the level is ε.

    **[reading]** What is attacked is the predicted class, not the label: that is what shall change. For an image that
    is classified rightly it is the same, and one that is not is lost to the second accuracy without any attack, so that
    one attack serves both. PGD of several numbers of steps is one run of the most, looked at after each number: a
    shorter run is its beginning, and robust accuracy cannot rise with the steps.
    """

    attacks: tuple[str, ...] = ("fgsm", "pgd")
    epsilon: tuple[str, ...] = ("8/255",)
    """Radii in the image's own [0, 1], numbers or fractions."""
    steps: tuple[int, ...] = (20, 50)
    """Of PGD and APGD."""
    step_size: str = "eps/4"
    """Of PGD: in the image's own [0, 1], or a part of ε, such as eps/4 (Foolbox's default is eps/30)."""
    restarts: int = 1
    """Runs of PGD, APGD and Square, each on the images that the ones before have not changed."""
    queries: int = 5000
    """Of Square."""
    images: int = 500
    """The first so many test images in their fixed order; at most as many as there are."""
    seed: int = 0
    """Of the random starts and squares, the same for every trial."""

    def __post_init__(self) -> None:
        for name in ("attacks", "epsilon", "steps"):
            values = tuple(dict.fromkeys(getattr(self, name)))
            object.__setattr__(self, name, values)
            if not values:
                raise InputError(f"{name}: none, allowed is at least one")
        for attack in self.attacks:
            if attack not in ATTACKS:
                raise InputError(f"attacks: {attack!r}, allowed are {', '.join(ATTACKS)}")
        for text in self.epsilon:
            if fraction("epsilon", text) > 1:
                raise InputError(f"epsilon: {text!r}, allowed are numbers and fractions in [0, 1]")
        self.step(1.0)
        counts = {"restarts": self.restarts, "queries": self.queries, "images": self.images}
        for name, number in [*(("steps", steps) for steps in self.steps), *counts.items()]:
            if number < 1:
                raise InputError(f"{name}: {number}, allowed are whole numbers of at least 1")

    def step(self, epsilon: float) -> float:
        """The step of PGD at this ε."""
        part = _OF_EPSILON.fullmatch(self.step_size)
        size = fraction("step_size", part[1] if part else self.step_size)
        if size == 0:
            raise InputError(f"step_size: {self.step_size!r}, allowed are numbers above 0, fractions, and eps/4")
        return epsilon / size if part else size

    def image_passes(self, features: int) -> float:
        """At most: an image that is lost costs nothing more."""
        gradients = {"fgsm": 1, "pgd": self.restarts * max(self.steps), "square": 0}
        gradients["apgd"] = self.restarts * sum(steps + 1 for steps in self.steps)
        each = sum(gradients[name] * INPUT_GRADIENT + FORWARD for name in self.attacks)
        each += self.restarts * self.queries * FORWARD * ("square" in self.attacks)
        return self.images * (FORWARD + len(self.epsilon) * each)

    def measure(self, moment: Moment) -> Measured:
        if moment.split != "test":
            return Measured()
        from trainables.models.pixels import PixelModel

        model = PixelModel(moment.model, moment.data)
        settings = [(attack, text) for attack in self.attacks for text in self.epsilon]
        unchanged: dict[tuple[str, float], int] = {}
        correct: dict[tuple[str, float], int] = {}
        images = 0
        batches = moment.data.batches("test", EVALUATION_BATCH, device=moment.device, limit=self.images)
        for number, (inputs, labels) in enumerate(batches):
            pixels = model.pixels(inputs)
            predicted = predictions(model, pixels)
            images += len(labels)
            for attack, text in settings:
                epsilon = fraction("epsilon", text)
                for component, kept in self._kept(attack, model, pixels, predicted, epsilon, number).items():
                    key = component, epsilon
                    unchanged[key] = unchanged.get(key, 0) + int(kept.sum())
                    correct[key] = correct.get(key, 0) + int((kept & (predicted == labels)).sum())
        rows = []
        for metric, counts in (("robust_accuracy", unchanged), ("robust_accuracy_correct", correct)):
            shared = {"metric": metric, "std": None, "n": images, "unit": "fraction", "direction": "max"}
            rows += [
                {**shared, "component": component, "level": epsilon, "value": count / images}
                for (component, epsilon), count in counts.items()
            ]
        return Measured({}, rows)

    def _kept(
        self, attack: str, model: PixelModel, images: Tensor, classes: Tensor, epsilon: float, batch: int
    ) -> dict[str, Tensor]:
        """Which images keep their class, (B,), by component."""

        def run(function: Callable[..., Tensor], **options: int) -> Tensor:
            kept = torch.ones_like(classes, dtype=torch.bool)
            for restart, rows in self._restarts(lambda: kept):
                generator = self._generator(attack, restart, batch)
                adversarial = function(
                    model, images[rows], classes[rows], epsilon=epsilon, generator=generator, **options
                )
                kept[rows] = predictions(model, adversarial) == classes[rows]
            return kept

        if attack == "fgsm":
            return {attack: predictions(model, fgsm(model, images, classes, epsilon=epsilon)) == classes}
        if attack == "square":
            return {attack: run(square_attack, queries=self.queries)}
        if attack == "apgd":
            return {f"{attack}{steps}": run(apgd, steps=steps) for steps in self.steps}
        lost_after = self._lost_after(model, images, classes, epsilon, batch)
        return {f"{attack}{steps}": lost_after > steps for steps in self.steps}

    def _lost_after(self, model: PixelModel, images: Tensor, classes: Tensor, epsilon: float, batch: int) -> Tensor:
        """The fewest steps of PGD after which an image was lost in any run, (B,); one more than the most if never."""
        most = max(self.steps)
        lost_after = torch.full_like(classes, most + 1)
        # one that is lost after more than the fewest steps may be lost after fewer in another run
        for restart, rows in self._restarts(lambda: lost_after > min(self.steps)):
            generator = self._generator("pgd", restart, batch)
            # drawn for all, so that an image's start does not depend on which others are left
            start = _somewhere(images, epsilon, generator)[rows]
            step = self.step(epsilon)
            adversarial, steps = _pgd(model, images[rows], classes[rows], start, epsilon, most, step, True)
            changed = predictions(model, adversarial) != classes[rows]
            lost_after[rows] = torch.where(changed, torch.minimum(steps, lost_after[rows]), lost_after[rows])
        return lost_after

    def _restarts(self, still: Callable[[], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Each run's number and the images it is for, as long as there are any."""
        for restart in range(self.restarts):
            rows = still().nonzero().squeeze(1)
            if not len(rows):
                return
            yield restart, rows

    def _generator(self, attack: str, restart: int, batch: int) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, "attack", attack, restart, batch))
