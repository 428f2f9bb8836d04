"""The commands as they are started: what they say without a sweep, and what they load for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import analysis

ROOT = Path(analysis.__file__).parent.parent
WITH_A_SWEEP = ("tipping_points", "correlations", "comparisons", "profiles", "search", "paper", "report", "records")
SLOW = ("torch", "ray", "scipy", "matplotlib", "statsmodels", "pandas", "jinja2", "s3fs", "optuna", "plotly")

LOADED = """
import atexit, runpy, sys
atexit.register(lambda: print(*{name.partition('.')[0] for name in sys.modules}))
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("name", WITH_A_SWEEP)
def test_the_commands_run_as_modules(name: str, tmp_path: Path) -> None:
    arguments = ["compact"] if name == "records" else []
    done = run("-m", f"analysis.{name}", *arguments, str(tmp_path / "none"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("name", [*WITH_A_SWEEP, "theorems"])
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--wrong", 2)])
def test_help_and_a_wrong_flag_load_nothing_slow(name: str, flag: str, code: int) -> None:
    done = run("-c", LOADED, f"analysis.{name}", flag)
    assert done.returncode == code, done.stderr
    assert "--help" in done.stdout + done.stderr
    assert not set(SLOW) & set(done.stdout.splitlines()[-1].split())
