"""Correlations with strength as they are said: the table, its notes, the rows of the Parquet file, the panels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from analysis.changes import short_name
from analysis.formats import Table
from analysis.groups import count
from analysis.lazily import lazily
from analysis.multiplicity import ADJUSTMENTS, Adjustment
from analysis.rank_correlation import EXACT_UP_TO
from analysis.results import arrow
from analysis.symbols import all_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from analysis.correlations import Correlations, Test
    from analysis.figures import MetricPanel

special = lazily("scipy.special")

_THRESHOLDS_SHOWN = 4

_MAX_PANELS = 24


def printed(result: Correlations) -> Table:
    """The table as the command prints it."""
    rows = []
    named = [name or "all trials" for name in all_named([test.group for test in result.tests])]
    for test, adjusted, setting in zip(result.tests, result.adjusted, named, strict=True):
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
    adjusted_p = f"p, {ADJUSTMENTS[result.adjustment]}"
    names = ("group", "metric", "kept/dropped", "Spearman's ρ", "p", adjusted_p, "Pearson's r", "p")
    return Table(names, rows, wrap=(0, 1, 3), data=result.to_arrow())


def notes_of(result: Correlations, drawn: int) -> list[str]:
    """What the table cannot say; so many tests are `drawn`."""
    number = sum(not test.reason for test in result.tests)
    kept = {
        "paper": f"up to the paper's threshold ({_thresholds(result)}a model at it is kept)",
        "t80": "up to t80",
        "all": "all",
    }[result.until]
    told = (
        f"{count(number, 'test')}; models kept: {kept}; p of ρ by up to {result.permutations} permutations"
        f"{' within seeds' if any(test.within_seed for test in result.tests) else ''} (exact up to {EXACT_UP_TO}! "
        f"orders), two-sided; r with log10 {result.strength}"
    )
    few = f"the figure shows the {drawn} tests of the smallest p of {len(result.tests)}"
    return [told, *result.notes, *([few] if drawn < sum(1 for test in result.tests if test.trials) else [])]


def _thresholds(result: Correlations) -> str:
    """Limit and value of the paper's rule, where curves have them: "limit 1e+05: 2.154e+05; "."""
    found = dict.fromkeys(
        f"limit {curve.rule.reference_below:.4g}: "
        + ("none in range" if math.isnan(curve.rule.strength) else f"{curve.rule.strength:.4g}")
        for curve in result.curves
        if curve.rule is not None
    )
    shown = list(found)[:_THRESHOLDS_SHOWN]
    return "".join(f"{one}; " for one in shown) + ("…; " if len(found) > len(shown) else "")


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
    fields += [pa.field(name, pa.string()) for name in ("options", "strength", "until", "adjustment", "reason", "unit")]
    fields.append(pa.field("within_seed", pa.bool_()))
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
        row |= {"unit": test.unit, "within_seed": test.within_seed}
        row |= {"reason": test.reason, "kept": test.kept, "dropped": test.dropped, "missing": test.missing}
        row |= {"limit": None if math.isinf(test.limit) else test.limit}
        row |= {"rho": test.rho.rho, "p_value": test.rho.p_value, "p_adjusted": float(adjusted)}
        row |= {"rho_low": test.images[0], "rho_high": test.images[1]}
        row |= {"r": test.linear.r, "r_low": test.linear.low, "r_high": test.linear.high}
        row |= {"r_p_value": test.linear.p_value, "r_p_adjusted": float(linear_adjusted)}
        rows.append(row)
    return arrow(fields, rows)


def panels(result: Correlations, *, testable: bool = False) -> list[MetricPanel]:
    """A panel of `metric_figure` for each test that can be drawn, or of these the `testable`, at most 24: those of the
    smallest p."""
    from analysis.figures import MetricPanel

    order = sorted(
        (index for index, test in enumerate(result.tests) if test.trials and not (testable and test.reason)),
        key=lambda index: np.nan_to_num(result.tests[index].rho.p_value, nan=2.0),
    )[:_MAX_PANELS]
    drawn = []
    names = all_named([test.group for test in result.tests])
    for index in sorted(order):
        test = result.tests[index]
        error = [
            math.nan if not (value.std and math.isfinite(value.std) and value.n and value.n > 1)
            else float(special.stdtrit(value.n - 1, 0.975)) * value.std / math.sqrt(value.n)
            for value in test.values
        ]  # fmt: skip
        title = ", ".join(part for part in (short_name(test.quantity), names[index]) if part)
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


def figure(result: Correlations, drawn: Sequence[MetricPanel]) -> Figure:
    """The panels in one figure."""
    from analysis.figures import metric_figure

    return metric_figure(
        drawn,
        strength=result.strength,
        stronger=result.stronger,
        excluded=beyond(result),
        columns=2 if len(drawn) <= 6 else 4,
    )
