"""Do filters have larger weights near their centre? The locality test of LOCO-REG's paper (Section 7.1, Equation 7.1).

`python -m trainables.metrics.locality` tests any network's.

For every slice w (k×k) of every convolution: s(w) = m(w, A) − m(w, B), the difference of the means over two classes of
elements, each a distance from the centre: centre and direct neighbours (c-n), direct neighbours and corners (n-co); for
5×5 filters also co-r4, r4-r5 and r5-r8, where r5 is at distance √5. s is divided by its standard deviation over the
layer's slices; m(A, B) is its mean over all slices of all layers, and a one-sided t-test asks whether it is above 0.
Weights are signed, as written.

Table 4 of the paper has m over all layers and over their lower and upper halves. [reading] The middle one of an odd
number of layers belongs to the upper half. In every row of Table 4, "all layers" is the mean of the two halves to the
printed digits, also for VGG16 with its 13 layers, of which the upper ones have most of the slices; a mean over all
slices, as Equation 7.1 has it, would lie near the upper half's. Either the halves are halves of the slices, in the
network's order, or "all" was averaged from the halves: the parts "lower-slices" and "upper-slices", of which the former
is true, are given beside "lower" and "upper", halves of the layers. Table 4 also has stars at negative means (−0.05,
−0.005), which a one-sided test of a mean above 0 cannot give; they have none here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from analysis.lazily import lazily
from trainables.lazily import torch
from trainables.loco_reg import (
    class_name,
    coefficients_in,
    distance_classes,
    is_spatial,
    spatial_convolutions,
    squared_distances,
    weight_ratios,
)
from trainables.metrics.moment import Measured, Moment

if TYPE_CHECKING:
    from scipy import stats
    from torch import Tensor
else:
    stats = lazily("scipy.stats")

PARTS = ("all", "lower", "upper", "lower-slices", "upper-slices")


@dataclass(frozen=True)
class LocalityResult:
    """m(A, B) of Equation 7.1 and its one-sided t-test against 0."""

    m: float
    """Mean of the slices' differences, each in standard deviations of its layer."""
    std: float
    """Their standard deviation (n − 1); nan for a single slice."""
    t: float
    p: float
    """One-sided: of a mean above 0."""
    n: int
    """Slices; those of layers in which all slices have the same difference are not counted, as it cannot be scaled."""

    @property
    def standard_error(self) -> float:
        return self.std / math.sqrt(self.n) if self.n else math.nan

    @property
    def stars(self) -> str:
        """The paper's: *** p < .001, ** p < .01, * p < .1."""
        return "***" if self.p < 0.001 else "**" if self.p < 0.01 else "*" if self.p < 0.1 else ""


def class_pairs(kernel_size: int) -> list[tuple[str, str]]:
    """Neighbouring distance classes, nearer first: (c, n), (n, co), and so on outwards."""
    names = [class_name(distance) for distance in distance_classes(kernel_size)]
    return list(itertools.pairwise(names))


def slice_differences(weight: Tensor) -> dict[tuple[str, str], NDArray[np.float64]]:
    """s(w, A, B) of every slice of a convolution's weight (out, in, k, k) over its standard deviation (over n) in the
    layer, float64 (out · in,), by pair of classes; empty where all slices have the same. `ValueError` for weights that
    are not finite."""
    slices = weight.detach().double().cpu().flatten(0, 1)
    if not bool(slices.isfinite().all()):
        raise InputError("weights: some are not finite, allowed are finite numbers")
    rounding = torch.finfo(weight.dtype).eps
    squared = squared_distances(weight.shape[-1])
    means = {class_name(d): slices[:, squared == d].mean(1) for d in distance_classes(weight.shape[-1])}
    found = {}
    for a, b in class_pairs(weight.shape[-1]):
        difference = (means[a] - means[b]).numpy()
        scale = max(float(means[a].abs().max()), float(means[b].abs().max()))
        deviation = difference.std()
        # the rounding of weights of their type is no spread
        found[a, b] = difference / deviation if deviation > 8 * rounding * scale else difference[:0]
    return found


def locality_test(weights: Sequence[Tensor], kernel_size: int = 3) -> dict[tuple[str, str], LocalityResult]:
    """The locality test over all slices of the convolutions of one size among `weights`, each (out, in, k, k), by pair:
    ("c", "n") and ("n", "co"), for larger filters also those further out (Equation 7.1).

    Others than square ones of `kernel_size` are left out. Raises `ValueError` where none is left, or for an even size.
    """
    pairs = class_pairs(kernel_size)
    chosen = [weight for weight in weights if is_spatial(weight) and weight.shape[-1] == kernel_size]
    if not chosen:
        raise InputError(f"weights: no convolution with {kernel_size}×{kernel_size} filters among {len(weights)}")
    differences = [slice_differences(weight) for weight in chosen]
    return {pair: _tested(np.concatenate([of[pair] for of in differences])) for pair in pairs}


def locality_by_part(
    layers: Mapping[str, Tensor], kernel_size: int = 3, *, halves: bool = True
) -> dict[tuple[str, tuple[str, str]], LocalityResult]:
    """`locality_test` of named layers in the network's order: over all, over halves (see the module's docstring; none
    of a single layer, nor without `halves`, for layers in another order), and of each layer by its name.

    Raises `ValueError`, naming the layer, for weights that are not finite.
    """
    chosen = {name: weight for name, weight in layers.items() if weight.shape[-1] == kernel_size}
    differences = {}
    for name, weight in chosen.items():
        try:
            differences[name] = slice_differences(weight)
        except ValueError as error:
            raise InputError(f"layer {name}: {error}") from None
    names = list(chosen)
    found = {}
    for pair in class_pairs(kernel_size):
        every = [differences[name][pair] for name in names]
        joined = np.concatenate(every)
        parts = {"all": joined}
        if len(names) > 1 and halves:
            half, middle = len(names) // 2, len(joined) // 2
            parts |= {"lower": np.concatenate(every[:half]), "upper": np.concatenate(every[half:])}
            parts |= {"lower-slices": joined[:middle], "upper-slices": joined[middle:]}
        for part, values in [*parts.items(), *zip(names, every, strict=True)]:
            found[part, pair] = _tested(values)
    return found


def _tested(values: NDArray[np.float64]) -> LocalityResult:
    number = len(values)
    if number < 2 or np.ptp(values) == 0:
        mean = float(values.mean()) if number else math.nan
        return LocalityResult(mean, math.nan, math.nan, math.nan, number)
    test = stats.ttest_1samp(values, 0.0, alternative="greater")
    deviation = float(values.std(ddof=1))
    return LocalityResult(float(values.mean()), deviation, float(test.statistic), float(test.pvalue), number)


@dataclass(frozen=True)
class Locality:
    """The locality test of the network's filters at initialisation and at the end; the ratios from which LOCO-REG takes
    the coefficients of its layers (Table 6), and the coefficients of a network that it regularises.

    Rows: `locality` (m, with the standard deviation over slices), `locality_t` and `locality_p` for "c-n/all",
    "n-co/lower", "c-n/<layer>", …, with "5x5/" before those of 5×5 filters; `weight_ratio` and `weight_ratio_absolute`
    for "n-c/<layer>", …; `gamma` and `eta` for each layer, those beyond distance √2 with the distance as level.
    """

    def is_detail(self, metric: str, component: str) -> bool:
        """Whether a row of this metric is left out of a sweep's summary: layers are too many for it."""
        own = ("locality_t", "locality_p", "weight_ratio", "weight_ratio_absolute", "gamma", "eta")
        return metric in own or (metric == "locality" and not component.endswith(("/all", "/lower", "/upper")))

    def measure(self, moment: Moment) -> Measured:
        measured = Measured()
        # on the validation split at the beginning, on the test split at the end: the weights have no splits
        if not (moment.epoch == 0 or (moment.last and moment.split == "test")):
            return measured
        layers = {name: module.weight for name, module in spatial_convolutions(moment.model)}
        for size in sorted({weight.shape[-1] for weight in layers.values()}):
            prefix = "" if size == 3 else f"{size}x{size}/"
            for (part, (a, b)), result in locality_by_part(layers, size).items():
                of = {"component": f"{prefix}{a}-{b}/{part}", "n": result.n}
                measured.measurements += [
                    _row("locality", result.m, **of, std=result.std, unit="standard deviations of the layer"),
                    _row("locality_t", result.t, **of),
                    _row("locality_p", result.p, **of),
                ]
        for name, weight in layers.items():
            slices = weight.shape[0] * weight.shape[1]
            for absolute in (False, True):
                metric = "weight_ratio_absolute" if absolute else "weight_ratio"
                for pair, ratio in weight_ratios(weight, absolute=absolute).items():
                    measured.measurements.append(_row(metric, ratio, component=f"{pair}/{name}", n=slices))
        for name, coefficients in coefficients_in(moment.model):
            for distance, value in coefficients:
                level = math.sqrt(distance) if distance > 2 else None
                metric = "gamma" if distance == 0 else "eta"
                measured.measurements.append(_row(metric, value, component=name, level=level))
        return measured


def _row(metric: str, value: float, **rest: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"metric": metric, "component": "", "level": None, "value": value, "std": None, "n": None}
    row |= {"unit": "", "direction": "none", **rest}
    return {key: None if isinstance(entry, float) and math.isnan(entry) else entry for key, entry in row.items()}
