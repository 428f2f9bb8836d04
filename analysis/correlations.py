"""Correlation of what was measured with the strength of the regulariser, on the models that have not tipped over.

    python -m analysis.correlations results/gradient_reg --metrics faithfulness:gradient faithfulness:deeplift

Spearman's ρ with a permutation test whose p-value is never zero (Phipson and Smyth 2010), as the input-gradient
regularisation paper has it (Section 3.2), and Pearson's r between log₁₀ strength and the metric.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from analysis.command_line import InputError, parse, print_table, run
from analysis.groups import (
    Group,
    ImageValues,
    Quantity,
    Row,
    Value,
    check_columns,
    check_finished,
    check_pure,
    check_rows,
    check_strength,
    count,
    differing,
    find_quantity,
    grouped,
    image_values,
    pooled,
    quantities,
    values_of,
)
from analysis.lazily import lazily
from analysis.multiplicity import ADJUSTMENTS, Adjustment, adjust
from analysis.records import Sweep
from analysis.results import StrengthFlags, arrow, finish, read
from analysis.tipping_points import Curve, NothingToJudge, TippingPoints, tipping_points

if TYPE_CHECKING:
    from analysis.figures import MetricPanel

stats = lazily("scipy.stats")

Floats = NDArray[np.float64]

EXACT_UP_TO = 7
PERMUTATIONS = 9999
BOOTSTRAPS = 999
_TIES = 1e-12
"""Correlations of equal rank orders differ by rounding."""
_MAX_PANELS = 24


class Correlation(NamedTuple):
    """ρ in [−1, 1] and its p-value in (0, 1]; both nan where x or y is constant."""

    rho: float
    p_value: float


def spearman_permutation(
    x: ArrayLike, y: ArrayLike, *, permutations: int = PERMUTATIONS, rng: np.random.Generator | None = None
) -> Correlation:
    """Spearman's ρ of two samples (n,) and its two-sided permutation p-value, midranks for ties.

    With b of m = `permutations` random orders at least as far out as the one seen, p = (b + 1)/(m + 1) of the smaller
    tail, doubled, as `scipy.stats.permutation_test` does: at least 2/(m + 1). Up to n = 7 all n! orders are enumerated,
    and p is the exact share. `rng` draws the orders (default: a new generator, so that p differs from call to call).

    Raises `ValueError` for samples of different or less than three entries, entries that are not finite, and fewer than
    one permutation.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(f"x, y: shapes {left.shape}, {right.shape}, allowed are two equal ones of at least 3 entries")
    return spearman_permutations(left, right[None], permutations=permutations, rng=rng)[0]


def spearman_permutations(
    x: ArrayLike, metrics: ArrayLike, *, permutations: int = PERMUTATIONS, rng: np.random.Generator | None = None
) -> list[Correlation]:
    """`spearman_permutation` of x (n,) with each row of `metrics` (K, n), all by the same permutations.

    Raises `ValueError` as it does.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(metrics, dtype=float)
    if left.ndim != 1 or right.ndim != 2 or right.shape[1:] != left.shape or len(left) < 3:
        raise ValueError(f"x, y: shapes {left.shape}, {right.shape[1:]}, allowed are equal ones of at least 3 entries")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("x, y: not finite somewhere, allowed are finite numbers; leave the others out of both")
    if permutations < 1:
        raise ValueError(f"permutations: {permutations}, allowed are whole numbers of at least 1")
    u, v = _standard_ranks(left), _standard_ranks(right)
    if len(left) <= EXACT_UP_TO:
        orders = np.array(list(itertools.permutations(range(len(left)))))
        unseen = 0
    else:
        rng = np.random.default_rng() if rng is None else rng
        orders = rng.permuted(np.tile(np.arange(len(left)), (permutations, 1)), axis=1)
        unseen = 1  # the order seen is one of those that could have been drawn
    null = u[orders] @ v.T
    found = []
    for index, ranks in enumerate(v):
        rho = float(np.clip(u @ ranks, -1, 1))
        if not (u.any() and ranks.any()):
            found.append(Correlation(math.nan, math.nan))
            continue
        above, below = (null[:, index] >= rho - _TIES).sum(), (null[:, index] <= rho + _TIES).sum()
        smaller = (min(above, below) + unseen) / (len(null) + unseen)
        found.append(Correlation(rho, float(min(1.0, 2 * smaller))))
    return found


def _standard_ranks(values: Floats) -> Floats:
    """Midranks along the last axis with mean 0 and norm 1; zeros where all are equal."""
    ranks = stats.rankdata(values, axis=-1)
    centred = ranks - ranks.mean(-1, keepdims=True)
    norm = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-9)


class Linear(NamedTuple):
    """Pearson's r with its 95% interval (Fisher's z) and two-sided p-value; nan where x or y is constant."""

    r: float
    low: float
    high: float
    p_value: float


def pearson(x: ArrayLike, y: ArrayLike) -> Linear:
    """Pearson's r of two samples (n,), by scipy. The interval needs n ≥ 4, and is nan below.

    Raises `ValueError` for samples of different or less than three entries.
    """
    left, right = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if left.ndim != 1 or left.shape != right.shape or len(left) < 3:
        raise ValueError(f"x, y: shapes {left.shape}, {right.shape}, allowed are two equal ones of at least 3 entries")
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return Linear(*(math.nan,) * 4)
    result = stats.pearsonr(left, right)
    interval = result.confidence_interval(0.95) if len(left) > 3 else (math.nan, math.nan)
    return Linear(float(result.statistic), float(interval[0]), float(interval[1]), float(result.pvalue))


def rho_over_images(x: ArrayLike, values: ArrayLike, *, rng: np.random.Generator) -> tuple[float, float]:
    """95% percentile interval of Spearman's ρ between x (n,) and each model's mean over images, `values` (n, images)
    with nan where undefined, images drawn with replacement: how far ρ depends on which images were measured."""
    left, matrix = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    known = np.isfinite(matrix)
    drawn = rng.multinomial(matrix.shape[1], np.full(matrix.shape[1], 1 / matrix.shape[1]), size=BOOTSTRAPS)
    counts = drawn @ known.T.astype(float)
    means = (drawn @ np.where(known, matrix, 0).T) / np.where(counts > 0, counts, math.nan)
    means = means[np.isfinite(means).all(1)]
    if len(means) == 0:
        return math.nan, math.nan
    rho = np.clip(_standard_ranks(means) @ _standard_ranks(left), -1, 1)
    low, high = np.quantile(rho, [0.025, 0.975])
    return float(low), float(high)


Until = Literal["paper", "t80", "all"]

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
    """Trials of a larger strength are left out; inf: none."""
    kept: int
    dropped: int
    missing: int
    """Trials up to the limit without a value."""
    rho: Correlation
    linear: Linear
    images: tuple[float, float]
    """95% interval of ρ over the images; nan where the record has no values of single images."""
    reason: str = ""


@dataclass(frozen=True)
class Correlations:
    strength: str
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


def correlations(
    sweep: Sweep,
    *,
    strength: str = "alpha",
    metrics: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    until: Until | None = None,
    adjustment: Adjustment = "holm",
    share: float = 0.8,
    reference_below: float | None = None,
    points: TippingPoints | None = None,
    seed: int = 0,
) -> Correlations:
    """Each metric (default: all that the record has beside accuracy and loss) against strength, one test for each
    combination of values of the columns `by` (default: all settings that differ), one point per trial.

    `until` says which models count: up to and including the threshold of the paper's rule, up to t80, or all; by
    default the paper's rule, and all where the strength is the task's and no regulariser's (deformation_strength).
    `points` are the sweep's tipping points by the same columns, where they are known already.

    Raises `InputError` for unknown columns and metrics, groups that mix data sets or networks, and a record in which
    there is nothing to correlate.
    """
    if until is None:
        until = "all" if strength in OF_THE_TASK else "paper"
    check_strength(strength, sweep.settings)
    check_columns("--by", by or (), sweep.settings, strength)
    check_finished(sweep)
    if metrics is not None and not metrics:
        raise InputError(f"--metrics: none given; there are {', '.join(quantities(sweep)) or 'none in this record'}")
    if metrics is None:
        known = quantities(sweep)
        chosen = [q for name, q in known.items() if name not in ("top1", "top5", "loss")] or list(known.values())
    else:
        chosen = [find_quantity("--metrics", name, sweep) for name in dict.fromkeys(metrics)]
    finished = [row for row in sweep.settings.to_pylist() if row["status"] != "failed"]
    swept = [row for row in finished if row["method"] != "baseline" and row[strength] is not None]
    check_rows(finished, strength)
    rows = [row for row in swept if row[strength] > 0]
    if not rows:
        raise InputError(
            f"{sweep.path}: no finished trial with {strength} above 0; choose another --strength, or sweep it"
        )
    if not chosen:
        raise InputError(f"{sweep.path}: no metric has a value in this record; measure something, see --measure")
    columns = list(by) if by is not None else differing(rows, strength)
    groups = grouped(rows, columns)
    check_pure(groups, columns, strength)
    curves: list[Curve] = []
    notes = []
    notes += pooled(groups, strength)
    if until != "all":
        try:
            if points is None:
                points = tipping_points(
                    sweep, strength=strength, by=columns, share=share, reference_below=reference_below, seed=seed
                )
            curves = points.curves
        except NothingToJudge as error:
            notes.append(f"all models count, as none can be left out by --until {until}: {error}")
    limits = {tuple(curve.group.values.values()): _limit(curve, until) for curve in curves}
    for curve in curves:
        limit, why = _limit(curve, until)
        if why:
            notes.append(f"{curve.group.label()}: {why}")
    measured = [(quantity, values_of(sweep, quantity), image_values(sweep, quantity)) for quantity in chosen]
    tests = []
    for group in groups:
        limit = limits.get(tuple(group.values.values()), (math.inf, ""))[0]
        tests += _tests(group, measured, strength, limit, seed)
    for test in tests:
        if test.missing and not test.reason:
            without = count(test.missing, "model")
            notes.append(f"{test.group.label()}, {test.quantity.name}: {without} without a finite value left out")
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
        until,
        columns,
        adjustment,
        tests,
        adjust([test.rho.p_value for test in tests], adjustment),
        adjust([test.linear.p_value for test in tests], adjustment),
        curves,
        notes,
    )


def _limit(curve: Curve, until: Until) -> tuple[float, str]:
    """The largest strength that counts, and what has to be said of it."""
    if curve.fit is None:
        return math.inf, f"all models count: {curve.reason}"
    if until == "paper":
        if curve.rule is None:
            return math.inf, "all models count: the paper's rule does not apply"
        return (math.inf, "") if math.isnan(curve.rule.strength) else (curve.rule.strength, "")
    if curve.fit.status == "tipping point":
        return float(10**curve.fit.log10_strength), ""
    if curve.fit.status == "below range":
        return 0.0, "no model counts: collapsed from the smallest strength on"
    if curve.fit.status == "inconclusive":
        return math.inf, "all models count: whether accuracy tips over is inconclusive"
    return math.inf, ""


def _tests(
    group: Group,
    measured: Sequence[tuple[Quantity, dict[str, Value], ImageValues | None]],
    strength: str,
    limit: float,
    seed: int,
) -> list[Test]:
    rounding = 1 + 1e-12
    by_trials: dict[tuple[str, ...], list[int]] = {}
    gathered = []
    for index, (quantity, value, _) in enumerate(measured):
        trials = [
            row for row in group.trials if row["trial_id"] in value and math.isfinite(value[row["trial_id"]].value)
        ]
        kept = [row for row in trials if row[strength] <= limit * rounding]
        gathered.append((quantity, value, trials, kept))
        by_trials.setdefault(tuple(row["trial_id"] for row in kept), []).append(index)
    rho: dict[int, Correlation] = {}
    for indices in by_trials.values():
        kept = gathered[indices[0]][3]
        if len(kept) < 3:
            continue
        # metrics of the same trials share the permutations
        x = [row[strength] for row in kept]
        y = [[gathered[index][1][row["trial_id"]].value for row in kept] for index in indices]
        rho |= zip(indices, spearman_permutations(x, y, rng=np.random.default_rng(seed)), strict=True)
    nothing, line = Correlation(math.nan, math.nan), Linear(*(math.nan,) * 4)
    found = []
    for index, (quantity, value, trials, kept) in enumerate(gathered):
        candidates = [row for row in group.trials if row[strength] <= limit * rounding]
        correlation, linear, images = rho.get(index, nothing), line, (math.nan, math.nan)
        if not trials:
            reason = "no trial has a value: measure it, or choose other --metrics"
        elif len(kept) < 3:
            reason = f"{len(kept)} of 3 models needed: sweep more strengths, or count more with --until all"
        elif len({row[strength] for row in kept}) < 2:
            reason = f"one {strength} only: sweep more"
        elif math.isnan(correlation.rho):
            reason = "the same value for every model"
        else:
            reason = ""
            own = [value[row["trial_id"]].value for row in kept]
            linear = pearson(np.log10([row[strength] for row in kept]), own)
            single = measured[index][2]
            # the n-th image of one fold is another one than that of the next
            alike = single is not None and len({row["fold"] for row in kept}) == 1
            matrix = single.of([row["trial_id"] for row in kept]) if single is not None and alike else None
            if matrix is not None:
                images = rho_over_images([row[strength] for row in kept], matrix, rng=np.random.default_rng(seed))
        found.append(
            Test(
                group,
                quantity,
                trials,
                [value[row["trial_id"]] for row in trials],
                limit,
                len(kept),
                len(trials) - len(kept),
                len(candidates) - len(kept),
                correlation,
                linear,
                images,
                reason,
            )
        )
    return found


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


def _print(result: Correlations) -> None:
    rows = []
    for test, adjusted in zip(result.tests, result.adjusted, strict=True):
        setting = test.group.label()
        size = f"{test.kept}/{test.dropped}"
        if test.reason:
            rows.append((setting, test.quantity.name, size, f"not testable: {test.reason}", "", "", "", ""))
            continue
        images = "" if math.isnan(test.images[0]) else f" [{test.images[0]:.2f}, {test.images[1]:.2f}]"
        r = test.linear
        interval = "" if math.isnan(r.low) else f" [{r.low:.2f}, {r.high:.2f}]"
        rows.append(
            (
                setting,
                test.quantity.name,
                size,
                f"{test.rho.rho:.3f}{images}",
                p_text(test.rho.p_value),
                p_text(adjusted),
                f"{r.r:.3f}{interval}",
                p_text(r.p_value),
            )
        )
    print_table(
        (
            "group",
            "metric",
            "kept/dropped",
            "Spearman's ρ",
            "p",
            f"p, {ADJUSTMENTS[result.adjustment]}",
            "Pearson's r",
            "p",
        ),
        rows,
        wrap=(0, 1, 3),
    )
    number = sum(not test.reason for test in result.tests)
    kept = {
        "paper": "up to the paper's threshold (a model at it is kept)",
        "t80": "up to t80",
        "all": "all",
    }[result.until]
    print(
        f"{count(number, 'test')}; models kept: {kept}; p of ρ by {PERMUTATIONS} permutations (exact up to n = "
        f"{EXACT_UP_TO}), two-sided; r with log10 {result.strength}"
    )
    for note in result.notes:
        print(note)


def p_text(p_value: float) -> str:
    """A p-value as it is printed: three decimals, more where it is small."""
    if math.isnan(p_value):
        return ""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.4f}" if p_value >= 0.0001 else f"{p_value:.1e}"


def table(result: Correlations, trials: pa.Schema) -> pa.Table:
    """The tests as rows: the columns grouped by, then numbers; `reason` says why they are null.

    `rho_low`, `rho_high`: over images, where single images' values are recorded. `r…`: Pearson's r with log₁₀ strength.
    """
    fields = [pa.field(name, trials.field(name).type) for name in result.by]
    fields += [pa.field(name, pa.string()) for name in ("metric", "component")]
    fields.append(pa.field("level", pa.float64()))
    fields += [pa.field(name, pa.string()) for name in ("options", "strength", "until", "adjustment", "reason")]
    fields += [pa.field(name, pa.int64()) for name in ("kept", "dropped", "missing")]
    numbers: tuple[str, ...] = ("limit", "rho", "rho_low", "rho_high", "p_value", "p_adjusted")
    numbers += ("r", "r_low", "r_high", "r_p_value", "r_p_adjusted")
    fields += [pa.field(name, pa.float64()) for name in numbers]
    rows = []
    for test, adjusted, linear_adjusted in zip(result.tests, result.adjusted, result.linear_adjusted, strict=True):
        quantity = test.quantity
        row = {**test.group.values, "metric": quantity.metric, "component": quantity.component, "level": quantity.level}
        row |= {"options": quantity.with_options}
        row |= {"strength": result.strength, "until": result.until, "adjustment": result.adjustment}
        row |= {"reason": test.reason, "kept": test.kept, "dropped": test.dropped, "missing": test.missing}
        row |= {"limit": None if math.isinf(test.limit) else test.limit}
        row |= {"rho": test.rho.rho, "p_value": test.rho.p_value, "p_adjusted": float(adjusted)}
        row |= {"rho_low": test.images[0], "rho_high": test.images[1]}
        row |= {"r": test.linear.r, "r_low": test.linear.low, "r_high": test.linear.high}
        row |= {"r_p_value": test.linear.p_value, "r_p_adjusted": float(linear_adjusted)}
        rows.append(row)
    return arrow(fields, rows)


def panels(result: Correlations) -> list[MetricPanel]:
    """A panel of `metric_figure` for each test that can be drawn, at most 24: those of the smallest p."""
    from analysis.figures import MetricPanel

    order = sorted(
        (index for index, test in enumerate(result.tests) if test.trials),
        key=lambda index: np.nan_to_num(result.tests[index].rho.p_value, nan=2.0),
    )[:_MAX_PANELS]
    drawn = []
    for index in sorted(order):
        test = result.tests[index]
        error = [
            math.nan if not (value.std and value.n and value.n > 1)
            else float(stats.t.ppf(0.975, value.n - 1)) * value.std / math.sqrt(value.n)
            for value in test.values
        ]  # fmt: skip
        title = test.quantity.name if not result.by else f"{test.quantity.name}, {test.group.label()}"
        drawn.append(
            MetricPanel(
                title=title,
                metric=test.quantity.metric,
                strength=[row[result.strength] for row in test.trials],
                value=[value.value for value in test.values],
                error=error if np.isfinite(error).any() else (),
                beyond=test.limit,
                note=test.reason.split(":")[0]
                if test.reason
                else words(test, result.adjusted[index], result.adjustment),
            )
        )
    return drawn


def beyond(result: Correlations) -> str:
    """What the models are that do not count."""
    return {"paper": "beyond the paper's threshold", "t80": "beyond t80", "all": "excluded"}[result.until]


def images_of(result: Correlations) -> int | None:
    """How many images the metrics were measured on; None where they differ or it is not recorded."""
    found = {value.n for test in result.tests for value in test.values}
    return next(iter(found)) if len(found) == 1 else None


def words(test: Test, adjusted: float, adjustment: Adjustment) -> str:
    """A test in a few words: "ρ = .83, p = .0002 (Holm)"."""
    return f"ρ = {test.rho.rho:.2f}, p = {p_text(float(adjusted))} ({ADJUSTMENTS[adjustment]})"


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.correlations")
    from analysis.figures import metric_figure  # after what is wrong with the flags

    sweep = read(flags.sweep, pool_code=flags.pool_code, skip_damaged=flags.skip_damaged)
    result = correlations(
        sweep,
        strength=flags.strength,
        metrics=flags.metrics,
        by=flags.by,
        until=flags.until,
        adjustment=flags.adjust,
        share=flags.share,
        reference_below=flags.reference_below,
        seed=flags.seed,
    )
    drawn = panels(result)
    figure = metric_figure(drawn, strength=flags.strength, excluded=beyond(result), columns=2 if len(drawn) <= 6 else 4)

    def say() -> None:
        _print(result)
        if len(drawn) < sum(1 for test in result.tests if test.trials):
            print(f"the figure shows the {len(drawn)} tests of the smallest p of {len(result.tests)}")

    tables = {"": table(result, sweep.settings.schema)}
    finish(sweep, flags.out, "correlations", tables=tables, figure=figure, say=say, images=images_of(result))


if __name__ == "__main__":
    run(main)
