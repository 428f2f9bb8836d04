"""A paper's table beside ours as it is said: its lines in words, the reasons below them, and the differences drawn."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from analysis import formats
from analysis.command_line import InputError
from analysis.groups import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.paper.verdicts import Table


def number(value: float, unit: str = "") -> str:
    return "" if math.isnan(value) else f"{value:.2f}" if unit == "%" else f"{value:.4g}"


def printed(table: Table) -> formats.Table:
    """The lines as the command prints them; what makes them not comparable is numbered, and in `reasons`."""
    numbered = {reason: number for number, reason in enumerate(reasons(table), start=1)}
    rows = []
    for line in table.lines:
        ours = number(line.ours, line.unit)
        if not math.isnan(line.low):
            ours += f" [{number(line.low, line.unit)}, {number(line.high, line.unit)}]"
        where = f"{line.row} | {line.column}" + (f" ({line.setting})" if line.setting else "")
        verdict = f"{line.verdict}: {line.why}" if line.why else line.verdict
        if line.verdict == "not comparable":
            verdict = f"{line.verdict} ({numbered[line.why]})"
        rows.append((where, line.paper, ours, str(line.n), number(line.difference, line.unit), line.order, verdict))
    columns = ("the paper's row | column", "paper", "ours [95%]", "n", "difference", "order", "verdict")
    caption = f"{table.item.id}: {table.item.title}"
    return formats.Table(columns, rows, wrap=(0, 1, 2, 5, 6), caption=caption, data=table.to_arrow())


def printed_reasons(table: Table) -> list[formats.Table]:
    """The reasons as a table, where there are any."""
    rows = [(f"({number})", reason) for number, reason in enumerate(reasons(table), start=1)]
    return [formats.Table(("", "not comparable, as"), rows, wrap=(0, 1))] if rows else []


def reasons(table: Table) -> list[str]:
    """Why lines are not comparable, each reason once, as it is the same for many."""
    return list(dict.fromkeys(line.why for line in table.lines if line.verdict == "not comparable"))


def differences(table: Table) -> Figure:
    """Our numbers minus the paper's, with our 95% intervals, of those in the unit that most are in. Raises `InputError`
    if the table has no number of both."""
    from analysis.figures import ForestRow, forest_figure

    known = [line for line in table.lines if math.isfinite(line.ours) and math.isfinite(line.value)]
    if not known:
        raise InputError(f"{table.item.id}: no number of ours beside one of the paper ({table.why or 'words alone'})")
    unit = Counter(line.unit for line in known).most_common(1)[0][0]
    drawn = [line for line in known if line.unit == unit]
    rows = []
    for line in drawn:
        low, high = line.low - line.value, line.high - line.value
        shown = "higher" if low > 0 else "lower" if high < 0 else "not shown"
        label = f"{line.row}, {line.column}" + (f", {line.setting}" if line.setting else "")
        kind = "not testable" if math.isnan(low) else shown
        rows.append(ForestRow(label, line.ours - line.value, low, high, kind, line.verdict))
    left = len(table.lines) - len(drawn)
    return forest_figure(
        rows,
        label=f"ours − the paper's{f' ({unit})' if unit else ''}, with our 95% interval",
        title=f"{table.item.id}: {table.item.title}" + (f"; {count(left, 'other line')} not drawn" if left else ""),
    )
