"""What the functions of a sweep return: read from a path, printed in ten lines, a data frame and a figure."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from analysis import comparisons as comparisons_command
from analysis.command_line import InputError
from analysis.comparisons import comparisons
from analysis.correlations import correlations
from analysis.paper import check, check_all, draw, missing
from analysis.records import read_sweep
from analysis.storage import location
from analysis.tabular import Tabular
from analysis.tipping_points import tipping_points

RECORD = Path(comparisons_command.__file__).parent / "reproductions" / "pilcro-cifar10"
Record = Callable[..., bool]
FUNCTIONS: list[Callable[..., Tabular[Any]]] = [tipping_points, comparisons, correlations]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_path_is_read(function: Callable[..., Tabular[Any]]) -> None:
    """By a string, by a pathlib.Path and as a record: the same."""
    known = function(read_sweep(str(RECORD)))
    for place in (str(RECORD), RECORD):
        assert repr(function(place)) == repr(known)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_column_may_be_a_string(function: Callable[..., Tabular[Any]]) -> None:
    more = ["alpha", "reduction", "interval"] if function is comparisons else ["reduction"]
    alone = function(RECORD, by=" ".join(["variant", *more]))
    assert repr(alone) == repr(function(RECORD, by=["variant", *more]))
    with pytest.raises(InputError, match=r"^--by varian: no such column; there are "):
        function(RECORD, by="varian")


def test_other_names_may_be_strings() -> None:
    assert len(correlations(RECORD, metrics="total_variation")) == 3
    named = comparisons(RECORD, baseline="alpha=1 variant=curvature")
    assert named.reference == "alpha=1 variant=curvature"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_it_is_a_sequence_of_rows(function: Callable[..., Tabular[Any]]) -> None:
    found = function(RECORD)
    rows = list(found)
    assert len(rows) == len(found) == len(found.to_pandas())
    assert rows[0] is found[0]
    assert found[-1] is rows[-1]
    assert list(found[1:]) == rows[1:]
    assert isinstance(found.figure(), Figure)


def test_the_frame_is_what_the_command_writes(command: Callable[..., Any], tmp_path: Path) -> None:
    assert command(comparisons_command.main, RECORD, "--out", tmp_path)[0] == 0
    assert comparisons(RECORD).to_arrow().equals(pq.read_table(tmp_path / "comparisons.parquet"))


@pytest.mark.parametrize("strengths", [2, 9, 10, 30])
def test_it_prints_as_ten_lines_at_most(strengths: int, record: Record, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in range(2):
        record(tmp_path, f"b{seed}", method="baseline", alpha=None, variant=None, seed=seed, top1=0.9 + seed / 100)
        for index in range(strengths):
            name = "curvature with <tags> & a name that is long enough to be cut somewhere"
            top1 = float(0.9 + rng.normal() / 100)
            record(tmp_path, f"a{seed}-{index}", alpha=float(index + 1), seed=seed, top1=top1, variant=name)
    found = comparisons(tmp_path, by="alpha variant")
    lines = repr(found).splitlines()
    assert str(found) == repr(found)
    assert len(lines) == min(strengths + 1, 10)
    assert lines[0].split()[:2] == ["setting", "n"]
    assert lines[1].startswith("alpha=1, curvature with")
    if strengths > 9:
        assert lines[-1] == f"… {strengths - 8} more rows: .to_pandas()"
    else:
        assert lines[-1].startswith(f"alpha={strengths},")
    assert max(map(len, lines)) <= 200


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_a_table(record: Record, tmp_path: Path) -> None:
    for seed in range(2):
        record(tmp_path, f"b{seed}", method="baseline", alpha=None, variant=None, seed=seed, top1=0.9 + seed / 100)
        record(tmp_path, f"a{seed}", seed=seed, top1=0.8 + seed / 50, variant="<script>alert(1)</script>")
    parser = _Cells()
    parser.feed(comparisons(tmp_path, by=["alpha", "variant"])._repr_html_())
    assert set(parser.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert parser.tags.count("tr") == 2
    assert "<script>alert(1)</script>" in parser.text


def test_papers_take_a_path_and_are_rows() -> None:
    found = check(RECORD, "pilcro-1")
    assert len(found) == len(found.to_pandas()) == 80
    assert found[0].verdict == "not comparable"
    assert repr(found).splitlines()[0].startswith("the paper's row | column")
    assert len(repr(found).splitlines()) == 10
    assert isinstance(found.figure(), Figure)
    assert repr(check_all(str(RECORD))[0]) == repr(found)
    assert missing(RECORD, "pilcro-3")
    assert missing(RECORD, "pilcro-4") == ""
    (drawn, *_) = draw(RECORD, "pilcro-4")
    assert isinstance(drawn.figure, Figure)
    with pytest.raises(InputError, match=r"^loco-1: no number of ours"):
        check(RECORD, "loco-1").figure()


@pytest.mark.parametrize("as_path", [False, True])
def test_a_place_on_s3_is_read(as_path: bool, s3: str, record: Record) -> None:
    place = f"{s3}/results/demo"
    for seed in range(2):
        record(place, f"b{seed}", method="baseline", alpha=None, variant=None, seed=seed, top1=0.9 + seed / 100)
        record(place, f"a{seed}", seed=seed, top1=0.8 + seed / 50)
    found = comparisons(Path(place) if as_path else place)
    assert [row.label for row in found] == ["pilcro"]


def test_a_path_of_s3_has_its_two_slashes(tmp_path: Path) -> None:
    assert location(Path("s3://bucket/results/pilcro")) == "s3://bucket/results/pilcro"
    with pytest.raises(InputError):
        location("s3:/bucket/results")
