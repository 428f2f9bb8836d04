"""What the papers say: their numbers (`claims.csv`), what they say without one (`trends.csv`), and how they trained
(`protocols.csv`)."""

from __future__ import annotations

import csv
import functools
import importlib.resources
import io
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from analysis.schema import TABLES


@dataclass(frozen=True)
class Claim:
    """A number of a paper: the columns of `claims.csv`."""

    paper: str
    table: str
    row: str
    column: str
    value: float
    printed: str
    std: float | None
    unit: str
    n: int | None
    note: str
    protocol: dict[str, Any]
    """Columns of the trials table that make a trial of ours comparable."""
    settings: dict[str, Any]
    """Columns of the trials table that say which trials the number is about."""
    quantity: str
    direction: str
    against: str
    """`row`, or `row || column`, of the number that it is compared with."""


@dataclass(frozen=True)
class Trend:
    """What a paper says without a number: the columns of `trends.csv`."""

    paper: str
    table: str
    statement: str
    trend: Literal["up", "down", "none", "tips"]
    strength: str
    quantity: str
    protocol: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """How a paper says that it trained: the columns of `protocols.csv`."""

    tables: tuple[str, ...]
    """Of which of its tables; "*": of every paper's."""
    when: dict[str, Any]
    """Of which of their numbers, by what `claims.csv` has as protocol."""
    trained: dict[str, str]
    """Columns of `Sweep.settings` with their values; ">0": any that is."""
    source: str


def _typed(words: str) -> dict[str, Any]:
    """ "alpha=1 fpn=true variant=target" with values of the columns' types."""
    return {name: _value(name, text) for name, _, text in (word.partition("=") for word in words.split())}


def _value(name: str, text: str) -> Any:
    kind = TABLES["trials"].field(name).type
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[text]
    return float(text) if pa.types.is_floating(kind) else int(text) if pa.types.is_integer(kind) else text


def _read(name: str) -> list[dict[str, str]]:
    text = importlib.resources.files("analysis.paper").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


@functools.cache
def claims() -> tuple[Claim, ...]:
    """Every number of the papers' tables."""
    found = []
    for row in _read("claims.csv"):
        typed: dict[str, Any] = {
            "value": float(row["value"]),
            "std": float(row["std"]) if row["std"] else None,
            "n": int(row["n"]) if row["n"] else None,
            "protocol": _typed(row["protocol"]),
            "settings": _typed(row["settings"]),
        }
        found.append(Claim(**{**row, **typed}, printed=row["value"]))
    return tuple(found)


@functools.cache
def trends() -> tuple[Trend, ...]:
    """What the papers say about the effect of strength without a number."""
    found = []
    for row in _read("trends.csv"):
        typed: dict[str, Any] = {"protocol": _typed(row["protocol"]), "settings": _typed(row["settings"])}
        found.append(Trend(**{**row, **typed}))
    return tuple(found)


@functools.cache
def protocols() -> tuple[Protocol, ...]:
    """How the papers trained, as far as they say it."""
    found = []
    for row in _read("protocols.csv"):
        words = [word.partition("=") for word in row["trained"].split()]
        trained = {name: text.replace(";", ", ") for name, _, text in words}
        found.append(Protocol(tuple(row["tables"].split()), _typed(row["when"]), trained, row["source"]))
    return tuple(found)


def trained_as(claim: Claim | Trend) -> dict[str, str]:
    """How the network of a paper's number was trained; what the special rows of `protocols.csv` say stands above what
    the general ones do."""
    known: dict[str, str] = {}
    for protocol in sorted(protocols(), key=lambda it: (it.tables != ("*",), len(it.when))):
        of_table = protocol.tables == ("*",) or claim.table in protocol.tables
        if of_table and all(claim.protocol.get(name) == value for name, value in protocol.when.items()):
            known |= protocol.trained
    return {name: text for name, text in known.items() if name not in claim.settings and name not in claim.protocol}
