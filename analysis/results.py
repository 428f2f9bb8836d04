"""What the commands of the statistics have in common: their flags, tables that are null for nan, the files written."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from tyro.conf import Positional

from analysis.bounds import POSITIVE, SEED, Bound
from analysis.conventions import Convention, converted
from analysis.formats import Format, beside
from analysis.groups import count, out_folder
from analysis.lazily import lazily
from analysis.records import Sweep, read_sweep, write_file
from analysis.schema import SCHEMA_VERSION, Stronger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

pq = lazily("pyarrow.parquet")

_SHOWN_DAMAGED = 5


@dataclass
class SweepFlags:
    """What each of them is told."""

    sweep: Positional[str]
    """Folder or s3:// prefix of the sweep."""
    by: tuple[str, ...] | None = None
    """One curve or test for each combination of these columns' values; default: all settings that differ."""
    pool_code: bool = False
    """Take trials of one setting for one whatever code of the method and the network trained them (column `code`)."""
    skip_damaged: bool = False
    """Leave out trials of which a file is damaged or missing, and say which."""
    with_stopped: bool = False
    """Count trials that a scheduler ended early as others did better, with their accuracy at that epoch."""
    convention: Convention | None = None
    """Read α of the gradient penalty in this convention, an exact change of scale; default: as it was swept."""
    out: str | None = None
    """Folder or s3:// prefix for the tables and the figure; default: analysis/ in the sweep's folder."""
    format: Format | None = None
    """Print the table as CSV (numbers in full), Markdown or LaTeX (for booktabs), and all else on standard error."""


@dataclass
class StrengthFlags(SweepFlags):
    """What those are told that look at scores against strength."""

    strength: str = "alpha"
    """Column with the strength."""
    stronger: Stronger | None = None
    """Which values of it are stronger; default: larger, but for pixels, interval and gamma."""
    share: float = 0.8
    """The tipping point is where accuracy falls to this share of its plateau (a loss: rises to the plateau / share)."""
    reference_below: float | None = None
    """The plateau is that of strengths weaker than this one (the paper: 1e5); default: of the weakest quarter."""
    seed: int = 0
    """Of the permutations and bootstraps."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "share": Bound(0, 1, above=True, below=True),
        "reference_below": POSITIVE,
        "seed": SEED,
    }


def how_read(flags: Any) -> dict[str, bool]:
    """What a command's flags say of how its record is read."""
    return {name: getattr(flags, name) for name in ("pool_code", "skip_damaged", "with_stopped")}


def read(
    path: str, *, pool_code: bool, skip_damaged: bool, with_stopped: bool, convention: Convention | None = None
) -> Sweep:
    """A command's record, with α of the gradient penalty in this convention (default: as it was swept); what is left
    out of it as damaged is told on standard error. Raises as `read_sweep` and `converted` do."""
    # Arrow's own keeps memory that a command no longer needs
    pa.set_memory_pool(pa.system_memory_pool())
    sweep = read_sweep(path, pool_code=pool_code, skip_damaged=skip_damaged, with_stopped=with_stopped)
    if sweep.damaged:
        print(f"left out, as damaged: {told_of_damaged(sweep)}", file=sys.stderr)
    if sweep.stopped:
        print(f"left out, as stopped early: {told_of_stopped(sweep)}", file=sys.stderr)
    return sweep if convention is None else converted(sweep, convention)


def told_of_damaged(sweep: Sweep) -> str:
    """How many trials are left out of a record, and why."""
    shown = list(sweep.damaged.values())[:_SHOWN_DAMAGED]
    more = f"; and {len(sweep.damaged) - len(shown)} more" if len(sweep.damaged) > len(shown) else ""
    return f"{count(len(sweep.damaged), 'trial')}: {'; '.join(shown)}{more}"


def told_of_stopped(sweep: Sweep) -> str:
    """How many trials are left out of a record as a scheduler ended them, and what counts them."""
    return f"{count(len(sweep.stopped), 'trial')} (--with-stopped counts them)"


def arrow(fields: Iterable[pa.Field], rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of these columns, null where a number is nan."""
    known = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]
    return pa.Table.from_pylist(known, schema=pa.schema(fields, {"schema_version": str(SCHEMA_VERSION)}))


def parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def finish(
    sweep: Sweep,
    out: str | None,
    name: str,
    *,
    tables: Mapping[str, pa.Table],
    figure: Figure,
    say: Callable[[], None],
    form: Format | None = None,
    images: int | None = None,
) -> None:
    """The end of a command: write the tables, by what their names have after the command's `name`, and the figure (its
    numbers are of so many `images`), then `say` what was found, and where it was written: beside what is printed in a
    format.

    Nothing is written before all of it is made. Raises `InputError` if it cannot be written.
    """
    from analysis.figures import files

    stem = f"{out_folder(out, sweep)}/{name}"
    contents = {f"{stem}{end}.parquet": parquet(table) for end, table in tables.items()}
    contents |= files(figure, stem, sweep, images=images)
    written = [write_file(path, content) for path, content in contents.items()]
    say()
    with beside(form):
        for path in written:
            print(path)
