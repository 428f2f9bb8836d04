"""How the runs of each setting are distributed beside those of the baseline: performance profiles, and how probable it
is that a run is better than one of the baseline (Agarwal et al. 2021, as rliable has both: `score_distributions.py`).

    python -m analysis.profiles results/pilcro --by method variant

A setting's runs are its seeds. Where what is asked for with `--by` pools several settings, or several data sets and
networks, each of these is a task: of equal weight, with runs of its own, compared with the unregularised trials of the
same data, network and training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.against_reference import baseline_of
from analysis.bounds import SEED, Bound
from analysis.command_line import InputError, parse, run
from analysis.formats import Table, beside, print_tables
from analysis.groups import (
    Group,
    Quantity,
    check_columns,
    check_finished,
    check_rows,
    count,
    differing,
    find_quantity,
    finite,
    grouped,
    quantities,
    telling,
    values_of,
)
from analysis.records import Sweep
from analysis.results import SweepFlags, arrow, finish, how_read, read
from analysis.schema import Direction
from analysis.score_distributions import Probability, Profile, performance_profile, probability_of_improvement
from analysis.symbols import all_named
from analysis.tabular import Place, Tabular, opened, several

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Profiles", "Setting", "performance_profile", "probability_of_improvement", "profiles", "table"]

_MOST_STEPS = 400
FEW_RUNS = 5
"""Below so many, intervals are said to be too narrow."""


@dataclass(frozen=True)
class Setting:
    """A setting's runs by task, and those of the baseline on the tasks that have one."""

    group: Group
    scores: Sequence[NDArray[np.float64]]
    profile: Profile
    improvement: Probability | None
    """Over the tasks that have a baseline; None: none has (`reason`)."""
    compared: int
    """How many tasks have one."""
    n_reference: int
    reason: str = ""

    @property
    def n(self) -> int:
        return sum(map(len, self.scores))


@dataclass(frozen=True, repr=False)
class Profiles(Tabular[Setting]):
    """The settings of a sweep: a sequence of them."""

    quantity: Quantity
    by: list[str]
    settings: list[Setting]
    baseline: Profile | None
    n_baseline: int
    notes: list[str]
    columns: pa.Schema
    """Of the trials, those that tell settings apart among them."""

    @property
    def direction(self) -> Direction:
        return "min" if self.quantity.direction == "min" else "max"

    @property
    def _items(self) -> list[Setting]:
        return self.settings

    def shown(self) -> Table:
        return _printed(self)

    def to_arrow(self) -> pa.Table:
        return table(self, self.columns)

    def figure(self, *, narrow: bool = False) -> Figure:
        from analysis.figures import profile_figure

        return profile_figure(
            _curves(self),
            metric=self.quantity.metric,
            direction=self.direction,
            reference="the unregularised",
            narrow=narrow,
        )


def profiles(
    sweep: Sweep | Place, *, metric: str = "top1", by: Sequence[str] | str | None = None, seed: int = 0
) -> Profiles:
    """Performance profiles of a sweep (its record, folder or s3:// address) for each combination of values of the
    columns `by` (a name or several; default: all that differ), and the probability that a run is better than one of the
    unregularised trials. Diverged trials count with what was measured, failed ones and those without a finite value are
    left out and counted; equal `seed`s give equal intervals.

    Raises `InputError` for unknown columns and metrics, metrics without a better direction, and a record without
    regularised trials that have a value.
    """
    sweep = opened(sweep)
    by = None if by is None else several(by)
    check_columns("--by", by or (), sweep.settings)
    check_finished(sweep)
    quantity = find_quantity("--metric", metric, sweep)
    if quantity.direction == "none":
        judged = [name for name, way in quantities(sweep).items() if way.direction != "none"]
        raise InputError(f"--metric {metric}: neither more nor less of it is better; there are {', '.join(judged)}")
    every = sweep.rows
    rows = [row for row in every if row["status"] != "failed"]
    check_rows(rows)
    values = {trial: value.value for trial, value in finite(values_of(sweep, quantity)).items()}
    known = [row for row in rows if row["trial_id"] in values]
    swept = [row for row in known if row["method"] != "baseline"]
    plain = [row for row in known if row["method"] == "baseline"]
    if not swept:
        raise InputError(f"{sweep.path}: no regularised trial with a finite {metric}: choose another --metric")
    columns = by if by is not None else telling(swept)
    direction: Direction = "min" if quantity.direction == "min" else "max"
    ends = _ends([values[row["trial_id"]] for row in known])

    def scores_of(trials: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        return np.array([values[row["trial_id"]] for row in trials])

    found = []
    for group in grouped(swept, columns):
        # each setting that the group pools is a task
        tasks = grouped(group.trials, differing(group.trials))
        pairs = [(task, *baseline_of(task, plain)) for task in tasks]
        paired = [(scores_of(task.trials), scores_of(baseline)) for task, baseline, _ in pairs if baseline]
        scores = [scores_of(task.trials) for task in tasks]
        rng = np.random.default_rng(seed)
        found.append(
            Setting(
                group,
                scores,
                performance_profile(scores, _steps(scores, ends), direction=direction, rng=rng),
                probability_of_improvement(*map(list, zip(*paired, strict=True)), direction=direction, rng=rng)
                if paired
                else None,
                len(paired),
                len({row["trial_id"] for _, baseline, _ in pairs for row in baseline}),
                "" if paired else pairs[0][2],
            )
        )
    own = [scores_of(task.trials) for task in grouped(plain, differing(plain))] if plain else []
    rng = np.random.default_rng(seed)
    baseline = performance_profile(own, _steps(own, ends), direction=direction, rng=rng) if own else None
    notes = _notes(found, quantity, failed=len(every) - len(rows), without=len(rows) - len(known))
    return Profiles(quantity, columns, found, baseline, len(plain), notes, sweep.settings.schema)


def _ends(scores: Sequence[float]) -> tuple[float, float]:
    """A little below the least and above the greatest of all scores."""
    low, high = min(scores), max(scores)
    margin = 0.02 * (high - low) or 0.01
    return low - margin, high + margin


def _steps(scores: Sequence[NDArray[np.float64]], ends: tuple[float, float]) -> NDArray[np.float64]:
    """Where a profile has its steps, and the ends; of very many steps some."""
    steps = np.unique(np.concatenate(scores))
    if len(steps) > _MOST_STEPS:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, _MOST_STEPS).round().astype(int))]
    return np.concatenate([ends[:1], steps, ends[1:]])


def _notes(found: Sequence[Setting], quantity: Quantity, *, failed: int, without: int) -> list[str]:
    notes = [
        "P: that a run is better than one of the unregularised, ties counted half (Mann and Whitney's U by the number "
        f"of pairs; Agarwal et al. 2021); {'less' if quantity.direction == 'min' else 'more'} {quantity.name} is better"
    ]
    fewest = min(len(runs) for one in found for runs in one.scores)
    if fewest < FEW_RUNS:
        notes.append(
            f"intervals and bands are percentiles of stratified bootstraps, too narrow of {count(fewest, 'run')} of a "
            "setting: add --seeds"
        )
    if any(one.improvement is not None and one.improvement.low == one.improvement.high for one in found):
        notes.append(
            "an interval of no width says that in what was seen every run is on one side, and not that it is certain: "
            "analysis.comparisons has tests"
        )
    pooled = [one for one in found if len(one.scores) > 1]
    if pooled:
        notes.append(
            f"as asked for, {count(len(pooled), 'row')} of several settings, data sets or networks: each is a task of "
            "equal weight"
        )
    lacking = sum(len(one.scores) - one.compared for one in found if one.improvement is not None)
    if lacking:
        notes.append(f"{count(lacking, 'task')} without an unregularised trial of the same training: not in P")
    for n, what in ((failed, "failed: left out"), (without, f"without a finite {quantity.name}: left out")):
        if n:
            notes.append(f"{count(n, 'trial')} {what}")
    return notes


def _printed(result: Profiles) -> Table:
    rows = []
    names = all_named([one.group for one in result.settings])
    for one, name in zip(result.settings, names, strict=True):
        runs = f"{one.n}" if one.improvement is None else f"{one.n} v {one.n_reference}"
        scores = np.concatenate(one.scores)
        middle = float(np.median(scores))
        form = ".4f" if result.quantity.unit == "fraction" else ".4g"
        cells = [f"{middle:{form}}", f"[{scores.min():{form}}, {scores.max():{form}}]"]
        p = one.improvement
        told = f"{p.value:.3f} [{p.low:.3f}, {p.high:.3f}]" if p is not None else f"none: {one.reason}"
        rows.append((name or one.group.label(), runs, str(len(one.scores)), *cells, told))
    columns = ("setting", "runs", "tasks", f"median {result.quantity.name}", "range", "P(better) [95%]")
    return Table(columns, rows, wrap=(0, 5), data=result.to_arrow())


def table(result: Profiles, trials: pa.Schema) -> pa.Table:
    """The settings as rows: the columns grouped by, then numbers. `tau`, `share`, `share_low` and `share_high` are the
    profile, lists of equal length; `probability` is null without a baseline, for `reason`."""
    fields = [pa.field(name, trials.field(name).type) for name in result.by]
    fields += [pa.field(name, pa.string()) for name in ("metric", "direction", "reason")]
    fields += [pa.field(name, pa.int64()) for name in ("n", "n_reference", "tasks", "tasks_compared")]
    fields += [pa.field(name, pa.float64()) for name in ("probability", "low", "high")]
    fields += [pa.field(name, pa.list_(pa.float64())) for name in ("tau", "share", "share_low", "share_high")]
    rows = []
    blank = dict.fromkeys(("probability", "low", "high"))
    for one in result.settings:
        row: dict[str, Any] = {
            **blank,
            **one.group.values,
            "metric": result.quantity.name,
            "direction": result.direction,
        }
        row |= {"n": one.n, "n_reference": one.n_reference, "tasks": len(one.scores), "tasks_compared": one.compared}
        p = one.improvement
        if p is not None:
            row |= {"probability": p.value, "low": p.low, "high": p.high}
        own = one.profile
        row |= {"tau": own.tau.tolist(), "share": own.share.tolist(), "reason": one.reason or None}
        row |= {"share_low": own.low.tolist(), "share_high": own.high.tolist()}
        rows.append(row)
    return arrow(fields, rows)


def _curves(result: Profiles) -> list[Any]:
    """Of the baseline, and of the settings of the greatest probability of improvement; as many as can be told apart."""
    from analysis.figures import MOST_PROFILES, ProfileCurve

    def curve(label: str, own: Profile, n: int, *probability: float) -> ProfileCurve:
        return ProfileCurve(label, own.tau, own.share, own.low, own.high, n, *probability)

    drawn = []
    if result.baseline is not None:
        drawn.append(curve("unregularised", result.baseline, result.n_baseline))
    most = MOST_PROFILES - len(drawn)
    names = all_named([one.group for one in result.settings])
    order = sorted(range(len(result.settings)), key=lambda index: -_probability(result.settings[index]))[:most]
    for index in sorted(order):
        one = result.settings[index]
        p = one.improvement
        numbers = () if p is None else (p.value, p.low, p.high)
        drawn.append(curve(names[index] or one.group.label(), one.profile, one.n, *numbers))
    return drawn


def _probability(one: Setting) -> float:
    return -1.0 if one.improvement is None else one.improvement.value


@dataclass
class Flags(SweepFlags):
    """Performance profiles, and how probable it is that a run is better than an unregularised one."""

    metric: str = "top1"
    """What to judge by, more or less of it better: a column of the trials table, or metric:component@level."""
    seed: int = 0
    """Of the bootstraps."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {"seed": SEED}


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.profiles")
    sweep = read(flags.sweep, **how_read(flags), convention=flags.convention)
    result = profiles(sweep, metric=flags.metric, by=flags.by, seed=flags.seed)
    drawn = len(_curves(result)) - (result.baseline is not None)

    def say() -> None:
        print_tables([result.shown()], flags.format)
        with beside(flags.format):
            for note in result.notes:
                print(note)
            if drawn < len(result):
                print(f"the figure shows the {drawn} settings of the greatest P of {len(result)}")

    finish(
        sweep,
        flags.out,
        "profiles",
        tables={"": result.to_arrow()},
        figure=result.figure(),
        say=say,
        form=flags.format,
    )


if __name__ == "__main__":
    run(main)
