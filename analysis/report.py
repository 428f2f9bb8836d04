"""A sweep on one page: what was run, what came of it, and how that compares with the papers.

    python -m analysis.report results/pilcro
    python -m analysis.report results/pilcro --out report.html

The page is one file that needs nothing else, no network and no server. It is made of the record alone.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure as Picture
from tyro.conf import Positional

from analysis.command_line import InputError, parse, run
from analysis.comparisons import Comparisons, comparisons, forest
from analysis.comparisons import verdict as comparison_verdict
from analysis.correlations import (
    OF_THE_TASK,
    Correlations,
    Test,
    Until,
    beyond,
    correlations,
    images_of,
    p_text,
    panels,
)
from analysis.figures import (
    MetricPanel,
    ParetoGroup,
    axis_name,
    curves,
    metric_figure,
    pareto_figure,
    render,
    strength_figure,
)
from analysis.groups import (
    Quantity,
    Row,
    about_folds,
    check_rows,
    count,
    differing,
    evenly,
    grouped,
    label,
    quantities,
    replicate,
    replicates,
    strengths_of,
    values_of,
)
from analysis.multiplicity import ADJUSTMENTS
from analysis.page import (
    Block,
    Bullets,
    Callout,
    Cell,
    Column,
    Entry,
    Facts,
    Figure,
    Section,
    Subsection,
    Table,
    Text,
)
from analysis.page import render as render_page
from analysis.paper import METHODS, check_all, summary
from analysis.paper import Table as PaperTable
from analysis.paper_figures import FIGURES, draw, missing
from analysis.records import Sweep, read_file, read_sweep, write_file
from analysis.schema import SCHEMA_VERSION
from analysis.tipping_points import Curve, TippingPoints, figure_groups, located, tipping_points

# an SVG of more marks than this is larger than the picture of it
_LARGEST_SVG = 250_000
_MOST_AXES_AS_SVG = 6
_DPI = 130
_MAX_CURVES = 12
_MAX_ROWS_BEHIND = 2_000
_MAX_TRIALS_IN_FULL = 10_000
_MAX_GROUPS_DRAWN = 24


@dataclass(frozen=True)
class _Source:
    """What figures and commands need to know of the sweep."""

    sweep: Sweep

    @property
    def path(self) -> str:
        """The sweep's path, as it is best typed from here."""
        path = self.sweep.path
        if "://" in path:
            return path
        relative = os.path.relpath(path)
        return path if relative.startswith("..") else relative

    def command(self, module: str, *flags: str) -> str:
        return " ".join(["python -m", f"analysis.{module}", shlex.quote(self.path), *flags])

    def figure(
        self,
        picture: Picture,
        title: str,
        alt: str,
        *,
        command: str,
        rows: Table,
        caption: str = "",
        images: Any = None,
    ) -> Figure:
        if len(picture.axes) <= _MOST_AXES_AS_SVG:
            svg = render(picture, self.sweep, title, "svg", images)
            if len(svg) <= _LARGEST_SVG:
                return Figure(title, alt, svg=svg, caption=caption, rows=rows, command=command)
        png = render(picture, self.sweep, title, "png", images, dpi=_DPI)
        return Figure(title, alt, png=png, caption=caption, rows=rows, command=command)


def _strength_flag(strength: str) -> tuple[str, ...]:
    return () if strength == "alpha" else (f"--strength {strength}",)


def _interval(low: float, high: float, reason: str, form: str) -> Cell:
    """An interval, sorted by its lower end."""
    return Cell("", reason=reason) if math.isnan(low) else Cell(f"[{low:{form}}, {high:{form}}]", low)


def _number(value: float | None, reason: str, form: str = ".4g") -> Cell:
    if value is None or math.isnan(value):
        return Cell("", reason=reason)
    return Cell(f"{value:{form}}", value)


def _text(value: str | None, reason: str = "none") -> Cell:
    return Cell(value) if value else Cell("", reason=reason)


# --- what was run -----------------------------------------------------------------------------------------------------


def _hours(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _some(values: Sequence[Any], most: int = 6) -> str:
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    if len(shown) <= most:
        return ", ".join(shown)
    return f"{', '.join(shown[:2])} … {shown[-1]} ({len(shown)} values)"


def _distinct(rows: Sequence[Row], name: str) -> list[Any]:
    return sorted({row[name] for row in rows if row[name] is not None})


def _run(source: _Source, rows: Sequence[Row]) -> Section:
    sweep = source.sweep
    times = [row["train_seconds"] or 0.0 for row in rows], [row["measure_seconds"] or 0.0 for row in rows]
    starts, ends = _distinct(rows, "started_at"), _distinct(rows, "finished_at")
    commits = Counter((row["git_commit"], row["git_dirty"]) for row in rows if row["git_commit"])
    pairs: list[tuple[str, Cell | str]] = [
        ("Record", source.path),
        ("Hash of the record", sweep.content_hash),
        ("Trials", f"{len(rows)}, of {replicates(rows)}"),
        ("Methods", _text(_some(_distinct(rows, "method")))),
        ("Data sets", _text(_some(_distinct(rows, "dataset")))),
        ("Networks", _text(", ".join(sorted({f"{r['model']} (width {r['width']})" for r in rows if r["model"]})))),
        ("Epochs", _text(_some(_distinct(rows, "epochs")))),
        ("Batch size", _text(_some(_distinct(rows, "batch_size")))),
        ("Optimiser", _text(", ".join(f"{o}, learning rate {lr:g}" for o, lr in _optimisers(rows)))),
    ]
    for name in differing([row for row in rows if row["method"] != "baseline"]):
        several = len(_distinct(rows, name)) > 1
        if several and name not in ("dataset", "model", "width", "method", "epochs", "batch_size"):
            pairs.append((f"Swept: {name}", _text(_some(_distinct(rows, name)), "not set anywhere")))
    pairs += [
        ("Started", _text(starts[0].strftime("%Y-%m-%d %H:%M UTC") if starts else "", "not recorded")),
        ("Finished", _text(ends[-1].strftime("%Y-%m-%d %H:%M UTC") if ends else "", "not recorded")),
        ("Cost", f"{_hours(sum(times[0]))} of training, {_hours(sum(times[1]))} of measuring, over all trials"),
        ("Throughput", _rate(rows)),
        ("Interruptions survived", str(sum((row["attempts"] or 1) - 1 for row in rows))),
        ("Devices", _text(_some(_distinct(rows, "device")), "not recorded")),
        ("Hosts", _text(_some(_distinct(rows, "host")), "not recorded")),
        ("Versions", _text("; ".join(_versions(rows)), "not recorded")),
        ("Commits", _text("; ".join(_commit(*entry, n) for entry, n in commits.most_common(6)), "not recorded")),
        ("Schema", str(SCHEMA_VERSION)),
    ]
    blocks: list[Block] = [Facts(pairs)]
    if any(dirty for _, dirty in commits):
        blocks.append(Callout("Some trials ran with uncommitted changes: the commit alone does not give them.", "warn"))
    plan = read_file(f"{sweep.path}/sweep.json")
    if plan is not None:
        contents = json.loads(plan).get("contents", {})
        table = [(name, ", ".join(json.dumps(value) for value in values)) for name, values in sorted(contents.items())]
        if table:
            columns = (Column("setting"), Column("value"))
            note = "What the sweep's name is tied to; strengths and seeds may be added."
            blocks.append(Table("The plan's fixed part (sweep.json)", columns, table, note=note, collapsed=True))
    return Section("What was run", blocks)


def _optimisers(rows: Sequence[Row]) -> list[tuple[str, float]]:
    known = {(row["optimizer"], row["learning_rate"]) for row in rows if row["optimizer"] and row["learning_rate"]}
    return sorted(known)


def _rate(rows: Sequence[Row]) -> Cell:
    rates = [row["images_per_second"] for row in rows if row["images_per_second"] is not None]
    if not rates:
        return Cell("", reason="not recorded")
    return Cell(f"{np.median(rates):,.0f} images/s a trial (median)")


def _versions(rows: Sequence[Row]) -> list[str]:
    return [
        f"{name} {_some(_distinct(rows, column))}"
        for name, column in (("project", "project_version"), ("Python", "python"), ("torch", "torch"), ("Ray", "ray"))
        if _distinct(rows, column)
    ]


def _commit(commit: str, dirty: bool | None, n: int) -> str:
    return f"{commit[:10]}{' with uncommitted changes' if dirty else ''} ({count(n, 'trial')})"


# --- status -----------------------------------------------------------------------------------------------------------


def _status(rows: Sequence[Row], columns: Sequence[str]) -> Section:
    counts = Counter(row["status"] for row in rows)
    blocks: list[Block | Subsection] = [
        Bullets([f"{count(counts[status], 'trial')} {status}" for status in ("completed", "diverged", "failed")])
    ]
    for status, words, tone in (
        ("failed", "raised an error and count nowhere; the sweep's --retry-failed runs them again", "bad"),
        ("diverged", "had a loss that was not finite; they count, with the accuracy of chance", "warn"),
    ):
        those = [row for row in rows if row["status"] == status]
        if those:
            shown = [
                (
                    row["trial_id"],
                    _named(row, columns),
                    _seed(row),
                    Cell(_first_line(row["error"]), tone="bad" if status == "failed" else "warn")
                    if row["error"]
                    else Cell("", reason="no message recorded"),
                )
                for row in those
            ]
            names = (Column("trial"), Column("setting"), Column("seed", "number"), Column("message"))
            verb = f"{count(len(those), 'trial')} {words}."
            blocks.append(Callout(verb, "bad" if tone == "bad" else "warn"))
            blocks.append(Table(f"Trials that {status}", names, shown))
    short = _short_of_seeds(rows, columns)
    if short:
        blocks.append(Callout(short, "warn"))
    blocks.append(_all_trials(rows, columns))
    return Section("The trials", blocks)


def _seed(row: Row) -> Cell:
    return Cell(str(row["seed"]) if row["fold"] is None else f"{row['seed']}, fold {row['fold']}", row["seed"])


def _first_line(error: str) -> str:
    return error.strip().splitlines()[-1][:300] if error.strip() else "no message"


def _named(row: Row, columns: Sequence[str]) -> str:
    if row["method"] == "baseline":
        return "baseline"
    values = {name: row[name] for name in columns if row[name] is not None}
    return label(values) if values else str(row["method"])


def _short_of_seeds(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Settings that lack seeds that others have, in a sentence; "" if there are none."""
    finished = [row for row in rows if row["status"] != "failed"]
    seeds = {group.label(): len({replicate(row) for row in group.trials}) for group in grouped(finished, columns)}
    most = max(seeds.values(), default=0)
    fewer = [name for name, n in seeds.items() if n < most]
    if not fewer:
        return ""
    shown = "; ".join(fewer[:4]) + ("; …" if len(fewer) > 4 else "")
    return (
        f"{count(len(fewer), 'setting')} of {len(seeds)} {'has' if len(fewer) == 1 else 'have'} fewer than {most} "
        f"seeds finished: {shown}."
    )


def _all_trials(rows: Sequence[Row], columns: Sequence[str]) -> Table:
    metrics = ("top1", "top5", "loss", "total_variation")
    measured = [name for name in metrics if any(row[name] is not None for row in rows)]
    named = (Column("trial"), Column("setting"), Column("seed", "number"), Column("status"))
    numbers = tuple(Column(axis_name(name), "number") for name in measured)
    columns_of = (*named, *numbers, Column("minutes", "number", "training and measuring"), Column("attempts", "number"))
    tones: dict[str, Any] = {"completed": "", "diverged": "warn", "failed": "bad"}
    shown = []
    for row in rows[:_MAX_TRIALS_IN_FULL]:
        reason = {"failed": "failed", "diverged": "diverged"}.get(row["status"], "not measured")
        minutes = ((row["train_seconds"] or 0.0) + (row["measure_seconds"] or 0.0)) / 60
        shown.append(
            (
                row["trial_id"],
                _named(row, columns),
                _seed(row),
                Cell(row["status"], tone=tones[row["status"]]),
                *(_number(row[name], reason) for name in measured),
                Cell(f"{minutes:.1f}", round(minutes, 2)),
                Cell(str(row["attempts"] or 1), row["attempts"] or 1),
            )
        )
    note = "All columns, hyperparameters and provenance among them, are in the record's trials table."
    if len(rows) > len(shown):
        note = f"The first {len(shown)} of {len(rows)} trials. {note}"
    return Table("Every trial", columns_of, shown, note=note, collapsed=len(rows) > 40)


# --- tipping points ---------------------------------------------------------------------------------------------------


def _by_strength(
    groups: Sequence[tuple[str, Sequence[float], Sequence[float]]], strength: str, metric: str, caption: str
) -> Table:
    """What a figure against strength shows: mean, deviation and n by group and strength."""
    rows = []
    for name, x, y in groups:
        values = np.asarray(y, dtype=float)
        for one in sorted(set(x)):
            own = values[np.asarray(x) == one]
            spread = _number(float(own.std(ddof=1)), "", ".4g") if len(own) > 1 else Cell("", reason="one trial")
            mean = float(own.mean())
            rows.append(
                (name, Cell(f"{one:.6g}", one), _number(mean, "not measured"), spread, Cell(str(len(own)), len(own)))
            )
    columns = (
        Column("setting"),
        Column(strength, "number"),
        Column(f"mean {metric}", "number"),
        Column("standard deviation", "number"),
        Column("trials", "number"),
    )
    return _behind(caption, columns, rows)


def _behind(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Entry]]) -> Table:
    """The rows behind a figure, no more than keep the page small."""
    most = _MAX_ROWS_BEHIND
    note = f"The first {most} of {len(rows)} rows; the record has all." if len(rows) > most else ""
    return Table(caption, columns, rows[:most], note=note)


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
        Column("paper's rule", "number", "smallest strength whose mean lies below that share of the reference level"),
        Column("its limit", "number", "the reference level is the mean below it; the paper's own is 1e5"),
        Column("trials", "number"),
        Column("flags"),
    )
    blocks: list[Block] = [Table("Tipping points", columns, rows)]
    command = source.command("tipping_points", *_strength_flag(strength))
    drawn = figure_groups(result)
    shown = drawn[:_MAX_GROUPS_DRAWN]
    if shown:
        picture = strength_figure(shown, strength=strength, metric=result.metric.name, share=result.share)
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
        return f"{start}accuracy has collapsed from the smallest {symbol} on ({numbers})"
    return f"{start}whether accuracy tips over is inconclusive ({numbers}): add seeds or strengths"


def _symbol(strength: str) -> str:
    return {"alpha": "α", "sigma": "σ", "gamma": "γ", "eta": "η", "sparsity": "λ"}.get(strength, strength)


# --- correlations -----------------------------------------------------------------------------------------------------


def _correlated(test: Test, adjusted: float, result: Correlations) -> str:
    """A correlation in plain words."""
    where = "" if not test.group.values else f"{test.group.label()}: "
    until = "" if math.isinf(test.limit) else f" until {_symbol(result.strength)} = {test.limit:.3g}"
    numbers = f"ρ = {test.rho.rho:.2f}, p = {p_text(adjusted)}, {ADJUSTMENTS[result.adjustment]}, {test.kept} models"
    name = axis_name(test.quantity.metric) + (f" of {test.quantity.component}" if test.quantity.component else "")
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
        Column("p", "number", "two-sided, by permutation"),
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


def _p(value: float, reason: str, tone: Any = "") -> Cell:
    return Cell("", reason=reason) if math.isnan(value) else Cell(p_text(value), value, tone=tone)


def _tone(change: float, p_value: float, quantity: Quantity) -> Literal["", "good", "bad"]:
    """Whether a change that was shown is for the better."""
    if math.isnan(p_value) or p_value >= 0.05 or quantity.direction not in ("max", "min"):
        return ""
    return "good" if (change > 0) == (quantity.direction == "max") else "bad"


def _metric_figure(source: _Source, drawn: Sequence[MetricPanel], result: Correlations) -> Figure:
    picture = metric_figure(
        drawn, strength=result.strength, excluded=beyond(result), columns=2 if len(drawn) <= 6 else 3
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


# --- comparisons ------------------------------------------------------------------------------------------------------


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
        table = Table(
            f"{axis_name(result.quantity.metric)}: settings and the baseline", columns, rows, collapsed=len(rows) > 40
        )
        command = source.command("comparisons", "--metric", result.quantity.name)
        picture = forest(result)
        alt = (
            f"Differences in {axis_name(result.quantity.metric)} from the unregularised trials with 95% intervals, a "
            f"row for each of {count(min(len(rows), 40), 'setting')}. {_compared(result)}."
        )
        title = f"{axis_name(result.quantity.metric)}: difference from the baseline"
        blocks.append(table)
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
    return f"{axis_name(result.quantity.metric)}, {settings}: {', '.join(parts)} ({ADJUSTMENTS[result.adjustment]})"


# --- what it buys -----------------------------------------------------------------------------------------------------


def _pareto(source: _Source, rows: Sequence[Row], strength: str) -> list[Block]:
    """Accuracy against each thing that was measured: which settings no other beats in both."""
    sweep = source.sweep
    known = quantities(sweep)
    others = [q for name, q in known.items() if name not in ("top1", "top5", "loss") and q.direction in ("max", "min")]
    accuracy = {trial: value.value for trial, value in values_of(sweep, known["top1"]).items()}
    blocks: list[Block] = []
    for quantity in others[:6]:
        value = {trial: one.value for trial, one in values_of(sweep, quantity).items() if math.isfinite(one.value)}
        usable = [row for row in rows if row["trial_id"] in value and row["trial_id"] in accuracy]
        regular = [row for row in usable if row["method"] != "baseline"]
        columns = [name for name in differing(regular) if name != strength]
        groups, data = [], []
        plain = [row for row in usable if row["method"] == "baseline"]
        for group in [*grouped(regular, columns)]:
            settings = grouped(group.trials, [strength])
            name = group.label() if columns else axis_name(strength)
            xs = [[value[row["trial_id"]] for row in setting.trials] for setting in settings]
            ys = [[accuracy[row["trial_id"]] for row in setting.trials] for setting in settings]
            names = [
                f"{setting.values[strength]:.3g}" if setting.values[strength] is not None else ""
                for setting in settings
            ]
            groups.append(ParetoGroup(name, xs, ys, names))
            data += [
                (f"{name}, {strength}={n}", float(np.mean(x)), float(np.mean(y)), len(x))
                for n, x, y in zip(names, xs, ys, strict=True)
            ]
        if plain:
            xs = [[value[row["trial_id"]] for row in plain]]
            ys = [[accuracy[row["trial_id"]] for row in plain]]
            groups.append(ParetoGroup("baseline", xs, ys, ["baseline"]))
            data.append(("baseline", float(np.mean(xs)), float(np.mean(ys)), len(plain)))
        if not regular or len(groups) > 6 or len(data) < 2:
            continue
        direction: Any = quantity.direction
        spread = [x for _, x, _, _ in data if x > 0]
        bars: Any = "ci" if min(n for *_, n in data) > 2 else "range"  # the t interval of two seeds has no end
        log_x = len(spread) == len(data) and max(spread) / min(spread) > 100
        picture = pareto_figure(
            groups, x=quantity.metric, y="top1", x_direction=direction, y_direction="max", bars=bars, log_x=log_x
        )
        columns_of = (
            Column("setting"),
            Column(quantity.name, "number"),
            Column("top1", "number"),
            Column("trials", "number"),
        )
        table = _behind(f"Accuracy and {quantity.name} by setting", columns_of, data)
        better = "more" if direction == "max" else "less"
        title = f"Accuracy against {quantity.name}"
        alt = (
            f"Top-1 accuracy against {quantity.name} ({better} is better) by setting; the settings that no other beats "
            "in both are joined."
        )
        blocks.append(source.figure(picture, title, alt, command=source.command("report"), rows=table))
    return blocks


def _epochs(source: _Source, rows: Sequence[Row], columns: Sequence[str]) -> list[Block]:
    """Accuracy over the epochs by setting: all of them, or as many as can be told apart, evenly over the strengths."""
    finished = [row for row in rows if row["status"] != "failed"]
    groups = grouped(finished, columns)
    chosen = evenly(groups, _MAX_CURVES)
    ids = {row["trial_id"]: index for index, group in enumerate(chosen) for row in group.trials}
    table = source.sweep.epochs
    table = table.filter(pc.is_in(table["trial_id"], value_set=pa.array(list(ids), pa.string())))
    table = table.filter(pc.is_valid(table["top1"])).select(["trial_id", "epoch", "top1"])
    by_trial: dict[str, dict[int, float]] = {}
    for row in table.to_pylist():
        by_trial.setdefault(row["trial_id"], {})[row["epoch"]] = row["top1"]
    shown, data = {}, []
    for group in chosen:
        series = [by_trial[row["trial_id"]] for row in group.trials if row["trial_id"] in by_trial]
        epochs = sorted({epoch for one in series for epoch in one})
        if not epochs:
            continue
        values = np.array([[one.get(epoch, math.nan) for epoch in epochs] for one in series])
        name = _named(group.trials[0], columns)
        shown[name] = np.array(epochs), values
        for index in evenly(range(len(epochs)), 12):
            known = values[:, index][np.isfinite(values[:, index])]
            data.append((name, epochs[index], float(known.mean()), len(known)))
    if not shown:
        return []
    picture = curves(shown, band="range")
    names = (Column("setting"), Column("epoch", "number"), Column("mean top1", "number"), Column("seeds", "number"))
    note = "" if len(chosen) == len(groups) else f"{len(chosen)} of {len(groups)} settings, evenly chosen. "
    return [
        source.figure(
            picture,
            "Accuracy over the epochs",
            f"Top-1 accuracy on the validation split over the epochs, {count(len(shown), 'setting')}, mean and range "
            "of the seeds.",
            command=source.command("report"),
            rows=Table("Accuracy by epoch (up to 12 of them)", names, data),
            caption=f"{note}Band: from the smallest to the largest seed.",
        )
    ]


# --- the papers -------------------------------------------------------------------------------------------------------


def _papers(source: _Source, tables: Sequence[PaperTable]) -> Section | None:
    blocks: list[Block | Subsection] = []
    drawable = [
        name for name in FIGURES if any(table.item.id == name for table in tables) and not missing(source.sweep, name)
    ]
    for table in tables:
        inner: list[Block] = []
        if table.lines:
            inner.append(_paper_table(table))
        if table.item.id in drawable:
            inner += _paper_figures(source, table)
        if inner:
            blocks.append(Subsection(f"{table.item.id}: {table.item.title}", inner))
    nothing = [table for table in tables if not table.lines and table.item.id not in drawable]
    if nothing:
        rows = [
            (table.item.id, table.item.title, table.item.needs, _text(_lacking(source.sweep, table), "nothing of it"))
            for table in nothing
        ]
        columns = (Column("ID"), Column("table or figure"), Column("needs"), Column("what is missing"))
        blocks.append(Table("What this sweep has nothing of", columns, rows, collapsed=True))
    if not blocks:
        return None
    intro = (
        "The papers' numbers beside ours. agrees: the paper's value lies in our 95% interval over seeds, or the order "
        "of settings that it claims holds (p < .05, Holm); not comparable: data, network or protocol differ."
    )
    return Section("Beside the papers", blocks, intro)


def _lacking(sweep: Sweep, table: PaperTable) -> str:
    name = table.item.id
    return missing(sweep, name) if name in FIGURES and not table.of else table.why


def _paper_table(table: PaperTable) -> Table:
    tones: dict[str, Any] = {"agrees": "good", "differs": "bad", "not comparable": "muted"}
    reasons: dict[str, int] = {}  # what makes a sweep not comparable is the same for many lines
    rows = []
    for line in table.lines:
        percent = line.unit == "%"
        interval = _interval(line.low, line.high, "one seed" if line.n == 1 else "none", ".4g")
        verdict: str = line.verdict or "not judged"
        why = line.why
        if line.verdict == "not comparable":
            verdict, why = f"{verdict} ({reasons.setdefault(why, len(reasons) + 1)})", ""
        rows.append(
            (
                f"{line.row} | {line.column}" + (f" ({line.setting})" if line.setting else ""),
                line.paper,
                _number(line.ours, line.why or "no number", ".2f" if percent else ".4g"),
                interval,
                Cell(str(line.n), line.n),
                _number(line.difference, "a statement without a number", "+.4g"),
                Cell(f"{verdict}: {why}" if why else verdict, tone=tones.get(line.verdict, "")),
                _text(line.order, "none claimed"),
            )
        )
    columns = (
        Column("the paper's row | column", help="in brackets: our setting, where the paper's words leave it open"),
        Column("paper"),
        Column("ours", "number", "mean over seeds; of a trend, ρ or log10 of the tipping point"),
        Column("95% interval", "number"),
        Column("n", "number", "seeds; of a trend, models"),
        Column("difference", "number"),
        Column("verdict"),
        Column("order", help="the order of settings that the paper claims, in ours; p one-sided, Holm"),
    )
    note = "; ".join(f"({number}) {reason}" for reason, number in reasons.items())
    return Table(f"{table.item.id}: {summary(table)}", columns, rows, note=note and f"Not comparable: {note}.")


def _paper_figures(source: _Source, table: PaperTable) -> list[Block]:
    blocks: list[Block] = []
    rows_of = source.sweep.trials.to_pylist()
    ours = f"{_some(_distinct(rows_of, 'dataset'))}; {_some(_distinct(rows_of, 'model'))}"
    for drawn in draw(source.sweep, table.item.id):
        what = axis_name(drawn.suffix.lstrip("-"))
        name = f"As the paper's {table.item.id}{f': {what}' if what else ''}, of this record"
        rows = _behind(
            f"What this figure shows{f': {what}' if what else ''}",
            [Column(column, "number" if numeric else "text") for column, numeric in drawn.columns],
            [[entry if isinstance(entry, str) else _number(entry, "no value") for entry in row] for row in drawn.rows],
        )
        blocks.append(
            source.figure(
                drawn.figure,
                name,
                f"{what[:1].upper()}{what[1:] or 'Panels'} of this record ({ours}), drawn as the paper's "
                f"{table.item.id} is, which is of: {table.item.title}.",
                command=source.command("paper", "--table", table.item.id),
                rows=rows,
                images=drawn.images,
                caption=f"Data and network here: {ours}; in the paper: {table.item.title}.",
            )
        )
    return blocks


# --- the page ---------------------------------------------------------------------------------------------------------


def report(sweep: Sweep, *, strength: str | None = None, seed: int = 0) -> str:
    """The page, HTML. What a sweep has nothing of is said on it.

    `strength` is the column that is swept, by default the first of those with the most values. Raises `InputError` for
    an unknown strength and as reading the record does.
    """
    source = _Source(sweep)
    rows = sweep.trials.to_pylist()
    regular = [row for row in rows if row["method"] != "baseline"]
    columns = differing(regular) if regular else differing(rows)
    chosen = _strength(sweep, regular) if strength is None else strength
    if chosen is not None and chosen not in strengths_of(sweep.trials):
        raise InputError(f"--strength {chosen}: no such strength; there are {', '.join(strengths_of(sweep.trials))}")
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
        for name in [name for name in ("top1", "total_variation") if name in known]:
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
        for name in strengths_of(sweep.trials)
        if name != "alpha_per_image"
    }
    name = max(counts, key=lambda one: counts[one], default=None)
    return name if name is not None and counts[name] > 1 else None


@dataclass
class Flags:
    """A sweep on one self-contained page of HTML."""

    sweep: Positional[str]
    """Folder or s3:// prefix of the sweep."""
    out: str | None = None
    """File or s3:// key of the page; default: analysis/report.html in the sweep's folder."""
    strength: str | None = None
    """Column with the strength; default: the hyperparameter with the most values."""
    seed: int = 0
    """Of the permutations and bootstraps."""


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.report")
    if flags.seed < 0:
        raise InputError(f"--seed {flags.seed}: allowed are whole numbers of at least 0")
    sweep = read_sweep(flags.sweep)
    check_rows(sweep.trials.to_pylist())
    page = report(sweep, strength=flags.strength, seed=flags.seed)
    print(write_file(flags.out or f"{sweep.path}/analysis/report.html", page.encode()))


if __name__ == "__main__":
    run(main)
