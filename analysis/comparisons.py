"""Which settings differ from a reference, over seeds: differences with intervals, tests, and how many seeds they need.

    python -m analysis.comparisons results/pilcro
    python -m analysis.comparisons results/pilcro --metric loss --baseline "alpha=1 variant=curvature" --adjust bh

The reference is the unregularised trials, or the setting that `--baseline` names; it has to agree with a setting in
data set, model and training. Trials of one seed have the same initialisation and the same order of the data, so that
they are compared in pairs; settings without seeds in common by Welch's test. With cross-validation a pair is of one
fold and one seed, and the runs of all folds are the sample: as folds share training images, the tests and intervals
over them are an approximation (Nadeau & Bengio 2003; see `groups.replicate`). `comparisons.parquet` holds a row per
setting, its columns described in the file's own schema.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.against_reference import Comparisons, Tested, comparisons
from analysis.command_line import parse, run
from analysis.comparison_table import forest, notes_of, printed, shown, table, verdict
from analysis.formats import beside, print_tables
from analysis.multiplicity import Adjustment
from analysis.results import SweepFlags, finish, how_read, read
from analysis.two_samples import SIGNIFICANCE, Alternative, Comparison, compare, seeds_needed, stars

__all__ = [
    "SIGNIFICANCE",
    "Alternative",
    "Comparison",
    "Comparisons",
    "Tested",
    "compare",
    "comparisons",
    "forest",
    "seeds_needed",
    "shown",
    "stars",
    "table",
    "verdict",
]


@dataclass
class Flags(SweepFlags):
    """Which settings differ from the unregularised trials, or from another setting, over seeds."""

    by: tuple[str, ...] | None = None
    """A setting is a combination of these columns' values; default: all that differ, the strengths among them."""
    metric: str = "top1"
    """What to compare: a metric of the trials table, or a measurement as metric, metric:component or
    metric:component@level."""
    baseline: tuple[str, ...] | None = None
    """The setting to compare with, as column=value ("alpha=1 variant=curvature"; a missing value is none); default: the
    unregularised trials."""
    alternative: Alternative = "two-sided"
    """greater: only whether a setting's mean is greater than the reference's, whatever is better; less: smaller."""
    adjust: Adjustment = "holm"
    """How p-values are adjusted for the number of tests: Holm, or Benjamini and Hochberg (bh)."""


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.comparisons")
    sweep = read(flags.sweep, **how_read(flags), convention=flags.convention)
    result = comparisons(
        sweep,
        metric=flags.metric,
        baseline=flags.baseline,
        by=flags.by,
        alternative=flags.alternative,
        adjustment=flags.adjust,
    )

    def say() -> None:
        rows = shown(result.tested) if flags.format is None else result.tested
        print_tables([printed(result, rows)], flags.format)
        with beside(flags.format):
            for note in notes_of(result, sweep, rows):
                print(note)

    tables = {"": result.to_arrow()}
    finish(sweep, flags.out, "comparisons", tables=tables, figure=result.figure(), say=say, form=flags.format)


if __name__ == "__main__":
    run(main)
