"""What a function of a sweep returns: rows, that print as a short table and are a data frame or a figure when asked."""

from __future__ import annotations

import html
import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from analysis.formats import Table
from analysis.groups import count
from analysis.records import Sweep, read_sweep

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure

Item = TypeVar("Item", covariant=True)
Place = str | os.PathLike[str]
"""A sweep's folder, or its s3:// address."""

_MOST_LINES = 10
_MOST_ROWS_OF_HTML = 60
_WIDEST_CELL = 44


def opened(sweep: Sweep | Place) -> Sweep:
    """The record itself, or that of the place. Raises as `read_sweep` does."""
    return sweep if isinstance(sweep, Sweep) else read_sweep(sweep)


def several(words: Sequence[str] | str) -> list[str]:
    """Names in a sequence, or in one string with spaces or commas between them."""
    return re.split(r"[\s,]+", words.strip(", \n\t")) if isinstance(words, str) else list(words)


class Tabular(Sequence[Item]):
    """Rows of which a command prints a table; printed as no more than ten lines."""

    @property
    @abstractmethod
    def _items(self) -> Sequence[Item]: ...

    @abstractmethod
    def shown(self) -> Table:
        """The table as the command prints it."""

    @abstractmethod
    def to_arrow(self) -> pa.Table:
        """The table that the command writes, its numbers in full."""

    @abstractmethod
    def figure(self) -> Figure:
        """The figure that the command writes."""

    def to_pandas(self) -> pd.DataFrame:
        """The table that the command writes, as a data frame."""
        return self.to_arrow().to_pandas()

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._items[index]

    def __repr__(self) -> str:
        table = self.shown()
        # a line for the names, and one for how many more there are
        most = _MOST_LINES - 1 if len(table.rows) < _MOST_LINES else _MOST_LINES - 2
        rows = [[_brief(cell) for cell in row] for row in [table.columns, *table.rows[:most]]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if index in table.wrap else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *_more(len(table.rows) - most)])

    def _repr_html_(self) -> str:
        table = self.shown()

        def row(cells: Sequence[str], tag: str) -> str:
            parts = [
                f'<{tag} style="text-align: {"left" if index in table.wrap else "right"}">{html.escape(cell)}</{tag}>'
                for index, cell in enumerate(cells)
            ]
            return f"<tr>{''.join(parts)}</tr>"

        body = "".join(row(cells, "td") for cells in table.rows[:_MOST_ROWS_OF_HTML])
        more = "".join(f"<p>{html.escape(text)}</p>" for text in _more(len(table.rows) - _MOST_ROWS_OF_HTML))
        return f"<table><thead>{row(table.columns, 'th')}</thead><tbody>{body}</tbody></table>{more}"


def _more(rows: int) -> list[str]:
    return [f"… {count(rows, 'more row')}: .to_pandas()"] if rows > 0 else []


def _brief(cell: str) -> str:
    line = " ".join(cell.split())
    return line if len(line) <= _WIDEST_CELL else f"{line[: _WIDEST_CELL - 1]}…"
