"""LOCO-REG: weight decay that depends on a weight's distance from the centre of its filter.

Paper: Schneider, "Locality-Promoting Representation Learning" (Section 6, Equation 6.1; Section 7.2, Table 6). For a
3×3 slice w of a convolution, with centre c, direct neighbours n and corners co, the loss has the term

    λ/Z · (γ·w_c² + Σ_n w_n² + η·Σ_co w_co²),    Z = (γ + 4(1 + η))/9

so that the coefficients are 1 on average, and (γ, η) = (1, 1) is plain L2, which all other parameters have. The loss
has λ·w² where PyTorch's optimisers take `weight_decay` = 2λ: the penalty's gradient is coefficient · weight_decay · w,
of which the optimiser adds weight_decay · w and this method the rest.

[reading] Other odd sizes have a coefficient for each distance d from the centre. The paper has 3×3 alone: where only γ
and η are given, those beyond go on as the power of the distance that gives 1 at distance 1 and η at √2, so that
η = 2 gives d²: for 5×5, 4 at 2, 5 at √5 and 8 at √8, before they are divided by their mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from analysis.command_line import InputError
from trainables.lazily import nn, torch
from trainables.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data import Images, StreamedImages

Variant = Literal["fixed", "signed", "absolute", "signed-printed", "absolute-printed"]


# --- distances from a filter's centre --------------------------------------------------------------------------------


def squared_distances(kernel_size: int) -> Tensor:
    """Squared distance of each element of a k×k filter from its centre, int64 (k, k). `ValueError` for an even k."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: {kernel_size}, allowed are odd whole numbers")
    offsets = torch.arange(kernel_size) - kernel_size // 2
    return offsets[:, None] ** 2 + offsets[None, :] ** 2


def distance_classes(kernel_size: int) -> list[int]:
    """The squared distances that occur, rising: 0, 1, 2 for 3×3; 0, 1, 2, 4, 5, 8 for 5×5."""
    return sorted(set(squared_distances(kernel_size).flatten().tolist()))


def class_name(squared_distance: int) -> str:
    """The paper's name of a distance class: c (centre), n (direct neighbours), co (the corners of 3×3); beyond them
    "r4" is at distance √4, "r5" at √5, …"""
    return {0: "c", 1: "n", 2: "co"}.get(squared_distance, f"r{squared_distance}")


def spatial_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """The convolutions whose filters have a centre and something around it, square and of odd size from 3 on, by name,
    in the order in which the network defines them; depth-wise ones too."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and is_spatial(module.weight)
    ]


def is_spatial(weight: Tensor) -> bool:
    """Whether a tensor is the weight of such a convolution, by its shape (out, in, k, k)."""
    return weight.ndim == 4 and weight.shape[2] == weight.shape[3] and weight.shape[2] >= 3 and weight.shape[2] % 2 == 1


# --- the penalty -----------------------------------------------------------------------------------------------------


def locality_coefficients(kernel_size: int, gamma: float, eta: float | Sequence[float]) -> Tensor:
    """What the squares of a k×k filter's weights are multiplied by, before λ (Equation 6.1): float64 (k, k), mean 1.

    `gamma` is the centre's, relative to the direct neighbours' 1; `eta` that of distance √2, or one number for every
    distance from √2 on, nearest first (one for 3×3, four for 5×5). With one number for a larger filter those beyond go
    on as a power of the distance, see the module's docstring. All are finite and at least 0.

    Raises `ValueError` for an even size, coefficients out of range, and too many or too few of them.
    """
    classes = distance_classes(kernel_size)
    outer = [distance for distance in classes if distance >= 2]
    etas = [eta] if isinstance(eta, (int, float)) else list(eta)
    for name, value in [("gamma", gamma), *(("eta", value) for value in etas)]:
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name}: {value}, allowed are finite numbers of at least 0")
    if len(etas) == 1 and len(outer) > 1:
        # d^p = η at d = √2: the squared distance to the power log₂ η
        try:
            etas = [distance ** math.log2(etas[0]) if etas[0] > 0 else 0.0 for distance in outer]
        except OverflowError:
            raise InputError(f"eta: {etas[0]}, too large to go on with it in {kernel_size}×{kernel_size}") from None
    if len(etas) != len(outer) and kernel_size > 1:
        raise InputError(f"eta: {len(etas)} numbers, allowed are 1 and {len(outer)} for {kernel_size}×{kernel_size}")
    of_class = dict(zip(classes, [gamma, 1.0, *etas], strict=False)) if kernel_size > 1 else {0: 1.0}
    squared = squared_distances(kernel_size)
    coefficients = torch.zeros(kernel_size, kernel_size, dtype=torch.float64)
    for distance, value in of_class.items():
        coefficients[squared == distance] = value
    return coefficients / coefficients.mean()


def locality_penalty(weight: Tensor, gamma: float, eta: float | Sequence[float], weight_decay: float) -> Tensor:
    """The term of one convolution in the loss (Equation 6.1, summed over its slices), a scalar.

    `weight` (out, in, k, k), k odd; `weight_decay` is the paper's λ (5e-4 there), half of what PyTorch's optimisers
    call so. Raises `ValueError` as `locality_coefficients` does.
    """
    coefficients = locality_coefficients(weight.shape[-1], gamma, eta).to(weight)
    return weight_decay * (coefficients * weight.square()).sum()


# --- coefficients of each layer from networks trained with plain L2 ---------------------------------------------------


def weight_ratios(weight: Tensor, *, absolute: bool = False) -> dict[str, float]:
    """Σ_w m(w, A) / Σ_w m(w, B) over the slices w of a convolution (Table 6), by the pair's names "A-B": "n-c", "n-co",
    and for every distance from √2 on its ratio to the direct neighbours, "co-n", "r4-n", …; nan for a sum of 0 below.

    m(w, A) is the mean of w over the elements of class A, with `absolute` that of |w|.
    """
    values = weight.detach().double()
    if absolute:
        values = values.abs()
    squared = squared_distances(weight.shape[-1]).to(values.device)
    mean = values.mean(dim=(0, 1))
    sums = {class_name(d): float(mean[squared == d].mean()) for d in distance_classes(weight.shape[-1])}
    pairs = [("n", "c"), ("n", "co"), *((name, "n") for name in list(sums)[2:])]
    return {f"{a}-{b}": sums[a] / sums[b] if sums[b] else math.nan for a, b in pairs}


def modulated(ratio: float, modulation: float) -> float:
    """a(r, c) = 1 + c·(r − 1) (Table 6)."""
    return 1 + modulation * (ratio - 1)


def layer_coefficients(
    networks: Sequence[Mapping[str, Mapping[str, float]]], modulation: float, *, printed: bool = False
) -> tuple[tuple[float, ...], ...]:
    """(γ_l, η_l) of each layer from its ratios, averaged over networks (Table 6); of 5×5 filters γ_l and one η_l for
    each distance from √2 on.

    `networks` have for each layer, in order, what `weight_ratios` names. γ_l = a(r(l, n, c), c). [reading] Table 6
    prints η_l = 1/a(r(l, n, co), c), which regularises corners less where they are weaker, against the paper's own
    argument: it is used with `printed` (3×3 only), and 1/a(r(l, co, n), c) otherwise.

    Raises `ValueError`, naming the layer, where a ratio of one of the networks, or what follows from their mean, is not
    a positive number: a mean of 7 and −5 says nothing.
    """
    found = []
    for layer, pairs_of in networks[0].items():
        outer = [pair for pair in pairs_of if pair.endswith("-n")]
        if printed and len(outer) > 1:
            raise InputError(f"layer {layer}: filters larger than 3×3, allowed with the printed form of η is 3×3")
        values = []
        for pair in ["n-c", "n-co"] if printed else ["n-c", *outer]:
            ratios = [network[layer][pair] for network in networks]
            mean = sum(ratios) / len(ratios)
            value = modulated(mean, modulation)
            name = f"r({pair.replace('-', ', ')})"
            bad = next((ratio for ratio in ratios if not (math.isfinite(ratio) and ratio > 0)), None)
            if bad is not None:
                raise InputError(f"layer {layer}: {name} = {bad:.3g} in one of {len(ratios)} networks, {_ALLOWED}")
            if value <= 0:
                raise InputError(
                    f"layer {layer}: {name} = {mean:.3g}, of which c = {modulation:g} makes {value:.3g}, {_ALLOWED}"
                )
            values.append(value)
        found.append((values[0], *(1 / value for value in values[1:])))
    return tuple(found)


_ALLOWED = "allowed are numbers above 0"


# --- the method ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocoReg(Method):
    """LOCO-REG with fixed (γ, η), or with coefficients of each layer that come from networks trained with plain L2."""

    name: ClassVar[str] = "loco_reg"
    metrics: ClassVar[tuple[str, ...]] = ("locality",)

    gamma: float | None = None
    """γ of all layers, at least 0; None: see `layers`."""
    eta: float | None = None
    """η of all layers, at least 0."""
    modulation: float | None = None
    """c, with which the ratios were turned into `layers` (Table 6)."""
    variant: Variant = "fixed"
    """fixed: γ and η are given. Otherwise where `layers` come from: sums of signed weights, or of their magnitudes;
    "-printed": with η in the form that Table 6 prints."""
    layers: tuple[tuple[float, ...], ...] = ()
    """For each spatial convolution, in order: γ_l, and η_l for every distance from √2 on, nearest first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(tuple(float(value) for value in layer) for layer in self.layers))
        if self.variant not in get_args(Variant):
            raise InputError(f"variant: {self.variant!r}, allowed are {', '.join(get_args(Variant))}")
        fixed = self.variant == "fixed"
        for name in ("gamma", "eta"):
            value = getattr(self, name)
            if (value is None) == fixed:
                raise InputError(
                    f"{name}: {value}, allowed with variant {self.variant} is {'a number' if fixed else 'none'}"
                )
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name}: {value}, allowed are finite numbers of at least 0")
        if fixed and (self.layers or self.modulation is not None):
            raise InputError("layers, modulation: given, allowed with variant fixed are neither")
        if not fixed:
            if not self.layers:
                raise InputError(f"layers: none, allowed with variant {self.variant} are those of a first stage")
            if self.modulation is None or not (math.isfinite(self.modulation) and self.modulation > 0):
                raise InputError(f"modulation: {self.modulation}, allowed are finite numbers above 0")
            for layer in self.layers:
                if len(layer) < 2 or not all(math.isfinite(value) and value >= 0 for value in layer):
                    raise InputError(f"layers: {layer}, allowed are γ and η, finite and at least 0")

    def build(self, model: nn.Module, data: Images | StreamedImages) -> nn.Module:
        """The same network; each spatial convolution holds its coefficients less 1, in the shape of its weight."""
        convolutions = spatial_convolutions(model)
        if not convolutions:
            raise InputError("method loco_reg: a network without square filters of odd size from 3 on has no locality")
        if self.layers and len(self.layers) != len(convolutions):
            raise InputError(f"layers: {len(self.layers)}, allowed with this network are {len(convolutions)}")
        for index, (name, convolution) in enumerate(convolutions):
            gamma, *etas = self.layers[index] if self.layers else (self.gamma or 0.0, self.eta or 0.0)
            try:
                coefficients = locality_coefficients(convolution.weight.shape[-1], gamma, etas)
            except ValueError as error:
                raise InputError(f"layer {name}: {error}") from None
            excess = torch.empty_like(convolution.weight.detach()).copy_(coefficients - 1)
            convolution.register_buffer(_BUFFER, excess, persistent=False)
        return model

    def adjust_gradients(self, model: nn.Module, weight_decay: float) -> None:
        """Add what Equation 6.1 has beyond plain L2, which the optimiser adds: (coefficient − 1) · weight_decay · w."""
        gradients: list[Tensor] = []
        weights: list[Tensor] = []
        excesses: list[Tensor] = []
        for module in model.modules():
            excess = module._buffers.get(_BUFFER)
            if excess is not None:
                weight = module._parameters["weight"]
                assert weight is not None
                assert weight.grad is not None
                gradients.append(weight.grad)
                weights.append(weight.detach())
                excesses.append(excess)
        torch._foreach_addcmul_(gradients, weights, excesses, weight_decay)


_BUFFER = "locality_excess"


def coefficients_in(model: nn.Module) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Of a model that the method has changed: each spatial convolution's name, and its coefficients relative to the
    direct neighbours' by squared distance, γ_l at 0 and η_l from 2 on."""
    for name, convolution in spatial_convolutions(model):
        excess = convolution._buffers.get(_BUFFER)
        if excess is None:
            continue
        coefficients = excess[0, 0].double().cpu() + 1
        squared = squared_distances(coefficients.shape[-1])
        of = {d: float(coefficients[squared == d][0]) for d in distance_classes(coefficients.shape[-1])}
        yield name, [(distance, value / of[1]) for distance, value in of.items() if distance != 1]
