"""What of a sweep no number of a paper is about, and what of a paper the sweep has nothing of, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from analysis.groups import Row, count, differing, grouped
from analysis.paper.items import ITEMS, METHODS
from analysis.paper.ours import _Ours
from analysis.paper.printed import Claim, Order, Said, Trend, claims, everything_said, orders, trends
from analysis.paper.protocol import _configuration, _same, _shown
from analysis.paper.verdicts import Table, _check
from analysis.records import Sweep
from analysis.results import arrow

_MOST_NAMED = 3


@dataclass(frozen=True)
class Unmatched:
    """Settings of the sweep that no number of the papers is about, or numbers of a table that no trial matches, for one
    reason."""

    kind: Literal["setting", "number"]
    table: str
    """Of numbers; of settings: the papers that were asked for."""
    names: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        rest = len(self.names) - _MOST_NAMED
        shown = "; ".join(self.names[:_MOST_NAMED]) + (f"; … and {rest} more" if rest > 0 else "")
        return f"{shown}: {self.why}"


def unmatched(ours: _Ours, tables: Sequence[Table]) -> list[Unmatched]:
    """After these tables have been checked: the settings that none of their lines is about, and the numbers and
    statements that have no line."""
    return [*_settings(ours, [table.item.id for table in tables]), *_numbers(ours, tables)]


def checked(sweep: Sweep, *, reference_below: float | None = None) -> tuple[list[Table], list[Unmatched]]:
    """Every table of the papers whose methods the sweep has, beside ours, and what is in none of them."""
    ours = _Ours(sweep, reference_below)
    tables = [_check(ours, table) for table in ITEMS if ours.is_of(table)]
    return tables, unmatched(ours, tables)


def _settings(ours: _Ours, tables: Sequence[str]) -> list[Unmatched]:
    papers = list(dict.fromkeys(table.partition("-")[0] for table in tables))
    said = [it for it in everything_said() if it.table in tables and it.settings and it.quantity]
    left = [row for row in ours.rows if row["trial_id"] not in ours.taken]
    by_reason: dict[str, list[str]] = {}
    for group in grouped(left, differing(ours.rows)):
        # what no column tells apart, the whole configuration does
        for row in {_configuration(row): row for row in group.trials}.values():
            why = _why_not(ours, row, said, papers)
            by_reason.setdefault(why, []).append(group.label() if group.values else row["method"])
    return [Unmatched("setting", ", ".join(papers), tuple(names), why) for why, names in by_reason.items()]


def _why_not(ours: _Ours, row: Row, said: Sequence[Said], papers: Sequence[str]) -> str:
    """Why no number or statement is about a trial: its method or hyperparameters are none of theirs."""
    if row["trial_id"] in ours.passed:
        return ours.passed[row["trial_id"]]
    of_method = [it for it in said if it.settings.get("method") == row["method"]]
    if not of_method:
        paper = next((paper for paper, method in METHODS.items() if method == row["method"]), None)
        told = f": {paper}'s were not asked for" if paper is not None and paper not in papers else ""
        return f"no number of these tables is of {row['method']}{told}"
    unlike = [
        (it, [name for name, value in it.settings.items() if not _same(name, row[name], value)]) for it in of_method
    ]
    least = min(len(names) for _, names in unlike)
    if least == 0:
        return f"no value of {_few(sorted({it.quantity for it, names in unlike if not names}))}"
    nearest = [(it, names) for it, names in unlike if len(names) == least]
    first = nearest[0][1]
    parts = []
    for name in first:
        values = {it.settings[name] for it, names in nearest if names == first}
        parts.append(f"{name} is {'not set' if row[name] is None else 'another'} (papers: {_few(_ordered(values))})")
    return "; ".join(parts)


def _ordered(values: set[Any]) -> list[str]:
    numbers = sorted(value for value in values if isinstance(value, int | float) and not isinstance(value, bool))
    return [_shown(value) for value in numbers] or sorted(map(_shown, values))


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


# of which no sweep has anything
_TEXT = "of the paper's text, and none that a sweep measures"
_OTHERS = "of another author's method, or of one that no column tells"


def _numbers(ours: _Ours, tables: Iterable[Table]) -> list[Unmatched]:
    by_reason: dict[tuple[str, str], dict[str, None]] = {}
    for table in tables:
        lines = {(line.row, line.column) for line in table.lines}
        rows = {line.row for line in table.lines}
        for claim in claims():
            if claim.table == table.item.id and (claim.row, claim.column) not in lines:
                why, name = _why_no_trial(ours, claim), f"{claim.row} | {claim.column}"
                general = why in (_TEXT, _OTHERS)
                names = by_reason.setdefault(("" if general else claim.table, why), {})
                names[f"{claim.table}, {name}" if general else name] = None
        for trend in trends():
            if trend.table == table.item.id and trend.statement not in rows:
                by_reason.setdefault((trend.table, _why_no_trial(ours, trend)), {})[trend.statement] = None
        left: dict[str, list[Order]] = {}
        for order in orders():
            if order.table == table.item.id and order.statement not in rows:
                left.setdefault(order.statement, []).append(order)
        for statement, those in left.items():
            by_reason.setdefault((table.item.id, _why_no_pair(ours, those)), {})[statement] = None
    order_of = sorted(by_reason.items(), key=lambda it: it[0][0] == "")
    return [Unmatched("number", table, tuple(names), why) for (table, why), names in order_of]


def _why_no_trial(ours: _Ours, said: Claim | Trend) -> str:
    if isinstance(said, Claim) and not said.quantity:
        return _TEXT
    if not said.settings:
        return _OTHERS
    groups = ours.candidates(said.settings)
    if not groups:
        return f"no trial with {', '.join(f'{name}={_shown(value)}' for name, value in said.settings.items())}"
    if isinstance(said, Trend) and all(row[said.strength] is None for group in groups for row in group.trials):
        return f"no trial with a {said.strength}"
    measured = bool(ours.quantity(said.quantity))
    return f"no value of {said.quantity} in its trials" if measured else f"no measurement of {said.quantity}"


def _why_no_pair(ours: _Ours, those: Sequence[Order]) -> str:
    """Of a statement of layers: which settings of its pairs the record has no trial of."""
    lacking: dict[str, dict[str, None]] = {}
    for order in those:
        for name, value in (*order.settings.items(), *order.than.items()):
            if not any(_same(name, row[name], value) for row in ours.rows):
                lacking.setdefault(name, {})[_shown(value)] = None
    if lacking:
        return "no trial with " + ", or ".join(f"{name}={' or '.join(values)}" for name, values in lacking.items())
    known = {it.protocol["dataset"] for it in those}
    if not any(_same("dataset", row["declared"] or row["dataset"], name) for row in ours.rows for name in known):
        return f"of {_few(sorted(known))}, and the record is more like another of the paper's data sets"
    quantities = " and ".join(sorted({name for it in those for name in (it.quantity, it.than_quantity) if name}))
    along = next((it.along for it in those if it.along), "")
    return f"no trials of it with {quantities}" + (f" and more than one {along}" if along else " in pairs of a seed")


def rows_of_unmatched(found: Sequence[Unmatched]) -> pa.Table:
    """As Arrow, a row for each setting and number."""
    fields = [pa.field(name, pa.string()) for name in ("kind", "table", "name", "why")]
    rows = [
        {"kind": entry.kind, "table": entry.table, "name": name, "why": entry.why}
        for entry in found
        for name in entry.names
    ]
    return arrow(fields, rows)


def told(found: Sequence[Unmatched]) -> list[str]:
    """A line for each reason, below how many settings and numbers there are."""
    lines = []
    for kind in ("setting", "number"):
        own = [entry for entry in found if entry.kind == kind]
        number = sum(len(entry.names) for entry in own)
        if kind == "setting" and own:
            lines.append(f"{count(number, 'setting')} of the sweep in no line of these tables:")
        elif own:
            lines.append(f"{number} of the papers' numbers and statements without a line:")
        for entry in own:
            of = f" of {entry.table}" if kind == "number" and entry.table else ""
            lines.append(f"  {len(entry.names)}{of}: {entry}")
    return lines
