"""A section of the report: the papers' tables and figures beside the sweep's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analysis.figures import axis_name
from analysis.paper.figures import FIGURES, draw, missing
from analysis.paper.lines import Line
from analysis.paper.unmatched import Unmatched
from analysis.paper.verdicts import Table as PaperTable
from analysis.paper.verdicts import summary
from analysis.records import Sweep
from analysis.report.cells import _behind, _distinct, _number, _some, _Source, _spanned, _text
from analysis.report.page import Block, Cell, Column, Figure, Section, Subsection, Table, Text
from analysis.report.tables import fitted


def _papers(source: _Source, tables: Sequence[PaperTable], left: Sequence[Unmatched]) -> Section | None:
    blocks: list[Block | Subsection] = []
    others: list[Block] = []
    drawable = [
        name for name in FIGURES if any(table.item.id == name for table in tables) and not missing(source.sweep, name)
    ]
    for table in tables:
        inner: list[Block] = []
        if table.lines:
            inner += _paper_tables(table)
        if table.item.id in drawable:
            inner += _paper_figures(source, table)
        if any(isinstance(block, Figure) or (isinstance(block, Table) and not block.collapsed) for block in inner):
            blocks.append(Subsection(f"{table.item.id}: {table.item.title}", inner))
        else:
            others += inner
    if others:
        blocks.append(Subsection("Tables of which nothing is comparable", others))
    nothing = [table for table in tables if not table.lines and table.item.id not in drawable]
    if nothing:
        rows = [
            (table.item.id, table.item.title, table.item.needs, _text(_lacking(source.sweep, table), "nothing of it"))
            for table in nothing
        ]
        columns = (Column("ID"), Column("table or figure"), Column("needs"), Column("what is missing"))
        blocks.append(Table("What this sweep has nothing of", columns, rows, collapsed=True))
    blocks += [_left(kind, left) for kind in ("setting", "number") if any(it.kind == kind for it in left)]
    if not blocks:
        return None
    counts = Counter(line.verdict or "not judged" for table in tables for line in table.lines)
    if counts:
        blocks.insert(0, Text(f"In all, {', '.join(f'{n} {verdict}' for verdict, n in sorted(counts.items()))}."))
    intro = (
        "The papers' numbers beside ours. agrees: the paper's value lies in our 95% interval over seeds, or the order "
        "of settings that it claims holds (p < .05, Holm); not comparable: data, network, training or measuring differ."
    )
    return Section("Beside the papers", blocks, intro)


def _left(kind: str, left: Sequence[Unmatched]) -> Table:
    """The settings, or the numbers and statements, that are in no line, by reason."""
    own = [entry for entry in left if entry.kind == kind]
    number = sum(len(entry.names) for entry in own)
    rows: list[Sequence[Any]] = []
    for entry in own:
        cells = [str(entry), Cell(str(len(entry.names)), len(entry.names))]
        rows.append([entry.table or "several", *cells] if kind == "number" else cells)
    if kind == "setting":
        caption = f"Settings of this sweep that no number of the papers is about: {number}"
        columns = [Column("settings, and why"), Column("how many", "number")]
    else:
        caption = f"Numbers and statements of the papers that no trial matches: {number}"
        columns = [Column("table"), Column("numbers and statements, and why"), Column("how many", "number")]
    return Table(caption, columns, rows, collapsed=True)


def _lacking(sweep: Sweep, table: PaperTable) -> str:
    name = table.item.id
    return missing(sweep, name) if name in FIGURES and not table.of else table.why


def _paper_tables(table: PaperTable) -> list[Block]:
    """The lines that were judged; those that are not comparable folded away, with their number and the reasons."""
    judged = [line for line in table.lines if line.verdict != "not comparable"]
    others = [line for line in table.lines if line.verdict == "not comparable"]
    blocks: list[Block] = []
    if judged:
        blocks.append(_lines(f"{table.item.id}: {summary(table)}", judged))
    if others:
        blocks.append(
            _lines(f"{table.item.id}, {table.item.title}: {len(others)} not comparable", others, collapsed=True)
        )
    return blocks


def _lines(caption: str, lines: Sequence[Line], *, collapsed: bool = False) -> Table:
    tones: dict[str, Any] = {"agrees": "good", "differs": "bad", "not comparable": "muted"}
    reasons: dict[str, int] = {}  # what makes a sweep not comparable is the same for many lines
    rows = []
    for line in lines:
        verdict: str = line.verdict or "not judged"
        why = line.why
        if line.verdict == "not comparable":
            verdict, why = f"({reasons.setdefault(why, len(reasons) + 1)})", ""
        rows.append(
            (
                f"{line.row} | {line.column}" + (f" ({line.setting})" if line.setting else ""),
                line.paper,
                _spanned(
                    math.nan if line.ours is None else line.ours,
                    line.low,
                    line.high,
                    line.why or "no number",
                ),
                Cell(str(line.n), line.n),
                _number(line.difference, "a statement without a number", "+.4g"),
                Cell(f"{verdict}: {why}" if why else verdict, tone=tones.get(line.verdict, "")),
                _text(line.order, "no order claimed"),
            )
        )
    columns = (
        Column("the paper's row | column", help="in brackets: our setting, where the paper's words leave it open"),
        Column("paper"),
        Column("ours [95% interval]", "number", "mean over seeds; of a trend, ρ or log10 of the tipping point"),
        Column("n", "number", "seeds; of a trend, models"),
        Column("difference", "number"),
        Column("why not comparable" if collapsed else "verdict"),
        Column("order", help="the order of settings that the paper claims, in ours; p one-sided, Holm"),
    )
    note = "; ".join(f"({number}) {reason}" for reason, number in reasons.items())
    return fitted(
        Table(caption, columns, rows, note=note and f"Not comparable: {note}.", collapsed=collapsed), said=True
    )


def _paper_figures(source: _Source, table: PaperTable) -> list[Block]:
    blocks: list[Block] = []
    rows_of = source.sweep.rows
    ours = f"{_some(_distinct(rows_of, 'dataset'))}; {_some(_distinct(rows_of, 'model'))}"
    for drawn in draw(source.sweep, table.item.id, source.reference_below):
        what = axis_name(drawn.suffix.lstrip("-"))
        name = f"As the paper's {table.item.id}{f': {what}' if what else ''}, of this record"
        rows = _behind(
            f"What this figure shows{f': {what}' if what else ''}",
            [Column(column, "number" if numeric else "text") for column, numeric in drawn.columns],
            [[entry if isinstance(entry, str) else _number(entry, "no value") for entry in row] for row in drawn.rows],
        )
        blocks.append(
            source.figure(
                drawn.figure,
                name,
                f"{what[:1].upper()}{what[1:] or 'Panels'} of this record ({ours}), drawn as the paper's "
                f"{table.item.id} is, which is of: {table.item.title}.",
                command=source.command("paper", f"--table {table.item.id}"),
                rows=rows,
                images=drawn.images,
                caption=f"Data and network here: {ours}; in the paper: {table.item.title}.",
            )
        )
    return blocks
