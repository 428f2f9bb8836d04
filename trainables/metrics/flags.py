"""The metrics' options as flags, the same for a sweep and for measuring afterwards."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from analysis.command_line import InputError
from trainables.data import identify
from trainables.metrics import METRICS
from trainables.metrics.landscape import Expectation


def separated(values: Iterable[str]) -> list[str]:
    """Values that were separated by commas or spaces, each once."""
    return list(dict.fromkeys(name for text in values for name in text.split(",") if name))


# of a large folder it reads every file
_identified = functools.cache(identify)


@dataclass(frozen=True)
class MetricFlags:
    """Options of what is measured."""

    landscape: Expectation = "sampled"
    """Importance landscape of a split: one sampled class per image, or the exact expectation over classes."""
    landscape_images: int | None = None
    """Measure the landscape on so many images of the split; default: all."""
    maps_at: tuple[int, ...] = ()
    """Epochs after which to keep the landscape's map, besides initialisation and the end."""
    initialisations: int = 10
    """Initialisations averaged in the comparison with path counts (epoch 0)."""
    explainers: tuple[str, ...] = ("gradient", "deeplift")
    """Saliency maps to measure: gradient, deeplift, integrated_gradients."""
    saliency_images: int = 128
    """Saliency is measured on so many test images, the same for every trial."""
    saliency_seed: int = 0
    """Decides which images and pixels, and the noise."""
    saliency_pixels: int | None = None
    """Faithfulness perturbs so many features of an image (pixels of a channel), one at a time; default: all."""
    saliency_samples: int = 200
    """Draws of noise for local_lipschitz and max_sensitivity."""
    saliency_per_image: bool = False
    """Record every image's value besides mean and deviation."""
    saliency_panels: int = 4
    """Images whose saliency maps are kept."""
    attacks: tuple[str, ...] = ("fgsm", "pgd")
    """Attacks to measure robust accuracy under: fgsm, pgd, square, apgd."""
    epsilon: tuple[str, ...] = ("8/255",)
    """Radii of the attacks' ℓ∞ ball in pixels of [0, 1], numbers or fractions."""
    attack_steps: tuple[int, ...] = (20, 50)
    """Steps of PGD and APGD, each a measurement."""
    step_size: str = "eps/4"
    """Step of PGD in pixels of [0, 1], or as a part of ε: eps/4, or eps/30, which is Foolbox's default."""
    attack_restarts: int = 1
    """Runs of PGD, APGD and Square; what counts is the worst."""
    attack_queries: int = 5000
    """Queries of Square."""
    attack_images: int = 500
    """The first so many test images are attacked."""
    attack_seed: int = 0
    """Decides random starts and squares, the same for every trial."""
    erf_images: int = 128
    """Receptive fields are measured on the first so many test images."""
    cam_images: int = 1000
    """Class activation maps are measured on the first so many test images."""
    cam_panels: int = 4
    """Images whose class activation maps are kept, each of another class."""
    iou_images: int = 1000
    """The overlap with masks is measured on the first so many test images."""
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
    """Measure sensitivity to deformation and smoothness of filters after every so many epochs, too; default: at
    initialisation and at the end."""
    shift: tuple[str, ...] = ()
    """Data sets of the same classes to test on, by name, or folder:/path, parquet:/path; measures shift."""

    def shifted(self) -> list[str]:
        """The names in the record of the data sets of --shift."""
        return [_identified(spec, getattr(self, "data_root", "data")) for spec in self.shift]

    def metric_options(self, names: Iterable[str], flag: str) -> dict[str, dict[str, Any]]:
        """Options of each metric by its name, as JSON values; `flag` is what the names were given by.

        Raises `InputError` for unknown names and bad options.
        """
        saliency = {
            "images": self.saliency_images,
            "explainers": separated(self.explainers),
            "seed": self.saliency_seed,
        }
        valued = {**saliency, "per_image": self.saliency_per_image}
        options: dict[str, dict[str, Any]] = {
            "landscape": {
                "expectation": self.landscape,
                "images": self.landscape_images,
                "maps_at": list(self.maps_at),
            },
            "paths": {"initialisations": self.initialisations},
            "faithfulness": {**valued, "pixels": self.saliency_pixels},
            "local_lipschitz": {**valued, "samples": self.saliency_samples},
            "max_sensitivity": {**valued, "samples": self.saliency_samples},
            "entropy": valued,
            "saliency_maps": {**saliency, "panels": self.saliency_panels},
            "attacks": {
                "attacks": separated(self.attacks),
                "epsilon": separated(self.epsilon),
                "steps": list(self.attack_steps),
                "step_size": self.step_size,
                "restarts": self.attack_restarts,
                "queries": self.attack_queries,
                "images": self.attack_images,
                "seed": self.attack_seed,
            },
            "erf": {"images": self.erf_images},
            "iou": {"images": self.iou_images},
            "shift": {"sets": self.shifted()},
            "deformation_sensitivity": {
                "images": self.deformation_images,
                "grid": self.deformation_grid,
                "max_displacement": self.deformation_max,
                "seed": self.deformation_seed,
                "every": self.measure_every,
            },
            "filter_smoothness": {"every": self.measure_every},
            "cam": {"images": self.cam_images, "panels": self.cam_panels},
        }
        chosen = {}
        for name in dict.fromkeys([*separated(names), *(["shift"] if self.shift else [])]):
            if name not in METRICS:
                raise InputError(f"{flag}: {name!r}, allowed are {', '.join(METRICS)}")
            chosen[name] = options.get(name, {})
            METRICS[name](**chosen[name])
        return chosen
