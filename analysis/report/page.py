"""One HTML page that needs nothing but itself: a small content model, and `render`, which makes the page of it by
`page.html`.

Text is shown as it is given, whatever it holds; nothing on the page is loaded from elsewhere or sent anywhere.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import math
import numbers
import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, cast

from jinja2 import Environment, StrictUndefined, Template

Kind = Literal["text", "number"]
Tone = Literal["", "good", "bad", "warn", "muted"]

_LONG = 25
"""A table of more rows has a filter and scrolls in a region of its own."""
_LARGE = 200
"""A table of more rows is data that the page's script shows a part of at a time."""

_BRIEF = 32
"""Characters of a text that is not worth breaking into lines."""

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
_WITH_A_LIBRARY = _CONTENT_SECURITY_POLICY.replace("img-src data:", "img-src data: blob:")
_CALLOUTS = {"": "Note", "good": "Good", "bad": "Problem", "warn": "Caution", "muted": "Note"}
_MISSING = ("", "—", "nan")
# what Python and JavaScript read as the same number
_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Column:
    """A column of a table. One of kind "number" has numbers as its cells' sort keys."""

    name: str
    kind: Kind = "text"
    help: str = ""
    """What the column means, in a list below the table."""


@dataclass(frozen=True)
class Cell:
    """An entry of a table or of facts.

    Raises `ValueError` for a text that is empty, a dash or nan, or a value that is nan, without a reason.
    """

    text: str
    value: float | str | None = None
    """What the entry is sorted by; None: by its text. A nan, or an empty text's, is sorted last."""
    reason: str = ""
    """Shown beside the text; for an entry that is missing: why it is."""
    tone: Tone = ""
    quiet: bool = False
    """Its reason is said elsewhere in its table, and is not shown beside it."""

    def __post_init__(self) -> None:
        if (self.is_empty or self.value != self.value) and not self.reason.strip():
            raise ValueError(f"text {self.text!r}, value {self.value}: missing, which needs a reason")

    @property
    def is_empty(self) -> bool:
        return self.text.strip().lower() in _MISSING

    @property
    def key(self) -> float | str | None:
        """What the entry is sorted by; None if it is missing."""
        if self.value is None:
            return None if self.is_empty else self.text
        return self.value if self.value == self.value else None


Entry = Cell | str | float | int
"""A bare string or number stands for the cell that shows it (floats with six digits) and is sorted by it."""


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort; the first column names the row.

    Raises `ValueError` for no columns, rows of another length, missing entries without a reason, and entries of a
    number column with a key that is not a number.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Entry]]
    note: str = ""
    collapsed: bool = False

    def __post_init__(self) -> None:
        if not self.caption.strip() or not self.columns:
            raise ValueError(f"table {self.caption!r}: allowed are tables with a caption and at least one column")
        checked = []
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.caption!r}, row {number}: {len(row)} entries for {len(self.columns)} columns"
                )
            cells = []
            for column, entry in zip(self.columns, row, strict=True):
                try:
                    cells.append(_checked(entry, column.kind))
                except ValueError as error:
                    raise ValueError(f"table {self.caption!r}, row {number}, column {column.name!r}: {error}") from None
            checked.append(tuple(cells))
        object.__setattr__(self, "rows", tuple(checked))


@dataclass(frozen=True)
class Figure:
    """A picture, the rows it shows and the command that draws it.

    Raises `ValueError` for an empty title or alt, and for anything but one picture, a PNG or an SVG.
    """

    title: str
    alt: str
    """What the picture shows, for those who do not see it."""
    png: bytes | None = None
    svg: bytes | None = None
    narrow: bytes | None = None
    """The same, PNG or SVG, drawn for a screen as narrow as a telephone's."""
    drawing: bool = False
    """Whether a PNG is of lines on white, that may be dark in the dark; an SVG is where it holds no pixels."""
    caption: str = ""
    rows: Table | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if not self.title.strip() or not self.alt.strip():
            raise ValueError(f"figure {self.title!r}: title and alt are needed")
        if (self.png is None) == (self.svg is None):
            raise ValueError(f"figure {self.title!r}: allowed is one picture, png or svg")
        if self.png is not None and self.png[:8] + self.png[12:16] != b"\x89PNG\r\n\x1a\nIHDR":
            raise ValueError(f"figure {self.title!r}: png: not a PNG file")
        if self.svg is not None and b"<svg" not in self.svg:
            raise ValueError(f"figure {self.title!r}: svg: not an SVG file")


@dataclass(frozen=True)
class Chart:
    """An interactive chart: `markup` is an element with a script that fills it by the page's `library`. Both are run as
    they are. Raises `ValueError` for an empty title or markup."""

    title: str
    markup: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.title.strip() or not self.markup.strip():
            raise ValueError(f"chart {self.title!r}: title and markup are needed")


@dataclass(frozen=True)
class Text:
    """Paragraphs; a string is one."""

    paragraphs: Sequence[str] | str


@dataclass(frozen=True)
class Bullets:
    """A list; a string is one item."""

    items: Sequence[str] | str


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for. Raises `ValueError` for a missing entry without a reason."""

    pairs: Sequence[tuple[str, Entry]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple((name, _checked(entry, "text")) for name, entry in self.pairs))


@dataclass(frozen=True)
class Callout:
    """A paragraph that stands out."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Answer:
    """What was found of one thing, as a page begins with it: its name, a sentence, and numbers that go with it."""

    name: str
    text: str
    lead: str = ""
    """What the numbers are of."""
    items: Sequence[Cell] = ()
    """Numbers in words, each with its tone."""
    note: str = ""


Block = Answer | Table | Figure | Chart | Text | Bullets | Facts | Callout


@dataclass(frozen=True)
class Subsection:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block | Subsection]
    intro: str = ""


def render(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    footer: str = "",
    description: str = "",
    library: str = "",
) -> str:
    """The page, to be written as UTF-8. Equal content gives an equal page. `library` is the JavaScript that its charts
    need, which may make pictures of its own, but loads and sends as little as the rest.

    Raises `ValueError` if there is no section, or the page, a section or a subsection has an empty title.
    """
    if not sections:
        raise ValueError("sections: none, allowed is at least one")
    return _template().render(
        page=_Page(),
        title=_titled(title),
        sections=sections,
        subtitle=subtitle,
        footer=footer,
        description=description,
        library=library,
        policy=_CONTENT_SECURITY_POLICY if not library else _WITH_A_LIBRARY,
    )


@functools.cache
def _template() -> Template:
    """`page.html`, with the kinds of blocks as its tests."""
    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.do"]
    )
    for kind in (Answer, Table, Figure, Chart, Text, Bullets, Facts, Callout, Subsection):
        engine.tests[kind.__name__] = lambda block, kind=kind: isinstance(block, kind)
    engine.globals |= {
        "LARGE": _LARGE,
        "LONG": _LONG,
        "CALLOUTS": _CALLOUTS,
        "style": _resource("page.css"),
        "script": _resource("page.js"),
        "strings": _strings,
        "keys": lambda cells: json.dumps([_key(cell) for cell in cells]),
        "styles_of": _styles,
        "as_json": _json,
        "source": _source,
        "data": _data,
        "is_drawing": lambda figure: figure.drawing or (figure.svg is not None and b"<image" not in figure.svg),
        "size": lambda figure: _png_size(figure.png),
    }
    return engine.from_string(_resource("page.html"))


class _Page:
    """What the parts of a page have to agree on while it is made: the ids and labels given, the figures counted."""

    def __init__(self) -> None:
        self._taken = {"content"}
        self._figures = 0

    def next_figure(self) -> int:
        self._figures += 1
        return self._figures

    def id(self, title: str) -> str:
        """An id made of the title, unlike all others on the page."""
        slug = re.sub(r"\W+", "-", _titled(title).lower()).strip("-") or "part"
        return self.unique(slug, "{}-{}")

    def unique(self, name: str, pattern: str) -> str:
        tries = itertools.chain([name], (pattern.format(name, number) for number in itertools.count(2)))
        free = next(each for each in tries if each not in self._taken)
        self._taken.add(free)
        return free


def _checked(entry: Entry, kind: Kind) -> Cell:
    """The cell an entry stands for, in a number column with a number as its value. Raises `ValueError`."""
    if entry is None:
        raise ValueError("None: missing, which needs a reason: a Cell with one")
    if isinstance(entry, Cell):
        cell = entry
    elif isinstance(entry, str):
        cell = Cell(entry)
    elif isinstance(entry, bool):
        cell = Cell(str(entry))
    else:  # NumPy's numbers too
        whole = isinstance(entry, numbers.Integral)
        cell = Cell(str(int(entry)) if whole else f"{float(entry):.6g}", float(entry))
    if kind == "number" and cell.key is not None:
        if re.search(r"\bnan\b", cell.text, re.IGNORECASE) and not cell.reason.strip():
            raise ValueError(f"text {cell.text!r}: nan, which needs a reason")
        try:
            number = float(cell.key)
        except ValueError:
            raise ValueError(f"{cell.key!r} is not a number: a Cell can have one as its value") from None
        if number != cell.value:
            return Cell(cell.text, number, cell.reason, cell.tone)
    return cell


def _cells(table: Table) -> Sequence[Sequence[Cell]]:
    """A table's rows, whose entries it has made cells of."""
    return cast(Sequence[Sequence[Cell]], table.rows)


def _styles(table: Table) -> list[str]:
    """The class of each column's cells: texts that are all brief stay on one line."""
    return [
        f"{column.kind} brief"
        if column.kind == "text" and all(len(row[index].text) <= _BRIEF for row in _cells(table))
        else column.kind
        for index, column in enumerate(table.columns)
    ]


def _compact(cell: Cell, kind: Kind) -> str | list[Any]:
    """The cell as the page's script reads it: text, key, reason, tone; the text alone if it says the rest."""
    said: Any = cell.text
    if kind == "number":
        said = float(cell.text) if _PLAIN_NUMBER.fullmatch(cell.text) else None
    if not cell.reason and not cell.tone and cell.key == said:
        return cell.text
    full = ["—" if cell.is_empty else cell.text, _key(cell), "" if cell.quiet else cell.reason, cell.tone]
    while not full[-1] and len(full) > 2:
        full.pop()
    return full


def _key(cell: Cell) -> float | str | None:
    """The cell's key in terms of JSON, which has no infinities."""
    key = cell.key
    if not isinstance(key, float):
        return key
    return math.copysign(sys.float_info.max, key) if math.isinf(key) else float(key)


def _json(table: Table) -> str:
    """The rows as JSON that can stand in a script element: nothing in it looks like the element's end or a comment."""
    content = [
        [_compact(cell, column.kind) for cell, column in zip(row, table.columns, strict=True)] for row in _cells(table)
    ]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _source(figure: Figure) -> str:
    """The picture for an img, in which no script of it runs."""
    content = figure.svg if figure.svg is not None else figure.png
    assert content is not None
    return _data(content)


def _data(content: bytes) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height in CSS pixels, 96 per inch, by the file's own resolution if it says one."""
    width, height = struct.unpack(">II", png[16:24])
    place = png.find(b"pHYs", 0, png.find(b"IDAT"))
    if place < 0:
        return width, height
    per_metre, _, unit = struct.unpack(">IIB", png[place + 4 : place + 13])
    scale = 96 / (per_metre * 0.0254) if unit == 1 and per_metre else 1.0
    return round(width * scale), round(height * scale)


def _strings(values: Sequence[str] | str) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


def _titled(title: str) -> str:
    if not title.strip():
        raise ValueError("title: empty, allowed are titles of at least one letter")
    return title


def _resource(name: str) -> str:
    return resources.files("analysis.report").joinpath(name).read_text(encoding="utf-8")
