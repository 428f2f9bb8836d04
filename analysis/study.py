"""A record as a study of Optuna: a trial for each setting, whose value is the mean over its seeds.

    study = study_of("results/pilcro", metrics="top1")
    study.best_trial.params, study.best_trial.user_attrs["standard_error"]
    optuna.importance.get_param_importances(study)

Seeds (and folds) are replicates of a setting and no trials of their own: Optuna's samplers and importances take trials
for draws of the hyperparameters. The parameters are the columns of the record in which the settings differ, by their
names there; a trial has those that apply to it, so that what one variant alone has is conditional.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analysis.command_line import InputError
from analysis.groups import (
    Group,
    Quantity,
    Row,
    beyond_columns,
    check_columns,
    check_finished,
    check_rows,
    count,
    differing,
    find_quantity,
    finite,
    grouped,
    label,
    quantities,
    values_of,
)
from analysis.lazily import lazily
from analysis.objectives import with_direction
from analysis.records import Sweep
from analysis.schema import TABLES, VALIDATION, direction, unit
from analysis.tabular import Place, opened

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

optuna = lazily("optuna")
distributions = lazily("optuna.distributions")

# what is asked of a network, whatever the hyperparameters: numbers of different tasks do not belong together
TASK = ("dataset", "labels", "deformation_strength")

_DECADE = 10.0
# what a null of these columns stands for
_NULLS = {"pretrained": False}


@dataclass(frozen=True)
class Configuration:
    """A setting with what its seeds came to."""

    group: Group
    params: Mapping[str, Any]
    """The columns that it has a value of."""
    scores: Sequence[Mapping[str, float]]
    """Of each metric, the finite values by trial; those of diverged trials are what was measured."""

    def of(self, metric: int, params: Collection[str]) -> Configuration:
        """The same of one of the metrics alone, and of these of its parameters."""
        kept = {name: value for name, value in self.params.items() if name in params}
        return replace(self, params=kept, scores=[self.scores[metric]])

    @property
    def words(self) -> str:
        """The setting by what tells it from the others."""
        return label(self.params) if self.params else str(self.group.trials[0]["method"])

    @property
    def is_complete(self) -> bool:
        """Whether every metric has a value."""
        return all(self.scores)

    @property
    def means(self) -> list[float]:
        return [statistics.fmean(scores.values()) if scores else math.nan for scores in self.scores]

    @property
    def ns(self) -> list[int]:
        return [len(scores) for scores in self.scores]

    @property
    def standard_errors(self) -> list[float]:
        """Standard deviation over seeds (n − 1) by √n; nan for fewer than two."""
        return [
            statistics.stdev(scores.values()) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
            for scores in self.scores
        ]

    def with_status(self, status: str) -> int:
        """How many of its trials ended so."""
        return sum(row["status"] == status for row in self.group.trials)


def searched(sweep: Sweep, metrics: Sequence[str] | str) -> list[Quantity]:
    """The metrics as objectives, each NAME, or NAME:max or NAME:min where the schema does not say which is better.
    Raises `InputError` for an unknown one, and one without a better direction."""
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    found = [_directed(sweep, *with_direction(name)) for name in dict.fromkeys(names)]
    if not found:
        raise InputError(f"--metric: none given; there are {', '.join(quantities(sweep))}")
    for quantity in found:
        if quantity.direction == "none":
            judged = [name for name, way in quantities(sweep).items() if way.direction != "none"]
            raise InputError(
                f"--metric {quantity.name}: neither more nor less of it is better; there are {', '.join(judged)}"
            )
    return found


def _directed(sweep: Sweep, name: str, way: str) -> Quantity:
    field = sweep.trials.schema.field(name) if name in sweep.trials.column_names else None
    if way and field is not None and direction(field) == "none" and sweep.trials[name].null_count < len(sweep.trials):
        return Quantity(name, unit=unit(field), direction=way)
    quantity = find_quantity("--metric", name, sweep)
    if way and quantity.direction not in ("none", way):
        raise InputError(f"--metric {name}:{way}: allowed is {name}:{quantity.direction}")
    return replace(quantity, direction=way) if way else quantity


def written(sweep: Sweep, quantity: Quantity) -> str:
    """As `searched` takes it, with its direction where the record does not say it."""
    known = quantities(sweep).get(quantity.name)
    said = quantity.name in VALIDATION or (known is not None and known.direction == quantity.direction)
    return quantity.name if said else f"{quantity.name}:{quantity.direction}"


def tasks(sweep: Sweep) -> list[dict[str, Any]]:
    """What the record's trials were asked to do, as `where` of the other functions: data sets, and what they ask."""
    rows = sweep.rows
    names = _task_columns(rows)
    return list({tuple(row[name] for name in names): {name: row[name] for name in names} for row in rows}.values())


def _task_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that tell tasks apart. An unregularised trial has no value of what a method alone has."""
    asked = [*TASK, *(name for name in beyond_columns(rows) if name.startswith("data."))]
    return [name for name in asked if len({row[name] for row in rows} - {None}) > 1]


def configurations(
    sweep: Sweep | Place, *, metrics: Sequence[str] | str = "top1", where: Mapping[str, Any] | None = None
) -> list[Configuration]:
    """The settings of a sweep (its record, folder or s3:// address) with what was measured of them, in the order in
    which they ended; of trials with these values of columns only (`where`).

    Raises `InputError` for unknown columns and metrics, a record in which every trial failed, and trials of several
    data sets or tasks.
    """
    sweep = opened(sweep)
    where = where or {}
    check_columns("where", where, sweep.settings)
    check_finished(sweep)
    found = searched(sweep, metrics)
    rows = [row for row in sweep.rows if all(row[name] == value for name, value in where.items())]
    if not rows:
        raise InputError(f"{sweep.path}: no trial with {', '.join(f'{name}={value}' for name, value in where.items())}")
    check_rows([row for row in rows if row["status"] != "failed"])
    mixed = _task_columns(rows)
    if mixed:
        values = sorted({str(row[mixed[0]]) for row in rows})
        raise InputError(
            f"{sweep.path}: trials of {len(values)} values of {mixed[0]} ({', '.join(values)}), whose numbers do not "
            f"belong together; choose one, with where={{{mixed[0]!r}: …}}"
        )
    values_by = [
        {trial: value.value for trial, value in finite(values_of(sweep, quantity)).items()} for quantity in found
    ]
    columns = differing(rows)
    # one value, and none where it does not apply, is no choice
    params = [name for name in columns if len({_value(row, name) for row in rows} - {None}) > 1]
    made = []
    for group in grouped(rows, columns):
        known = {name: _value(group.trials[0], name) for name in params}
        ids = [row["trial_id"] for row in group.trials]
        scores = [{trial: values[trial] for trial in ids if trial in values} for values in values_by]
        made.append(Configuration(group, {name: it for name, it in known.items() if it is not None}, scores))
    return sorted(made, key=lambda one: (_ended(one), one.words))


def choices(every: Sequence[Configuration]) -> list[str]:
    """The parameters of which these settings have several values."""
    values: dict[str, set[Any]] = {}
    for one in every:
        for name, value in one.params.items():
            values.setdefault(name, set()).add(value)
    return [name for name, those in values.items() if len(those) > 1]


def _value(row: Row, name: str) -> Any:
    return _NULLS.get(name) if row[name] is None else row[name]


def _ended(one: Configuration) -> datetime:
    return max((row["finished_at"] for row in one.group.trials if row["finished_at"] is not None), default=_NEVER)


_NEVER = datetime.fromtimestamp(0, UTC)


def study_of(
    sweep: Sweep | Place,
    *,
    metrics: Sequence[str] | str = "top1",
    where: Mapping[str, Any] | None = None,
    space: Mapping[str, BaseDistribution] | None = None,
) -> Study:
    """The settings of a sweep (its record, folder or s3:// address) as a study of Optuna in memory, with a trial for
    each in the order in which they ended; of trials with these values of columns only (`where`).

    The directions are the schema's. A trial's values are the means over its seeds of the `metrics`, those of diverged
    trials counted with what was measured; one of which no seed has a value of each is a trial that failed. User
    attributes: `standard_error` and `n` (numbers for one metric, lists in the order of `values` for several; None for
    a single seed), `setting` in words, `trial_ids`, `seeds`, how many trials `diverged` and `failed`, and `reason` of
    what failed. Attributes of the study: `sweep`, `record` (the hash of its content), `metrics`, `left_out`.

    A number's distribution is between the least and the greatest of the record, on a logarithmic scale where these are
    a factor of 10 apart and above 0; words and truths are categories. `space` has other distributions of parameters,
    as of a search that goes on from the record; settings outside of it are left out. Raises as `configurations` does.
    """
    sweep = opened(sweep)
    return as_study(sweep, configurations(sweep, metrics=metrics, where=where), searched(sweep, metrics), space=space)


def as_study(
    sweep: Sweep,
    every: Sequence[Configuration],
    found: Sequence[Quantity],
    *,
    space: Mapping[str, BaseDistribution] | None = None,
) -> Study:
    """These settings of a sweep as a study, `found` the metrics that their scores are of: see `study_of`."""
    known = {**_space(every, sweep.settings.schema), **(space or {})}
    inside = [_is_inside(one.params, known) for one in every]
    study = empty_study(sweep.name, found)
    study.set_user_attr("sweep", sweep.path)
    study.set_user_attr("record", sweep.content_hash)
    study.set_user_attr("metrics", [quantity.name for quantity in found])
    study.set_user_attr("left_out", [one.words for one, kept in zip(every, inside, strict=True) if not kept])
    kept = [one for one, kept in zip(every, inside, strict=True) if kept]
    study.add_trials([_trial(one, known, number) for number, one in enumerate(kept)])
    return study


def empty_study(name: str, found: Sequence[Quantity]) -> Study:
    """An empty study, without Optuna's line on standard error that says so."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        directions = ["minimize" if quantity.direction == "min" else "maximize" for quantity in found]
        study: Study = optuna.create_study(study_name=name, directions=directions)
    finally:
        optuna.logging.set_verbosity(level)
    return study


def _space(every: Sequence[Configuration], schema: pa.Schema) -> dict[str, BaseDistribution]:
    """The distribution of each parameter."""
    values: dict[str, set[Any]] = {}
    for one in every:
        for name, value in one.params.items():
            values.setdefault(name, set()).add(value)
    return {name: _distribution(those, _is_whole(name, schema)) for name, those in values.items()}


def _is_whole(name: str, schema: pa.Schema) -> bool:
    known = TABLES["trials"]
    return pa.types.is_integer((known if name in known.names else schema).field(name).type)


def _distribution(values: set[Any], whole: bool) -> BaseDistribution:
    if any(isinstance(value, bool | str) for value in values):
        categories: BaseDistribution = distributions.CategoricalDistribution(sorted(values))
        return categories
    low, high = min(values), max(values)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    number: BaseDistribution = kind(low, high, log=low > 0 and high / low >= _DECADE)
    return number


def _is_inside(params: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> bool:
    for name, value in params.items():
        try:
            if not space[name]._contains(space[name].to_internal_repr(value)):
                return False
        except ValueError:  # of another kind
            return False
    return True


def _trial(one: Configuration, space: Mapping[str, BaseDistribution], number: int) -> Any:
    rows = one.group.trials
    attributes: dict[str, Any] = {
        "setting": one.words,
        "trial_ids": [row["trial_id"] for row in rows],
        "seeds": sorted({row["seed"] for row in rows if row["seed"] is not None}),
        "diverged": one.with_status("diverged"),
        "failed": one.with_status("failed"),
    }
    errors = [None if math.isnan(error) else error for error in one.standard_errors]
    single = len(one.scores) == 1
    attributes["standard_error"] = errors[0] if single else errors
    attributes["n"] = one.ns[0] if single else one.ns
    if not one.is_complete:
        attributes["reason"] = _why_failed(one)
    started = min((row["started_at"] for row in rows if row["started_at"] is not None), default=_NEVER)
    state = optuna.trial.TrialState.COMPLETE if one.is_complete else optuna.trial.TrialState.FAIL
    return optuna.trial.FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=one.means if one.is_complete else None,
        # Optuna's times have no zone
        datetime_start=started.astimezone(UTC).replace(tzinfo=None),
        datetime_complete=max(started, _ended(one)).astimezone(UTC).replace(tzinfo=None),
        params=dict(one.params),
        distributions={name: space[name] for name in one.params},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values={},
    )


def _why_failed(one: Configuration) -> str:
    failed = one.with_status("failed")
    if failed == len(one.group.trials):
        errors = [row["error"] for row in one.group.trials if row["error"]]
        return f"{count(failed, 'trial')} failed: {errors[0] if errors else 'no reason recorded'}"
    return "no trial has a finite value of every metric"
