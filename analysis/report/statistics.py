"""Sections of the report: tipping points, correlations, comparisons."""

from __future__ import annotations

import dataclasses
import functools
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Picture

from analysis.answer import Answer as Said
from analysis.changes import short_name
from analysis.comparisons import Comparisons, forest
from analysis.comparisons import verdict as comparison_verdict
from analysis.correlations import OF_THE_TASK, Correlations, Test, beyond, images_of, p_text, panels
from analysis.figures import MetricPanel, axis_name, metric_figure, strength_figure
from analysis.groups import Quantity, Row, count, swept_settings, values_of
from analysis.multiplicity import ADJUSTMENTS
from analysis.report.cells import _by_strength, _number, _p, _Source, _spanned, _strength_flag, _together, _tone
from analysis.report.closing import closing_blocks
from analysis.report.page import Answer, Block, Bullets, Cell, Column, Entry, Figure, Section, Subsection, Table, Text
from analysis.report.tables import fitted
from analysis.schema import Stronger
from analysis.symbols import all_named, number, symbol
from analysis.tipping_fit import WEAK_END
from analysis.tipping_points import Curve, TippingPoints, decided, figure_groups, located

_MAX_GROUPS_DRAWN = 24
_MAX_TOLD = 12
_MAX_PANELS_NARROW = 8
"""More panels one under the other are too long for a telephone, where they scroll sideways instead."""


def _axis(quantity: Quantity) -> str:
    """The quantity's metric in words, and its options where there are others."""
    return ", ".join(part for part in (axis_name(quantity.metric), quantity.with_options) if part)


def _answers(said: Sequence[Said]) -> list[Block]:
    """The answers, as the page begins with them."""
    blocks: list[Block] = []
    for one in said[:_MAX_TOLD]:
        items = [Cell(_together(words), tone=tone) for words, tone in one.differences]
        lead = f"{one.lead[:1].upper()}{one.lead[1:]}:" if items else ""
        note = " ".join(f"{part[:1].upper()}{part[1:]}." for part in (one.doubt, one.missing) if part)
        blocks.append(Answer(one.name, _together(f"{one.holds}."), lead, items, note))
    if len(said) > _MAX_TOLD:
        blocks.append(Text(f"… and {len(said) - _MAX_TOLD} settings more, in the tables below."))
    return blocks


def _figure(source: _Source, result: TippingPoints) -> Figure | None:
    """Accuracy against strength, with the tipping points; None where no curve has a trial."""
    strength = result.strength
    drawn = figure_groups(result)
    if not drawn:
        return None
    shown = drawn[:_MAX_GROUPS_DRAWN]
    caption = (
        "A point is a trial, a line the mean over seeds."
        if len(shown) == len(drawn)
        else f"The first {len(shown)} of {len(drawn)}."
    )
    told = "; ".join(
        _told(curve, name, strength) for curve, name in zip(result.curves[:6], _names(result), strict=False)
    )
    data = _by_strength(
        [(group.label, group.strength, group.score) for group in drawn],
        strength,
        result.metric.name,
        "Accuracy by setting and strength",
    )
    return source.figure(
        lambda narrow: strength_figure(
            shown,
            strength=strength,
            stronger=result.stronger,
            metric=result.metric.name,
            direction=result.direction,
            share=result.share,
            narrow=narrow,
        ),
        f"{axis_name(result.metric.name)} against {axis_name(strength)}",
        f"{axis_name(result.metric.name)} against {axis_name(strength)} on a logarithmic axis. {told}.",
        command=source.command("tipping_points", *_strength_flag(strength)),
        rows=data,
        caption=caption,
    )


def _names(result: TippingPoints) -> list[str]:
    return [name or "all trials" for name in all_named([curve.group for curve in result.curves])]


def _tipping(source: _Source, result: TippingPoints) -> Section:
    strength, sign = result.strength, symbol(result.strength)
    rows: list[Sequence[Entry]] = []
    names = _names(result)
    for curve, name in zip(result.curves, names, strict=True):
        fit, rule = curve.fit, curve.rule
        if fit is None:
            found: list[Cell | str] = [Cell("not judged", tone="muted")]
            found += [Cell("", reason=curve.reason.replace(f"{strength} =", f"{sign} =")) for _ in range(3)]
        else:
            tone: Any = "warn" if fit.status in ("inconclusive", "below range") else ""
            reason = curve.reason
            at = [10**value for value in (fit.log10_strength, fit.low, fit.high)]
            found = [
                Cell(decided(fit), tone=tone),
                Cell(f"{number(at[0], 3)} [{number(at[1], 3)}, {number(at[2], 3)}]", at[0])
                if located(fit, strength)
                else Cell("", reason=reason),
                Cell(p_text(fit.p_value), fit.p_value),
                _number(fit.plateau, "", ".4f"),
            ]
        paper = limit = Cell("", reason="the paper's rule does not apply")
        if rule is not None:
            paper = _strength_cell(rule.strength, "the paper's rule finds none in range")
            limit = _strength_cell(rule.reference_below, "")
        size = len(curve.trials)
        rows.append((name, *found, paper, limit, Cell(str(size), size)))
    columns = (
        Column("setting"),
        Column("decision", help="by a permutation test of which trials have collapsed"),
        Column(
            f"{sign} at the tipping point [95% interval]",
            "number",
            f"where accuracy falls to {100 * result.share:g}% of its plateau",
        ),
        Column("p", "number", "of the decision; 9999 permutations"),
        Column("plateau", "number"),
        Column("paper's rule", "number", "weakest strength whose mean lies below that share of the reference level"),
        Column("its limit", "number", "the reference level is the mean of weaker ones; the paper's own is 1e5"),
        Column("trials", "number"),
    )
    blocks: list[Block] = [fitted(Table(f"Tipping points by {sign}", columns, rows))]
    flags = [
        f"{name}: {'; '.join(curve.fit.flags)}"
        for curve, name in zip(result.curves, names, strict=True)
        if curve.fit is not None and curve.fit.flags
    ]
    if flags:
        blocks.append(Bullets(flags))
    known = [entry for entry in result.differences if not entry[2].reason]
    if known:
        name_of = {id(curve): name for curve, name in zip(result.curves, names, strict=True)}
        lines = []
        for first, second, difference in known:
            clear = not difference.low <= 0 <= difference.high
            lines.append(
                (
                    name_of.get(id(first), first.group.label()),
                    name_of.get(id(second), second.group.label()),
                    _spanned(difference.value, difference.low, difference.high, "", plus=True),
                    Cell("yes", tone="good") if clear else Cell("no", tone="muted"),
                )
            )
        pair = (
            Column("first"),
            Column("second"),
            Column(
                "difference [95% interval]",
                "number",
                f"of log10 {sign}: how much later the first tips over; bootstrap over seeds and the gaps of the grid",
            ),
            Column("leaves out 0"),
        )
        blocks.append(Table("Differences of tipping points", pair, lines, collapsed=len(lines) > 12))
    blocks += closing_blocks(source, result)
    blocks += [Text(note + ".") for note in result.notes]
    return Section(
        "Where accuracy tips over" if strength == "alpha" else f"Where accuracy tips over, by {sign}", blocks
    )


def _strength_cell(value: float, reason: str) -> Cell:
    return Cell("", reason=reason) if math.isnan(value) else Cell(number(value), value)


def _told(curve: Curve, name: str, strength: str) -> str:
    """A tipping point in plain words."""
    start = f"{name}: " if curve.group.values else ""
    if curve.fit is None:
        return f"{start}{curve.reason}"
    fit, sign = curve.fit, symbol(strength)
    paper = "the paper's rule does not apply"
    if curve.rule is not None:
        found = "none in range" if math.isnan(curve.rule.strength) else f"{sign} = {number(curve.rule.strength)}"
        paper = f"the paper's rule, limit {number(curve.rule.reference_below)}: {found}"
    if fit.status == "tipping point":
        where = f"{sign} = {located(fit, strength)}"
        return f"{start}accuracy tips at {where} (95% interval, p = {p_text(fit.p_value)}; {paper})"
    if fit.status == "none in range":
        return f"{start}no tipping point is found in the range swept ({paper})"
    numbers = f"p = {p_text(fit.p_value)}; {paper}"
    if fit.status == "below range":
        return f"{start}accuracy has collapsed from the weakest {sign} on ({numbers})"
    advice = WEAK_END if fit.reason.startswith(WEAK_END) else "add seeds or strengths"
    return f"{start}whether accuracy tips over is inconclusive ({numbers}): {advice}"


def _counts(strength: float, limit: float, stronger: Stronger) -> bool:
    """Whether a model is one of those up to the limit."""
    rounding = 1 + 1e-12
    return not math.isfinite(limit) or (
        strength <= limit * rounding if stronger == "larger" else strength >= limit / rounding
    )


def _correlated(test: Test, name: str, adjusted: float, result: Correlations, plain: float) -> str:
    """A correlation that was shown in plain words: between which values the metric goes, and what it is (`plain`)
    without regularisation, which belongs to every statement about what strength changes."""
    sign = symbol(result.strength)
    kept = [
        (float(row[result.strength]), value.value)
        for row, value in zip(test.trials, test.values, strict=True)
        if math.isfinite(value.value) and _counts(float(row[result.strength]), test.limit, result.stronger)
    ]
    ends = []
    for end in (min(x for x, _ in kept), max(x for x, _ in kept)):
        mean = float(np.mean([y for x, y in kept if x == end]))
        ends.append(f"{number(mean, 3)} at {sign} = {number(end)}")
    metric = _axis(test.quantity) + (f" of {test.quantity.component}" if test.quantity.component else "")
    metric += "" if test.quantity.level is None else f" at {test.quantity.level:g}"
    way = "rises" if test.rho.rho > 0 else "falls"
    without = f"{number(plain, 3) if math.isfinite(plain) else 'not known'} without regularisation"
    numbers = (
        f"ρ = {number(test.rho.rho, 2)}, p = {p_text(adjusted)}, {ADJUSTMENTS[result.adjustment]}, {test.kept} models"
        + (f", the unit is {sign}" if test.unit == "strength" else "")
    )
    start = f"{name}: " if test.group.values else ""
    return f"{start}{metric} {way} with {sign}, from {ends[0]} to {ends[1]}; it is {without} ({numbers})"


def _correlation_section(
    source: _Source, result: Correlations, baselines: Mapping[tuple[Any, ...], Sequence[Row]]
) -> Section:
    """`baselines`: the unregularised trials of each group, by its values."""
    rows: list[Sequence[Entry]] = []
    single = any(not math.isnan(test.images[0]) for test in result.tests)  # values of single images are recorded
    names = [name or "all trials" for name in all_named([test.group for test in result.tests])]
    shown, unshown = [], 0
    values: dict[str, dict[str, float]] = {}
    for test, name, adjusted in zip(result.tests, names, result.adjusted, strict=True):
        if test.reason:
            continue
        if adjusted >= 0.05:
            unshown += 1
            continue
        if test.quantity.name not in values:
            values[test.quantity.name] = {t: v.value for t, v in values_of(source.sweep, test.quantity).items()}
        known = values[test.quantity.name]
        plain = baselines.get(tuple(test.group.values.values()), ())
        own = [known[row["trial_id"]] for row in plain if row["trial_id"] in known]
        shown.append(_correlated(test, name, float(adjusted), result, float(np.mean(own)) if own else math.nan))
    for test, name, adjusted in zip(result.tests, names, result.adjusted, strict=True):
        reason = (test.reason or "not testable").replace(f"one {result.strength} only", "one strength only")
        r = test.linear
        rows.append(
            (
                *([name] if result.by else []),
                short_name(test.quantity),
                Cell(f"{test.kept} of {test.kept + test.dropped + test.missing}", test.kept),
                _number(test.rho.rho, reason, ".3f"),
                *([_interval_of(test.images, test.reason or "not recorded of the same images")] if single else []),
                _p(test.rho.p_value, reason),
                _p(float(adjusted), reason),
                _spanned(r.r, r.low, r.high, reason),
                _p(r.p_value, reason),
            )
        )
    columns = (
        *([Column("setting")] if result.by else []),
        Column("metric"),
        Column("models", "number", "that count, of all; others are beyond the tipping point or have no finite value"),
        Column("ρ", "number", "Spearman's"),
        *(
            [Column("over images", "number", "95% interval of ρ when the images measured are resampled")]
            if single
            else []
        ),
        Column("p", "number", "two-sided, by permutation, within seeds where these are crossed with strengths"),
        Column(f"p, {ADJUSTMENTS[result.adjustment]}", "number", "adjusted over all tests of this table"),
        Column("r [95% interval]", "number", f"Pearson's, with log10 {symbol(result.strength)}"),
        Column("p of r", "number"),
    )
    blocks: list[Block] = []
    if shown:
        blocks.append(Bullets(shown[:_MAX_TOLD]))
        if len(shown) > _MAX_TOLD:
            blocks.append(Text(f"… and {len(shown) - _MAX_TOLD} correlations more, in the table."))
    if unshown:
        tests = sum(not test.reason for test in result.tests)
        words = f"Of {count(tests, 'test')} {unshown} {'shows' if unshown == 1 else 'show'} no trend"
        blocks.append(Text(f"{words} (p ≥ .05, {ADJUSTMENTS[result.adjustment]})."))
    table = fitted(Table(f"Correlation with {symbol(result.strength)}", columns, rows))
    blocks.append(dataclasses.replace(table, collapsed=len(rows) > 40))
    drawn = panels(result, testable=True)
    if drawn:
        blocks.append(_metric_figure(source, drawn, result))
    blocks += [Text(note + ".") for note in result.notes]
    until = "" if result.strength == "alpha" else f", by {symbol(result.strength)}"
    return Section(f"What strength changes until then{until}", blocks)


def _interval_of(ends: tuple[float, float], reason: str) -> Cell:
    low, high = ends
    return Cell("", reason=reason) if math.isnan(low) else Cell(f"[{low:.2f}, {high:.2f}]", low)


def _correlation_flags(source: _Source, result: Correlations) -> Iterator[str]:
    """What the command has to be told to count the same models in the same groups."""
    if result.until != ("all" if result.strength in OF_THE_TASK else "paper"):
        yield f"--until {result.until}"
    if list(result.by) != swept_settings(source.sweep, result.strength):
        yield " ".join(["--by", *map(shlex.quote, result.by)])


def _metric_figure(source: _Source, drawn: Sequence[MetricPanel], result: Correlations) -> Figure:
    told = "; ".join(f"{panel.title}: {panel.note}" for panel in drawn[:8])
    data = _by_strength(
        [(panel.title, panel.strength, panel.value) for panel in drawn], result.strength, "value", "Metrics by strength"
    )

    def draw(narrow: bool) -> Picture:
        columns = 1 if narrow else 2 if len(drawn) <= 6 else 3
        return metric_figure(
            drawn, strength=result.strength, stronger=result.stronger, excluded=beyond(result), columns=columns
        )

    return source.figure(
        draw if len(drawn) <= _MAX_PANELS_NARROW else draw(False),
        "What was measured, against strength",
        f"{count(len(drawn), 'panel')}, each a metric against {axis_name(result.strength)}, a point per trial. {told}.",
        command=source.command("correlations", *_strength_flag(result.strength), *_correlation_flags(source, result)),
        rows=data,
        caption="Hollow grey points lie beyond t80 and do not count.",
        images=images_of(result),
    )


def _comparison_section(source: _Source, results: Sequence[Comparisons]) -> Section:
    blocks: list[Block | Subsection] = []
    for result in results:
        rows = []
        names = [
            name or tested.label
            for name, tested in zip(all_named([one.group for one in result.tested]), result.tested, strict=True)
        ]
        for tested, name in zip(result.tested, names, strict=True):
            found = tested.comparison
            reason = tested.reason or "not testable"
            rows.append(
                (
                    name,
                    Cell(str(found.n), found.n),
                    _number(found.mean, reason),
                    _number(found.sd, reason),
                    _spanned(found.difference, found.low, found.high, reason, plus=True),
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
            Column("difference [95% interval]", "number", "from the unregularised trials"),
            Column("p", "number", "t-test, paired where seeds are shared, else Welch's"),
            Column("p, Holm", "number", "adjusted over this table"),
            Column("in words"),
        )
        table = fitted(Table(f"{_axis(result.quantity)}: settings and the baseline", columns, rows), said=True)
        table = dataclasses.replace(table, collapsed=len(rows) > 12)
        command = source.command("comparisons", f"--metric {shlex.quote(result.quantity.name)}")
        alt = (
            f"Differences in {_axis(result.quantity)} from the unregularised trials with 95% intervals, a "
            f"row for each of {count(min(len(rows), 40), 'setting')}. {_compared(result)}."
        )
        title = f"{_axis(result.quantity)}: difference from the baseline"
        words = _compared(result)
        blocks.append(Text(f"{words[:1].upper()}{words[1:]}."))
        blocks.append(table)
        if result.infinite:
            left_out = f"{count(result.infinite, 'trial')} with a value that is not finite"
            blocks.append(Text(f"Left out of {_axis(result.quantity)}: {left_out}."))
        blocks.append(source.figure(functools.partial(_forest, result), title, alt, command=command))
    return Section("Settings and the baseline", blocks, "Differences over seeds, with 95% t intervals.")


def _forest(result: Comparisons, narrow: bool) -> Picture:
    return forest(result, narrow=narrow)


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
