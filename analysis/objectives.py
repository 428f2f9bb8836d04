"""What a search makes large or small, by name: a column of the trials table (`top1`, `total_variation`), what the last
epoch has of the validation split (`validation_top1`), or a measurement (`robust_accuracy:pgd@0.1`); with `:max` or
`:min` at the end where the schema does not say which is better. And what trials have of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from analysis.command_line import InputError
from analysis.lazily import lazily
from analysis.options import DEPENDS_ON
from analysis.records import read_rows, read_table
from analysis.schema import PER_IMAGE, TABLES, VALIDATION, direction

pc = lazily("pyarrow.compute")

_MAKERS = {name: metric for metric, made in DEPENDS_ON.items() for name in made}
_NO_NUMBER = {
    "importance_landscape": "a map",
    "initial_landscape": "a map",
    "saliency_mean": "a map",
    "path_importance_correlation": "a measurement of the network before training alone",
}
"""Of what metrics make, what a trained network has no number of."""
_EPOCH = ["epoch", *VALIDATION.values()]
_MEASURED = ["epoch", "metric", "component", "level", "value"]


def with_direction(text: str) -> tuple[str, str]:
    """A name, and "max" or "min" where it ends in one, else ""."""
    name, _, way = text.rpartition(":")
    return (name, way) if way in ("max", "min") else (text, "")


class Measurement(NamedTuple):
    """`metric`, `metric:component` or `metric:component@level`; None: the only one that there is."""

    metric: str
    component: str | None
    level: float | None


def measurement(name: str) -> Measurement:
    """Raises `InputError` for a level that is no number."""
    stem, at, level = name.partition("@")
    metric, colon, component = stem.partition(":")
    try:
        return Measurement(metric, component if colon else None, float(level) if at else None)
    except ValueError:
        raise InputError(f"objective: {name}, allowed after @ is a number") from None


@dataclass(frozen=True)
class Objective:
    """What is to be as large ("max") or small ("min") as possible."""

    name: str
    direction: str

    @property
    def sign(self) -> float:
        """1 where less is better, −1 where more is: times a value it is a loss."""
        return 1.0 if self.direction == "min" else -1.0


def objective_of(text: str, measured: Collection[str]) -> Objective:
    """The objective that a command line names, where these metrics are measured. Raises `InputError` for what is no
    quantity, has no better direction, or another one, and for what is not measured."""
    name, given = with_direction(text)
    if name in VALIDATION:
        field = TABLES["epochs"].field(VALIDATION[name])
        known, maker = direction(field), _MAKERS.get(VALIDATION[name])
    elif name in TABLES["trials"].names:
        known, maker = direction(TABLES["trials"].field(name)), _MAKERS.get(name)
    else:
        metric = measurement(name).metric
        if metric in TABLES["trials"].names and metric in _MAKERS:
            raise InputError(f"objective: {text}, allowed is {metric}: it is a single number")
        maker = None if metric in _NO_NUMBER else _MAKERS.get(metric)
        known = None if maker is None else "none"
    if known is None:
        columns = [field.name for field in TABLES["trials"] if direction(field) in ("max", "min")]
        made = {name for name in _MAKERS if _MAKERS[name] in measured} - {*columns, *_NO_NUMBER}
        why = _NO_NUMBER.get(measurement(name).metric)
        what = f"{name} ({why})" if why else name
        raise InputError(f"objective: {what}, allowed are {', '.join([*VALIDATION, *columns, *sorted(made)])}")
    if maker is not None and maker not in measured:
        raise InputError(f"objective: {name}, allowed with --measure {maker}: it is not measured")
    if known == "none" and not given:
        raise InputError(
            f"objective: {name}, allowed are {name}:max and {name}:min, as nothing else says what is better"
        )
    if given and known not in ("none", given):
        raise InputError(f"objective: {text}, allowed is {name}:{known}")
    return Objective(name, given or known)


def rows_of(sweep: str, columns: Sequence[str], without: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows of the trials table with `trial_id` and these columns, of which some may be objectives, by their names.

    Raises as `read_table` does, and `InputError` for a measurement of which a trial has several."""
    own = [name for name in columns if name in TABLES["trials"].names]
    rows = read_table(sweep, "trials", list(dict.fromkeys(["trial_id", *own])), without=without).to_pylist()
    more = [name for name in columns if name not in TABLES["trials"].names]
    by_trial: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for table, wanted in _tables(more).items():
        chosen = None if table == "epochs" else lambda part: pc.invert(pc.ends_with(part["metric"], PER_IMAGE))
        for row in read_table(sweep, table, ["trial_id", *wanted], where=chosen, without=without).to_pylist():
            by_trial.setdefault(row["trial_id"], {}).setdefault(table, []).append(row)
    for row in rows:
        row |= _values(more, by_trial.get(row["trial_id"], {}))
    return rows


def row_of(sweep: str, trial_id: str, columns: Sequence[str]) -> dict[str, Any] | None:
    """The same of one trial that has files of its own; None where it has none."""
    found = read_rows(sweep, "trials", trial_id)
    if not found:
        return None
    more = [name for name in columns if name not in TABLES["trials"].names]
    return {**found[0], **_values(more, {table: read_rows(sweep, table, trial_id) for table in _tables(more)})}


def _tables(names: Sequence[str]) -> dict[str, list[str]]:
    found = {}
    if any(name in VALIDATION for name in names):
        found["epochs"] = _EPOCH
    if any(name not in VALIDATION for name in names):
        found["measurements"] = _MEASURED
    return found


def _values(names: Sequence[str], tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in names:
        if name in VALIDATION:
            last = max(tables.get("epochs", ()), key=lambda row: row["epoch"], default=None)
            values[name] = None if last is None else last[VALIDATION[name]]
        else:
            values[name] = _measured(name, tables.get("measurements", ()))
    return values


def _measured(name: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the last epoch after training."""
    wanted = measurement(name)
    own = [row for row in rows if row["metric"] == wanted.metric and row["epoch"] > 0]
    last = max((row["epoch"] for row in own), default=0)
    row = _only(name, [row for row in own if row["epoch"] == last], "which are recorded")
    value: float | None = None if row is None else row["value"]
    return value


def as_planned(objective: Objective, planned: Sequence[Mapping[str, Any]]) -> Objective:
    """The objective by the whole name of the one measurement that it means, of those to come as far as they are known
    (`metric`, `component`, and `level` if that is). Raises `InputError` where these are none or several of it."""
    if objective.name in VALIDATION or objective.name in TABLES["trials"].names:
        return objective
    wanted = measurement(objective.name)
    row = _only(objective.name, [row for row in planned if row["metric"] == wanted.metric])
    # without its component the analysis knows no such quantity
    nameless = row is not None and wanted.component is None and row["component"]
    return replace(objective, name=_written(row)) if row is not None and nameless else objective


def _only(name: str, rows: Sequence[Mapping[str, Any]], where: str = "") -> Mapping[str, Any] | None:
    """The row of a metric that a name means: without a component the one that has none, if there is one. None where
    there are no rows. Raises `InputError` for none or several."""
    wanted = measurement(name)
    fitting = [
        row
        for row in rows
        if (wanted.component is None or (row["component"] or "") == wanted.component)
        and (wanted.level is None or "level" not in row or _same(row["level"], wanted.level))
    ]
    if wanted.component is None and len(fitting) > 1:
        fitting = [row for row in fitting if not row["component"]] or fitting
    if rows and len(fitting) != 1:
        there = ", ".join(dict.fromkeys(_written(row) for row in rows))
        raise InputError(f"objective: {name}, allowed is one of {there}" + (where and f", {where}"))
    return fitting[0] if fitting else None


def _same(level: float | None, wanted: float) -> bool:
    """As exact as it is written (`_written`)."""
    return level is not None and (level == wanted or f"{level:g}" == f"{wanted:g}")


def _written(row: Mapping[str, Any]) -> str:
    component = f":{row['component']}" if row["component"] else ""
    level = row.get("level")
    return f"{row['metric']}{component}" + ("" if level is None else f"@{level:g}")
