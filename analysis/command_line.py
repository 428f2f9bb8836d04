"""One way to parse a command line and to say what is wrong with it: one line on standard error, exit code 2."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.bounds import out_of_bounds

Flags = TypeVar("Flags")

_fields: set[str] = set()
"""The flags of this process's command line, by their fields' names; `as_` is --as, which Python has a use for."""


class InputError(ValueError):
    """Something a user can get wrong. The message is one line: what is wrong and what would be right."""


def parse(
    flags: type[Flags],
    argv: Sequence[str] | None = None,
    *,
    default: Flags | None = None,
    prog: str,
    description: str | None = None,
) -> Flags:
    """`argv` (default: the process's) as an instance of the dataclass `flags`, `default` supplying what is not given.

    Raises `InputError` for an unknown flag or value, and a number that is out of bounds (`analysis.bounds`); `--help`
    prints and exits 0. From here on `run` names a flag as it is typed where a message begins with its field.
    """
    assert dataclasses.is_dataclass(flags)
    for word in sys.argv[1:] if argv is None else argv:
        if not word.isprintable() and any("\udc80" <= letter <= "\udcff" for letter in word):
            raise InputError(f"{word!r}: no {sys.getfilesystemencoding()}, allowed is text of this locale")
    _fields.clear()
    _fields.update(entry.name.rstrip("_") for entry in dataclasses.fields(flags) if "Positional" not in str(entry.type))
    errors = io.StringIO()
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000" if not _asks_for_help(argv) else width or "110"
    try:
        with contextlib.redirect_stderr(errors):
            parsed = cast(Flags, tyro.cli(flags, args=argv, prog=prog, default=default, description=description))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        message = _one_line(errors.getvalue())
        given = sys.argv[1:] if argv is None else argv
        raise InputError(
            _unknown(flags, given, message)
            or _second_value(flags, given, message)
            or _no_whole_number(flags, given, message)
            or message
        ) from None
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    check_bounds(parsed)
    return parsed


def check_bounds(flags: object) -> None:
    """Raises `InputError` for the first of their numbers that is out of bounds."""
    problem = next(out_of_bounds(flags), None)
    if problem is not None:
        raise InputError(problem)


def _asks_for_help(argv: Sequence[str] | None) -> bool:
    return bool({"-h", "--help"} & set(sys.argv[1:] if argv is None else argv))


def _unknown(flags: type, argv: Sequence[str], message: str) -> str:
    """What the parser does not say of a flag that there is not where it misses another value; else empty."""
    names = {entry.name.rstrip("_") for entry in dataclasses.fields(flags)}
    wrong = [
        word.partition("=")[0]
        for word in argv
        if word.startswith("--")
        and not {word.partition("=")[0][2:].replace("-", "_"), word.removeprefix("--no-").replace("-", "_")} & names
    ]
    return f"Unrecognized options: {', '.join(wrong)} (see --help)" if wrong and message.startswith("Missing") else ""


def _second_value(flags: type, argv: Sequence[str], message: str) -> str:
    """What is wrong where a flag that takes one value, or none, has more of them; else empty."""
    types = {entry.name.rstrip("_"): str(entry.type) for entry in dataclasses.fields(flags)}
    given: dict[str, list[str]] = {}
    flag = ""
    for word in argv:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            given[flag] = [value] if value else []
        elif flag:
            given[flag].append(word)
    unknown = message.removeprefix("Unrecognized options: ").split(" (see")[0].split(", ")
    has_positional = any("Positional" in kind for kind in types.values())
    for flag, values in given.items():
        if has_positional and not set(values[1:]) & set(unknown):
            continue  # a value after the flag's own is the command's
        kind = types.get(flag.removeprefix("--").replace("-", "_"), "")
        other = types.get(flag.removeprefix("--no-").replace("-", "_"), "")
        if "bool" in (kind, other) and values:
            return f"{flag} takes no value, given is {' '.join(values)} (see --help)"
        if kind and "tuple" not in kind and len(values) > 1:
            return f"{flag} takes one value, given are {' '.join(values)} (see --help)"
    return ""


def _no_whole_number(flags: type, argv: Sequence[str], message: str) -> str:
    """What is wrong where a flag of whole numbers has something else; else empty."""
    types = {entry.name.rstrip("_"): str(entry.type) for entry in dataclasses.fields(flags)}
    flag = ""
    for word in argv if message.startswith("Error parsing") else ():
        flag, value = (word.partition("=")[0], word.partition("=")[2]) if word.startswith("--") else (flag, word)
        kind = types.get(flag.removeprefix("--").replace("-", "_"), "")
        whole = "int" in kind and not {"str", "float", "bool", "Literal"} & set(re.findall(r"\w+", kind))
        if whole and value and not re.fullmatch(r"[+-]?\d+(_\d+)*|None", value):
            return f"{flag}: {value!r}, allowed are whole numbers in digits (see --help)"
    return ""


def as_typed(message: str) -> str:
    """A message that begins with fields of the flags (`train_images: 5, …`), with the flags instead (`--train-images`).

    The mathematics and the configurations name what they refuse by its field, as whoever calls them from Python does.
    """
    names, colon, rest = message.partition(":")
    fields = names.split(", ")
    if not colon or not all(name in _fields for name in fields):
        return message
    return ", ".join(f"--{name.replace('_', '-')}" for name in fields) + colon + rest


def _one_line(box: str) -> str:
    """The message inside the box the parser draws, with its suggestion if there is one."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line).strip() for line in box.splitlines()]
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.startswith(("╭", "╰", "+")):
            continue
        if line and set(line) <= {"─", "-"}:
            sections.append([])
        elif line:
            sections[-1].append(line)
    if "╭" not in box:
        del sections[0]  # where a terminal cannot draw a box, the title in its upper edge is a section of its own
    message = " ".join(sections[0]) if sections else ""
    for section in sections[1:]:
        if section and section[0].startswith("Perhaps you meant"):
            message += "; " + " ".join(section).replace("Perhaps you meant:", "perhaps you meant")
    checked = re.fullmatch(r"Error parsing \w+: (\w+: .*)", message)  # a dataclass's own check of its fields
    return checked[1] if checked else (message or " ".join(box.split())) + " (see --help)"


def make_console(width: int = 140) -> Console:
    """Standard output, where text is what it is: names and paths have brackets and colons, and are no markup.

    Outside a terminal it is always `width` wide, enough for the numbers of a table.
    """
    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    console = Console(**plain)
    return console if console.is_terminal else Console(**plain, width=width)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: Sequence[int] = (0,), width: int = 140
) -> None:
    """Print a table of text. Columns in `wrap` are broken over lines where they do not fit, the others are numbers."""
    console = make_console(width)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2)
    for index, name in enumerate(columns):
        if index in wrap:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def survive_any_locale() -> None:
    """In the locale C, whose text is ASCII, start again in Python's UTF-8 mode, as Python does by itself unless it is
    told not to: else names of files would be broken, and Ray does not start with broken ones. What standard output and
    error cannot show is printed as `\\u2026` from here on."""
    if sys.getfilesystemencoding() == "ascii":
        os.environ["PYTHONUTF8"] = "1"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[], None]) -> None:
    """Call `main`; an `InputError` becomes one line on standard error and exit code 2. What is printed is printed in
    any locale."""
    survive_any_locale()
    # that it cannot keep a cache, as in a home that is read-only, costs a second and is not worth two long lines
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever reads the output wants no more of it, such as `| head`; what was to be written is written or not
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except InputError as error:
        print(f"error: {as_typed(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(2) from None
