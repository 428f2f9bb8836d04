"""The record's tables: columns, types, units and directions. The one contract between the floors.

A column may be added; none may change its meaning without a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

Direction = Literal["max", "min"]
Stronger = Literal["larger", "smaller"]

SCHEMA_VERSION = 1

# unit, and whether more ("max") or less ("min") of it is better; "none": neither
_METRICS = {
    "top1": ("fraction", "max"),
    "top5": ("fraction", "max"),
    "train_top1": ("fraction", "max"),
    "loss": ("nats", "min"),
    "train_loss": ("nats", "min"),
    "total_variation": ("", "min"),
    "penalty": ("", "none"),
    "seconds": ("s", "none"),
    "train_seconds": ("s", "none"),
    "measure_seconds": ("s", "none"),
    "images_per_second": ("images/s", "none"),
}

_HYPERPARAMETERS: dict[str, pa.DataType] = {
    "alpha": pa.float64(),
    "interval": pa.int64(),
    "interval_factor": pa.bool_(),  # whether alpha is multiplied by it; null in older records, where it is
    "laplacian_width": pa.int64(),
    "variant": pa.string(),
    "pixels": pa.int64(),
    "sparsity": pa.float64(),
    "gamma": pa.float64(),
    "eta": pa.float64(),
    "modulation": pa.float64(),
    "weight_decay": pa.float64(),
    "sigma": pa.float64(),
    "downsampling": pa.string(),
    "deformation_strength": pa.float64(),
    "labels": pa.string(),
    "reduction": pa.string(),
    "convention": pa.string(),  # how squares of the gradient are summed: batch, image, element, pixel
    "batchnorm": pa.string(),  # statistics used in the penalty: train (the batch's) or eval (running)
    "fpn": pa.bool_(),  # class maps from Top-GAP's feature pyramid, or from the last feature map alone
    "fpn_channels": pa.int64(),
    "dropout": pa.float64(),  # before the classifier of Top-GAP's head
}

# hyperparameters that regularise more strongly where they are smaller: fewer pixels pooled, a penalty computed more
# often, a filter's centre that is penalised less than what is around it; of all others larger ones are stronger
STRONGEST = {"pixels": 1, "interval": 1}
"""The strongest that there can be, of those that have such."""

_SMALLER_IS_STRONGER = ("pixels", "interval", "gamma")

HYPERPARAMETERS: tuple[str, ...] = tuple(_HYPERPARAMETERS)

# alpha of the gradient penalty in each of its conventions
CONVERTED_STRENGTHS = ("alpha_per_image", "alpha_batch", "alpha_element", "alpha_pixel")

STATUSES = ("completed", "diverged", "stopped", "failed")

# end of the metric of a single image's value, whose level is the image's number
PER_IMAGE = "_per_image"


def _schema(columns: dict[str, pa.DataType]) -> pa.Schema:
    fields = []
    for name, kind in columns.items():
        metadata = None
        if name in _METRICS:
            unit, direction = _METRICS[name]
            metadata = {"unit": unit, "direction": direction}
        elif name in _HYPERPARAMETERS and (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            metadata = {"stronger": "smaller" if name in _SMALLER_IS_STRONGER else "larger"}
        fields.append(pa.field(name, kind, metadata=metadata))
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


_UTC = pa.timestamp("us", tz="UTC")

TABLES: dict[str, pa.Schema] = {
    "trials": _schema(
        {
            "trial_id": pa.string(),
            "schema_version": pa.int32(),
            "sweep": pa.string(),
            "method": pa.string(),
            "dataset": pa.string(),
            "declared": pa.string(),  # the paper's data set that a folder or Parquet set is said to be
            "model": pa.string(),
            "width": pa.int64(),
            "pretrained": pa.bool_(),  # true: it began with ImageNet's weights; else null
            "seed": pa.int64(),
            "fold": pa.int64(),  # of a cross-validation: which part of the images was tested on
            "epochs": pa.int64(),
            "batch_size": pa.int64(),
            "learning_rate": pa.float64(),
            "optimizer": pa.string(),
            "crop": pa.int64(),  # pixels; 0: none
            "precision": pa.string(),
            **_HYPERPARAMETERS,
            **dict.fromkeys(CONVERTED_STRENGTHS, pa.float64()),  # alpha_per_image: comparable across batch sizes
            "config": pa.string(),
            "class_names": pa.string(),  # as JSON, by label
            "measured": pa.string(),  # the options of each metric as JSON: what total_variation was taken of
            "status": pa.string(),
            "error": pa.string(),
            "stopped_at_epoch": pa.int64(),  # of trials that ended early, and by which rule
            "stopped_by": pa.string(),
            "top1": pa.float64(),
            "top5": pa.float64(),
            "loss": pa.float64(),
            "total_variation": pa.float64(),
            "train_seconds": pa.float64(),
            "measure_seconds": pa.float64(),
            "images_per_second": pa.float64(),
            "attempts": pa.int64(),
            "cpus": pa.float64(),  # processors and GPUs that the trial held
            "gpus": pa.float64(),
            "started_at": _UTC,
            "finished_at": _UTC,
            "git_commit": pa.string(),
            "git_dirty": pa.bool_(),
            "code": pa.string(),  # fingerprints of the method's and the model's source; null: not known
            "host": pa.string(),
            "device": pa.string(),
            "python": pa.string(),
            "torch": pa.string(),
            "ray": pa.string(),
            "project_version": pa.string(),
        }
    ),
    "epochs": _schema(
        {
            "trial_id": pa.string(),
            "epoch": pa.int64(),
            "learning_rate": pa.float64(),
            "train_loss": pa.float64(),
            "penalty": pa.float64(),
            "train_top1": pa.float64(),
            "top1": pa.float64(),
            "top5": pa.float64(),
            "loss": pa.float64(),
            "total_variation": pa.float64(),
            "seconds": pa.float64(),
        }
    ),
    # unit and direction differ from row to row here, so they are columns
    "measurements": _schema(
        {
            "trial_id": pa.string(),
            "epoch": pa.int64(),
            "metric": pa.string(),
            "component": pa.string(),
            "level": pa.float64(),
            "value": pa.float64(),
            "std": pa.float64(),
            "n": pa.int64(),
            "unit": pa.string(),
            "direction": pa.string(),
        }
    ),
    "maps": _schema(
        {
            "trial_id": pa.string(),
            "epoch": pa.int64(),
            "name": pa.string(),
            "height": pa.int64(),
            "width": pa.int64(),
            "values": pa.list_(pa.float32()),  # row-major
        }
    ),
}


# a row for each run of a sweep's driver, in runs/ beside the tables: what it used of its cluster
RUNS = _schema(
    {
        "driver": pa.string(),
        "host": pa.string(),
        "started_at": _UTC,
        "finished_at": _UTC,
        "worker_hours": pa.float64(),
        "most_workers": pa.int64(),
        "cpu_hours": pa.float64(),
        "gpu_hours": pa.float64(),
        "busy_cpu_hours": pa.float64(),
        "busy_gpu_hours": pa.float64(),
        "idle_share": pa.float64(),
        "trial_hours": pa.float64(),
    }
)


def unit(field: pa.Field) -> str:
    """Unit of a metric's column ("" for a dimensionless one, and for a column that is no metric)."""
    return (field.metadata or {}).get(b"unit", b"").decode()


def direction(field: pa.Field) -> str | None:
    """ "max", "min" or "none" for a metric's column; None for a column that is no metric."""
    value = (field.metadata or {}).get(b"direction")
    return None if value is None else value.decode()


def stronger(column: str) -> Stronger:
    """Which values of a strength's column regularise more strongly; of one that the schema does not know, larger."""
    schema = TABLES["trials"]
    metadata = (schema.field(column).metadata if column in schema.names else None) or {}
    return "smaller" if metadata.get(b"stronger") == b"smaller" else "larger"
