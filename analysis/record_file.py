"""A file of the record: Parquet that carries a checksum of itself, so that no flipped bit goes unnoticed.

Between the last page and the footer stand 64 bytes that no reader of Parquet looks at, as all places in such a file are
given in its footer: a mark of 16 bytes, the SHA-256 of all other bytes of the file, and a second mark. Either mark
alone says that the file has a checksum, so that damage to one does not make it a file without. Files that were written
before there were checksums are held against the Arrow schema that they carry beside Parquet's own, and first read by
another process, as there are bits at which Arrow ends the one that reads.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import pyarrow as pa

from analysis.lazily import lazily

if TYPE_CHECKING:
    import pyarrow.parquet as pq
else:
    pq = lazily("pyarrow.parquet")
pc = lazily("pyarrow.compute")

# no UTF-8, so that no text of a record has them
_MARKS = b"\xff\xfesha256 of rest", b"end of sha256\xfe\xff\r"
_DIGEST = 32
_BLOCK = sum(map(len, _MARKS)) + _DIGEST
_END = 8  # the footer's length and "PAR1"


class DamagedError(Exception):
    """A file that is not as it was written. The message says what is wrong, and not of which file."""


def encode(table: pa.Table, *, compacted: bool = False) -> bytes:
    """The table as a file of the record, `compacted` or of few rows."""
    buffer = io.BytesIO()
    if compacted:
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    else:
        # dictionaries and statistics of a row or a few cost more than they save: half the size, faster to read
        pq.write_table(
            table,
            buffer,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )
    content = buffer.getbuffer()
    place = len(content) - _END - int.from_bytes(content[-_END:-4], "little")
    pages, footer = content[:place], content[place:]
    return b"".join((pages, _MARKS[0], _digest(pages, footer), _MARKS[1], footer))


Result = TypeVar("Result")
Where = Callable[[pa.Table], Any]
"""Which rows of a part of a table are wanted: a mask."""

_READ_AT_ONCE = 1 << 20
# bytes and rows, of which the former say little where equal values are written once
_DECODED_AT_ONCE, _ROWS_AT_ONCE = 1 << 22, 1 << 14


def decode(
    source: bytes | BinaryIO,
    columns: list[str] | None = None,
    check: Callable[[Mapping[bytes, bytes]], None] = lambda metadata: None,
    where: Where | None = None,
) -> pa.Table:
    """The rows of a file, those of `columns` that it has; `where` is asked of one part after the other which rows are
    wanted. Of an open file no more is held than what is wanted.

    `check` is given the metadata before rows are read, and may raise what it likes. Raises `DamagedError` if the file
    is not as it was written.
    """
    whole = source if isinstance(source, bytes) else None
    has_checksum = _has_checksum(io.BytesIO(source) if isinstance(source, bytes) else source)
    if not has_checksum:
        if not isinstance(source, bytes):
            source.seek(0)
            whole = source.read()
        assert whole is not None
        if not _outlived(whole):
            raise DamagedError("no readable Parquet file: whoever reads it ends")

    def opened() -> tuple[pq.ParquetFile, Mapping[bytes, bytes]]:
        if whole is None:
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_READ_AT_ONCE)
        else:
            file = pq.ParquetFile(pa.BufferReader(whole), page_checksum_verification=not has_checksum)
        if not has_checksum:
            _check_footer(file)
        return file, file.metadata.metadata or {}

    file, metadata = _read(opened)
    check(metadata)
    if where is not None and has_checksum:
        return _some_rows(file, columns, where)
    table = _read(lambda: file.read(columns=columns, use_threads=False))
    if not has_checksum:
        _read(lambda: table.validate(full=True))
    return table if where is None else table.filter(where(table))


def _some_rows(file: pq.ParquetFile, columns: list[str] | None, where: Where) -> pa.Table:
    metadata = file.metadata
    size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    rows = min(max(1, _DECODED_AT_ONCE * metadata.num_rows // max(size, 1)), _ROWS_AT_ONCE)
    batches = file.iter_batches(rows, columns=columns, use_threads=False)
    parts = []
    while (batch := _read(lambda: next(batches, None))) is not None:
        part = pa.Table.from_batches([batch])
        wanted = where(part)
        parts.append(part if pc.all(wanted, min_count=0).as_py() else part.filter(wanted))
    return pa.concat_tables(parts) if parts else _read(lambda: file.read(columns=columns, use_threads=False))


def _read(read: Callable[[], Result]) -> Result:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - a changed byte may raise anything
        raise _unreadable(error) from None


def _has_checksum(file: BinaryIO) -> bool:
    """Whether the file has a checksum. Raises `DamagedError` if it is one of another content."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END))
    place = max(0, size - _END - int.from_bytes(file.read(_END)[:-4], "little") - _BLOCK)
    file.seek(place)
    block = file.read(_BLOCK)
    if block.startswith(_MARKS[0]) and block.endswith(_MARKS[1]):
        file.seek(0)
        digest = hashlib.sha256()
        while place > 0 and (part := file.read(min(place, _READ_AT_ONCE))):
            digest.update(part)
            place -= len(part)
        file.seek(_BLOCK, io.SEEK_CUR)
        while part := file.read(_READ_AT_ONCE):
            digest.update(part)
        if block == _MARKS[0] + digest.digest() + _MARKS[1]:
            return True
    elif not _has_mark(file):
        return False
    raise DamagedError("its checksum is of another content")


def _has_mark(file: BinaryIO) -> bool:
    """Whether one of the marks is anywhere in the file."""
    file.seek(0)
    before = b""
    while part := file.read(_READ_AT_ONCE):
        if any(mark in before + part for mark in _MARKS):
            return True
        before = part[1 - max(map(len, _MARKS)) :]
    return False


_reader: subprocess.Popen[bytes] | None = None
_one_at_a_time = threading.Lock()


def _outlived(content: bytes) -> bool:
    """Whether a process that reads the file lives to tell: there are bits in a footer at which Arrow's C++ aborts. Only
    files without a checksum are tried so, all of them in one process beside this one."""
    global _reader
    with _one_at_a_time:
        if _reader is None or _reader.poll() is not None:
            _reader = subprocess.Popen(
                [sys.executable, "-c", "from analysis import record_file; record_file._read_for_another()"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert _reader.stdin is not None
        assert _reader.stdout is not None
        try:
            _reader.stdin.write(len(content).to_bytes(8, "little") + content)
            _reader.stdin.flush()
        except BrokenPipeError:
            _reader.wait()
            return False
        if _reader.stdout.read(1) == b"1":
            return True
        _reader.wait()
        return False


def _read_for_another() -> None:
    """What the other process does: read files from standard input, and say after each that it lives."""
    while size := sys.stdin.buffer.read(8):
        content = sys.stdin.buffer.read(int.from_bytes(size, "little"))
        with contextlib.suppress(Exception):  # which whoever asked will meet, too
            _check_footer(file := pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True))
            file.read(use_threads=False).validate(full=True)
        sys.stdout.buffer.write(b"1")
        sys.stdout.buffer.flush()


def _unreadable(error: Exception) -> DamagedError:
    return error if isinstance(error, DamagedError) else DamagedError(f"no readable Parquet file: {brief(error)}")


def _digest(before: memoryview, after: memoryview) -> bytes:
    digest = hashlib.sha256(before)
    digest.update(after)
    return digest.digest()


def _check_footer(file: pq.ParquetFile) -> None:
    """Hold the columns against the Arrow schema that the file was written from, where it says which."""
    metadata = file.metadata
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise DamagedError(f"{metadata.num_rows} rows, and others in its parts")
    for group in groups:
        for index in range(group.num_columns):
            column, named = group.column(index), file.schema.column(index)
            flat = named.max_repetition_level == 0
            if column.path_in_schema != named.path or (flat and column.num_values != group.num_rows):
                raise DamagedError(f"its column {named.path} has {column.num_values} values of {column.path_in_schema}")
    text = (metadata.metadata or {}).get(b"ARROW:schema")
    if text is None:
        return  # not written by pyarrow
    written = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text, validate=True)))
    if not file.schema_arrow.equals(written):
        there = ", ".join(sorted(map(str, {*file.schema_arrow} - {*written})))
        raise DamagedError(f"its columns are not those that were written ({there or 'their order'})")


def brief(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
