"""What a person reads of a sweep: its plan before, and its results at the end."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import records
from analysis.command_line import InputError, make_console
from analysis.lazily import lazily
from analysis.options import Options, options_of
from analysis.schema import PER_IMAGE
from sweeps.driver.codes import named_by_code, told_of_codes
from sweeps.driver.decisions import told_of_decisions, told_of_seeds
from sweeps.driver.declared import told_of_declared
from sweeps.driver.estimates import estimated_seconds, keep_steps, known_steps, step_name, time_steps
from sweeps.driver.manifest import check_contents, contents, sweep_url
from sweeps.driver.pending import kept_by_failed, selected, with_checkpoints
from sweeps.driver.usage import Used, of_all_runs
from sweeps.flags import OPTUNA, SweepFlags
from sweeps.plan import Plan
from sweeps.proposers import metrics_of
from sweeps.proposers.proposer import Known, Proposer
from trainables.data import DataInfo
from trainables.metrics import METRICS

pc = lazily("pyarrow.compute")

MOST_SHOWN = 200
"""Settings that a plan lists."""

# of the trials
_COLUMNS = ("trial_id", "status", "error", "epochs", "measured", "code", "top1", "top5", "loss", "total_variation")


def _replicates(flags: SweepFlags) -> str:
    return "seeds" if flags.folds is None else "seeds and folds"


def _with_other_options(
    flags: SweepFlags, numbers: Iterable[tuple[str, str | None, str, str]]
) -> set[tuple[str, str, str]]:
    """Of numbers, each a trial, its column `measured`, metric and component, those that were measured with other
    options than this command's, where there are several kinds of them: they are in no mean with the rest."""
    this = json.dumps(flags.metrics(), sort_keys=True)
    kinds: dict[tuple[str, str], dict[str, Options | None]] = {}
    for trial, measured, metric, component in numbers:
        kinds.setdefault((metric, component), {})[trial] = options_of(measured, metric, component)
    return {
        (trial, *thing)
        for thing, by_trial in kinds.items()
        if len(set(by_trial.values())) > 1
        for trial, options in by_trial.items()
        if options != options_of(this, *thing)
    }


def _tell_of_others(others: set[tuple[str, str, str]]) -> None:
    if others:
        names = ", ".join(sorted({metric for _, metric, _ in others}))
        trials = len({trial for trial, *_ in others})
        print(
            f"{trials} of the trials {'was' if trials == 1 else 'were'} measured with other options ({names}): those "
            "numbers are recorded, and not in the means above",
            file=sys.stderr,
        )


def summarise(flags: SweepFlags, plan: Plan, url: str, console: Console, settings_of: Sequence[Any] = ()) -> int:
    """The table of settings, where the record is and what to type next; the number of failed trials.

    `settings_of`: of a search, its settings as its proposer has them (`Proposer.trials`)."""
    rows: dict[str, dict[str, Any]] = {}
    if records.scan(url).statuses:
        ids, found = plan.ids, records.read_table(url, "trials", _COLUMNS).to_pylist()
        rows = {row["trial_id"]: row for row in found if row["trial_id"] in ids}
    if rows and flags.search in OPTUNA:
        _print_best(flags, url, console, settings_of)
    elif rows and flags.STRENGTH:
        _print_answers(flags, url, console)
    over = _replicates(flags)
    table = Table(title=f"{flags.name or flags.NAME}: mean ± standard deviation over {over}, test split")
    table.add_column("setting", overflow="fold")
    columns = {"top1": "Top-1", "top5": "Top-5", "loss": "loss", "total_variation": "TV"}
    if not any(row["total_variation"] is not None for row in rows.values()):
        del columns["total_variation"]
    for name in ("seeds" if flags.folds is None else "seeds × folds", *columns.values()):
        table.add_column(name, justify="right", no_wrap=True)
    settings: dict[str, list[dict[str, Any]]] = {}
    names = named_by_code(plan, rows)
    for trial in plan.trials:
        settings.setdefault(names[trial.id], [])
        if trial.id in rows:
            settings[names[trial.id]].append(rows[trial.id])
    others = _with_other_options(
        flags,
        [
            (row["trial_id"], row["measured"], name, "")
            for row in rows.values()
            for name in columns
            if row[name] is not None
        ],
    )
    for setting, group in settings.items():
        measured = [row for row in group if row["status"] != "failed"]
        cells = [
            _mean_sd([row[name] for row in measured if (row["trial_id"], name, "") not in others]) for name in columns
        ]
        counts = [(sum(row["status"] == status for row in group), status) for status in ("diverged", "stopped")]
        beside = ", ".join(f"{number} {status}" for number, status in counts if number)
        table.add_row(setting + (f" ({beside})" if beside else ""), str(len(measured)), *cells)
    console.print(table)
    _tell_of_others(others | _print_measured(flags, url, settings, console))
    failed = [row for row in rows.values() if row["status"] == "failed"]
    missing = len(plan.trials) - len(rows)
    for row in failed:
        label = next(trial.label for trial in plan.trials if trial.id == row["trial_id"])
        print(f"failed: {label} ({row['trial_id']}): {row['error']}", file=sys.stderr)
    if failed:
        kept = len(with_checkpoints(url) & {row["trial_id"] for row in failed})
        where = f"; {kept} of them from a checkpoint, which --forget-failed deletes" if kept else ""
        print(
            f"{len(failed)} of {len(plan.trials)} trials failed; --retry-failed runs them again{where}", file=sys.stderr
        )
    if missing:
        print(f"{missing} trials are not finished; the same command goes on with them", file=sys.stderr)
    shown = sweep_url(flags)
    console.print(f"record: {shown}", soft_wrap=True)
    # as the user called this one: through uv, or with the Python of an environment that is active
    runner = "uv run python" if "UV_RUN_RECURSION_DEPTH" in os.environ else "python"
    command = f"analysis.report {shlex.quote(shown)}"
    if flags.search in OPTUNA:
        command = f"analysis.search {shlex.quote(shown)} --metric {shlex.join(metrics_of(flags))}"
    console.print(f"next:   {runner} -m {command}", soft_wrap=True)
    return len(failed) + missing


MOST_ANSWERS = 12


def _print_answers(flags: SweepFlags, url: str, console: Console) -> None:
    """Where accuracy tips, in a line for each curve of the record."""
    from analysis.answer import answers  # scipy, which no plan needs

    try:
        strength = flags.STRENGTH if flags.search != "grid" else None
        found = answers(records.read_sweep(url, skip_damaged=True), strength=strength)
    except InputError as error:
        print(f"no tipping point can be said: {error}", file=sys.stderr)
        return
    judged = [answer for answer in found if answer.curve is not None]
    for answer in judged[:MOST_ANSWERS]:
        console.print(f"{answer.name}: {answer.tipping}", soft_wrap=True)
    if len(judged) > MOST_ANSWERS:
        console.print(f"… and {len(judged) - MOST_ANSWERS} more: python -m analysis.tipping_points", soft_wrap=True)


MOST_BEST = 5
"""Settings that a search ends with, but for those of a Pareto front, which are all shown."""


def _print_best(flags: SweepFlags, url: str, console: Console, settings: Sequence[Any]) -> None:
    """The best settings of a search with their intervals over seeds, and of several objectives the Pareto front; all
    settings are written with their places, 1 for the best or the front. They are those that its standing counts: of
    which no trial is to come; neither the unregularised networks nor what else is recorded."""
    from analysis.results import parquet
    from analysis.search import ranked, search, searched, table  # scipy, which no plan needs

    ended = [one for one in settings if one.state.name == "COMPLETE" and "sweep" not in one.user_attrs]
    counted = {trial for one in ended for trial in one.user_attrs["trial_ids"]}

    try:
        sweep = records.read_sweep(url, skip_damaged=True)
        objectives = searched(sweep, metrics_of(flags))
        every = [one for task in search(sweep, objectives) for one in task.every]
    except InputError as error:
        print(f"the best settings cannot be said: {error}", file=sys.stderr)
        return
    every = [one for one in every if any(row["trial_id"] in counted for row in one.group.trials)]
    found = ranked(every, objectives)
    if not found:
        print("the best settings cannot be said: none has ended with a value", file=sys.stderr)
        return
    best = sum(one.place == 1 for one in found) if len(objectives) > 1 else MOST_BEST
    shown = table(found, objectives)
    what = "the Pareto front" if len(objectives) > 1 else "the best settings"
    printed = Table(title=f"{what}, of {len(found)}: mean over seeds with its 95% interval")
    for number, head in enumerate(shown.columns):
        printed.add_column(head, overflow="fold", justify="left" if number == 1 else "right", no_wrap=number != 1)
    for row in shown.rows[:best]:
        printed.add_row(*row)
    console.print(printed)
    records.write_file(f"{url}/{SETTINGS_FILE}", parquet(shown.data))
    console.print(f"places: {sweep_url(flags)}/{SETTINGS_FILE}", soft_wrap=True)


SETTINGS_FILE = "search/settings.parquet"


def cost_line(what: str, used: Used) -> str:
    """What was used of a cluster, in a line."""
    idle = "" if used.idle_share is None else f" ({100 * used.idle_share:.0f}% idle)"
    parts = [f"{used.cpu_hours:.3g} CPU-hours", f"{used.trial_hours:.3g} trial-hours"]
    if used.gpu_hours > 0:
        parts.insert(0, f"{used.gpu_hours:.3g} GPU-hours")
    parts[0] += idle
    nodes = f"{used.most_workers} node{'' if used.most_workers == 1 else 's'} at most"
    return f"{what}: {', '.join(parts)}; {nodes}"


def print_total(url: str, console: Console, at_least: int) -> None:
    """What all runs of the sweep used, where there have been that many."""
    total, runs, unread = of_all_runs(url)
    for file in unread:
        print(f"{file}: cannot be read; what that run used is not in the sum", file=sys.stderr)
    if runs >= at_least:
        console.print(cost_line(f"used by all {runs} runs of this sweep" if runs > 1 else "used by its one run", total))


def _print_measured(
    flags: SweepFlags, url: str, settings: Mapping[str, Sequence[Mapping[str, Any]]], console: Console
) -> set[tuple[str, str, str]]:
    """The table of what was measured on the trained networks, a row for each setting and component, if anything was;
    what is not in it, as it was measured with other options."""
    if not any(settings.values()):
        return set()
    epochs = {row["trial_id"]: row["epochs"] for group in settings.values() for row in group}
    wanted = ["trial_id", "epoch", "metric", "component", "level", "value"]
    measured = [METRICS[name](**chosen) for name, chosen in flags.metrics().items()]
    details = [metric.is_detail for metric in measured if hasattr(metric, "is_detail")]
    table = records.read_table(
        url, "measurements", wanted, where=lambda part: pc.invert(pc.ends_with(part["metric"], PER_IMAGE))
    )
    found = [
        row
        for row in table.to_pylist()
        if row["epoch"] == epochs.get(row["trial_id"])
        and not any(of(row["metric"], row["component"]) for of in details)
    ]
    options = {row["trial_id"]: row["measured"] for group in settings.values() for row in group}
    others = _with_other_options(
        flags, [(row["trial_id"], options[row["trial_id"]], row["metric"], row["component"] or "") for row in found]
    )
    found = [row for row in found if (row["trial_id"], row["metric"], row["component"] or "") not in others]
    levels: dict[tuple[str, str], set[float | None]] = {}
    for row in found:
        levels.setdefault((row["metric"], row["component"]), set()).add(row["level"])
    values: dict[tuple[str, str, str], float | None] = {}
    for row in found:
        several = row["level"] is not None and len(levels[row["metric"], row["component"]]) > 1
        component = f"{row['component']}@{row['level']:g}" if several else row["component"]
        values[row["trial_id"], row["metric"], component] = row["value"]
    metrics = dict.fromkeys(metric for _, metric, _ in values)
    if not metrics:
        return others
    table = Table(title=f"measured on the trained networks: mean ± standard deviation over {_replicates(flags)}")
    for name in ("setting", "of"):
        table.add_column(name, overflow="fold")
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right", no_wrap=True)
    for component in dict.fromkeys(component for *_, component in values):
        for setting, group in settings.items():
            cells = [
                _mean_sd([values.get((row["trial_id"], metric, component)) for row in group]) for metric in metrics
            ]
            table.add_row(setting, component, *cells)
        table.add_section()
    console.print(table)
    return others


def _mean_sd(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {_digits(statistics.stdev(known))}" if len(known) > 1 else ""
    return f"{_digits(statistics.fmean(known))}{spread}"


def _digits(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"


def tell_of_codes(plan: Plan, url: str, scan: records.Scan, console: Console) -> None:
    """That a part of the record is of other code, if it is."""
    line = told_of_codes(plan, url, scan)
    if line:
        console.print(line, soft_wrap=True)


def print_plan(flags: SweepFlags, plan: Plan, proposer: Proposer | None = None, known: Known | None = None) -> None:
    """--dry-run: how many trials, how many of them recorded, what they are and about how long they take; of a search
    what it may come to at most."""
    search = proposer is not None and bool(proposer.described())
    url = records.location(sweep_url(flags))
    scan = records.scan(url)
    if scan.statuses or scan.corrupted or with_checkpoints(url):
        check_contents(url, contents(flags, plan if proposer is None else proposer.space))
    pending = selected(flags, plan, scan)
    console = make_console()
    done, where = len(plan.trials) - len(pending), sweep_url(flags)
    if search:
        assert proposer is not None
        assert known is not None
        pending = proposer.at_most(known)
        console.print(
            f"{flags.search}: at most {len(pending)} trials more, {done} are recorded in {where}", soft_wrap=True
        )
        for line in proposer.described():
            console.print(f"  {line}", soft_wrap=True)
    else:
        console.print(f"{len(plan.trials)} trials planned, {done} of them recorded in {where}", soft_wrap=True)
    if proposer is not None and known is not None and proposer.told(known):
        console.print(proposer.told(known), soft_wrap=True)
    tell_of_codes(plan, url, scan, console)
    kept = kept_by_failed(plan, url, scan) if flags.forget_failed else set()
    if kept:
        console.print(f"checkpoints of failed trials that would be deleted: those of {len(kept)} trials")
    if flags.about:
        console.print(f"preset {flags.preset}: {flags.about}", soft_wrap=True)
    settings: dict[str, int] = {}
    for trial in plan.trials:
        settings[trial.setting] = settings.get(trial.setting, 0) + 1
    folds = flags.folds or 1
    for setting, trials in itertools.islice(settings.items(), 0 if search else MOST_SHOWN):
        seeds = f"{trials // folds} seed{'s' if trials > folds else ''}"
        console.print(f"  {setting}: {seeds}{f' × {folds} folds' if flags.folds else ''}")
    if len(settings) > MOST_SHOWN and not search:
        console.print(f"  … and {len(settings) - MOST_SHOWN} settings more")
    parts = f" in {flags.folds} folds" if flags.folds else ""
    for spec, info in plan.data.items():
        missing = "has to be put there" if info.streamed else "would be downloaded"
        where = "" if info.present else f" (not in {flags.data_root}; it {missing})"
        declared = f", declared as {plan.declared[info.name]}" if info.name in plan.declared else ""
        console.print(f"data {spec}: {_data_set(info, flags)}{parts}{declared}{where}", soft_wrap=True)
    print_notes(flags, plan, console)
    declared = told_of_declared(plan, url, scan, len(pending))
    if declared:
        console.print(declared, soft_wrap=True)
    for line in () if search else (*told_of_seeds(plan), *told_of_decisions(plan)):
        console.print(f"decision: {line}", soft_wrap=True)
    if not pending:
        console.print(f"estimated cost: none, {'the search has ended' if search else 'everything is recorded'}")
        return
    steps = known_steps()
    if flags.estimate:
        measured = time_steps(plan, pending)
        steps |= measured
        try:
            keep_steps(measured)
        except OSError as error:
            print(f"the speed measured is not kept for other plans: {error}", file=sys.stderr)
    lacking = sorted({step_name(plan, trial) for trial in pending} - steps.keys())
    if lacking:
        console.print(
            f"estimated cost: not known, as nothing like it was trained on this machine ({'; '.join(lacking)}); "
            "--dry-run --estimate measures it",
            soft_wrap=True,
        )
        return
    measure = flags.metrics()  # once, as each method of the sweep is made for it
    seconds = sum(estimated_seconds(measure, plan, trial, steps) for trial in pending)
    cores = len(os.sched_getaffinity(0))
    most = "at most " if search else ""
    console.print(
        f"estimated cost: {most}{seconds / 3600:.2g} core-hours at this machine's speed with one core a trial "
        f"(about {_duration(seconds / cores)} on its {cores} cores)"
    )


def _data_set(info: DataInfo, flags: SweepFlags) -> str:
    """Its classes, the images of each split, and how they are trained on."""
    own = f"{info.validation_images} to validate + " if info.validation_images else ""
    images = f"{info.train_images} to train + {own}{info.test_images} to test"
    shown = ", ".join(info.class_names[:_NAMES]) + (", …" if info.classes > _NAMES else "")
    size = flags.image_size or info.size
    return f"{info.classes} classes ({shown}), images {images}, {size}×{size} {_COLOURS[info.channels]}"


def print_notes(flags: SweepFlags, plan: Plan, console: Console) -> None:
    """What of the data is skipped, what is converted, and what is in two splits, if anything."""
    for spec, info in plan.data.items():
        for line in info.told(flags.image_size or info.size, info.channels):
            console.print(f"data {spec}: {line}", soft_wrap=True)
    for spec, info in plan.others.items():
        for home in plan.data.values():
            for line in info.told(flags.evaluation_size or flags.image_size or home.size, home.channels):
                console.print(f"data {spec} (--shift): {line}", soft_wrap=True)


_NAMES = 3
_COLOURS = {1: "grey", 3: "in colour"}


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
