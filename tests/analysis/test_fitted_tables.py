"""Tables that fit: what is empty is dropped, and a reason is said once."""

from __future__ import annotations

from analysis.report.page import Cell, Column, Section, Table, render
from analysis.report.tables import WHY, fitted

COLUMNS = (Column("setting"), Column("mean", "number"), Column("sd", "number"), Column("p", "number"))


def missing(reason: str) -> Cell:
    return Cell("", reason=reason)


def names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def test_a_column_without_a_value_is_dropped_and_named() -> None:
    rows = [("a", 1, missing("one seed"), missing("one seed")), ("b", 2, missing("one seed"), 0.5)]
    table = fitted(Table("t", COLUMNS, rows, note="Before."))
    assert names(table) == ["setting", "mean", "p"]
    assert table.note == "Before. In no row: sd (one seed)."
    assert [cell.text for cell in table.rows[1]] == ["b", "2", "0.5"]  # type: ignore[union-attr]


def test_reasons_stand_once_in_a_row() -> None:
    rows = [("a", missing("diverged"), missing("diverged"), missing("diverged")), ("b", 2, 0.1, 0.5)]
    table = fitted(Table("t", COLUMNS, rows))
    assert names(table) == ["setting", "mean", "sd", "p", WHY]
    html = render("page", [Section("s", [table])])
    assert html.count("diverged</td>") == 1
    assert "<small>diverged" not in html
    # several in one row are all said
    some = ("a", missing("diverged"), missing("not measured"), 1)
    (row, _) = fitted(Table("t", COLUMNS, [some, rows[1]])).rows
    assert row[-1].text == "diverged; not measured"  # type: ignore[union-attr]


def test_a_single_reason_stays_where_it_is() -> None:
    table = Table("t", COLUMNS, [("a", 1, missing("one seed"), 1), ("b", 1, 2, 3)])
    assert (fitted(table).columns, fitted(table).rows) == (list(table.columns), table.rows)


def test_reasons_that_are_said_are_not_repeated() -> None:
    rows = [("a", missing("diverged"), missing("diverged"), 1), ("b", 1, 2, 3)]
    table = fitted(Table("t", COLUMNS, rows), said=True)
    assert names(table) == [column.name for column in COLUMNS]
    assert "diverged" not in render("page", [Section("s", [table])])


def test_nothing_to_fit() -> None:
    assert fitted(Table("t", COLUMNS, [])).rows == ()
