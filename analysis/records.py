"""Write a finished trial, read a sweep: Parquet on a disk or on S3, `<sweep>/<table>/<trial_id>.parquet`.

    records.write_trial("results/pilcro", trial, epochs, measurements, maps)
    sweep = records.read_sweep("s3://bucket/results/pilcro")
    sweep.trials.to_pandas()

A sweep is a folder or an `s3://bucket/prefix`. Its tables, each in a folder of its own, hold one file per trial, or one
`compacted.parquet`, or both; a trial with a file of its own in `trials/` is read from its own files in all four tables,
any other from the compacted ones. `python -m analysis.records compact <sweep>` merges them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from tyro.conf import Positional

from analysis.command_line import InputError, parse, run
from analysis.lazily import lazily
from analysis.record_file import Where, encode
from analysis.schema import PER_IMAGE, SCHEMA_VERSION, STATUSES, TABLES
from analysis.settings import settings_of
from analysis.storage import (
    PATIENCE,
    STORAGE_ERRORS,
    StorageError,
    _parallel,
    _reason,
    _shown,
    be_patient,
    check_storage,
    location,
    open_briefly,
    open_place,
    put_file,
    read_file,
    remove_folder,
    write_file,
)
from analysis.tables import (
    COMPACTED,
    Scan,
    _check_trial,
    _compacted,
    _Damaged,
    _decode,
    _listing,
    _merged,
    read_table,
    scan,
)

if TYPE_CHECKING:
    import fsspec

pc = lazily("pyarrow.compute")

__all__ = [
    "COMPACTED",
    "PATIENCE",
    "STORAGE_ERRORS",
    "Scan",
    "StorageError",
    "Sweep",
    "add_measurements",
    "be_patient",
    "check_storage",
    "compact",
    "content_hash",
    "location",
    "open_briefly",
    "open_place",
    "put_file",
    "read_file",
    "read_rows",
    "read_sweep",
    "read_table",
    "read_trial",
    "remove_folder",
    "scan",
    "write_file",
    "write_trial",
]


def _value(value: Any, kind: pa.DataType) -> Any:
    """The value as Arrow shall have it. Raises `TypeError` if it is of another type."""
    if value is None:
        return None
    if pa.types.is_string(kind) and isinstance(value, str):
        return str(value)
    if pa.types.is_boolean(kind) and isinstance(value, bool | np.bool_):
        return bool(value)
    if pa.types.is_integer(kind) and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if pa.types.is_floating(kind) and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if pa.types.is_timestamp(kind) and isinstance(value, datetime) and value.tzinfo is not None:
        return value
    if pa.types.is_list(kind) and not isinstance(value, str | bytes):
        array = np.asarray(value)
        if array.ndim == 1 and array.dtype.kind in "fiu":
            return array.astype(np.float32)
    raise TypeError


def _arrow(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the schema, null where a row has no such column. Raises `ValueError` naming a bad column."""
    schema = TABLES[name]
    for row in rows:
        unknown = [column for column in row if column not in schema.names]
        if unknown:
            raise ValueError(f"{name}: unknown column {unknown[0]!r}, allowed are {', '.join(schema.names)}")
    arrays = []
    for field in schema:
        values = []
        for row in rows:
            value = row.get(field.name)
            try:
                values.append(_value(value, field.type))
            except TypeError:
                zone = ", with a time zone" if isinstance(value, datetime) else ""
                raise ValueError(
                    f"{name}.{field.name}: {value!r} is of type {type(value).__name__}, allowed is {field.type}{zone}"
                ) from None
        try:
            arrays.append(pa.array(values, field.type))
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(f"{name}.{field.name}: {error}") from None
    return pa.Table.from_arrays(arrays, schema=schema)


def _check_identity(trial: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    trial_id = trial.get("trial_id")
    if (
        not isinstance(trial_id, str)
        or not trial_id
        or trial_id == COMPACTED
        or trial_id.startswith((".", "_"))
        or "/" in trial_id
        or os.sep in trial_id
    ):
        raise ValueError(f"trials.trial_id: {trial_id!r}, allowed is a name for a file")
    if trial.get("status") not in STATUSES:
        raise ValueError(f"trials.status: {trial.get('status')!r}, allowed are {', '.join(STATUSES)}")
    if trial.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise ValueError(f"trials.schema_version: {trial['schema_version']!r}, this project writes {SCHEMA_VERSION}")
    for row in rows:
        if row.get("trial_id", trial_id) != trial_id:
            raise ValueError(f"trial_id: a row of trial {row['trial_id']!r} among those of {trial_id!r}")
    return trial_id


def write_trial(
    sweep: str,
    trial: Mapping[str, Any],
    epochs: Sequence[Mapping[str, Any]],
    measurements: Sequence[Mapping[str, Any]],
    maps: Sequence[Mapping[str, Any]],
) -> bool:
    """Record a finished trial: its four tables, each written atomically, `trials` last.

    `trial` is a row of the trials table with at least `trial_id` and `status`; the rows of the other tables need no
    `trial_id`. Columns that are not given become null. A trial that is recorded as completed or diverged stays as it
    is, and the answer is False; one recorded as failed, or whose files are damaged, is replaced.

    Raises `ValueError` naming the column for an unknown column or a value of another type, before anything is written,
    and `InputError` if the sweep is of another schema version or its compacted files are damaged.
    """
    trial_id = _check_identity(trial, itertools.chain(epochs, measurements, maps))
    for row in maps:
        if row.get("values") is not None and len(row["values"]) != (row.get("height") or 0) * (row.get("width") or 0):
            raise ValueError(
                f"maps.values: {len(row['values'])} values for {row.get('height')}×{row.get('width')} pixels"
            )
    rows: dict[str, Sequence[Mapping[str, Any]]] = {
        "epochs": epochs,
        "measurements": measurements,
        "maps": maps,
        "trials": [{"schema_version": SCHEMA_VERSION, **trial}],
    }
    contents = {
        name: encode(_arrow(name, [{**row, "trial_id": trial_id} for row in table])) for name, table in rows.items()
    }
    fs, path = open_place(sweep)
    if _recorded_status(fs, path, trial_id) in ("completed", "diverged", "stopped"):
        return False
    last = f"{path}/trials/{trial_id}.parquet"
    # a failed or damaged trial is taken off the record first: its old row with new tables would not be whole
    if fs.exists(last):
        fs.rm_file(last)
    for name, content in contents.items():
        put_file(fs, f"{path}/{name}/{trial_id}.parquet", content)
    return True


def add_measurements(
    sweep: str,
    trial_id: str,
    measurements: Sequence[Mapping[str, Any]],
    maps: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Any],
) -> None:
    """Add to a recorded trial what was measured afterwards, and to its `measured` the metrics' options.

    What was measured before of the same metric at the same epoch on the same data set is replaced, each image's values
    and all components included, so that `measured` is true of what is there; so are maps of the same kind (the part of
    their name before a slash). Another data set is named at a component's or map's end, ` on <data set>`. Each table is
    written whole and atomically, the trial's own row last; called again after an interruption, it ends the same.

    Raises `InputError` if the trial is not recorded, and as `read_table` does; `ValueError` as `write_trial` does.
    """
    fs, path = open_place(sweep)
    single = trial_id in _listing(fs, path, "trials")

    def stored(table: str) -> pa.Table:
        return _single(fs, path, table, trial_id) if single else read_table(sweep, table)

    def encoded(table: str, parts: list[pa.Table]) -> bytes:
        return encode(_merged(parts, table, None, _shown(fs, path)), compacted=not single)

    trials = stored("trials")
    own = pc.equal(trials["trial_id"], trial_id)
    if not pc.any(own).as_py():
        raise InputError(f"{_shown(fs, path)}: no recorded trial {trial_id!r}")
    contents = {}
    for table, added in (("maps", maps), ("measurements", measurements)):
        if added:
            new = {_measured_thing(table, row) for row in added}
            old = stored(table)
            kept = [
                row["trial_id"] != trial_id or _measured_thing(table, row) not in new
                for row in old.select(["trial_id", "epoch", *_THING[table]]).to_pylist()
            ]
            rows = _arrow(table, [{**row, "trial_id": trial_id} for row in added])
            contents[table] = encoded(table, [old.filter(pa.array(kept, pa.bool_())), rows])
    before = trials.filter(own)["measured"][0].as_py()
    text = json.dumps({**json.loads(before or "{}"), **measured}, sort_keys=True)
    if text != before:
        column = pc.if_else(own, pa.scalar(text), trials["measured"])
        place = trials.column_names.index("measured")
        contents["trials"] = encoded("trials", [trials.set_column(place, trials.field(place), column)])
    for table, content in contents.items():
        put_file(fs, f"{path}/{table}/{trial_id if single else COMPACTED}.parquet", content)


_THING = {"maps": ("name",), "measurements": ("metric", "component")}
_ON = re.compile(r"(?:^| )on (.+)$")


def _measured_thing(table: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row is a measurement of: its epoch, the metric or kind of map, and the data set."""
    found = _ON.search(row["name"] if table == "maps" else row["component"] or "")
    kind = row["name"].split("/")[0] if table == "maps" else row["metric"].removesuffix(PER_IMAGE)
    return row["epoch"], kind, found[1] if found else None


def _single(fs: fsspec.AbstractFileSystem, path: str, table: str, trial_id: str) -> pa.Table:
    try:
        return _decode(fs, path, table, trial_id, None)
    except _Damaged as damage:
        raise InputError(str(damage)) from None


def _recorded_status(fs: fsspec.AbstractFileSystem, path: str, trial_id: str) -> str | None:
    """Status of a recorded trial; None if it has no record, or a damaged one."""
    try:
        status = _check_trial(fs, path, trial_id)
    except _Damaged:
        if fs.exists(f"{path}/trials/{trial_id}.parquet"):
            return None
    else:
        return status
    if not fs.exists(f"{path}/trials/{COMPACTED}.parquet"):
        return None
    trials = _compacted(fs, path, "trials", ["trial_id", "status"])
    found = trials.filter(pc.equal(trials["trial_id"], trial_id))["status"].to_pylist()
    return found[0] if found else None


@dataclass(frozen=True)
class Sweep:
    """The record of a sweep as Arrow tables. `trials` is read at once, the others when first asked for, whole; `read`
    gives some columns and rows of one."""

    path: str
    trials: pa.Table
    pool_code: bool = False
    """Whether trials of one setting count as such whatever code trained them."""
    damaged: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Trials that were left out, as a file of theirs is damaged or missing, and what is wrong."""
    stopped: tuple[str, ...] = ()
    """Trials that were left out, as a scheduler ended them early for doing worse than others."""
    with_stopped: bool = False
    """Whether such trials were asked for."""
    computed: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)
    """What functions of the sweep keep for when they are asked again, by function and arguments."""

    @cached_property
    def settings(self) -> pa.Table:
        """The trials, with a column for whatever tells settings apart and has none: see `analysis.settings`."""
        return settings_of(self.trials, pool_code=self.pool_code)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `settings`, for all who ask: not to be changed."""
        return _rows_of(self.settings)

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    def read(self, table: str, columns: Sequence[str] | None = None, where: Where | None = None) -> pa.Table:
        """Columns and rows of a table, of those trials that are not left out: see `read_table`."""
        if not self.stopped:
            return read_table(self.path, table, columns, where=where, without=self.damaged)
        stopped = pa.array(self.stopped)

        def counted(part: pa.Table) -> Any:
            mask = pc.invert(pc.is_in(part["trial_id"], stopped))
            return mask if where is None else pc.and_(mask, where(part))

        return read_table(self.path, table, columns, where=counted, without=self.damaged)

    @cached_property
    def epochs(self) -> pa.Table:
        return self.read("epochs")

    @cached_property
    def measurements(self) -> pa.Table:
        return self.read("measurements")

    @cached_property
    def averages(self) -> pa.Table:
        """The measurements without those of single images, which are many."""
        return self.read("measurements", where=lambda part: pc.invert(pc.ends_with(part["metric"], PER_IMAGE)))

    @cached_property
    def maps(self) -> pa.Table:
        return self.read("maps")

    @cached_property
    def content_hash(self) -> str:
        """12 hex digits of the SHA-256 of the trials, the same before and after compaction."""
        digest = hashlib.sha256()
        for batch in self.trials.to_batches(max_chunksize=_ROWS_AT_ONCE):
            known = [name for name in sorted(batch.schema.names) if batch[name].null_count < len(batch)]
            columns = [_members(name, batch[name]) for name in known]
            for members in zip(*columns, strict=True):
                # nulls left out: a column that is added later and has no values changes nothing
                digest.update(f"{{{', '.join(filter(None, members))}}}\n".encode())
        return digest.hexdigest()[:12]


def _members(name: str, column: pa.Array) -> list[str]:
    """A column's values as `json.dumps` writes them as members of an object, "" for null."""
    key = json.dumps(name)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        texts = json.dumps(column.to_pylist())[1:-1].split(", ")
        return ["" if text == "null" else f"{key}: {text}" for text in texts]
    values = column.to_pylist()
    if pa.types.is_string(column.type):  # most are the same for many trials
        once = {value: f"{key}: {json.dumps(value)}" for value in {*values} - {None}}
        return [once.get(value, "") for value in values]
    if pa.types.is_timestamp(column.type):
        return ["" if value is None else f'{key}: "{value}"' for value in values]
    encode = json.JSONEncoder(sort_keys=True, default=str).encode
    return ["" if value is None else f"{key}: {encode(value)}" for value in values]


_ROWS_AT_ONCE = 1000


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """As `to_pylist`, with equal texts of a column in memory once."""
    names, columns = table.column_names, [_values(column) for column in table.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    if not pa.types.is_string(column.type):
        values: list[Any] = column.to_pylist()
        return values
    encoded = column.combine_chunks().dictionary_encode()
    texts = [*encoded.dictionary.to_pylist(), None]
    return [texts[index] for index in encoded.indices.fill_null(-1).to_pylist()]


def read_sweep(
    path: str | os.PathLike[str], *, pool_code: bool = False, skip_damaged: bool = False, with_stopped: bool = False
) -> Sweep:
    """A sweep's record from its folder or s3:// prefix. Trials that were trained by different code are different
    settings to every statistic, unless `pool_code`. With `skip_damaged` trials of which a file is damaged or missing
    are left out (`Sweep.damaged`), where compacted files are sound. So are trials that a scheduler ended early as
    others did better (`Sweep.stopped`), whose accuracy is that of an earlier epoch, unless `with_stopped`; those that
    it ended as collapsed count, as they are what a tipping point is about.

    Raises `InputError` as `read_table` does; for the tables other than `trials`, when they are first asked for.
    """
    path = location(path)
    fs, inner = open_place(path)
    damaged = scan(path, compacted=False).corrupted if skip_damaged else {}
    trials = read_table(path, "trials", without=damaged)
    left_out = pc.and_(pc.equal(trials["status"], "stopped"), pc.not_equal(trials["stopped_by"], "collapse"))
    left_out = pc.fill_null(left_out, False)
    stopped = () if with_stopped else tuple(trials.filter(left_out)["trial_id"].to_pylist())
    if stopped:
        trials = trials.filter(pc.invert(left_out))
    if not len(trials):
        raise InputError(f"{_shown(fs, inner)}: every trial was stopped early; --with-stopped counts them")
    return Sweep(_shown(fs, inner), trials, pool_code, damaged, stopped, with_stopped)


def read_trial(sweep: str, trial_id: str) -> dict[str, Any] | None:
    """The row of the trials table of a trial that has a file of its own there; None where it has none.

    Raises `InputError` if the file is damaged.
    """
    rows = read_rows(sweep, "trials", trial_id)
    return rows[0] if rows else None


def read_rows(sweep: str, table: str, trial_id: str) -> list[dict[str, Any]]:
    """The rows of a table that a trial has in a file of its own there. Raises `InputError` if the file is damaged."""
    fs, path = open_place(sweep)
    if not fs.exists(f"{path}/{table}/{trial_id}.parquet"):
        return []
    rows: list[dict[str, Any]] = _single(fs, path, table, trial_id).to_pylist()
    return rows


def content_hash(path: str) -> str:
    """12 hex digits that change when a trial of the sweep does, and not by compaction; raises as `read_table` does."""
    return read_sweep(path).content_hash


def compact(path: str) -> list[str]:
    """Merge each table's files into `<table>/compacted.parquet`; the paths written (none if there was nothing to do).

    Stopped at any point, it leaves a record that reads the same, and can be called again. Not for a sweep that is
    running: a failed trial that is being replaced meanwhile could be lost.

    Raises `InputError` as `read_table` does; nothing is changed then.
    """
    fs, root = open_place(path)
    names = _listing(fs, root, "trials") or {COMPACTED}
    singles = names - {COMPACTED}
    merged = {table: read_table(path, table) for table in ("epochs", "measurements", "maps", "trials")}
    written = []
    if singles:
        # trials last: until its own file in trials/ is gone, a trial is read from its own files
        for table, content in merged.items():
            file = f"{root}/{table}/{COMPACTED}.parquet"
            put_file(fs, file, encode(content, compacted=True))
            written.append(_shown(fs, file))
        _remove(fs, [f"{root}/trials/{name}.parquet" for name in sorted(singles)])
    # from here on the trials are read from the compacted files; this also clears what an interrupted call has left.
    # Files of failed trials that were compacted earlier may belong to a new attempt, which is about to be recorded
    statuses = dict(zip(merged["trials"]["trial_id"].to_pylist(), merged["trials"]["status"].to_pylist(), strict=True))
    done = singles | {name for name, status in statuses.items() if status != "failed"}
    for table in ("epochs", "measurements", "maps"):
        _remove(fs, [f"{root}/{table}/{name}.parquet" for name in sorted(_listing(fs, root, table) & done)])
    return written


def _remove(fs: fsspec.AbstractFileSystem, paths: list[str]) -> None:
    for _ in _parallel(fs.rm_file, paths, fs):
        continue


@dataclass
class Flags:
    """Work on a sweep's record."""

    command: Positional[Literal["compact"]]
    """compact: merge each table into one file."""
    sweep: Positional[str]
    """Folder or s3:// prefix of the sweep."""


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.records", description="Merge each table of a sweep into one file.")
    try:
        written = compact(flags.sweep)
    except StorageError:
        raise
    except STORAGE_ERRORS as error:
        raise InputError(f"{flags.sweep}: cannot be written ({_reason(error)})") from None
    for path in written:
        print(path)
    if not written:
        print(f"{flags.sweep}: every table is one file already")


if __name__ == "__main__":
    run(main)
