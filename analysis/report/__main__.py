"""A sweep on one page: see `analysis.report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tyro.conf import Positional

from analysis.bounds import POSITIVE, SEED, Bound
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
    with_stopped: bool = False
    """Count trials that a scheduler ended early as others did better, with their accuracy at that epoch."""
    convention: Literal["batch", "image", "element", "pixel"] | None = None
    """Read α of the gradient penalty in this convention, an exact change of scale; default: as it was swept."""
    out: str | None = None
    """File or s3:// key of the page; default: analysis/report.html in the sweep's folder."""
    strength: str | None = None
    """Column with the strength; default: the hyperparameter with the most values."""
    reference_below: float | None = None
    """The plateau, and the reference level of the paper's rule, are those of strengths weaker than this one; default:
    of the weakest quarter, and beside the papers their own limit (1e5)."""
    seed: int = 0
    """Of the permutations and bootstraps."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {"reference_below": POSITIVE, "seed": SEED}


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.report")
    # what follows needs numpy, pyarrow and matplotlib, which a wrong flag does not
    from analysis.groups import check_rows
    from analysis.records import write_file
    from analysis.report.build import report
    from analysis.results import how_read, read

    sweep = read(flags.sweep, **how_read(flags), convention=flags.convention)
    check_rows(sweep.rows)
    page = report(
        sweep,
        strength=flags.strength,
        reference_below=flags.reference_below,
        convention=flags.convention,
        seed=flags.seed,
    )
    print(write_file(flags.out or f"{sweep.path}/analysis/report.html", page.encode()))


if __name__ == "__main__":
    run(main)
