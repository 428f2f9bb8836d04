"""What the papers say: their numbers (`claims.csv`), what they say of strengths (`trends.csv`) and of layers
(`orders.csv`) without one, and how they trained and measured (`protocols.csv`)."""

from __future__ import annotations

import csv
import functools
import importlib.resources
import io
import itertools
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from analysis.command_line import InputError
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
class Order:
    """What a paper says of layers in words, which is an order of two settings, or a trend: the columns of
    `orders.csv`."""

    paper: str
    table: str
    statement: str
    order: Literal["below", "above", "apart", "alike", "falls", "rises"]
    along: str
    """Of a trend: the column that it is along, or "layer"."""
    quantity: str
    layers: Literal["all", "early", "last"]
    settings: dict[str, Any]
    than: dict[str, Any]
    """What is other in the settings that these are compared with; nothing: they are compared with themselves."""
    than_quantity: str
    protocol: dict[str, Any]


Said = Claim | Trend | Order
"""Of a paper."""


@dataclass(frozen=True)
class Protocol:
    """How a paper says that it trained: the columns of `protocols.csv`."""

    tables: tuple[str, ...]
    """Of which of its tables; "*": of every paper's."""
    when: dict[str, Any]
    """Of which of their numbers, by what `claims.csv` has as protocol."""
    trained: dict[str, str]
    """Columns of `Sweep.settings` with their values; ">0": any that is."""
    measured: dict[str, str]
    """Options of metrics, "attacks.restarts", with their values; "all": of the images there are, or of the pixels."""
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
def orders() -> tuple[Order, ...]:
    """What the papers say of layers without a number; a row with several values of a column (`a|b`) is one for each
    combination of them."""
    found = []
    for row in _read("orders.csv"):
        columns = ("settings", "than")
        for settings, than in itertools.product(*(_alternatives(row[name]) for name in columns)):
            typed: dict[str, Any] = {"settings": settings, "than": than, "protocol": _typed(row["protocol"])}
            found.append(Order(**{**row, **typed}))
    return tuple(found)


def _alternatives(words: str) -> list[dict[str, Any]]:
    pairs = [word.partition("=") for word in words.split()]
    choices = [[f"{name}={value}" for value in values.split("|")] for name, _, values in pairs]
    return [_typed(" ".join(chosen)) for chosen in itertools.product(*choices)]


def everything_said() -> tuple[Said, ...]:
    """Numbers, and statements of strengths and of layers."""
    return (*claims(), *trends(), *orders())


@functools.cache
def protocols() -> tuple[Protocol, ...]:
    """How the papers trained, as far as they say it."""
    found = []
    for row in _read("protocols.csv"):
        trained, measured = (_words(row[name]) for name in ("trained", "measured"))
        found.append(Protocol(tuple(row["tables"].split()), _typed(row["when"]), trained, measured, row["source"]))
    return tuple(found)


def _words(text: str) -> dict[str, str]:
    words = [word.partition("=") for word in text.split()]
    return {name: value.replace(";", ", ") for name, _, value in words}


def _protocols_of(said: Said) -> list[Protocol]:
    """Those that hold for what a paper says, the special ones, which stand above the general ones, last."""
    return [
        protocol
        for protocol in sorted(protocols(), key=lambda it: (it.tables != ("*",), len(it.when)))
        if (protocol.tables == ("*",) or said.table in protocol.tables)
        and all(said.protocol.get(name) == value for name, value in protocol.when.items())
    ]


def trained_as(said: Said) -> dict[str, str]:
    """How the network of a paper's number was trained."""
    known: dict[str, str] = {}
    for protocol in _protocols_of(said):
        known |= protocol.trained
    return {name: text for name, text in known.items() if name not in said.settings and name not in said.protocol}


def measured_as(said: Said) -> dict[str, str]:
    """With which options of the metrics a paper's number was measured, as far as it says it."""
    known: dict[str, str] = {}
    for protocol in _protocols_of(said):
        known |= protocol.measured
    return known


@functools.cache
def data_sets() -> tuple[str, ...]:
    """The names of the papers' data sets, which a folder's images can be declared to be."""
    return tuple(sorted({claim.protocol["dataset"] for claim in claims() if "dataset" in claim.protocol}))


# how many classes each has, and images to test on (of one of the folds, where the paper has folds)
CLASSES = {
    **dict.fromkeys(("mnist", "fashion-mnist", "kmnist", "cifar10", "imagenette"), 10),
    "cifar100": 100,
    "oxford-pets": 37,
    "coco": 53,
    "wood": 9,
    "cub-200-2011": 200,
    "imagenet": 1000,
}
TEST_IMAGES = {
    **dict.fromkeys(("mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100"), 10_000),
    "imagenette": 3_925,
    "oxford-pets": 7_349 // 5,
    "cub-200-2011": 11_788 // 5,
    "imagenet": 50_000,
}


def check_declared(name: str, dataset: str, classes: int | None = None) -> None:
    """Raises `InputError` if a data set of this name in the record cannot be declared to be a paper's: it is known to
    be another, or has another number of classes."""
    if name not in data_sets():
        raise InputError(f"as: {name!r}, allowed are {', '.join(data_sets())}")
    if not dataset.startswith(("folder:", "parquet:")):
        if dataset != name:
            raise InputError(f"as: {name}, allowed is none for {dataset}, which is known to be that")
    elif classes is not None and classes != CLASSES[name]:
        raise InputError(f"as: {name}, allowed are data sets of {CLASSES[name]} classes; {dataset} has {classes}")
