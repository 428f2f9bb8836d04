"""Accuracy under distribution shift, for any method (Top-GAP's paper, Table 6): trained here, tested on other data sets
of the same classes (`trainables.data.shift`)."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.command_line import InputError
from trainables.lazily import torch
from trainables.metrics.moment import EVALUATION_BATCH, Measured, Moment


def short_name(name: str) -> str:
    """A data set's name in the record without kind and fingerprint: `waterbirds` of `folder:waterbirds@1a2b3c4d`."""
    return name.partition(":")[2].rpartition("@")[0] or name


@dataclass(frozen=True)
class Shift:
    """`shift_accuracy` of the trained network by data set: Top-1 on all its test images."""

    sets: tuple[str, ...] = ()
    """The data sets, by their names in the record; loaded with the one that is trained on."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sets", tuple(dict.fromkeys(self.sets)))
        if not self.sets:
            raise InputError("sets: none, allowed are names of data sets, folder:/path and parquet:/path")
        names = [short_name(name) for name in self.sets]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"sets: {names.count(name)} data sets called {name}, allowed are different names")

    def measure(self, moment: Moment) -> Measured:
        if moment.split != "test" and moment.epoch > 0:
            return Measured()
        measured = Measured()
        for name in self.sets:
            other = moment.data.others.get(name)
            if other is None:  # refused before anything is trained
                known = ", ".join(moment.data.others) or "none"
                raise InputError(f"shift: {name} was not loaded with {moment.data.name}, loaded were {known}")
            if moment.split != "test":
                continue
            right = images = 0
            with torch.no_grad():
                for inputs, labels in other.batches("test", EVALUATION_BATCH, device=moment.device):
                    right += int((moment.model(inputs).argmax(1) == labels).sum())
                    images += len(labels)
            row = {"metric": "shift_accuracy", "component": short_name(name), "level": None, "value": right / images}
            measured.measurements.append({**row, "std": None, "n": images, "unit": "fraction", "direction": "max"})
        return measured
