"""Tables that fit a screen and a printed page: what is empty is dropped, and a reason is said once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from analysis.report.page import Cell, Column, Entry, Table

WHY = "why there is no number"


def fitted(table: Table, *, said: bool = False) -> Table:
    """The table without the columns that have nothing in any row, which a note names with the reason, and, where a row
    lacks several numbers, with the reasons in a column of their own instead of in each cell; not if they are `said` in
    another one. The first column stays."""
    rows = [[_cell(entry) for entry in row] for row in table.rows]
    if not rows:
        return table
    columns = list(table.columns)
    empty = [
        index for index in range(1, len(columns)) if all(row[index].is_empty and row[index].reason for row in rows)
    ]
    dropped: dict[str, list[str]] = {}
    for index in empty:
        reasons = list(dict.fromkeys(row[index].reason for row in rows))
        if len(reasons) > 3:
            reasons = [*reasons[:3], "…"]
        dropped.setdefault("; ".join(reasons), []).append(columns[index].name)
    kept = [index for index in range(len(columns)) if index not in empty]
    columns, rows = [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]
    notes = [f"In no row: {', '.join(names)} ({reasons})." for reasons, names in dropped.items()]
    if said:
        rows = [[_quiet(cell) for cell in row] for row in rows]
    elif any(sum(cell.is_empty for cell in row) > 1 for row in rows):
        columns.append(Column(WHY))
        rows = [[*map(_quiet, row), _reasons(row)] for row in rows]
    note = " ".join([*([table.note] if table.note else []), *notes])
    return dataclasses.replace(table, columns=columns, rows=rows, note=note)


def _cell(entry: Entry) -> Cell:
    assert isinstance(entry, Cell), "a table has made cells of its entries"
    return entry


def _quiet(cell: Cell) -> Cell:
    return dataclasses.replace(cell, quiet=True) if cell.is_empty else cell


def _reasons(row: Sequence[Cell]) -> Cell:
    reasons = dict.fromkeys(cell.reason for cell in row if cell.is_empty)
    return Cell("; ".join(reasons)) if reasons else Cell("·", "")
