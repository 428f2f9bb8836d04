"""Comparisons with a reference as they are said: the table, its notes, the columns of the Parquet file, the figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analysis.formats import Table
from analysis.groups import Quantity, about_folds, count, finite, values_of
from analysis.multiplicity import ADJUSTMENTS
from analysis.records import Sweep
from analysis.results import arrow
from analysis.symbols import all_named
from analysis.two_samples import SIGNIFICANCE, stars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.against_reference import Comparisons, Tested

# in the table on the screen and in the figure
SHOWN = 40


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


def printed(result: Comparisons, rows: Sequence[Tested]) -> Table:
    """These rows of the table as the command prints them."""
    wilcoxon = any(row.comparison.wilcoxon_p is not None for row in result.tested)
    columns = ["setting", "n", "mean\n± sd", "difference\n[95% interval]", "p\nadjusted"]
    columns += [*(["Wilcoxon\np"] if wilcoxon else []), "effect\nsize", "verdict"]
    cells = [_cells(row, result.quantity, wilcoxon) for row in rows]
    return Table(columns, cells, wrap=(0, len(columns) - 1), width=120, data=result.to_arrow())


def _cells(row: Tested, quantity: Quantity, wilcoxon: bool) -> list[str]:
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
    return [*cells, verdict(row, quantity)]


def notes_of(result: Comparisons, sweep: Sweep, rows: Sequence[Tested]) -> list[str]:
    """What these rows of the table cannot say: the reference, the tests, their adjustment, what was left out."""
    tested, quantity, conditions = result.tested, result.quantity, result.conditions
    notes = []
    if len(rows) < len(tested):
        few = f"Shown are the {len(rows)} settings with the smallest p of {len(tested)}"
        notes.append(f"{few}; the Parquet file has all.")
    what = f"the trials with {result.said}" if conditions else "the unregularised trials"
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
    measured = values_of(sweep, quantity)
    values = finite(measured)
    missing = len(table) - failed - len(measured)
    diverged = sum(row["status"] == "diverged" and row["trial_id"] in values for row in table)
    for n, how in (
        (failed, "failed: left out"),
        (missing, f"without {quantity.name}: left out"),
        (len(measured) - len(values), f"with a {quantity.name} that is not finite: left out"),
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
            if value == "":
                given[name] = None
        rows.append({field.name: given[field.name] for field in fields})
    return arrow(fields, rows)


def forest(result: Comparisons, *, narrow: bool = False) -> Figure:
    """The differences from the reference with their 95% intervals, one under the other, settings in the field's
    symbols: see `forest_figure`."""
    from analysis.figures import ForestRow, axis_name, forest_figure

    rows = shown(result.tested)
    drawn = []
    names = {
        id(row): name for row, name in zip(result.tested, all_named([one.group for one in result.tested]), strict=True)
    }
    for row in rows:
        kind = "not testable" if row.reason else verdict(row, result.quantity)
        found = row.comparison
        drawn.append(
            ForestRow(
                names[id(row)] or row.label,
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
        drawn,
        label=f"{name}: difference from {result.reference}{better}",
        beside=f"p ({beside})",
        title=title,
        narrow=narrow,
    )
