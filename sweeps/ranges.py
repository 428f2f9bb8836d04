"""LOW..HIGH on a command line: the range of a number that a search looks in."""

from __future__ import annotations

import dataclasses
import itertools
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from analysis.command_line import InputError

if TYPE_CHECKING:
    from sweeps.flags import SweepFlags

Ranges = tuple[Any, ...]
"""Triples of a field and the two ends of its range, as its flag has them: numbers, or words that say some."""

SETTINGS, SETTINGS_IN_HOURS = 50, 1000
"""Of a search by Optuna's samplers without --samples, and with --budget-hours alone."""

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
    """The command line without LOW..HIGH after flags of numbers, and these ranges. Raises `InputError` for one that is
    none, and for a flag that has two."""
    fields, rest, found = rangeable(kind), list[str](), dict[str, tuple[Any, Any]]()
    position = 0
    while position < len(argv):
        word = argv[position]
        flag, _, value = word.partition("=")
        field = flag.removeprefix("--").replace("-", "_")
        after = list(itertools.takewhile(lambda word: not word.startswith("--"), argv[position + 1 :]))
        values = [value, *after] if value else after
        position += 1
        if not flag.startswith("--") or field not in fields or not any(".." in text for text in values):
            rest.append(word)
            continue
        if field in found:
            raise InputError(f"{field}: two ranges, allowed is one")
        found[field] = _ends(kind, field, values)
        position += len(after)
    return rest, tuple((field, *ends) for field, ends in found.items())


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
