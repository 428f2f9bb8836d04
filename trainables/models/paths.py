"""A network that counts the paths of another from its outputs to each pixel (PILCRO, equation 3): see `path_importance`
in `trainables/pilcro.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.command_line import InputError
from trainables.models.blocks import Subsample
from trainables.models.feature_maps import PRODUCTS
from trainables.models.pooling import TopGapPooling


class _Scale(nn.Module):
    """What a normalisation with fixed statistics does to squared gradients: a factor per channel."""

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("factor")


class _PooledPaths(nn.Module):
    """What average pooling does to squared gradients: its n inputs have weights 1/n, so squares 1/n² each."""

    def __init__(self, pool: nn.Module, inputs: Callable[[Tensor], Tensor | float]) -> None:
        super().__init__()
        self.pool = pool
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) / self.inputs(x)


_NONLINEAR = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.Softplus)
_UNCHANGED = (nn.Identity, nn.Flatten, nn.Unflatten)
_DROPPED = (*_NONLINEAR, nn.Dropout, nn.Dropout2d)


def _window(pool: nn.AvgPool2d) -> Callable[[Tensor], Tensor | float]:
    """n of every window of an average pooling, as its divisor has it."""
    height, width = (pool.kernel_size,) * 2 if isinstance(pool.kernel_size, int) else pool.kernel_size
    if pool.divisor_override is not None:
        divisor = float(pool.divisor_override)
        return lambda x: divisor
    if pool.count_include_pad and not pool.ceil_mode:
        return lambda x: float(height * width)
    # inputs in the image, window by window
    return lambda x: F.avg_pool2d(
        torch.ones_like(x[:1, :1]), pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, divisor_override=1
    )


def _paths_through(name: str, module: nn.Module) -> nn.Module:
    """The linear layer that carries expected squared gradients back through `module` at initialisation."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        layer = copy.deepcopy(module)
        layer.bias = None
        layer.weight = nn.Parameter(
            torch.full_like(module.weight, float(module.weight.detach().double().square().mean()))
        )
        return layer.double()
    if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
        gain = module.weight if module.weight is not None else torch.ones_like(module.running_var)
        return _Scale((gain.double().square() / (module.running_var.double() + module.eps)).detach())
    if isinstance(module, TopGapPooling):
        # k of the n inputs pass with weight 1/k, each equally likely: squared weight 1/k² with probability k/n
        return _PooledPaths(nn.AdaptiveAvgPool2d(1), lambda x: float(module.pixels_of(x)))
    if isinstance(module, Subsample):
        return module  # the same pixels pass, all of them
    if isinstance(module, nn.MaxPool2d) and module.dilation in (1, (1, 1)):
        # one input of the n passes, each of them equally likely: squared weight 1 with probability 1/n
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode, False)
    if isinstance(module, nn.AvgPool2d) and not (module.ceil_mode and module.padding and module.count_include_pad):
        return _PooledPaths(module, _window(module))
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
        return _PooledPaths(module, lambda x: float(x.shape[-2] * x.shape[-1]))
    if isinstance(module, _DROPPED):
        return nn.Identity()
    if isinstance(module, _UNCHANGED):
        return module
    raise InputError(
        f"model: layer {name or 'itself'} is a {type(module).__name__}, whose paths cannot be counted; allowed are "
        "convolutions, linear layers, BatchNorm, pooling and element-wise nonlinearities"
    )


def path_network(module: nn.Module, name: str = "") -> nn.Module:
    """The network, which is changed, with every layer replaced by the linear one that carries expected squared
    gradients back. Raises `ValueError` for a layer whose paths cannot be counted."""
    if type(module).__name__ in PRODUCTS:
        raise InputError(
            f"model: layer {name} is a {type(module).__name__}, whose paths cannot be counted, as it multiplies"
        )
    own = [key for key, _ in module.named_parameters(recurse=False)]
    children = list(module.named_children())
    if not children or own:
        return _paths_through(name, module)
    for key, child in children:
        setattr(module, key, path_network(child, f"{name}.{key}".lstrip(".")))
    return module
