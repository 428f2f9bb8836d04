"""The strength of the gradient penalty in another convention: an exact change of scale, on the record alone.

With full batches of B images of C·H·W values: α_batch = α_element / (B·C·H·W) = α_pixel / (C·H·W) = α_image · B (the
methods' `gradient_reg.converted_strength`, which records them). Records from before they were recorded are converted
where it is known how large the images are.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, get_args

import pyarrow as pa

from analysis.command_line import InputError
from analysis.records import Sweep
from analysis.tabular import Place, opened

Convention = Literal["batch", "image", "element", "pixel"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)

_METHOD = "gradient_reg"
_COLUMNS = {"batch": "alpha_batch", "image": "alpha_per_image", "element": "alpha_element", "pixel": "alpha_pixel"}
# channels and pixels a side of the images of named sets
_IMAGES = {
    "digits": (1, 8),
    **dict.fromkeys(("mnist", "fashion-mnist", "kmnist"), (1, 28)),
    **dict.fromkeys(("cifar10", "cifar100"), (3, 32)),
}


def converted(sweep: Sweep | Place, convention: str) -> Sweep:
    """The sweep (its record, folder or s3:// address) with α of its gradient penalties in this convention, as if it had
    been swept in it; other methods' trials as they are. Raises `InputError` for a record that does not say how large
    its images are."""
    sweep = opened(sweep)
    if convention not in CONVENTIONS:
        raise InputError(f"--convention {convention}: allowed are {', '.join(CONVENTIONS)}")
    rows = sweep.trials.to_pylist()
    if all(row["method"] != _METHOD for row in rows):
        raise InputError(f"--convention {convention}: {sweep.path} has no trial of {_METHOD}, which it is for")
    alphas = [row["alpha"] for row in rows]
    names = [row["convention"] for row in rows]
    for index, row in enumerate(rows):
        if row["method"] == _METHOD and row["alpha"] is not None:
            alphas[index], names[index] = _strength(row, convention), convention
    trials = sweep.trials
    for name, values in (("alpha", alphas), ("convention", names)):
        place = trials.column_names.index(name)
        trials = trials.set_column(place, trials.field(place), pa.array(values, trials.field(place).type))
    other = dataclasses.replace(sweep, trials=trials)
    other.__dict__["content_hash"] = sweep.content_hash  # what is read is the same record
    return other


def _strength(row: dict[str, Any], convention: str) -> float:
    own = row["convention"] or "batch"  # before there was the choice
    if convention == own:
        return float(row["alpha"])
    known = row[_COLUMNS[convention]]
    if known is not None:
        return float(known)
    batch = row["batch_size"]
    values = 1
    if {convention, own} & {"element", "pixel"}:
        values = _values_of_an_image(row, convention)
    # of one α in `batch`
    scale = {"batch": 1.0, "image": 1 / batch, "pixel": float(values), "element": float(batch * values)}
    return float(row["alpha"] / scale[own] * scale[convention])


def _values_of_an_image(row: dict[str, Any], convention: str) -> int:
    try:
        data = json.loads(row["config"] or "{}").get("data", {})
    except (ValueError, AttributeError):
        data = {}
    channels, side = _IMAGES.get(row["dataset"], (None, None))
    channels, side = data.get("channels") or channels, data.get("image_size") or side
    if channels is None or side is None:
        raise InputError(
            f"--convention {convention}: trial {row['trial_id']} does not say how many values an image of "
            f"{row['dataset']} has; trials of today record their strength in every convention"
        )
    return int(channels * side * side)
