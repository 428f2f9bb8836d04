"""By which code the trials of a record were trained, beside that of this command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.groups import count
from analysis.records import Scan, read_table
from sweeps.plan import Plan, PlannedTrial
from trainables.fingerprint import code_of

UNKNOWN = "unknown"


def code_now(trial: PlannedTrial) -> str | None:
    """The code that this command trains it by."""
    return code_of(type(trial.config.method), trial.config.model.model)


def told_of_codes(plan: Plan, url: str, scan: Scan) -> str:
    """A line on recorded trials of the plan's methods and networks that other code than today's trained, "" for none;
    damaged trials are passed over."""
    if not scan.statuses:
        return ""
    now = {(trial.config.method.name, trial.config.model.model): trial for trial in plan.trials}
    others: dict[str, int] = {}
    columns = ["method", "model", "code", "status"]
    for row in read_table(url, "trials", columns, without=scan.corrupted).to_pylist():
        trial = now.get((row["method"], row["model"]))
        if trial is not None and row["status"] != "failed" and row["code"] != code_now(trial):
            others[row["code"] or UNKNOWN] = others.get(row["code"] or UNKNOWN, 0) + 1
    if not others:
        return ""
    trials, codes = count(sum(others.values()), "recorded trial"), ", ".join(sorted(others))
    return (
        f"{trials} of this sweep by other code of the method or the network than today's (code {codes}): no command "
        "takes these and those of today for one setting, unless --pool-code; under another --name today's trains all"
    )


def named_by_code(plan: Plan, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The settings of planned trials by trial, those of several codes apart."""
    codes: dict[str, set[str | None]] = {}
    for trial in plan.trials:
        if trial.id in rows and rows[trial.id]["status"] != "failed":
            codes.setdefault(trial.setting, set()).add(rows[trial.id]["code"])
    names = {}
    for trial in plan.trials:
        name = trial.setting
        if len(codes.get(name, ())) > 1 and trial.id in rows and rows[trial.id]["code"] != code_now(trial):
            name = f"{name} (code {rows[trial.id]['code'] or UNKNOWN})"
        names[trial.id] = name
    return names
