"""Input-gradient regularisation: how strong it may be before accuracy tips over, and what it does to saliency maps.

Paper: De Moor et al., "On the Effect of Gradient Regularisation on Interpretability" (Section 3.1, Figures 1-4, and
5-19 in the appendix): one network per α, with Adam at a constant learning rate; accuracy, and for the input gradient
and DeepLIFT on 128 test images the Faithfulness Estimate, local Lipschitz constant, Max-Sensitivity and entropy.

    python sweeps/gradient_reg.py                                        # digits, minutes on two cores
    python sweeps/gradient_reg.py --preset mnist --name gradient-mnist   # LeNet-5, 50 strengths, the paper's protocol
    python sweeps/gradient_reg.py --preset mnist --alpha-range 1e2 1e10 25 --epochs 10 --keep-models
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from sweeps.flags import StrengthFlags
from sweeps.launch import main
from trainables.gradient_reg import BatchNormMode, Convention, GradientRegularisation


@dataclass(frozen=True)
class GradientSweep(StrengthFlags):
    """The input-gradient sweep."""

    NAME: ClassVar[str] = "gradient_reg"

    convention: tuple[Convention, ...] = ("batch",)
    """How squares of the gradient are summed: batch, all of a batch's, as in the paper; element, their mean; pixel,
    over images, averaged over an image's values; image, of each image's own loss, averaged over images."""
    batchnorm: tuple[BatchNormMode, ...] = ("train",)
    """BatchNorm in the penalty: train, the batch's statistics as in the paper; eval, the running ones."""

    def methods(self) -> Iterator[GradientRegularisation]:
        for convention, batchnorm, alpha in itertools.product(self.convention, self.batchnorm, self.alphas()):
            yield GradientRegularisation(alpha, convention, batchnorm)


# Section 3.1: Adam; LeNet-5 in [-1, 1], 25 epochs, lr 1e-3; ResNet-18 in [0, 1], 50 epochs, lr 1e-4; one network per α.
# [reading] The paper gives no batch size (128 here), no schedule (constant) and no augmentation or weight decay (none);
# accuracy is that on the test images. ResNet-18 has the stem for small images, but for Imagenette the original one.
PAPER = GradientSweep(
    about="Figures 1 to 4, one network for each α as in the paper: trends and tipping points, no interval of a number",
    gpu_share=0.25,
    model=("lenet5",),
    epochs=(25,),
    optimizer=("adam",),
    learning_rate=(1e-3,),
    schedule="constant",
    scaling="symmetric",
    validation=0.0,
    seeds=1,
    alpha_range=(1e2, 1e10, 50),
)
RESNET = dataclasses.replace(
    PAPER, gpu_share=1.0, model=("resnet18",), epochs=(50,), learning_rate=(1e-4,), scaling="unit"
)

PRESETS = {
    # scikit-learn's 8×8 digits, small enough for a first look
    "digits": GradientSweep(
        preset="digits",
        gpu_share=0.25,
        epochs=(30,),
        optimizer=("adam",),
        learning_rate=(1e-3,),
        schedule="constant",
        scaling="symmetric",
        seeds=2,
        search="tipping",
        strength_range=(1.0, 1e6),
        alpha_range=(1.0, 1e6, 7),
        saliency_samples=50,
    ),
    "mnist": dataclasses.replace(PAPER, preset="mnist", dataset=("mnist",)),
    "fashion-mnist": dataclasses.replace(PAPER, preset="fashion-mnist", dataset=("fashion-mnist",)),
    "kmnist": dataclasses.replace(PAPER, preset="kmnist", dataset=("kmnist",)),
    # [reading] the same training as MNIST's LeNet-5: the paper sets it by data set
    "mnist-resnet18": dataclasses.replace(
        PAPER,
        gpu_share=1.0,
        preset="mnist-resnet18",
        about="an alternative combination of Appendix B; one network for each α: no interval of a number",
        dataset=("mnist",),
        model=("resnet18",),
    ),
    "cifar10": dataclasses.replace(RESNET, preset="cifar10", dataset=("cifar10",)),
    # 27 strengths in [1e3, 1.29e13], 320² images. Of 307,200 features the paper perturbs each; --saliency-pixels limits
    "imagenette": dataclasses.replace(
        RESNET,
        preset="imagenette",
        dataset=("imagenette",),
        model=("resnet18-imagenet",),
        alpha_range=(1e3, 1.29e13, 27),
    ),
}

if __name__ == "__main__":
    main(GradientSweep, PRESETS, __doc__ or "")
