"""The paths of a network from its outputs to each pixel, counted on its graph (PILCRO, Proposition 1): see
`path_importance` in `trainables/pilcro.py`.

What is looked for is the sum over outputs of E[(∂output/∂x)²]. From the outputs back, a layer of random weights of mean
zero and variance V gives each of its inputs V times the sum over the outputs that it reaches: all its paths differ in a
weight, so that nothing remains of their products. Paths that differ in layers without weights alone have the same
weights, and are added before they are squared. So a tensor of the graph is not described by a number for each entry,
but by what leads from it to the next tensors with such a number (`_Way`): sums of linear maps without weights, which
act on each channel alike, along rows and columns apart (as pooling, subsampling and enlarging do), with a gain.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trainables.models.blocks import Subsample
from trainables.models.pooling import TopGapPooling
from trainables.models.tracing import (
    NONLINEAR_FUNCTIONS,
    NONLINEAR_LAYERS,
    NONLINEAR_METHODS,
    Step,
    Traced,
    trace,
)

_ALLOWED = "convolutions, linear layers, BatchNorm, pooling layers, sums and element-wise nonlinearities"
_WHY = "whose paths cannot be counted"

_UNCHANGED_LAYERS = (*NONLINEAR_LAYERS, nn.Identity, nn.Dropout, nn.Dropout2d)
_UNCHANGED_FUNCTIONS = (*NONLINEAR_FUNCTIONS, F.dropout, F.dropout2d)
_UNCHANGED_METHODS = (*NONLINEAR_METHODS, "contiguous", "clone")
_SUMS = (operator.add, operator.iadd, torch.add)
_SCALINGS = (operator.mul, operator.imul, operator.truediv, operator.itruediv, torch.mul, torch.div)


@dataclass(frozen=True)
class _End:
    """A tensor (C, H, W), or (C, 1, 1) for vectors, whose expected squared gradients are known, but for what reaches
    it in other ways. Negative ones take back what another end has too much."""

    squares: Tensor


@dataclass(frozen=True)
class _Way:
    """A linear map from a tensor (c, h, w) to some channels of an end, from `first` on: gain · (rows x columnsᵀ)."""

    end: _End
    first: int
    gain: Tensor
    """(c, 1, 1), or of the shape of these channels at the end."""
    rows: Tensor | None = None
    """(H of the end, h); None: the identity."""
    columns: Tensor | None = None

    def after(self, rows: Tensor | None, columns: Tensor | None) -> _Way:
        """The way that begins before a map along rows and columns."""
        return replace(self, rows=_product(self.rows, rows), columns=_product(self.columns, columns))

    def with_gain(self, gain: Tensor | float) -> _Way:
        return replace(self, gain=self.gain * gain)


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left @ right


def _squares(ways: Sequence[_Way], shape: tuple[int, int, int]) -> Tensor:
    """The expected squared gradients of a tensor (c, h, w), from its ways: the maps to an end are added, then squared,
    which is the sum over all pairs of them."""
    total = torch.zeros(shape, dtype=torch.float64)
    for index, way in enumerate(ways):
        for other in ways[index:]:
            if other.end is not way.end or other.first != way.first:
                continue
            found = way.end.squares[way.first : way.first + shape[0]] * way.gain * other.gain
            for dim, (left, right) in enumerate(((way.rows, other.rows), (way.columns, other.columns)), 1):
                if left is not None or right is not None:
                    size = found.shape[dim]
                    both = _dense(left, size) * _dense(right, size)
                    found = torch.einsum("chw,hk->ckw" if dim == 1 else "chw,wk->chk", found, both)
            total += found * (1 if other is way else 2)
    return total


def _dense(matrix: Tensor | None, size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64) if matrix is None else matrix


def path_squares(model: nn.Module, image: tuple[int, int, int]) -> Tensor:
    """The expected squared gradients of the sum of squares over outputs at each value of an image (C, H, W), float64,
    up to a factor. Raises `InputError` for a network with a step whose paths cannot be counted."""
    traced = trace(model, (1, *image), "counting paths")
    return _Count(traced).squares()


class _Count:
    """One walk over the graph from the output to the image."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.ways: dict[fx.Node, list[_Way]] = {}
        self.weights: set[int] = set()
        self._unflat: dict[tuple[int, int, tuple[int, int, int]], tuple[_End, _End]] = {}

    def squares(self) -> Tensor:
        output = self.traced.steps[self.traced.output]
        self._add(output.node, [self._end(torch.ones(self._shape(output), dtype=torch.float64))])
        last: Tensor | None = None
        for step in reversed(self.traced.steps.values()):
            ways = self.ways.pop(step.node, [])
            if not step.depends or not ways:
                continue
            if step.node.op == "placeholder":
                last = _squares(ways, self._shape(step))
            else:
                self._through(step, ways)
        if last is None:
            raise output.refused("whose output has no path to the image", _ALLOWED)
        return last

    def _shape(self, step: Step) -> tuple[int, int, int]:
        """Of a step's tensor as a map: vectors are maps of one pixel."""
        shape = step.shape
        if shape is None or len(shape) not in (2, 4) or shape[0] != 1:
            raise step.refused(_WHY, f"{_ALLOWED}, on images (B, C, H, W) and vectors (B, C)")
        return (shape[1], shape[2], shape[3]) if len(shape) == 4 else (shape[1], 1, 1)

    @staticmethod
    def _end(squares: Tensor) -> _Way:
        return _Way(_End(squares), 0, torch.ones(len(squares), 1, 1, dtype=torch.float64))

    def _add(self, node: fx.Node, ways: Sequence[_Way]) -> None:
        self.ways.setdefault(node, []).extend(ways)

    def _input(self, step: Step) -> Step:
        """The only tensor of the images' that a step is given, as its first argument."""
        first = step.node.args[0] if step.node.args else None
        if not isinstance(first, fx.Node) or step.depending != {first}:
            raise step.refused(_WHY, _ALLOWED)
        return self.traced.steps[first]

    # --- steps --------------------------------------------------------------------------------------------------------

    def _through(self, step: Step, ways: list[_Way]) -> None:
        """Give what a step is made of its ways."""
        target = step.node.target
        if step.layer is not None:
            self._through_layer(step, step.layer, ways)
        elif target in _SUMS or (step.node.op == "call_method" and target in ("add", "add_")):
            self._sum(step, ways)
        elif target is torch.cat:
            self._concatenation(step, ways)
        elif target in _SCALINGS:
            self._scaling(step, ways)
        elif target is F.batch_norm:
            self._normalisation(step, ways, *self._arguments(step))
        elif target is F.interpolate:
            rows, columns = self._enlarging(step)
            self._add(self._input(step).node, [way.after(rows, columns) for way in ways])
        elif target in (torch.flatten, "flatten", "view", "reshape"):
            self._flattening(step, ways)
        elif target in _UNCHANGED_FUNCTIONS or (step.node.op == "call_method" and target in _UNCHANGED_METHODS):
            self._add(self._input(step).node, ways)
        else:
            raise step.refused(_WHY, _ALLOWED)

    def _through_layer(self, step: Step, layer: nn.Module, ways: list[_Way]) -> None:
        given = self._input(step)
        before, after = self._shape(given), self._shape(step)
        height, width = before[1:]
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if id(layer.weight) in self.weights:
                raise step.refused(f"{_WHY}, as its weights are used twice", _ALLOWED)
            self.weights.add(id(layer.weight))
            variance = float(layer.weight.detach().double().square().mean())
            squares = _squares(ways, after)
            if isinstance(layer, nn.Linear):
                if given.shape is None or len(given.shape) != 2:
                    raise step.refused(_WHY, f"{_ALLOWED}; of linear layers those on vectors (B, C)")
                found = squares.sum().expand(before)
            else:
                found = _behind_convolution(layer, squares, before)
            self._add(given.node, [self._end(variance * found)])
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            self._normalisation(step, ways, layer.running_mean, layer.running_var, layer.weight, layer.eps)
        elif isinstance(layer, nn.AvgPool2d):
            rows, columns = (_average_pooling(layer, dim, size) for dim, size in enumerate((height, width)))
            gain = 1.0
            if layer.divisor_override is not None:
                rows, columns, gain = (rows > 0).double(), (columns > 0).double(), 1 / layer.divisor_override
            self._add(given.node, [way.after(rows, columns).with_gain(gain) for way in ways])
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            rows, columns = (_adaptive(size, smaller) for size, smaller in zip(before[1:], after[1:], strict=True))
            self._add(given.node, [way.after(rows, columns) for way in ways])
        elif isinstance(layer, Subsample):
            rows, columns = (_every_other(size) for size in (height, width))
            self._add(given.node, [way.after(rows, columns) for way in ways])
        elif isinstance(layer, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            self._maximum(step, layer, given, ways)
        elif isinstance(layer, TopGapPooling):
            self._top_gap(layer, given, ways)
        elif isinstance(layer, nn.Upsample):
            rows, columns = _resizing(before, after, layer.mode, layer.align_corners, layer.scale_factor, step)
            self._add(given.node, [way.after(rows, columns) for way in ways])
        elif isinstance(layer, nn.Flatten):
            self._flattening(step, ways)
        elif isinstance(layer, _UNCHANGED_LAYERS):
            self._add(given.node, ways)
        else:
            raise step.refused(_WHY, _ALLOWED)

    def _sum(self, step: Step, ways: list[_Way]) -> None:
        if step.node.kwargs or len(step.node.args) != 2:
            raise step.refused(_WHY, _ALLOWED)
        for part in step.node.args:
            if isinstance(part, fx.Node) and self.traced.steps[part].depends:
                if self.traced.steps[part].shape != step.shape:
                    raise step.refused(f"{_WHY}, of tensors of different shapes", _ALLOWED)
                self._add(part, ways)

    def _concatenation(self, step: Step, ways: list[_Way]) -> None:
        parts: Any = step.node.args[0]
        dim = step.node.args[1] if len(step.node.args) > 1 else step.node.kwargs.get("dim", 0)
        if dim != 1 or step.node.kwargs.keys() - {"dim"}:
            raise step.refused(_WHY, f"{_ALLOWED}, and torch.cat along channels")
        first = 0
        for part in parts:
            given = self.traced.steps[part]
            channels = self._shape(given)[0]
            own = slice(first, first + channels)
            self._add(part, [replace(way, first=way.first + first, gain=way.gain[own]) for way in ways])
            first += channels

    def _scaling(self, step: Step, ways: list[_Way]) -> None:
        """Times or over a number."""
        divides = step.node.target in (operator.truediv, operator.itruediv, torch.div)
        given = [part for part in step.node.args if isinstance(part, fx.Node)]
        factors = [part for part in step.node.args if isinstance(part, int | float)]
        if (len(given), len(factors)) != (1, 1) or step.node.kwargs or (divides and step.node.args[0] is not given[0]):
            raise step.refused(_WHY, _ALLOWED)
        self._add(given[0], [way.with_gain(1 / factors[0] if divides else factors[0]) for way in ways])

    def _arguments(self, step: Step) -> tuple[Any, Any, Any, float]:
        """Running mean and variance, weight and ε of a call of F.batch_norm."""
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = {**dict(zip(names, step.node.args, strict=False)), **step.node.kwargs}
        own: list[Any] = []
        for name in ("running_mean", "running_var", "weight"):
            node = given.get(name)
            own.append(None if node is None else self.traced.attribute(node))  # type: ignore[arg-type]
        if given.get("training"):
            own[1] = None
        return own[0], own[1], own[2], float(given.get("eps", 1e-5))  # type: ignore[arg-type]

    def _normalisation(self, step: Step, ways: list[_Way], _mean: Any, variance: Any, weight: Any, eps: float) -> None:
        if variance is None:
            raise step.refused(f"{_WHY} without running statistics", _ALLOWED)
        first = step.node.args[0]
        assert isinstance(first, fx.Node)
        gain = torch.rsqrt(variance.detach().double().cpu() + eps)
        if weight is not None:
            gain = gain * weight.detach().double().cpu()
        self._add(first, [way.with_gain(gain.reshape(-1, 1, 1)) for way in ways])

    def _enlarging(self, step: Step) -> tuple[Tensor, Tensor]:
        names = ("input", "size", "scale_factor", "mode", "align_corners")
        given = {**dict(zip(names, step.node.args, strict=False)), **step.node.kwargs}
        before, after = self._shape(self._input(step)), self._shape(step)
        mode = given.get("mode", "nearest")
        return _resizing(before, after, mode, given.get("align_corners"), given.get("scale_factor"), step)

    def _flattening(self, step: Step, ways: list[_Way]) -> None:
        """From maps (1, C, H, W) to a vector (1, C·H·W), or no change at all."""
        node = step.node.args[0]
        assert isinstance(node, fx.Node)
        given = self.traced.steps[node]
        before = self._shape(given)
        if given.shape == step.shape:
            self._add(node, ways)
            return
        if step.shape != (1, math.prod(before)):
            raise step.refused(_WHY, f"{_ALLOWED}, and flattening to vectors (B, C·H·W)")
        self._add(node, [self._unflattened(way, before) for way in ways])

    def _unflattened(self, way: _Way, shape: tuple[int, int, int]) -> _Way:
        size = math.prod(shape)
        own = way.end.squares[way.first : way.first + size].reshape(shape)
        key = (id(way.end), way.first, shape)
        # the same end for all ways to it, so that they are added before they are squared
        end = self._unflat.setdefault(key, (way.end, _End(own)))[1]
        return _Way(end, 0, way.gain.expand(size, 1, 1).reshape(shape))

    # --- what chooses among its inputs --------------------------------------------------------------------------------

    def _maximum(self, step: Step, layer: nn.MaxPool2d | nn.AdaptiveMaxPool2d, given: Step, ways: list[_Way]) -> None:
        """One of the n inputs of a window passes, each with probability 1/n, windows independently: on average like
        average pooling, and of one window no two."""
        before, after = self._shape(given), self._shape(step)
        if isinstance(layer, nn.AdaptiveMaxPool2d):
            rows, columns = (_adaptive(size, smaller) for size, smaller in zip(before[1:], after[1:], strict=True))
        elif layer.dilation in (1, (1, 1)):
            rows, columns = (_max_pooling(layer, dim, size) for dim, size in enumerate(before[1:]))
        else:
            raise step.refused(_WHY, _ALLOWED)
        squares = _squares(ways, after)
        self._add(given.node, [way.after(rows, columns) for way in ways])
        self._add(given.node, [self._end(-squares).after(rows, columns)])
        self._add(given.node, [self._end(torch.einsum("hk,chw,wl->ckl", rows, squares, columns))])

    def _top_gap(self, layer: TopGapPooling, given: Step, ways: list[_Way]) -> None:
        """k of n inputs pass with weight 1/k, every k of them equally likely: two of them do with probability
        k(k − 1)/(n(n − 1))."""
        before = self._shape(given)
        number = before[1] * before[2]
        k = layer.pixels_of(torch.empty(1, *before, device="meta"))
        both = (k - 1) / (k * number * (number - 1)) if number > 1 else 1.0
        squares = _squares(ways, (before[0], 1, 1))
        rows, columns = (_adaptive(size, 1) for size in before[1:])
        self._add(given.node, [way.after(rows, columns) for way in ways])
        self._add(given.node, [self._end((both * number**2 - 1) * squares).after(rows, columns)])
        self._add(given.node, [self._end((1 / (k * number) - both) * squares.expand(before))])


# --- layers along one axis --------------------------------------------------------------------------------------------


def _along(size: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The matrix (outputs, size) of a linear function of one axis, (N, 1, size) to (N, 1, outputs)."""
    return function(torch.eye(size, dtype=torch.float64).unsqueeze(1)).squeeze(1).T


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _average_pooling(layer: nn.AvgPool2d, dim: int, size: int) -> Tensor:
    kernel, stride, padding = (_pair(value)[dim] for value in (layer.kernel_size, layer.stride, layer.padding))
    include = layer.count_include_pad
    return _along(size, lambda x: F.avg_pool1d(x, kernel, stride, padding, layer.ceil_mode, include))


def _max_pooling(layer: nn.MaxPool2d, dim: int, size: int) -> Tensor:
    """Probabilities: padding is no candidate."""
    kernel, stride, padding = (_pair(value)[dim] for value in (layer.kernel_size, layer.stride, layer.padding))
    return _along(size, lambda x: F.avg_pool1d(x, kernel, stride, padding, layer.ceil_mode, False))


def _adaptive(size: int, outputs: int) -> Tensor:
    return _along(size, lambda x: F.adaptive_avg_pool1d(x, outputs))


def _every_other(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)[: size // 2 * 2 : 2]


def _resizing(
    before: tuple[int, int, int], after: tuple[int, int, int], mode: Any, align_corners: Any, scale: Any, step: Step
) -> tuple[Tensor, Tensor]:
    # a scale that gives no whole number of pixels is not that of the sizes
    uneven = scale is not None and any(outputs % size for size, outputs in zip(before[1:], after[1:], strict=True))
    if mode not in ("nearest", "bilinear") or uneven:
        raise step.refused(_WHY, f"{_ALLOWED}, and enlarging, nearest or bilinear, to a size or by a whole number")
    options: dict[str, Any] = {"mode": "nearest"}
    if mode == "bilinear":
        options = {"mode": "linear", "align_corners": align_corners}
    rows, columns = (
        _along(size, lambda x, outputs=outputs: F.interpolate(x, outputs, **options))  # type: ignore[misc]
        for size, outputs in zip(before[1:], after[1:], strict=True)
    )
    return rows, columns


def _behind_convolution(layer: nn.Conv2d, squares: Tensor, before: tuple[int, int, int]) -> Tensor:
    """For each input of a convolution the sum of the squares of the outputs that it reaches, once for each weight."""
    groups = layer.groups
    sums = squares.reshape(groups, -1, *squares.shape[1:]).sum(1, keepdim=True)
    kernel = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)

    def reached(inputs: Tensor) -> Tensor:
        padding: Any = layer.padding
        if layer.padding_mode != "zeros":
            inputs = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
            padding = 0
        return F.conv2d(inputs, kernel, None, layer.stride, padding, layer.dilation)

    inputs = torch.zeros(groups, 1, *before[1:], dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(reached(inputs), inputs, sums)
    return found.expand(-1, before[0] // groups, -1, -1).reshape(before)
