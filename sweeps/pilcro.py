"""PILCRO: how strongly the importance landscape of a network can be flattened before accuracy tips over.

Paper: "¶ILCRO: Making Importance Landscapes Flat Again" (Section 4, Tables 1 and 2): the penalties ¶c and ¶t at
α = 1, 10, 100, every T = 10 steps, against the unregularised network: Top-1, Top-5, loss, and the landscape's total
variation (TV).

    python sweeps/pilcro.py                                        # digits, under 3 minutes on two cores
    python sweeps/pilcro.py --preset cifar10 --name pilcro-cifar10
    python sweeps/pilcro.py --preset cifar100 --name pilcro-cifar100 --crop      # the paper's RC+; again with --no-crop
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from analysis.bounds import Bound, at_least
from sweeps.flags import MOST_PIXELS, StrengthFlags
from sweeps.launch import main
from trainables.pilcro import Pilcro, Reduction, Variant


@dataclass(frozen=True)
class PilcroSweep(StrengthFlags):
    """The importance-landscape sweep."""

    NAME: ClassVar[str] = "pilcro"
    STEPS: ClassVar[Mapping[str, int]] = {"laplacian_width": 2}

    interval: tuple[int, ...] = (10,)
    """T: the penalty is computed every T-th step."""
    interval_factor: bool = True
    """Whether α is multiplied by T; without, α is what the penalty of a T-th step has."""
    laplacian_width: tuple[int, ...] = (3,)
    """k, odd: width of the discrete Laplacian."""
    variant: tuple[Variant, ...] = ("curvature", "target")
    """¶c or ¶t."""
    reduction: tuple[Reduction, ...] = ("mean",)
    """Of ¶t over pixels: mean, or the sum as the paper writes it."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "interval": at_least(1),
        "laplacian_width": Bound(3, MOST_PIXELS, "images are not larger"),
    }

    def without_effect(self) -> Iterator[tuple[str, str]]:
        yield from super().without_effect()
        if "target" not in self.variant:
            yield "reduction", "--variant target"

    def methods(self) -> Iterator[Pilcro]:
        for variant, alpha, interval, width in itertools.product(
            self.variant, self.alphas(), self.interval, self.laplacian_width
        ):
            for reduction in self.reduction if variant == "target" else (None,):
                yield Pilcro(alpha, interval, width, variant, reduction, self.interval_factor)


PRESETS = {
    # scikit-learn's 8×8 digits, small enough for a first look
    "digits": PilcroSweep(preset="digits", gpu_share=0.25, epochs=(30,), seeds=2, search="tipping"),
    # sized for one small GPU, or for a CPU and patience
    "mnist": PilcroSweep(
        preset="mnist",
        about="no experiment of the paper: sized for one small GPU",
        gpu_share=0.25,
        dataset=("mnist",),
        epochs=(10,),
        seeds=3,
        learning_rate=(0.05,),
    ),
    "cifar10": PilcroSweep(
        preset="cifar10",
        about="no experiment of the paper: sized for one small GPU",
        gpu_share=0.5,
        dataset=("cifar10",),
        model=("resnet18",),
        width=(32,),
        epochs=(30,),
        weight_decay=(5e-4,),
        flip=True,
        crop=True,
        seeds=3,
    ),
    # Appendix D.1: 200 epochs, batch 128, SGD with momentum, lr 0.1 cosine, weight decay 1e-5, flips; one seed.
    # [reading] momentum 0.9. The 10,000 test images are the paper's validation set: nothing is held out of training.
    "cifar100": PilcroSweep(
        preset="cifar100",
        about="Table 1, RC+ (--no-crop: RC−), and Figures 3 and 4; one seed as in the paper, which gives no interval",
        dataset=("cifar100",),
        model=("resnet50",),
        epochs=(200,),
        weight_decay=(1e-5,),
        flip=True,
        crop=True,
        validation=0.0,
        seeds=1,
        maps_at=(50, 100, 150),
    ),
    # Appendix D.2: batch 256, SGD lr 0.256 cosine, momentum 0.875, label smoothing 0.1, weight decay 3e-5 but none on
    # BatchNorm, random zoom to 224², evaluated at 288² (Table 2); one seed. [reading] 90 epochs: the paper gives none.
    "imagenet": PilcroSweep(
        preset="imagenet",
        about="Table 2 and Figure 5, 90 epochs (the paper does not say how many); one seed as there, which gives no "
        "interval",
        dataset=("imagenet",),
        model=("resnet50-imagenet",),
        epochs=(90,),
        batch_size=(256,),
        learning_rate=(0.256,),
        momentum=0.875,
        weight_decay=(3e-5,),
        decay_normalisation=False,
        label_smoothing=0.1,
        zoom=True,
        image_size=224,
        evaluation_size=288,
        validation=0.0,
        seeds=1,
        maps_at=(1, 5, 30, 60),
    ),
}

if __name__ == "__main__":
    main(PilcroSweep, PRESETS, __doc__ or "")
