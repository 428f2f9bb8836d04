"""Correlation of what was measured with the strength of the regulariser, on the models that have not tipped over.

    python -m analysis.correlations results/gradient_reg --metrics faithfulness:gradient faithfulness:deeplift

Spearman's ρ with a permutation test whose p-value is never zero (Phipson and Smyth 2010), as the input-gradient
regularisation paper has it (Section 3.2), and Pearson's r between log₁₀ strength and the metric. Orders are changed
within seeds (and folds) where these are crossed with strengths, so that what seeds differ in is no noise. Where trials
of one strength have more in common than the trend, they do not tell of it independently: the unit is the strength then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.changes import short_name
from analysis.command_line import InputError, parse, run
from analysis.correlation_table import beyond, figure, images_of, notes_of, p_text, panels, printed, table, words
from analysis.formats import Table, beside, print_tables
from analysis.groups import (
    Group,
    Quantity,
    Row,
    Value,
    check_columns,
    check_finished,
    check_pure,
    check_rows,
    check_strength,
    count,
    find_quantity,
    finite,
    grouped,
    pooled,
    quantities,
    replicate,
    swept_settings,
    values_of,
)
from analysis.multiplicity import Adjustment, adjust
from analysis.rank_correlation import (
    MOST_PERMUTATIONS,
    Correlation,
    Floats,
    Linear,
    by_strength,
    crossed,
    pearson,
    permutations_for,
    rho_over_images,
    spearman_permutation,
    spearman_permutations,
)
from analysis.records import Sweep
from analysis.results import StrengthFlags, finish, how_read, read
from analysis.schema import HYPERPARAMETERS, Stronger
from analysis.schema import stronger as stronger_of
from analysis.single_images import ImageValues, image_values
from analysis.symbols import all_named, symbol
from analysis.tabular import Place, Tabular, opened, several
from analysis.tipping_points import Curve, NothingToJudge, TippingPoints, tipping_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Correlation",
    "Correlations",
    "Linear",
    "Test",
    "beyond",
    "correlations",
    "images_of",
    "p_text",
    "panels",
    "pearson",
    "rho_over_images",
    "spearman_permutation",
    "spearman_permutations",
    "table",
    "words",
]

Until = Literal["paper", "t80", "all"]
Unit = Literal["trial", "strength"]

# what a task asks for and no regulariser's strength: where accuracy falls with it nothing tips over
OF_THE_TASK = ("deformation_strength",)


@dataclass(frozen=True)
class Test:
    """A metric of one group against strength. `reason` says why numbers are nan."""

    group: Group
    quantity: Quantity
    trials: list[Row]
    """Every trial of the group with a strength above zero that has a value."""
    values: list[Value]
    limit: float
    """Trials of a stronger strength are left out; inf: none."""
    kept: int
    dropped: int
    missing: int
    """Trials up to the limit without a value."""
    rho: Correlation
    linear: Linear
    images: tuple[float, float]
    """95% interval of ρ over the images; nan where the record has no values of single images."""
    reason: str = ""
    unit: Unit = "trial"
    """What ρ and r are over: trials, or strengths with the mean of theirs, where these share an effect."""
    within_seed: bool = False
    """Whether orders were changed within seeds (and folds) only."""


@dataclass(frozen=True, repr=False)
class Correlations(Tabular[Test]):
    """The tests of a sweep, and what was left out of them: a sequence of tests."""

    strength: str
    stronger: Stronger
    until: Until
    by: list[str]
    adjustment: Adjustment
    tests: list[Test]
    adjusted: Floats
    """p of each test's ρ, adjusted over all of them."""
    linear_adjusted: Floats
    """p of each test's r, adjusted likewise."""
    curves: list[Curve]
    notes: list[str]
    permutations: int
    """Drawn for a p-value that is small: in proportion to the number of tests."""
    columns: pa.Schema
    """Of the trials, those that tell settings apart among them."""

    @property
    def _items(self) -> list[Test]:
        return self.tests

    def shown(self) -> Table:
        return printed(self)

    def to_arrow(self) -> pa.Table:
        return table(self, self.columns)

    def figure(self) -> Figure:
        return figure(self, panels(self))


def correlations(
    sweep: Sweep | Place,
    *,
    strength: str = "alpha",
    stronger: Stronger | None = None,
    metrics: Sequence[str] | str | None = None,
    by: Sequence[str] | str | None = None,
    until: Until | None = None,
    adjustment: Adjustment = "holm",
    share: float = 0.8,
    reference_below: float | None = None,
    points: TippingPoints | None = None,
    seed: int = 0,
) -> Correlations:
    """Each metric (default: all that the record has beside accuracy and loss) of a sweep (its record, folder or s3://
    address) against strength, one test for each combination of values of the columns `by` (a name or several, as
    `metrics`; default: all settings that differ), one point per trial; where a strength's trials share an effect, per
    strength. Coefficients of the methods, which strength sets, are no tests;
    trials whose value of a metric is not finite are left out of its test and counted.

    `until` says which models count: up to and including the threshold of the paper's rule, up to t80, or all; by
    default the paper's rule, and all where the strength is the task's and no regulariser's (deformation_strength).
    `points` are the sweep's tipping points by the same columns, where they are known already.

    Raises `InputError` for unknown columns and metrics, groups that mix data sets or networks, and a record in which
    there is nothing to correlate.
    """
    sweep = opened(sweep)
    by = None if by is None else several(by)
    metrics = [metrics] if isinstance(metrics, str) else metrics
    if stronger is None:
        stronger = stronger_of(strength)
    if until is None:
        until = "all" if strength in OF_THE_TASK else "paper"
    check_strength(strength, sweep.settings)
    check_columns("--by", by or (), sweep.settings, strength)
    check_finished(sweep)
    if metrics is not None and not metrics:
        raise InputError(f"--metrics: none given; there are {', '.join(quantities(sweep)) or 'none in this record'}")
    if metrics is None:
        known = quantities(sweep)
        tested = {name: q for name, q in known.items() if not _is_coefficient(q, sweep)}
        chosen = [q for name, q in tested.items() if name not in ("top1", "top5", "loss")] or list(tested.values())
    else:
        chosen = [find_quantity("--metrics", name, sweep) for name in dict.fromkeys(metrics)]
    finished = [row for row in sweep.rows if row["status"] != "failed"]
    swept = [row for row in finished if row["method"] != "baseline" and row[strength] is not None]
    check_rows(finished, strength)
    rows = [row for row in swept if row[strength] > 0]
    if not rows:
        raise InputError(
            f"{sweep.path}: no finished trial with {strength} above 0; choose another --strength, or sweep it"
        )
    if not chosen:
        raise InputError(f"{sweep.path}: no metric has a value in this record; measure something, see --measure")
    columns = list(by) if by is not None else swept_settings(sweep, strength)
    groups = grouped(rows, columns)
    check_pure(groups, columns, strength)
    named = zip(groups, all_named(groups), strict=True)
    name_of = {tuple(group.values.values()): name or "all trials" for group, name in named}
    curves: list[Curve] = []
    notes = pooled(groups, strength)
    if metrics is None and len(tested) < len(known):
        names = sorted({q.metric for name, q in known.items() if name not in tested})
        notes.append(f"{', '.join(names)}: coefficients of the method itself, which strength sets: no tests")
    if until != "all":
        try:
            if points is None:
                points = tipping_points(
                    sweep,
                    strength=strength,
                    stronger=stronger,
                    by=columns,
                    share=share,
                    reference_below=reference_below,
                    seed=seed,
                    fitted=until == "t80",
                )
            curves = points.curves
        except NothingToJudge as error:
            notes.append(f"all models count, as none can be left out by --until {until}: {error}")
    limits = {tuple(curve.group.values.values()): _limit(curve, until, strength, stronger) for curve in curves}
    for curve in curves:
        key = tuple(curve.group.values.values())
        _, why = limits[key]
        if why:
            notes.append(f"{name_of.get(key) or curve.group.label()}: {why}")
    measured = [
        _Measured(
            quantity,
            finite(values_of(sweep, quantity)),
            image_values(sweep, quantity),
            "a coefficient of the method itself: no test" if _is_coefficient(quantity, sweep) else "",
        )
        for quantity in chosen
    ]
    samples = []
    for group in groups:
        limit = limits.get(tuple(group.values.values()), (math.inf, ""))[0]
        samples += [_sample(group, each, strength, stronger, limit) for each in measured]
    number = sum(not sample.reason for sample in samples)
    permutations = permutations_for(number)
    tests = _tests(samples, permutations, seed)
    if permutations == MOST_PERMUTATIONS:
        notes.append(f"{number} tests: p below {2 * number / (permutations + 1):.2g} (Holm) cannot be told apart")
    for test in tests:
        if test.unit == "strength":
            sign = symbol(strength)
            notes.append(
                f"{name_of[tuple(test.group.values.values())]}, {short_name(test.quantity)}: trials of one {sign} "
                f"share more than the trend (p < .05): the unit is {sign}, with the mean of its trials"
            )
    for test in tests:
        if test.missing and not test.reason:
            without = count(test.missing, "model")
            name = name_of[tuple(test.group.values.values())]
            notes.append(f"{name}, {short_name(test.quantity)}: {without} without a finite value left out")
    if all(test.reason for test in tests):
        raise InputError(
            f"{sweep.path}: nothing can be correlated: {tests[0].group.label()}, {tests[0].quantity.name}: "
            f"{tests[0].reason}"
        )
    failed = len(sweep.trials) - len(finished)
    zero = len(swept) - len(rows)
    for n, what in (
        (failed, "failed: left out"),
        (zero, f"with {strength} 0: left out, a log axis has no place for it"),
    ):
        if n:
            notes.append(f"{count(n, 'trial')} {what}")
    return Correlations(
        strength,
        stronger,
        until,
        columns,
        adjustment,
        tests,
        adjust([test.rho.p_value for test in tests], adjustment),
        adjust([test.linear.p_value for test in tests], adjustment),
        curves,
        notes,
        permutations,
        sweep.settings.schema,
    )


def _is_coefficient(quantity: Quantity, sweep: Sweep) -> bool:
    """Whether a measurement is of the method's own hyperparameters, such as LOCO-REG's η of a layer."""
    name = quantity.metric
    return quantity.measured and (name in HYPERPARAMETERS or f"method.{name}" in sweep.settings.column_names)


def _limit(curve: Curve, until: Until, strength: str, stronger: Stronger) -> tuple[float, str]:
    """The strongest strength that counts, and what has to be said of it; inf: all count."""
    if curve.fit is None and curve.reason:
        return math.inf, f"all models count: {curve.reason}"
    if until == "paper":
        if curve.rule is None:
            return math.inf, "all models count: the paper's rule does not apply"
        return (math.inf, "") if math.isnan(curve.rule.strength) else (curve.rule.strength, "")
    assert curve.fit is not None
    if curve.fit.status == "tipping point":
        return float(10**curve.fit.log10_strength), ""
    if curve.fit.status == "below range":
        nothing = 0.0 if stronger == "larger" else 2 * max(row[strength] for row in curve.trials)
        return nothing, "no model counts: collapsed from the weakest strength on"
    if curve.fit.status == "inconclusive":
        return math.inf, "all models count: whether accuracy tips over is inconclusive"
    return math.inf, ""


@dataclass(frozen=True)
class _Measured:
    """A quantity with its finite values, and why it is none to test."""

    quantity: Quantity
    values: dict[str, Value]
    images: ImageValues | None
    reason: str


@dataclass(frozen=True)
class _Sample:
    """What a test is of: the trials of a group that count, with x and y; `reason`: why there is no test."""

    group: Group
    measured: _Measured
    limit: float
    trials: list[Row]
    kept: list[Row]
    missing: int
    x: Floats
    y: Floats
    within: NDArray[np.int64] | None
    unit: Unit
    reason: str


def _sample(group: Group, measured: _Measured, strength: str, stronger: Stronger, limit: float) -> _Sample:
    def counts(row: Row) -> bool:
        rounding = 1 + 1e-12
        if math.isinf(limit):
            return True
        return bool(row[strength] <= limit * rounding if stronger == "larger" else row[strength] * rounding >= limit)

    trials = [row for row in group.trials if row["trial_id"] in measured.values]
    kept = sorted((row for row in trials if counts(row)), key=lambda row: (row[strength], replicate(row)))
    x = np.array([row[strength] for row in kept], dtype=float)
    y = np.array([measured.values[row["trial_id"]].value for row in kept])
    runs = {run: index for index, run in enumerate(sorted({replicate(row) for row in kept}))}
    seeds = np.array([runs[replicate(row)] for row in kept], dtype=np.int64)
    within: NDArray[np.int64] | None = None
    unit: Unit = "trial"
    if measured.reason:
        reason = measured.reason
    elif not trials:
        reason = "no trial has a finite value: measure it, or choose other --metrics"
    elif len(kept) < 3:
        reason = f"{len(kept)} of 3 models needed: sweep more strengths, or count more with --until all"
    elif len(set(x)) < 2:
        reason = f"one {strength} only: sweep more"
    elif np.ptp(y) == 0:
        reason = "the same value for every model"
    else:
        reason = ""
        within = seeds if len(runs) > 1 and crossed(x, seeds) else None
        means = by_strength(x, y, within)
        if means.share_an_effect and np.ptp(means.mean) > 0:
            x, y, within, unit = means.strength, means.mean, None, "strength"
    missing = sum(counts(row) for row in group.trials) - len(kept)
    return _Sample(group, measured, limit, trials, kept, missing, x, y, within, unit, reason)


def _tests(samples: Sequence[_Sample], permutations: int, seed: int) -> list[Test]:
    """The tests; metrics and groups of the same strengths and seeds share the permutations."""
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for index, sample in enumerate(samples):
        if not sample.reason:
            within = b"" if sample.within is None else sample.within.tobytes()
            alike.setdefault((sample.x.tobytes(), within), []).append(index)
    rho: dict[int, Correlation] = {}
    for indices in alike.values():
        first = samples[indices[0]]
        found = spearman_permutations(
            first.x,
            [samples[index].y for index in indices],
            within=first.within,
            permutations=permutations,
            rng=np.random.default_rng(seed),
        )
        rho |= zip(indices, found, strict=True)
    tests = []
    for index, sample in enumerate(samples):
        measured, kept = sample.measured, sample.kept
        linear, images = Linear(*(math.nan,) * 4), (math.nan, math.nan)
        if not sample.reason:
            linear = pearson(np.log10(sample.x), sample.y)
            single = measured.images
            # the n-th image of one fold is another one than that of the next
            alone = single is not None and sample.unit == "trial" and len({row["fold"] for row in kept}) == 1
            matrix = single.of([row["trial_id"] for row in kept]) if single is not None and alone else None
            if matrix is not None:
                images = rho_over_images(sample.x, matrix, rng=np.random.default_rng(seed))
        tests.append(
            Test(
                sample.group,
                measured.quantity,
                sample.trials,
                [measured.values[row["trial_id"]] for row in sample.trials],
                sample.limit,
                len(kept),
                len(sample.trials) - len(kept),
                sample.missing,
                rho.get(index, Correlation(math.nan, math.nan)),
                linear,
                images,
                sample.reason,
                sample.unit,
                sample.within is not None,
            )
        )
    return tests


@dataclass
class Flags(StrengthFlags):
    """Correlation of what was measured with strength, on the models up to the tipping point."""

    metrics: tuple[str, ...] | None = None
    """Columns of the trials table, or measurements as metric:component@level; default: all but accuracy and loss."""
    until: Until | None = None
    """The models that count: up to the threshold of the paper's rule, up to t80, or all; default: paper, and all where
    the strength is the task's (deformation_strength)."""
    adjust: Adjustment = "holm"
    """Of the p-values over all tests: Holm, or Benjamini and Hochberg."""


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.correlations")
    sweep = read(flags.sweep, **how_read(flags), convention=flags.convention)
    result = correlations(
        sweep,
        strength=flags.strength,
        stronger=flags.stronger,
        metrics=flags.metrics,
        by=flags.by,
        until=flags.until,
        adjustment=flags.adjust,
        share=flags.share,
        reference_below=flags.reference_below,
        seed=flags.seed,
    )
    drawn = panels(result)

    def say() -> None:
        print_tables([result.shown()], flags.format)
        with beside(flags.format):
            for note in notes_of(result, len(drawn)):
                print(note)

    finish(
        sweep,
        flags.out,
        "correlations",
        tables={"": result.to_arrow()},
        figure=figure(result, drawn),
        say=say,
        form=flags.format,
        images=images_of(result),
    )


if __name__ == "__main__":
    run(main)
