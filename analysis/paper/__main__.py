"""The papers' tables and figures beside ours: see `analysis.paper`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.conf import Positional

from analysis.bounds import POSITIVE, Bound
from analysis.command_line import InputError, parse, run
from analysis.formats import Format
from analysis.paper.items import ITEMS


@dataclass
class Flags:
    """The papers' tables and figures beside ours."""

    sweep: Positional[str | None] = None
    """Folder or s3:// prefix of the sweep; may be left out with --list."""
    table: str | None = None
    """ID of one table or figure; default: all that the sweep has something of."""
    list: bool = False
    """Every ID, what it needs, and whether the sweep has it; nothing is written."""
    as_: Annotated[str | None, tyro.conf.arg(name="as")] = None
    """Take the sweep's folder or Parquet set for this data set of the papers (cub-200-2011, coco, …); default: what its
    trials were declared to be with --as."""
    convention: Literal["batch", "image", "element", "pixel"] | None = None
    """Read α of the gradient penalty in this convention, an exact change of scale; default: as it was swept."""
    reference_below: float | None = None
    """Limit of the paper's rule: the reference level is that of the strengths below it; default: the paper's own (1e5),
    where it has one."""
    pool_code: bool = False
    """Take trials of one setting for one whatever code of the method and the network trained them (column `code`)."""
    skip_damaged: bool = False
    """Leave out trials of which a file is damaged or missing, and say which."""
    with_stopped: bool = False
    """Count trials that a scheduler ended early as others did better, with their accuracy at that epoch."""
    out: str | None = None
    """Folder or s3:// prefix for the tables and figures; default: analysis/ in the sweep's folder."""
    format: Format | None = None
    """Print the tables, or the list, as CSV (numbers in full), Markdown or LaTeX (for booktabs), and all else on
    standard error."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {"reference_below": POSITIVE}


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.paper")
    if flags.table is not None and flags.table not in ITEMS:
        raise InputError(f"--table {flags.table}: no such table; there are {', '.join(ITEMS)}")
    if flags.sweep is None and not flags.list:
        raise InputError("no sweep is given: give the folder or s3:// prefix of one, or --list")
    # what follows needs numpy, pyarrow and matplotlib, which a wrong flag does not
    from analysis.paper.declared import declared
    from analysis.paper.output import print_list, write_tables
    from analysis.results import how_read, read

    sweep = None if flags.sweep is None else read(flags.sweep, **how_read(flags), convention=flags.convention)
    if sweep is not None and flags.as_ is not None:
        sweep = declared(sweep, flags.as_)
    if flags.list or sweep is None:
        print_list(sweep, flags.format)
    else:
        write_tables(sweep, flags.table, flags.out, flags.reference_below, flags.format)


if __name__ == "__main__":
    run(main)
