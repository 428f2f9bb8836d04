"""No path from a user is ever a pattern, and every command knows a place by the same name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs

from analysis import records, storage
from analysis.command_line import InputError
from analysis.storage import location, open_place, remove_folder

Record = Callable[..., bool]

NAMES = (
    "run[12]",
    "run1",
    "run2",
    "run*",
    "run?",
    "a{b,c}",
    "[!a]",
    "100%",
    "a%20b",
    "a b",
    "a#b",
    "a+b",
    "é→漢",
    "a::b",
)


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("s3")) if request.param == "s3" else str(tmp_path)


def contents(place: str) -> set[str]:
    """Every file, by a listing of the whole."""
    fs, root = open_place(place)
    return {path.removeprefix(f"{root}/") for path in fs.find(root)}


@pytest.mark.parametrize("name", ["run[12]", "run*", "[!a]", "100%"])
def test_a_folder_alone_is_removed(place: str, name: str) -> None:
    for other in NAMES:
        records.write_file(f"{place}/x/{other}/checkpoints/t/1.pt", b"x")
    records.write_file(f"{place}/x/{name}2/checkpoints/t/1.pt", b"x")
    before = contents(place)
    remove_folder(*open_place(f"{place}/x/{name}/checkpoints"))
    assert before - contents(place) == {f"x/{name}/checkpoints/t/1.pt"}
    remove_folder(*open_place(f"{place}/x/{name}/checkpoints"))  # which is not there now
    assert len(contents(place)) == len(before) - 1


def test_sweeps_of_such_names_are_each_their_own(place: str, record: Record) -> None:
    for index, name in enumerate(NAMES):
        assert record(f"{place}/{name}", "a", seed=index)
        assert record(f"{place}/{name}", "b", seed=index)
    for index, name in enumerate(NAMES):
        sweep = records.read_sweep(f"{place}/{name}")
        assert (sweep.name, sweep.trials["seed"].to_pylist()) == (name, [index, index])
        assert set(records.scan(f"{place}/{name}").statuses) == {"a", "b"}
    records.compact(f"{place}/run[12]")
    for name in ("run1", "run2", "run*"):
        assert {path for path in contents(place) if path.startswith(f"{name}/trials/")} == {
            f"{name}/trials/{trial}.parquet" for trial in "ab"
        }
    assert len(records.read_sweep(f"{place}/run[12]").epochs) == 4


@pytest.mark.parametrize(
    ("written", "known_as"),
    [
        ("s3://bucket", "s3://bucket"),
        ("S3://bucket/x/", "s3://bucket/x"),
        ("s3://bucket//x///y", "s3://bucket/x/y"),
        ("s3://bucket/é +#%[12]*?", "s3://bucket/é +#%[12]*?"),
        (
            "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/n/k",
            "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/n/k",
        ),
        ("~/a", "/home/somebody/a"),
        ("a/../b/./c/", "/work/b/c"),
        ("//x//y", "/x/y"),
        (".", "/work"),
        ("s3", "/work/s3"),
        ("./s3:b", "/work/s3:b"),
        ("a::b", "/work/a::b"),
        ("data:x", "/work/data:x"),
    ],
)
def test_one_name_for_a_place(written: str, known_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr(storage.os, "getcwd", lambda: "/work")
    assert location(written) == known_as
    assert location(known_as) == known_as
    fs, path = open_place(written)
    assert (fs.protocol[0], path) == (("s3", known_as[5:]) if known_as.startswith("s3:") else ("file", known_as))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "'', allowed are a folder or s3://bucket/prefix"),
        ("s3:bucket", "s3:bucket, allowed are a folder or s3://bucket/prefix"),
        ("s3:/bucket", "allowed are a folder or s3://bucket/prefix"),
        ("s3://", "s3://: no bucket"),
        ("s3:///x", "s3:///x: no bucket"),
        ("s3a://bucket/x", "allowed are a folder or s3://bucket/prefix"),
        ("file:///x", "allowed are a folder or s3://bucket/prefix"),
        (" s3://bucket", "allowed are a folder or s3://bucket/prefix"),
        ("s3://bucket/../x", "no . and .. between slashes"),
        ("s3://bucket[12]/x", "'bucket[12]' is no bucket's name"),
        ("s3://key:secret@bucket/x", "is no bucket's name"),
        ("s3://bucket/a?versionId=3", "no ?versionId="),
        ("s3://bucket/a\nb", "characters that can be printed"),
        ("~nobody-of-this-name/a", "there is no user nobody-of-this-name"),
        ("a\0b", "allowed are a folder"),
    ],
)
def test_what_is_no_place_is_refused_in_one_line(written: str, told: str, record: Record) -> None:
    uses: tuple[Callable[[str], object], ...] = (
        location,
        records.scan,
        records.read_sweep,
        records.compact,
        records.check_storage,
        records.open_briefly,
        lambda url: records.write_file(url, b""),
        lambda url: record(url, "a"),
    )
    for use in uses:
        with pytest.raises(InputError) as raised:
            use(written)
        assert told in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_record_is_seen_through_every_way_to_write_its_place(s3: str, record: Record) -> None:
    for index, url in enumerate(("s3://bucket//x", "S3://bucket/x/", "s3://bucket/x")):
        assert record(url, f"t{index}")
    for url in ("s3://bucket/x", "s3://bucket//x/", "S3://bucket///x"):
        assert set(records.scan(url).statuses) == {"t0", "t1", "t2"}
        assert records.read_sweep(url).path == "s3://bucket/x"


def test_the_marker_of_a_folder_goes_with_it(s3: str) -> None:
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    for key in ("x/c/", "x/c/1", "x/c/y/", "x/c/y//2", "x/c2", "x/c.txt"):
        fs.call_s3("put_object", Bucket="bucket", Key=key, Body=b"")
    remove_folder(*open_place("s3://bucket/x/c"))
    left = fs.call_s3("list_objects_v2", Bucket="bucket")["Contents"]
    assert sorted(entry["Key"] for entry in left) == ["x/c.txt", "x/c2"]


def test_no_call_that_takes_patterns_is_left() -> None:
    """s3fs takes the path of these for a pattern; what is called instead is named in `open_place`."""
    root = Path(records.__file__).parent.parent
    files = itertools.chain.from_iterable(
        (root / floor).rglob("*.py") for floor in ("analysis", "trainables", "sweeps")
    )
    found = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if any(f"fs.{name}(" in line for name in ("rm", "cat", "glob", "expand_path", "mv", "copy", "put", "get"))
        or "url_to_fs" in line
    ]
    assert found == ["analysis/storage.py: fs.rm(path, recursive=True)"]
