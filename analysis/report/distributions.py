"""Sections of the report: how runs are distributed over seeds, and where else to look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.groups import quantities
from analysis.profiles import FEW_RUNS, Profiles, profiles
from analysis.report.cells import _number, _Source, _spanned
from analysis.report.page import Cell, Column, Entry, Section, Table, Text
from analysis.symbols import all_named


def _distributions(source: _Source) -> Section | None:
    """Performance profiles and probabilities of improvement; None where no setting has the runs for it, as a profile of
    two is two steps, and its band knows nothing."""
    if "top1" not in quantities(source.sweep):
        return None
    result = profiles(source.sweep, seed=source.seed)
    if max(one.n for one in result) < FEW_RUNS:
        return None
    figure = source.figure(
        lambda narrow: result.figure(narrow=narrow),
        "Performance profiles",
        "the share of runs with an accuracy above τ against τ, with a band for each setting, and the probability that "
        "a run is better than an unregularised one",
        command=source.command("profiles"),
        caption="The settings most probably better; 95% bands and intervals by stratified bootstraps over seeds.",
        rows=_rows(result),
    )
    return Section(
        "How runs are distributed",
        [figure, Text(result.notes)],
        intro="What a single run is like, where means say what many are like (Agarwal et al. 2021).",
    )


def _rows(result: Profiles) -> Table:
    rows: list[Sequence[Entry]] = []
    for one, name in zip(result, all_named([one.group for one in result]), strict=True):
        p = one.improvement
        reason = one.reason or "no unregularised trial"
        told = Cell("", reason=reason) if p is None else _spanned(p.value, p.low, p.high, reason)
        quarters = np.quantile(np.concatenate(one.scores), [0.25, 0.5, 0.75])
        cells = [_number(float(value), "", ".4f") for value in quarters]
        rows.append((name or one.group.label(), Cell(str(one.n), one.n), told, *cells))
    columns = (
        Column("setting"),
        Column("runs", "number"),
        Column("P(better)", "number", "probability that a run is better than an unregularised one, with its interval"),
        Column("lowest quarter", "number", "Top-1 that a quarter of the runs is below"),
        Column("median", "number", "of the runs' Top-1"),
        Column("highest quarter", "number", "Top-1 that a quarter of the runs is above"),
    )
    return Table("Runs by setting", columns, rows)


def _search(source: _Source) -> Section | None:
    """Where the best settings and the charts of a search are; None where there is nothing to search in."""
    known = quantities(source.sweep)
    metrics = [name for name in ("top1", "total_variation") if name in known]
    if not metrics or all(row["method"] == "baseline" for row in source.sweep.rows):
        return None
    command = source.command("search", f"--metric {' '.join(metrics)}")
    return Section(
        "The search",
        [Text(["Not here, as the script that draws them is larger than this page:", command])],
        intro="The best settings, the importance of hyperparameters, slices, parallel coordinates, history and the "
        "Pareto front, with charts to look closer at, are a page of their own.",
    )
