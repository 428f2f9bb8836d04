"""How much a class activation map overlaps with the object, for any method (Top-GAP's paper, Appendix D, Table A4).

    IoU(t) = mean over images of |{CAM ≥ t} ∩ object| / |{CAM ≥ t} ∪ object|,   IoU = the largest over t

[reading] "the predicted mask that has the largest overlap": the best of the thresholds 0.05, 0.10, …, 0.95 for the data
set as a whole, not of each image, which a mask that is not known could not choose. The CAM is that of the true class,
as for sparsity.

Notation: B images, H×W pixels, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from analysis.command_line import InputError
from trainables.lazily import torch
from trainables.metrics.class_activation import cams
from trainables.metrics.moment import EVALUATION_BATCH, FORWARD, Measured, Moment

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLDS = tuple(step / 20 for step in range(1, 20))


def overlaps(maps: Tensor, masks: Tensor, thresholds: tuple[float, ...] = THRESHOLDS) -> Tensor:
    """IoU of {map ≥ t} with the mask, float64 (B, T), from maps (B, H, W) in [0, 1] and masks bool (B, H, W); nan for
    an image without an object."""
    found = []
    for threshold in thresholds:
        predicted = maps >= threshold
        both = (predicted & masks).sum((1, 2)).double()
        found.append(both / (predicted | masks).sum((1, 2)))
    objects = masks.any(2).any(1).unsqueeze(1)
    return torch.where(objects, torch.stack(found, 1), torch.nan)


@dataclass(frozen=True)
class MaskOverlap:
    """On the test split of the trained network: `iou` at the best threshold, in [0, 1], the mean over images that show
    an object, with its deviation; `iou_threshold`, that threshold; `iou_at_threshold`, its level each threshold."""

    needs_masks: ClassVar[bool] = True

    images: int = 1000
    """The first so many test images, whose order is shuffled and fixed."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"images: {self.images}, allowed are whole numbers of at least 1")

    def image_passes(self, features: int) -> float:
        return self.images * FORWARD

    @staticmethod
    def is_detail(metric: str, component: str) -> bool:
        return metric in ("iou_at_threshold", "iou_threshold")

    def measure(self, moment: Moment) -> Measured:
        if moment.split != "test":
            if moment.epoch == 0:
                moment.data.test_masks(0, 1)  # what has none is refused before it is trained on
            return Measured()
        parts: list[Tensor] = []
        start = 0
        for images, labels in moment.data.batches("test", EVALUATION_BATCH, device=moment.device, limit=self.images):
            masks = moment.data.test_masks(start, start + len(labels)).to(moment.device)
            maps = cams(moment.model, images, labels)
            if bool(maps.isnan().any()):  # of a single pixel: they say nothing of where the object is
                none: dict[str, Any] = {"metric": "iou", "component": "", "level": None, "value": None, "std": None}
                return Measured({}, [{**none, "n": 0, "unit": "fraction", "direction": "max"}])
            parts.append(overlaps(maps, masks))
            start += len(labels)
        values = torch.cat(parts).cpu()
        values = values[values.isfinite().all(1)]
        if not len(values):
            raise InputError(f"dataset: {moment.data.name} has no object in the masks of its first {start} test images")
        means = values.mean(0)
        deviations = [float(column.std()) if len(values) > 1 else None for column in values.T]
        best = int(means.argmax())
        shared = {"component": "", "level": None, "unit": "fraction", "direction": "max", "n": len(values)}
        measured = Measured({}, [{**shared, "metric": "iou", "value": float(means[best]), "std": deviations[best]}])
        threshold = {"metric": "iou_threshold", "value": THRESHOLDS[best], "std": None, "unit": "", "direction": "none"}
        measured.measurements.append({**shared, **threshold})
        for level, mean, deviation in zip(THRESHOLDS, means.tolist(), deviations, strict=True):
            row = {**shared, "metric": "iou_at_threshold", "level": level, "value": mean, "std": deviation}
            measured.measurements.append(row)
        return measured
