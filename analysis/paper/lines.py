"""A line of a paper's table: what is printed beside what a record has, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Finding = Literal["holds", "does not hold", "the opposite holds", "not shown", "too few models to tell"]
"""What comes of an order or a trend in ours, also where the verdict is that it is not comparable."""
Judgement = Literal["agrees", "differs", "too wide to tell", "not comparable", "computed"]
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Line:
    """A number of the paper, or something it says, beside ours. nan: there is none, `why` says the reason."""

    row: str
    column: str
    paper: str
    """As printed, with its deviation; or the statement."""
    value: float = math.nan
    unit: str = ""
    setting: str = ""
    """Which trials of ours, where several settings of the record are candidates."""
    n: int = 0
    ours: float = math.nan
    low: float = math.nan
    high: float = math.nan
    difference: float = math.nan
    order: str = ""
    """What the paper's order of this number and the one it compares it with comes to in ours."""
    order_p: float = math.nan
    verdict: Judgement | Literal[""] = ""
    why: str = ""
    declared: str = ""
    """That the data are the paper's because somebody has said so; it is told in `why`."""
    finding: Finding | Literal[""] = ""
