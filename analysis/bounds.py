"""How large and how small the numbers of a command line may be, each limit with its reason.

A class of flags has a table, `BOUNDS: ClassVar[Mapping[str, Bound]]`, by the names of its fields, which those that
derive from it add to. Every number is held against it before anything is made of it, and `--help` says what the table
says. A number that no table has may be any that the record can hold.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LARGEST_FLOAT32 = 3.4e38
_LARGEST_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Bound:
    """From `least` to `most`, of which `why` is the reason; `above` and `below`: without that end itself."""

    least: float
    most: float
    why: str = ""
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        """As it stands in `--help`: "1 to 999,999", "in [0, 1)"; empty where there is no end above but the type's."""
        if self.most in (LARGEST_FLOAT32, _LARGEST_INT64, math.inf):
            return ""
        return f"{_grouped(self.least)} to {_grouped(self.most)}" if self.why else f"in {self._interval()}"

    def problem(self, value: float) -> str:
        """What is wrong with a number, and what would be right; empty if nothing is."""
        low = self.least < value if self.above else self.least <= value  # nan is never
        high = value < self.most if self.below else value <= self.most
        if low and high:
            return ""
        if self.most == 1 and not self.why:
            allowed = f"numbers in {self._interval()}"
        elif low and math.isfinite(value):
            allowed = f"numbers of at most {_grouped(self.most)}: {self.why}"
        else:
            kind = "whole" if isinstance(value, int) else "finite"
            allowed = f"{kind} numbers {'above' if self.above else 'of at least'} {_grouped(self.least)}"
        shown = str(value)
        return f"{shown if len(shown) <= 40 else f'{shown[:20]}… ({len(shown)} digits)'}, allowed are {allowed}"

    def _interval(self) -> str:
        return f"{'(' if self.above else '['}{self.least:g}, {self.most:g}{')' if self.below else ']'}"


def _grouped(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


_FLOAT32 = "float32, in which networks are trained, has no larger ones"
_INT64 = "the record has no larger ones"
POSITIVE = Bound(0, LARGEST_FLOAT32, _FLOAT32, above=True)
AT_LEAST_0 = Bound(0, LARGEST_FLOAT32, _FLOAT32)
SHARE = Bound(0, 1, below=True)
SEED = Bound(0, _LARGEST_INT64, _INT64)


def at_least(least: int) -> Bound:
    """Whole numbers from `least` on, where no more are taken than there are."""
    return Bound(least, _LARGEST_INT64, _INT64)


_WHOLE = Bound(-_LARGEST_INT64, _LARGEST_INT64, _INT64)
_REAL = Bound(-LARGEST_FLOAT32, LARGEST_FLOAT32, _FLOAT32)


def bounds_of(flags: type) -> dict[str, Bound]:
    """The bounds of a class of flags, by field."""
    found: dict[str, Bound] = {}
    for one in reversed(flags.__mro__):
        found |= vars(one).get("BOUNDS", {})
    return found


def out_of_bounds(flags: Any) -> Iterator[str]:
    """What is wrong with the numbers of flags, each in a line that begins with the field."""
    known = bounds_of(type(flags))
    for entry in dataclasses.fields(flags):
        value = getattr(flags, entry.name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, (int, float)) and not isinstance(each, bool):
                problem = known.get(entry.name, _WHOLE if isinstance(each, int) else _REAL).problem(each)
                if problem:
                    yield f"{entry.name}: {problem}"
