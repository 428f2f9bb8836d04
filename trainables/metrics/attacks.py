"""Adversarial attacks in the ℓ∞ ball, and robust accuracy, for any method (Top-GAP's paper, Sections 4.3 and E.1).

FGSM (Goodfellow et al. 2015), PGD (Madry et al. 2018), APGD (Croce and Hein 2020, `apgd.py`) on the cross-entropy, on
the DLR loss and on its targeted form, and Square (Andriushchenko et al. 2020). The cross-entropy of a network that is
very sure has no gradient in float32: attacks that follow it stay where they are, DLR and Square are not deceived.

Images are in their own [0, 1], ε in the same unit; the normalisation belongs inside the model (`PixelModel`). An
attacked image lies in the ε-ball around its own and in [0, 1], which is checked of every one that is given back. Logits
that are no numbers are refused: what is predicted from them neither changes nor stays.

Notation: B images, C channels, H×W pixels, D classes. A model is any callable from (B, C, H, W) to logits (B, D) that
treats images apart; an `nn.Module` is attacked in evaluation mode and left as it was. Nothing is drawn but from the
generator (None: torch's own). Memory is bounded (`chunks.py`): so many images go through the model at once as their
activations fill 128 MiB, or `chunk` of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.command_line import InputError
from trainables.lazily import torch
from trainables.metrics.apgd import TARGETS, apgd, apgd_run, apgd_targeted, apgd_targeted_run, checkpoints
from trainables.metrics.ball import (
    _check,
    _checked,
    _evaluated,
    _gradient,
    _numbers,
    _project,
    _stuck,
    _uniform,
    cross_entropy,
    in_ball,
    predictions,
)
from trainables.metrics.chunks import Model, chunk_size
from trainables.metrics.moment import EVALUATION_BATCH, FORWARD, INPUT_GRADIENT, Measured, Moment, derived_seed

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.models.pixels import PixelModel

__all__ = [
    "ATTACKS",
    "Attacks",
    "SquareDraws",
    "apgd",
    "apgd_targeted",
    "checkpoints",
    "fgsm",
    "fraction",
    "in_ball",
    "pgd",
    "predictions",
    "square_attack",
    "square_share",
]


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Adversarial images, the number of steps after which each was first seen with another class, (B,), and whose
    gradient was zero at the start; `steps` is said of those that were not, whether they are lost after the last step or
    not at all."""
    adversarial = start.detach().clone()
    lost_after = torch.full_like(labels, steps)
    stuck = torch.zeros_like(labels, dtype=torch.bool)
    if not len(images):
        return adversarial, lost_after, stuck
    with _evaluated(model):
        for part in torch.arange(len(images), device=images.device).split(chunk or chunk_size(model, images)):
            rows = part
            for done in range(steps):
                current = adversarial[rows]
                logits, _, gradient = _gradient(model, current, cross_entropy(labels[rows]))
                if done == 0:
                    stuck[rows] = _stuck(gradient)
                if skip_lost:
                    kept = logits.argmax(1) == labels[rows]
                    lost_after[rows[~kept]] = done
                    rows, current, gradient = rows[kept], current[kept], gradient[kept]
                    if not len(rows):
                        break
                adversarial[rows] = _project(current + step * gradient.sign(), images[rows].detach(), epsilon)
    return _checked(images, adversarial, epsilon), lost_after, stuck


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
            logits = torch.cat([_numbers(model(part)) for part in candidates.split(size)])
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

ATTACKS = ("fgsm", "pgd", "square", "apgd", "apgd-dlr", "apgd-t")


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
    classified rightly; and of attacks that follow gradients `zero_gradient_share`, the share whose gradient was exactly
    zero where the attack began, in every run: they were not attacked. The component is the attack with its steps
    (`pgd20`) or queries (`square5000`), the level is ε.

    **[reading]** What is attacked is the predicted class, not the label: that is what shall change. For an image that
    is classified rightly it is the same, and one that is not is lost to the second accuracy without any attack, so that
    one attack serves both. PGD of several numbers of steps is one run of the most, looked at after each number: a
    shorter run is its beginning, and robust accuracy cannot rise with the steps.
    """

    attacks: tuple[str, ...] = ("fgsm", "pgd")
    epsilon: tuple[str, ...] = ("8/255",)
    """Radii in the image's own [0, 1], numbers or fractions."""
    steps: tuple[int, ...] = (20, 50)
    """Of PGD and APGD, on any loss."""
    step_size: str = "eps/4"
    """Of PGD: in the image's own [0, 1], or a part of ε, such as eps/4 (Foolbox's default is eps/30)."""
    restarts: int = 1
    """Runs of PGD, APGD (the targeted one for each class) and Square, each on the images that the ones before have not
    changed."""
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
        gradients["apgd"] = gradients["apgd-dlr"] = self.restarts * sum(steps + 1 for steps in self.steps)
        gradients["apgd-t"] = TARGETS * gradients["apgd"]
        each = sum(gradients[name] * INPUT_GRADIENT + FORWARD for name in self.attacks)
        each += self.restarts * self.queries * FORWARD * ("square" in self.attacks)
        return self.images * (FORWARD + len(self.epsilon) * each)

    def measure(self, moment: Moment) -> Measured:
        if moment.split != "test":
            if moment.epoch == 0:
                self._check_classes(moment.data.classes)
            return Measured()
        from trainables.models.pixels import PixelModel

        model = PixelModel(moment.model, moment.data)
        counts: dict[tuple[str, str, float], int] = {}
        images = 0
        batches = moment.data.batches("test", EVALUATION_BATCH, device=moment.device, limit=self.images)
        for number, (inputs, labels) in enumerate(batches):
            pixels = model.pixels(inputs)
            predicted = predictions(model, pixels)
            images += len(labels)
            for attack, text in ((attack, text) for attack in self.attacks for text in self.epsilon):
                epsilon = fraction("epsilon", text)
                for component, (kept, stuck) in self._attacked(
                    attack, model, pixels, predicted, epsilon, number
                ).items():
                    found = {"robust_accuracy": kept, "robust_accuracy_correct": kept & (predicted == labels)}
                    if stuck is not None:
                        found["zero_gradient_share"] = stuck
                    for metric, those in found.items():
                        key = metric, component, epsilon
                        counts[key] = counts.get(key, 0) + int(those.sum())
        ways = {"robust_accuracy": "max", "robust_accuracy_correct": "max", "zero_gradient_share": "none"}
        rows = [
            {
                "metric": metric,
                "component": component,
                "level": epsilon,
                "value": count / images,
                "std": None,
                "n": images,
                "unit": "fraction",
                "direction": ways[metric],
            }
            for metric in ways
            for (of, component, epsilon), count in counts.items()
            if of == metric
        ]
        return Measured({}, rows)

    def _check_classes(self, classes: int) -> None:
        """What too few classes have no loss for is refused before anything is trained."""
        for attack, least in (("apgd-dlr", 3), ("apgd-t", 4)):
            if attack in self.attacks and classes < least:
                raise InputError(f"attacks: {attack} with {classes} classes, allowed are {least} and more")

    def _attacked(
        self, attack: str, model: PixelModel, images: Tensor, classes: Tensor, epsilon: float, batch: int
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Which images keep their class, (B,), and whose gradient was zero, by component."""

        def run(function: Callable[..., tuple[Tensor, Tensor | None]], **options: Any) -> tuple[Tensor, Tensor | None]:
            kept = torch.ones_like(classes, dtype=torch.bool)
            stuck: Tensor | None = torch.ones_like(kept)
            for restart, rows in self._restarts(lambda: kept):
                generator = self._generator(attack, restart, batch)
                adversarial, still = function(
                    model, images[rows], classes[rows], epsilon=epsilon, generator=generator, **options
                )
                kept[rows] = predictions(model, adversarial) == classes[rows]
                if still is None or stuck is None:
                    stuck = None
                else:
                    stuck[rows] &= still
            return kept, stuck

        def square(*arguments: Any, **options: Any) -> tuple[Tensor, None]:
            return square_attack(*arguments, **options), None

        if attack == "fgsm":
            adversarial, _, stuck = _pgd(model, images, classes, images, epsilon, 1, epsilon, False)
            return {attack: (predictions(model, adversarial) == classes, stuck)}
        if attack == "square":
            return {f"{attack}{self.queries}": run(square, queries=self.queries)}
        if attack == "apgd-t":
            return {f"{attack}{steps}": run(apgd_targeted_run, steps=steps) for steps in self.steps}
        if attack != "pgd":
            loss = "dlr" if attack == "apgd-dlr" else "ce"
            return {f"{attack}{steps}": run(apgd_run, steps=steps, loss=loss) for steps in self.steps}
        lost_after, stuck = self._lost_after(model, images, classes, epsilon, batch)
        return {f"{attack}{steps}": (lost_after > steps, stuck) for steps in self.steps}

    def _lost_after(
        self, model: PixelModel, images: Tensor, classes: Tensor, epsilon: float, batch: int
    ) -> tuple[Tensor, Tensor]:
        """The fewest steps of PGD after which an image was lost in any run, (B,), one more than the most if never; and
        whose gradient was zero where every run began."""
        most = max(self.steps)
        lost_after = torch.full_like(classes, most + 1)
        stuck = torch.ones_like(classes, dtype=torch.bool)
        # one that is lost after more than the fewest steps may be lost after fewer in another run
        for restart, rows in self._restarts(lambda: lost_after > min(self.steps)):
            generator = self._generator("pgd", restart, batch)
            # drawn for all, so that an image's start does not depend on which others are left
            start = _somewhere(images, epsilon, generator)[rows]
            step = self.step(epsilon)
            adversarial, steps, still = _pgd(model, images[rows], classes[rows], start, epsilon, most, step, True)
            stuck[rows] &= still
            changed = predictions(model, adversarial) != classes[rows]
            lost_after[rows] = torch.where(changed, torch.minimum(steps, lost_after[rows]), lost_after[rows])
        return lost_after, stuck

    def _restarts(self, still: Callable[[], Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Each run's number and the images it is for, as long as there are any."""
        for restart in range(self.restarts):
            rows = still().nonzero().squeeze(1)
            if not len(rows):
                return
            yield restart, rows

    def _generator(self, attack: str, restart: int, batch: int) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, "attack", attack, restart, batch))
