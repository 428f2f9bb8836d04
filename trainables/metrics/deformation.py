"""How much a deformation of the image changes each layer, and how smooth each layer's filters are, for any method
(Ruderman et al. 2018, "Learned Deformation Stability in Convolutional Neural Networks", Sections 2.1 and 4.1).

    sensitivity(r) = mean over images of dcos(r(x), r(τ(x))) / median over pairs of images of dcos(r(x), r(y))
    smoothness(W) = TV(W) / ‖W‖₁

r(x) are all of a layer's outputs, dcos is 1 less the cosine. The layers are the input, every convolution after its
ReLU and every downsampling layer of the paper's networks; of any other network the outputs of all nonlinearities and
poolings but the global one. [reading] A convolution's layer ends with its ReLU, and so does strided-ReLU's: a layer has
the same name whatever the downsampling is, and the network for CIFAR-10 has the paper's 1 + 8 + 4 layers.
[reading] Networks are measured in evaluation mode: at initialisation, where the running statistics are still 0 and 1,
BatchNorm changes nothing.

At random initialisation smoothness of 3×3 filters is 1.857 in the mean, 12/9 of E|a − b|/E|a|, for the truncated normal
distribution, and 1.886 = 12√2/9 for a normal one; the paper says "approximately 1.87". Its standard deviation is 0.34
over the root of the number of slices: 0.035 in the first layer, as in the paper, if that is 3 → 32 (0.025 of 3 → 64);
0.0107 of 32 → 32, where the paper has 0.012 "for the larger layers"; and less in those that follow.

Notation: n images, B images that pass together.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.command_line import InputError
from trainables.data.deformations import deform, random_deformations
from trainables.lazily import nn, torch
from trainables.loco_reg import spatial_convolutions
from trainables.method import evaluation_mode
from trainables.metrics.moment import EVALUATION_BATCH, FORWARD, Measured, Moment, derived_seed
from trainables.models.feature_maps import activations, is_pooling

if TYPE_CHECKING:
    from torch import Tensor

# --- sensitivity to deformation ---------------------------------------------------------------------------------------

BUDGET = 256 * 2**20
"""Bytes that the largest activation may have in one pass through the network."""
_BLOCK = 16 * 2**20
"""Bytes of a layer's outputs that are in float64 at once."""


def deformation_sensitivity(
    model: nn.Module, images: Tensor, deformed: Tensor, *, budget: int = BUDGET
) -> dict[str, float]:
    """The sensitivity of each layer to a deformation of `images` (n, C, H, W) into `deformed`, of the same shape: 0
    where nothing changes, 1 where an image is as far from its deformation as from any other image (Section 2.1).

    By layer, "input" and then the names of the modules, in the order in which they run; a module that runs again has
    "#2" after its name. nan for a layer that gives some image zeros alone, which have no direction, or numbers that are
    not finite, and where the median distance is zero. The model is in evaluation mode, and is left as it was.

    No layer's outputs are kept: each is reduced to inner products of images (n, n) when it appears. If all 2n images
    at once would give an activation larger than `budget` bytes, the images pass in chunks, each once with its
    deformations and once with every other chunk: the result is the same, up to the rounding of the network itself. Of
    vgg-imagenet at 224² ten images are a chunk. Measured on the CPU beside images and network: 0.8 to 1 GiB, the same
    for 22 and for 44 images, where all layers of 128 images and their deformations are 14.4 GiB; 128 images are 91
    passes of about 20 images, 7 times the work of all at once, which a larger `budget` saves.

    Raises `ValueError` for fewer than two images and for shapes that differ.
    """
    found = normalised_distances(model, images, deformed, budget=budget)
    return {name: float(values.mean()) for name, values in found.items()}


def normalised_distances(
    model: nn.Module, images: Tensor, deformed: Tensor, *, budget: int = BUDGET
) -> dict[str, Tensor]:
    """What `deformation_sensitivity` is the mean of, for each image, (n,) float64 by layer. Raises as it does."""
    if images.ndim != 4 or images.shape != deformed.shape or len(images) < 2:
        raise InputError(
            f"images, deformed: of shapes {tuple(images.shape)} and {tuple(deformed.shape)}, allowed are equal ones "
            "(n, C, H, W) of at least 2 images"
        )
    number = len(images)
    products: dict[str, _Products] = {}
    with torch.no_grad(), evaluation_mode(model):
        chunk = max(1, min(number, budget // largest_activation(model, images) // 2))
        chunks = [slice(start, min(start + chunk, number)) for start in range(0, number, chunk)]
        for index, rows in enumerate(chunks):
            for columns in [None, *chunks[index + 1 :]]:
                second = deformed[rows] if columns is None else images[columns]
                _reduce(model, torch.cat([images[rows], second]), rows, columns, number, products)
    same = (images == deformed).flatten(1).all(1)
    return {name: layer.distances(same) for name, layer in products.items()}


class _Products:
    """Inner products of one layer's outputs, float64: of all pairs of images, and of each with its deformation."""

    def __init__(self, number: int, device: torch.device) -> None:
        self.pairs = torch.zeros(number, number, dtype=torch.float64, device=device)
        self.with_own, self.of_deformed = torch.zeros(2, number, dtype=torch.float64, device=device)

    def add(self, outputs: Tensor, rows: slice, columns: slice | None) -> None:
        """Of the outputs (B, …) for the images of `rows` and those of `columns`, or their deformations (None)."""
        if outputs.ndim == 4 and outputs.is_contiguous(memory_format=torch.channels_last):
            outputs = outputs.permute(0, 2, 3, 1)  # as it lies in memory: flattening the other way would copy it
        number = rows.stop - rows.start
        for block in outputs.flatten(1).split(max(1, _BLOCK // (8 * len(outputs))), 1):
            first, second = block.double().tensor_split([number])
            if columns is None:
                self.pairs[rows, rows] += first @ first.T
                self.with_own[rows] += (first * second).sum(1)
                self.of_deformed[rows] += second.square().sum(1)
            else:
                self.pairs[rows, columns] += first @ second.T

    def distances(self, same: Tensor) -> Tensor:
        """Of each image from its deformation, over the median of all pairs; exactly 0 of images that are the `same`,
        for which the network's rounding may give other outputs at another place of the batch."""
        norms = self.pairs.diagonal().sqrt()
        one, other = torch.triu_indices(len(norms), len(norms), 1, device=norms.device)
        apart = 1 - self.pairs[one, other] / (norms[one] * norms[other])
        own = 1 - self.with_own / (norms * self.of_deformed.sqrt())
        own = torch.where(same, 0.0, own.clamp_min(0))  # a rounding below 0 is none
        # quantile would not take as many values as a thousand images have pairs of
        middle = apart.sort().values[[(len(apart) - 1) // 2, len(apart) // 2]].mean()
        valid = bool(apart.isfinite().all() & own.isfinite().all()) and float(middle) > 0
        return own / middle if valid else torch.full_like(own, math.nan)


def _reduce(
    model: nn.Module, batch: Tensor, rows: slice, columns: slice | None, number: int, products: dict[str, _Products]
) -> None:
    """Pass a batch through the network and add the inner products of each layer that is met."""
    runs: dict[str, int] = {}

    def meet(name: str, outputs: Tensor) -> None:
        runs[name] = runs.get(name, 0) + 1
        name = name if runs[name] == 1 else f"{name}#{runs[name]}"
        if name not in products:
            products[name] = _Products(number, outputs.device)
        products[name].add(outputs, rows, columns)

    def hook(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, outputs: meet(name, outputs)

    meet("input", batch)
    with contextlib.ExitStack() as stack:
        for name, module in measured_layers(model):
            stack.callback(module.register_forward_hook(hook(name)).remove)
        model(batch)


def measured_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers besides the input, by name (see the module's docstring), in the order in which they are defined."""
    from trainables.models.blocks import DownsampledNetwork

    chosen = {id(module) for module in activations(model)}
    chosen |= {id(module) for module in model.modules() if is_pooling(module)}
    for network in model.modules():
        if isinstance(network, DownsampledNetwork):
            for name, layer in network.named_children():
                if name.startswith(("conv", "down")):
                    chosen -= {id(module) for module in layer.modules()}
                    chosen.add(id(layer))
    return [(name, module) for name, module in model.named_modules() if id(module) in chosen]


def largest_activation(model: nn.Module, images: Tensor) -> int:
    """Bytes of the largest output of any layer, and of the input, of one image."""
    largest = images[0].numel() * images.element_size()

    def compare(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
        nonlocal largest
        if isinstance(outputs, torch.Tensor):
            largest = max(largest, outputs.numel() * outputs.element_size())

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if not any(module.children()):
                stack.callback(module.register_forward_hook(compare).remove)
        model(images[:1])
    return largest


# --- smoothness of filters --------------------------------------------------------------------------------------------


def filter_total_variation(weight: Tensor) -> Tensor:
    """TV(W) / ‖W‖₁ of a convolution's whole weight (out, in, k, k), a scalar (Section 4.1): TV is the sum of the
    magnitudes of the differences between entries next to each other in a slice. 0 for slices of equal entries, the
    smoothest there are; nan for a weight of zeros.

    Raises `ValueError` for another number of dimensions.
    """
    if weight.ndim != 4:
        raise InputError(f"weight: of shape {tuple(weight.shape)}, allowed is (out, in, k, k)")
    return (weight.diff(dim=2).abs().sum() + weight.diff(dim=3).abs().sum()) / weight.abs().sum()


# --- as metrics of a trial --------------------------------------------------------------------------------------------


def _check_every(every: int) -> None:
    if every < 0:
        raise InputError(f"every: {every}, allowed are whole numbers of at least 0")


def _is_due(moment: Moment, every: int) -> bool:
    """At initialisation, after every so many epochs, and at the end, which is that on the test split."""
    if moment.split == "test":
        return True
    return moment.epoch == 0 or (every > 0 and moment.epoch % every == 0 and not moment.last)


def _row(metric: str, layer: str, value: float, std: float | None = None, n: int | None = None) -> dict[str, Any]:
    """No value and no deviation where the value is not finite."""
    known = math.isfinite(value)
    row = {"metric": metric, "component": layer, "level": None, "value": value if known else None, "n": n}
    return {**row, "std": std if known else None, "unit": "", "direction": "none"}


def deformation_of(size: int) -> tuple[int, float]:
    """Control points a side and maximum displacement in pixels for images of so many pixels a side (Section 2.1): 3 and
    2 for 32², 5 and 10 for 224². [reading] Other sizes have the same displacement in proportion, up to 64 pixels
    CIFAR-10's and beyond ImageNet's."""
    return (3, 2 * size / 32) if size <= 64 else (5, 10 * size / 224)


@dataclass(frozen=True)
class DeformationSensitivity:
    """`deformation_sensitivity` at initialisation, along the epochs and at the end; its component is the layer, in the
    order of depth, "input" first; the row without a component is the mean over the layers behind the input. With the
    standard deviation over images; no value where it is nan, and no mean where a layer has none.

    **[reading]** Always on the same test images with the same deformations, one each, at every moment of every trial:
    what differs between two rows is the network. Nothing is chosen by it, so that the test split stays what it is for.
    """

    images: int = 128
    """The first so many test images in their fixed order; at most as many as there are."""
    grid: int | None = None
    """Control points a side; None: by the images' size, see `deformation_of`."""
    max_displacement: float | None = None
    """Pixels; None: by the images' size."""
    seed: int = 0
    """Of the deformations."""
    every: int = 0
    """Epochs from one measurement to the next; 0: at initialisation and at the end alone."""

    def __post_init__(self) -> None:
        _check_every(self.every)
        if self.images < 2:
            raise InputError(f"images: {self.images}, allowed are whole numbers of at least 2")
        if self.grid is not None and self.grid < 2:
            raise InputError(f"grid: {self.grid}, allowed are whole numbers of at least 2")
        most = self.max_displacement
        if most is not None and not (math.isfinite(most) and most >= 0):
            raise InputError(f"max_displacement: {most}, allowed are finite numbers of at least 0")

    def image_passes(self, features: int) -> float:
        """At initialisation and at the end; images so large that they pass in chunks take more."""
        return 2 * 2 * self.images * FORWARD

    @staticmethod
    def is_detail(metric: str, component: str) -> bool:
        """Whether a row of this metric is left out of a sweep's summary: layers are too many for it."""
        return metric == "deformation_sensitivity" and bool(component)

    def measure(self, moment: Moment) -> Measured:
        if not _is_due(moment, self.every):
            return Measured()
        batches = moment.data.batches("test", EVALUATION_BATCH, device=moment.device, limit=self.images)
        images = torch.cat([batch for batch, _ in batches])
        found = normalised_distances(moment.model, images, self.deformed(images))
        inner = [values for name, values in found.items() if name != "input"]
        if inner:
            found[""] = torch.stack(inner).mean(0)
        rows = [
            _row("deformation_sensitivity", name, float(values.mean()), float(values.std()), len(values))
            for name, values in found.items()
        ]
        return Measured({}, rows)

    def deformed(self, images: Tensor) -> Tensor:
        """The images (n, C, H, W), each with a deformation of its own."""
        number, _, height, width = images.shape
        grid, most = deformation_of(width)
        fields = random_deformations(
            number,
            height,
            width,
            grid if self.grid is None else self.grid,
            most if self.max_displacement is None else self.max_displacement,
            generator=torch.Generator().manual_seed(derived_seed(self.seed, "deformation")),
            device=images.device,
        )
        return deform(images, fields)


@dataclass(frozen=True)
class FilterSmoothness:
    """`filter_total_variation` of each spatial convolution, its component, at initialisation, along the epochs and at
    the end; the row without a component is the mean over them, none where a layer has no value. [reading] Square
    filters of odd size from 3 on: those of 2×2 that downsample have another value at
    initialisation, and are none of the paper's layers."""

    every: int = 0
    """Epochs from one measurement to the next; 0: at initialisation and at the end alone."""

    def __post_init__(self) -> None:
        _check_every(self.every)

    @staticmethod
    def is_detail(metric: str, component: str) -> bool:
        """Whether a row of this metric is left out of a sweep's summary: layers are too many for it."""
        return metric == "filter_total_variation" and bool(component)

    def measure(self, moment: Moment) -> Measured:
        if not _is_due(moment, self.every):
            return Measured()
        found = {
            name: float(filter_total_variation(convolution.weight.detach().double()))
            for name, convolution in spatial_convolutions(moment.model)
        }
        if found:
            found[""] = sum(found.values()) / len(found)
        return Measured({}, [_row("filter_total_variation", name, value) for name, value in found.items()])
