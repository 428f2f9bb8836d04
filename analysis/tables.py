"""The files of a record: what a sweep's folder holds of each table, each file checked as it is read."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from analysis.command_line import InputError
from analysis.lazily import lazily
from analysis.record_file import DamagedError, Where, brief, decode
from analysis.schema import SCHEMA_VERSION, TABLES
from analysis.storage import STORAGE_ERRORS, StorageError, _parallel, _reason, _shown, open_place

if TYPE_CHECKING:
    import fsspec

pc, local = lazily("pyarrow.compute"), lazily("fsspec.implementations.local")

COMPACTED = "compacted"

_READ_WHOLE = 4 << 20  # bytes: a file up to this size is read at once
_JOINED_AT_ONCE = 500
"""Files whose rows are put together before more are read: a row of few bytes is many times as large in a table of its
own."""


class _Damaged(Exception):
    """A file of the record that is missing or cannot be read. The message names the file and what is wrong."""


def _listing(fs: fsspec.AbstractFileSystem, path: str, table: str) -> set[str]:
    """Names without suffix of a table's files; empty if there is no such folder."""
    folder = f"{path}/{table}"
    try:
        entries = fs.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except STORAGE_ERRORS as error:
        raise StorageError(f"{_shown(fs, folder)}: cannot be read ({_reason(error)})") from None
    names = set()
    for entry in entries:
        name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
        if name.startswith((".", "_")) or entry["name"].strip("/") == folder.strip("/"):
            continue  # half-written and hidden files; the marker object that some S3 tools make for a folder
        if entry["type"] == "directory" or not name.endswith(".parquet"):
            raise InputError(
                f"{_shown(fs, folder)}/{name}: does not belong to the record; "
                f"{table}/ holds Parquet files only, move it away"
            )
        names.add(name.removesuffix(".parquet"))
    return names


def _decode(
    fs: fsspec.AbstractFileSystem,
    path: str,
    table: str,
    name: str,
    columns: list[str] | None,
    where: Where | None = None,
) -> pa.Table:
    """One file, checked; of it the columns and rows that are wanted. Raises `_Damaged` if it is missing or damaged,
    `InputError` if of another schema version."""
    file = f"{path}/{table}/{name}.parquet"
    shown = _shown(fs, file)

    def check(metadata: Mapping[bytes, bytes]) -> None:
        version = metadata.get(b"schema_version", b"none").decode(errors="replace")
        if version != str(SCHEMA_VERSION):
            raise InputError(
                f"{shown}: is of schema version {version}, this project reads version {SCHEMA_VERSION}; "
                "read it with the project's version that wrote it, or choose another --name"
            )

    try:
        with _opened(fs, file) as source:
            content_table = decode(source, columns, check, where)
    except DamagedError as damage:
        raise _Damaged(f"{shown}: damaged ({damage})") from None
    except FileNotFoundError:
        raise _Damaged(f"{shown}: is missing") from None
    except STORAGE_ERRORS as error:
        raise StorageError(f"{shown}: cannot be read ({_reason(error)})") from None
    schema, known = content_table.schema, TABLES[table]
    if not schema.equals(known):
        for column in set(schema.names) & set(known.names):
            kind, right = schema.field(column).type, known.field(column).type
            if kind != right:
                raise _Damaged(f"{shown}: damaged (column {column} is of type {kind}, not {right})")
    if name != COMPACTED and "trial_id" in content_table.column_names:
        others = {*content_table["trial_id"].unique().to_pylist()} - {name}
        if others or (table == "trials" and len(content_table) != 1):
            held = f"trial {others.pop()}" if others else "no single trial"
            raise _Damaged(f"{shown}: damaged (it holds {held})")
    return content_table


@contextlib.contextmanager
def _opened(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[bytes | BinaryIO]:
    """A file's content; a large one on a disk is opened, to be read in parts."""
    if not isinstance(fs, local.LocalFileSystem):
        yield fs.cat_file(path)
        return
    with open(path, "rb") as file:
        yield file.read() if os.fstat(file.fileno()).st_size <= _READ_WHOLE else file


def _compacted(
    fs: fsspec.AbstractFileSystem, path: str, table: str, columns: list[str] | None, where: Where | None = None
) -> pa.Table:
    try:
        return _decode(fs, path, table, COMPACTED, columns, where)
    except _Damaged as damage:
        raise InputError(
            f"{damage}; it holds the {table} of many trials: restore it from a copy, "
            "or move the sweep's folder away to run them again"
        ) from None


def _check_trial(fs: fsspec.AbstractFileSystem, path: str, trial_id: str) -> str:
    """Status of a trial with files of its own. Raises `_Damaged` if one of the four is missing or damaged."""
    status: str = _decode(fs, path, "trials", trial_id, None)["status"][0].as_py()
    for table in ("epochs", "measurements", "maps"):
        _decode(fs, path, table, trial_id, None)
    return status


@dataclass(frozen=True)
class Scan:
    """What is recorded: the status of each trial, and for those whose files are damaged the message that says so."""

    statuses: dict[str, str]
    corrupted: dict[str, str]


def scan(sweep: str, *, compacted: bool = True) -> Scan:
    """Which trials are recorded, with every file read and checked, or, without the `compacted` ones, every trial's own.
    A sweep that does not exist has none.

    Raises `InputError` if the sweep is of another schema version, has files that do not belong to it, or damaged
    compacted files.
    """
    fs, path = open_place(sweep)
    names = _listing(fs, path, "trials")
    statuses: dict[str, str] = {}
    if COMPACTED in names and compacted:
        trials = _compacted(fs, path, "trials", None)
        statuses = dict(zip(trials["trial_id"].to_pylist(), trials["status"].to_pylist(), strict=True))
        for table in ("epochs", "measurements", "maps"):
            _compacted(fs, path, table, None, lambda part: pc.is_null(part["trial_id"]))  # all is read, nothing kept
    singles = sorted(names - {COMPACTED})

    def check(trial_id: str) -> str | _Damaged:
        try:
            return _check_trial(fs, path, trial_id)
        except _Damaged as damage:
            return damage

    corrupted = {}
    for trial_id, result in zip(singles, _parallel(check, singles, fs), strict=True):
        if isinstance(result, _Damaged):
            statuses.pop(trial_id, None)
            corrupted[trial_id] = str(result)
        else:
            statuses[trial_id] = result
    return Scan(statuses, corrupted)


def read_table(
    sweep: str,
    table: str,
    columns: Sequence[str] | None = None,
    *,
    where: Where | None = None,
    without: Collection[str] = (),
) -> pa.Table:
    """One table of a sweep, or some of its columns and rows: the fast way to a few numbers of many trials.

    `where` is asked of one part of the table after the other, with those columns and `trial_id`, which rows are wanted,
    so that no more of a large table is in memory than is. `without` leaves out trials that have files of their own and
    these IDs.

    Trials are sorted by `trial_id`, rows of the other tables by `trial_id` and then as they were recorded; rows of
    trials that are not (yet) in `trials` are left out. Columns of newer records that the schema does not know are kept.

    Raises `InputError`, one line that names the file, for a sweep that is missing or has no recorded trial, damaged
    files, files that do not belong to the record, or another schema version, and for an unknown table or column.
    """
    if table not in TABLES:
        raise InputError(f"table {table!r}: allowed are {', '.join(TABLES)}")
    fs, path = open_place(sweep)
    names = _listing(fs, path, "trials")
    if not names:
        raise InputError(
            f"{_shown(fs, path)}: no recorded trials; "
            + ("give" if not fs.exists(path) else "wait until a trial of it ends, or give")
            + " the folder or s3:// prefix of a sweep, <storage>/<name>"
        )
    # files that do not belong to a folder are an error, even where they would not be read
    if table != "trials":
        _listing(fs, path, table)
    # rows are chosen and sorted by trial
    needed = None if columns is None else list(dict.fromkeys(["trial_id", *columns]))
    singles = sorted(names - {COMPACTED, *without})

    def decode(trial_id: str) -> pa.Table | _Damaged:
        try:
            return _decode(fs, path, table, trial_id, needed)
        except _Damaged as damage:
            return damage

    shown = _shown(fs, path)
    found = _sound(_parallel(decode, singles, fs))
    parts = []
    while some := list(itertools.islice(found, _JOINED_AT_ONCE)):
        part = _joined(some, f"{shown}/{table}").combine_chunks()
        parts.append(part if where is None else part.filter(where(part)))
    if COMPACTED in names:
        own = pa.array([*singles, *without], pa.string())
        ids = None if table == "trials" else _compacted(fs, path, "trials", ["trial_id"])["trial_id"]

        def of_those(part: pa.Table) -> Any:
            mask = pc.invert(pc.is_in(part["trial_id"], own))
            mask = mask if ids is None else pc.and_(mask, pc.is_in(part["trial_id"], ids))
            return mask if where is None else pc.and_(mask, where(part))

        parts.append(_compacted(fs, path, table, needed, of_those))
    if not parts:
        raise InputError(f"{shown}: every trial is damaged ({len(without)} of them); restore the record from a copy")
    return _merged(parts, table, columns, shown)


def _sound(parts: Iterable[pa.Table | _Damaged]) -> Iterator[pa.Table]:
    for part in parts:
        if isinstance(part, _Damaged):
            raise InputError(
                f"{part}; --skip-damaged leaves such trials out, and the sweep's own command with --retry-failed runs "
                "them again"
            )
        yield part


def _joined(parts: Sequence[pa.Table], shown: str) -> pa.Table:
    alike = all(part.schema.equals(parts[0].schema) for part in parts[1:])
    try:
        whole = pa.concat_tables(parts, promote_options="none" if alike else "permissive")
    except pa.ArrowException as error:
        raise InputError(f"{shown}: trials disagree about a column ({brief(error)})") from None
    return whole


def _merged(parts: list[pa.Table], table: str, columns: Sequence[str] | None, shown: str) -> pa.Table:
    whole = _joined(parts, f"{shown}/{table}")
    if not _is_sorted(whole["trial_id"]):
        # the sort is stable: a trial's rows keep their order
        whole = whole.take(pc.sort_indices(whole["trial_id"]))
    known = TABLES[table]
    if columns is None:
        columns = [*known.names, *(name for name in whole.column_names if name not in known.names)]
    arrays, fields = [], []
    for name in columns:
        if name not in whole.column_names and name not in known.names:
            raise InputError(f"{shown}/{table}: no column {name!r}; the table has {', '.join(known.names)}")
        field = known.field(name) if name in known.names else whole.schema.field(name)
        # a column that the record is older than
        arrays.append(whole[name] if name in whole.column_names else pa.nulls(len(whole), field.type))
        fields.append(field)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=known.metadata))


def _is_sorted(column: pa.ChunkedArray) -> bool:
    return len(column) < 2 or bool(pc.all(pc.less_equal(column[:-1], column[1:])).as_py())
