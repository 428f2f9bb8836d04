"""Layers that are piecewise linear, for a gradient that is differentiated again."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FirstOrder(TorchFunctionMode):
    """ReLU and BatchNorm with fixed statistics written so that autograd sees that their second derivative is zero.

    When a gradient is differentiated again, torch's own formulas hand explicit zeros back through the whole forward
    pass, which costs as much as other numbers would. Values and gradients are equal.
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if function in (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_):
            return arguments[0] * (arguments[0] > 0).to(arguments[0].dtype)  # faster than torch.where
        if function is F.batch_norm:
            call = _BATCH_NORM.bind(*arguments, **named)
            call.apply_defaults()
            if not call.arguments["training"]:
                return _affine_batch_norm(call.arguments)
        return function(*arguments, **named)


_BATCH_NORM = inspect.signature(F.batch_norm)


def _affine_batch_norm(call: dict[str, Any]) -> Tensor:
    """BatchNorm in evaluation mode as what it is, a scale and an offset per channel."""
    x, mean = call["input"], call["running_mean"]
    scale = torch.rsqrt(call["running_var"] + call["eps"])
    if call["weight"] is not None:
        scale = scale * call["weight"]
    offset = -mean * scale
    if call["bias"] is not None:
        offset = offset + call["bias"]
    shape = (1, -1, *[1] * (x.dim() - 2))
    return x * scale.reshape(shape) + offset.reshape(shape)
