from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from analysis import records
from analysis.command_line import InputError
from analysis.schema import HYPERPARAMETERS, SCHEMA_VERSION, TABLES, direction, unit

from .conftest import make_trial

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]

SAMPLES: dict[str, Any] = {
    "string": 'é, "quoted"\nsecond line',
    "int32": SCHEMA_VERSION,
    "int64": -(2**40),
    "double": 0.1,
    "bool": False,
    "timestamp[us, tz=UTC]": datetime(2026, 11, 1, 23, 59, 59, 999999, tzinfo=UTC),
}


def everything(path: object) -> dict[str, list[dict[str, Any]]]:
    sweep = records.read_sweep(str(path))
    return {name: getattr(sweep, name).to_pylist() for name in TABLES}


def test_schema_has_the_columns_of_the_contract() -> None:
    columns = {
        "trials": """trial_id schema_version sweep method dataset model seed fold epochs batch_size alpha interval
            laplacian_width variant pixels sparsity gamma eta modulation weight_decay sigma downsampling
            deformation_strength labels reduction config status error top1 top5 loss total_variation train_seconds
            measure_seconds images_per_second attempts started_at finished_at git_commit git_dirty code host device
            python torch ray project_version width learning_rate optimizer crop precision class_names measured
            interval_factor alpha_batch alpha_element alpha_pixel convention alpha_per_image batchnorm
            cpus gpus pretrained fpn fpn_channels dropout declared stopped_at_epoch stopped_by""",
        "epochs": """trial_id epoch learning_rate train_loss penalty train_top1 top1 top5 loss total_variation
            seconds""",
        "measurements": "trial_id epoch metric component level value std n unit direction",
        "maps": "trial_id epoch name height width values",
    }
    assert {name: set(schema.names) for name, schema in TABLES.items()} == {
        name: set(text.split()) for name, text in columns.items()
    }
    assert (HYPERPARAMETERS[0], HYPERPARAMETERS[-1], len(HYPERPARAMETERS)) == ("alpha", "dropout", 21)
    top1, seed = TABLES["trials"].field("top1"), TABLES["trials"].field("seed")
    assert (unit(top1), direction(top1)) == ("fraction", "max")
    assert (unit(seed), direction(seed)) == ("", None)


def test_every_column_survives_with_values_and_with_nulls(tmp_path: Path) -> None:
    def row(table: str) -> dict[str, Any]:
        return {field.name: SAMPLES.get(str(field.type), [0.5, -1.0]) for field in TABLES[table]}

    trial = {**row("trials"), "trial_id": "full", "status": "diverged"}
    full = [{**row(table), "trial_id": "full"} for table in ("epochs", "measurements", "maps")]
    full[2] |= {"height": 1, "width": 2}
    assert records.write_trial(str(tmp_path / "demo"), trial, *([row] for row in full))
    empty = {"trial_id": "none", "status": "completed"}
    assert records.write_trial(str(tmp_path / "demo"), empty, [{}], [{}], [{}])

    sweep = records.read_sweep(str(tmp_path / "demo"))
    assert sweep.name == "demo"
    for name, written in zip(TABLES, [trial, *full], strict=True):
        table = getattr(sweep, name)
        assert table.schema.equals(TABLES[name], check_metadata=True)
        assert table.to_pylist()[0] == written
        nulls = {key: value for key, value in table.to_pylist()[1].items() if value is not None}
        assert nulls == ({**empty, "schema_version": 1} if name == "trials" else {"trial_id": "none"})


def test_numpy_values_and_other_time_zones_are_taken(tmp_path: Path) -> None:
    trial, epochs, measurements, maps = make_trial("a")
    trial |= {"alpha": np.float32(0.5), "seed": np.int64(3), "git_dirty": np.bool_(False), "top1": 1}
    trial["started_at"] = datetime(2026, 11, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    maps[0]["values"] = np.arange(6.0)
    records.write_trial(str(tmp_path), trial, epochs, measurements, maps)
    sweep = records.read_sweep(str(tmp_path))
    row = sweep.trials.to_pylist()[0]
    assert (row["alpha"], row["seed"], row["git_dirty"], row["top1"]) == (0.5, 3, False, 1.0)
    assert row["started_at"] == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert sweep.maps["values"][0].as_py() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alfa": 1.0}, "unknown column 'alfa'"),
        ({"alpha": "1"}, "trials.alpha"),
        ({"alpha": True}, "trials.alpha"),
        ({"seed": 1.0}, "trials.seed"),
        ({"seed": 2**70}, "trials.seed"),
        ({"method": 3}, "trials.method"),
        ({"started_at": datetime(2026, 11, 1)}, "trials.started_at.*time zone"),
        ({"git_dirty": 1}, "trials.git_dirty"),
        ({"status": "done"}, "trials.status"),
        ({"status": None}, "trials.status"),
        ({"schema_version": 2}, "trials.schema_version"),
        ({"trial_id": "a/b"}, "trials.trial_id"),
        ({"trial_id": "compacted"}, "trials.trial_id"),
        ({"trial_id": None}, "trials.trial_id"),
    ],
)
def test_bad_rows_are_refused_before_anything_is_written(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    trial, *tables = make_trial("a")
    with pytest.raises(ValueError, match=message):
        records.write_trial(str(tmp_path / "demo"), {**trial, **change}, *tables)
    assert not (tmp_path / "demo").exists()


def test_bad_rows_of_the_other_tables_are_refused(tmp_path: Path) -> None:
    trial, epochs, measurements, maps = make_trial("a")
    with pytest.raises(ValueError, match=r"epochs: unknown column 'lr'"):
        records.write_trial(str(tmp_path), trial, [{"lr": 1.0}], measurements, maps)
    with pytest.raises(ValueError, match="row of trial 'b'"):
        records.write_trial(str(tmp_path), trial, [{"trial_id": "b"}], measurements, maps)
    with pytest.raises(ValueError, match="6 values for 2×2 pixels"):
        records.write_trial(str(tmp_path), trial, epochs, measurements, [{**maps[0], "width": 2}])
    with pytest.raises(ValueError, match=r"maps\.values"):
        records.write_trial(str(tmp_path), trial, epochs, measurements, [{**maps[0], "values": ["x"] * 6}])


def test_a_finished_trial_is_never_replaced_and_a_failed_one_is(tmp_path: Path, record: Record) -> None:
    assert record(tmp_path, "a", status="failed", error="boom", top1=None)
    assert record(tmp_path, "a", status="diverged", top1=0.1)
    assert not record(tmp_path, "a", top1=0.9)
    records.compact(str(tmp_path))
    assert not record(tmp_path, "a", top1=0.9)
    assert records.read_table(str(tmp_path), "trials", ["top1"]).to_pylist() == [{"top1": 0.1}]


def test_a_failed_trial_is_replaced_after_compaction_too(tmp_path: Path, record: Record) -> None:
    record(tmp_path, "a", status="failed", top1=None)
    record(tmp_path, "b")
    records.compact(str(tmp_path))
    assert record(tmp_path, "a", top1=0.7)
    assert records.scan(str(tmp_path)).statuses == {"a": "completed", "b": "completed"}
    records.compact(str(tmp_path))
    assert records.read_table(str(tmp_path), "trials", ["top1"])["top1"].to_pylist() == [0.7, 0.9]
    assert len(records.read_sweep(str(tmp_path)).epochs) == 4


@pytest.mark.parametrize("before", [None, "failed"])
@pytest.mark.parametrize("puts", [0, 1, 2, 3])
def test_a_crash_while_writing_leaves_the_trial_unrecorded(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch, before: str | None, puts: int
) -> None:
    record(tmp_path, "b")
    if before:
        record(tmp_path, "a", status=before, top1=None)
    done = itertools.count()
    replace = records.os.replace

    def crash(source: str, target: str) -> None:
        if next(done) == puts:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(records.os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            record(tmp_path, "a")
    assert records.scan(str(tmp_path)) == records.Scan({"b": "completed"}, {})
    assert {row["trial_id"] for rows in everything(tmp_path).values() for row in rows} == {"b"}
    assert record(tmp_path, "a")
    assert records.scan(str(tmp_path)).statuses == {"a": "completed", "b": "completed"}


def test_files_of_a_crashed_writer_disturb_nobody(tmp_path: Path, record: Record) -> None:
    record(tmp_path, "a")
    (tmp_path / "trials" / ".a.parquet.0123.tmp").write_bytes(b"PAR1 half")
    assert records.scan(str(tmp_path)) == records.Scan({"a": "completed"}, {})
    assert len(pd.read_parquet(tmp_path / "trials")) == 1
    assert len(pyarrow.dataset.dataset(tmp_path / "trials").to_table()) == 1


def test_a_sweep_that_does_not_exist_has_no_trials(tmp_path: Path) -> None:
    assert records.scan(str(tmp_path / "nowhere")) == records.Scan({}, {})
    with pytest.raises(InputError, match=r"nowhere: no recorded trials"):
        records.read_sweep(str(tmp_path / "nowhere"))
    (tmp_path / "started" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match=r"started: no recorded trials; wait until"):
        records.read_sweep(str(tmp_path / "started"))


def test_the_hash_is_that_of_the_trials_as_lines_of_json(tmp_path: Path, record: Record) -> None:
    """Nulls left out, numbers that are not finite as Python writes them, columns of newer records included."""
    for name, values in {"a": {"loss": 1e-7}, "b": {"loss": math.nan, "top1": math.inf}, "c": {"top1": -0.0}}.items():
        record(tmp_path / "sweep", name, error='é, "quoted"\nsecond line', pretrained=True, **values)
    read = records.read_sweep(str(tmp_path / "sweep"))
    lists = pa.array([[1, 2], None, [3]])
    sweep = dataclasses.replace(read, trials=read.trials.append_column("newer", lists).append_column("z", pa.nulls(3)))
    expected = hashlib.sha256()
    for row in sweep.trials.to_pylist():
        values = {name: value for name, value in row.items() if value is not None}
        expected.update(json.dumps(values, sort_keys=True, default=str).encode() + b"\n")
    assert sweep.content_hash == expected.hexdigest()[:12]
    assert repr(read.rows) == repr(read.settings.to_pylist())


def test_compacted_uncompacted_and_mixed_read_alike(tmp_path: Path, record: Record) -> None:
    names = ["d", "b", "e", "a", "c"]
    for sweep, after in (("singles", 9), ("mixed", 2), ("compacted", 4)):
        for index, name in enumerate(names):
            record(tmp_path / sweep, name, seed=index, variant=None if index == 1 else "target")
            if index == after:
                records.compact(str(tmp_path / sweep))
    assert len(list((tmp_path / "mixed").glob("*/*.parquet"))) == 3 * 4
    assert len(list((tmp_path / "compacted").glob("*/*.parquet"))) == 4
    reference = everything(tmp_path / "singles")
    assert [row["trial_id"] for row in reference["trials"]] == sorted(names)
    assert [(row["trial_id"], row["epoch"]) for row in reference["epochs"]] == [
        (name, epoch) for name in sorted(names) for epoch in (1, 2)
    ]
    for sweep in ("mixed", "compacted"):
        assert everything(tmp_path / sweep) == reference
        assert records.scan(str(tmp_path / sweep)) == records.scan(str(tmp_path / "singles"))
        assert records.content_hash(str(tmp_path / sweep)) == records.content_hash(str(tmp_path / "singles"))
    record(tmp_path / "mixed", "f")
    assert records.content_hash(str(tmp_path / "mixed")) != records.content_hash(str(tmp_path / "singles"))
    assert records.compact(str(tmp_path / "compacted")) == []


def test_a_projection_has_the_columns_asked_for(tmp_path: Path, record: Record) -> None:
    record(tmp_path, "b", top1=0.2)
    record(tmp_path, "a", top1=0.1)
    records.compact(str(tmp_path))
    record(tmp_path, "aa", top1=0.15)
    table = records.read_table(str(tmp_path), "trials", ["top1", "alpha"])
    assert table.column_names == ["top1", "alpha"]
    assert table["top1"].to_pylist() == [0.1, 0.15, 0.2]
    assert records.read_table(str(tmp_path), "epochs", ["epoch"])["epoch"].to_pylist() == [1, 2] * 3
    with pytest.raises(InputError, match="no column 'top2'"):
        records.read_table(str(tmp_path), "trials", ["top2"])
    with pytest.raises(InputError, match="table 'trial'"):
        records.read_table(str(tmp_path), "trial")


class Crash(Exception):
    pass


@pytest.mark.parametrize("operation", range(16))
def test_compaction_can_be_cut_off_anywhere(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch, operation: int
) -> None:
    """An earlier compacted record, then a failed trial tried again and two new ones: 4 writes, 3 + 9 deletions."""
    record(tmp_path, "a", status="failed", top1=None)
    record(tmp_path, "b")
    records.compact(str(tmp_path))
    record(tmp_path, "a", seed=1)
    record(tmp_path, "c", seed=2)
    record(tmp_path, "d", seed=3)
    reference = everything(tmp_path)
    assert [row["status"] for row in reference["trials"]] == ["completed"] * 4
    steps = itertools.count()
    replace, remove = records.os.replace, LocalFileSystem.rm_file

    def counted_replace(source: str, target: str) -> None:
        if next(steps) == operation:
            raise Crash
        replace(source, target)

    def counted_remove(self: LocalFileSystem, path: str) -> None:
        if next(steps) >= operation:
            raise Crash
        remove(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(records.os, "replace", counted_replace)
        patch.setattr(LocalFileSystem, "rm_file", counted_remove)
        with pytest.raises(Crash):
            records.compact(str(tmp_path))
    assert everything(tmp_path) == reference
    assert set(records.scan(str(tmp_path)).statuses) == {"a", "b", "c", "d"}
    assert not record(tmp_path, "a")
    records.compact(str(tmp_path))
    assert everything(tmp_path) == reference
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        f"{table}/compacted.parquet" for table in sorted(TABLES)
    ]


def test_compaction_leaves_the_tables_of_unrecorded_trials(tmp_path: Path, record: Record) -> None:
    record(tmp_path, "a")
    record(tmp_path, "b")
    (tmp_path / "trials" / "b.parquet").unlink()
    records.compact(str(tmp_path))
    assert (tmp_path / "epochs" / "b.parquet").exists()
    assert set(records.read_sweep(str(tmp_path)).epochs["trial_id"].to_pylist()) == {"a"}


@pytest.mark.parametrize(
    ("table", "damage"),
    # a trial without its file in trials/ is not damaged, but not recorded
    sorted({*itertools.product(TABLES, ["truncated", "missing", "flipped", "other"])} - {("trials", "missing")}),
)
def test_a_damaged_file_is_named_and_its_trial_can_be_run_again(
    tmp_path: Path, record: Record, table: str, damage: str
) -> None:
    record(tmp_path, "a")
    record(tmp_path, "b")
    file = tmp_path / table / "a.parquet"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        file.unlink()
    elif damage == "flipped":
        content[content.index(b"\x01\x00\x00\x00a") + 4] = ord("c")
        file.write_bytes(content)
    else:
        shutil.copy(tmp_path / table / "b.parquet", file)
    found = records.scan(str(tmp_path))
    assert found.statuses == {"b": "completed"}
    assert list(found.corrupted) == ["a"]
    assert str(file) in found.corrupted["a"]
    before = sorted(tmp_path.rglob("*"))
    for use in (lambda: everything(tmp_path), lambda: records.compact(str(tmp_path))):
        with pytest.raises(InputError) as raised:
            use()
        assert str(file) in str(raised.value)
        assert "--retry-failed" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert record(tmp_path, "a")
    assert records.scan(str(tmp_path)) == records.Scan({"a": "completed", "b": "completed"}, {})


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_compacted_file_is_named(tmp_path: Path, record: Record, table: str) -> None:
    record(tmp_path, "a")
    records.compact(str(tmp_path))
    file = tmp_path / table / "compacted.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    for use in (lambda: everything(tmp_path), lambda: records.scan(str(tmp_path))):
        with pytest.raises(InputError, match="restore it from a copy") as raised:
            use()
        assert str(file) in str(raised.value)


@pytest.mark.parametrize("table", TABLES)
def test_junk_in_a_tables_folder_is_named(tmp_path: Path, record: Record, table: str) -> None:
    record(tmp_path, "a")
    (tmp_path / table / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: does not belong"):
        everything(tmp_path)
    (tmp_path / table / "notes.txt").unlink()
    (tmp_path / "trials" / "notes.parquet").write_text("mine")
    assert "notes.parquet" in records.scan(str(tmp_path)).corrupted["notes"]
    with pytest.raises(InputError, match=r"notes\.parquet: damaged \(no readable Parquet file"):
        everything(tmp_path)


@pytest.mark.parametrize(("metadata", "version"), [({"schema_version": "2"}, "2"), ({}, "none")])
def test_another_schema_version_is_refused_by_name(
    tmp_path: Path, record: Record, metadata: dict[str, str], version: str
) -> None:
    record(tmp_path, "a")
    record(tmp_path, "b")
    file = tmp_path / "trials" / "b.parquet"
    pq.write_table(pq.read_table(file).replace_schema_metadata(metadata), file)
    uses = (records.scan, records.read_sweep, records.compact, lambda sweep: record(sweep, "b"))
    for use in uses:
        with pytest.raises(InputError, match=f"b.parquet: is of schema version {version}, .* reads version 1"):
            use(str(tmp_path))


def test_columns_of_a_newer_writer_are_kept(tmp_path: Path, record: Record) -> None:
    record(tmp_path, "a")
    record(tmp_path, "b")
    file = tmp_path / "trials" / "b.parquet"
    table = pq.read_table(file)
    pq.write_table(table.drop(["device"]).append_column("energy", pa.array([12.5])), file)
    for _ in range(2):
        trials = records.read_sweep(str(tmp_path)).trials
        assert trials["energy"].to_pylist() == [None, 12.5]
        assert trials["device"].to_pylist() == [None, None]
        assert records.read_table(str(tmp_path), "trials", ["energy"]).column_names == ["energy"]
        records.compact(str(tmp_path))


def test_any_parquet_reader_reads_a_table_by_its_folder(tmp_path: Path, record: Record) -> None:
    for index in range(4):
        record(tmp_path, f"t{index}", seed=index)
        if index == 1:
            records.compact(str(tmp_path))
    frame = pd.read_parquet(tmp_path / "trials").sort_values("trial_id")
    assert list(frame["seed"]) == [0, 1, 2, 3]
    assert str(frame["started_at"].dt.tz) == "UTC"
    assert pyarrow.dataset.dataset(tmp_path / "epochs").to_table(columns=["top1"]).num_rows == 8
    assert [len(values) for values in pd.read_parquet(tmp_path / "maps")["values"]] == [6] * 4


def test_storage_is_checked_by_writing(tmp_path: Path) -> None:
    records.check_storage(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*cannot be written"):
        records.check_storage(str(tmp_path / "file"))
    with pytest.raises(InputError, match="s3://bucket/prefix"):
        records.check_storage("nonsense://bucket")


def test_the_compact_command(tmp_path: Path, record: Record, command: Command) -> None:
    sweep = tmp_path / "demo"
    code, out, err = command(records.main, "compact", sweep)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"{sweep}: no recorded trials" in err
    record(sweep, "a")
    code, out, err = command(records.main, "compact", sweep)
    assert (code, err) == (0, "")
    assert sorted(out.split()) == [str(sweep / table / "compacted.parquet") for table in sorted(TABLES)]
    assert command(records.main, "compact", sweep)[0] == 0
    code, out, err = command(records.main, "expand", sweep)
    assert (code, err.count("\n")) == (2, 1)
