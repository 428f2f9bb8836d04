"""Of the report: how a search for tipping points closed in on them."""

from __future__ import annotations

import math

from analysis.closing import closing_of
from analysis.figures import axis_name, closing_figure
from analysis.groups import count
from analysis.report.cells import _behind, _Source, _strength_flag
from analysis.report.page import Block, Cell, Column
from analysis.symbols import number, symbol
from analysis.tipping_points import TippingPoints

_MOST_DRAWN = 12


def closing_blocks(source: _Source, result: TippingPoints) -> list[Block]:
    """The figure, with what is behind it; nothing where no search proposed a trial."""
    every = closing_of(result)
    panels = every[:_MOST_DRAWN]
    if not panels:
        return []
    rows = []
    for panel in panels:
        for index, (strength, holds) in enumerate(zip(panel.strength, panel.holds, strict=True)):
            place = panel.location[index]
            interval = f"{number(place, 3)} [{number(panel.low[index], 3)}, {number(panel.high[index], 3)}]"
            rows.append(
                (
                    panel.label,
                    Cell(str(index + 1), index + 1),
                    Cell(number(strength), strength),
                    "holds" if holds else "has fallen",
                    Cell("", reason="none known yet") if math.isnan(place) else Cell(interval, place),
                )
            )
    sign = symbol(result.strength)
    columns = (
        Column("setting"),
        Column("trial", "number"),
        Column(sign, "number"),
        Column("accuracy"),
        Column(f"{sign} at the tipping point, until then [95% interval]", "number"),
    )
    said = "; ".join(f"{panel.label}: {count(len(panel.strength), 'trial')}" for panel in panels)
    more = f" The first {len(panels)} of {len(every)}." if len(every) > len(panels) else ""
    return [
        source.figure(
            lambda narrow: closing_figure(panels, result.strength, result.stronger, narrow=narrow),
            "How the search closed in",
            f"{axis_name(result.strength)} of the trials in the order in which they began, and the tipping point "
            f"after each. {said}.",
            command=source.command("tipping_points", *_strength_flag(result.strength)),
            rows=_behind("The trials of the search in their order", columns, rows),
            caption=f"The interval is that of all trials up to there; the last one is the answer.{more}",
        )
    ]
