"""What a plan's data are declared to be (--as), beside what the record says of them."""

from __future__ import annotations

import shlex

from analysis.command_line import InputError
from analysis.records import Scan, read_table
from sweeps.plan import Plan


def told_of_declared(plan: Plan, url: str, scan: Scan, pending: int) -> str:
    """That recorded trials say nothing of it and no other will be run, in a line; else "". A trial is never changed.

    Raises `InputError` if they say that the data are another data set.
    """
    if not plan.declared or not scan.statuses:
        return ""
    said: dict[str, set[str]] = {}
    for row in read_table(url, "trials", ["trial_id", "dataset", "declared"]).to_pylist():
        if row["dataset"] in plan.declared:
            said.setdefault(row["dataset"], set()).update({row["declared"]} - {None})
    for dataset, names in said.items():
        others = names - {plan.declared[dataset]}
        if others:
            raise InputError(
                f"as: {plan.declared[dataset]}, allowed is {others.pop()}, which {url} has for {dataset}; give this "
                "one another --name"
            )
    silent = [dataset for dataset, names in said.items() if not names]
    if pending or not silent:
        return ""
    name = plan.declared[silent[0]]
    return (
        f"the recorded trials do not say that {silent[0]} is {name}, and stay as they are: python -m analysis.paper "
        f"{shlex.quote(url)} --as {name} takes them for it"
    )
