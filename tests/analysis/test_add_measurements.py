"""What is measured afterwards, added to a record: replaced by key, atomic, the same however the record is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import records
from analysis.command_line import InputError
from analysis.records import add_measurements, compact, read_sweep

Record = Callable[..., bool]


def row(metric: str, component: str, value: float, **columns: Any) -> dict[str, Any]:
    return {"epoch": 2, "metric": metric, "component": component, "value": value, "n": 5, "unit": "", **columns}


def square(name: str, value: float) -> dict[str, Any]:
    return {"epoch": 2, "name": name, "height": 1, "width": 2, "values": [value, value]}


@pytest.fixture(params=["single", "compacted", "mixed"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path, record: Record) -> str:
    url = str(tmp_path / "sweep")
    record(url, "a", measured='{"old": {}}')
    record(url, "b")
    if request.param != "single":
        compact(url)
    if request.param == "mixed":
        record(url, "c")
    return url


def values(sweep: str, trial_id: str) -> dict[tuple[str, str], float]:
    rows = read_sweep(sweep).measurements.to_pylist()
    return {(row["metric"], row["component"]): row["value"] for row in rows if row["trial_id"] == trial_id}


def test_rows_are_added_and_replaced_by_what_they_measure(sweep: str) -> None:
    before = read_sweep(sweep)
    untouched = {table: getattr(before, table).to_pylist() for table in ("trials", "epochs", "measurements", "maps")}
    add_measurements(sweep, "a", [row("f", "x", 1.0), row("f", "y", 2.0)], [square("m", 3.0)], {"f": {"images": 5}})
    add_measurements(sweep, "a", [row("f", "x on else", 5.0), row("f_per_image", "x on else", 5.0)], [], {})
    add_measurements(sweep, "a", [row("f", "x", 7.0), row("f", "x", 8.0, level=1.0)], [square("m/2", 4.0)], {})
    after = read_sweep(sweep)
    mine = [entry for entry in after.measurements.to_pylist() if entry["trial_id"] == "a" and entry["metric"][0] == "f"]
    found = [(entry["metric"], entry["component"], entry["value"]) for entry in mine]
    # all of the metric on that data set, whatever its components were; what was measured elsewhere stays
    assert sorted(found) == [
        ("f", "x", 7.0),
        ("f", "x", 8.0),
        ("f", "x on else", 5.0),
        ("f_per_image", "x on else", 5.0),
    ]
    maps = [entry for entry in after.maps.to_pylist() if entry["trial_id"] == "a" and entry["name"][0] == "m"]
    assert [(entry["name"], entry["values"]) for entry in maps] == [("m/2", [4.0, 4.0])]
    trial = next(entry for entry in after.trials.to_pylist() if entry["trial_id"] == "a")
    assert json.loads(trial["measured"]) == {"old": {}, "f": {"images": 5}}
    # the rest of the record is as it was
    for table, rows in untouched.items():
        now = getattr(after, table).to_pylist()
        assert [entry for entry in now if entry["trial_id"] != "a"] == [e for e in rows if e["trial_id"] != "a"]
        old = [entry for entry in rows if entry["trial_id"] == "a"]
        if table == "trials":
            assert {**trial, "measured": None} == {**old[0], "measured": None}
        else:
            assert all(entry in now for entry in old)


def test_compacted_later_it_reads_the_same(sweep: str) -> None:
    add_measurements(sweep, "b", [row("f", "x", 1.0)], [], {"f": {}})
    before = read_sweep(sweep)
    expected = before.trials, before.measurements, before.maps
    compact(sweep)
    after = read_sweep(sweep)
    assert (after.trials, after.measurements, after.maps) == expected


def test_bad_rows_are_refused_before_anything_is_written(sweep: str) -> None:
    before = read_sweep(sweep)
    expected = before.trials, before.measurements, before.maps
    with pytest.raises(ValueError, match=r"measurements\.value"):
        add_measurements(sweep, "a", [row("f", "x", "much")], [square("m", 1.0)], {"f": {}})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no recorded trial 'z'"):
        add_measurements(sweep, "z", [row("f", "x", 1.0)], [], {})
    after = read_sweep(sweep)
    assert (after.trials, after.measurements, after.maps) == expected


@pytest.mark.parametrize("survives", [0, 1, 2])
def test_cut_off_between_tables_it_can_be_done_again(
    sweep: str, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each table is old or new, never half; the trial's own row is the last; again, it ends as if nothing had been."""
    written: list[str] = []
    put = records.put_file

    def cut(fs: Any, path: str, content: bytes) -> None:
        if len(written) == survives:
            raise KeyboardInterrupt
        written.append(path.split("/")[-2])
        put(fs, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(records, "put_file", cut)
        with pytest.raises(KeyboardInterrupt):
            add_measurements(sweep, "a", [row("f", "x", 1.0)], [square("m", 1.0)], {"f": {}})
    assert written == ["maps", "measurements"][:survives]
    assert (("f", "x") in values(sweep, "a")) == (survives == 2)
    add_measurements(sweep, "a", [row("f", "x", 1.0)], [square("m", 1.0)], {"f": {}})
    assert values(sweep, "a")["f", "x"] == 1.0
    assert sum(entry["name"] == "m" for entry in read_sweep(sweep).maps.to_pylist()) == 1


def test_columns_of_a_newer_writer_stay(sweep: str) -> None:
    for table in ("trials", "measurements"):
        for path in Path(sweep, table).glob("*.parquet"):
            old = pq.read_table(path)
            pq.write_table(old.append_column("newer", pa.array(["n"] * len(old))), path)
    add_measurements(sweep, "a", [row("f", "x", 1.0)], [], {"f": {}})
    after = read_sweep(sweep)
    assert after.trials["newer"].to_pylist() == ["n"] * len(after.trials)
    newer = dict(zip(after.measurements["metric"].to_pylist(), after.measurements["newer"].to_pylist(), strict=True))
    assert newer.pop("f") is None
    assert set(newer.values()) == {"n"}
