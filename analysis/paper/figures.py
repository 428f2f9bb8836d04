"""The papers' figures, drawn from a record: what each needs of it, and which drawing it is."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc

from analysis.by_epoch import recorded_columns
from analysis.command_line import InputError
from analysis.paper.choice import Drawn, _of, _rows, _Spec, map_names
from analysis.paper.drawings import (
    _accuracy,
    _by_deformation,
    _by_pixels,
    _cams,
    _corruptions,
    _epochs_and_landscapes,
    _first_epochs,
    _levels,
    _locality,
    _metrics,
    _paths,
    _profile,
    _profile_at_end,
    _profile_at_start,
    _saliency,
    _steps,
    _trajectories,
)
from analysis.paper.ours import PAPERS_LIMIT
from analysis.records import Sweep
from analysis.tabular import Place, opened


def missing(sweep: Sweep | Place, name: str) -> str:
    """Why a figure cannot be drawn from this record, or that of this place; "" if it can."""
    sweep = opened(sweep)
    spec = FIGURES[name]
    rows = _rows(sweep, spec)
    if not any(row["method"] == spec.method for row in rows):
        where = {None: "", True: " with random crops", False: " without random crops"}[spec.crop]
        labels = f", labels={spec.labels}" if spec.labels else ""
        swept = f" and a {spec.swept}" if spec.swept else ""
        return f"no finished trial with method={spec.method}{where}{labels}{swept}"
    if spec.swept and len({row[spec.swept] for row in rows}) < 2:
        return f"one {spec.swept} only"
    if spec.table == "trials":
        return ""
    ids = {row["trial_id"] for row in rows}
    if spec.table == "epochs":
        columns = sorted({name for one in FIGURES.values() if one.table == "epochs" for name in one.names})
        recorded = recorded_columns(sweep, columns)
        lacking = [column for column in spec.names if ids.isdisjoint(recorded[column])]
        return f"no values of {', '.join(lacking)} by epoch" if len(lacking) == len(spec.names) else ""
    if spec.table == "measurements":
        table = _of(sweep, spec.table, ids, ["trial_id", "epoch", "metric"])
        names = table["metric"].unique().to_pylist()
    else:
        names = map_names(sweep, ids)
    known = {value.split("/")[0] for value in names if " on " not in value}
    lacking = [value for value in spec.names if value not in known]
    enough = len(lacking) < len(spec.names) if spec.table == "measurements" else not lacking
    if not enough:
        return f"no {spec.table} of {', '.join(lacking)}"
    if spec.draw is _trajectories:
        own = table.filter(pc.is_in(table["metric"], pa.array(spec.names)))
        if len(own["epoch"].unique()) < 3:
            return "no measurements between initialisation and the end, which --measure-every makes"
    return ""


def draw(sweep: Sweep | Place, name: str, reference_below: float | None = None) -> list[Drawn]:
    """A paper's figure from this record (or that of this place), in one or several parts; `reference_below`: the limit
    of the paper's rule, by default the paper's own.

    Raises `InputError` if the record has not what it needs.
    """
    sweep = opened(sweep)
    lacking = missing(sweep, name)
    if lacking:
        raise InputError(f"--table {name}: {sweep.path} has {lacking}")
    limit = reference_below or PAPERS_LIMIT.get(name.partition("-")[0])
    return list(FIGURES[name].draw(sweep, dataclasses.replace(FIGURES[name], limit=limit)))


FIGURES = {
    "pilcro-3": _Spec("pilcro", "epochs", ("top1", "total_variation"), _epochs_and_landscapes, crop=False),
    "pilcro-4": _Spec("pilcro", "epochs", ("top1", "total_variation"), _epochs_and_landscapes, crop=True),
    "pilcro-5": _Spec("pilcro", "epochs", ("top1",), _first_epochs),
    "pilcro-6": _Spec("pilcro", "measurements", ("salience_ablation",), _levels),
    "pilcro-e": _Spec("pilcro", "measurements", ("corruption_accuracy",), _corruptions),
    "pilcro-p1": _Spec("pilcro", "maps", ("path_importance", "initial_landscape"), _paths),
    "loco-4": _Spec("loco_reg", "measurements", ("locality",), _locality),
    "loco-6": _Spec("loco_reg", "measurements", ("gamma", "eta"), _profile_at_start),
    "topgap-f1": _Spec("top_gap", "maps", ("cam", "image"), _cams),
    "topgap-f3": _Spec("top_gap", "measurements", ("cam_sparsity",), _by_pixels),
    "topgap-f4": _Spec("top_gap", "maps", ("cam", "image"), _cams),
    "topgap-f5": _Spec("top_gap", "maps", ("cam", "image"), _cams),
    "topgap-fa3": _Spec("top_gap", "measurements", ("robust_accuracy",), _steps),
    "deform-3": _Spec(
        "deformation", "measurements", ("deformation_sensitivity",), _profile, labels="real", parts=("sigma",)
    ),
    "deform-4": _Spec(
        "deformation",
        "measurements",
        ("deformation_sensitivity",),
        _profile_at_start,
        parts=("downsampling", "labels", "deformation_strength"),
    ),
    "deform-5": _Spec(
        "deformation",
        "measurements",
        ("filter_total_variation",),
        _by_deformation,
        swept="deformation_strength",
        parts=("downsampling", "sigma"),
    ),
    "deform-6": _Spec(
        "deformation", "measurements", ("filter_total_variation",), _profile_at_end, parts=("labels", "sigma")
    ),
    "deform-7": _Spec(
        "deformation", "measurements", ("deformation_sensitivity",), _profile, labels="random", parts=("sigma",)
    ),
    "deform-t": _Spec(
        "deformation",
        "measurements",
        ("deformation_sensitivity", "filter_total_variation"),
        _trajectories,
        parts=("labels", "sigma"),
    ),
    "gradreg-1": _Spec("gradient_reg", "trials", (), _accuracy),
    "gradreg-2": _Spec("gradient_reg", "measurements", ("faithfulness",), _metrics),
    "gradreg-3": _Spec("gradient_reg", "measurements", ("local_lipschitz", "max_sensitivity"), _metrics),
    "gradreg-4": _Spec("gradient_reg", "measurements", ("entropy",), _metrics),
    "gradreg-b": _Spec("gradient_reg", "maps", ("saliency", "image"), _saliency),
}
"""The IDs of the papers' figures that are drawn, beside or instead of a table."""
