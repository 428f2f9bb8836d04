"""Sections of the report: tipping points, correlations, comparisons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analysis.comparisons import Comparisons, forest
from analysis.comparisons import verdict as comparison_verdict
from analysis.correlations import Correlations, Test, beyond, images_of, p_text, panels
from analysis.figures import MetricPanel, axis_name, metric_figure, strength_figure
from analysis.groups import Quantity, count
from analysis.multiplicity import ADJUSTMENTS
from analysis.report.cells import _by_strength, _interval, _number, _p, _Source, _strength_flag, _symbol, _text, _tone
from analysis.report.page import Block, Cell, Column, Entry, Figure, Section, Subsection, Table, Text
from analysis.tipping_points import Curve, TippingPoints, figure_groups, located

_MAX_GROUPS_DRAWN = 24


def _axis(quantity: Quantity) -> str:
    """The quantity's metric in words, and its options where there are others."""
    return ", ".join(part for part in (axis_name(quantity.metric), quantity.with_options) if part)


def _tipping(source: _Source, result: TippingPoints) -> Section:
    strength = result.strength
    rows = []
    for curve in result.curves:
        fit, rule = curve.fit, curve.rule
        if fit is None:
            absent = [Cell("", reason=curve.reason) for _ in range(4)]
            found: list[Cell | str] = [Cell("not judged", tone="muted"), *absent]
        else:
            tone: Any = "warn" if fit.status in ("inconclusive", "below range") else ""
            reason = f"{fit.status}: {curve.reason}"
            found = [
                Cell(fit.status, tone=tone),
                _number(fit.log10_strength, reason, ".2f"),
                _interval(fit.low, fit.high, reason, ".2f"),
                Cell(p_text(fit.p_value), fit.p_value),
                _number(fit.plateau, "", ".4f"),
            ]
        paper = limit = Cell("", reason="does not apply")
        if rule is not None:
            paper = _number(rule.strength, "none in range", ".4g")
            limit = _number(rule.reference_below, "", ".4g")
        flags = _text("" if fit is None else "; ".join(fit.flags))
        size = len(curve.trials)
        rows.append((curve.group.label(), *found, paper, limit, Cell(str(size), size), flags))
    columns = (
        Column("setting"),
        Column("decision", help="by a permutation test of which trials have collapsed"),
        Column(f"log10 {strength}", "number", f"where accuracy falls to {100 * result.share:g}% of its plateau"),
        Column("95% interval", "number"),
        Column("p", "number", "of the decision; 9999 permutations"),
        Column("plateau", "number"),
        Column("paper's rule", "number", "weakest strength whose mean lies below that share of the reference level"),
        Column("its limit", "number", "the reference level is the mean of weaker ones; the paper's own is 1e5"),
        Column("trials", "number"),
        Column("flags"),
    )
    blocks: list[Block] = [Table("Tipping points", columns, rows)]
    command = source.command("tipping_points", *_strength_flag(strength))
    drawn = figure_groups(result)
    shown = drawn[:_MAX_GROUPS_DRAWN]
    if shown:
        picture = strength_figure(
            shown,
            strength=strength,
            stronger=result.stronger,
            metric=result.metric.name,
            direction=result.direction,
            share=result.share,
        )
        caption = (
            "A point is the mean over seeds."
            if len(shown) == len(drawn)
            else f"The first {len(shown)} of {len(drawn)}."
        )
        told = "; ".join(_told(curve, strength) for curve in result.curves[:6])
        data = _by_strength(
            [(group.label, group.strength, group.score) for group in drawn],
            strength,
            result.metric.name,
            "Accuracy by setting and strength",
        )
        alt = f"{axis_name(result.metric.name)} against {axis_name(strength)} on a logarithmic axis. {told}."
        title = f"{axis_name(result.metric.name)} against strength"
        blocks.append(source.figure(picture, title, alt, command=command, rows=data, caption=caption))
    known = [entry for entry in result.differences if not entry[2].reason]
    if known:
        lines = []
        for first, second, difference in known:
            clear = not difference.low <= 0 <= difference.high
            lines.append(
                (
                    first.group.label(),
                    second.group.label(),
                    Cell(f"{difference.value:+.2f}", difference.value),
                    _interval(difference.low, difference.high, "", "+.2f"),
                    Cell("yes", tone="good") if clear else Cell("no", tone="muted"),
                )
            )
        pair = (
            Column("first"),
            Column("second"),
            Column("difference", "number", f"of log10 {strength}: how much later the first tips over"),
            Column("95% interval", "number", "bootstrap over seeds and the gaps of the grid"),
            Column("leaves out 0"),
        )
        blocks.append(Table("Differences of tipping points", pair, lines, collapsed=len(lines) > 12))
    blocks += [Text(note + ".") for note in result.notes]
    return Section(
        "Where accuracy tips over" if strength == "alpha" else f"Where accuracy tips over, by {strength}", blocks
    )


def _told(curve: Curve, strength: str) -> str:
    """A tipping point in plain words."""
    start = f"{curve.group.label()}: " if curve.group.values else ""
    if curve.fit is None:
        return f"{start}{curve.reason}"
    fit, symbol = curve.fit, _symbol(strength)
    rule = curve.rule.strength if curve.rule is not None else math.nan
    paper = "none in range" if math.isnan(rule) else f"{symbol} = {rule:.3g}"
    if fit.status == "tipping point":
        where = f"{symbol} = {located(fit, strength)}"
        return f"{start}accuracy tips at {where} (95% interval, p = {p_text(fit.p_value)}; the paper's rule: {paper})"
    if fit.status == "none in range":
        return f"{start}no tipping point is found in the range swept (the paper's rule: {paper})"
    numbers = f"p = {p_text(fit.p_value)}; the paper's rule: {paper}"
    if fit.status == "below range":
        return f"{start}accuracy has collapsed from the weakest {symbol} on ({numbers})"
    return f"{start}whether accuracy tips over is inconclusive ({numbers}): add seeds or strengths"


def _correlated(test: Test, adjusted: float, result: Correlations) -> str:
    """A correlation in plain words."""
    where = "" if not test.group.values else f"{test.group.label()}: "
    until = "" if math.isinf(test.limit) else f" until {_symbol(result.strength)} = {test.limit:.3g}"
    numbers = f"ρ = {test.rho.rho:.2f}, p = {p_text(adjusted)}, {ADJUSTMENTS[result.adjustment]}, {test.kept} models"
    numbers += f", the unit is {_symbol(result.strength)}" if test.unit == "strength" else ""
    name = _axis(test.quantity) + (f" of {test.quantity.component}" if test.quantity.component else "")
    name += "" if test.quantity.level is None else f" at {test.quantity.level:g}"
    if adjusted >= 0.05:
        return f"{where}{name}: no trend with {_symbol(result.strength)} could be shown{until} ({numbers})"
    way = "rises" if test.rho.rho > 0 else "falls"
    tone = _tone(test.rho.rho, adjusted, test.quantity)
    judged = {"": "", "good": ", for the better", "bad": ", for the worse"}[tone]
    return f"{where}{name} {way} with {_symbol(result.strength)}{until}{judged} ({numbers})"


def _correlation_section(source: _Source, result: Correlations) -> Section:
    rows: list[Sequence[Entry]] = []
    single = any(not math.isnan(test.images[0]) for test in result.tests)  # values of single images are recorded
    for test, adjusted in zip(result.tests, result.adjusted, strict=True):
        reason = test.reason or "not testable"
        r = test.linear
        rows.append(
            (
                test.group.label(),
                test.quantity.name,
                Cell(str(test.kept), test.kept),
                Cell(str(test.dropped), test.dropped),
                Cell(str(test.missing), test.missing),
                _number(test.rho.rho, reason, ".3f"),
                *(
                    [_interval(test.images[0], test.images[1], test.reason or "not recorded of the same images", ".2f")]
                    if single
                    else []
                ),
                _p(test.rho.p_value, reason),
                _p(float(adjusted), reason, _tone(test.rho.rho, float(adjusted), test.quantity)),
                _number(r.r, reason, ".3f"),
                _interval(r.low, r.high, reason, ".2f"),
                _p(r.p_value, reason),
            )
        )
    columns = (
        Column("setting"),
        Column("metric"),
        Column("kept", "number", "models that count"),
        Column("dropped", "number", "models beyond t80"),
        Column("missing", "number", "models up to it without a finite value"),
        Column("ρ", "number", "Spearman's"),
        *(
            [Column("over images", "number", "95% interval of ρ when the images measured are resampled")]
            if single
            else []
        ),
        Column("p", "number", "two-sided, by permutation, within seeds where these are crossed with strengths"),
        Column(f"p, {ADJUSTMENTS[result.adjustment]}", "number", "adjusted over all tests of this table"),
        Column("r", "number", f"Pearson's, with log10 {result.strength}"),
        Column("95% interval", "number"),
        Column("p of r", "number"),
    )
    blocks: list[Block] = [Table("Correlation with strength", columns, rows)]
    drawn = panels(result)
    if drawn:
        blocks.append(_metric_figure(source, drawn, result))
    blocks += [Text(note + ".") for note in result.notes]
    return Section("What strength changes until then", blocks)


def _metric_figure(source: _Source, drawn: Sequence[MetricPanel], result: Correlations) -> Figure:
    picture = metric_figure(
        drawn,
        strength=result.strength,
        stronger=result.stronger,
        excluded=beyond(result),
        columns=2 if len(drawn) <= 6 else 3,
    )
    told = "; ".join(f"{panel.title}: {panel.note}" for panel in drawn[:8])
    data = _by_strength(
        [(panel.title, panel.strength, panel.value) for panel in drawn], result.strength, "value", "Metrics by strength"
    )
    return source.figure(
        picture,
        "What was measured, against strength",
        f"{count(len(drawn), 'panel')}, each a metric against {axis_name(result.strength)}, a point per trial. {told}.",
        command=source.command(
            "correlations", *(() if result.strength == "alpha" else ("--strength", result.strength))
        ),
        rows=data,
        caption="Hollow grey points lie beyond t80 and do not count.",
        images=images_of(result),
    )


def _comparison_section(source: _Source, results: Sequence[Comparisons]) -> Section:
    blocks: list[Block | Subsection] = []
    for result in results:
        rows = []
        for tested in result.tested:
            found = tested.comparison
            reason = tested.reason or "not testable"
            rows.append(
                (
                    tested.group.label(),
                    Cell(str(found.n), found.n),
                    _number(found.mean, reason),
                    _number(found.sd, "one seed"),
                    _number(found.difference, reason, "+.4g"),
                    _interval(found.low, found.high, reason, "+.4g"),
                    _p(found.p_value, reason),
                    _p(tested.p_adjusted, reason, _tone(found.difference, tested.p_adjusted, result.quantity)),
                    Cell(comparison_verdict(tested, result.quantity), tone="muted" if tested.reason else ""),
                )
            )
        columns = (
            Column("setting"),
            Column("seeds", "number"),
            Column("mean", "number"),
            Column("sd", "number"),
            Column("difference", "number", "from the unregularised trials"),
            Column("95% interval", "number"),
            Column("p", "number", "t-test, paired where seeds are shared, else Welch's"),
            Column("p, Holm", "number", "adjusted over this table"),
            Column("in words"),
        )
        table = Table(f"{_axis(result.quantity)}: settings and the baseline", columns, rows, collapsed=len(rows) > 40)
        command = source.command("comparisons", "--metric", result.quantity.name)
        picture = forest(result)
        alt = (
            f"Differences in {_axis(result.quantity)} from the unregularised trials with 95% intervals, a "
            f"row for each of {count(min(len(rows), 40), 'setting')}. {_compared(result)}."
        )
        title = f"{_axis(result.quantity)}: difference from the baseline"
        blocks.append(table)
        if result.infinite:
            left_out = f"{count(result.infinite, 'trial')} with a value that is not finite"
            blocks.append(Text(f"Left out of {_axis(result.quantity)}: {left_out}."))
        blocks.append(source.figure(picture, title, alt, command=command, rows=table))
    return Section("Settings and the baseline", blocks, "Differences over seeds, with 95% t intervals.")


def _compared(result: Comparisons) -> str:
    """The comparisons in plain words: "Top-1 accuracy: of 6 settings 2 are worse, 4 show no difference (Holm)"."""
    kinds = Counter(comparison_verdict(tested, result.quantity).split(":")[0] for tested in result.tested)
    parts = []
    for kind, n in kinds.most_common():
        one = n == 1
        if kind.startswith("no difference"):
            parts.append(f"for {n} no difference is shown")
        else:
            parts.append(f"{n} {'is' if one else 'are'} {kind}")
    settings = count(len(result.tested), "setting")
    return f"{_axis(result.quantity)}, {settings}: {', '.join(parts)} ({ADJUSTMENTS[result.adjustment]})"
