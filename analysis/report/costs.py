"""A section of the report: accuracy, and what it costs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Picture

from analysis.by_epoch import series
from analysis.changes import short_name
from analysis.figures import ParetoGroup, axis_name, curves, pareto_figure
from analysis.groups import Row, count, differing, digits_of, evenly, grouped, quantities, values_of
from analysis.report.cells import _behind, _named, _Source
from analysis.report.page import Block, Column, Table
from analysis.symbols import all_named, number, symbol

_MAX_CURVES = 12


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
        own_groups = grouped(regular, columns)
        for group, name in zip(own_groups, all_named(own_groups), strict=True):
            settings = grouped(group.trials, [strength])
            name = name if columns else axis_name(strength)
            xs = [[value[row["trial_id"]] for row in setting.trials] for setting in settings]
            ys = [[accuracy[row["trial_id"]] for row in setting.trials] for setting in settings]
            digits = digits_of((setting.values[strength] for setting in settings), 3)
            names = [
                number(setting.values[strength], digits) if setting.values[strength] is not None else ""
                for setting in settings
            ]
            groups.append(ParetoGroup(name, xs, ys, names))
            data += [
                (f"{name}, {symbol(strength)} = {n}", float(np.mean(x)), float(np.mean(y)), len(x))
                for n, x, y in zip(names, xs, ys, strict=True)
            ]
        own = differing(plain)
        for group in grouped(plain, own):
            xs = [[value[row["trial_id"]] for row in group.trials]]
            ys = [[accuracy[row["trial_id"]] for row in group.trials]]
            name = _named(group.trials[0], own, group.digits)
            groups.append(ParetoGroup(name, xs, ys, [name]))
            data.append((name, float(np.mean(xs)), float(np.mean(ys)), len(group.trials)))
        if not regular or len(groups) > 6 or len(data) < 2:
            continue
        direction: Any = quantity.direction
        spread = [x for _, x, _, _ in data if x > 0]
        bars: Any = "ci" if min(n for *_, n in data) > 2 else "range"  # the t interval of two seeds has no end
        log_x = len(spread) == len(data) and max(spread) / min(spread) >= 100
        options = {"x": quantity.metric, "x_direction": direction, "bars": bars, "log_x": log_x}
        draw = functools.partial(_front, groups, options)
        columns_of = (
            Column("setting"),
            Column(short_name(quantity), "number"),
            Column("Top-1", "number"),
            Column("trials", "number"),
        )
        table = _behind(f"Accuracy and {short_name(quantity)} by setting", columns_of, data)
        better = "more" if direction == "max" else "less"
        title = f"Accuracy against {short_name(quantity)}"
        alt = (
            f"Top-1 accuracy against {short_name(quantity)} ({better} is better) by setting; the settings that no "
            "other beats in both are joined."
        )
        blocks.append(source.figure(draw, title, alt, command=source.command("report"), rows=table))
    return blocks


def _front(groups: Sequence[ParetoGroup], options: Mapping[str, Any], narrow: bool) -> Picture:
    return pareto_figure(groups, y="top1", y_direction="max", narrow=narrow, **options)


def _epochs(source: _Source, rows: Sequence[Row], columns: Sequence[str]) -> list[Block]:
    """Accuracy over the epochs by setting: all of them, or as many as can be told apart, evenly over the strengths."""
    finished = [row for row in rows if row["status"] != "failed"]
    groups = grouped(finished, columns)
    chosen = evenly(groups, _MAX_CURVES)
    by_trial = series(source.sweep, {row["trial_id"] for group in chosen for row in group.trials}, ["top1"], known=True)
    shown, data = {}, []
    for group in chosen:
        own = [by_trial[row["trial_id"]] for row in group.trials if row["trial_id"] in by_trial]
        epochs = np.unique(np.concatenate([one.epochs for one in own])).tolist() if own else []
        if not epochs:
            continue
        values = np.full((len(own), len(epochs)), math.nan)
        for index, one in enumerate(own):
            values[index, np.searchsorted(epochs, one.epochs)] = one.values["top1"]
        name = _named(group.trials[0], columns, group.digits)
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
