"""The report of a sweep, of its sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC

from analysis.command_line import InputError
from analysis.comparisons import comparisons
from analysis.correlations import OF_THE_TASK, Until, correlations
from analysis.groups import Row, about_folds, check_strength, count, quantities, replicates, strengths_of, telling
from analysis.paper.items import METHODS
from analysis.paper.verdicts import check_all, summary
from analysis.records import Sweep
from analysis.report.cells import _distinct, _Source
from analysis.report.costs import _epochs, _pareto
from analysis.report.page import Block, Bullets, Callout, Section, Text
from analysis.report.page import render as render_page
from analysis.report.papers import _papers
from analysis.report.statistics import (
    _compared,
    _comparison_section,
    _correlated,
    _correlation_section,
    _tipping,
    _told,
)
from analysis.report.trials import _run, _status
from analysis.results import told_of_damaged
from analysis.schema import CONVERTED_STRENGTHS
from analysis.tipping_points import TippingPoints, tipping_points


def report(sweep: Sweep, *, strength: str | None = None, seed: int = 0) -> str:
    """The page, HTML. What a sweep has nothing of is said on it.

    `strength` is the column that is swept, by default the first of those with the most values. Raises `InputError` for
    an unknown strength and as reading the record does.
    """
    source = _Source(sweep)
    rows = sweep.settings.to_pylist()
    regular = [row for row in rows if row["method"] != "baseline"]
    columns = telling(rows)
    chosen = _strength(sweep, regular) if strength is None else strength
    if chosen is not None:
        check_strength(chosen, sweep.settings)
    said: list[str] = []
    absent: list[str] = []
    sections: list[Section] = [_run(source, rows), _status(rows, columns)]

    def attempt(what: str, function: Callable[[], Section | None]) -> None:
        try:
            section = function()
        except InputError as error:
            absent.append(f"{what}: {error}")
            return
        if section is not None:
            sections.append(section)

    points: TippingPoints | None = None

    def tipping() -> Section:
        nonlocal points
        if chosen is None:
            raise InputError("no hyperparameter with two values was swept")
        points = tipping_points(sweep, strength=chosen, seed=seed)
        said.extend(_told(curve, chosen) for curve in points.curves[:12])
        if len(points.curves) > 12:
            said.append(f"… and {len(points.curves) - 12} settings more, in the table of tipping points")
        return _tipping(source, points)

    def correlated() -> Section:
        if chosen is None:
            raise InputError("no hyperparameter with two values was swept")
        by = None if points is None else points.by
        until: Until | None = None if chosen in OF_THE_TASK else "t80"
        result = correlations(sweep, strength=chosen, by=by, points=points, until=until, seed=seed)
        words = [
            _correlated(test, float(adjusted), result)
            for test, adjusted in zip(result.tests, result.adjusted, strict=True)
            if not test.reason
        ]
        said.extend(words[:12])
        if len(words) > 12:
            said.append(f"… and {len(words) - 12} correlations more, in the table of correlations")
        return _correlation_section(source, result)

    def compared() -> Section:
        results = []
        known = quantities(sweep)
        for name in [name for name, quantity in known.items() if quantity.stem in ("top1", "total_variation")]:
            try:
                results.append(comparisons(sweep, metric=name))
            except InputError as error:
                absent.append(f"Comparison of {name} with the baseline: {error}")
        if not results:
            raise InputError("no metric could be compared")
        said.extend(f"Against the baseline, {_compared(result)}" for result in results)
        return _comparison_section(source, results)

    def bought() -> Section | None:
        blocks = [*_epochs(source, rows, columns)]
        if chosen is not None and "top1" in quantities(sweep):
            blocks = [*_pareto(source, rows, chosen), *blocks]
        return Section("Accuracy, and what it costs", blocks) if blocks else None

    def papers() -> Section | None:
        tables = check_all(sweep)
        said.extend(f"Beside the paper, {table.item.id}: {summary(table)}" for table in tables if table.lines)
        return _papers(source, tables)

    attempt("Tipping points", tipping)
    attempt("Correlations", correlated)
    attempt("Comparisons with the baseline", compared)
    attempt("Curves and fronts", bought)
    if any(row["method"] in METHODS.values() for row in rows):
        attempt("The papers", papers)
    failed = sum(row["status"] == "failed" for row in rows)
    diverged = sum(row["status"] == "diverged" for row in rows)
    first: list[Block] = [Bullets(said)] if said else []
    if failed or diverged:
        parts = [f"{count(n, 'trial')} {word}" for n, word in ((failed, "failed"), (diverged, "diverged")) if n]
        first.append(Callout(f"{' and '.join(parts)}: see The trials.", "bad" if failed else "warn"))
    if sweep.damaged:
        first.append(Callout(f"Left out, as damaged: {told_of_damaged(sweep)}.", "bad"))
    if about_folds(rows):
        first.append(Callout(about_folds(rows)))
    if absent:
        first.append(Callout("What this record does not allow: " + "; ".join(absent) + ".", "warn"))
    names = ", ".join(_distinct(regular, "method")) or "the unregularised baseline"
    subtitle = f"{names}; {count(len(rows), 'trial')}, {replicates(rows)}; record {sweep.content_hash}"
    made = f"Made by {source.command('report')} from the record {sweep.content_hash}"
    last = _distinct(rows, "finished_at")
    if last:
        made += f", whose last trial ended on {last[-1].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return render_page(
        f"Sweep {sweep.name}",
        [Section("In short", first or [Text("Nothing could be said of this record.")]), *sections],
        subtitle=subtitle,
        footer=made + ".",
        description=f"Report of the hyperparameter sweep {sweep.name}: {subtitle}",
    )


def _strength(sweep: Sweep, regular: Sequence[Row]) -> str | None:
    """The hyperparameter with the most values above zero; None if none has two."""
    counts = {
        name: len({row[name] for row in regular if row[name] is not None and row[name] > 0})
        for name in strengths_of(sweep.settings)
        if name not in CONVERTED_STRENGTHS
    }
    name = max(counts, key=lambda one: counts[one], default=None)
    return name if name is not None and counts[name] > 1 else None
