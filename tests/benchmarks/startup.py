"""How long commands take to say what they can say without training: processor time beside that of the imports alone.

    python -m tests.benchmarks.startup                       # every script and command, three repetitions
    python -m tests.benchmarks.startup --repetitions 5 --only analysis

Measured are `--help` and a wrong flag of every script in `sweeps/` and command of `analysis/`, and `--dry-run` of each
script's default preset. Each is run in turn with `python -c "import ray.tune, torch"`; printed is the least of the
repetitions of each in CPU-seconds (user and system), their ratio, and its bound. Exit code 1 if one is above its bound.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = ["-c", "import ray.tune, torch"]
SAYS, PLANS = 0.15, 0.4
"""The bounds of the ratio: of `--help` and a wrong flag, and of `--dry-run`."""


@dataclass(frozen=True)
class Benchmark:
    repetitions: int = 3
    only: Literal["sweeps", "analysis"] | None = None
    """The scripts of `sweeps/` or the commands of `analysis/` alone."""


def is_command(file: Path) -> bool:
    return 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")


def commands(only: str | None, storage: str) -> Iterator[tuple[str, list[str], int, float]]:
    """What is run, as it is shown, its arguments, the exit code that is right, and the bound."""
    scripts = [] if only == "analysis" else sorted(file for file in (ROOT / "sweeps").glob("*.py") if is_command(file))
    modules = (
        []
        if only == "sweeps"
        else sorted((ROOT / "analysis").glob("*.py")) + sorted((ROOT / "analysis").glob("*/__main__.py"))
    )
    for file in scripts:
        script = str(file.relative_to(ROOT))
        yield f"{script} --help", [script, "--help"], 0, SAYS
        yield f"{script} --wrong", [script, "--wrong"], 2, SAYS
        yield f"{script} --dry-run", [script, "--dry-run", "--storage", storage], 0, PLANS
    for file in modules:
        if is_command(file):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
            yield f"{name} --help", ["-m", name, "--help"], 0, SAYS
            yield f"{name} --wrong", ["-m", name, "--wrong"], 2, SAYS


def seconds(arguments: list[str], code: int) -> float:
    """CPU-seconds of a Python process with these arguments and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # compiled once, as an installed package is
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(
            f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(flags: Benchmark) -> None:
    above = 0
    with tempfile.TemporaryDirectory() as storage:
        print(f"{'command':<44}{'CPU s':>8}{'imports':>9}{'ratio':>8}{'bound':>7}")
        for shown, arguments, code, bound in commands(flags.only, storage):
            seconds(arguments, code)  # the first one compiles
            pairs = [(seconds(arguments, code), seconds(IMPORTS, 0)) for _ in range(flags.repetitions)]
            own, imports = (min(values) for values in zip(*pairs, strict=True))
            above += own / imports > bound
            late = "  above" if own / imports > bound else ""
            print(f"{shown:<44}{own:>8.2f}{imports:>9.2f}{own / imports:>8.3f}{bound:>7.2f}{late}", flush=True)
    print(f"{above} above their bounds")
    sys.exit(above > 0)


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
