"""The settings of a sweep, each against its reference: which trials those are, and what the tests say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analysis import comparison_table
from analysis.command_line import InputError
from analysis.formats import Table
from analysis.groups import (
    GROUPING,
    Group,
    Quantity,
    Row,
    beyond_columns,
    check_columns,
    check_finished,
    check_pure,
    check_rows,
    count,
    differing,
    find_quantity,
    finite,
    grouped,
    key_order,
    of_like_code,
    of_the_method,
    replicate,
    short,
    telling,
    training,
    unlike,
    values_of,
)
from analysis.multiplicity import Adjustment, adjust
from analysis.records import Sweep
from analysis.schema import HYPERPARAMETERS
from analysis.tabular import Place, Tabular, opened, several
from analysis.two_samples import SIGNIFICANCE, Alternative, Comparison, compare, seeds_needed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Tested:
    """A setting, what it was compared with, and what came out."""

    group: Group
    reference: Sequence[Row]
    """Its trials, those without a value among them."""
    comparison: Comparison
    reason: str
    """Why it is not testable; empty: it is."""
    left_out: int
    """Seeds with a value that have no partner in the reference, in a paired test."""
    p_adjusted: float = math.nan
    seeds_needed: int | None = None
    """As the comparison's, with .05 shared among the tests of the table; None: not testable, or no difference seen."""

    @property
    def label(self) -> str:
        given = {name: value for name, value in self.group.values.items() if value is not None}
        return self.group.label() if given else self.group.trials[0]["method"]


@dataclass(frozen=True, repr=False)
class Comparisons(Tabular[Tested]):
    """The settings of a sweep against their reference: a sequence of them."""

    quantity: Quantity
    reference: str
    """What they are compared with: "baseline" (the unregularised trials), or column=value."""
    conditions: Mapping[str, Any]
    by: Sequence[str]
    alternative: Alternative
    adjustment: Adjustment
    tested: list[Tested]
    infinite: int
    """Trials left out, as their value is not finite."""
    columns: pa.Schema
    """Of the trials, those that tell settings apart among them."""

    @property
    def _items(self) -> list[Tested]:
        return self.tested

    @property
    def said(self) -> str:
        """The conditions as they are typed: "alpha=1 variant=curvature"."""
        return _said(self.conditions)

    def shown(self) -> Table:
        return comparison_table.printed(self, self.tested)

    def to_arrow(self) -> pa.Table:
        return comparison_table.table(self, self.columns)

    def figure(self) -> Figure:
        return comparison_table.forest(self)


def comparisons(
    sweep: Sweep | Place,
    *,
    metric: str = "top1",
    baseline: Sequence[str] | str | None = None,
    by: Sequence[str] | str | None = None,
    alternative: Alternative = "two-sided",
    adjustment: Adjustment = "holm",
    robust: bool = True,
) -> Comparisons:
    """Each setting of a sweep (its record, folder or s3:// address) against its reference: the unregularised trials, or
    those that `baseline` names as column=value, that agree with it in data set, model and training. A setting is a
    combination of values of the columns `by` (a name or several; default: all that differ). `robust`: as `compare` has
    it.

    Trials with a value that is not finite are left out and counted. Raises `InputError` for unknown columns and
    metrics, groups that mix data sets, networks or seeds, and a record in which no setting has a reference.
    """
    sweep = opened(sweep)
    by = None if by is None else several(by)
    every = sweep.rows
    check_columns("--by", by or (), sweep.settings)
    conditions = (
        _conditions([baseline] if isinstance(baseline, str) else baseline, sweep.settings)
        if baseline is not None
        else {}
    )
    check_finished(sweep)
    quantity = find_quantity("--metric", metric, sweep)
    measured = values_of(sweep, quantity)
    values = {trial: found.value for trial, found in finite(measured).items()}
    check_rows(every)
    groups, references, by = _settings(every, conditions, by)
    if not references and conditions:
        known = "; ".join(f"{name} {_values(name, sweep.settings)}" for name in conditions)
        raise InputError(f"--baseline {_said(conditions)}: no trial has that; there are {known}")
    if not references:
        raise InputError(
            f"{sweep.path}: no unregularised trial (method baseline) to compare with; "
            'run the baseline, too, or name a setting with --baseline, like --baseline "alpha=1"'
        )
    what = _said(conditions) if conditions else "baseline"
    if not groups:
        raise InputError(f"{sweep.path}: no trial but those of the reference ({what}); nothing to compare with it")
    tested = [
        _test(group, *_reference(group, references, conditions), values, alternative, robust=robust) for group in groups
    ]
    if not any(row.reference for row in tested):
        raise InputError(f"{sweep.path}: no setting has a reference; {tested[0].label}: {tested[0].reason}")
    infinite = len(measured) - len(values)
    adjusted = _adjusted(tested, adjustment)
    schema = sweep.settings.schema
    return Comparisons(quantity, what, conditions, by, alternative, adjustment, adjusted, infinite, schema)


def baseline_of(group: Group, baseline: Sequence[Row]) -> tuple[list[Row], str]:
    """Those of the unregularised trials that agree with a setting in data set, model and training; or none, and why.

    Raises `InputError` if two of its trials, or of theirs, have one seed.
    """
    _check_seeds(group.trials, group.label(), "add {} to --by")
    return _reference(group, baseline, {}) if baseline else ([], "no unregularised trial")


def against(group: Group, reference: Sequence[Row], values: Mapping[str, float], reason: str = "") -> Tested:
    """One setting against a reference, by each trial's value: two-sided, paired where they share seeds, its p not
    adjusted for other tests, and of the t-test alone. `reason`: why it has no reference."""
    return _test(group, reference, reason, values, "two-sided", robust=False)


def _conditions(words: Sequence[str], trials: pa.Table) -> dict[str, Any]:
    """`--baseline` as values by column. Raises `InputError` for what is malformed, and for values of the wrong type."""
    found: dict[str, Any] = {}
    for word in " ".join(words).replace(",", " ").split():
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise InputError(f"--baseline {word}: allowed are column=value, like alpha=1, with spaces between them")
        check_columns("--baseline", [name], trials)
        if name in found:
            raise InputError(f"--baseline {word}: {name} is given twice; give it once")
        kind = trials[name].type
        value: Any = text
        try:
            if text == "none":
                value = None
            elif pa.types.is_floating(kind):
                value = _as_recorded(float(text), trials[name].to_pylist())
            elif pa.types.is_integer(kind):
                value = int(text)
            elif pa.types.is_boolean(kind):
                value = {"true": True, "false": False}.get(text.lower(), text)
        except ValueError:
            raise InputError(f"--baseline {word}: {name} is a number; there are {_values(name, trials)}") from None
        found[name] = value
    if not found:
        raise InputError("--baseline: empty; allowed are column=value, like alpha=1, with spaces between them")
    return found


def _values(name: str, trials: pa.Table) -> str:
    values = sorted(set(trials[name].to_pylist()), key=lambda value: (value is not None, value))
    shown = ["none" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def _as_recorded(value: float, recorded: Sequence[float | None]) -> float:
    """The one value of the column that prints as this one does, in a setting's label; else the value itself."""
    alike = {other for other in recorded if other is not None and f"{other:.4g}" == f"{value:.4g}"}
    return alike.pop() if len(alike) == 1 else value


def _is(row: Row, conditions: Mapping[str, Any]) -> bool:
    return all(row[name] == value for name, value in conditions.items())


def _said(conditions: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_brief(value)}" for name, value in conditions.items())


def _settings(
    every: Sequence[Row], conditions: Mapping[str, Any], by: Sequence[str] | None
) -> tuple[list[Group], list[Row], Sequence[str]]:
    """The settings to compare, the trials that may be their reference, and the columns that tell the settings apart."""
    if conditions:
        references = [row for row in every if _is(row, conditions)]
        others = [row for row in every if not _is(row, conditions)]
    else:
        references = [row for row in every if row["method"] == "baseline"]
        others = [row for row in every if row["method"] != "baseline"]
    if by is None:
        by = telling(others)
    groups = grouped(others, by)
    check_pure(groups, by)
    for group in groups:
        _check_seeds(group.trials, group.label(), "add {} to --by")
    return groups, references, by


def _check_seeds(rows: Sequence[Row], where: str, advice: str) -> None:
    """Raises `InputError` if two of the rows have one seed (and fold): they are of different settings."""
    first: dict[tuple[int, ...], Row] = {}
    for row in rows:
        other = first.setdefault(replicate(row), row)
        if other is row:
            continue
        which = f"seed {row['seed']}" + ("" if row["fold"] is None else f" and fold {row['fold']}")
        start = f"{where}: trials {other['trial_id']} and {row['trial_id']} both have {which} and differ in "
        columns = differing([row, other])
        if columns:
            raise InputError(f"{start}{', '.join(columns)}; {advice.format(columns[0])}")
        raise InputError(f"{start}what no column of the trials table says; keep them in sweeps of their own")


def _reference(group: Group, references: Sequence[Row], conditions: Mapping[str, Any]) -> tuple[list[Row], str]:
    """Those of `references` that agree with the setting in training; or why there are none.

    Raises `InputError` if they are of several settings.
    """
    asked = {
        name: value
        for name, value in training(group.trials[0]).items()
        if name not in conditions or name == "dataset"  # numbers on other data are never comparable
    }
    if not conditions:
        # a value that the unregularised trials have, too, as the weight decay
        asked |= {name: value for name, value in group.values.items() if of_the_method(name) and name != "code.method"}
    kinds = [*map(itemgetter(*asked), references)]  # most are alike
    unlikeness = {kind: unlike(asked, row) for kind, row in dict(zip(kinds, references, strict=True)).items()}
    apart = [unlikeness[kind] for kind in kinds]
    found = [row for row, names in zip(references, apart, strict=True) if not names]
    if not conditions:
        found = [row for row in found if of_like_code(row, group.trials[0])]
    what = f"--baseline {_said(conditions)}" if conditions else "the unregularised trials"
    if not found:
        # what only the configuration says is less apart than what a column does
        nearest = min(range(len(apart)), key=lambda index: (len({*apart[index]} & {*GROUPING}), len(apart[index])))
        theirs = references[nearest]
        least = ", ".join(
            f"{short(name)} {_brief(asked[name])} (but {_brief(theirs[name])})" for name in apart[nearest][:3]
        )
        return [], f"no trial of the reference has {least}"
    own = ["method", *HYPERPARAMETERS, *(name for name in beyond_columns(found) if of_the_method(name))]
    several = [name for name in own if len({row[name] for row in found}) > 1]
    if conditions and several:
        known = ", ".join(map(_brief, sorted({row[several[0]] for row in found}, key=lambda it: key_order([it]))))
        raise InputError(
            f"{what}: matches several settings, that differ in {', '.join(several)}; "
            f"add {several[0]}= with one of {known}"
        )
    chosen = "method=baseline " if not conditions else ""
    _check_seeds(found, f"{what}, for {group.label()}", f'choose one setting with --baseline "{chosen}{{}}=…"')
    return found, ""


def _brief(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _test(
    group: Group,
    reference: Sequence[Row],
    reason: str,
    values: Mapping[str, float],
    alternative: Alternative,
    *,
    robust: bool = True,
) -> Tested:
    """The setting against its reference, paired where they share seeds; `reason`: why it has no reference."""
    own = {replicate(row): values[row["trial_id"]] for row in group.trials if row["trial_id"] in values}
    theirs = {replicate(row): values[row["trial_id"]] for row in reference if row["trial_id"] in values}
    shared = sorted(own.keys() & theirs.keys())
    # one pair alone tests nothing, where two arms may
    paired = len(shared) > 1 or (len(shared) == 1 and 1 in (len(own), len(theirs)))
    runs, runs_reference = (shared, shared) if paired else (sorted(own), sorted(theirs))
    found = compare(
        [own[run] for run in runs],
        [theirs[run] for run in runs_reference],
        paired=paired,
        alternative=alternative,
        rng=0,  # equal records give equal intervals
        robust=robust,
    )
    if not own:
        failed = all(row["status"] == "failed" for row in group.trials)
        reason = f"{count(len(group.trials), 'trial')} {'failed' if failed else 'without a value'}"
    elif not reason and not theirs:
        reason = "no trial of the reference has a value"
    elif not reason and paired and len(shared) == 1:
        if len(own) > 1:
            reason = "one seed in the reference"
        elif len(group.trials) > 1:
            reason = f"one seed of {len(group.trials)} with a value"
    return Tested(group, reference, found, reason or found.reason, len(own) - len(shared) if paired else 0)


def _adjusted(tested: Sequence[Tested], method: Adjustment) -> list[Tested]:
    """With p-values adjusted for the tests of the table, and the seeds that .05 shared among them needs."""
    p_values = adjust([math.nan if row.reason else row.comparison.p_value for row in tested], method)
    tests = sum(not row.reason for row in tested)
    rows = []
    for row, p_value in zip(tested, p_values, strict=True):
        found, needed = row.comparison, None
        if not row.reason and found.seeds_needed is not None:
            paired = found.test == "paired t"
            sd = found.difference / found.effect_size if paired else found.sd
            sd_reference = None if paired else found.sd_reference
            needed = seeds_needed(found.difference, sd, sd_reference, level=SIGNIFICANCE / tests)
        rows.append(dataclasses.replace(row, p_adjusted=float(p_value), seeds_needed=needed))
    return rows
