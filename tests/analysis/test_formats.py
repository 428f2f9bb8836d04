"""Tables as CSV, Markdown and LaTeX: read back by who reads them, and nothing else on standard output."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import comparisons, correlations, paper, theorems, tipping_points
from analysis.formats import Table, in_latex, written

Command = Callable[..., tuple[int, str, str]]
RECORD = Path(tipping_points.__file__).parent / "reproductions" / "pilcro-cifar10"
COMMANDS = {"tipping_points": tipping_points.main, "comparisons": comparisons.main, "correlations": correlations.main}

NASTY = [
    "a_b & c#d 50% $x$ {y} ~^\\",
    "α = 10^-2.50 [−0.05, -0.1]",
    "| `code` | *bold* <b> [link](x)",
    "--by ---",
    "[0.1, 0.2]",
    "* starred",
    "中文 é ð 😀 ‖w‖ ≥ χ² Ŝ",
    "two\nlines",
    '"quoted", with a comma',
]


def test_csv_has_every_digit_and_is_read_back() -> None:
    data = pa.table({"name": NASTY[:3], "x": [0.1 + 0.2, None, float("inf")], "n": [1, 2, 3], "l": [[1.5], [], None]})
    text = written([Table(("name", "x"), [("a", "0.3")], data=data)], "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in rows] == NASTY[:3]
    assert [row["x"] for row in rows] == ["0.30000000000000004", "", "inf"]
    assert [row["l"] for row in rows] == ["[1.5]", "[]", ""]


def test_csv_of_tables_with_the_same_columns_is_one() -> None:
    one, two = (Table(("a", "b"), [(name, "1")]) for name in "xy")
    other = Table(("c",), [("z",)])
    assert written([one, two, other], "csv") == "a,b\nx,1\ny,1\n\nc\nz\n"


def test_markdown_cells_stand_for_themselves() -> None:
    text = written([Table(("what", "n"), [(nasty, "1") for nasty in NASTY])], "markdown")
    lines = text.splitlines()
    assert lines[:2] == ["| what | n |", "| --- | ---: |"]
    assert len(lines) == 2 + len(NASTY)
    for line, nasty in zip(lines[2:], NASTY, strict=True):
        # two cells, told apart by edges that are not escaped; what is escaped is itself
        cells = re.split(r"(?<!\\)\|", re.sub(r"\\\\", "\0", line))
        assert len(cells) == 4
        assert re.sub(r"\\(.)", r"\1", cells[1]).replace("\0", "\\").strip() == " ".join(nasty.split())


def test_latex_by_hand() -> None:
    assert in_latex("a_b & 50% #1 ${x}$") == r"a\_b \& 50\% \#1 \$\{x\}\$"
    assert in_latex("α = 10^-2.50, −3, -4") == (
        r"\ensuremath{\alpha} = \ensuremath{10^{-2.50}}, \ensuremath{-}3, \ensuremath{-}4"
    )
    assert in_latex("x-1 1e-05 --by") == "x-1 1e-05 -{}-by"
    assert in_latex("¶c, χ², 中") == r"\P{}c, \ensuremath{\chi}\textsuperscript{2}, [U+4E2D]"
    text = written([Table(("a", "b"), [("[1, 2]", "3"), ("*", "4")])], "latex")
    assert text.splitlines()[-5:] == [r"\midrule", r"{}[1, 2] & 3 \\", r"{}* & 4 \\", r"\bottomrule", r"\end{tabular}"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="Debian: apt install texlive-latex-recommended")
def test_latex_compiles(tmp_path: Path) -> None:
    every = "".join(chr(code) for code in (*range(0x20, 0x180), *range(0x370, 0x400), *range(0x2190, 0x2300)))
    table = Table(("what", "long", "n"), [(nasty, every, "1") for nasty in NASTY], wrap=(0, 1), caption="50% of it")
    tables = [table, *theorems.tables()]
    document = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "t.tex").write_text(document % written(tables, "latex"), encoding="utf-8")
    call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "t.log").read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_a_command_prints_the_table_and_nothing_else(name: str, form: str, command: Command, tmp_path: Path) -> None:
    code, out, err = command(COMMANDS[name], RECORD, "--out", tmp_path, "--format", form)
    assert code == 0, err
    assert f"{name}.parquet" in err
    assert str(tmp_path) not in out
    data = pq.read_table(tmp_path / f"{name}.parquet")
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert list(rows[0]) == data.column_names
        assert len(rows) == len(data)
        for row, full in zip(rows, data.to_pylist(), strict=True):
            for key, value in full.items():
                if isinstance(value, float):
                    assert float(row[key]) == value
    elif form == "markdown":
        assert all(re.fullmatch(r"\|.*\|", line) for line in out.splitlines())
        assert len(out.splitlines()) == len(data) + 2
    else:
        assert out.startswith("% \\usepackage{booktabs}\n\\begin{tabular}")
        assert out.count("\\\\\n") == len(data) + 1


@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_tables_of_the_papers(form: str, command: Command, tmp_path: Path) -> None:
    """CSV is one table of them all, the others one each, with what the numbers behind verdicts stand for."""
    code, out, err = command(paper.main, RECORD, "--out", tmp_path, "--format", form)
    assert code == 0, err
    assert str(tmp_path) not in out
    known = paper.check_all(RECORD)
    number = sum(len(table) for table in known)
    reason = "epochs is 12 (paper: 200)"
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["table"] for row in rows] == [table.item.id for table in known for _ in table]
        assert any(reason in row["why"] for row in rows)
    elif form == "markdown":
        assert out.count("\n**") + out.startswith("**") == sum(bool(table.lines) for table in known)
        assert out.count("\n|") >= number
        assert "| (1) | dataset is parquet:cifar10-jpeg@8df278cd (paper: cifar100)" in out
        assert reason in out
    else:
        assert out.count(r"\begin{tabular}") == out.count(r"\end{tabular}") >= sum(bool(t.lines) for t in known)
        assert reason in out


@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_lists_of_the_papers(form: str, command: Command) -> None:
    code, out, err = command(paper.main, "--list", "--format", form)
    assert (code, err) == (0, "")
    assert sum("pilcro-1" in line for line in out.splitlines()) == 1
    code, out, err = command(theorems.main, "--format", form)
    assert (code, err) == (0, "")
    assert "c-n" in out


def test_another_format_is_refused(command: Command) -> None:
    code, out, err = command(tipping_points.main, RECORD, "--format", "word")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "csv" in err
