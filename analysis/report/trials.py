"""Sections of the report: what was run, and the trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.changes import short_name
from analysis.figures import axis_name
from analysis.groups import Quantity, Row, count, differing, grouped, key_order, replicate, replicates
from analysis.records import read_file
from analysis.report.cells import _digits, _distinct, _named, _number, _some, _Source, _text
from analysis.report.page import Block, Bullets, Callout, Cell, Column, Facts, Section, Subsection, Table
from analysis.report.tables import fitted
from analysis.schema import SCHEMA_VERSION, STATUSES
from analysis.symbols import all_named, method_name, symbol

_MAX_TRIALS_IN_FULL = 10_000


def _hours(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _run(source: _Source, rows: Sequence[Row]) -> Section:
    sweep = source.sweep
    times = [row["train_seconds"] or 0.0 for row in rows], [row["measure_seconds"] or 0.0 for row in rows]
    starts, ends = _distinct(rows, "started_at"), _distinct(rows, "finished_at")
    commits = Counter((row["git_commit"], row["git_dirty"]) for row in rows if row["git_commit"])
    pairs: list[tuple[str, Cell | str]] = [
        ("Record", source.path),
        ("Hash of the record", sweep.content_hash),
        ("Trials", f"{len(rows)}, of {replicates(rows)}"),
        ("Methods", _text(_some([method_name(name) for name in _distinct(rows, "method")]))),
        ("Data sets", _text(_some(_distinct(rows, "dataset")))),
        ("Networks", _text(", ".join(sorted({f"{r['model']} (width {r['width']})" for r in rows if r["model"]})))),
        ("Epochs", _text(_some(_distinct(rows, "epochs")))),
        ("Batch size", _text(_some(_distinct(rows, "batch_size")))),
        ("Optimiser", _text(", ".join(f"{o}, learning rate {lr:g}" for o, lr in _optimisers(rows)))),
    ]
    for name in differing([row for row in rows if row["method"] != "baseline"]):
        several = len(_distinct(rows, name)) > 1
        if (
            several
            and not name.startswith("code.")
            and name not in ("dataset", "model", "width", "method", "epochs", "batch_size")
        ):
            pairs.append((f"Swept: {symbol(name)}", _text(_some(_distinct(rows, name)), "not set anywhere")))
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
        ("Code of method and network", _text("; ".join(_codes(rows)))),
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


def _codes(rows: Sequence[Row]) -> list[str]:
    """By which code the trials of each method and network were trained."""
    codes = Counter((method_name(row["method"]), row["model"], row["code"] or "unknown") for row in rows)
    return [f"{method}, {model}: {code} ({count(n, 'trial')})" for (method, model, code), n in sorted(codes.items())][
        :12
    ]


def _status(rows: Sequence[Row], columns: Sequence[str]) -> Section:
    counts = Counter(row["status"] for row in rows)
    digits = _digits(rows, columns)
    blocks: list[Block | Subsection] = [
        Bullets(
            [
                f"{count(counts[status], 'trial')} {status}"
                for status in STATUSES
                if counts[status] or status != "stopped"
            ]
        )
    ]
    for status, words, tone in (
        ("failed", "raised an error and count nowhere; the sweep's --retry-failed runs them again", "bad"),
        (
            "diverged",
            "had a loss that was not finite, or absurd at the end; they count, with what they have",
            "warn",
        ),
        (
            "stopped",
            "ended before the last epoch, by a scheduler's rule; they count, with their accuracy then",
            "warn",
        ),
    ):
        those = [row for row in rows if row["status"] == status]
        if those:
            shown = [
                (
                    row["trial_id"],
                    _named(row, columns, digits),
                    _seed(row),
                    _message(row),
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
    blocks += _all_trials(rows, columns)
    return Section("The trials", blocks)


def _seed(row: Row) -> Cell:
    return Cell(str(row["seed"]) if row["fold"] is None else f"{row['seed']}, fold {row['fold']}", row["seed"])


def _message(row: Row) -> Cell:
    if row["status"] == "stopped":
        return Cell(f"after epoch {row['stopped_at_epoch']} of {row['epochs']}, by {row['stopped_by']}", tone="warn")
    if row["error"]:
        return Cell(_first_line(row["error"]), tone="bad" if row["status"] == "failed" else "warn")
    return Cell("", reason="no message recorded")


def _first_line(error: str) -> str:
    return error.strip().splitlines()[-1][:300] if error.strip() else "no message"


def _short_of_seeds(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Settings that lack seeds that others have, in a sentence; "" if there are none."""
    finished = [row for row in rows if row["status"] != "failed"]
    groups = grouped(finished, columns)
    names = [name or "all trials" for name in all_named(groups)]
    seeds = [(name, len({replicate(row) for row in group.trials})) for group, name in zip(groups, names, strict=True)]
    most = max((n for _, n in seeds), default=0)
    fewer = [name for name, n in seeds if n < most]
    if not fewer:
        return ""
    shown = "; ".join(fewer[:4]) + ("; …" if len(fewer) > 4 else "")
    return (
        f"{count(len(fewer), 'setting')} of {len(seeds)} {'has' if len(fewer) == 1 else 'have'} fewer than {most} "
        f"seeds finished: {shown}."
    )


def _all_trials(rows: Sequence[Row], columns: Sequence[str]) -> list[Block]:
    """Every trial by setting and seed, and the configuration of each: what all share, and what each has of its own."""
    metrics = ("top1", "top5", "loss", "total_variation")
    digits = _digits(rows, columns)
    measured = [name for name in metrics if any(row[name] is not None for row in rows)]
    numbers = tuple(Column(short_name(Quantity(name)), "number", axis_name(name)) for name in measured)
    statuses = {row["status"] for row in rows}
    interrupted = any((row["attempts"] or 1) > 1 for row in rows)
    columns_of = (
        Column("setting"),
        Column("seed", "number"),
        *numbers,
        *([Column("status")] if len(statuses) > 1 else []),
        Column("minutes", "number", "training and measuring"),
        *([Column("attempts", "number", "starts that it took")] if interrupted else []),
        Column("trial"),
    )
    tones: dict[str, Any] = {"completed": "", "diverged": "warn", "stopped": "warn", "failed": "bad"}
    shown = []
    ordered = sorted(rows, key=lambda row: (row["method"] != "baseline", key_order(_place(row, columns))))
    ordered = ordered[:_MAX_TRIALS_IN_FULL]
    for row in ordered:
        reason = "not measured" if row["status"] == "completed" else row["status"]
        minutes = ((row["train_seconds"] or 0.0) + (row["measure_seconds"] or 0.0)) / 60
        shown.append(
            (
                _named(row, columns, digits),
                _seed(row),
                *(_number(row[name], reason) for name in measured),
                *([Cell(row["status"], tone=tones[row["status"]])] if len(statuses) > 1 else []),
                Cell(f"{minutes:.1f}", round(minutes, 2)),
                *([Cell(str(row["attempts"] or 1), row["attempts"] or 1)] if interrupted else []),
                row["trial_id"],
            )
        )
    notes = [f"The first {len(shown)} of {len(rows)} trials."] if len(rows) > len(shown) else []
    notes += [f"All {statuses.pop()}."] if len(statuses) == 1 else []
    notes += [] if interrupted else ["No trial was interrupted."]
    note = " ".join(notes)
    every = Table("Every trial", columns_of, shown, note=note, collapsed=len(rows) > 40)
    return [fitted(every), *_configurations(ordered, columns, digits)]


def _place(row: Row, columns: Sequence[str]) -> list[Any]:
    """Where a trial stands among the others: by the columns that tell settings apart, then by seed."""
    return [*(str(row[name]) if isinstance(row[name], bool) else row[name] for name in columns), *replicate(row)]


def _configurations(rows: Sequence[Row], columns: Sequence[str], digits: Mapping[str, int]) -> list[Block]:
    flat = [_flat(json.loads(row["config"] or "{}")) for row in rows]
    names = sorted({name for one in flat for name in one})
    shared = [name for name in names if len({one.get(name) for one in flat}) == 1]
    blocks: list[Block] = []
    if shared:
        table = [(name, flat[0][name]) for name in shared]
        fields = (Column("field of the configuration"), Column("value"))
        blocks.append(Table("What the configurations of all trials share", fields, table, collapsed=True))
    own = [name for name in names if name not in shared]
    if own:
        entries = [
            (
                row["trial_id"],
                _named(row, columns, digits),
                _seed(row),
                "; ".join(f"{name} = {one[name]}" for name in own if name in one) or "nothing",
            )
            for row, one in zip(rows, flat, strict=True)
        ]
        those = (Column("trial"), Column("setting"), Column("seed", "number"), Column("its configuration beyond that"))
        blocks.append(Table("The configuration of every trial", those, entries, collapsed=True))
    return blocks


def _flat(config: Mapping[str, Any], start: str = "") -> dict[str, str]:
    """A configuration's fields by their names with dots, values as JSON."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{start}{name}.")
        else:
            found[f"{start}{name}"] = json.dumps(value)
    return found
