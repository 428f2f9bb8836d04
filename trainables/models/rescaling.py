"""A network's steps with DeepLIFT's multipliers in place of the gradients of its nonlinearities: see `deeplift` in
`trainables/metrics/explainers.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trainables.models.pooling import TopGapPooling
from trainables.models.tracing import (
    NONLINEAR_FUNCTIONS,
    NONLINEAR_LAYERS,
    NONLINEAR_METHODS,
    Step,
    Traced,
    trace,
)

EPSILON = 1e-10
"""Inputs that differ by less pass on the gradient."""

_LINEAR_LAYERS = (
    nn.Conv2d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Upsample,
    nn.Dropout,
    nn.Dropout2d,
)
_CHOOSING_LAYERS = (nn.MaxPool2d, nn.AdaptiveMaxPool2d, TopGapPooling)
_CHOOSING_FUNCTIONS = (F.max_pool2d, F.adaptive_max_pool2d, torch.max_pool2d)
_SUMS = (operator.add, operator.iadd, operator.sub, operator.isub, torch.add, torch.sub)
# linear in the first argument, where the others do not depend on the images
_LINEAR_FUNCTIONS = (
    *(F.conv2d, F.linear, F.batch_norm, F.avg_pool2d, F.adaptive_avg_pool2d, F.interpolate, F.pad),
    *(F.dropout, F.dropout2d, torch.mean, torch.sum, torch.flatten, torch.permute, torch.transpose, torch.reshape),
    *(torch.squeeze, torch.unsqueeze, torch.neg, operator.neg, operator.getitem, torch.chunk, torch.split),
    *(operator.mul, operator.imul, operator.truediv, operator.itruediv, torch.mul, torch.div),
)
_LINEAR_METHODS = (
    *("view", "reshape", "flatten", "permute", "transpose", "contiguous", "clone", "mean", "sum", "squeeze"),
    *("unsqueeze", "chunk", "split", "mul", "mul_", "div", "div_", "neg", "expand", "unflatten"),
)
_DIVISIONS = (operator.truediv, operator.itruediv, torch.div, "div", "div_")
_ALLOWED = "convolutions, linear layers, BatchNorm, pooling and element-wise nonlinearities"


def rescaled_logits(model: nn.Module, images: Tensor) -> Tensor:
    """The logits (B, D) of images (B, C, H, W), whose gradients are DeepLIFT's multipliers against an input of zeros.

    Raises `InputError` for a network that cannot be traced or has a step without a rule.
    """
    one, many = (trace(model, (number, *images.shape[1:]), "DeepLIFT") for number in (1, len(images)))
    reference = _Pass(one, None)
    with torch.no_grad():
        reference.run(torch.zeros_like(images[:1]))
    logits: Tensor = _Pass(many, reference.nonlinear).run(images)
    return logits


def _is_nonlinear(step: Step) -> bool:
    """Whether a step is an element-wise nonlinearity. Raises `InputError` for one that has no rule."""
    if not step.depends or step.node.op in ("placeholder", "get_attr"):
        return False
    target, method = step.node.target, step.node.op == "call_method"
    if step.layer is not None:
        known: Any = isinstance(step.layer, (*_LINEAR_LAYERS, *_CHOOSING_LAYERS))
        nonlinear = isinstance(step.layer, NONLINEAR_LAYERS)
    else:
        nonlinear = target in (NONLINEAR_METHODS if method else NONLINEAR_FUNCTIONS)
        known = target in (*_SUMS, torch.cat, torch.stack, *_CHOOSING_FUNCTIONS)
        known = known or (method and target in ("add", "add_", "sub", "sub_"))
        known = known or (target in (_LINEAR_METHODS if method else _LINEAR_FUNCTIONS) and _depends_on_one(step))
    if not (known or nonlinear):
        raise step.refused("which DeepLIFT has no rule for", _ALLOWED)
    return nonlinear


def _depends_on_one(step: Step) -> bool:
    """Whether one argument alone depends on the images, and is not divided by."""
    if len(step.depending) != 1:
        return False
    (node,) = step.depending
    divided_by = step.node.target in _DIVISIONS and step.node.args[0] is not node
    return not divided_by and [part for part in step.node.args if part is node] == [node]


class _Pass(fx.Interpreter):
    """A pass of the network, step by step. The first, of the reference, keeps what the nonlinearities are given and
    give; the second gives these the slope of the secant to it."""

    def __init__(self, traced: Traced, reference: list[tuple[Tensor, Tensor]] | None) -> None:
        super().__init__(traced.root, graph=traced.graph)
        self.steps, self.reference = traced.steps, reference
        self.nonlinear: list[tuple[Tensor, Tensor]] = []
        self.rules = {node: _is_nonlinear(step) for node, step in traced.steps.items()}

    def run_node(self, n: fx.Node) -> Any:
        if not self.rules.get(n, False):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        layer = self.steps[n].layer

        def function(x: Tensor) -> Any:
            rest = args[1:]
            if layer is not None:
                return layer(x, *rest, **kwargs)
            if n.op == "call_method":
                return getattr(x, str(n.target))(*rest, **kwargs)
            return n.target(x, *rest, **kwargs)  # type: ignore[operator]

        x: Tensor = args[0]
        given = x.clone() if layer is None or getattr(layer, "inplace", False) else x
        version = given._version
        output = function(given)
        overwritten = given._version != version
        if self.reference is None:
            self.nonlinear.append((x.clone() if overwritten else x, output))
        else:
            x0, output0 = self.reference[len(self.nonlinear)]
            self.nonlinear.append((x0, output0))
            relu = isinstance(layer, nn.ReLU) or n.target in (F.relu, F.relu_, torch.relu, torch.relu_)
            output = _with_secant(None if relu else function, x, output.detach(), x0, output0)
        if overwritten:
            first = n.args[0]
            assert isinstance(first, fx.Node)
            self.env[first] = output  # for whoever reads it after this step
        return output


def _with_secant(
    function: Callable[[Tensor], Tensor] | None, x: Tensor, output: Tensor, x0: Tensor, output0: Tensor
) -> Tensor:
    """The output, with Δoutput/Δinput for a gradient; no function: ReLU."""
    with torch.no_grad():
        difference = x - x0
        small = difference.abs() < EPSILON
        if function is None:
            slope = (x > 0).to(x.dtype)
        else:
            with torch.enable_grad():
                inputs = x.detach().requires_grad_(True)
                # a copy, which it may overwrite
                (slope,) = torch.autograd.grad(function(inputs.clone()).sum(), inputs)
        multiplier = torch.where(small, slope, (output - output0) / torch.where(small, 1, difference))
    return output + multiplier * (x - x.detach())
