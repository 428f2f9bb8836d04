"""Every command that a report prints gives exactly the report's numbers."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis import comparisons, correlations, paper, report, tipping_points
from analysis.correlations import p_text
from analysis.figures import axis_name
from analysis.report.cells import _number, _spanned
from analysis.report.page import Cell
from analysis.symbols import number

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., None]

MAINS = {
    "tipping_points": tipping_points.main,
    "correlations": correlations.main,
    "comparisons": comparisons.main,
    "paper": paper.main,
    "report": report.main,
}
NONE = {"variant": None, "interval": None}


class Page(HTMLParser):
    """The tables of a page: by caption their heads and rows, what is beside a cell's text left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, tuple[list[str], list[list[str]]]] = {}
        self._caption, self._tag, self._rows = "", "", list[list[str]]()
        self._into: list[str] | None = None
        self._silent = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows = []
        if tag in ("th", "td") or dict(attrs).get("class") == "caption":
            self._into, self._tag = [], tag
        if tag == "tr":
            self._rows.append([])
        if tag in ("small", "script", "style"):
            self._silent += 1

    def handle_data(self, data: str) -> None:
        if self._into is not None and not self._silent:
            self._into.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("small", "script", "style"):
            self._silent -= 1
        if self._into is not None and tag == self._tag:
            text, self._into = " ".join("".join(self._into).split()).removeprefix("—"), None
            if tag in ("th", "td"):
                self._rows[-1].append(text)
            else:
                self._caption = text
        if tag == "table":
            heads, *rows = self._rows
            self.tables[self._caption] = heads, rows


def plain(write: Write, seeds: int, **columns: Any) -> None:
    for seed in range(seeds):
        measured = {"faithfulness:gradient": 0.2 + 0.01 * seed, "entropy:gradient": 4.0}
        write(measured, method="baseline", alpha=None, seed=seed, top1=0.95 + 0.002 * seed, **NONE, **columns)


def gradient_reg(write: Write) -> None:
    """Reference networks, and eight strengths that tip over between the sixth and the seventh, beyond the paper's
    limit; what is measured turns there."""
    plain(write, 3, dataset="mnist", epochs=3)
    for seed in range(3):
        for power in (-9, *range(8)):
            measured = {
                "faithfulness:gradient": 0.1 * (power if power < 6 else 3) + 0.003 * seed * (-1) ** power,
                "entropy:gradient": 4.0 - 0.2 * abs(power - 2) + 0.01 * seed,
            }
            alpha = 0.0 if power < 0 else 10.0**power
            top1 = (0.94 if power < 6 else 0.3) - 0.003 * seed
            write(
                measured, method="gradient_reg", alpha=alpha, seed=seed, top1=top1, dataset="mnist", epochs=3,
                total_variation=0.5 / (2 + power) if power > 0 else 0.4, **NONE,
            )  # fmt: skip


def several_methods(write: Write) -> None:
    """PILCRO by α, Top-GAP by k, and a method of one's own that has both, k with the more values."""
    plain(write, 2)
    for seed in range(2):
        for power in range(7):
            for variant in ("curvature", "target"):
                top1 = (0.9 if power < 4 or variant == "target" else 0.2) - 0.01 * seed
                write(
                    {"faithfulness:gradient": 0.1 * power + 0.02 * seed}, alpha=10.0**power, variant=variant, seed=seed,
                    top1=top1, total_variation=0.5 - 0.03 * power + 0.01 * seed,
                )  # fmt: skip
        for index, pixels in enumerate((64, 32, 16, 8, 4, 2, 1)):
            other = {"pixels": pixels, "seed": seed, "top1": (0.9 if pixels > 2 else 0.2) + 0.01 * seed, **NONE}
            write({"cam_sparsity": 0.1 * index}, method="top_gap", alpha=None, sparsity=1.0, **other)
            for alpha in (1.0, 10.0):
                write({"cam_sparsity": 0.2 * index + 0.01 * seed}, method="mine", alpha=alpha, **other)


def two_codes(write: Write) -> None:
    plain(write, 2, code="a+b")
    for seed in range(2):
        for power in range(7):
            write(
                alpha=10.0**power, seed=seed, top1=0.9 if power < 4 else 0.2, total_variation=0.1 * power,
                code="a+b" if seed else "c+b",
            )  # fmt: skip


def deformation(write: Write) -> None:
    for seed in range(3):
        for labels in ("real", "random"):
            for strength in (1.0, 2.0, 3.0, 4.0):
                other = {
                    "alpha": None,
                    "deformation_strength": strength,
                    "labels": labels,
                    **NONE,
                }
                measured = {"filter_total_variation": 1 / strength + 0.01 * seed}
                write(measured, method="deformation", seed=seed, top1=1.0 - 0.1 * strength - 0.01 * seed, **other)


@pytest.mark.parametrize(
    ("fill", "flags", "modules"),
    [
        (gradient_reg, [], set(MAINS)),
        # of 128 images a batch: 10⁵ / 128 = 781
        (gradient_reg, ["--convention", "image", "--reference-below", "400", "--seed", "3"], set(MAINS)),
        (several_methods, [], set(MAINS)),
        (several_methods, ["--strength", "pixels", "--reference-below", "20"], set(MAINS)),
        (two_codes, ["--pool-code", "--skip-damaged"], set(MAINS)),
        (deformation, [], {"correlations", "paper", "report", "tipping_points"}),
    ],
)
def test_commands(
    write: Write,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fill: Callable[[Write], None],
    flags: list[str],
    modules: set[str],
) -> None:
    fill(write)
    monkeypatch.chdir(tmp_path)
    if "--skip-damaged" in flags:
        (tmp_path / "demo" / "trials" / "005.parquet").write_bytes(b"no Parquet")
    code, out, _ = command(report.main, "demo", *flags, "--out", "report.html")
    assert (code, Path(out.strip())) == (0, tmp_path / "report.html")
    text = Path("report.html").read_text(encoding="utf-8")
    page = Page(text)
    printed = list(dict.fromkeys(html.unescape(one) for one in re.findall(r"<code>(python -m analysis\.[^<]*)", text)))
    made_by = re.search(r"Made by (python -m analysis\.report [^<]*?) from the record", text)
    assert made_by is not None
    assert html.unescape(made_by[1]) in printed or not any("analysis.report" in one for one in printed)
    printed = list(dict.fromkeys([*printed, html.unescape(made_by[1])]))
    found = set()
    for line in printed:
        module, *argv = shlex.split(line.removeprefix("python -m analysis."))
        found.add(module)
        folder = tmp_path / "out" / str(len(found)) / str(printed.index(line))
        out_to = folder / "report.html" if module == "report" else folder
        code, out, err = command(MAINS[module], *argv, "--out", out_to)
        assert code == 0, (line, err)
        if module == "report":
            assert out_to.read_text(encoding="utf-8") == text, line
            continue
        theirs = list(_numbers_of(module, folder, argv))
        captions = [caption for caption in page.tables if _is_of(module, caption, argv, theirs)]
        assert captions or not theirs or module == "paper", (line, list(page.tables))
        ours = [dict(zip(page.tables[one][0], row, strict=True)) for one in captions for row in page.tables[one][1]]
        shared = {head for row in ours for head in row} & {head for row in theirs for head in row}
        told = {tuple(row.get(head, "") for head in sorted(shared)) for row in ours}
        given = {tuple(row[head] for head in sorted(shared)) for row in theirs}
        assert shared or not theirs, line
        # the report leaves out curves of methods by a strength that is not their own; it shows no number of its own
        assert told <= given, (line, told - given)
        assert module == "tipping_points" or told == given, (line, given - told)
    assert found == modules


def _is_of(module: str, caption: str, argv: Sequence[str], theirs: Sequence[Mapping[str, str]]) -> bool:
    strength = argv[argv.index("--strength") + 1] if "--strength" in argv else "alpha"
    if module == "tipping_points":
        return caption == f"Tipping points by {SIGN[strength]}"
    if module == "correlations":
        return caption == f"Correlation with {SIGN[strength]}"
    if module == "comparisons":
        return caption == f"{theirs[0]['metric in words']}: settings and the baseline"
    return re.match(rf"{argv[argv.index('--table') + 1]}[:,] ", caption) is not None


def _numbers_of(module: str, folder: Path, argv: Sequence[str]) -> Iterator[dict[str, str]]:
    """What a command has written, as the report writes it, by the heads of the report's table."""
    name = argv[argv.index("--table") + 1] if module == "paper" else module
    if not (folder / f"{name}.parquet").exists():
        return  # a figure alone
    for row in pq.read_table(folder / f"{name}.parquet").to_pylist():
        known = {key: float("nan") if value is None else value for key, value in row.items()}
        if module == "tipping_points":
            at = [10 ** known[key] for key in ("log10_strength", "low", "high")]
            located = row["status"] == "tipping point"
            yield {
                "decision": row["status"].replace("none in range", "no tipping point found"),
                "p": "" if row["p_value"] is None else p_text(row["p_value"]),
                "plateau": "" if row["plateau"] is None else f"{row['plateau']:.4f}",
                "paper's rule": "" if row["threshold"] is None else number(row["threshold"]),
                "its limit": "" if row["reference_below"] is None else number(row["reference_below"]),
                "trials": str(row["n"]),
                f"{SIGN.get(row['strength'], row['strength'])} at the tipping point [95% interval]": (
                    f"{number(at[0], 3)} [{number(at[1], 3)}, {number(at[2], 3)}]" if located else ""
                ),
            }
        elif module == "correlations":
            yield {
                "models": f"{row['kept']} of {row['kept'] + row['dropped'] + row['missing']}",
                "ρ": _shown(_number(known["rho"], "-", ".3f")),
                "p": p_text(known["p_value"]),
                "p, Holm": p_text(known["p_adjusted"]),
                "r [95% interval]": _shown(_spanned(known["r"], known["r_low"], known["r_high"], "-")),
                "p of r": p_text(known["r_p_value"]),
            }
        elif module == "comparisons":
            difference = known["difference"], known["low"], known["high"]
            yield {
                "seeds": str(row["n"]),
                "mean": _shown(_number(known["mean"], "-")),
                "sd": _shown(_number(known["sd"], "-")),
                "difference [95% interval]": _shown(_spanned(*difference, "-", plus=True)),
                "p": p_text(known["p_value"]),
                "p, Holm": p_text(known["p_adjusted"]),
                "metric in words": axis_name(row["metric"]),
            }
        else:
            yield {
                "paper": row["paper"],
                "ours [95% interval]": _shown(_spanned(known["ours"], known["low"], known["high"], "-")),
                "n": str(row["n"]),
                "difference": _shown(_number(known["difference"], "-", "+.4g")),
            }


SIGN = {"alpha": "α", "pixels": "k", "deformation_strength": "C"}


def _shown(cell: Cell) -> str:
    return cell.text
