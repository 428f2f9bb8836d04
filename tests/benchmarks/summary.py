"""What a sweep's command does that finds everything recorded: it reads the record, and prints the table of settings.

    python -m tests.benchmarks.summary STORAGE METHOD EPOCHS SWEEP

The plan is that of `generated.py`, of as many trials as the record has.
"""

from __future__ import annotations

import sys

from analysis.command_line import make_console
from analysis.records import read_table, scan
from sweeps.driver.summary import summarise
from tests.benchmarks.generated import planned


def main(storage: str, method: str, epochs: str, sweep: str) -> None:
    trials = len(read_table(sweep, "trials", ["trial_id"]))
    flags, plan = planned(method, trials, int(epochs), storage)  # type: ignore[arg-type]
    scan(sweep)
    summarise(flags, plan, sweep, make_console())


if __name__ == "__main__":
    main(*sys.argv[1:])
