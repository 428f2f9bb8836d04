"""One HTML page that needs nothing but itself: a small content model, and `render`, which makes the page of it.

Text is shown as it is given, whatever it holds; nothing on the page is loaded from elsewhere or sent anywhere.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import numbers
import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any, Literal

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


Block = Table | Figure | Text | Bullets | Facts | Callout


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
    title: str, sections: Sequence[Section], *, subtitle: str = "", footer: str = "", description: str = ""
) -> str:
    """The page, to be written as UTF-8. Equal content gives an equal page.

    Raises `ValueError` if there is no section, or the page, a section or a subsection has an empty title.
    """
    if not sections:
        raise ValueError("sections: none, allowed is at least one")
    page = _Page()
    body = "\n".join(page.section(section) for section in sections)
    head = "".join(
        [
            '<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_SECURITY_POLICY}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            f'<meta name="description" content="{escape(description)}">\n' if description else "",
            f"<title>{escape(_titled(title))}</title>\n",
            '<link rel="icon" href="data:,">\n',  # or a server is asked for one
            f"<style>\n{_resource('page.css')}</style>\n",
            f"<script>\n{_resource('page.js')}</script>",
        ]
    )
    below = f'\n<p class="subtitle">{escape(subtitle)}</p>' if subtitle else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
{head}
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<div>
<h1>{escape(title)}</h1>{below}
</div>
<button type="button" class="theme" hidden></button>
</header>
<nav aria-label="Contents">
<p aria-hidden="true">Contents</p>
<ol>{"".join(page.contents)}</ol>
</nav>
<main id="content" tabindex="-1">
{body}
</main>
<footer>{_paragraphs(footer) if footer else ""}</footer>
</body>
</html>
"""


class _Page:
    """What the parts of a page have to agree on while it is made: the ids and labels given, the figures counted."""

    def __init__(self) -> None:
        self.contents: list[str] = []
        self._taken = {"content"}
        self._figures = 0

    def section(self, section: Section) -> str:
        name = self._id(section.title)
        intro = f'<p class="intro">{escape(section.intro)}</p>\n' if section.intro else ""
        entries = []
        blocks = []
        for block in section.blocks:
            if isinstance(block, Subsection):
                inner = self._id(block.title)
                entries.append(_link(inner, block.title))
                content = "\n".join(self._block(each) for each in block.blocks)
                blocks.append(
                    f'<section aria-labelledby="{inner}">\n<h3 id="{inner}">{escape(block.title)}</h3>\n{content}\n'
                    "</section>"
                )
            else:
                blocks.append(self._block(block))
        inside = f"<ol>{''.join(f'<li>{entry}</li>' for entry in entries)}</ol>" if entries else ""
        self.contents.append(f"<li>{_link(name, section.title)}{inside}</li>")
        content = "\n".join(blocks)
        return (
            f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(section.title)}</h2>\n{intro}{content}\n'
            "</section>"
        )

    def _id(self, title: str) -> str:
        """An id made of the title, unlike all others on the page."""
        slug = re.sub(r"\W+", "-", _titled(title).lower()).strip("-") or "part"
        return self._unique(slug, "{}-{}")

    def _unique(self, name: str, pattern: str) -> str:
        tries = itertools.chain([name], (pattern.format(name, number) for number in itertools.count(2)))
        free = next(each for each in tries if each not in self._taken)
        self._taken.add(free)
        return free

    def _block(self, block: Block) -> str:
        match block:
            case Text():
                return _paragraphs(block.paragraphs)
            case Bullets():
                return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in _strings(block.items))}</ul>"
            case Facts():
                return _definitions("facts", [(name, _cell(_checked(entry, "text"))) for name, entry in block.pairs])
            case Callout():
                label = f'<strong class="{block.tone}">{_CALLOUTS[block.tone]}</strong>'
                return f'<p class="callout {block.tone}" role="note">{label} {escape(block.text)}</p>'
            case Figure():
                return self._figure(block)
            case Table():
                return self._table(block)

    def _figure(self, figure: Figure) -> str:
        self._figures += 1
        parts = []
        if figure.rows is not None:
            parts.append(self._table(figure.rows))
        if figure.command:
            parts.append(
                '<div class="command"><button type="button" class="copy" hidden>Copy the command</button>'
                '<span role="status"></span>'
                f"<pre><code>{escape(figure.command)}</code></pre></div>"
            )
        behind = ""
        if parts:
            what = " and ".join(["Rows"] * (figure.rows is not None) + ["command"] * bool(figure.command)).capitalize()
            behind = f"\n<details><summary>{what} behind this figure</summary>\n{''.join(parts)}\n</details>"
        caption = f" {escape(figure.caption)}" if figure.caption else ""
        return (
            f'<figure id="{self._id(figure.title)}">\n<div class="card">{_picture(figure)}</div>\n'
            f"<figcaption><b>Figure {self._figures}.</b> <strong>{escape(figure.title)}.</strong>{caption}</figcaption>"
            f"{behind}\n</figure>"
        )

    def _table(self, table: Table) -> str:
        name = self._id(table.caption)
        # regions are told apart by their labels alone
        label = escape(self._unique(f"Table: {table.caption}", "{} ({})"))
        rows = [[_checked(entry, "text") for entry in row] for row in table.rows]
        styles = [_style(column.kind, [row[index] for row in rows]) for index, column in enumerate(table.columns)]
        heads = "".join(
            f'<th scope="col" class="{style}"{_attribute("title", column.help)}>{escape(column.name)}</th>'
            for column, style in zip(table.columns, styles, strict=True)
        )
        large = len(rows) > _LARGE
        body = "" if large else "".join(f"\n{_row(row, styles)}" for row in rows)
        parts = []
        if len(rows) > _LONG:
            parts.append(
                f'<div class="tools" hidden><label for="{name}-filter">Filter rows</label> '
                f'<input type="search" id="{name}-filter" aria-describedby="{name}" autocomplete="off"> '
                f'<span class="count" role="status">showing {len(rows):,} of {len(rows):,}</span></div>'
            )
        parts.append(
            f'<div class="scroll{" long" * (len(rows) > _LONG)}" role="region" tabindex="0" aria-label="{label}">\n'
            f'<table aria-labelledby="{name}">\n<thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody>\n</table>'
            "\n</div>"
        )
        if large:
            content = [
                [_compact(cell, column.kind) for cell, column in zip(row, table.columns, strict=True)] for row in rows
            ]
            parts.append(
                f'<div class="pages" role="group" aria-label="Pages of {label}" hidden>'
                '<button type="button">Previous</button> <span role="status"></span> '
                '<button type="button">Next</button></div>'
                f"<noscript><p>It takes JavaScript to show these {len(rows):,} rows. They are in this file, as JSON in "
                f'the element “{name}-rows”.</p></noscript><script type="application/json" id="{name}-rows">'
                f"{_json(content)}</script>"
            )
        if not rows:
            parts.append('<p class="note">No rows.</p>')
        if table.note:
            parts.append(f'<p class="note">{escape(table.note)}</p>')
        explained = [(column.name, escape(column.help)) for column in table.columns if column.help]
        if explained:
            meaning = _definitions("facts", explained)
            parts.append(f'<details class="help"><summary>What the columns mean</summary>{meaning}</details>')
        caption, content_html = escape(table.caption), "\n".join(parts)
        if table.collapsed:
            return (
                f'<details class="table">\n<summary><span class="caption" id="{name}">{caption}</span> '
                f"<small>{len(rows):,} rows</small></summary>\n{content_html}\n</details>"
            )
        return f'<div class="table">\n<p class="caption" id="{name}">{caption}</p>\n{content_html}\n</div>'


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


def _style(kind: Kind, cells: Sequence[Cell]) -> str:
    """The class of a column's cells: texts that are all brief stay on one line."""
    return f"{kind} brief" if kind == "text" and all(len(cell.text) <= _BRIEF for cell in cells) else kind


def _row(cells: Sequence[Cell], styles: Sequence[str]) -> str:
    first, *others = zip(cells, styles, strict=True)
    shown = [f'<th scope="row" class="{first[1]}">{_cell(first[0])}</th>']
    shown += [f'<td class="{style}">{_cell(cell)}</td>' for cell, style in others]
    return f'<tr data-keys="{escape(json.dumps([_key(cell) for cell in cells]))}">{"".join(shown)}</tr>'


def _cell(cell: Cell) -> str:
    text = "—" if cell.is_empty else escape(cell.text)
    shown = f'<span class="{cell.tone}">{text}</span>' if cell.tone else text
    return f"{shown} <small>{escape(cell.reason)}</small>" if cell.reason else shown


def _compact(cell: Cell, kind: Kind) -> str | list[Any]:
    """The cell as the page's script reads it: text, key, reason, tone; the text alone if it says the rest."""
    said: Any = cell.text
    if kind == "number":
        said = float(cell.text) if _PLAIN_NUMBER.fullmatch(cell.text) else None
    if not cell.reason and not cell.tone and cell.key == said:
        return cell.text
    full = ["—" if cell.is_empty else cell.text, _key(cell), cell.reason, cell.tone]
    while not full[-1] and len(full) > 2:
        full.pop()
    return full


def _key(cell: Cell) -> float | str | None:
    """The cell's key in terms of JSON, which has no infinities."""
    key = cell.key
    if not isinstance(key, float):
        return key
    return math.copysign(sys.float_info.max, key) if math.isinf(key) else float(key)


def _json(content: Any) -> str:
    """JSON that can stand in a script element: nothing in it looks like the element's end or a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _picture(figure: Figure) -> str:
    """An img, in which no script of the picture runs."""
    alt = escape(figure.alt)
    if figure.svg is not None:
        return f'<img src="data:image/svg+xml;base64,{base64.b64encode(figure.svg).decode()}" alt="{alt}">'
    assert figure.png is not None
    width, height = _png_size(figure.png)
    source = f"data:image/png;base64,{base64.b64encode(figure.png).decode()}"
    return f'<img src="{source}" alt="{alt}" width="{width}" height="{height}">'


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height in CSS pixels, 96 per inch, by the file's own resolution if it says one."""
    width, height = struct.unpack(">II", png[16:24])
    place = png.find(b"pHYs", 0, png.find(b"IDAT"))
    if place < 0:
        return width, height
    per_metre, _, unit = struct.unpack(">IIB", png[place + 4 : place + 13])
    scale = 96 / (per_metre * 0.0254) if unit == 1 and per_metre else 1.0
    return round(width * scale), round(height * scale)


def _definitions(style: str, pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names, and of HTML that says what they stand for."""
    return (
        f'<dl class="{style}">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
        + "</dl>"
    )


def _paragraphs(paragraphs: Sequence[str] | str) -> str:
    return "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in _strings(paragraphs))


def _strings(values: Sequence[str] | str) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


def _link(name: str, title: str) -> str:
    return f'<a href="#{name}">{escape(title)}</a>'


def _attribute(name: str, value: str) -> str:
    return f' {name}="{escape(value)}"' if value else ""


def _titled(title: str) -> str:
    if not title.strip():
        raise ValueError("title: empty, allowed are titles of at least one letter")
    return title


def _resource(name: str) -> str:
    return resources.files("analysis.report").joinpath(name).read_text(encoding="utf-8")
