"""Columns of the epochs, by trial."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.groups import numbered_trials
from analysis.lazily import lazily
from analysis.records import Sweep

pc = lazily("pyarrow.compute")


class Series(NamedTuple):
    """A trial's epochs (E,) and, by column, what it had in them (E,), nan where nothing is recorded."""

    epochs: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]


def series(sweep: Sweep, trials: Collection[str], columns: Sequence[str], *, known: bool = False) -> dict[str, Series]:
    """Columns of the epochs of these trials, those that have any; of epochs that are `known` only: in which one of the
    columns is recorded."""
    chosen = pa.array(sorted(trials), pa.string())

    def wanted(part: pa.Table) -> Any:
        mask = pc.is_in(part["trial_id"], chosen)
        if known:
            recorded = pc.is_valid(part[columns[0]])
            for name in columns[1:]:
                recorded = pc.or_(recorded, pc.is_valid(part[name]))
            mask = pc.and_(mask, recorded)
        return mask

    table = sweep.read("epochs", ["trial_id", "epoch", *columns], wanted)
    names, of = numbered_trials(table)
    # a trial's rows stand together
    starts = np.searchsorted(of, np.arange(len(names) + 1))
    numbers = {name: table[name].to_numpy().astype(float) for name in columns}
    epochs = table["epoch"].to_numpy()
    return {
        name: Series(epochs[a:b], {column: values[a:b] for column, values in numbers.items()})
        for name, a, b in zip(names, starts[:-1], starts[1:], strict=True)
    }


def recorded_columns(sweep: Sweep, columns: Sequence[str]) -> dict[str, set[str]]:
    """Which trials have a value in any epoch, of each of these columns; a trial without epochs is in none."""
    key = recorded_columns, tuple(columns)
    if key not in sweep.computed:
        found: dict[str, set[str]] = {name: set() for name in columns}

        def nothing(part: pa.Table) -> Any:
            for name in columns:
                found[name].update(part.filter(pc.is_valid(part[name]))["trial_id"].unique().to_pylist())
            return pc.is_null(part["trial_id"])

        sweep.read("epochs", ["trial_id", *columns], nothing)
        sweep.computed[key] = found
    known: dict[str, set[str]] = sweep.computed[key]
    return known
