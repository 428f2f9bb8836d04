"""Which of the papers' data sets the images of a folder or of Parquet files are said to be."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from analysis.command_line import InputError
from analysis.paper.printed import check_declared
from analysis.records import Sweep


def declared(sweep: Sweep, name: str | None = None) -> Sweep:
    """The sweep with what its data are declared to be in all trials of a data set, where one of them has it; with
    `name` all data that have no name of their own are declared to be that.

    Raises `InputError` for a name that is no paper's data set, data that are known to be another, and a record that
    has two declarations for one data set.
    """
    rows = sweep.trials.select(["dataset", "declared"]).to_pylist()
    said: dict[str, str] = {}
    for row in rows:
        known = row["declared"] if name is None else None
        if known is not None and said.setdefault(row["dataset"], known) != known:
            raise InputError(
                f"{sweep.path}: {row['dataset']} is declared to be {said[row['dataset']]} and {known}; "
                "python -m analysis.paper --as NAME says which"
            )
    if name is not None:
        sets = sorted({row["dataset"] for row in rows})
        unnamed = [dataset for dataset in sets if dataset.startswith(("folder:", "parquet:"))]
        for dataset in unnamed or sets:
            check_declared(name, dataset)
        said = dict.fromkeys(unnamed, name)
    values = [said.get(row["dataset"]) for row in rows]
    if values == [row["declared"] for row in rows]:
        return sweep
    trials = sweep.trials
    place = trials.column_names.index("declared")
    trials = trials.set_column(place, trials.field(place), pa.array(values, pa.string()))
    other = dataclasses.replace(sweep, trials=trials)
    other.__dict__["content_hash"] = sweep.content_hash  # what is read is the same record
    return other
