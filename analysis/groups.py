"""Trials by setting, and what was measured of them: what every statistic is computed on.

A setting is a combination of values of columns of the trials table; the seeds of a setting are its sample, with
cross-validation each seed on each fold (`replicate`): what is said of seeds is then said of these runs. A quantity is a
metric's column of that table (`top1`), what the last epoch has of the validation split (`validation_top1`), or a
measurement, written `metric`, `metric:component` or `metric:component@level` (`faithfulness:deeplift`,
`robust_accuracy:pgd@20`). Where trials were measured with different options, each kind is a quantity of its own, such
as `total_variation:images=100`, and they are never averaged.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.command_line import InputError
from analysis.lazily import lazily
from analysis.options import UNKNOWN, Options, options_of, told_apart
from analysis.records import Sweep
from analysis.schema import CONVERTED_STRENGTHS, HYPERPARAMETERS, TABLES, VALIDATION, direction, unit
from analysis.storage import location

pc = lazily("pyarrow.compute")

# the data and the network: trials that differ in these answer different questions
PROBLEM = ("dataset", "model", "width")

# what tells settings apart, if not said otherwise
GROUPING = (
    *PROBLEM,
    "pretrained",
    "method",
    *HYPERPARAMETERS,
    "crop",
    "epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "precision",
)

# what two settings have to share for their scores to be comparable: all but the method and its hyperparameters
TRAINING = tuple(name for name in GROUPING if name not in {"method", *HYPERPARAMETERS} - {"weight_decay"})

# the same strength in other units tells no settings apart
_SAME = dict.fromkeys(CONVERTED_STRENGTHS, "alpha")

# what follows from another column tells no settings apart beside it: LOCO-REG's coefficients from its modulation
_FOLLOWS = {"method.layers": "modulation"}

Row = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Group:
    """The trials of one setting, as rows of the trials table, and the unregularised ones that belong to it."""

    values: Mapping[str, Any]
    """The columns that tell it from the others."""
    trials: Sequence[Row]
    baseline: Sequence[Row]
    digits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many tell its numbers from those of the other groups."""
    in_full: bool = False
    """Whether its words alone would be those of another group, too."""

    def label(self) -> str:
        """Its values in words, without the columns it has none of; those tell groups apart all the same."""
        given = {name: value for name, value in self.values.items() if value is not None}
        return label(given or self.values, self.digits, in_full=self.in_full)


def replicate(row: Row) -> tuple[int, ...]:
    """Which repetition of its setting a trial is: its seed, or its fold and seed. Trials of two settings with the same
    one have the same initialisation, order of the data and images to test on, and are pairs.

    Runs on different folds share training images, and those on one fold the images that they are tested on, so that
    they are not independent, as the t tests and intervals over them take them to be: that is the usual approximation,
    whose intervals are rather too narrow (Nadeau & Bengio 2003, "Inference for the Generalization Error", Machine
    Learning 52, 239-281).
    """
    return (row["seed"],) if row["fold"] is None else (row["fold"], row["seed"])


def replicates(rows: Sequence[Row]) -> str:
    """How often settings were repeated: "3 seeds", "5 folds × 3 seeds"."""
    folds = {row["fold"] for row in rows} - {None}
    seeds = count(len({row["seed"] for row in rows} - {None}), "seed")
    return f"{count(len(folds), 'fold')} × {seeds}" if folds else seeds


def about_folds(rows: Sequence[Row]) -> str:
    """What has to be known of statistics over seeds where there are folds; "" where there are none."""
    if all(row["fold"] is None for row in rows):
        return ""
    return (
        f"Cross-validation: what is said of seeds is said of runs, {replicates(rows)}. Folds share training images: "
        "tests and intervals, which take the runs as independent, are approximate (Nadeau & Bengio 2003)."
    )


def label(values: Mapping[str, Any], digits: Mapping[str, int] | None = None, *, in_full: bool = False) -> str:
    """A setting in words: "curvature, interval=10"; numbers to as many digits as tell them from those of others, and
    `in_full` words with the column that they are of, too."""
    known = digits or {}
    words = [_setting(name, value, known.get(name, 6), in_full) for name, value in values.items()]
    return ", ".join(words) or "all trials"


def short(name: str) -> str:
    """A column as it is said: "momentum" for training.momentum."""
    part, _, own = name.rpartition(".")
    return f"code of the {own}" if part == "code" else own


def _setting(name: str, value: Any, digits: int, in_full: bool) -> str:
    if value is None:
        return f"no {short(name)}"
    if isinstance(value, bool) or (isinstance(value, str) and ("." in name or in_full)):
        return f"{short(name)}={value}"  # "no fpn" is a setting without the choice
    if not isinstance(value, int | float):
        return str(value)
    return f"{short(name)}={number(value, digits)}"


def number(value: float, digits: int) -> str:
    """To so many significant digits; as short as tells it from every other number where that is all of them."""
    few = f"{value:g}"
    if digits <= 16:
        return f"{value:.{digits}g}"
    return few if float(few) == value else repr(value)


def digits_of(values: Iterable[Any], least: int = 6) -> int:
    """How many significant digits tell the different numbers among them apart, at least so many."""
    numbers = {value for value in values if isinstance(value, float)}
    digits = least
    while digits < 17 and len({f"{value:.{digits}g}" for value in numbers}) < len(numbers):
        digits += 1
    return digits


def count(n: int, what: str) -> str:
    """ "1 trial", "2 trials"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """No more than `most` of the items, evenly chosen, the first and the last among them."""
    return [items[i] for i in sorted({round(i) for i in np.linspace(0, len(items) - 1, most)})] if items else []


def differing(rows: Sequence[Row], *strengths: str) -> list[str]:
    """The columns that tell settings apart and have more than one value, without the strengths."""
    known = {*strengths, *(_SAME.get(name, name) for name in strengths)}
    names = (*GROUPING, *beyond_columns(rows))
    return [
        name
        for name in names
        if name not in known and len({row[name] for row in rows}) > 1 and not _follows(name, rows)
    ]


def _follows(name: str, rows: Sequence[Row]) -> bool:
    """Whether a column says no more of these rows than the one that it follows from."""
    source = _FOLLOWS.get(name)
    return source is not None and len({(row[source], row[name]) for row in rows}) == len({row[source] for row in rows})


def telling(rows: Sequence[Row]) -> list[str]:
    """The columns that tell the settings of regularised and unregularised trials apart: that the latter have none of a
    method's values is no difference."""
    regularised = differing([row for row in rows if row["method"] != "baseline"])
    return [name for name in differing(rows) if name in regularised or not of_the_method(name)]


def of_the_method(name: str) -> bool:
    """Whether a column is one of a method's hyperparameters or its code, of which another method has none."""
    return name in HYPERPARAMETERS or name.startswith("method.") or name == "code.method"


def beyond_columns(rows: Sequence[Row]) -> list[str]:
    """What tells settings apart beyond the columns of the trials table: see `analysis.settings`."""
    return [name for name in rows[0] if "." in name] if rows else []


def training(row: Row) -> dict[str, Any]:
    """Data, network and training of a trial, and the code of the network: what has to be the same for the scores of two
    settings to be comparable."""
    beyond = [name for name in beyond_columns([row]) if not of_the_method(name)]
    return {name: row[name] for name in (*TRAINING, *beyond)}


def of_like_code(baseline: Row, row: Row) -> bool:
    """Whether a baseline is one of those that a trial is compared with. Its method has no code of its own: of a record
    that was begun when code was not yet told apart, the old ones go with the old trials."""
    return baseline.get("code.method") is None or (baseline["code"] is None) == (row["code"] is None)


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names that both have different values of: a column that one is older than says nothing."""
    return [
        name
        for name, value in one.items()
        if value is not None and other.get(name) is not None and value != other[name]
    ]


def key_order(values: Sequence[Any]) -> list[tuple[int, Any]]:
    """A sort key that orders numbers and text by value, and missing values first."""
    return [(0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value) for value in values]


def grouped(rows: Sequence[Row], by: Sequence[str], baseline: Sequence[Row] = ()) -> list[Group]:
    """The rows by the values of the columns `by`, in the values' order.

    A row of `baseline` belongs to every group with which it agrees in all columns but the method, its code and those
    that it has no value of, and in whatever of data, network and training the whole group has in common.
    """
    digits = {name: digits_of(row[name] for row in rows) for name in by}
    members: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        members.setdefault(tuple(row[name] for name in by), []).append(row)
    groups = []
    for key in sorted(members, key=key_order):
        values = dict(zip(by, key, strict=True))
        own = members[key]
        asked = {name: value for name, value in values.items() if name not in ("method", "code.method")}
        if baseline:
            asked |= {name: value for name, value in training(own[0]).items() if len({row[name] for row in own}) == 1}
        same = [
            row
            for row in baseline
            if all(row[name] is None or row[name] == value for name, value in asked.items() if name in values)
            and not unlike(asked, row)
            and of_like_code(row, own[0])
        ]
        groups.append(Group(values, own, same, digits))
    shared = Counter(group.label() for group in groups)
    return [replace(group, in_full=True) if shared[group.label()] > 1 else group for group in groups]


def swept_settings(sweep: Sweep, strength: str) -> list[str]:
    """The columns that tell the settings of the finished trials apart that have a strength above zero."""
    rows = [row for row in sweep.rows if row["status"] != "failed" and row["method"] != "baseline"]
    return differing([row for row in rows if row[strength] is not None and row[strength] > 0], strength)


def check_columns(flag: str, names: Collection[str], trials: pa.Table, *strengths: str) -> None:
    """Raises `InputError` for names that are no columns of the trials table, or the strength itself."""
    for name in names:
        if name not in trials.column_names:
            raise InputError(f"{flag} {name}: no such column; there are {', '.join(trials.column_names)}")
        if name in strengths:
            raise InputError(f"{flag} {name}: is the strength itself; choose another column")


def check_pure(groups: Sequence[Group], by: Collection[str], *strengths: str) -> None:
    """Raises `InputError` if a group mixes what belongs to no one setting: data, networks or trainings, or the code
    that trained it. Its numbers would be those of none of them."""
    for group in groups:
        first = training(group.trials[0])
        for name in (*first, "code.method"):
            if name in strengths:
                continue
            values = {row.get(name) for row in group.trials}
            if name == "code.method":
                values = max(({row.get(name) for row in part} for part in _by_method(group.trials)), key=len)
            if name != "pretrained":
                values.discard(None)  # of records from before there was the column
            if len(values) > 1:
                some = ", ".join(sorted("none" if value is None else _brief(value) for value in values)[:4])
                what = "codes" if name.startswith("code.") else f"values of {name}"
                pool = "--pool-code takes them for one" if name.startswith("code.") else "leave --by out"
                raise InputError(
                    f"--by {' '.join(by) or '(nothing)'}: {group.label()} mixes {len(values)} {what} ({some}), "
                    f"whose numbers do not belong together; add {name} to --by, or {pool}"
                )


def pooled(groups: Sequence[Group], strength: str) -> list[str]:
    """What has to be said of groups that, as asked for, take several settings of a method for one."""
    names = dict.fromkeys(name for group in groups for name in differing(group.trials, strength))
    if not names:
        return []
    return [f"as asked for, each curve is over trials that differ in {', '.join(map(short, names))}"]


def _by_method(rows: Sequence[Row]) -> list[list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return list(found.values())


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def strengths_of(trials: pa.Table) -> list[str]:
    """The columns that can be a strength: numbers among the hyperparameters."""
    own = [name for name in trials.column_names if name.startswith("method.")]
    return [
        name
        for name in (*HYPERPARAMETERS, *CONVERTED_STRENGTHS, "learning_rate", *own)
        if pa.types.is_floating(trials[name].type) or pa.types.is_integer(trials[name].type)
    ]


def check_strength(name: str, trials: pa.Table) -> None:
    """Raises `InputError` if this is no column that can be a strength."""
    if name not in strengths_of(trials):
        raise InputError(f"--strength {name}: no such strength; there are {', '.join(strengths_of(trials))}")


# --- quantities -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantity:
    """A metric's column of the trials table, or a measurement of the record at its last epoch."""

    metric: str
    component: str = ""
    level: float | None = None
    unit: str = ""
    direction: str = "none"
    measured: bool = False
    """From the measurements; else a column of the trials table."""
    at: float | None = None
    """The level it was measured at where the record has one only, so that `level` says nothing."""
    epoch: int | None = None
    """The epoch it was measured at; None: the last one after training."""
    options: Options | None = None
    """What it was measured with, where the record has several kinds of it, which are different quantities."""
    with_options: str = ""
    """What tells `options` from those of the others, in words."""

    @property
    def name(self) -> str:
        """As it is written on a command line; levels and options that do not tell quantities apart are left out."""
        return f"{self.stem}{f':{self.with_options}' if self.with_options else ''}"

    @property
    def stem(self) -> str:
        """Its name without the options."""
        level = "" if self.level is None else f"@{self.level:g}"
        return f"{self.metric}{f':{self.component}' if self.component else ''}{level}"


class Value(NamedTuple):
    """A number of one trial, with its deviation over `n` images (or slices …) where the record has them."""

    value: float
    std: float | None = None
    n: int | None = None


def quantities(sweep: Sweep) -> dict[str, Quantity]:
    """Every quantity the sweep has a value of, by its name: the trials table's metrics, then the measurements.

    Measurements at initialisation (epoch 0) and values of single images are none.
    """
    if quantities in sweep.computed:
        return dict(sweep.computed[quantities])
    found: dict[str, Quantity] = {}
    for field in sweep.trials.schema:
        way = direction(field)
        if way in ("max", "min") and sweep.trials[field.name].null_count < len(sweep.trials):
            for quantity in by_options(sweep, Quantity(field.name, unit=unit(field), direction=way)):
                found[quantity.name] = quantity
    for quantity in _levels(sweep):
        if quantity.metric not in sweep.trials.column_names or quantity.stem not in {it.stem for it in found.values()}:
            found[quantity.name] = quantity
    sweep.computed[quantities] = found
    return dict(found)


def by_options(sweep: Sweep, quantity: Quantity) -> list[Quantity]:
    """The quantity for each kind of options that trials were measured with: several, where the numbers do not belong
    together; itself, where there is one kind."""
    texts = pc.unique(sweep.trials["measured"]).to_pylist()
    kinds = {_options(text, quantity) for text in texts}
    if len(kinds) > 1 or kinds == {UNKNOWN}:
        kinds = {options for options, _ in _with_options(sweep, quantity).values()}
    if len(kinds) < 2:
        return [quantity]
    words = told_apart(kinds)
    return [replace(quantity, options=kind, with_options=words[kind]) for kind in sorted(kinds, key=words.__getitem__)]


def _measured(sweep: Sweep, epoch: int | None = None) -> pa.Table:
    """The measurements of this epoch, or those after training, without those of single images."""
    table = sweep.averages
    when = pc.greater(table["epoch"], 0) if epoch is None else pc.equal(table["epoch"], epoch)
    return table.filter(pc.and_(when, pc.is_valid(table["value"])))


def _levels(sweep: Sweep) -> list[Quantity]:
    keys = ["metric", "component", "level", "unit", "direction"]
    rows = _measured(sweep).group_by(keys).aggregate([]).to_pylist()
    by_metric: dict[tuple[str, str], set[float | None]] = {}
    for row in rows:
        by_metric.setdefault((row["metric"], row["component"] or ""), set()).add(row["level"])
    found = []
    for row in sorted(rows, key=lambda row: key_order([row[name] for name in keys[:3]])):
        component = row["component"] or ""
        # one level only: how it was measured, not what
        level = row["level"] if len(by_metric[row["metric"], component]) > 1 else None
        way = row["direction"] or "none"
        quantity = Quantity(row["metric"], component, level, row["unit"] or "", way, True, row["level"])
        found += by_options(sweep, quantity)
    return found


def find_quantity(flag: str, name: str, sweep: Sweep) -> Quantity:
    """The quantity of this name. Raises `InputError` that lists what there is."""
    known = quantities(sweep)
    if name in known:
        return known[name]
    if name in VALIDATION and any(_column_values(sweep, name)):
        field = TABLES["epochs"].field(VALIDATION[name])
        return Quantity(name, unit=unit(field), direction=direction(field) or "none")
    # the one level that there is may be said, too
    for quantity in known.values():
        if quantity.at is not None and quantity.level is None and f"{quantity.stem}@{quantity.at:g}" == name:
            return quantity
    kinds = [quantity.name for quantity in known.values() if quantity.stem == name]
    if kinds:
        raise InputError(
            f"{flag} {name}: trials were measured with different options, whose numbers do not belong together; there "
            f"are {', '.join(kinds)}"
        )
    way = direction(sweep.trials.schema.field(name)) if name in sweep.trials.column_names else None
    listed = ", ".join(known) or "none in this record"
    if way == "none":
        raise InputError(f"{flag} {name}: neither more nor less of it is better; there are {listed}")
    if way is not None:
        raise InputError(f"{flag} {name}: no trial of {sweep.path} has a value of it; there are {listed}")
    raise InputError(f"{flag} {name}: no such metric; there are {listed}")


def values_of(sweep: Sweep, quantity: Quantity) -> dict[str, Value]:
    """The quantity by trial, at the last epoch it was measured at; trials without it, those that were measured with
    other options than the quantity's, and failed ones, are left out."""
    return {
        trial: value
        for trial, (options, value) in _with_options(sweep, quantity).items()
        if quantity.options is None or options == quantity.options
    }


def _with_options(sweep: Sweep, quantity: Quantity) -> dict[str, tuple[Options, Value]]:
    """Each trial's value whatever it was measured with, and with what."""
    # the numbers of one quantity, whatever it was measured with
    key = _with_options, replace(quantity, options=None, with_options="")
    if key not in sweep.computed:
        measured = {row["trial_id"]: row["measured"] for row in sweep.rows if row["status"] != "failed"}
        values = _last_values(sweep, quantity) if quantity.measured else _column_values(sweep, quantity.metric)
        sweep.computed[key] = {
            trial: (_options(measured[trial], quantity, value.n), value) for trial, value in values if trial in measured
        }
    found: dict[str, tuple[Options, Value]] = sweep.computed[key]
    return found


def _column_values(sweep: Sweep, name: str) -> Iterator[tuple[str, Value]]:
    if name in VALIDATION:
        column = VALIDATION[name]
        epochs = sweep.read("epochs", ["trial_id", "epoch", column])
        last = {row["trial_id"]: row[column] for row in epochs.sort_by("epoch").to_pylist()}
        yield from ((trial, Value(value)) for trial, value in last.items() if value is not None)
        return
    for row in sweep.rows:
        if row[name] is not None:
            yield row["trial_id"], Value(row[name])


def _last_values(sweep: Sweep, quantity: Quantity) -> Iterator[tuple[str, Value]]:
    """Of each trial the last row of the last epoch, in the order of the trials."""
    table = _measured(sweep, quantity.epoch)
    mask = pc.and_(
        pc.equal(table["metric"], quantity.metric), pc.equal(pc.fill_null(table["component"], ""), quantity.component)
    )
    if quantity.level is not None:
        mask = pc.and_(mask, pc.equal(table["level"], quantity.level))
    table = table.filter(mask)
    trials, of = numbered_trials(table)
    order = np.lexsort((np.arange(len(of)), table["epoch"].to_numpy(), of))
    last = order[np.append(of[order][1:] != of[order][:-1], True)] if len(order) else order
    columns = table.take(last)
    for trial, *values in zip(trials, *(columns[name].to_pylist() for name in ("value", "std", "n")), strict=True):
        yield trial, Value(*values)


def numbered_trials(table: pa.Table) -> tuple[list[str], NDArray[np.int64]]:
    """The trials of a table in the order of their first rows, and which of them each row is of."""
    encoded = table["trial_id"].combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _options(measured: str | None, quantity: Quantity, n: int | None = None) -> Options:
    found = options_of(measured, VALIDATION.get(quantity.metric, quantity.metric), quantity.component, n)
    return UNKNOWN if found is None else found


def check_finished(sweep: Sweep) -> None:
    """Raises `InputError` if every trial of the record has failed."""
    rows = sweep.trials.select(["status", "error"]).to_pylist()
    if all(row["status"] == "failed" for row in rows):
        first = rows[0]["error"] or "no reason recorded"
        raise InputError(
            f"{sweep.path}: all {count(len(rows), 'trial')} failed (the first: {first}); mend the cause and run the "
            "sweep again with --retry-failed"
        )


LARGEST = 1e150
"""Of numbers that are computed with: their squares are finite, too."""


def check_rows(rows: Sequence[Row], strength: str | None = None) -> None:
    """Raises `InputError` naming a trial without a seed, with a setting that is no finite number, or with a strength
    that is negative or cannot be drawn on a log axis."""
    numbers = [
        name
        for name in (*GROUPING, *beyond_columns(rows), *([strength] if strength else []))
        if any(isinstance(value, int | float) and not abs(value) <= LARGEST for value in {row[name] for row in rows})
    ]
    strengths = {row[strength] for row in rows} - {None} if strength is not None else set()
    if (
        not numbers
        and all(row["seed"] is not None for row in rows)
        and all(x == 0 or x >= 1 / LARGEST for x in strengths)
    ):
        return
    for row in rows:
        if row["seed"] is None:
            raise InputError(f"trial {row['trial_id']}: seed is missing; statistics over seeds need one")
        for name in numbers:
            value = row[name]
            if value is not None and not abs(value) <= LARGEST:
                raise InputError(f"trial {row['trial_id']}: {name} is {value}; allowed are numbers up to {LARGEST:g}")
        if strength is not None and row[strength] is not None:
            value = row[strength]
            if value < 0 or 0 < value < 1 / LARGEST:
                raise InputError(
                    f"trial {row['trial_id']}: {strength} is {value}; allowed are 0 and numbers from {1 / LARGEST:g} "
                    f"to {LARGEST:g}"
                )


def finite(values: Mapping[str, Value]) -> dict[str, Value]:
    """Those whose number is finite and can be computed with: at most `LARGEST`."""
    return {trial: value for trial, value in values.items() if abs(value.value) <= LARGEST}


def out_folder(out: str | None, sweep: Sweep) -> str:
    """Where a command writes. Raises `InputError` for what is no place."""
    if out is None:
        return f"{sweep.path}/analysis"
    try:
        return location(out)
    except InputError as error:
        raise InputError(f"--out {error}") from None


def numbered(trials: Sequence[Row]) -> list[int]:
    """The number of each trial's repetition among all of them, in their order."""
    every = sorted({replicate(row) for row in trials})
    return [every.index(replicate(row)) for row in trials]
