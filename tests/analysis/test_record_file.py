"""Every file of a record carries a checksum: no bit of it flips unnoticed. Files from before there were checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from analysis import records
from analysis.command_line import InputError
from analysis.record_file import DamagedError, decode, encode
from analysis.schema import RUNS, TABLES
from sweeps.driver.usage import of_all_runs

Record = Callable[..., bool]


def damaged(content: bytes | bytearray) -> bool:
    try:
        decode(bytes(content))
    except DamagedError:
        return True
    return False


@pytest.fixture
def files(tmp_path: Path, record: Record) -> dict[str, Path]:
    record(tmp_path / "single", "a", error="a text of some length, é")
    for name in "abc":
        record(tmp_path / "compacted", name)
    records.compact(str(tmp_path / "compacted"))
    found = {f"{path.parent.parent.name}/{path.parent.name}": path for path in tmp_path.rglob("*.parquet")}
    assert len(found) == 8
    return found


@pytest.mark.parametrize("step", [1, 8])
def test_every_bit_counts(files: dict[str, Path], step: int) -> None:
    """Each bit of each byte of a file of `trials`, and a bit of each byte of every other file."""
    names = ["single/trials"] if step == 1 else sorted(files)
    for name in names:
        content = files[name].read_bytes()
        assert not damaged(content)
        for bit in range(0, 8 * len(content), step):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << (bit % 8 + bit // 8 % step) % 8
            assert damaged(changed), (name, bit)


def test_files_cut_short_joined_and_overwritten(files: dict[str, Path]) -> None:
    for name in ("single/trials", "compacted/maps"):
        content = files[name].read_bytes()
        assert all(damaged(content[:end]) for end in range(0, len(content), 7))
        assert all(damaged(content[start:]) for start in range(1, len(content), 7))
        assert all(damaged(content[:start] + bytes(16) + content[start + 16 :]) for start in range(len(content) - 16))
        assert damaged(content + b"\0")
        assert damaged(content + content)


@pytest.mark.parametrize("table", TABLES)
def test_the_file_is_named_and_its_trial_can_be_run_again(tmp_path: Path, record: Record, table: str) -> None:
    """top1 → tnp1 in the footer made the column null without a word."""
    record(tmp_path, "a")
    record(tmp_path, "b")
    file = tmp_path / table / "a.parquet"
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 40):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        assert records.scan(str(tmp_path)) == records.Scan(
            {"b": "completed"}, {"a": f"{file}: damaged (its checksum is of another content)"}
        )
        with pytest.raises(InputError) as raised:
            records.read_table(str(tmp_path), table, ["trial_id"])
        assert str(raised.value).startswith(
            f"{file}: damaged (its checksum is of another content); --skip-damaged leaves"
        )
    assert record(tmp_path, "a")
    assert records.scan(str(tmp_path)).statuses == {"a": "completed", "b": "completed"}


def test_a_compacted_file_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    for table in TABLES:
        file = files[f"compacted/{table}"]
        whole = file.read_bytes()
        file.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
        for use in (records.scan, lambda url, table=table: records.read_table(url, table)):
            with pytest.raises(InputError, match=r"compacted.parquet: damaged \(its checksum .*restore it from a copy"):
                use(str(tmp_path / "compacted"))
        file.write_bytes(whole)


def test_what_a_run_used_is_checked_too(tmp_path: Path) -> None:
    content = encode(pa.Table.from_pylist([{"driver": "d", "cpu_hours": 2.0, "most_workers": 1}], schema=RUNS))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.parquet").write_bytes(content)
    place = content.index(b"cpu_hours")  # of a column that would be null
    (tmp_path / "runs" / "b.parquet").write_bytes(content[:place] + b"cpw" + content[place + 3 :])
    used, runs, unread = of_all_runs(str(tmp_path))
    assert (used.cpu_hours, runs, unread) == (2.0, 1, [str(tmp_path / "runs" / "b.parquet")])
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        assert damaged(changed)


def test_the_checksum_is_sha256_of_the_rest(files: dict[str, Path]) -> None:
    """As the README says, so that others can check it."""
    for path in files.values():
        content = path.read_bytes()
        place = len(content) - 8 - int.from_bytes(content[-8:-4], "little") - 48
        assert hashlib.sha256(content[: place - 16] + content[place + 48 :]).digest() == content[place : place + 32]


def test_other_readers_pass_over_it(files: dict[str, Path]) -> None:
    for path in files.values():
        mine = decode(path.read_bytes())
        assert pq.read_table(path, page_checksum_verification=True).equals(mine)
        assert pq.read_table(path, pre_buffer=False, memory_map=True).equals(mine)
        assert pyarrow.dataset.dataset(path).to_table().equals(mine)
        assert len(pd.read_parquet(path)) == len(mine)


def before_checksums(table: pa.Table) -> bytes:
    """As it was written then."""
    sink = pa.BufferOutputStream()
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue())


def test_files_without_a_checksum_are_read(files: dict[str, Path], tmp_path: Path) -> None:
    for table in TABLES:
        path = files[f"single/{table}"]
        path.write_bytes(before_checksums(pq.read_table(path)))
    assert records.scan(str(tmp_path / "single")) == records.Scan({"a": "completed"}, {})
    records.compact(str(tmp_path / "single"))  # which gives them one
    content = (tmp_path / "single" / "trials" / "compacted.parquet").read_bytes()
    assert decode(content)["top1"].to_pylist() == [0.9]
    assert damaged(content.replace(b"top1", b"tnp1"))


def test_their_columns_are_held_against_what_was_written(files: dict[str, Path], tmp_path: Path) -> None:
    path = files["single/trials"]
    content = before_checksums(pq.read_table(path))
    places = [at for at in range(len(content)) if content.startswith(b"top1", at)]
    assert len(places) == 2  # in the schema, and in the column's own place; Arrow's own schema is in base64
    for at in places:
        path.write_bytes(content[:at] + b"tnp1" + content[at + 4 :])
        assert "trials/a.parquet: damaged (its column" in records.scan(str(tmp_path / "single")).corrupted["a"]
    # another column's name, so that there are two of it
    path.write_bytes(content.replace(b"top1", b"top5"))
    assert (
        "damaged (its columns are not those that were written" in records.scan(str(tmp_path / "single")).corrupted["a"]
    )
    path.write_bytes(content.replace(b"top1", b"tnp1"))
    assert "tnp1: double" in records.scan(str(tmp_path / "single")).corrupted["a"]


def test_a_bit_at_which_arrow_ends_the_process_is_damage_too() -> None:
    """In a file without a checksum. Without a process beside this one to try it, this one would end here."""
    file = Path(__file__).resolve().parents[2] / "analysis/reproductions/deform-cifar10/trials/compacted.parquet"
    content = bytearray(file.read_bytes())
    content[111292 // 8] ^= 1 << 111292 % 8
    for _ in range(2):  # the next process is another
        with pytest.raises(DamagedError, match="no readable Parquet file"):
            decode(bytes(content))
    assert decode(file.read_bytes()).num_rows > 0
