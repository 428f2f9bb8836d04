"""The papers' tables beside a sweep's, and the verdict on each line: see `analysis.paper`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from analysis import formats
from analysis.command_line import InputError
from analysis.paper.items import ITEMS, Item
from analysis.paper.lines import Line
from analysis.paper.numbers import _computed, _numbers
from analysis.paper.orders import _orders
from analysis.paper.ours import _Ours
from analysis.paper.printed import Claim, Said, claims, everything_said
from analysis.paper.statements import _statements
from analysis.paper.words import differences, printed
from analysis.records import Sweep
from analysis.results import arrow
from analysis.tabular import Place, Tabular, opened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Table(Tabular[Line]):
    """A paper's table beside ours, a sequence of lines; where the sweep has nothing of it, `why` says why."""

    item: Item
    lines: list[Line]
    of: int
    """How many numbers and statements of the paper there are to check."""
    why: str

    @property
    def _items(self) -> list[Line]:
        return self.lines

    def shown(self) -> formats.Table:
        return printed(self)

    def to_arrow(self) -> pa.Table:
        return rows_of(self)

    def figure(self) -> Figure:
        """Our numbers minus the paper's; what the paper drew is drawn by `draw`."""
        return differences(self)


def check(sweep: Sweep | Place, table: str, *, reference_below: float | None = None) -> Table:
    """A table of a paper beside a sweep's (its record, folder or s3:// address). Raises `InputError` for another ID."""
    return _check(_Ours(opened(sweep), reference_below), table)


def check_all(sweep: Sweep | Place, *, reference_below: float | None = None) -> list[Table]:
    """Every table of the papers whose methods the sweep has, beside ours; as `check`."""
    ours = _Ours(opened(sweep), reference_below)
    return [_check(ours, table) for table in ITEMS if ours.is_of(table)]


def _check(ours: _Ours, table: str) -> Table:
    if table not in ITEMS:
        raise InputError(f"--table {table}: no such table; there are {', '.join(ITEMS)}")
    item = ITEMS[table]
    computed = _computed(table)
    checkable = [claim for claim in claims() if claim.table == table and claim.quantity and claim.settings]
    told = [said for said in everything_said() if said.table == table and not isinstance(said, Claim)]
    found = [*_numbers(ours, table), *_statements(ours, table), *_orders(ours, table), *computed]
    # what is comparable because somebody has said so is not told without it
    lines = [replace(line, why="; ".join(part for part in (line.why, line.declared) if part)) for line in found]
    why = ""
    if not lines and (checkable or told):
        why = _lacking(ours, [*checkable, *told])
    elif not lines:
        why = "no number of the paper's text that a sweep could be checked against"
    return Table(item, lines, len(checkable) + len(told) + len(computed), why)


def _lacking(ours: _Ours, wanted: Sequence[Said]) -> str:
    if not any(ours.candidates(entry.settings) for entry in wanted):
        some = wanted[-1].settings
        return f"no trial with {', '.join(f'{name}={value}' for name, value in some.items())}"
    names = sorted({entry.quantity for entry in wanted} - {quantity.stem for quantity in ours.known.values()})
    return f"no measurement of {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"


def rows_of(table: Table) -> pa.Table:
    """A checked table as Arrow: `verdict` and `why`, the paper's and our numbers."""
    fields = [pa.field(name, pa.string()) for name in ("table", "row", "column", "paper", "unit", "setting")]
    fields += [pa.field("n", pa.int64())]
    fields += [pa.field(name, pa.float64()) for name in ("value", "ours", "low", "high", "difference", "order_p")]
    fields += [pa.field(name, pa.string()) for name in ("order", "verdict", "why")]
    rows = []
    for line in table.lines:
        rows.append({"table": table.item.id, **vars(line)})
    return arrow(fields, rows)


def summary(table: Table) -> str:
    """ "3 agree, 1 differs, 2 not comparable"."""
    counts = Counter(line.verdict for line in table.lines)
    parts = [
        f"{counts['agrees']} agree{'s' if counts['agrees'] == 1 else ''}",
        f"{counts['differs']} differ{'s' if counts['differs'] == 1 else ''}",
        f"{counts['too wide to tell']} too wide to tell",
        f"{counts['not comparable']} not comparable",
        f"{counts['computed']} computed as printed",
    ]
    return ", ".join(part for part in parts if not part.startswith("0 "))
