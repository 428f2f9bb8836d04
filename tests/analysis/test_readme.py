"""`analysis/README.md` is true: it names every column, and what it shows runs."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import analysis
from analysis.command_line import parse
from analysis.paper import claims
from analysis.schema import RUNS, TABLES, direction, unit

FOLDER = Path(analysis.__file__).parent
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {
        re.sub(r"\s+#.*", "", line.strip(" `"))
        for line in re.findall(r"python -m analysis\.[^`\n]*", TEXT)
        if "<" not in line
    }
)
TYPES = {"list<item: float>": "list of float", "timestamp[us, tz=UTC]": "timestamp, UTC"}


def columns(table: str) -> dict[str, tuple[str, str]]:
    """Type and meaning of each column that the section of this table has a row of."""
    section = TEXT.split(f"### `{table}`")[1].split("\n#")[0]
    found = {}
    for names, kind, meaning in re.findall(r"^\| (`.*?) \| (.*?) \| (.*) \|$", section, re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), (kind, meaning))
    return found


@pytest.mark.parametrize(("table", "schema"), [*TABLES.items(), ("runs", RUNS)])
def test_every_column_is_named_with_its_type_and_unit(table: str, schema: pa.Schema) -> None:
    told = columns(table)
    assert list(told.keys() - set(schema.names)) == []
    assert [name for name in schema.names if name not in told] == []
    for field in schema:
        kind, meaning = told[field.name]
        assert kind == TYPES.get(str(field.type), str(field.type)), field.name
        if unit(field):
            assert f"[{unit(field)}]" in meaning, field.name
        assert {"max": "↑", "min": "↓"}.get(direction(field) or "", "") in meaning, field.name


def test_the_number_of_claims() -> None:
    assert f"has {len(claims())} numbers" in TEXT


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_python_runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    _, _, name, *arguments = shlex.split(command)
    module = importlib.import_module(name)
    flags = parse(module.Flags, arguments, prog=name)
    sweep = getattr(flags, "sweep", None)
    assert sweep is None or (FOLDER.parent / sweep / "trials").is_dir()


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    arguments = shlex.split(command)[1:]
    if "--out" in arguments:
        arguments[-1] = str(tmp_path / arguments[-1])
    done = subprocess.run([sys.executable, *arguments], cwd=FOLDER.parent, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
