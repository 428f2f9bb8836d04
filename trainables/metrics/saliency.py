"""Saliency maps and their quality: faithfulness, robustness, complexity (De Moor et al., Section 3.2), for any method.

The definitions are those of Quantus 0.6 (Hedström et al. 2023) with signed attributions per image and pixel, not
normalised. The measure of confidence is the logit of the label. **[reading]** The paper used Quantus 0.5.3, which by
default divides a batch's attributions by the largest magnitude among them, but for Max-Sensitivity, and the paper does
not say whether that was left on. It changes no correlation and no entropy; local Lipschitz estimates of maps that are
scaled so are in other units than ours, and need not rise and fall with them.

Notation: B images, C channels, H×W pixels, D classes, F = C·H·W features of an image. A model is any callable from
(B, C, H, W) to logits (B, D) that treats images apart, as one with BatchNorm does in evaluation mode; an explainer is
any callable from (model, images, labels) to attributions of the images' shape (`explainers.py`). Memory is bounded: at
most so many images go through the model at once as their activations fill 128 MiB, or `chunk` of them (`chunks.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.command_line import InputError
from trainables.lazily import torch
from trainables.metrics.chunks import Model, chunk_size, in_chunks
from trainables.metrics.explainers import (
    COMPLETE,
    EXPLAINERS,
    Explainer,
    completeness_gap,
    deeplift,
    explain_in_chunks,
    input_gradient,
    integrated_gradients,
)
from trainables.metrics.moment import FORWARD, INPUT_GRADIENT, Measured, Moment, derived_seed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "EXPLAINERS",
    "Entropy",
    "Explainer",
    "Faithfulness",
    "LocalLipschitz",
    "MaxSensitivity",
    "SaliencyMaps",
    "chunk_size",
    "completeness_gap",
    "deeplift",
    "entropy",
    "explain_in_chunks",
    "faithfulness_estimate",
    "input_gradient",
    "integrated_gradients",
    "local_lipschitz",
    "max_sensitivity",
    "prediction_changes",
]


# --- faithfulness -----------------------------------------------------------------------------------------------------


def prediction_changes(
    model: Model, images: Tensor, labels: Tensor, features: Tensor | None = None, *, chunk: int | None = None
) -> Tensor:
    """f_y(x) − f_y(x⁽ⁱ⁾) for each image and feature i, (B, F), x⁽ⁱ⁾ the image with x_i replaced by
    min(x) + max(x) − x_i over all its features (Section 3.2): it depends on no explanation, so one sweep serves all.

    `features` (n,) are indices into an image's flattened features, None: all; the answer is (B, n) then.
    """

    def confidence(some: Tensor, classes: Tensor) -> Tensor:
        return model(some).gather(1, classes.unsqueeze(1)).squeeze(1)

    size = chunk or chunk_size(model, images)
    flat = images.flatten(1)
    features = torch.arange(flat.shape[1], device=images.device) if features is None else features
    both_ends = flat.amin(1, keepdim=True) + flat.amax(1, keepdim=True)
    number = len(features)
    with torch.no_grad():
        plain = in_chunks(confidence, model, images, labels, chunk=size)
        perturbed = torch.empty(len(images) * number, dtype=plain.dtype, device=images.device)
        for pairs in torch.arange(len(images) * number, device=images.device).split(size):
            image, column = pairs // number, pairs % number
            batch = flat[image]
            place = torch.arange(len(pairs), device=images.device), features[column]
            batch[place] = both_ends[image, 0] - batch[place]
            perturbed[pairs] = confidence(batch.view(-1, *images.shape[1:]), labels[image])
    return plain.unsqueeze(1) - perturbed.view(len(images), number)


def faithfulness_estimate(
    model: Model,
    images: Tensor,
    labels: Tensor,
    attributions: Tensor,
    *,
    features: Tensor | None = None,
    changes: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Faithfulness Estimate (Alvarez-Melis and Jaakkola 2018; Section 3.2), (B,), in [−1, 1]: Pearson's correlation
    over an image's features between the change of its label's logit when a feature is mirrored and its attribution.
    nan where either is constant.

    `attributions` of the images' shape. `features` (n,) limits it to some features; `changes` (B, n) are the
    predictions' changes where `prediction_changes` has computed them already.

    Raises `ValueError` if the attributions' shape is not the images'.
    """
    if attributions.shape != images.shape:
        raise ValueError(f"attributions: shape {tuple(attributions.shape)}, allowed is {tuple(images.shape)}")
    if changes is None:
        changes = prediction_changes(model, images, labels, features, chunk=chunk)
    values = attributions.flatten(1)
    if features is not None:
        values = values[:, features]
    # image by image: float64 copies of a whole batch of large images would not fit
    return torch.stack([_pearson(left, right) for left, right in zip(values, changes, strict=True)])


def _pearson(left: Tensor, right: Tensor) -> Tensor:
    """Pearson's r of two vectors, float64, nan where one is constant."""

    def standard(values: Tensor) -> Tensor:
        if bool((values == values[0]).all()):
            return torch.full_like(values, math.nan, dtype=torch.float64)
        centred = values.double() - values.double().mean()
        # divided by the largest first: squares of what is left of a tiny signal would underflow
        centred = centred / centred.abs().amax()
        return centred / torch.linalg.vector_norm(centred)

    return (standard(left) * standard(right)).sum().clamp(-1, 1)


def _norms(vectors: Tensor) -> Tensor:
    """‖·‖₂ of each of a chunk of images, (B,), float64."""
    return torch.linalg.vector_norm(vectors.flatten(1).double(), dim=1)


# --- robustness -------------------------------------------------------------------------------------------------------


def local_lipschitz(
    model: Model,
    images: Tensor,
    labels: Tensor,
    explain: Explainer,
    *,
    samples: int = 200,
    std: float = 0.1,
    generator: torch.Generator | None = None,
    noise: Iterable[Tensor] | None = None,
    attributions: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Local Lipschitz estimate (Alvarez-Melis and Jaakkola 2018; Section 3.2), (B,), ≥ 0: the largest
    ‖a(x + ε) − a(x)‖₂ / ‖ε‖₂ over `samples` draws of ε ~ N(0, std²) per pixel, in units of the network's input.

    Noise comes from `generator`, or is given: `samples` tensors of the images' shape. `attributions` are a(x) where
    they are known already.
    """
    draws = noise if noise is not None else _draws(images, samples, lambda shape: _normal(shape, std, generator))

    def ratio(change: Tensor, _original: Tensor, perturbation: Tensor) -> Tensor:
        return change / (perturbation + 1e-10)  # as Quantus has it

    return _largest_change(model, images, labels, explain, draws, ratio, attributions, chunk)


def max_sensitivity(
    model: Model,
    images: Tensor,
    labels: Tensor,
    explain: Explainer,
    *,
    samples: int = 200,
    radius: float = 0.2,
    generator: torch.Generator | None = None,
    noise: Iterable[Tensor] | None = None,
    attributions: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Max-Sensitivity (Yeh et al. 2019; Section 3.2), (B,), ≥ 0: the largest ‖a(x + ε) − a(x)‖₂ / ‖a(x)‖₂ over
    `samples` draws of ε, uniform in ±`radius` per pixel, in units of the network's input. nan where a(x) is zero.

    Noise and attributions may be given as in `local_lipschitz`.
    """
    draws = noise if noise is not None else _draws(images, samples, lambda shape: _uniform(shape, radius, generator))

    def ratio(change: Tensor, original: Tensor, _perturbation: Tensor) -> Tensor:
        return torch.where(original > 0, change / original, math.nan)

    return _largest_change(model, images, labels, explain, draws, ratio, attributions, chunk)


def _normal(shape: torch.Size, std: float, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator).mul_(std)


def _uniform(shape: torch.Size, radius: float, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, generator=generator).mul_(2).sub_(1).mul_(radius)


def _draws(images: Tensor, samples: int, draw: Callable[[torch.Size], Tensor]) -> Iterator[Tensor]:
    # on the CPU, one sample of the whole batch at a time: equal generators give equal noise on any device
    for _ in range(samples):
        yield draw(images.shape).to(images)


def _largest_change(
    model: Model,
    images: Tensor,
    labels: Tensor,
    explain: Explainer,
    draws: Iterable[Tensor],
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor],
    attributions: Tensor | None,
    chunk: int | None,
) -> Tensor:
    size = chunk or chunk_size(model, images)
    if attributions is None:
        attributions = explain_in_chunks(explain, model, images, labels, size)
    original = torch.cat([_norms(part) for part in attributions.split(size)])
    largest = torch.full_like(original, -math.inf)
    drawn = False
    for noise in draws:
        drawn = True
        for part in torch.arange(len(images), device=images.device).split(size):
            perturbed = images[part] + noise[part]
            change = _norms(explain(model, perturbed, labels[part]).detach() - attributions[part])
            # the distance as the network sees it: rounded where the noise is small against the image
            distance = _norms(perturbed - images[part])
            # nan, of a model that is not finite, stays: maximum passes it on
            largest[part] = torch.maximum(largest[part], ratio(change, original[part], distance))
    if not drawn:
        raise InputError("samples: 0, allowed are whole numbers of at least 1")
    return largest.to(images.dtype)


# --- complexity -------------------------------------------------------------------------------------------------------


def entropy(attributions: Tensor) -> Tensor:
    """Entropy of |a_i| / Σ|a| (Bhatt et al. 2020; Section 3.2), (B,), nats, in [0, ln F]; nan where all are zero."""

    def of_one(values: Tensor) -> Tensor:
        sizes = values.double().abs()
        shares = sizes / sizes.sum()
        return -torch.special.xlogy(shares, shares).sum()

    return torch.stack([of_one(values) for values in attributions]).to(attributions.dtype)


# --- as metrics of a trial --------------------------------------------------------------------------------------------


def _passes(explainers: Iterable[str]) -> float:
    """Time of explaining an image by each, in units of an image's time in a training step."""
    return sum((50 if name == "integrated_gradients" else 1) * INPUT_GRADIENT for name in explainers)


@dataclass(frozen=True)
class _Saliency(ABC):
    """Measured once, after the last epoch, on a fixed batch of test images: the same for every trial."""

    images: int = 128
    """Test images, drawn by `seed`; at most as many as there are."""
    explainers: tuple[str, ...] = ("gradient", "deeplift")
    seed: int = 0
    """Of the choice of images, of pixels and of the noise."""
    per_image: bool = False
    """Record the value of every image too: `<metric>_per_image`, its level the image's index in the test split."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "explainers", tuple(dict.fromkeys(self.explainers)))
        for name in self.explainers:
            if name not in EXPLAINERS:
                raise InputError(f"explainers: {name!r}, allowed are {', '.join(EXPLAINERS)}")
        if not self.explainers:
            raise InputError(f"explainers: none, allowed are {', '.join(EXPLAINERS)}")
        for name, number in {"images": self.images, **self._counts()}.items():
            if number is not None and number < 1:
                raise InputError(f"{name}: {number}, allowed are whole numbers of at least 1")
        for name, size in self._sizes().items():
            if not (math.isfinite(size) and size > 0):
                raise InputError(f"{name}: {size}, allowed are finite numbers above 0")

    def _counts(self) -> dict[str, int | None]:
        return {}

    def _sizes(self) -> dict[str, float]:
        return {}

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, purpose))

    def measure(self, moment: Moment) -> Measured:
        if moment.split != "test":
            if moment.epoch == 0:
                self._check(moment)
            return Measured()
        return self.measure_batch(moment, *self.batch(moment))

    @abstractmethod
    def measure_batch(self, moment: Moment, indices: Tensor, images: Tensor, labels: Tensor) -> Measured:
        """What to measure on the batch: see `batch`."""

    def _check(self, moment: Moment) -> None:
        """A network that an explainer has no rules for is refused before it is trained."""
        image, label = moment.data.select("test", torch.zeros(1, dtype=torch.int64), device=moment.device)
        for name in self.explainers:
            EXPLAINERS[name](moment.model, image, label)

    def batch(self, moment: Moment) -> tuple[Tensor, Tensor, Tensor]:
        """Indices into the test split, rising, images and labels."""
        total = moment.data.count("test")
        order = torch.randperm(total, generator=self.generator("saliency images"))
        chosen = order[: self.images].sort().values
        return chosen, *moment.data.select("test", chosen, device=moment.device)

    def each(
        self, metric: str, indices: Tensor, values: Callable[[Explainer], Tensor], **columns: Any
    ) -> list[dict[str, Any]]:
        """The rows of every explainer, from the images' values under it, (B,)."""
        found = []
        for name in self.explainers:
            found += self.rows(metric, name, indices, values(EXPLAINERS[name]), **columns)
        return found

    def rows(self, metric: str, name: str, indices: Tensor, values: Tensor, **columns: Any) -> list[dict[str, Any]]:
        """Mean and deviation over the images that have a value, n of them; and each image's, on request."""
        known = values.double()[values.isfinite()]
        row = {"metric": metric, "component": name, "level": None, "unit": "", "direction": "none", **columns}
        mean = float(known.mean()) if len(known) else None
        std = float(known.std()) if len(known) > 1 else None
        found = [{**row, "value": mean, "std": std, "n": len(known)}]
        if self.per_image:
            for index, value in zip(indices.tolist(), values.tolist(), strict=True):
                single = {"metric": f"{metric}_per_image", "level": float(index), "std": None, "n": 1}
                found.append({**row, **single, "value": value if math.isfinite(value) else None})
        return found


@dataclass(frozen=True)
class Faithfulness(_Saliency):
    """Faithfulness Estimate by explainer; its level is the number of features perturbed."""

    pixels: int | None = None
    """Perturb only so many features (pixels of a channel), the same draw for every image; None: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixels is not None and self.pixels < 2:
            raise InputError(f"pixels: {self.pixels}, allowed are whole numbers of at least 2")

    def image_passes(self, features: int) -> float:
        perturbed = min(features, self.pixels or features)
        return self.images * (perturbed * FORWARD + _passes(self.explainers))

    def measure_batch(self, moment: Moment, indices: Tensor, images: Tensor, labels: Tensor) -> Measured:
        number, features = images[0].numel(), None
        if self.pixels is not None and self.pixels < number:
            order = torch.randperm(number, generator=self.generator("saliency pixels"))
            features = order[: self.pixels].sort().values.to(images.device)
            number = self.pixels
        chunk = chunk_size(moment.model, images)
        changes = prediction_changes(moment.model, images, labels, features, chunk=chunk)

        def estimates(explain: Explainer) -> Tensor:
            attributions = explain_in_chunks(explain, moment.model, images, labels, chunk)
            return faithfulness_estimate(moment.model, images, labels, attributions, features=features, changes=changes)

        return Measured({}, self.each("faithfulness", indices, estimates, level=float(number), direction="max"))


@dataclass(frozen=True)
class _UnderNoise(_Saliency):
    """Of what becomes of the saliency map when noise is added to the image."""

    samples: int = 200
    """Draws of noise for each image."""

    def _counts(self) -> dict[str, int | None]:
        return {"samples": self.samples}

    def image_passes(self, features: int) -> float:
        return self.images * (1 + self.samples) * _passes(self.explainers)


@dataclass(frozen=True)
class LocalLipschitz(_UnderNoise):
    """Local Lipschitz estimate by explainer; its level is the noise's standard deviation."""

    std: float = 0.1

    def _sizes(self) -> dict[str, float]:
        return {"std": self.std}

    def measure_batch(self, moment: Moment, indices: Tensor, images: Tensor, labels: Tensor) -> Measured:
        def largest(explain: Explainer) -> Tensor:
            options: Any = {"samples": self.samples, "generator": self.generator("local lipschitz")}
            return local_lipschitz(moment.model, images, labels, explain, std=self.std, **options)

        return Measured({}, self.each("local_lipschitz", indices, largest, level=self.std, direction="min"))


@dataclass(frozen=True)
class MaxSensitivity(_UnderNoise):
    """Max-Sensitivity by explainer; its level is the noise's radius."""

    radius: float = 0.2

    def _sizes(self) -> dict[str, float]:
        return {"radius": self.radius}

    def measure_batch(self, moment: Moment, indices: Tensor, images: Tensor, labels: Tensor) -> Measured:
        def largest(explain: Explainer) -> Tensor:
            options: Any = {"samples": self.samples, "generator": self.generator("max sensitivity")}
            return max_sensitivity(moment.model, images, labels, explain, radius=self.radius, **options)

        return Measured({}, self.each("max_sensitivity", indices, largest, level=self.radius, direction="min"))


@dataclass(frozen=True)
class Entropy(_Saliency):
    """Entropy of the saliency map by explainer, in nats."""

    def measure_batch(self, moment: Moment, indices: Tensor, images: Tensor, labels: Tensor) -> Measured:
        def entropies(explain: Explainer) -> Tensor:
            return entropy(explain_in_chunks(explain, moment.model, images, labels))

        return Measured({}, self.each("entropy", indices, entropies, unit="nat", direction="min"))


@dataclass(frozen=True)
class SaliencyMaps(_Saliency):
    """The measurement `completeness_gap` of the explainers that have one, by explainer: the mean over the images. Maps:
    the mean over the images of |a| (`saliency_mean/<explainer>`), and for the first images of the batch the
    attributions (`saliency/<explainer>/<index in the test split>`), the image (`image/<index>`) and its class, 1 × 1
    (`label/<index>`); a over channels is summed, |a| and the image are averaged over them."""

    panels: int = 4

    def _counts(self) -> dict[str, int | None]:
        return {"panels": self.panels}

    @staticmethod
    def is_detail(metric: str, component: str) -> bool:
        """Whether a row is left out of a sweep's summary: it says how good the maps are, not the network."""
        return metric == "completeness_gap"

    def measure_batch(self, moment: Moment, indices: Tensor, images: Tensor, labels: Tensor) -> Measured:
        shown = list(enumerate(indices[: self.panels].tolist()))
        maps = {f"image/{index}": images[row].mean(0) for row, index in shown}
        maps |= {f"label/{index}": labels[row].float().reshape(1, 1) for row, index in shown}
        rows: list[dict[str, Any]] = []
        for name in self.explainers:
            attributions = explain_in_chunks(EXPLAINERS[name], moment.model, images, labels)
            maps[f"saliency_mean/{name}"] = attributions.abs().mean((0, 1))
            maps |= {f"saliency/{name}/{index}": attributions[row].sum(0) for row, index in shown}
            if name in COMPLETE:
                gaps = completeness_gap(moment.model, images, labels, attributions)
                rows += self.rows("completeness_gap", name, indices, gaps)
        return Measured({}, rows, maps)
