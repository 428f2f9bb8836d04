"""Top-GAP: how few pixels may a network use before accuracy tips over, and what does it gain in robustness?

Paper: "Top-GAP: Integrating Size Priors in CNNs for more Robustness, Interpretability, and Bias Mitigation" (Section 4,
Tables 2 to 9, Appendix E and F): networks with class maps, k swept, λ = 1; FGSM and PGD, effective receptive fields,
class activation maps; the 2³ ablation of pyramid, ℓ1 and Top-GAP.

    python sweeps/top_gap.py                                             # digits, minutes on two cores
    python sweeps/top_gap.py --pixels 4 all --sparsity 0 1 --heads fpn last --name ablation      # 2³, with the baseline
    python sweeps/top_gap.py --preset cifar10                            # the paper's five architectures, a GPU or more
    python sweeps/top_gap.py --preset folder --dataset folder:/data/cub --model resnet18-imagenet --folds 5 --pretrained
    python sweeps/top_gap.py --preset folder --dataset folder:/data/cub --places last all --sparsity 1 0.1 1e-3 1e-5 \\
        --norm sum --heads last --pixels all --name l1                   # Appendix F
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from analysis.bounds import AT_LEAST_0, SHARE, Bound
from analysis.command_line import InputError
from sweeps.flags import Range, Setting, SweepFlags
from sweeps.launch import main
from sweeps.ranges import shown_range
from trainables.top_gap import Place, Reduction, TopGap, is_baseline, map_side

Head = Literal["fpn", "last"]


@dataclass(frozen=True)
class TopGapSweep(SweepFlags):
    """The sweep over Top-GAP."""

    NAME: ClassVar[str] = "top_gap"
    STRENGTH: ClassVar[str] = "pixels"

    pixels: tuple[str, ...] = ("1", "2", "4", "8", "all")
    """k, how many pixels of the feature pyramid's class maps count; all: their h·w, global average pooling. Without the
    pyramid the same share of its smaller maps, at least 1 pixel."""
    sparsity: tuple[float, ...] = (1.0,)
    """λ, the strength of ℓ1."""
    heads: tuple[Head, ...] = ("fpn",)
    """Class maps from the feature pyramid (fpn) or the last feature map alone (last)."""
    places: tuple[Place, ...] = ("class_maps",)
    """What ℓ1 is on: the class maps, the last feature map, or all activations."""
    norm: tuple[Reduction, ...] = ("mean",)
    """‖X‖₁ as the mean of |X|, or as its sum over an image's values."""
    dropout: tuple[float, ...] = (0.0,)
    """Share of the features before the class maps dropped."""
    fpn_channels: tuple[int, ...] = (256,)
    """Channels of the feature pyramid."""
    strength_range: Range = ("1", "all")

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "sparsity": AT_LEAST_0,
        "dropout": SHARE,
        "fpn_channels": Bound(1, 8192, "the convolutions between so many have 2.4 GB of weights each"),
    }

    def __post_init__(self) -> None:
        ranges = [self.strength_range, *(ends for field, *ends in self.ranges if field == "pixels")]
        for text in (*self.pixels, *(str(end) for ends in ranges for end in ends)):
            if text.isdecimal() and len(text) > 10:
                raise InputError(f"pixels: a number of {len(text)} digits, allowed are those of the class maps")
            if text != "all" and not (text.isdecimal() and int(text) >= 1):
                raise InputError(f"pixels: {text!r}, allowed are whole numbers of at least 1, and all")
        for ends in ranges:
            low, high = (math.inf if end == "all" else int(end) for end in ends)
            if not low < high:
                shown = shown_range(*ends)
                raise InputError(f"pixels: {shown}, allowed are two rising numbers, of which all is the largest")

    def default_metrics(self) -> tuple[str, ...]:
        return TopGap.metrics

    def without_effect(self) -> Iterator[tuple[str, str]]:
        yield from super().without_effect()
        if "fpn" not in self.heads:
            yield "fpn_channels", "--heads fpn"
        if not any(self.sparsity):
            yield from (("places", "--sparsity above 0"), ("norm", "--sparsity above 0"))

    def methods(self) -> Iterator[TopGap]:
        yield from ()  # k depends on the network: see `methods_for`

    def methods_for(self, setting: Setting) -> Iterator[TopGap]:
        model, channels, size = setting.model, setting.channels, setting.size
        side = {fpn: map_side(model.model, model.width, channels, size, fpn) for fpn in (True, False)}
        most = side[True] ** 2
        for head, text, sparsity, place, norm, dropout, fpn_channels in itertools.product(
            self.heads, self.pixels, self.sparsity, self.places, self.norm, self.dropout, self.fpn_channels
        ):
            fpn = head == "fpn"
            pixels = most if text == "all" else int(text)
            if pixels > most:
                raise InputError(
                    f"pixels: {pixels}, allowed with {model.model} on {setting.data.dataset} are at most {most}, as "
                    f"its class maps have {side[True]}×{side[True]} pixels"
                )
            if not fpn:
                pixels = max(1, round(pixels * side[False] ** 2 / most))
            nothing = not fpn and pixels == side[False] ** 2 and sparsity == 0 and dropout == 0
            if self.baseline and nothing and is_baseline(model.model, model.width, channels, size):
                continue
            # without ℓ1 its place and norm would make several trials of one
            yield TopGap(
                pixels,
                sparsity,
                fpn,
                dropout,
                fpn_channels if fpn else None,
                place if sparsity else "class_maps",
                norm if sparsity else "mean",
            )


# [reading] The paper has no protocol of training. On CIFAR-10 that of its reference for PreAct-ResNet-18
# (Andriushchenko and Flammarion 2020): SGD with momentum, weight decay 5e-4, batch 128, flips and crops of the padded
# image; 200 epochs of a cosine. It begins at 0.005, as far as it may: at 0.1 the head, which normalises nothing,
# diverges within an epoch for k = 8 at any width, at 0.02 at full width. Attacks as in Foolbox, by steps of ε/30;
# ε = 8/255, 20 and 50 steps (Table 4), on all test images: Figure A3 alone is of 500 (--attack-images 500). Square has
# 5000 queries, as in AutoAttack.
CIFAR = TopGapSweep(
    preset="cifar10",
    about="Tables 4 and A5; how the paper trained it does not say",
    dataset=("cifar10",),
    model=("preact-resnet18", "resnet18", "resnet34", "resnet50", "wide-resnet40-4"),
    pixels=("8", "16", "32", "64", "128", "256"),
    epochs=(200,),
    batch_size=(128,),
    learning_rate=(0.005,),
    weight_decay=(5e-4,),
    flip=True,
    crop=True,
    padding="zero",
    validation=0.0,
    seeds=5,
    attacks=("fgsm", "pgd", "square", "apgd"),
    attack_images=10_000,
    step_size="eps/30",
)
# [reading] Fine-tuned from ImageNet: 50 epochs of a cosine from 0.01, batch 64, weight decay 1e-4, zoom as usual where
# images are streamed. FGSM and PGD at 1/255, 40 steps (Table 3); five folds.
FOLDER = TopGapSweep(
    preset="folder",
    about="Tables 2, 3, 5 and A1 to A9, of the data set that --as names; how the paper trained it does not say",
    dataset=("folder:",),  # --dataset folder:/path has to say where
    model=("resnet18-imagenet",),
    image_size=224,
    pixels=("64", "128", "256", "512", "1024", "2048"),
    epochs=(50,),
    batch_size=(64,),
    learning_rate=(0.01,),
    weight_decay=(1e-4,),
    flip=True,
    validation=0.0,
    seeds=1,
    folds=5,
    pretrained=True,
    epsilon=("1/255",),
    attack_steps=(40,),
    attack_images=50_000,  # all of any fold
    step_size="eps/30",
)

PRESETS = {
    # scikit-learn's 8×8 digits, small enough for a first look
    "digits": TopGapSweep(
        preset="digits",
        gpu_share=0.25,
        epochs=(15,),
        learning_rate=(0.1,),
        fpn_channels=(64,),
        epsilon=("0.1",),
        attack_steps=(20,),
        seeds=2,
        search="tipping",
    ),
    "cifar10": CIFAR,
    "oxford-pets": dataclasses.replace(
        FOLDER,
        preset="oxford-pets",
        about="Tables 2, 3 and A1 to A4; parameters are those with 37 classes, of which Table 1 has none",
        dataset=("oxford-pets",),
        model=("efficientnet-b0", "resnet18-imagenet"),
        measure=(*TopGap.metrics, "iou"),
    ),
    # a folder of class folders, which --dataset folder:/path names
    "folder": FOLDER,
    # one run each, k = 256 (Section 4). [reading] It begins with ImageNet's weights, as all of Table 3: what is new is
    # the head, so that ten epochs do, from a tenth of the usual rate, in larger batches
    "imagenet": dataclasses.replace(
        FOLDER,
        preset="imagenet",
        about="Tables 3 and A3, k = 256; one run as there, which gives no interval; how the paper trained it does not "
        "say",
        dataset=("imagenet",),
        model=("vgg11-bn", "resnet18-imagenet"),
        pixels=("256",),
        folds=None,
        zoom=True,
        epochs=(10,),
        batch_size=(256,),
    ),
}

if __name__ == "__main__":
    main(TopGapSweep, PRESETS, __doc__ or "")
