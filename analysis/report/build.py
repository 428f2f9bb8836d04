"""The report of a sweep, of its sections."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

from analysis.answer import Answer, all_points, explained, not_answered, of_points
from analysis.command_line import InputError
from analysis.comparisons import comparisons
from analysis.correlations import OF_THE_TASK, Until, correlations
from analysis.groups import about_folds, check_strength, count, quantities, replicates, telling
from analysis.paper.items import METHODS
from analysis.paper.unmatched import checked
from analysis.records import Sweep
from analysis.report.cells import _distinct, _Source
from analysis.report.costs import _epochs, _pareto
from analysis.report.distributions import _distributions, _search
from analysis.report.page import Block, Bullets, Callout, Section, Text
from analysis.report.page import render as render_page
from analysis.report.papers import _papers
from analysis.report.statistics import _answers, _comparison_section, _correlation_section, _figure, _tipping
from analysis.report.trials import _run, _status
from analysis.results import told_of_damaged, told_of_stopped
from analysis.symbols import method_name, needed, symbol
from analysis.tipping_points import TippingPoints


def report(
    sweep: Sweep,
    *,
    strength: str | None = None,
    reference_below: float | None = None,
    convention: str | None = None,
    seed: int = 0,
) -> str:
    """The page, HTML: the answer first, then what it rests on. What a sweep has nothing of is said on it.

    `strength` is the column that is swept, by default of each method that with the most values; `reference_below` the
    limit of the strengths that the plateau and the paper's rule's reference level are of. The sweep has been read in
    this `convention`, which the commands on the page are told. Raises `InputError` for an unknown strength and as
    reading the record does.
    """
    source = _Source(sweep, strength, reference_below, convention, seed)
    rows = sweep.rows
    regular = [row for row in rows if row["method"] != "baseline"]
    columns = needed(rows, telling(rows)) if rows else []
    if strength is not None:
        check_strength(strength, sweep.settings)
    absent: list[str] = []
    sections: list[Section] = []

    def attempt(what: str, function: Callable[[], Section | None]) -> None:
        try:
            section = function()
        except InputError as error:
            absent.append(f"{what}: {error}")
            return
        if section is not None:
            sections.append(section)

    points: list[TippingPoints] = []
    said: Sequence[Answer] = ()
    try:
        points, reasons = all_points(sweep, strength=strength, reference_below=reference_below, seed=seed)
        said = of_points(sweep, points, reasons)
    except InputError as error:
        absent.append(f"The answer: {error}")

    def compared() -> Section:
        results = []
        known = quantities(sweep)
        for name in [name for name, quantity in known.items() if quantity.stem in ("top1", "total_variation")]:
            try:
                results.append(comparisons(sweep, metric=name, robust=False))
            except InputError as error:
                absent.append(f"Comparison of {name} with the baseline: {error}")
        if not results:
            raise InputError("no metric could be compared")
        return _comparison_section(source, results)

    def correlated(result: TippingPoints) -> Section:
        until: Until | None = None if result.strength in OF_THE_TASK else "t80"
        asked: dict[str, Any] = {"strength": result.strength, "by": result.by, "until": until}
        asked |= {"reference_below": reference_below, "seed": seed}
        swept = {row["method"] for row in regular if row[result.strength] is not None}
        told = {row["method"] for curve in result.curves for row in curve.group.trials}
        # of a method that has another strength of its own there are curves by this one, too
        found = correlations(sweep, **asked, points=result if swept <= told else None)
        baselines = {tuple(curve.group.values.values()): curve.group.baseline for curve in result.curves}
        return _correlation_section(source, found, baselines)

    def bought() -> Section | None:
        blocks = [*_epochs(source, rows, columns)]
        if points and "top1" in quantities(sweep):
            blocks = [*_pareto(source, rows, points[0].strength), *blocks]
        return Section("Accuracy, and what it costs", blocks) if blocks else None

    attempt("Comparisons with the baseline", compared)
    for result in points:
        sections.append(_tipping(source, result))
    for result in points:
        attempt(f"Correlations with {symbol(result.strength)}", functools.partial(correlated, result))
    attempt("Curves and fronts", bought)
    attempt("Distributions of runs", lambda: _distributions(source))
    if any(row["method"] in METHODS.values() for row in rows):
        attempt("The papers", lambda: _papers(source, *checked(sweep, reference_below=reference_below)))
    attempt("The search", lambda: _search(source))
    sections += [_status(rows, columns), _run(source, rows)]

    nothing = [] if regular else [Text("Only unregularised trials are recorded: there is nothing that could tip.")]
    first = [*nothing, *_answers(said), *([Text(explained())] if points else [])]
    for result in points:
        figure = _figure(source, result)
        first += [figure] if figure is not None else []
    first += _cautions(sweep, said, absent)
    names = ", ".join(method_name(name) for name in _distinct(regular, "method")) or "the unregularised baseline"
    subtitle = f"{names}; {count(len(rows), 'trial')}, {replicates(rows)}; record {sweep.content_hash}"
    made = f"Made by {source.command('report')} from the record {sweep.content_hash}"
    last = _distinct(rows, "finished_at")
    if last:
        made += f", whose last trial ended on {last[-1].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return render_page(
        f"Sweep {sweep.name}",
        [Section("The answer", first or [Text("Nothing could be said of this record.")]), *sections],
        subtitle=subtitle,
        footer=made + ".",
        description=f"Report of the hyperparameter sweep {sweep.name}: {subtitle}",
    )


def _cautions(sweep: Sweep, said: Sequence[Answer], absent: Sequence[str]) -> list[Block]:
    """What has to be known beside the answers: trials that failed, what no answer is about, what cannot be had."""
    rows = sweep.rows
    blocks: list[Block] = []
    failed = sum(row["status"] == "failed" for row in rows)
    diverged = sum(row["status"] == "diverged" for row in rows)
    if failed or diverged:
        parts = [f"{count(n, 'trial')} {word}" for n, word in ((failed, "failed"), (diverged, "diverged")) if n]
        blocks.append(Callout(f"{' and '.join(parts)}: see The trials.", "bad" if failed else "warn"))
    if sweep.damaged:
        blocks.append(Callout(f"Left out, as damaged: {told_of_damaged(sweep)}.", "bad"))
    if sweep.stopped:
        blocks.append(Callout(f"Left out, as stopped early: {told_of_stopped(sweep)}."))
    if about_folds(rows):
        blocks.append(Callout(about_folds(rows)))
    others = not_answered(sweep, said)
    if others:
        blocks += [Text("Swept as well, and shown with the flag named:"), Bullets(others)]
    if absent:
        blocks.append(Callout("What this record does not allow: " + "; ".join(absent) + ".", "warn"))
    return blocks
