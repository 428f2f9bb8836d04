"""The importance landscape of a split and its total variation (PILCRO, Sections 3.3 and 4.1.1), for every method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from analysis.command_line import InputError
from trainables.metrics.moment import EVALUATION_BATCH, Measured, Moment
from trainables.pilcro import landscape_of_batches, total_variation

Expectation = Literal["sampled", "exact"]


@dataclass(frozen=True)
class Landscape:
    """TV on the validation split at initialisation and after every epoch, on the test split at the end; the map of the
    validation split at initialisation, after the epochs `maps_at` and at the end."""

    expectation: Expectation = "sampled"
    """sampled: one class per image, drawn from the model's prediction; exact: the expectation over all classes."""
    images: int | None = None
    """Measured on the first so many images of the split (their order is shuffled, fixed); None: all."""
    maps_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.expectation not in get_args(Expectation):
            raise InputError(f"expectation: {self.expectation!r}, allowed are 'sampled' and 'exact'")
        if self.images is not None and self.images < 1:
            raise InputError(f"images: {self.images}, allowed are whole numbers of at least 1")
        if any(epoch < 0 for epoch in self.maps_at):
            raise InputError(f"maps_at: {self.maps_at}, allowed are epochs of at least 0")
        object.__setattr__(self, "maps_at", tuple(self.maps_at))

    def measure(self, moment: Moment) -> Measured:
        batches = moment.data.batches(moment.split, EVALUATION_BATCH, device=moment.device, limit=self.images)
        landscape = landscape_of_batches(
            moment.model,
            (images for images, _ in batches),
            expectation=self.expectation,
            generator=moment.generator("landscape"),
        )
        value = float(total_variation(landscape))
        # no landscape, and none that is flat, where the network's gradient is zero everywhere or not finite
        tv = value if math.isfinite(value) and bool(landscape.any()) else None
        measured = Measured({"total_variation": tv})
        if moment.split == "test":
            return measured
        if moment.epoch == 0 and tv is not None:
            images = moment.data.count(moment.split)
            row = {"metric": "total_variation", "component": "", "level": None, "value": tv, "std": None}
            row |= {"n": min(images, self.images or images), "unit": "", "direction": "min"}
            measured.measurements.append(row)
        if tv is not None and (moment.epoch == 0 or moment.last or moment.epoch in self.maps_at):
            measured.maps["importance_landscape"] = landscape
        return measured
