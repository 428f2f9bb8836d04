"""The papers' tables and figures beside ours: see `analysis.paper`."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from analysis.command_line import InputError, parse, run
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
    pool_code: bool = False
    """Take trials of one setting for one whatever code of the method and the network trained them (column `code`)."""
    skip_damaged: bool = False
    """Leave out trials of which a file is damaged or missing, and say which."""
    out: str | None = None
    """Folder or s3:// prefix for the tables and figures; default: analysis/ in the sweep's folder."""


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.paper")
    if flags.table is not None and flags.table not in ITEMS:
        raise InputError(f"--table {flags.table}: no such table; there are {', '.join(ITEMS)}")
    if flags.sweep is None and not flags.list:
        raise InputError("no sweep is given: give the folder or s3:// prefix of one, or --list")
    # what follows needs numpy, pyarrow and matplotlib, which a wrong flag does not
    from analysis.paper.output import print_list, write_tables
    from analysis.results import read

    how = {"pool_code": flags.pool_code, "skip_damaged": flags.skip_damaged}
    sweep = None if flags.sweep is None else read(flags.sweep, **how)
    if flags.list or sweep is None:
        print_list(sweep)
    else:
        write_tables(sweep, flags.table, flags.out)


if __name__ == "__main__":
    run(main)
