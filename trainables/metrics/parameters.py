"""The number of a network's parameters, for any method (Top-GAP's paper, Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.lazily import nn
from trainables.metrics.moment import Measured, Moment


def parameter_count(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@dataclass(frozen=True)
class Parameters:
    """`parameters` of the trained network, in millions."""

    def measure(self, moment: Moment) -> Measured:
        if moment.split != "test":
            return Measured()
        row = {"metric": "parameters", "component": "", "level": None, "value": parameter_count(moment.model) / 1e6}
        return Measured({}, [{**row, "std": None, "n": None, "unit": "M", "direction": "none"}])
