"""Where accuracy tips over as the strength of a regulariser grows.

    python -m analysis.tipping_points results/pilcro --by method variant

The rule is that of the input-gradient regularisation paper (its threshold t_α: the smallest swept α above 1e5 whose
accuracy is below 80% of the mean accuracy of all models with α < 1e5), with the limit and the share as parameters. A
swept strength that equals the limit is not among the reference and counts as above.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike
from rich import box
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from analysis.command_line import InputError, parse, run
from analysis.figures import StrengthGroup, save, strength_figure
from analysis.records import read_sweep, write_file
from analysis.schema import HYPERPARAMETERS, SCHEMA_VERSION, direction
from analysis.tipping_fit import TippingPoint, fit_curve

# what tells groups of trials apart, if not said otherwise
GROUPING = (
    "dataset",
    "model",
    "width",
    "method",
    *HYPERPARAMETERS,
    "crop",
    "epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "precision",
)

# means that are equal on paper may differ by rounding
_ROUNDING = 1e-12


@dataclass(frozen=True)
class PaperThreshold:
    """The threshold by the paper's rule, and what it was judged by."""

    strength: float
    """The smallest strength from `reference_below` on whose mean score is below share × reference; nan: none."""
    reference: float
    """Mean score of the trials with a strength below `reference_below`."""
    reference_below: float
    share: float
    n: int
    """Trials with a strength above zero."""
    n_reference: int
    """Those of them below `reference_below`."""
    n_zero: int
    """Trials with strength zero, which a log axis has no place for: left out."""


def paper_threshold(
    strength: Sequence[float],
    score: Sequence[float],
    *,
    share: float = 0.8,
    reference_below: float | None = None,
) -> PaperThreshold:
    """The smallest swept strength whose mean score over seeds falls below a share of the reference level.

    The rule of the input-gradient regularisation paper (there: share 0.8, reference_below 1e5, on no α swept), one
    entry of `strength` and `score` (higher is better) per trial, in any order. The reference level is the mean score of
    all trials with a strength below `reference_below` (default: the smallest strength above the lowest quarter, rounded
    up, of the distinct ones); the threshold is sought from `reference_below` on. Diverged trials count with their
    score; failed ones are for the caller to leave out. Strengths of zero are left out and counted.

    Raises `ValueError` for lengths that differ or are zero, strengths that are negative or not finite, scores that are
    not finite, a share outside (0, 1), fewer than two distinct strengths above zero, no strength below
    `reference_below`, and a reference level that is not above zero.
    """
    if len(strength) != len(score):
        raise ValueError(f"score: {len(score)} values for {len(strength)} strengths, allowed is one each")
    if len(strength) == 0:
        raise ValueError("strength: empty, allowed is at least one trial")
    if not 0 < share < 1:
        raise ValueError(f"share: {share}, allowed are numbers between 0 and 1")
    for value in strength:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"strength: {value}, allowed are finite numbers of at least 0")
    for value in score:
        if not math.isfinite(value):
            raise ValueError(f"score: {value}, allowed are finite numbers; leave failed trials out")
    scores: dict[float, list[float]] = {}
    for x, y in zip(strength, score, strict=True):
        if x > 0:
            scores.setdefault(float(x), []).append(float(y))
    swept = sorted(scores)
    if len(swept) < 2:
        raise ValueError(f"strength: {len(swept)} distinct values above 0, allowed are at least 2")
    if reference_below is None:
        reference_below = swept[math.ceil(len(swept) / 4)]
    below = [y for x in swept if x < reference_below for y in scores[x]]
    if not below:
        raise ValueError(
            f"reference_below: {reference_below}, allowed are numbers above the smallest strength {swept[0]}"
        )
    reference = math.fsum(below) / len(below)
    if reference <= 0:
        raise ValueError(f"score: reference level {reference}, allowed are levels above 0")
    level = share * reference * (1 - _ROUNDING)
    beyond = (x for x in swept if x >= reference_below and math.fsum(scores[x]) / len(scores[x]) < level)
    return PaperThreshold(
        strength=next(beyond, math.nan),
        reference=reference,
        reference_below=float(reference_below),
        share=share,
        n=sum(len(values) for values in scores.values()),
        n_reference=len(below),
        n_zero=sum(1 for x in strength if x == 0),
    )


def fit_tipping_point(
    strength: ArrayLike,
    score: ArrayLike,
    seed: ArrayLike | None = None,
    *,
    share: float = 0.8,
    reference_below: float | None = None,
    rng: np.random.Generator | None = None,
) -> TippingPoint:
    """Whether and where scores tip over, with a 95% interval, and the paper's rule beside it: see `fit_curve`, whose
    arguments and errors these are, and `paper_threshold`."""
    fit = fit_curve(strength, score, seed, share=share, reference_below=reference_below, rng=rng)
    if fit.plateau <= 0:
        return fit
    try:
        rule = paper_threshold(
            np.asarray(strength, float).tolist(),
            np.asarray(score, float).tolist(),
            share=share,
            reference_below=reference_below,
        )
    except ValueError as error:
        return dataclasses.replace(fit, flags=(*fit.flags, f"the paper's rule does not apply ({error})"))
    return dataclasses.replace(fit, paper_threshold=rule.strength)


@dataclass(frozen=True)
class Group:
    """The trials of one curve, as rows of the trials table, and its threshold (None: too few strengths)."""

    values: dict[str, Any]
    trials: list[dict[str, Any]]
    baseline: list[dict[str, Any]]
    threshold: PaperThreshold | None

    def label(self) -> str:
        return ", ".join(_setting(name, value) for name, value in self.values.items()) or "all trials"


def _setting(name: str, value: Any) -> str:
    if value is None:
        return f"no {name}"
    return value if isinstance(value, str) else f"{name}={value:g}"


@dataclass
class Flags:
    """Where a sweep's accuracy tips over as the strength grows, by the rule of the paper."""

    sweep: Positional[str]
    """Folder or s3:// prefix of the sweep."""
    metric: str = "top1"
    """Column of the trials table to judge by; more of it must be better."""
    strength: str = "alpha"
    """Column with the strength."""
    by: tuple[str, ...] | None = None
    """One curve for each combination of these columns' values; default: all settings that differ."""
    share: float = 0.8
    """The threshold is where the mean score falls below this share of the reference level."""
    reference_below: float | None = None
    """The reference level is the mean score below this strength; default: of the lowest quarter of the strengths."""
    out: str | None = None
    """Folder or s3:// prefix for the table and the figure; default: analysis/ in the sweep's folder."""


def _check_flags(flags: Flags, trials: pa.Table) -> None:
    metrics = {field.name: direction(field) for field in trials.schema if direction(field) is not None}
    if flags.metric not in metrics:
        raise InputError(f"--metric {flags.metric}: no such metric; there are {', '.join(metrics)}")
    if metrics[flags.metric] != "max":
        higher = [name for name, way in metrics.items() if way == "max"]
        raise InputError(
            f"--metric {flags.metric}: the rule needs a metric of which more is better; there are {', '.join(higher)}"
        )
    strengths = [
        name
        for name in (*HYPERPARAMETERS, "alpha_per_image", "learning_rate")
        if pa.types.is_floating(trials[name].type) or pa.types.is_integer(trials[name].type)
    ]
    if flags.strength not in strengths:
        raise InputError(f"--strength {flags.strength}: no such strength; there are {', '.join(strengths)}")
    for name in flags.by or ():
        if name not in trials.column_names:
            raise InputError(f"--by {name}: no such column; there are {', '.join(trials.column_names)}")
        if name == flags.strength:
            raise InputError(f"--by {name}: is the strength itself; choose another column")
    if not 0 < flags.share < 1:
        raise InputError(f"--share {flags.share}: allowed are numbers between 0 and 1")
    if flags.reference_below is not None and not (math.isfinite(flags.reference_below) and flags.reference_below > 0):
        raise InputError(f"--reference-below {flags.reference_below}: allowed are finite numbers above 0")


def _differing(rows: Sequence[dict[str, Any]], strength: str) -> list[str]:
    # the same strength in other units tells no settings apart
    same = {"alpha_per_image": "alpha"}.get(strength, strength)
    return [name for name in GROUPING if name not in (strength, same) and len({row[name] for row in rows}) > 1]


def _order(values: Sequence[Any]) -> list[tuple[int, Any]]:
    """A key that sorts numbers and text by value, and missing values first."""
    return [(0, 0) if value is None else (1, value) for value in values]


def _groups(
    rows: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]], by: list[str], flags: Flags
) -> list[Group]:
    members: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        members.setdefault(tuple(row[name] for name in by), []).append(row)
    groups = []
    for key in sorted(members, key=_order):
        values = dict(zip(by, key, strict=True))
        # the baseline has no method of its own and none of the method's settings; in all else it has to agree
        same = [
            row
            for row in baseline
            if all(name == "method" or row[name] is None or row[name] == value for name, value in values.items())
        ]
        trials = members[key]
        strengths, scores = [row[flags.strength] for row in trials], [row[flags.metric] for row in trials]
        group = Group(values, trials, same, None)
        if len({x for x in strengths if x > 0}) >= 2:
            try:
                threshold = paper_threshold(strengths, scores, share=flags.share, reference_below=flags.reference_below)
            except ValueError as error:
                raise InputError(f"{group.label()}: {error}") from None
            group = Group(values, trials, same, threshold)
        groups.append(group)
    return groups


def _print(groups: Sequence[Group], flags: Flags) -> None:
    # outside a terminal the width is always the same, and wide enough for the numbers
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=120)
    table = Table(box=box.SIMPLE_HEAD if terminal.is_terminal else box.ASCII2)
    table.add_column("group", overflow="fold")
    for name in ("trials", "seeds", "strengths", "reference level", f"threshold ({flags.strength})"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        swept = sorted({row[flags.strength] for row in group.trials if row[flags.strength] > 0})
        seeds = {row["seed"] for row in group.trials}
        strengths = f"{len(swept)}: {swept[0]:.4g} to {swept[-1]:.4g}" if swept else "none"
        threshold = group.threshold
        if threshold is None:
            reference, found = "", "needs 2 strengths"
        else:
            reference = f"{threshold.reference:.4f} (below {threshold.reference_below:.4g})"
            found = "none in range" if math.isnan(threshold.strength) else f"{threshold.strength:.6g}"
        table.add_row(group.label(), str(len(group.trials)), str(len(seeds)), strengths, reference, found)
    console.print(table)


def _table(groups: Sequence[Group], by: list[str], trials: pa.Schema, flags: Flags) -> pa.Table:
    fields = [pa.field(name, trials.field(name).type) for name in by]
    fields += [pa.field("metric", pa.string()), pa.field("strength", pa.string())]
    fields += [pa.field(name, pa.float64()) for name in ("share", "reference_below", "reference", "threshold")]
    fields.append(pa.field("n", pa.int64()))
    rows = []
    for group in groups:
        row = {**group.values, "metric": flags.metric, "strength": flags.strength, "share": flags.share}
        threshold = group.threshold
        if threshold is not None:
            row |= {"reference_below": threshold.reference_below, "reference": threshold.reference}
            row |= {"threshold": None if math.isnan(threshold.strength) else threshold.strength}
        row["n"] = sum(1 for trial in group.trials if trial[flags.strength] > 0)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields, {"schema_version": str(SCHEMA_VERSION)}))


def _curve(group: Group, flags: Flags) -> StrengthGroup:
    trials = [row for row in group.trials if row[flags.strength] > 0]
    threshold = group.threshold
    return StrengthGroup(
        label=group.label(),
        strength=[row[flags.strength] for row in trials],
        score=[row[flags.metric] for row in trials],
        diverged=[row["status"] == "diverged" for row in trials],
        level=math.nan if threshold is None else threshold.share * threshold.reference,
        threshold=math.nan if threshold is None else threshold.strength,
        baseline=[row[flags.metric] for row in group.baseline],
    )


def _count(n: int, what: str) -> str:
    return f"{n} trial{'' if n == 1 else 's'} {what}"


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.tipping_points")
    sweep = read_sweep(flags.sweep)
    _check_flags(flags, sweep.trials)
    every = sweep.trials.to_pylist()
    scored = [row for row in every if row["status"] != "failed" and row[flags.metric] is not None]
    rows = [row for row in scored if row["method"] != "baseline" and row[flags.strength] is not None]
    baseline = [row for row in scored if row["method"] == "baseline"]
    for row in rows:
        if not (math.isfinite(row[flags.strength]) and row[flags.strength] >= 0 and math.isfinite(row[flags.metric])):
            raise InputError(
                f"trial {row['trial_id']}: {flags.strength} {row[flags.strength]}, {flags.metric} {row[flags.metric]}; "
                "allowed are finite numbers, and strengths of at least 0"
            )
    if not rows:
        raise InputError(f"{sweep.path}: no finished trial with {flags.strength} and {flags.metric}")
    by = list(flags.by) if flags.by is not None else _differing(rows, flags.strength)
    groups = _groups(rows, baseline, by, flags)
    if all(group.threshold is None for group in groups):
        raise InputError(
            f"{sweep.path}: no group has 2 values of {flags.strength} above 0, which a tipping point needs; "
            f"groups are by {', '.join(by) or 'nothing'}, choose others with --by"
        )

    _print(groups, flags)
    failed = sum(row["status"] == "failed" for row in every)
    silent = sum(row["status"] != "failed" and row[flags.metric] is None for row in every)
    zero = sum(row[flags.strength] == 0 for row in rows)
    for n, what in (
        (failed, "failed: left out"),
        (silent, f"without {flags.metric}: left out"),
        (zero, f"with {flags.strength} 0: left out, a log axis has no place for it"),
    ):
        if n:
            print(_count(n, what))

    out = f"{(flags.out or f'{sweep.path}/analysis').rstrip('/')}/tipping_points"
    content = io.BytesIO()
    pq.write_table(_table(groups, by, sweep.trials.schema, flags), content)
    print(write_file(f"{out}.parquet", content.getvalue()))
    drawn = [curve for curve in (_curve(group, flags) for group in groups) if curve.strength]
    figure = strength_figure(drawn, strength=flags.strength, metric=flags.metric, share=flags.share)
    for path in save(figure, out, sweep):
        print(path)


if __name__ == "__main__":
    run(main)
