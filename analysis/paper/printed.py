"""What the papers say: their numbers (`claims.csv`), and what they say without one (`trends.csv`)."""

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
