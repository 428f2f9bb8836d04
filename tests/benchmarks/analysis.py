"""The analysis of large sweeps: processor time against DuckDB's on the same record, and peak memory.

    uv run python -m tests.benchmarks.analysis [--trials 10000 --epochs 200] [--layout compacted] [--method pilcro]

A record is generated (`generated.py`: settings of 50 strengths × 10 seeds whose accuracy tips over, the epochs, numbers
measured on all images and on single ones, maps), compacted as `python -m analysis.records compact` leaves it, or with a
file for each trial and table as a sweep does. Then DuckDB reads every column of every table and aggregates it, and each
command does its work as a user starts it. Each is a process of its own with one thread: its processor time has the
imports, and of a command the drawing of its figures, which stay as they are however many trials there are (what a
command takes for a record of 500 trials is printed beside it).

Bars: six times DuckDB's processor time, 400 MiB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import tyro

from analysis.command_line import print_table
from sweeps.flags import SweepFlags
from tests.benchmarks.generated import Method, planned, write_record

Layout = Literal["compacted", "single"]
TIMES, MEMORY = 6, 400
_SMALL = 500

# of each kind of figure one
_FIGURES = {
    "pilcro": ("pilcro-3", "pilcro-5", "pilcro-p1"),
    "gradient_reg": ("gradreg-1", "gradreg-2", "gradreg-b"),
}


@dataclass(frozen=True)
class Benchmark:
    trials: int = 10_000
    epochs: int = 200
    layout: tuple[Layout, ...] = ("compacted", "single")
    method: tuple[Method, ...] = ("pilcro", "gradient_reg")
    only: tuple[str, ...] = ()
    """Commands to run; default: all."""
    small: bool = True
    """Whether the commands are also run on a record of 500 trials."""


# its own peak: that of the resource usage counts the memory of the process that started it, too
_WATCHED = """
import re, resource, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
usage = resource.getrusage(resource.RUSAGE_SELF)
memory = re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]
print(usage.ru_utime + usage.ru_stime, memory, file=sys.stderr)
"""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def measured(*arguments: str) -> tuple[float, float]:
    """Processor seconds and peak memory in MiB of a module run in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", _WATCHED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_ONE_THREAD},
    )
    if run.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {run.returncode}\n{run.stderr}")
    seconds, memory = run.stderr.splitlines()[-1].split()
    return float(seconds), int(memory) / 1024


def commands(flags: SweepFlags, method: Method, sweep: str, out: str) -> Iterator[tuple[str, list[str]]]:
    """The commands on a record, by name, with their arguments."""
    yield "tipping points", ["analysis.tipping_points", sweep, "--out", out]
    yield "correlations", ["analysis.correlations", sweep, "--out", out]
    yield "comparisons", ["analysis.comparisons", sweep, "--out", out]
    yield "report", ["analysis.report", sweep, "--out", f"{out}/report.html"]
    yield "paper", ["analysis.paper", sweep, "--out", out]
    yield "paper --list", ["analysis.paper", sweep, "--list"]
    for name in _FIGURES[method]:
        yield f"figure {name}", ["analysis.paper", sweep, "--table", name, "--out", out]
    yield "sweep's summary", ["tests.benchmarks.summary", flags.storage, method, str(flags.epochs[0]), sweep]
    yield "compact", ["analysis.records", "compact", sweep]


def main(asked: Benchmark) -> None:
    for method in asked.method:
        for layout in asked.layout:
            with tempfile.TemporaryDirectory() as temporary:
                _benchmark(asked, method, layout, temporary)


def _benchmark(asked: Benchmark, method: Method, layout: Layout, temporary: str) -> None:
    sizes = {"": asked.trials, **({"small": _SMALL} if asked.small else {})}
    found: dict[str, list[tuple[float, float]]] = {}
    for size, trials in sizes.items():
        flags, plan = planned(method, trials, asked.epochs, f"{temporary}/{size}")
        write_record(flags, plan, compacted=layout == "compacted")
        sweep = f"{flags.storage}/{flags.name}"
        if not size:
            shown = f"{len(plan.trials)} trials × {asked.epochs} epochs of {method}, {layout}"
            duck = measured("tests.benchmarks.duckdb_reads", sweep)
        for name, arguments in commands(flags, method, sweep, f"{temporary}/out"):
            if not asked.only or name in asked.only:
                found.setdefault(name, []).append(measured(*arguments))
    rows = [("DuckDB", f"{duck[0]:.2f}", "1.0", f"{duck[1]:.0f}", "", "")]
    for name, ((seconds, memory), *small) in found.items():
        times = seconds / duck[0]
        over = [what for what, is_over in (("time", times > TIMES), ("memory", memory > MEMORY)) if is_over]
        before = [f"{spent:.2f}" for spent, _ in small]
        rows.append(
            (
                name,
                f"{seconds:.2f}",
                f"{times:.1f}",
                f"{memory:.0f}",
                *(before or [""]),
                f"over: {', '.join(over)}" * bool(over),
            )
        )
    print(shown)
    print_table(
        ("", "processor s", "× DuckDB", "peak MiB", f"s, {_SMALL} trials", f"bars: {TIMES} ×, {MEMORY} MiB"), rows
    )


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
