"""What an answer costs: seconds from the command to a tipping point whose 95% interval is at most .3 decades.

    uv run python -m tests.benchmarks.answer [--variant curvature] [--low 0.01 --high 1e4] [--strengths 50]
    uv run python -m tests.benchmarks.answer --method gradient_reg --low 1e2 --high 1e8

On digits, in one run, one after the other on all cores of the machine:
  search       `python sweeps/pilcro.py --search tipping`
  grid         `python sweeps/pilcro.py --alpha-range LOW HIGH 50`, the same range
  plain Tune   the same grid by a function trainable with `DataLoader`, as a user would first write it (plain_tune.py);
               it is ended when it has taken so many times as long as the search that the ratio is certain, and what it
               would have taken is told from the trials that have ended; of PILCRO alone

Goal: the search takes at most a twelfth of plain Tune's time. The grids have one seed; the search takes further seeds
where it needs them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from analysis.command_line import print_table
from analysis.records import read_sweep
from analysis.tipping_points import tipping_points

ROOT = Path(__file__).resolve().parents[2]
GOAL, WIDTH = 12, 0.3
CERTAIN = 1.1
"""Times the goal, at which plain Tune is ended."""


@dataclass(frozen=True)
class Benchmark:
    method: Literal["pilcro", "gradient_reg"] = "pilcro"
    variant: Literal["curvature", "target"] = "curvature"
    """Of PILCRO."""
    low: float = 1e-2
    high: float = 1e4
    strengths: int = 50
    epochs: int = 30
    whole: bool = False
    """Let plain Tune come to its end."""


@dataclass(frozen=True)
class Answer:
    """A sweep's time in seconds and its tipping point."""

    seconds: float
    trials: int
    said: str
    decades: float
    core_seconds: float


def ours(method: str, argv: list[str]) -> Answer:
    """The project's own command, from its start to its end, and what its record says."""
    with tempfile.TemporaryDirectory() as storage:
        start = time.perf_counter()
        command = [sys.executable, f"sweeps/{method}.py", *argv, "--storage", storage]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stderr}")
        sweep = read_sweep(f"{storage}/{method}")
        (curve,) = tipping_points(sweep)
        fit = curve.fit
        used = sum(row["train_seconds"] + row["measure_seconds"] for row in sweep.rows)
        if fit is None or fit.status != "tipping point":
            return Answer(seconds, len(sweep.rows), curve.reason or "none", float("inf"), used)
        said = f"{10**fit.log10_strength:.4g} [{10**fit.low:.4g}, {10**fit.high:.4g}]"
        return Answer(seconds, len(sweep.rows), said, fit.high - fit.low, used)


def plain(argv: list[str], epochs: int, limit: float) -> tuple[float, int]:
    """Seconds until plain Tune ended, or was ended at the limit, and how many of its trials had come to their end."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.plain_tune", *argv],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and time.perf_counter() - start < limit:
            time.sleep(0.5)
        seconds, ended = time.perf_counter() - start, process.poll() is not None
        if ended and process.returncode:
            raise SystemExit(f"plain Tune failed: {process.returncode}")
        # each reports its epochs and then the test split; a finished sweep has taken its folder with it
        lines = [len(file.read_text().splitlines()) for file in Path(folder).glob("*/plain/*/result.json")]
        done = sum(number > epochs for number in lines)
        if not ended:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return seconds, -1 if ended else done


def main() -> None:
    flags = tyro.cli(Benchmark, description=__doc__)
    common = ["--variant", flags.variant] if flags.method == "pilcro" else []
    common += ["--seeds", "1", "--epochs", str(flags.epochs)]
    grid = [*common, "--alpha-range", f"{flags.low:g}", f"{flags.high:g}", str(flags.strengths)]
    found = ours(flags.method, [*common, "--search", "tipping", "--alpha", f"{flags.low:g}..{flags.high:g}"])
    print(f"search: {found.said} in {found.seconds:.0f} s, {found.trials} trials", flush=True)
    whole = ours(flags.method, grid)
    print(f"grid: {whole.said} in {whole.seconds:.0f} s, {whole.trials} trials", flush=True)
    rows = [
        ("search", found.trials, found.seconds, found.core_seconds, found.said, found.decades),
        (f"grid of {flags.strengths}", whole.trials, whole.seconds, whole.core_seconds, whole.said, whole.decades),
    ]
    shown = [
        (name, str(trials), f"{wall:.0f}", f"{core:.0f}", f"{wall / found.seconds:.1f}", said, f"{decades:.2f}")
        for name, trials, wall, core, said, decades in rows
    ]
    if flags.method == "pilcro":
        seconds, done = plain(grid, flags.epochs, float("inf") if flags.whole else CERTAIN * GOAL * found.seconds)
        of = str(whole.trials) if done < 0 else f"{done} of {whole.trials}"
        shown.append(("plain Tune", of, f"{seconds:.0f}", "", f"{seconds / found.seconds:.1f}", "", ""))
    names = ("", "trials", "wall s", "core s", "× search", "tipping point", "decades")
    print_table(names, shown, wrap=(0, 5))
    if flags.method == "pilcro":
        expected = seconds if done < 0 else seconds * whole.trials / max(done, 1)
        if done >= 0:
            print(f"plain Tune was ended; at this speed all its trials take {expected:.0f} s")
        print(f"the search takes 1/{expected / found.seconds:.1f} of plain Tune's time (goal: 1/{GOAL})")
    if found.decades > WIDTH:
        print(f"but its interval has {found.decades:.2f} decades, more than {WIDTH}")


if __name__ == "__main__":
    main()
