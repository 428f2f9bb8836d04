"""LOW..HIGH on a command line: the range of a number that a search looks in; LOW..HIGH/N: so many values of it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from analysis.command_line import InputError

if TYPE_CHECKING:
    from sweeps.flags import SweepFlags

Ranges = tuple[Any, ...]
"""Triples of a field and the two ends of its range, as its flag has them: numbers, or words that say some."""

SETTINGS, SETTINGS_IN_HOURS = 50, 1000
"""Of a search by Optuna's samplers without --samples, and with --budget-hours alone."""

MOST_STEPS = 1_000_000
_LOGARITHMIC = ("alpha", "learning_rate", "weight_decay")

# of every sweep; what is measured is no choice of a setting
_SHARED = ("width", "epochs", "batch_size", "learning_rate", "weight_decay")


def rangeable(kind: type[SweepFlags]) -> list[str]:
    """The fields that may be a range: the strength, and all numbers of which there may be several."""
    own = {name for one in kind.__mro__ for name in vars(one).get("__annotations__", ()) if _is_own(one)}
    found = [entry.name for entry in dataclasses.fields(kind) if entry.name in {*_SHARED, *own} - {"alpha_range"}]
    return [name for name in found if name == kind.STRENGTH or _number(kind, name) is not None]


def _is_own(one: type) -> bool:
    """Whether a class is of one method's sweep, or of those with a strength, and not of all."""
    return hasattr(one, "STRENGTH") and one.__name__ != "SweepFlags"


def _number(kind: type[SweepFlags], field: str) -> type[int] | type[float] | None:
    """int or float for a flag that takes several of them."""
    hint = get_type_hints(kind)[field]
    for part in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(part) is tuple and get_args(part)[0] in (int, float):
            number: type[int] | type[float] = get_args(part)[0]
            return number
    return None


def without_ranges(kind: type[SweepFlags], argv: Sequence[str]) -> tuple[list[str], Ranges]:
    """The command line without LOW..HIGH after flags of numbers, and these ranges; LOW..HIGH/N has its values in its
    place. Raises `InputError` for one that is none, and for a flag that has two."""
    fields, rest, found = rangeable(kind), list[str](), dict[str, tuple[Any, Any]]()
    position = 0
    while position < len(argv):
        word = argv[position]
        flag, _, value = word.partition("=")
        field = flag.removeprefix("--").replace("-", "_")
        after = list(itertools.takewhile(lambda word: not word.startswith("--"), argv[position + 1 :]))
        values = [value, *after] if value else after
        position += 1
        if flag.startswith("--") and field in fields and any(_is_steps(text) for text in values):
            steps = (_steps(kind, field, text) if _is_steps(text) else [text] for text in values)
            rest += [flag, *dict.fromkeys(itertools.chain.from_iterable(steps))]
            position += len(after)
            continue
        if not flag.startswith("--") or field not in fields or not any(".." in text for text in values):
            rest.append(word)
            continue
        if field in found:
            raise InputError(f"{field}: two ranges, allowed is one")
        found[field] = _ends(kind, field, values)
        position += len(after)
    return rest, tuple((field, *ends) for field, ends in found.items())


def _is_steps(text: str) -> bool:
    return ".." in text and "/" in text


def _steps(kind: type[SweepFlags], field: str, text: str) -> list[str]:
    """The values of LOW..HIGH/N: evenly in their logarithms for strengths and what else is chosen so, evenly else;
    whole for whole numbers, of which equal ones are one."""
    is_whole = _number(kind, field) is not float  # Top-GAP's pixels are words, as they may be all
    ends, _, count = text.partition("/")
    try:
        low, high = (float(end) for end in ends.split(".."))
        whole_ends = not is_whole or (low.is_integer() and high.is_integer())
        several = int(count)
    except ValueError:
        low, high, several, whole_ends = 0.0, 0.0, 0, False
    logarithmic = field in (kind.STRENGTH, *_LOGARITHMIC)
    if not (whole_ends and -math.inf < low < high < math.inf and (low > 0 or not logarithmic) and several >= 2):
        above = ", above 0," if logarithmic else ""
        whole = "whole " if is_whole else ""
        raise InputError(f"{field}: {text}, allowed are LOW..HIGH/N, two rising {whole}numbers{above} and at least 2")
    if several > MOST_STEPS:
        raise InputError(f"{field}: {text}, allowed are at most {MOST_STEPS:,} values: a plan has no more")
    values = np.geomspace(low, high, several) if logarithmic else np.linspace(low, high, several)
    # without the last digits' noise, as those of --alpha-range
    return [str(round(value)) if is_whole else f"{value:.12g}" for value in values.tolist()]


def _ends(kind: type[SweepFlags], field: str, values: Sequence[str]) -> tuple[Any, Any]:
    number: Any = _number(kind, field) or str
    try:
        low, high = values[0].split("..") if len(values) == 1 else ("", "")
        ends = (number(low), number(high))
    except ValueError:
        ends = ("", "")
    if "" in ends:
        shown, whole = " ".join(values), " of whole numbers" if number is int else ""
        raise InputError(f"{field}: {shown}, allowed are values, or one LOW..HIGH{whole} with a --search")
    return ends


def shown_range(low: Any, high: Any) -> str:
    return "..".join(f"{end:g}" if isinstance(end, float) else str(end) for end in (low, high))
