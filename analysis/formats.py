"""Tables that a command prints: for the terminal, or as CSV, Markdown or LaTeX with nothing else on standard output."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from analysis.command_line import print_table

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "markdown", "latex"]

_WIDE = 40
"""Characters from which on a column of words has a width of its own in LaTeX, in which it is broken into lines."""


@dataclass(frozen=True)
class Table:
    """A table of text, and the numbers that it is of."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    wrap: Sequence[int] = (0,)
    """The columns of words, that are broken into lines where they do not fit; the others are of numbers."""
    caption: str = ""
    width: int = 140
    """Outside of a terminal."""
    data: pa.Table | None = None
    """The same with its numbers in full; None: the texts are what there is."""


def print_tables(tables: Sequence[Table], form: Format | None) -> None:
    """Print the tables; in a format as `written` has them, else for the terminal."""
    if form is not None:
        print(written(tables, form), end="")
        return
    for index, table in enumerate(tables):
        if table.caption:
            print(*([""] if index else []), table.caption, sep="\n")
        print_table(table.columns, table.rows, wrap=table.wrap, width=table.width)


@contextlib.contextmanager
def beside(form: Format | None) -> Iterator[None]:
    """Where a table is written in a format, all else that is printed goes to standard error."""
    with contextlib.redirect_stdout(sys.stdout if form is None else sys.stderr):
        yield


def written(tables: Sequence[Table], form: Format) -> str:
    """The tables in this format, an empty line between two: CSV of the numbers in full (tables of the same columns are
    one), Markdown as GitHub has it, LaTeX for the package booktabs. Raises `ValueError` for another format."""
    if form not in get_args(Format):
        raise ValueError(f"form: {form!r}, allowed are {', '.join(get_args(Format))}")
    if form == "markdown":
        return "\n".join(map(_markdown, tables))
    if form == "latex":
        return "\n".join(map(_latex, tables))
    parts: dict[tuple[str, ...], list[Sequence[Any]]] = {}
    for table in tables:
        columns, rows = _numbers(table)
        parts.setdefault(tuple(columns), []).extend(rows)
    return "\n".join(_csv(columns, rows) for columns, rows in parts.items())


def _numbers(table: Table) -> tuple[Sequence[str], list[Sequence[Any]]]:
    if table.data is None:
        return table.columns, list(table.rows)
    return table.data.column_names, [tuple(row.values()) for row in table.data.to_pylist()]


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([" ".join(name.split()) for name in columns])
    writer.writerows([[_plain(value) for value in row] for row in rows])
    return content.getvalue()


def _plain(value: Any) -> str:
    """A value as CSV has it: as many digits as tell it from every other number, nothing for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | Mapping):
        return json.dumps(value)
    return repr(value) if isinstance(value, float) else str(value)


def _markdown(table: Table) -> str:
    lines = [
        [_in_markdown(name) for name in table.columns],
        ["---" if index in table.wrap else "---:" for index in range(len(table.columns))],
        *([_in_markdown(text) for text in row] for row in table.rows),
    ]
    head = f"**{_in_markdown(table.caption)}**\n\n" if table.caption else ""
    return head + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _in_markdown(text: str) -> str:
    """Text that stands for itself: no emphasis, link, formula, element or edge of a cell is made of it."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))


def _latex(table: Table) -> str:
    columns = "".join(
        "r"
        if index not in table.wrap
        else "l"
        if all(len(row[index]) <= _WIDE for row in table.rows)
        else r"p{0.25\linewidth}"
        for index in range(len(table.columns))
    )
    caption = f"% {' '.join(table.caption.split())}\n" if table.caption else ""
    body = "".join(_latex_row(row) for row in table.rows)
    return (
        f"{caption}% \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        f"{_latex_row(table.columns)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def _latex_row(cells: Sequence[str]) -> str:
    texts = [in_latex(" ".join(cell.split())) for cell in cells]
    # after a line's end these would be its option
    guard = "{}" if texts and texts[0].startswith(("[", "*")) else ""
    return f"{guard}{' & '.join(texts)} \\\\\n"


_LATEX = {
    "\0": "{}",
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    "—": "---",
    "“": "``",
    "”": "''",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "…": r"\ldots{}",
    "·": r"\ensuremath{\cdot}",
    "¶": r"\P{}",
    "§": r"\S{}",
    "°": r"\ensuremath{^\circ}",
    "µ": r"\ensuremath{\mu}",
    "×": r"\ensuremath{\times}",
    "÷": r"\ensuremath{\div}",
    "±": r"\ensuremath{\pm}",
    "¬": r"\ensuremath{\neg}",
    "\xa0": "~",
    "\u2009": r"\,",
    "\u202f": r"\,",
    "ᵀ": r"\textsuperscript{T}",
    "ⁱ": r"\textsuperscript{i}",
    "Ω": r"\ensuremath{\Omega}",
}
_IN_FORMULAS = {
    "−": "-",
    "↑": r"\uparrow",
    "↓": r"\downarrow",
    "←": r"\leftarrow",
    "→": r"\rightarrow",
    "ℓ": r"\ell",
    "‖": r"\|",
    "√": r"\surd",
    "∂": r"\partial",
    "∇": r"\nabla",
    "Σ": r"\sum",
    "∑": r"\sum",
    "∫": r"\int",
    "∞": r"\infty",
    "∈": r"\in",
    "∪": r"\cup",
    "∩": r"\cap",
    "≤": r"\leq",
    "≥": r"\geq",
    "≠": r"\neq",
    "≈": r"\approx",
    "⌈": r"\lceil",
    "⌉": r"\rceil",
    "✓": r"\surd",
}
_GREEK = {"FINAL SIGMA": "varsigma", "LAMDA": "lambda"}
_SMALL = (
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
    ),
    *("omicron", "pi", "rho", "sigma", "varsigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
_CAPITALS = ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega")


def in_latex(text: str) -> str:
    """Text that stands for itself in LaTeX with its usual fonts; letters of other scripts than Latin and Greek, which
    these do not have, by their code points."""
    found = []
    # powers of ten, and hyphens that are a number's sign, as formulas have them
    for part in re.split(r"(\b10\^-?\d+(?:\.\d+)?|(?<![\w.-])-(?=\.?\d))", text):
        if part.startswith("10^"):
            found.append(rf"\ensuremath{{10^{{{part[3:]}}}}}")
        elif part == "-":
            found.append(r"\ensuremath{-}")
        else:
            # two hyphens would be a dash
            apart = re.sub("-(?=-)", "-\0", part)
            found += [_LATEX.get(letter) or _letter(letter) for letter in apart]
    return "".join(found)


def _letter(letter: str) -> str:
    if letter in _IN_FORMULAS:
        return rf"\ensuremath{{{_IN_FORMULAS[letter]}}}"
    # ASCII, and the letters of Latin-1 and Latin Extended-A
    if letter.isascii() or (0xC0 <= ord(letter) <= 0x17F and letter.isalpha() and letter not in _NOT_IN_OT1):
        return letter if letter.isprintable() else " "
    kind, _, name = unicodedata.name(letter, "").partition(" LETTER ")
    name = _GREEK.get(name, name).lower()
    if kind == "GREEK SMALL" and name in _SMALL:
        return "o" if name == "omicron" else rf"\ensuremath{{\{name}}}"
    if kind == "GREEK CAPITAL" and name.capitalize() in _CAPITALS:
        return rf"\ensuremath{{\{name.capitalize()}}}"
    plain = unicodedata.normalize("NFKC", letter)
    how = unicodedata.decomposition(letter)
    if how.startswith(("<super>", "<sub>")) and plain != letter:
        return rf"\text{'superscript' if how.startswith('<super>') else 'subscript'}{{{in_latex(plain)}}}"
    return f"[U+{ord(letter):04X}]"


# eth, thorn, letters with a stroke or an ogonek, and the like
_NOT_IN_OT1 = "ÐÞðþĐđĦħĸŊŋŦŧŉĄąĘęĮįŲųĿŀſ"
