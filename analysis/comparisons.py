"""Which settings differ from a reference, over seeds: differences with intervals, tests, and how many seeds they need.

    python -m analysis.comparisons results/pilcro
    python -m analysis.comparisons results/pilcro --metric loss --baseline "alpha=1 variant=curvature" --adjust bh

The reference is the unregularised trials, or the setting that `--baseline` names; it has to agree with a setting in
data set, model and training. Trials of one seed have the same initialisation and the same order of the data, so that
they are compared in pairs; settings without seeds in common by Welch's test. With cross-validation a pair is of one
fold and one seed, and the runs of all folds are the sample: as folds share training images, the tests and intervals
over them are an approximation (Nadeau & Bengio 2003; see `groups.replicate`). `comparisons.parquet` holds a row per
setting, its columns described in the file's own schema.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import special, stats
from tyro.conf import Positional

from analysis.command_line import InputError, parse, run
from analysis.figures import ForestRow, axis_name, files, forest_figure
from analysis.groups import (
    GROUPING,
    Group,
    Quantity,
    Row,
    about_folds,
    check_columns,
    check_finished,
    check_pure,
    check_rows,
    check_values,
    count,
    differing,
    find_quantity,
    grouped,
    key_order,
    label,
    out_folder,
    replicate,
    values_of,
)
from analysis.multiplicity import ADJUSTMENTS, Adjustment, adjust
from analysis.records import Sweep, read_sweep, write_file
from analysis.schema import HYPERPARAMETERS, SCHEMA_VERSION

Alternative = Literal["two-sided", "greater", "less"]
Floats = NDArray[np.float64]

SIGNIFICANCE = 0.05
POWER = 0.8
BOOTSTRAPS = 9999
# from how many seeds on
WILCOXON_FROM = 6
IQM_FROM = 10
# in the table on the screen and in the figure
SHOWN = 40

# differences that are equal on paper differ by rounding; relative to the largest score
_ROUNDING = 1e-12
# arrangements of two arms with ties that are enumerated: all of up to eight seeds each
_ENUMERATED = 12870


# --- statistics -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A setting's scores against a reference's. What cannot be computed is nan or None, with its reason beside it."""

    test: Literal["paired t", "Welch t"]
    alternative: Alternative
    n: int
    """Scores of the setting; if paired, the pairs."""
    n_reference: int
    mean: float
    mean_reference: float
    sd: float
    """Standard deviation over seeds (n − 1); nan for fewer than two."""
    sd_reference: float
    difference: float
    """mean − mean_reference."""
    low: float
    """Ends of the 95% interval of the difference: two-sided, whatever the alternative."""
    high: float
    t: float
    df: float
    p_value: float
    """In (0, 1]; nan: not testable, for `reason`."""
    effect_size: float
    effect: Literal["d_z", "Hedges' g"]
    """d_z: mean over standard deviation of the pairs' differences. Hedges' g: difference over the pooled standard
    deviation, corrected for its bias."""
    wilcoxon_p: float | None
    """Signed-rank test if paired, else Mann–Whitney; exact where small."""
    wilcoxon_reason: str
    """Why there is none."""
    iqm_difference: float | None
    """Difference of the interquartile means."""
    iqm_low: float | None
    iqm_high: float | None
    iqm_reason: str
    seeds_needed: int | None
    """Seeds (of each) with which a two-sided test at .05 shows the difference seen, with the spread seen, with a chance
    of 80%; None: not testable, or no difference seen."""
    reason: str
    """Why it is not testable; empty: it is."""

    @property
    def testable(self) -> bool:
        return not self.reason


def compare(
    scores: ArrayLike,
    reference: ArrayLike,
    *,
    paired: bool,
    alternative: Alternative = "two-sided",
    rng: np.random.Generator | None = None,
) -> Comparison:
    """Scores (n,) of a setting against those (m,) of a reference, one per seed; `paired`: entries i are of one seed.

    Student's t-test of the differences if paired, else Welch's, with a two-sided 95% t interval. "greater": the
    alternative is that the setting's mean is greater. From 6 seeds (of each) on Wilcoxon's signed-rank test or
    Mann–Whitney's. From 10 on the difference of interquartile means (the mean without the lowest and the highest
    quarter: `scipy.stats.trim_mean`, as rliable, Agarwal et al. 2021, has it) with the percentile interval of 9999
    stratified bootstraps: each arm is drawn from itself, and pairs are drawn as pairs. `rng` draws them (default: a new
    generator).

    Not testable are fewer than two seeds, and scores without any variance, whether they differ or not: equal
    differences of all pairs, or two arms of equal values. Differences below 1e-12 of the largest score are rounding.

    Raises `ValueError` for scores that are not finite or not in one dimension, pairs of different lengths, and another
    alternative.
    """
    x, y = np.asarray(scores, dtype=float), np.asarray(reference, dtype=float)
    if alternative not in get_args(Alternative):
        raise ValueError(f"alternative: {alternative!r}, allowed are {', '.join(get_args(Alternative))}")
    for name, values in (("scores", x), ("reference", y)):
        if values.ndim != 1:
            raise ValueError(f"{name}: shape {values.shape}, allowed is one dimension")
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: not finite somewhere, allowed are finite numbers; leave the others out")
    if paired and len(x) != len(y):
        raise ValueError(f"reference: {len(y)} values for {len(x)} scores, allowed is one each where they are paired")
    scale = float(np.abs(np.concatenate([x, y, [0.0]])).max())
    reason = _not_testable(x, y, paired, _ROUNDING * scale)
    difference = _mean(x - y) if paired else _mean(x) - _mean(y)
    low = high = t = df = p_value = effect_size = math.nan
    needed = None
    if not reason:
        if paired:
            spread, spread_reference = _sd(x - y), None
            error, df = spread / math.sqrt(len(x)), len(x) - 1.0
            effect_size = difference / spread
        else:
            spread, spread_reference = _sd(x), _sd(y)
            error, df = _welch(spread, spread_reference, len(x), len(y))
            effect_size = _hedges_g(difference, spread, spread_reference, len(x), len(y))
        t = difference / error
        tails = {"two-sided": 2 * stats.t.sf(abs(t), df), "greater": stats.t.sf(t, df), "less": stats.t.cdf(t, df)}
        # never zero, where the tail is too small for a float
        p_value = max(float(tails[alternative]), sys.float_info.min)
        half = float(stats.t.isf(SIGNIFICANCE / 2, df)) * error
        low, high = difference - half, difference + half
        if abs(difference) > _ROUNDING * scale:
            needed = seeds_needed(difference, spread, spread_reference)
    wilcoxon_p, wilcoxon_reason = _wilcoxon(x, y, paired, alternative, _ROUNDING * scale, reason)
    iqm, iqm_reason = _iqm(x, y, paired, rng)
    return Comparison(
        test="paired t" if paired else "Welch t",
        alternative=alternative,
        n=len(x),
        n_reference=len(y),
        mean=_mean(x),
        mean_reference=_mean(y),
        sd=_sd(x),
        sd_reference=_sd(y),
        difference=difference,
        low=low,
        high=high,
        t=t,
        df=df,
        p_value=p_value,
        effect_size=effect_size,
        effect="d_z" if paired else "Hedges' g",
        wilcoxon_p=wilcoxon_p,
        wilcoxon_reason=wilcoxon_reason,
        iqm_difference=None if iqm is None else iqm[0],
        iqm_low=None if iqm is None else iqm[1],
        iqm_high=None if iqm is None else iqm[2],
        iqm_reason=iqm_reason,
        seeds_needed=needed,
        reason=reason,
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _not_testable(x: Floats, y: Floats, paired: bool, rounding: float) -> str:
    """Why, in words; empty: testable."""
    for n, said in enumerate(("no seed", "one seed")):
        for values, where in ((x, ""), (y, " in the reference")):
            if len(values) == n:
                return f"{said}{where}"
    if not paired:
        return "no variance in either arm" if max(np.ptp(x), np.ptp(y)) <= rounding else ""
    if np.ptp(x - y) > rounding:
        return ""
    if abs(_mean(x - y)) <= rounding:
        return "no variance: equal to the reference in every seed"
    return "no variance: the same difference in every seed"


def _welch(sd: float, sd_reference: float, n: int, n_reference: int) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom by Welch and Satterthwaite."""
    error, error_reference = sd / math.sqrt(n), sd_reference / math.sqrt(n_reference)
    both = math.hypot(error, error_reference)
    return both, 1 / ((error / both) ** 4 / (n - 1) + (error_reference / both) ** 4 / (n_reference - 1))


def _hedges_g(difference: float, sd: float, sd_reference: float, n: int, n_reference: int) -> float:
    """Hedges (1981): Cohen's d of the pooled deviation times the exact correction by the gamma function."""
    df = n + n_reference - 2
    pooled = math.sqrt(((n - 1) * sd**2 + (n_reference - 1) * sd_reference**2) / df)
    correction = math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)
    return difference / pooled * correction


def seeds_needed(
    difference: float,
    sd: float,
    sd_reference: float | None = None,
    *,
    power: float = POWER,
    level: float = SIGNIFICANCE,
) -> int:
    """The smallest number of seeds with which a two-sided t-test at `level` shows `difference` with power `power`.

    From the noncentral t distribution (both tails, as R's `power.t.test(strict = TRUE)`). Without `sd_reference` the
    test is paired and `sd` that of the pairs' differences; with it, Welch's test with this many seeds in each arm, its
    degrees of freedom by Welch and Satterthwaite (equal deviations: R's two-sample test).

    Raises `ValueError` for a difference of zero, deviations that are negative or both zero, numbers that are not
    finite, and a power or level outside (0, 1).
    """
    spreads = [sd] if sd_reference is None else [sd, sd_reference]
    if not (math.isfinite(difference) and difference != 0):
        raise ValueError(f"difference: {difference}, allowed are finite numbers other than 0")
    if not all(math.isfinite(value) and value >= 0 for value in spreads) or max(spreads) == 0:
        raise ValueError(f"sd: {', '.join(map(str, spreads))}, allowed are finite numbers, one of them above 0")
    for name, value in (("power", power), ("level", level)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: {value}, allowed are numbers between 0 and 1")
    effect = abs(difference) / math.hypot(*spreads)
    # what a test with known deviation needs: less than a t-test does, and the same in the limit
    n = ((stats.norm.isf(level / 2) + stats.norm.ppf(power)) / effect) ** 2
    if n > 1e6:
        return math.ceil(n)
    n = max(2, math.floor(n) - 2)
    while not _power(effect, n, spreads, level) >= power:
        n += 1
    return n


def _power(effect: float, n: int, spreads: Sequence[float], level: float) -> float:
    df = n - 1.0 if len(spreads) == 1 else _welch(spreads[0], spreads[1], n, n)[1]
    limit, shift = stats.t.isf(level / 2, df), effect * math.sqrt(n)
    if shift > 30 * max(1.0, limit):
        return 1.0  # beyond where the noncentral distribution is evaluated well, and far beyond any power asked for
    beyond = float(stats.nct.sf(limit, df, shift))
    assert math.isfinite(beyond)
    # the other tail, less than that of the normal distribution below -shift, is nan where it is next to nothing
    return beyond + float(np.nan_to_num(stats.nct.cdf(-limit, df, shift)))


def _wilcoxon(
    x: Floats, y: Floats, paired: bool, alternative: Alternative, rounding: float, reason: str
) -> tuple[float | None, str]:
    if min(len(x), len(y)) < WILCOXON_FROM:
        if paired and alternative == "two-sided":
            return None, f"cannot reach .05 below {WILCOXON_FROM} seeds"
        return None, f"from {WILCOXON_FROM} seeds{'' if paired else ' of each'} on"
    if reason:
        return None, reason
    if paired:
        difference = x - y
        if rounding:
            # ties are ties, though they may differ by rounding
            difference = np.round(difference / rounding) * rounding
        # exact up to 13 pairs; without ties and zeros up to 50
        return float(stats.wilcoxon(difference, alternative=alternative).pvalue), ""
    method: Any = "asymptotic"
    if len(np.unique(np.concatenate([x, y]))) < len(x) + len(y):
        if math.comb(len(x) + len(y), len(x)) <= _ENUMERATED:
            method = stats.PermutationMethod(n_resamples=_ENUMERATED)
    elif max(len(x), len(y)) < 50:
        method = "exact"
    return float(stats.mannwhitneyu(x, y, alternative=alternative, method=method).pvalue), ""


def _iqm(
    x: Floats, y: Floats, paired: bool, rng: np.random.Generator | None
) -> tuple[tuple[float, float, float] | None, str]:
    """Difference of the interquartile means and the ends of its 95% bootstrap interval."""
    if min(len(x), len(y)) < IQM_FROM:
        return None, f"from {IQM_FROM} seeds{'' if paired else ' of each'} on"
    rng = np.random.default_rng() if rng is None else rng
    drawn = rng.integers(len(x), size=(BOOTSTRAPS, len(x)))
    drawn_reference = drawn if paired else rng.integers(len(y), size=(BOOTSTRAPS, len(y)))
    replicates = stats.trim_mean(x[drawn], 0.25, axis=1) - stats.trim_mean(y[drawn_reference], 0.25, axis=1)
    low, high = np.quantile(replicates, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return (float(stats.trim_mean(x, 0.25) - stats.trim_mean(y, 0.25)), float(low), float(high)), ""


def stars(p_value: float) -> str:
    """As in the tables of the LOCO-REG paper: "***" for p < .001, "**" for p < .01, "*" for p < .1; nan has none."""
    return next((marks for limit, marks in ((0.001, "***"), (0.01, "**"), (0.1, "*")) if p_value < limit), "")


# --- settings and their references ------------------------------------------------------------------------------------


@dataclass
class Flags:
    """Which settings differ from the unregularised trials, or from another setting, over seeds."""

    sweep: Positional[str]
    """Folder or s3:// prefix of the sweep."""
    metric: str = "top1"
    """What to compare: a metric of the trials table, or a measurement as metric, metric:component or
    metric:component@level."""
    baseline: tuple[str, ...] | None = None
    """The setting to compare with, as column=value ("alpha=1 variant=curvature"; a missing value is none); default: the
    unregularised trials."""
    by: tuple[str, ...] | None = None
    """A setting is a combination of these columns' values; default: all that differ, the strengths among them."""
    alternative: Alternative = "two-sided"
    """greater: only whether a setting's mean is greater than the reference's, whatever is better; less: smaller."""
    adjust: Adjustment = "holm"
    """How p-values are adjusted for the number of tests: Holm, or Benjamini and Hochberg (bh)."""
    out: str | None = None
    """Folder or s3:// prefix for the table and the figure; default: analysis/ in the sweep's folder."""


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
        return label(given) if given else self.group.trials[0]["method"]


@dataclass(frozen=True)
class Comparisons:
    """The settings of a sweep against their reference."""

    quantity: Quantity
    reference: str
    """What they are compared with: "baseline" (the unregularised trials), or column=value."""
    conditions: Mapping[str, Any]
    by: Sequence[str]
    alternative: Alternative
    adjustment: Adjustment
    tested: list[Tested]


def comparisons(
    sweep: Sweep,
    *,
    metric: str = "top1",
    baseline: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    alternative: Alternative = "two-sided",
    adjustment: Adjustment = "holm",
) -> Comparisons:
    """Each setting of a sweep against its reference: the unregularised trials, or those that `baseline` names as
    column=value, that agree with it in data set, model and training.

    Raises `InputError` for unknown columns and metrics, groups that mix data sets, networks or seeds, and a record in
    which no setting has a reference.
    """
    every = sweep.trials.to_pylist()
    check_columns("--by", by or (), sweep.trials)
    conditions = _conditions(baseline, sweep.trials) if baseline is not None else {}
    check_finished(sweep)
    quantity = find_quantity("--metric", metric, sweep)
    values = {trial: found.value for trial, found in values_of(sweep, quantity).items()}
    check_values(values_of(sweep, quantity), quantity.name)
    check_rows(every)
    groups, references, by = _settings(every, conditions, by)
    if not references and conditions:
        known = "; ".join(f"{name} {_values(name, sweep.trials)}" for name in conditions)
        raise InputError(f"--baseline {_said(conditions)}: no trial has that; there are {known}")
    if not references:
        raise InputError(
            f"{sweep.path}: no unregularised trial (method baseline) to compare with; "
            'run the baseline, too, or name a setting with --baseline, like --baseline "alpha=1"'
        )
    what = _said(conditions) if conditions else "baseline"
    if not groups:
        raise InputError(f"{sweep.path}: no trial but those of the reference ({what}); nothing to compare with it")
    tested = [_test(group, *_reference(group, references, conditions), values, alternative) for group in groups]
    if not any(row.reference for row in tested):
        raise InputError(f"{sweep.path}: no setting has a reference; {tested[0].label}: {tested[0].reason}")
    return Comparisons(quantity, what, conditions, by, alternative, adjustment, _adjusted(tested, adjustment))


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


def _training(row: Row) -> dict[str, Any]:
    """Data, network and training of a trial: what has to be the same for two settings' scores to be comparable.

    The columns, and what the configuration says beyond them, but for the method, the seed and the hyperparameters.
    """
    found = {name: row[name] for name in GROUPING if name != "method" and name not in HYPERPARAMETERS}
    try:
        config = json.loads(row["config"])
    except (TypeError, ValueError):
        return found
    for section, values in config.items() if isinstance(config, dict) else ():
        if section != "method" and isinstance(values, dict):
            beyond = {name: value for name, value in values.items() if name not in (*found, *HYPERPARAMETERS)}
            # a column without a value agrees with any; a field of the configuration that is null is a value
            found |= {name: "none" if value is None else value for name, value in beyond.items()}
    # the fold is as the seed; a configuration without folds says nothing of them
    found.pop("fold", None)
    return {"folds": "none", **found}


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names that both have different values of."""
    return [
        name
        for name, value in one.items()
        if value is not None and other.get(name) is not None and value != other[name]
    ]


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
        # the unregularised trials have none of the methods' values, which tells no settings apart
        regularised = [row for row in others if row["method"] != "baseline"]
        names = {*differing(regularised), *(name for name in differing(others) if name not in HYPERPARAMETERS)}
        by = [name for name in GROUPING if name in names]
    groups = grouped(others, by)
    check_pure(groups, by)
    for group in groups:
        for row in group.trials:
            apart = _unlike(_training(group.trials[0]), _training(row))
            if apart:
                advice = f"add {apart[0]} to --by" if apart[0] in GROUPING else "keep them in sweeps of their own"
                raise InputError(f"{group.label()}: pools trials that differ in {apart[0]}; {advice}")
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
        for name, value in _training(group.trials[0]).items()
        if name not in conditions or name == "dataset"  # numbers on other data are never comparable
    }
    if not conditions:
        # a value that the unregularised trials have, too, as the weight decay
        asked |= {name: value for name, value in group.values.items() if name in HYPERPARAMETERS}
    apart = [_unlike(asked, {**row, **_training(row)}) for row in references]
    found = [row for row, names in zip(references, apart, strict=True) if not names]
    what = f"--baseline {_said(conditions)}" if conditions else "the unregularised trials"
    if not found:
        # what only the configuration says is less apart than what a column does
        nearest = min(range(len(apart)), key=lambda index: (len({*apart[index]} & {*GROUPING}), len(apart[index])))
        theirs = {**references[nearest], **_training(references[nearest])}
        least = ", ".join(f"{name} {_brief(asked[name])} (but {_brief(theirs[name])})" for name in apart[nearest][:3])
        return [], f"no trial of the reference has {least}"
    several = [name for name in ("method", *HYPERPARAMETERS) if len({row[name] for row in found}) > 1]
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
    group: Group, reference: Sequence[Row], reason: str, values: Mapping[str, float], alternative: Alternative
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
        rng=np.random.default_rng(0),  # equal records give equal intervals
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


# --- what is said, written and drawn ----------------------------------------------------------------------------------


def _sign(quantity: Quantity, difference: float) -> str:
    """What a difference of this sign is."""
    if quantity.direction == "none":
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == (quantity.direction == "max") else "worse"


def verdict(tested: Tested, quantity: Quantity) -> str:
    found = tested.comparison
    if tested.reason:
        return f"not testable: {tested.reason}"
    way = _sign(quantity, found.difference)
    if tested.p_adjusted < SIGNIFICANCE:
        return way
    if found.alternative == "two-sided":
        verdict, other = "no difference shown", False
    else:
        asked = 1.0 if found.alternative == "greater" else -1.0
        verdict, other = f"not shown to be {_sign(quantity, asked)}", found.difference * asked < 0
    if other:
        return f"{verdict}: seen is {way}"
    needed = tested.seeds_needed
    if needed is None:
        return f"{verdict}: means are equal"
    return f"{verdict}: {needed} seeds would show {_number(abs(found.difference), quantity)} at 80% power"


def _number(value: float, quantity: Quantity, digits: int = 3) -> str:
    """Fractions to four places, other numbers to so many digits."""
    if math.isnan(value):
        return ""
    return f"{value:.4f}" if quantity.unit == "fraction" else f"{value:.{digits}g}"


def shown(tested: Sequence[Tested]) -> list[Tested]:
    """No more than fit on a screen or in a figure: those with the smallest p, in the order of the settings."""
    if len(tested) <= SHOWN:
        return list(tested)

    def p_value(index: int) -> float:
        p = tested[index].comparison.p_value
        return math.inf if tested[index].reason else p

    return [tested[index] for index in sorted(sorted(range(len(tested)), key=p_value)[:SHOWN])]


def _print(tested: Sequence[Tested], quantity: Quantity) -> None:
    # outside a terminal the width is always the same, and wide enough for the numbers
    terminal = Console(highlight=False, markup=False, emoji=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, markup=False, emoji=False, width=120)
    table = Table(box=box.SIMPLE_HEAD if terminal.is_terminal else box.ASCII2)
    table.add_column("setting", overflow="fold", ratio=3)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("mean\n± sd", justify="right", no_wrap=True)
    table.add_column("difference\n[95% interval]", justify="right", no_wrap=True)
    table.add_column("p\nadjusted", justify="right", no_wrap=True)
    wilcoxon = any(row.comparison.wilcoxon_p is not None for row in tested)
    if wilcoxon:
        table.add_column("Wilcoxon\np", justify="right", no_wrap=True)
    table.add_column("effect\nsize", justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", ratio=3)
    for row in shown(tested):
        found = row.comparison
        cells = [
            row.label,
            f"{found.n}" if found.test == "paired t" else f"{found.n} v {found.n_reference}",
            _number(found.mean, quantity, 4) + ("" if math.isnan(found.sd) else f"\n± {_number(found.sd, quantity)}"),
        ]
        difference = _number(found.difference, quantity)
        if row.reason:
            cells += [difference, "", "", ""] if wilcoxon else [difference, "", ""]
        else:
            interval = f"[{_number(found.low, quantity)}, {_number(found.high, quantity)}]"
            cells += [f"{difference}\n{interval}", f"{found.p_value:.2g}\n{row.p_adjusted:.2g}{stars(row.p_adjusted)}"]
            if wilcoxon:
                cells.append("-" if found.wilcoxon_p is None else f"{found.wilcoxon_p:.2g}")
            cells.append(f"{found.effect_size:.3g}\n{'d_z' if found.effect == 'd_z' else 'g'}")
        table.add_row(*cells, verdict(row, quantity))
    console.print(table)


def _notes(result: Comparisons, sweep: Sweep) -> list[str]:
    """What the table cannot say: the reference, the tests, their adjustment, what was left out."""
    tested, quantity, conditions = result.tested, result.quantity, result.conditions
    notes = []
    if len(tested) > SHOWN:
        notes.append(f"Shown are the {SHOWN} settings with the smallest p of {len(tested)}; the Parquet file has all.")
    what = f"the trials with {_said(conditions)}" if conditions else "the unregularised trials"
    better = {"max": "more is better", "min": "less is better", "none": "neither more nor less is better"}
    means = {
        (row.comparison.mean_reference, row.comparison.sd_reference, row.comparison.n_reference)
        for row in tested
        if row.comparison.n_reference
    }
    if len(means) == 1:
        mean, sd, n = means.pop()
        spread = f" ± {_number(sd, quantity)}" if n > 1 else ""
        what += f", {_number(mean, quantity, 4)}{spread} over {count(n, 'seed')}"
    notes.append(f"Reference: {what}. {quantity.name}: {better[quantity.direction]}.")

    testable = [row.comparison for row in tested if not row.reason]
    if testable:
        side = "two-sided" if result.alternative == "two-sided" else f"one-sided ({result.alternative})"
        names = {"paired t": "paired t, seeds shared", "Welch t": "Welch's t, seeds not shared"}
        kinds = [(sum(found.test == test for found in testable), name) for test, name in names.items()]
        used = "; ".join(f"{n} {name}" for n, name in kinds if n)
        notes.append(f"Tests: {side}, {used}. Intervals: two-sided, each 95% by itself.")
        notes.append(
            f"p adjusted for {count(len(testable), 'test')} by {ADJUSTMENTS[result.adjustment]}: "
            f"* < .1, ** < .01, *** < .001; shown is what has an adjusted p < .05."
        )
        if any(found.wilcoxon_p is None for found in testable):
            reasons = sorted({found.wilcoxon_reason for found in testable if found.wilcoxon_p is None})
            notes.append(f"No Wilcoxon test: {'; '.join(reasons)}.")
        if any("seeds would show" in verdict(row, quantity) for row in tested):
            level = f".05/{len(testable)}" if len(testable) > 1 else ".05"
            notes.append(f"Seeds that would show a difference: by the mean and spread seen, two-sided at {level}.")
    apart = [f"{row.label} {row.left_out}" for row in tested if row.left_out]
    if apart:
        notes.append(f"Seeds that the reference does not have, left out: {_listed(apart)}.")
    table = sweep.trials.select(["trial_id", "status", "seed", "fold"]).to_pylist()
    notes += [about_folds(table)] if about_folds(table) else []
    failed = sum(row["status"] == "failed" for row in table)
    values = values_of(sweep, quantity)
    missing = len(table) - failed - len(values)
    diverged = sum(row["status"] == "diverged" and row["trial_id"] in values for row in table)
    for n, how in (
        (failed, "failed: left out"),
        (missing, f"without {quantity.name}: left out"),
        (diverged, f"diverged: counted with the {quantity.name} they have"),
    ):
        if n:
            notes.append(f"{count(n, 'trial')} {how}")
    return notes


def _listed(items: Sequence[str], most: int = 6) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


# the columns of comparisons.parquet after those of the setting, null where there is nothing: type, what it is
_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "setting": (pa.string(), "the setting in words"),
    "reference": (pa.string(), "what it is compared with: baseline (the unregularised trials), or column=value"),
    "metric": (pa.string(), "what is compared"),
    "unit": (pa.string(), "unit of metric"),
    "direction": (pa.string(), "max: more is better; min: less; none: neither"),
    "test": (pa.string(), "paired t, or Welch t"),
    "alternative": (pa.string(), "two-sided, greater or less: of the setting's mean"),
    "n": (pa.int64(), "seeds of the setting in the test (paired: pairs)"),
    "n_reference": (pa.int64(), "seeds of the reference in the test"),
    "left_out": (pa.int64(), "seeds of the setting without a partner in the reference, left out of a paired test"),
    "failed": (pa.int64(), "trials of the setting that failed, left out"),
    "missing": (pa.int64(), "other trials of the setting without a value, left out"),
    "mean": (pa.float64(), "mean over the seeds in the test"),
    "sd": (pa.float64(), "standard deviation over seeds (n - 1)"),
    "mean_reference": (pa.float64(), "mean of the reference"),
    "sd_reference": (pa.float64(), "standard deviation of the reference (n - 1)"),
    "difference": (pa.float64(), "mean - mean_reference"),
    "low": (pa.float64(), "lower end of the two-sided 95% t interval of difference"),
    "high": (pa.float64(), "its upper end"),
    "t": (pa.float64(), "t statistic"),
    "df": (pa.float64(), "its degrees of freedom"),
    "p_value": (pa.float64(), "p of the t-test, as it is"),
    "p_adjusted": (pa.float64(), "p adjusted for the tests of this table"),
    "adjustment": (pa.string(), "how: holm, or bh (Benjamini and Hochberg)"),
    "tests": (pa.int64(), "for how many tests"),
    "stars": (pa.string(), "of p_adjusted: * < .1, ** < .01, *** < .001"),
    "effect_size": (pa.float64(), "d_z (paired) or Hedges' g"),
    "effect": (pa.string(), "which of them"),
    "wilcoxon_p": (pa.float64(), "p of the signed-rank test (paired) or of Mann and Whitney's, as it is"),
    "wilcoxon_reason": (pa.string(), "why there is none"),
    "iqm_difference": (pa.float64(), "difference of the interquartile means"),
    "iqm_low": (pa.float64(), "lower end of its 95% stratified bootstrap interval"),
    "iqm_high": (pa.float64(), "its upper end"),
    "iqm_reason": (pa.string(), "why there is none"),
    "seeds_needed": (pa.int64(), "seeds of each that show difference at two-sided .05 with a chance of 80%"),
    "seeds_needed_adjusted": (pa.int64(), "the same at .05 divided by tests"),
    "verdict": (pa.string(), "in words"),
    "reason": (pa.string(), "why it is not testable"),
}


def table(result: Comparisons, trials: pa.Schema) -> pa.Table:
    """The comparisons as rows: the columns that tell settings apart, then numbers, described in the table's schema."""
    tested, quantity = result.tested, result.quantity
    fields = [pa.field(name, trials.field(name).type) for name in result.by if name not in _COLUMNS]
    fields += [pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in _COLUMNS.items()]
    rows = []
    for row in tested:
        failed = sum(trial["status"] == "failed" for trial in row.group.trials)
        # a paired test leaves out seeds, too
        used = row.comparison.n + row.left_out
        given: dict[str, Any] = {
            **row.group.values,
            **vars(row.comparison),
            "setting": row.label,
            "reference": result.reference,
            "metric": quantity.name,
            "unit": quantity.unit,
            "direction": quantity.direction,
            "left_out": row.left_out,
            "failed": failed,
            "missing": len(row.group.trials) - failed - used,
            "p_adjusted": row.p_adjusted,
            "adjustment": result.adjustment,
            "tests": sum(not other.reason for other in tested),
            "stars": stars(row.p_adjusted),
            "seeds_needed_adjusted": row.seeds_needed,
            "verdict": verdict(row, quantity),
            "reason": row.reason,
        }
        for name, value in given.items():
            if value == "" or (isinstance(value, float) and math.isnan(value)):
                given[name] = None
        rows.append({field.name: given[field.name] for field in fields})
    return pa.Table.from_pylist(rows, schema=pa.schema(fields, {"schema_version": str(SCHEMA_VERSION)}))


def forest(result: Comparisons) -> Figure:
    """The differences from the reference with their 95% intervals, one under the other: see `forest_figure`."""
    rows = shown(result.tested)
    drawn = []
    for row in rows:
        kind = "not testable" if row.reason else verdict(row, result.quantity)
        found = row.comparison
        drawn.append(
            ForestRow(
                row.label,
                found.difference,
                math.nan if row.reason else found.low,
                math.nan if row.reason else found.high,
                "not shown" if kind.startswith("no") and not row.reason else kind,
                "" if row.reason else f"{row.p_adjusted:.2g} {stars(row.p_adjusted)}".strip(),
            )
        )
    quantity = result.quantity
    better = {"max": ", more is better", "min": ", less is better", "none": ""}[quantity.direction]
    name = axis_name(quantity.metric) if quantity.name == quantity.metric else quantity.name.replace("_", " ")
    beside = {"holm": "Holm", "bh": "BH"}[result.adjustment]
    few = len(rows) < len(result.tested)
    title = f"the {len(rows)} settings with the smallest p of {len(result.tested)}" if few else ""
    return forest_figure(
        drawn, label=f"{name}: difference from {result.reference}{better}", beside=f"p ({beside})", title=title
    )


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.comparisons")
    sweep = read_sweep(flags.sweep)
    result = comparisons(
        sweep,
        metric=flags.metric,
        baseline=flags.baseline,
        by=flags.by,
        alternative=flags.alternative,
        adjustment=flags.adjust,
    )
    out = f"{out_folder(flags.out, sweep)}/comparisons"
    content = io.BytesIO()
    pq.write_table(table(result, sweep.trials.schema), content)
    contents = {f"{out}.parquet": content.getvalue(), **files(forest(result), out, sweep)}
    written = [write_file(name, whole) for name, whole in contents.items()]
    _print(result.tested, result.quantity)
    for note in _notes(result, sweep):
        print(note)
    for path in written:
        print(path)


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


if __name__ == "__main__":
    run(main)
