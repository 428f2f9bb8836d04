"""What the three pages of networks under deformation have in common: their layers, and values by setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.reproductions.pages import BySeed, Record, layer_name, mean_sd, table

SENSITIVITY, SMOOTHNESS = "deformation_sensitivity", "filter_total_variation"
BLOCKS = ("1", "2", "3", "4")
CONVOLUTIONS = tuple(f"conv{block}_{index}" for block in BLOCKS for index in "12")
LAYERS = tuple(layer for block in BLOCKS for layer in (f"conv{block}_1", f"conv{block}_2", f"down{block}"))
"""Behind the input, in order."""
FIRST_BLOCK = LAYERS[:2]
BEHIND_FIRST = LAYERS[2:]
MEAN = "mean over layers"


@dataclass(frozen=True)
class Network:
    """The trials of one setting: every measurement by layer and seed."""

    record: Record
    ids: Sequence[str]

    def at(self, metric: str, layer: str, epoch: int | None = None) -> BySeed:
        """By seed, in this layer or in the mean over layers; at the end of training by default."""
        component = "" if layer == MEAN else f"{layer}.conv" if metric == SMOOTHNESS else layer
        return self.record.values(metric, component, ids=self.ids, epoch=epoch)

    def mean(self, metric: str, layer: str, epoch: int | None = None) -> float:
        return float(np.mean(list(self.at(metric, layer, epoch).values())))

    def profile(self, metric: str, epoch: int | None = None) -> dict[str, float]:
        """The mean over seeds of each layer."""
        return {layer: self.mean(metric, layer, epoch) for layer in layers_of(metric)}

    def curve(self, metric: str, layer: str, epochs: Iterable[int]) -> np.ndarray:
        """The mean over seeds along the epochs."""
        return np.array([self.mean(metric, layer, epoch) for epoch in epochs])


def layers_of(metric: str) -> tuple[str, ...]:
    return CONVOLUTIONS if metric == SMOOTHNESS else LAYERS


def blocks(record: Record) -> str:
    """The network's convolutions: "2×32, 2×64, …"."""
    return ", ".join(f"2×{record.one('width') * 2**index}" for index in range(len(BLOCKS)))


def images(record: Record) -> int:
    """On which sensitivity was measured."""
    (n,) = {row["n"] for (metric, _, _), rows in record.measured.items() if metric == SENSITIVITY
            for row in rows.values() if row["component"]}  # fmt: skip
    return int(n)


def profile_table(metric: str, columns: Mapping[str, tuple[Network, int]]) -> str:
    """Layers by networks and epochs: mean ± standard deviation over seeds."""
    names = [*(["input"] if metric == SENSITIVITY else []), *layers_of(metric), MEAN]
    rows = []
    for name in names:
        found = [network.at(metric, name, epoch).values() for network, epoch in columns.values()]
        cells = [mean_sd(values) for values in found]
        if name == "input":  # of no network
            cells = [cell.partition(" ")[0] for cell in cells]
        rows.append([layer_name(name), *cells])
    return table(["layer", *columns], rows)
