"""A sweep on one page: see `analysis.report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tyro.conf import Positional

from analysis.bounds import SEED, Bound
from analysis.command_line import parse, run


@dataclass
class Flags:
    """A sweep on one self-contained page of HTML."""

    sweep: Positional[str]
    """Folder or s3:// prefix of the sweep."""
    pool_code: bool = False
    """Take trials of one setting for one whatever code of the method and the network trained them (column `code`)."""
    skip_damaged: bool = False
    """Leave out trials of which a file is damaged or missing, and say which."""
    out: str | None = None
    """File or s3:// key of the page; default: analysis/report.html in the sweep's folder."""
    strength: str | None = None
    """Column with the strength; default: the hyperparameter with the most values."""
    seed: int = 0
    """Of the permutations and bootstraps."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {"seed": SEED}


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.report")
    # what follows needs numpy, pyarrow and matplotlib, which a wrong flag does not
    from analysis.groups import check_rows
    from analysis.records import write_file
    from analysis.report.build import report
    from analysis.results import read

    sweep = read(flags.sweep, pool_code=flags.pool_code, skip_damaged=flags.skip_damaged)
    check_rows(sweep.rows)
    page = report(sweep, strength=flags.strength, seed=flags.seed)
    print(write_file(flags.out or f"{sweep.path}/analysis/report.html", page.encode()))


if __name__ == "__main__":
    run(main)
