"""What was measured of single images: rows whose metric ends in `_per_image`, and whose level is the image's number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.groups import Quantity, numbered_trials, values_of
from analysis.lazily import lazily
from analysis.records import Sweep
from analysis.schema import PER_IMAGE

pc = lazily("pyarrow.compute")


@dataclass(frozen=True)
class ImageValues:
    """A quantity of single images: values (trials, images), nan where undefined."""

    trials: Mapping[str, int]
    """Row of each trial."""
    values: np.ndarray

    def of(self, trials: Sequence[str]) -> np.ndarray | None:
        """The rows of these trials; None if one is not there."""
        if any(trial not in self.trials for trial in trials):
            return None
        return self.values[[self.trials[trial] for trial in trials]]


def image_values(sweep: Sweep, quantity: Quantity) -> ImageValues | None:
    """The quantity of single images, at the last epoch they were measured at; None if the record has none."""
    metric = f"{quantity.metric}{PER_IMAGE}"
    if (metric, quantity.component) not in _of_single_images(sweep):
        return None

    def wanted(part: pa.Table) -> Any:
        of_it = pc.equal(pc.fill_null(part["component"], ""), quantity.component)
        return pc.and_(pc.equal(part["metric"], metric), of_it)

    table = sweep.read("measurements", ["trial_id", "epoch", "metric", "component", "level", "value"], wanted)
    table = table.select(["trial_id", "epoch", "level", "value"])
    if quantity.options is not None:
        own = pa.array(list(values_of(sweep, quantity)), pa.string())
        table = table.filter(pc.is_in(table["trial_id"], own))
    if len(table) == 0:
        return None
    trials, of = numbered_trials(table)
    epoch, value = (table[name].to_numpy() for name in ("epoch", "value"))
    images, image = np.unique(table["level"].to_numpy(), return_inverse=True)
    last = np.zeros(len(trials), dtype=epoch.dtype)
    np.maximum.at(last, of, epoch)
    found = np.full((len(trials), len(images)), math.nan)
    at_end = (epoch == last[of]) & table["value"].is_valid().to_numpy()
    found[of[at_end], image[at_end]] = value[at_end]
    return ImageValues({trial: index for index, trial in enumerate(trials)}, found)


def _of_single_images(sweep: Sweep) -> set[tuple[str, str]]:
    """The metrics and components of which there are values of single images."""
    if _of_single_images not in sweep.computed:
        found: set[tuple[str, str]] = set()

        def nothing(part: pa.Table) -> Any:
            kinds = part.filter(pc.ends_with(part["metric"], PER_IMAGE)).group_by(["metric", "component"])
            found.update((row["metric"], row["component"] or "") for row in kinds.aggregate([]).to_pylist())
            return pc.is_null(part["trial_id"])

        sweep.read("measurements", ["metric", "component"], nothing)
        sweep.computed[_of_single_images] = found
    known: set[tuple[str, str]] = sweep.computed[_of_single_images]
    return known
