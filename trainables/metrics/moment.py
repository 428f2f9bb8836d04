"""When and on what a metric measures, and what it gives back."""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trainables.lazily import nn, torch

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data import Images, StreamedImages

EVALUATION_BATCH = 500

FORWARD, INPUT_GRADIENT = 1 / 3, 2 / 3
"""Time of a pass forward, and of one with the gradient of the input, of an image's in a training step."""


def derived_seed(*labels: str | int) -> int:
    """A seed in [0, 2⁶³) for a purpose: the trial's seed and the purpose's name give an independent stream."""
    digest = hashlib.sha256("/".join(str(label) for label in labels).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Moment:
    """`epoch` 0 is initialisation; `last` is true after the final epoch; the model is in evaluation mode."""

    model: nn.Module
    data: Images | StreamedImages
    split: str
    epoch: int
    last: bool
    seed: int
    device: torch.device
    rebuild: Callable[[int], nn.Module]
    """The same network, changed by the method as it is, initialised from another seed."""

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, purpose, self.epoch))


@dataclass
class Measured:
    """`columns` of the epochs table (or, on the test split, of the trials table); tidy rows; maps (H, W) by name."""

    columns: dict[str, float | None] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    maps: dict[str, Tensor] = field(default_factory=dict)


def known(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with null for numbers that are none: nan, which some metric's value is where it is not defined, and
    infinities."""
    return {
        name: None if isinstance(value, numbers.Real) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def known_maps(measured: Measured) -> dict[str, Tensor]:
    """The maps whose numbers are all finite; one with others, of a network that has such weights, shows nothing."""
    return {name: values for name, values in measured.maps.items() if bool(values.isfinite().all())}


def map_row(epoch: int, name: str, values: Tensor) -> dict[str, Any]:
    """A map (H, W) as a row of the maps table."""
    height, width = values.shape
    flat = values.detach().float().cpu().flatten().tolist()
    return {"epoch": epoch, "name": name, "height": height, "width": width, "values": flat}


class Metric(Protocol):
    def measure(self, moment: Moment) -> Measured: ...
