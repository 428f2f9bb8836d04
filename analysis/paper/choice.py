"""Which of a record's data a figure of a paper is of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from analysis.groups import Row, differing, evenly, grouped, label, replicate
from analysis.options import Options, options_of, told_apart
from analysis.record_file import Where
from analysis.records import Sweep
from analysis.symbols import all_named, method_name


@dataclass(frozen=True)
class Drawn:
    """A figure, and the rows it shows."""

    suffix: str
    """Its name after the table's ID."""
    figure: Figure
    columns: tuple[tuple[str, bool], ...]
    """Names of the rows' entries, and whether they are numbers."""
    rows: Sequence[tuple[str | float, ...]]
    images: int | None = None
    """How many images its numbers are of; None: the whole split."""


_MAX_SETTINGS = 12


@dataclass(frozen=True)
class _Spec:
    """What a figure needs of the record, and how it is drawn."""

    method: str
    """Trials of this method, besides the baseline's."""
    table: str
    """Where its data lie: "trials", "epochs", "measurements" or "maps"."""
    names: tuple[str, ...]
    """The epochs' columns, the measurements' metrics, or the first part of the maps' names."""
    draw: Callable[[Sweep, _Spec], Iterator[Drawn]]
    crop: bool | None = None
    """Trials with random crops only, or without only; None: either."""
    labels: str | None = None
    """Trials with these labels only."""
    swept: str | None = None
    """Trials with a value of this column only; None: any."""
    limit: float | None = None
    """Of the rule of the input-gradient regularisation paper; None: the default of `paper_threshold`."""
    parts: tuple[str, ...] = ()
    """Columns whose values have a figure each, where there are several."""


def _rows(sweep: Sweep, spec: _Spec) -> list[Row]:
    return [
        row
        for row in sweep.rows
        if row["status"] != "failed"
        and row["method"] in (spec.method, "baseline")
        and (spec.crop is None or bool(row["crop"]) == spec.crop)
        and (spec.labels is None or (row["labels"] or "real") == spec.labels)
        and (spec.swept is None or row[spec.swept] is not None)
    ]


def _first(rows: Sequence[Row]) -> list[Row]:
    """Those of the first seed (and fold, which has images of its own)."""
    first = min(map(replicate, rows), default=())
    return [row for row in rows if replicate(row) == first]


def _of(
    sweep: Sweep, table: str, ids: set[str], columns: Sequence[str] | None = None, where: Where | None = None
) -> pa.Table:
    """Columns and rows of the measurements or the maps of these trials; of the measurements, none of single images."""
    chosen = pa.array(sorted(ids), pa.string())

    def wanted(part: pa.Table) -> Any:
        own = pc.is_in(part["trial_id"], chosen)
        return own if where is None else pc.and_(own, where(part))

    if table != "measurements":
        return sweep.read(table, columns, wanted)
    found = sweep.averages if columns is None else sweep.averages.select(columns)
    return found.filter(wanted(found))


def map_names(sweep: Sweep, ids: set[str]) -> list[str]:
    """The names of the maps of these trials, sorted."""
    if map_names not in sweep.computed:
        names = sweep.read("maps", ["trial_id", "name"])
        sweep.computed[map_names] = names.group_by(["trial_id", "name"]).aggregate([])
    whole = sweep.computed[map_names]
    own = whole.filter(pc.is_in(whole["trial_id"], pa.array(sorted(ids), pa.string())))
    return sorted(own["name"].unique().to_pylist())


def _settings(rows: Sequence[Row], shown: Sequence[str] = ()) -> list[tuple[str, list[Row]]]:
    """The settings by name, the unregularised one first; trials that were measured with other options are another
    setting, where these columns, measurements or maps are `shown`."""
    kinds = [_options(row, shown) for row in rows]
    known = {kind for kind in kinds if kind is not None}
    if len(known) > 1:
        words = told_apart(known)
        found = []
        for kind in sorted(known, key=words.__getitem__):
            own = [row for row, of in zip(rows, kinds, strict=True) if of == kind]
            found += [(f"{name}, {words[kind]}", trials) for name, trials in _settings(own)]
        return found
    plain = [row for row in rows if row["method"] == "baseline"]
    others = [row for row in rows if row["method"] != "baseline"]
    found = []
    for start, part, columns in (("baseline", plain, differing(plain)), ("", others, differing(others))):
        groups = grouped(part, columns)
        for group, in_words in zip(groups, all_named(groups), strict=True):
            parts = [start, in_words if any(value is not None for value in group.values.values()) else ""]
            name = ", ".join(part for part in parts if part) or method_name(group.trials[0]["method"])
            found.append((name, list(group.trials)))
    return found


def _options(row: Row, shown: Sequence[str]) -> Options | None:
    """What a trial was measured with of what is shown; None if nothing of it was."""
    found = [options_of(row["measured"], name) for name in shown]
    return None if found and None in found else tuple(option for options in found for option in options or ())


def _parts(rows: Sequence[Row], spec: _Spec) -> list[tuple[str, str, list[Row]]]:
    """The rows that each figure shows, by what they have in common, in symbols and as a file's name has it; the
    baseline is in all of them."""
    plain = [row for row in rows if row["method"] == "baseline"]
    others = [row for row in rows if row["method"] != "baseline"]
    columns = [name for name in spec.parts if name in differing(others)]
    if not columns:
        return [("", "", list(rows))]
    groups = grouped(others, columns, plain)
    return [
        (name, label(group.values, group.digits), [*group.baseline, *group.trials])
        for group, name in zip(groups, all_named(groups), strict=True)
    ]


def _stem(*parts: str) -> str:
    """The end of a figure's name: its parts that are not empty, without the signs that file names should not have."""
    return "".join(f"-{re.sub(r'[^A-Za-z0-9_.=]+', '-', part)}" for part in parts if part)


def _some_settings(rows: Sequence[Row], *shown: str) -> list[tuple[str, list[Row]]]:
    """As many settings as one figure can tell apart: the first, usually the unregularised one, and an even choice."""
    return evenly(_settings(rows, shown), _MAX_SETTINGS)


Columns = tuple[tuple[str, bool], ...]
Rows = list[tuple[str | float, ...]]


def _means(groups: Mapping[str, tuple[Any, np.ndarray]], place: str, metric: str) -> tuple[Columns, Rows]:
    """The mean over seeds at each place of each group, as rows."""
    rows: Rows = []
    for name, (places, values) in groups.items():
        for index, at in enumerate(places):
            known = values[:, index][np.isfinite(values[:, index])]
            mean = float(known.mean()) if len(known) else math.nan
            rows.append((name, at if isinstance(at, str) else float(at), mean, float(len(known))))
    return (("setting", False), (place, place != "layer"), (f"mean {metric}", True), ("seeds", True)), rows


def _ranges(maps: Sequence[tuple[str, np.ndarray]]) -> tuple[Columns, Rows]:
    """What numbers say of maps: the least, the mean, the greatest."""
    rows: Rows = [(title, float(np.nanmin(m)), float(np.nanmean(m)), float(np.nanmax(m))) for title, m in maps]
    return (("map", False), ("least", True), ("mean", True), ("greatest", True)), rows


def _maps(
    sweep: Sweep, rows: Sequence[Row], name: str, epoch: int | None = None, kind: type[np.floating] = np.float64
) -> dict[str, np.ndarray]:
    """A map of each trial (H, W), at its last epoch or the one given; of this kind of numbers, recorded are float32."""

    def wanted(part: pa.Table) -> Any:
        own = pc.equal(part["name"], name)
        return own if epoch is None else pc.and_(own, pc.equal(part["epoch"], epoch))

    columns = ["trial_id", "epoch", "name", "height", "width", "values"]
    table = _of(sweep, "maps", {row["trial_id"] for row in rows}, columns, wanted).drop_columns("name")
    last: dict[str, tuple[int, int]] = {}
    for index, (trial, at) in enumerate(zip(table["trial_id"].to_pylist(), table["epoch"].to_pylist(), strict=True)):
        if trial not in last or at > last[trial][0]:
            last[trial] = at, index
    heights, widths = (table[column].to_pylist() for column in ("height", "width"))
    values = table["values"].combine_chunks()
    numbers, ends = values.values.to_numpy(zero_copy_only=False), values.offsets.to_numpy()
    return {
        trial: numbers[ends[index] : ends[index + 1]].astype(kind, copy=False).reshape(heights[index], widths[index])
        for trial, (_, index) in last.items()
    }


def _mean_map(maps: Sequence[np.ndarray]) -> np.ndarray:
    """The mean in double precision, of what may be in single: all maps of a large sweep are many."""
    total = np.zeros(maps[0].shape)
    for one in maps:
        total += one
    return total / len(maps)


def _mean_maps(sweep: Sweep, rows: Sequence[Row], name: str, epoch: int | None = None) -> list[tuple[str, np.ndarray]]:
    """The mean over seeds of each setting, its title."""
    settings = _some_settings(rows, name.split("/")[0])
    maps = _maps(sweep, [row for _, trials in settings for row in trials], name, epoch)
    found = []
    for title, trials in settings:
        own = [maps[row["trial_id"]] for row in trials if row["trial_id"] in maps]
        own = [values for values in own if np.isfinite(values).any()]
        if own:
            found.append((title, _mean_map(own)))
    return found


Profiles = dict[str, dict[int, dict[str, float]]]


def _by_layer(sweep: Sweep, rows: Sequence[Row], metric: str) -> Profiles:
    """Values by trial, epoch and layer, which is the measurement's component; their mean, which has none, is "". What
    was measured on another data set is left out."""
    table = _of(sweep, "measurements", {row["trial_id"] for row in rows})
    found: Profiles = {}
    for row in table.filter(pc.and_(pc.equal(table["metric"], metric), pc.is_null(table["level"]))).to_pylist():
        layer = row["component"] or ""
        if re.search(r"(?:^| )on ", layer):
            continue
        value = math.nan if row["value"] is None else row["value"]
        found.setdefault(row["trial_id"], {}).setdefault(row["epoch"], {})[layer] = value
    return found


def _mean(values: Iterable[float]) -> float:
    """The mean of the finite ones; nan without any."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan
