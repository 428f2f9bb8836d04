"""The metrics' options as flags, the same for a sweep and for measuring afterwards."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from analysis.bounds import SEED, Bound, at_least
from analysis.command_line import InputError
from trainables.checkpoints import EPOCHS, MOST_EPOCHS
from trainables.data import identify
from trainables.metrics import METRICS
from trainables.metrics.landscape import Expectation


def separated(values: Iterable[str]) -> list[str]:
    """Values that were separated by commas or spaces, each once."""
    return list(dict.fromkeys(name for text in values for name in text.split(",") if name))


# of a large folder it reads every file
_identified = functools.cache(identify)

_SALIENCY = {"images": "saliency_images", "explainers": "explainers", "seed": "saliency_seed"}
_VALUED = {**_SALIENCY, "per_image": "saliency_per_image"}

FLAGS: dict[str, dict[str, str]] = {
    "landscape": {"expectation": "landscape", "images": "landscape_images", "maps_at": "maps_at"},
    "paths": {"initialisations": "initialisations"},
    "faithfulness": {**_VALUED, "pixels": "saliency_pixels"},
    "local_lipschitz": {**_VALUED, "samples": "saliency_samples"},
    "max_sensitivity": {**_VALUED, "samples": "saliency_samples"},
    "entropy": _VALUED,
    "saliency_maps": {**_SALIENCY, "panels": "saliency_panels"},
    "attacks": {
        "attacks": "attacks",
        "epsilon": "epsilon",
        "steps": "attack_steps",
        "step_size": "step_size",
        "restarts": "attack_restarts",
        "queries": "attack_queries",
        "images": "attack_images",
        "seed": "attack_seed",
    },
    "erf": {"images": "erf_images"},
    "iou": {"images": "iou_images"},
    "shift": {"sets": "shift"},
    "deformation_sensitivity": {
        "images": "deformation_images",
        "grid": "deformation_grid",
        "max_displacement": "deformation_max",
        "seed": "deformation_seed",
        "every": "measure_every",
    },
    "filter_smoothness": {"every": "measure_every"},
    "cam": {"images": "cam_images", "panels": "cam_panels"},
}
"""By metric, the field of `MetricFlags` that each of its options comes from."""


@dataclass(frozen=True)
class MetricFlags:
    """Options of what is measured."""

    landscape: Expectation = "sampled"
    """Importance landscape of a split: one sampled class per image, or the exact expectation over classes."""
    landscape_images: int | None = None
    """Measure the landscape on the first so many images of the split; default: all."""
    maps_at: tuple[int, ...] = ()
    """Epochs after which to keep the landscape's map, besides initialisation and the end; default: none."""
    initialisations: int = 10
    """Number of initialisations averaged in the comparison with path counts (epoch 0)."""
    explainers: tuple[str, ...] = ("gradient", "deeplift")
    """Saliency maps to measure: gradient, deeplift, integrated_gradients."""
    saliency_images: int = 128
    """Saliency is measured on so many test images (all, if there are fewer), the same for every trial."""
    saliency_seed: int = 0
    """Decides which images and pixels, and the noise."""
    saliency_pixels: int | None = None
    """Faithfulness perturbs so many features of an image (pixels of a channel), one at a time; default: all."""
    saliency_samples: int = 200
    """Draws of noise an image for local_lipschitz and max_sensitivity."""
    saliency_per_image: bool = False
    """Record every image's value besides mean and deviation."""
    saliency_panels: int = 4
    """Number of images whose saliency maps are kept."""
    attacks: tuple[str, ...] = ("fgsm", "pgd")
    """Attacks to measure robust accuracy under: fgsm, pgd, square, apgd, apgd-dlr (DLR loss), apgd-t (targeted)."""
    epsilon: tuple[str, ...] = ("8/255",)
    """Radii of the attacks' ℓ∞ ball in pixels of [0, 1], numbers or fractions."""
    attack_steps: tuple[int, ...] = (20, 50)
    """Steps of PGD and APGD, each number a measurement."""
    step_size: str = "eps/4"
    """Step of PGD in pixels of [0, 1], or as a part of ε: eps/4, or eps/30, which is Foolbox's default."""
    attack_restarts: int = 1
    """Runs of PGD, APGD and Square; what counts is the worst."""
    attack_queries: int = 5000
    """Queries of Square an image and run."""
    attack_images: int = 500
    """The first so many test images are attacked (all, if there are fewer)."""
    attack_seed: int = 0
    """Decides random starts and squares, the same for every trial."""
    erf_images: int = 128
    """Receptive fields are measured on the first so many test images (all, if there are fewer)."""
    cam_images: int = 1000
    """Class activation maps are measured on the first so many test images (all, if there are fewer)."""
    cam_panels: int = 4
    """Number of images whose class activation maps are kept, each of another class."""
    iou_images: int = 1000
    """The overlap with masks is measured on the first so many test images (all, if there are fewer)."""
    deformation_images: int = 128
    """Sensitivity to deformation is measured on the first so many test images (all, if there are fewer), the same at
    every moment."""
    deformation_grid: int | None = None
    """Control points a side of a deformation; default: 3 for images of up to 64 pixels, 5 for larger ones."""
    deformation_max: float | None = None
    """Pixels that a control point moves at most in each direction; default: 2 of 32, of large images 10 of 224."""
    deformation_seed: int = 0
    """Decides the deformations, the same for every trial."""
    measure_every: int = 0
    """Epochs from one measurement of sensitivity to deformation and smoothness of filters to the next; default: at
    initialisation and at the end alone."""
    shift: tuple[str, ...] = ()
    """Data sets of the same classes to test on, by name, or folder:/path, parquet:/path; measures shift."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "landscape_images": at_least(1),
        "maps_at": Bound(1, MOST_EPOCHS, EPOCHS),
        "initialisations": Bound(1, 10_000, "each builds a network, and the mean's error is 1% of one's by then"),
        "saliency_images": at_least(1),
        "saliency_seed": SEED,
        "saliency_pixels": at_least(2),
        "saliency_samples": Bound(1, 1_000_000, "each is a pass through the network for each image"),
        "saliency_panels": Bound(1, 10_000, "the record holds that many maps for every trial"),
        "attack_steps": Bound(1, 1_000_000, "each is a pass through the network for each image"),
        "attack_restarts": Bound(1, 1_000_000, "each is a whole attack on each image"),
        "attack_queries": Bound(1, 10_000_000, "each is a pass through the network for each image"),
        "attack_images": at_least(1),
        "attack_seed": SEED,
        "erf_images": at_least(1),
        "cam_images": at_least(1),
        "cam_panels": Bound(0, 10_000, "the record holds that many maps for every trial"),
        "iou_images": at_least(1),
        "deformation_images": at_least(2),
        "deformation_grid": Bound(2, 32, "each pixel of an image is a sum over grid² control points"),
        "deformation_max": Bound(0, 2**14, "images are not larger"),
        "deformation_seed": SEED,
        "measure_every": Bound(0, MOST_EPOCHS, EPOCHS),
    }

    def shifted(self) -> list[str]:
        """The names in the record of the data sets of --shift."""
        try:
            return [
                _identified(spec, getattr(self, "data_root", "data"), getattr(self, "exclude", ()))
                for spec in self.shift
            ]
        except InputError as error:
            raise InputError(str(error).replace("dataset:", "shift:", 1)) from None

    def metric_options(self, names: Iterable[str], flag: str) -> dict[str, dict[str, Any]]:
        """Options of each metric by its name, as JSON values; `flag` is what the names were given by.

        Raises `InputError`, which begins with the flag's field, for unknown names and for bad options, of metrics that
        are not among the names, too.
        """
        chosen = list(dict.fromkeys([*separated(names), *(["shift"] if self.shift else [])]))
        for name in chosen:
            if name not in METRICS:
                raise InputError(f"{flag}: {name!r}, allowed are {', '.join(METRICS)}")
        options = {name: dict(self._options(name)) for name in METRICS}
        for name in METRICS:
            if name != "shift" or name in chosen:  # without --shift there is none
                _check(name, options[name])
        return {name: options[name] for name in chosen}

    def _options(self, metric: str) -> Iterator[tuple[str, Any]]:
        for option, field in FLAGS.get(metric, {}).items():
            value = self.shifted() if field == "shift" else getattr(self, field)
            if isinstance(value, tuple):
                value = separated(value) if all(isinstance(part, str) for part in value) else list(value)
            yield option, value


def _check(metric: str, options: Mapping[str, Any]) -> None:
    """Raise what the metric says of its options, of the fields of `MetricFlags` instead."""
    try:
        METRICS[metric](**options)
    except InputError as error:
        option, colon, rest = str(error).partition(":")
        raise InputError(f"{FLAGS[metric].get(option, option)}{colon}{rest}") from None
