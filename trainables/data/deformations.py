"""The geometry of random deformations of images: smooth displacement fields, and images resampled by them.

Paper: Ruderman et al., "Learned Deformation Stability in Convolutional Neural Networks" (Section 2.1, Figure 2).

[reading] The evenly spaced control points reach from corner to corner. "A maximum distance of 10 in each direction":
each point's displacement is uniform in [−10, 10] down and, apart from that, to the right. The field is a thin-plate
spline through all of them with a linear part, as scipy's `RBFInterpolator` has it. A spline overshoots: between its
control points it moves some pixels by more than the maximum. It is left as it is. Of a thousand fields of the paper's
setting for 32² (3×3 points, 2 px) 28% go beyond it in one direction somewhere, at 0.7% of all pixels, by at most 19%;
for 224² (5×5 points, 10 px) 79% do, at 1.2% of the pixels, by at most 33%.
[reading] What a deformed image has from outside the image is the nearest pixel of its border.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from analysis.command_line import InputError
from trainables.lazily import torch

if TYPE_CHECKING:
    from torch import Tensor


def random_deformations(
    n: int,
    height: int,
    width: int,
    grid: int,
    max_displacement: float,
    *,
    generator: torch.Generator,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random smooth displacement fields (Section 2.1), (n, H, W, 2) float32, in pixels, down and to the right.

    grid × grid control points are displaced uniformly in [−max_displacement, max_displacement] pixels in each direction
    and interpolated by a thin-plate spline, which overshoots that maximum (see the module's docstring). They are drawn
    on the generator's device: equal generators give the same fields, to float32's rounding, on any `device` (default:
    the generator's).

    Raises `ValueError` for no fields, images of less than 2 pixels a side, fewer than 2 control points a side, and a
    maximum that is no size.
    """
    for name, number, least in (("n", n, 1), ("height", height, 2), ("width", width, 2), ("grid", grid, 2)):
        if number < least:
            raise InputError(f"{name}: {number}, allowed are whole numbers of at least {least}")
    if not (math.isfinite(max_displacement) and max_displacement >= 0):
        raise InputError(f"max_displacement: {max_displacement}, allowed are finite numbers of at least 0")
    target = torch.device(device) if device is not None else generator.device
    drawn = torch.rand(n, grid * grid, 2, generator=generator, device=generator.device)
    moved = drawn.double().mul_(2).sub_(1).mul_(max_displacement).to(target)
    # one row for each field and direction, which lie apart in memory: a product of two matrices
    rows = moved.movedim(2, 1).reshape(2 * n, grid * grid)
    basis = _spline_basis(height, width, grid, target)
    fields = torch.empty(2 * n, height * width, device=target)
    # so many pixels of all fields at once as stay in a processor's cache
    at_once = max(1, _CACHED // n)
    for field, part in zip(fields.split(at_once, 1), basis.split(at_once, 1), strict=True):
        field.copy_(rows @ part)
    return fields.reshape(n, 2, height, width).movedim(1, 3)


_CACHED = 2**19
"""Numbers that stay in a processor's cache."""


@functools.lru_cache(maxsize=16)
def _spline_basis(height: int, width: int, grid: int, device: torch.device) -> Tensor:
    """What each pixel of a field has of each control point's displacement, (grid², H·W) float64: the thin-plate spline
    is linear in what it interpolates, so it is solved once, for displacements of one pixel at a single point."""
    points, pixels = (
        torch.cartesian_prod(*(torch.linspace(0, side - 1, number, dtype=torch.float64) for side, number in sides))
        for sides in (((height, grid), (width, grid)), ((height, height), (width, width)))
    )
    # in units of the longer side, which changes nothing but the condition of the equations
    points, pixels = (places / (max(height, width) - 1) for places in (points, pixels))
    number = len(points)
    equations = torch.zeros(number + 3, number + 3, dtype=torch.float64)
    equations[:number] = _spline_terms(points, points)
    equations[number:, :number] = equations[:number, number:].T
    at_one_point = torch.eye(number + 3, number, dtype=torch.float64)
    coefficients = torch.linalg.solve(equations, at_one_point)
    return (_spline_terms(pixels, points) @ coefficients).T.contiguous().to(device)


def _spline_terms(places: Tensor, points: Tensor) -> Tensor:
    """r² log r of each place and control point, then 1, row and column of the place: (places, points + 3)."""
    squared = (places.unsqueeze(1) - points).square().sum(2)
    return torch.cat([torch.special.xlogy(squared, squared) / 2, torch.ones_like(places[:, :1]), places], 1)


def deform(images: Tensor, displacements: Tensor) -> Tensor:
    """Images (B, C, H, W) resampled at displaced places: the output at x is the image at x + displacement(x), bilinear
    (Figure 2: the tails of the arrows are the sources), and outside the image its nearest border pixel.

    `displacements` (B, H, W, 2) are in pixels, down and to the right. Where they are zero the image is left bit for
    bit. Raises `ValueError` for shapes that do not go together and images that are not floating-point numbers.
    """
    if images.ndim != 4 or displacements.shape != (len(images), *images.shape[2:], 2):
        raise InputError(
            f"displacements: of shape {tuple(displacements.shape)} for images of shape {tuple(images.shape)}, allowed "
            "are (B, H, W, 2) for (B, C, H, W)"
        )
    if not images.is_floating_point():
        raise InputError(f"images: {images.dtype}, allowed are floating-point numbers")
    # on the CPU so many at once as stay in its cache: five times faster for 128 images of 224²
    size = max(1, (_CACHED // 8 if images.device.type == "cpu" else 32 * _CACHED) // images.shape[2:].numel())
    return torch.cat([_deform(*parts) for parts in zip(images.split(size), displacements.split(size), strict=True)])


def _deform(images: Tensor, displacements: Tensor) -> Tensor:
    number, channels, height, width = images.shape
    # whole pixels and the rest apart: added to a pixel's place in float32, a displacement would lose digits
    whole = displacements.floor()
    down, right = (displacements - whole).to(images.dtype).reshape(number, 1, height * width, 2).unbind(3)
    bound = max(height, width)
    whole = whole.clamp(-bound, bound).long()
    rows = torch.arange(height, device=images.device).unsqueeze(1) + whole[..., 0]
    columns = torch.arange(width, device=images.device) + whole[..., 1]
    flat = images.flatten(2)

    def pixels(row: Tensor, column: Tensor) -> Tensor:
        index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        return flat.gather(2, index.reshape(number, 1, height * width).expand(-1, channels, -1))

    upper = pixels(rows, columns).lerp(pixels(rows, columns + 1), right)
    lower = pixels(rows + 1, columns).lerp(pixels(rows + 1, columns + 1), right)
    return upper.lerp(lower, down).reshape(images.shape)
