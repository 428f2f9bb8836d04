"""What the floor may stand on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import analysis


def test_analysis_imports_neither_torch_nor_ray_nor_the_floors_above() -> None:
    folder = Path(analysis.__file__).parent
    modules = [f"analysis.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__"]
    assert len(modules) >= 5
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder.parent)
    assert not {"torch", "ray", "trainables", "sweeps"} & set(loaded.stdout.split())


def test_the_commands_run_as_modules(tmp_path: Path) -> None:
    root = Path(analysis.__file__).parent.parent
    for module in ("records", "tipping_points"):
        arguments = ["compact"] if module == "records" else []
        done = subprocess.run(
            [sys.executable, "-m", f"analysis.{module}", *arguments, str(tmp_path / "none")],
            capture_output=True, text=True, check=False, cwd=root,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("error: ")
