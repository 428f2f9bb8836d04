"""Where accuracy tips over as the strength of a regulariser grows: decision, location, interval, for each setting.

    python -m analysis.tipping_points results/pilcro --by method variant

The quantity is t80, the log₁₀ strength at which the curve falls to 80% of its plateau (`fit_tipping_point`); of a
metric of which less is better, where it rises to the plateau / 0.8. Which strengths are the stronger ones, the schema
says: of Top-GAP's k, for instance, the smaller. Beside it
stands the rule of the input-gradient regularisation paper (its threshold t_α: the smallest swept α above 1e5 whose
accuracy is below 80% of the mean accuracy of all models with α < 1e5), with the limit and the share as parameters. The
limit 1e5 suits that paper's sweep; where none is given, it is the smallest strength above the lowest quarter of those
swept, and counts as above. Intervals are over seeds; with cross-validation over the runs of all folds and seeds, as if
they were independent (see `groups.replicate`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from analysis.command_line import InputError, parse, run
from analysis.formats import Table, beside, print_tables
from analysis.groups import (
    Group,
    Quantity,
    Row,
    about_folds,
    check_columns,
    check_finished,
    check_pure,
    check_rows,
    check_strength,
    count,
    differing,
    find_quantity,
    finite,
    grouped,
    pooled,
    quantities,
    replicate,
    values_of,
)
from analysis.paper_rule import PaperThreshold, paper_threshold, papers_limit
from analysis.records import Sweep
from analysis.results import StrengthFlags, arrow, finish, how_read, read
from analysis.schema import Direction, Stronger
from analysis.schema import stronger as stronger_of
from analysis.symbols import all_named, method_name, symbol
from analysis.tabular import Place, Tabular, opened, several
from analysis.tipping_fit import (
    Difference,
    TippingPoint,
    Words,
    check_curve,
    collapsed,
    fit_curve,
    location_difference,
    resampled_locations,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.figures import StrengthGroup

_MAX_PRINTED_DIFFERENCES = 12


def fit_tipping_point(
    strength: ArrayLike,
    score: ArrayLike,
    seed: ArrayLike | None = None,
    *,
    share: float = 0.8,
    reference_below: float | None = None,
    baseline: ArrayLike = (),
    stronger: Stronger = "larger",
    direction: Direction = "max",
    rng: np.random.Generator | None = None,
) -> TippingPoint:
    """Whether and where scores tip over, with a 95% interval, and the paper's rule beside it: see `fit_curve`, whose
    arguments and errors these are, and `paper_threshold`."""
    fit = fit_curve(
        strength,
        score,
        seed,
        share=share,
        reference_below=reference_below,
        baseline=baseline,
        stronger=stronger,
        direction=direction,
        rng=rng,
    )
    if fit.plateau <= 0:
        return fit
    try:
        rule = paper_threshold(
            np.asarray(strength, float).tolist(),
            np.asarray(score, float).tolist(),
            share=share,
            reference_below=reference_below,
            stronger=stronger,
            direction=direction,
        )
    except ValueError as error:
        return dataclasses.replace(fit, flags=(*fit.flags, f"the paper's rule does not apply ({error})"))
    return dataclasses.replace(fit, paper_threshold=rule.strength)


@dataclass(frozen=True)
class Curve:
    """One group's scores against strength, with its tipping point and the paper's rule (None: see `reason`)."""

    group: Group
    trials: list[Row]
    """Its trials with a strength above zero and a score."""
    scores: list[float]
    baseline: list[float]
    n_zero: int
    fit: TippingPoint | None
    rule: PaperThreshold | None
    reason: str = ""
    """Why there is no tipping point, and what to do."""


class NothingToJudge(InputError):
    """No curve of the record can be judged."""


@dataclass(frozen=True, repr=False)
class TippingPoints(Tabular[Curve]):
    """The curves of a sweep, and what was left out of them: a sequence of curves."""

    metric: Quantity
    strength: str
    stronger: Stronger
    share: float
    reference_below: float | None
    by: list[str]
    curves: list[Curve]
    differences: list[tuple[Curve, Curve, Difference]]
    """Of curves that both tip over and differ in one column only (all pairs, if they differ in one column at all)."""
    notes: list[str]
    columns: pa.Schema
    """Of the trials, those that tell settings apart among them."""

    @property
    def _items(self) -> list[Curve]:
        return self.curves

    def shown(self) -> Table:
        return _shown(self)

    def to_arrow(self) -> pa.Table:
        return table(self, self.columns)

    def figure(self) -> Figure:
        from analysis.figures import strength_figure

        return strength_figure(
            figure_groups(self),
            strength=self.strength,
            stronger=self.stronger,
            metric=self.metric.name,
            direction=self.direction,
            share=self.share,
        )

    @property
    def direction(self) -> Direction:
        """Whether more or less of the metric is better."""
        return "min" if self.metric.direction == "min" else "max"


def tipping_points(
    sweep: Sweep | Place,
    *,
    metric: str = "top1",
    strength: str = "alpha",
    stronger: Stronger | None = None,
    by: Sequence[str] | str | None = None,
    share: float = 0.8,
    reference_below: float | None = None,
    seed: int = 0,
    fitted: bool = True,
) -> TippingPoints:
    """Tipping points of a sweep (its record, folder or s3:// address), one curve for each combination of values of the
    columns `by` (a name or several; default: all settings that differ). `stronger` says which strengths are the
    stronger ones (default: what the schema says). Diverged trials count with their score; failed ones and those whose
    score is not finite are left out and counted; equal `seed`s give equal intervals. Where they are not to be `fitted`,
    of curves that can be the paper's rule alone is told.

    Raises `InputError` for an unknown column or metric, settings that are not finite, groups that mix data sets or
    networks, and a record in which no curve can be judged.
    """
    sweep = opened(sweep)
    by = None if by is None else several(by)
    asked = metric, strength, stronger or stronger_of(strength), share, reference_below, seed
    key = tipping_points, None if by is None else tuple(by), *asked
    # several tables and figures rest on the same curves; of those that are fitted the rule is known, too
    if (key, True) not in sweep.computed and (key, fitted) not in sweep.computed:
        sweep.computed[key, fitted] = _tipping_points(sweep, by, *asked, fitted=fitted)
    found: TippingPoints = sweep.computed[key, (key, True) in sweep.computed]
    return found


def _tipping_points(
    sweep: Sweep,
    by: list[str] | None,
    metric: str,
    strength: str,
    stronger: Stronger,
    share: float,
    reference_below: float | None,
    seed: int,
    *,
    fitted: bool,
) -> TippingPoints:
    check_strength(strength, sweep.settings)
    check_columns("--by", by or (), sweep.settings, strength)
    every = sweep.rows
    finished = [row for row in every if row["status"] != "failed"]
    check_finished(sweep)
    quantity = _quantity(metric, sweep)
    check_rows(finished, strength)
    measured = values_of(sweep, quantity)
    value = finite(measured)
    swept = [row for row in finished if row["method"] != "baseline" and row[strength] is not None]
    rows = [row for row in swept if row["trial_id"] in value]
    if not rows:
        without = f"{strength} and a finite {metric}" if swept else strength
        raise NothingToJudge(
            f"{sweep.path}: no finished trial with {without}; the record has {count(len(finished), 'finished trial')}, "
            f"choose another --{'metric' if swept else 'strength'} or sweep it"
        )
    plain = [row for row in finished if row["method"] == "baseline" and row["trial_id"] in value]
    columns = list(by) if by is not None else differing(rows, strength)
    groups = grouped(rows, columns, plain)
    check_pure(groups, columns, strength)
    asked = {"share": share, "reference_below": reference_below, "stronger": stronger}
    direction: Direction = "min" if quantity.direction == "min" else "max"
    found = []
    for group in groups:
        trials = [row for row in group.trials if row[strength] > 0]
        scores = [value[row["trial_id"]].value for row in trials]
        baseline = [value[row["trial_id"]].value for row in group.baseline]
        rng = np.random.default_rng(seed) if fitted else None
        fit, rule, reason = _judge(group, trials, scores, baseline, strength, rng, direction=direction, **asked)
        found.append(Curve(group, trials, scores, baseline, len(group.trials) - len(trials), fit, rule, reason))
    if all(curve.fit is None and curve.reason for curve in found):
        raise NothingToJudge(
            f"{sweep.path}: no tipping point can be looked for: {found[0].reason}; groups are by "
            f"{', '.join(columns) or 'nothing'}, choose others with --by"
        )
    missing = [row for row in swept if row["trial_id"] not in measured]
    infinite = [row for row in finished if row["trial_id"] in measured and row["trial_id"] not in value]
    left_out = (
        (len(every) - len(finished), "failed: left out"),
        (len(missing), f"without {metric}: left out" + _of_them_diverged(missing)),
        (len(infinite), f"with a {metric} that is not finite: left out"),
        (sum(curve.n_zero for curve in found), f"with {strength} 0: left out, a log axis has no place for it"),
        (
            sum(row["status"] == "diverged" for curve in found for row in curve.trials),
            "diverged: counted with the score recorded",
        ),
    )
    notes = [f"{count(n, 'trial')} {what}" for n, what in left_out if n] + pooled(groups, strength)
    alone = sum(not group.baseline for group in groups)
    if plain and alone:
        notes.append(
            f"{count(alone, 'curve')} without a baseline of the same data, network, training and code: what is swept "
            "alone tells the plateau"
        )
    return TippingPoints(
        quantity,
        strength,
        stronger,
        share,
        reference_below,
        columns,
        found,
        list(_differences(found, columns, strength, share, seed)),
        notes,
        sweep.settings.schema,
    )


def _quantity(name: str, sweep: Sweep) -> Quantity:
    quantity = find_quantity("--metric", name, sweep)
    if quantity.direction == "none":
        judged = [other for other, way in quantities(sweep).items() if way.direction != "none"]
        raise InputError(
            f"--metric {name}: the rule needs a metric of which more or less is better; there are {', '.join(judged)}"
        )
    return quantity


def _of_them_diverged(rows: Sequence[Row]) -> str:
    diverged = sum(row["status"] == "diverged" for row in rows)
    return f" ({diverged} of them diverged, so that the curve is better than the trials)" if diverged else ""


def _judge(
    group: Group,
    trials: list[Row],
    scores: list[float],
    baseline: list[float],
    strength: str,
    rng: np.random.Generator | None,
    **asked: Any,
) -> tuple[TippingPoint | None, PaperThreshold | None, str]:
    x = [row[strength] for row in trials]
    distinct = sorted(set(x))
    if len(distinct) < 2:
        those = f"only {strength} = {distinct[0]:g}" if distinct else f"no {strength} above 0"
        return None, None, f"needs 2 strengths, has {those}: sweep more"
    diverged = all(row["status"] == "diverged" for row in trials)
    apart = sum(row["status"] == "diverged" for row in group.baseline)
    if diverged and not baseline:
        return None, None, f"all {len(trials)} trials diverged: sweep weaker strengths, or add the baseline"
    if diverged and 2 * apart >= len(baseline):  # its median is that of a diverged one
        those = "the baseline" if apart == len(baseline) else f"{apart} of {len(baseline)} of the baseline"
        return None, None, f"all {len(trials)} trials diverged, and so did {those}: lower the learning rate"
    fit, rule = None, None
    try:
        if rng is None:
            check_curve(x, scores, _numbered(trials), baseline=baseline, **asked)
        else:
            fit = fit_tipping_point(x, scores, _numbered(trials), baseline=baseline, rng=rng, **asked)
    except ValueError as error:
        raise InputError(f"{error} ({group.label()})") from None
    if diverged:
        fit = None if fit is None else collapsed(fit, len(trials), baseline)
    elif max(scores) > 0:
        limit = asked["reference_below"]
        limit = papers_limit(trials[0]["method"], strength, x) if limit is None else limit
        with contextlib.suppress(ValueError):  # said in the fit's flags
            rule = paper_threshold(x, scores, **{**asked, "reference_below": limit})
    return fit, rule, "" if fit is None else fit.reason


def _numbered(trials: Sequence[Row]) -> list[int]:
    """The number of each trial's repetition among all of them, in their order."""
    every = sorted({replicate(row) for row in trials})
    return [every.index(replicate(row)) for row in trials]


def _differences(
    curves: Sequence[Curve], by: Sequence[str], strength: str, share: float, seed: int
) -> Iterator[tuple[Curve, Curve, Difference]]:
    tipping = [curve for curve in curves if curve.fit is not None and curve.fit.status == "tipping point"]
    resampled = {}
    for curve in tipping:
        assert curve.fit is not None
        if curve.fit.seeds > 1:
            # equal seeds (and folds) are drawn for settings that ran the same ones, so that they are paired
            every = sorted({replicate(row) for row in curve.trials})
            rng = np.random.default_rng([seed, *(value % 2**32 for run in every for value in run)])
            x = [row[strength] for row in curve.trials]
            resampled[id(curve)] = resampled_locations(
                x, curve.scores, _numbered(curve.trials), curve.fit, share=share, rng=rng
            )
    for first, second in itertools.combinations(tipping, 2):
        if sum(first.group.values[name] != second.group.values[name] for name in by) != 1:
            continue
        assert first.fit is not None
        assert second.fit is not None
        none = np.full(1, math.nan)
        yield (
            first,
            second,
            location_difference(first.fit, second.fit, resampled.get(id(first), none), resampled.get(id(second), none)),
        )


@dataclass
class Flags(StrengthFlags):
    """Where a sweep's accuracy tips over as the strength grows, with a 95% interval, and by the rule of the paper."""

    metric: str = "top1"
    """What to judge by, more or less of it better: a column of the trials table, or metric:component@level."""


def located(fit: TippingPoint | None, strength: str) -> str:
    """A tipping point with its interval as it is printed: "10^6.80 [6.50, 7.00]"; "" where there is none."""
    if fit is None or fit.status != "tipping point":
        return ""
    return f"10^{fit.log10_strength:.2f} [{fit.low:.2f}, {fit.high:.2f}]"


def _names(result: TippingPoints) -> dict[int, str]:
    names = [name or "all trials" for name in all_named([curve.group for curve in result.curves])]
    return {id(curve): name for curve, name in zip(result.curves, names, strict=True)}


def _shown(result: TippingPoints) -> Table:
    rows = []
    name_of = _names(result)
    for curve in result.curves:
        swept = sorted({row[result.strength] for row in curve.trials})
        seeds = {replicate(row) for row in curve.trials}
        strengths = f"{len(swept)}: {swept[0]:.4g} to {swept[-1]:.4g}" if swept else "none"
        fit, rule = curve.fit, curve.rule
        if fit is None:
            found, plateau, p_value = curve.reason, "", ""
        else:
            found = located(fit, result.strength) or f"{fit.status}: {curve.reason}"
            plateau, p_value = f"{fit.plateau:.4f}", f"{fit.p_value:.4f}"
        paper = "" if rule is None else "none in range" if math.isnan(rule.strength) else f"{rule.strength:.6g}"
        size = f"{len(curve.trials)}/{len(seeds)}"
        rows.append((name_of[id(curve)], size, strengths, plateau, found, p_value, paper))
    columns = ("group", "trials/seeds", "strengths", "plateau", f"{result.strength} at the tipping point", "p")
    return Table((*columns, "paper's rule"), rows, wrap=(0, 4), data=result.to_arrow())


def _print_notes(result: TippingPoints) -> None:
    name_of = _names(result)
    known = [entry for entry in result.differences if not entry[2].reason]
    if known:
        print(f"Differences of tipping points (log10 {result.strength}, 95% interval over seeds and grid):")
        for first, second, difference in known[:_MAX_PRINTED_DIFFERENCES]:
            clear = "" if difference.low <= 0 <= difference.high else ", the interval leaves out 0"
            print(
                f"  {name_of[id(first)]} − {name_of[id(second)]}: {difference.value:+.2f} "
                f"[{difference.low:+.2f}, {difference.high:+.2f}]{clear}"
            )
        if len(known) > _MAX_PRINTED_DIFFERENCES:
            print(f"  … {len(known) - _MAX_PRINTED_DIFFERENCES} more in the table written")
    for curve in result.curves:
        for flag in () if curve.fit is None else curve.fit.flags:
            print(f"{name_of[id(curve)]}: {flag}")
    if all(curve.fit is None or curve.fit.seeds == 1 for curve in result.curves):
        print("one seed per setting: the intervals know nothing of how seeds differ; add --seeds")
    told = about_folds([row for curve in result.curves for row in curve.trials])
    if told:
        print(told)
    limits = {curve.rule.reference_below for curve in result.curves if curve.rule is not None}
    words = Words(result.share, result.stronger, result.direction)
    if result.stronger == "smaller":
        print(f"smaller {result.strength} is stronger: the plateau is that of the largest")
    if result.direction == "min":
        print(f"less {result.metric.name} is better: it tips over where it rises to {words.level}")
    if limits:
        shown = ", ".join(f"{limit:.6g}" for limit in sorted(limits)[:4]) + (", …" if len(limits) > 4 else "")
        print(
            f"paper's rule: mean {words.beyond.replace('the plateau', 'that')} of {result.strength} "
            f"{'<' if result.stronger == 'larger' else '>'} {shown}"
            + ("" if result.reference_below is not None else f" ({_whose_limit(result)})")
        )
    for note in result.notes:
        print(note)


def _whose_limit(result: TippingPoints) -> str:
    """Where the limits of the paper's rule come from, where none was given."""
    judged = [curve for curve in result.curves if curve.rule is not None]
    papers = [
        papers_limit(c.trials[0]["method"], result.strength, [row[result.strength] for row in c.trials]) for c in judged
    ]
    own = "the paper's own limit"
    if all(papers):
        return own
    return f"{own} where it has one, else of the weakest quarter" if any(papers) else "of the weakest quarter"


def table(result: TippingPoints, trials: pa.Schema) -> pa.Table:
    """The curves as rows: the columns grouped by, then what was decided and found; `reason` says why a number is null.

    Locations and intervals are log₁₀ strengths; `dips` and `threshold`, the paper's rule, are strengths.
    """
    fields = [pa.field(name, trials.field(name).type) for name in result.by]
    fields += [pa.field(name, pa.string()) for name in ("metric", "direction", "strength", "stronger", "status")]
    fields += [pa.field(name, pa.string()) for name in ("reason", "located_by", "flags")]
    fields.append(pa.field("dips", pa.list_(pa.float64())))
    numbers: tuple[str, ...] = (
        "share",
        "log10_strength",
        "low",
        "high",
        "p_value",
        "plateau",
        "bracket_low",
        "bracket_high",
    )
    numbers += ("ec10", "ec50", "reference_below", "reference", "threshold")
    fields += [pa.field(name, pa.float64()) for name in numbers]
    fields += [pa.field(name, pa.int64()) for name in ("n", "strengths", "seeds", "diverged")]
    rows = []
    for curve in result.curves:
        row = {**curve.group.values, "metric": result.metric.name, "strength": result.strength, "share": result.share}
        row |= {"stronger": result.stronger, "direction": result.direction, "located_by": "", "dips": []}
        row |= {"reason": curve.reason, "n": len(curve.trials), "flags": "", "status": "not judged"}
        row["strengths"] = len({trial[result.strength] for trial in curve.trials})
        row["seeds"] = len({replicate(trial) for trial in curve.trials})
        row["diverged"] = sum(trial["status"] == "diverged" for trial in curve.trials)
        if curve.fit is not None:
            fit = curve.fit
            row |= {name: getattr(fit, name) for name in ("status", "p_value", "plateau", "ec10", "ec50")}
            row |= {name: getattr(fit, name) for name in ("log10_strength", "low", "high", "located_by")}
            row["dips"] = list(fit.dips)
            row |= {"bracket_low": fit.bracket[0], "bracket_high": fit.bracket[1], "flags": "; ".join(fit.flags)}
        if curve.rule is not None:
            rule = curve.rule
            row |= {"reference_below": rule.reference_below, "reference": rule.reference, "threshold": rule.strength}
        rows.append(row)
    return arrow(fields, rows)


def differences_table(result: TippingPoints) -> pa.Table:
    """The differences as rows: log₁₀ of the ratio of the first group's tipping point to the second's."""
    fields = [pa.field(name, pa.string()) for name in ("first", "second", "metric", "strength", "reason")]
    fields += [pa.field(name, pa.float64()) for name in ("difference", "low", "high")]
    rows: list[dict[str, Any]] = []
    for first, second, difference in result.differences:
        row: dict[str, Any] = {"first": first.group.label(), "second": second.group.label()}
        row |= {"metric": result.metric.name, "strength": result.strength, "reason": difference.reason}
        if not difference.reason:
            row |= {"difference": difference.value, "low": difference.low, "high": difference.high}
        rows.append(row)
    return arrow(fields, rows)


def decided(fit: TippingPoint) -> str:
    """What was decided, as a figure or a page says it: that none was found is not that there is none."""
    return "no tipping point found" if fit.status == "none in range" else fit.status


def in_words(curve: Curve, result: TippingPoints) -> str:
    """Why a curve was not judged, in the field's symbols."""
    return curve.reason.split(":")[0].replace(f"{result.strength} =", f"{symbol(result.strength)} =")


def figure_groups(result: TippingPoints) -> list[StrengthGroup]:
    """The curves as `strength_figure` draws them, their settings in the field's symbols."""
    from analysis.figures import StrengthGroup

    fall = result.share if result.direction == "max" else 1 / result.share
    drawn = []
    for curve, name in zip(result.curves, all_named([curve.group for curve in result.curves]), strict=True):
        if not curve.trials:
            continue
        fit, rule = curve.fit, curve.rule
        tips = fit is not None and fit.status == "tipping point"
        location, low, high = (
            (10**fit.log10_strength, 10**fit.low, 10**fit.high) if fit is not None and tips else (math.nan,) * 3
        )
        drawn.append(
            StrengthGroup(
                label=name or method_name(curve.group.trials[0]["method"]),
                strength=[row[result.strength] for row in curve.trials],
                score=curve.scores,
                diverged=[row["status"] == "diverged" for row in curve.trials],
                level=math.nan if fit is None else fall * fit.plateau,
                threshold=math.nan if rule is None else rule.strength,
                baseline=curve.baseline,
                location=location,
                low=low,
                high=high,
                note="" if tips else (in_words(curve, result) if fit is None else decided(fit)),
            )
        )
    return drawn


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.tipping_points")
    sweep = read(flags.sweep, **how_read(flags), convention=flags.convention)
    result = tipping_points(
        sweep,
        metric=flags.metric,
        strength=flags.strength,
        stronger=flags.stronger,
        by=flags.by,
        share=flags.share,
        reference_below=flags.reference_below,
        seed=flags.seed,
    )
    tables = {"": result.to_arrow()}
    if result.differences:
        tables["_differences"] = differences_table(result)

    def say() -> None:
        print_tables([result.shown()], flags.format)
        with beside(flags.format):
            _print_notes(result)

    finish(sweep, flags.out, "tipping_points", tables=tables, figure=result.figure(), say=say, form=flags.format)


if __name__ == "__main__":
    run(main)
