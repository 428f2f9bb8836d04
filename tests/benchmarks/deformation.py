"""What random deformations cost beside scipy's thin-plate splines: 128 fields at 32² and at 224².

    python -m tests.benchmarks.deformation [--images 128] [--repeats 3]

One process, one thread, in one run: fields of the same draws by this project (the basis that it keeps from field to
field, and solving for that basis apart), by a new `RBFInterpolator` for each image, and by a single one of all images'
values. Prints CPU seconds of each, their ratio, and the largest difference between the fields in pixels; then what
resampling three channels costs beside `map_coordinates`, channel by channel.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy are loaded

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import tyro
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates

from trainables.data.deformations import _spline_basis, deform, random_deformations
from trainables.metrics.deformation import deformation_of

Value = TypeVar("Value")


@dataclass(frozen=True)
class Benchmark:
    images: int = 128
    repeats: int = 3
    """Of this project's; the fastest counts. scipy's run once."""
    sizes: tuple[int, ...] = (32, 224)


def timed(function: Callable[[], Value], repeats: int = 1) -> tuple[float, Value]:
    """CPU seconds of the fastest call, and what it returns."""
    fastest = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        value = function()
        fastest = min(fastest, time.process_time() - start)
    return fastest, value


def main(flags: Benchmark) -> None:
    torch.set_num_threads(1)
    print(f"{'CPU seconds':34} {'here':>10} {'scipy':>10}")
    for size in flags.sizes:
        grid, most = deformation_of(size)

        def fields(size: int = size, grid: int = grid, most: float = most) -> torch.Tensor:
            generator = torch.Generator().manual_seed(0)
            return random_deformations(flags.images, size, size, grid, most, generator=generator)

        drawn = torch.rand(flags.images, grid**2, 2, generator=torch.Generator().manual_seed(0)).double()
        moved = most * (2 * drawn.numpy() - 1)
        points = np.array(list(itertools.product(np.linspace(0, size - 1, grid), repeat=2)))
        pixels = np.array(list(itertools.product(range(size), repeat=2)))

        def spline(values: np.ndarray, points: np.ndarray = points, pixels: np.ndarray = pixels) -> np.ndarray:
            return RBFInterpolator(points, values, kernel="thin_plate_spline", degree=1)(pixels)

        def splines(moved: np.ndarray = moved, spline: Callable[[np.ndarray], np.ndarray] = spline) -> np.ndarray:
            return np.stack([spline(one) for one in moved])

        def together(moved: np.ndarray = moved, spline: Callable[[np.ndarray], np.ndarray] = spline) -> np.ndarray:
            return spline(np.moveaxis(moved, 1, 0))

        basis, _ = timed(lambda size=size, grid=grid: _spline_basis(size, size, grid, torch.device("cpu")))
        ours, own = timed(fields, flags.repeats)
        theirs, expected = timed(splines)
        batched, _ = timed(together, flags.repeats)
        difference = np.abs(own.numpy() - expected.reshape(own.shape)).max()
        title = f"{flags.images} fields, {size}², {grid}×{grid} points"
        print(
            f"{title:34} {ours:10.4f} {theirs:10.3f}   {theirs / ours:.0f} times faster, at most {difference:.1e} apart"
        )
        print(f"{'  and the basis, once':34} {basis:10.4f} {'':10}   {theirs / (ours + basis):.0f} times with it")
        print(f"{'  scipy with all images in one':34} {'':10} {batched:10.3f}   {batched / ours:.1f} times faster")
        images = torch.rand(flags.images, 3, size, size, generator=torch.Generator().manual_seed(1))
        ours, resampled = timed(lambda images=images, own=own: deform(images, own), flags.repeats)

        def coordinates(images: torch.Tensor = images, own: torch.Tensor = own, size: int = size) -> np.ndarray:
            places = np.array(list(itertools.product(range(size), repeat=2))).reshape(size, size, 2)
            sources = np.moveaxis(places + own.double().numpy(), 3, 1)
            pairs = zip(images.numpy(), sources, strict=True)
            return np.stack([[map_coordinates(c, at, order=1, mode="nearest") for c in image] for image, at in pairs])

        theirs, expected = timed(coordinates)
        apart = np.abs(resampled.numpy() - expected).max()
        print(f"{'  resampling':34} {ours:10.4f} {theirs:10.3f}   {theirs / ours:.1f} times faster, {apart:.1e} apart")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
