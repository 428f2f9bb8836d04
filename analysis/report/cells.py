"""What the sections of the report have in common: the sweep on a command line, figures, cells, the rows behind."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure as Picture

from analysis.changes import signed
from analysis.correlations import p_text
from analysis.figures import render
from analysis.groups import Quantity, Row, digits_of
from analysis.records import Sweep
from analysis.report.page import Cell, Column, Entry, Figure, Table
from analysis.symbols import in_symbols, method_name, number, symbol

# an SVG of more marks than this is larger than the picture of it
_LARGEST_SVG = 250_000
_MOST_AXES_AS_SVG = 6
_DPI = 130
_MAX_ROWS_BEHIND = 2_000


@dataclass(frozen=True)
class _Source:
    """What figures and commands need to know of the sweep."""

    sweep: Sweep
    strength: str | None = None
    """What the report was told to look at."""
    reference_below: float | None = None
    convention: str | None = None
    seed: int = 0

    @property
    def path(self) -> str:
        """The sweep's path, as it is best typed from here."""
        path = self.sweep.path
        if "://" in path:
            return path
        relative = os.path.relpath(path)
        return path if relative.startswith("..") else relative

    def command(self, module: str, *flags: str) -> str:
        """A command that gives what the report shows: told what the report was told, and how the record was read."""
        said = [*flags]
        said += ["--pool-code"] if self.sweep.pool_code else []
        said += ["--skip-damaged"] if self.sweep.damaged else []
        said += ["--with-stopped"] if self.sweep.with_stopped else []
        said += [f"--convention {self.convention}"] if self.convention else []
        if module == "report" and self.strength is not None:
            said.append(f"--strength {shlex.quote(self.strength)}")
        if module not in ("comparisons", "profiles", "search") and self.reference_below is not None:
            said.append(f"--reference-below {self.reference_below!r}")
        if module not in ("comparisons", "paper") and self.seed:
            said.append(f"--seed {self.seed}")
        return " ".join(["python -m", f"analysis.{module}", shlex.quote(self.path), *said])

    def figure(
        self,
        drawn: Picture | Callable[[bool], Picture],
        title: str,
        alt: str,
        *,
        command: str,
        rows: Table | None = None,
        caption: str = "",
        images: Any = None,
    ) -> Figure:
        """`drawn`: the picture, or what draws it, narrow for a telephone or not."""
        wide = drawn(False) if callable(drawn) else drawn
        narrow = self._file(drawn(True), title, images) if callable(drawn) else {}
        return Figure(
            title,
            alt,
            **self._file(wide, title, images),
            narrow=next(iter(narrow.values()), None),
            drawing=_is_drawing(wide),
            caption=caption,
            rows=rows,
            command=command,
        )

    def _file(self, picture: Picture, title: str, images: Any) -> dict[str, bytes]:
        if len(picture.axes) <= _MOST_AXES_AS_SVG:
            svg = render(picture, self.sweep, title, "svg", images)
            if len(svg) <= _LARGEST_SVG:
                return {"svg": svg}
        return {"png": render(picture, self.sweep, title, "png", images, dpi=_DPI)}


def _is_drawing(picture: Picture) -> bool:
    """Whether it shows lines and marks alone: no image and no colour scale."""
    return not any(axes.images or axes.findobj(QuadMesh) for axes in picture.axes)


def _together(text: str) -> str:
    """The text with its intervals ("[1, 10]") and settings ("α = 10") on one line each."""
    return re.sub(r"\[[^\]]*\]|\S+ = \S+", lambda found: found[0].replace(" ", "\u00a0"), text)


def _strength_flag(strength: str) -> tuple[str, ...]:
    return () if strength == "alpha" else (f"--strength {shlex.quote(strength)}",)


def _interval(low: float, high: float, reason: str, form: str) -> Cell:
    """An interval, sorted by its lower end."""
    return Cell("", reason=reason) if math.isnan(low) else Cell(f"[{low:{form}}, {high:{form}}]", low)


def _spanned(value: float, low: float, high: float, reason: str, *, plus: bool = False) -> Cell:
    """A number with its interval, sorted by the number."""
    if math.isnan(value):
        return Cell("", reason=reason)
    known = [abs(each) for each in (value, low, high) if math.isfinite(each) and each]
    # three digits of the largest, and as many decimals of the others
    decimals = max(0, 2 - math.floor(math.log10(max(known)))) if known else 1
    form = f".{decimals}f" if decimals < 6 else ".3g"
    text = signed(value, form, plus=plus)
    if not math.isnan(low):
        text += f" [{signed(low, form)}, {signed(high, form)}]"
    return Cell(text, value)


def _number(value: float | None, reason: str, form: str = ".4g") -> Cell:
    if value is None or math.isnan(value):
        return Cell("", reason=reason)
    text = number(value) if form == ".4g" else f"{value:{form}}".replace("-", "−")
    return Cell(text, value)


def _text(value: str | None, reason: str = "none") -> Cell:
    return Cell(value) if value else Cell("", reason=reason)


def _some(values: Sequence[Any], most: int = 6) -> str:
    shown = [number(value) if isinstance(value, float) else str(value) for value in values]
    if len(shown) <= most:
        return ", ".join(shown)
    return f"{', '.join(shown[:2])} … {shown[-1]} ({len(shown)} values)"


def _distinct(rows: Sequence[Row], name: str) -> list[Any]:
    return sorted({row[name] for row in rows if row[name] is not None})


def _named(row: Row, columns: Sequence[str], digits: Mapping[str, int]) -> str:
    """A trial's setting in symbols: what tells it from the others of the sweep."""
    values = {name: row[name] for name in columns if row[name] is not None and name != "method"}
    plain = row["method"] == "baseline"
    words = [*([method_name(row["method"])] if plain or "method" in columns else []), in_symbols(values, digits)]
    return ", ".join(word for word in words if word) or method_name(row["method"])


def _digits(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, int]:
    """Of each column, how many digits tell its numbers apart."""
    return {name: digits_of((row[name] for row in rows), 3) for name in columns}


def _by_strength(
    groups: Sequence[tuple[str, Sequence[float], Sequence[float]]], strength: str, metric: str, caption: str
) -> Table:
    """What a figure against strength shows: mean, deviation and n by group and strength."""
    rows = []
    for name, x, y in groups:
        values = np.asarray(y, dtype=float)
        for one in sorted(set(x)):
            own = values[np.asarray(x) == one]
            spread = _number(float(own.std(ddof=1)), "", ".4g") if len(own) > 1 else Cell("", reason="one trial")
            mean = float(own.mean())
            rows.append(
                (name, Cell(number(one), one), _number(mean, "not measured"), spread, Cell(str(len(own)), len(own)))
            )
    columns = (
        Column("setting"),
        Column(symbol(strength), "number"),
        Column(f"mean {metric}", "number"),
        Column("standard deviation", "number"),
        Column("trials", "number"),
    )
    return _behind(caption, columns, rows)


def _behind(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Entry]]) -> Table:
    """The rows behind a figure, no more than keep the page small."""
    most = _MAX_ROWS_BEHIND
    note = f"The first {most} of {len(rows)} rows; the record has all." if len(rows) > most else ""
    return Table(caption, columns, rows[:most], note=note)


def _p(value: float, reason: str, tone: Any = "") -> Cell:
    return Cell("", reason=reason) if math.isnan(value) else Cell(p_text(value), value, tone=tone)


def _tone(change: float, p_value: float, quantity: Quantity) -> Literal["", "good", "bad"]:
    """Whether a change that was shown is for the better."""
    if math.isnan(p_value) or p_value >= 0.05 or quantity.direction not in ("max", "min"):
        return ""
    return "good" if (change > 0) == (quantity.direction == "max") else "bad"
