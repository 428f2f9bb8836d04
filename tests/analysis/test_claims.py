"""The papers' numbers in `analysis/paper/claims.csv`: each stands in its paper, each of a table's is there, and each
connects to the record by names that exist. Excerpts of the papers' texts are in `tests/data/papers`;
SWEEPS_TEST_PAPERS names a folder with the whole ones."""

from __future__ import annotations

import csv
import functools
import os
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from analysis.schema import TABLES

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ROOT / "analysis" / "paper" / "claims.csv"
EXCERPTS = ROOT / "tests" / "data" / "papers"  # made by tests/data/excerpts.py
PAPERS = Path(os.environ.get("SWEEPS_TEST_PAPERS", EXCERPTS))
FILES = {"pilcro": "000_*", "loco": "001_*", "topgap": "002_*", "deform": "003_*", "gradreg": "004_*"}

COLUMNS = [
    *("paper", "table", "row", "column", "value", "std", "unit", "n", "note"),
    *("protocol", "settings", "quantity", "direction", "against"),
]
UNITS = {"", "%", "fraction", "M", "nats", "px"}
METHODS = {"baseline", "pilcro", "loco_reg", "top_gap", "deformation", "gradient_reg"}
METRICS = {
    *(
        "cam_sparsity",
        "cohesion_bound",
        "cohesion_derivative",
        "minimax_weight",
        "erf",
        "erf_distance",
        "filter_total_variation",
        "iou",
        "locality",
    ),
    *("parameters", "robust_accuracy", "shift_accuracy"),
}
METRICS |= {"error", "top1", "top5", "loss", "total_variation"}  # columns of the trials table, and 1 − top1

# tables whose cells are separated by tabs, by header lines and label columns
_SHAPES = {
    (1, 1): ("topgap-1", "topgap-5", "topgap-a5", "topgap-a6"),
    (1, 2): (
        *("loco-5", "topgap-2", "topgap-3", "topgap-4", "topgap-6", "topgap-a1", "topgap-a2", "topgap-a3"),
        *("topgap-a4", "topgap-a7", "topgap-a8", "topgap-a9"),
    ),
    (1, 3): ("topgap-7",),
    (2, 2): ("loco-4",),
}
SHAPES = {table: shape for shape, tables in _SHAPES.items() for table in tables}
TABULATED = ["pilcro-1", "pilcro-2", "loco-1", "loco-3", *SHAPES]
WITHOUT_VALUES = {
    "loco-2": "symbols only: coefficients such as g(1) − g(4) and their signs",
    "loco-6": "formulas only: the parameters of the layers are not printed",
}
# numbers of the running text and of captions
IN_TEXT = {
    *("pilcro-1", "pilcro-6", "loco-5", "loco-6", "loco-5x5", "loco-t1", "loco-t2", "topgap-3", "topgap-4", "topgap-6"),
    *("topgap-7", "topgap-f1", "topgap-f3", "topgap-f4", "topgap-fa3", "topgap-a3", "topgap-a4", "topgap-a6"),
    *("topgap-a7", "topgap-a8", "deform-3", "deform-5", "deform-6", "gradreg-1", "gradreg-2", "gradreg-3", "gradreg-4"),
    "gradreg-b",
}
NO_NUMBER = Counter({("topgap-4", "-"): 2})  # adversarially trained networks, not measured by their authors

Claim = dict[str, str]
Cell = tuple[str, str, str, str, str, int]  # row, column, value, std, unit, stars


def claims() -> list[Claim]:
    with CLAIMS.open(encoding="utf-8", newline="") as file:
        return [dict(row) for row in csv.DictReader(file, strict=True)]


def of_text(claim: Claim) -> bool:
    return claim["note"].startswith("text")


SYMBOLS = "alpha α,epsilon ε,gamma γ,eta η,lambda λ,ell ℓ,pm ±,times ×,checkmark ✓,approx ≈,infty ∞,in ∈,sqrt √"
SYMBOLS += ",uparrow ↑,downarrow ↓,rightarrow →,dots …"
MACROS = dict(pair.split() for pair in SYMBOLS.split(","))
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def readable(text: str) -> str:
    """The text with one form for each number and symbol, whether it was written in LaTeX or not."""
    text = re.sub(r"-\n(?=[a-z])", "", text)  # words broken at a line's end
    text = re.sub(r"[\u00a0\u2009\u200a\u202f]", " ", text).replace("−", "-").replace("’", "'")
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\mathrm\{(\w*)\}", r"\1", text)
    text = re.sub(r"\\([a-z]+)", lambda m: MACROS.get(m[1], m[0]), text)
    text = re.sub(r"(?<=\b10)[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(SUPERSCRIPTS), text)
    text = re.sub(r"(?:(\d[\d.]*) ?× ?)?(?<![\d.])10\^\{?(-?\d+)\}?", lambda m: f"{m[1] or 1}e{m[2]}", text)
    text = re.sub(r"(?<=\d) +\. +(?=\d)", ".", text)
    return re.sub(r"(?<![\d.,])(\d{1,3}),(\d{3})(?![\d,.]*\d)", r"\1\2", text)


def squashed(text: str) -> str:
    """`readable` without blanks and marks of layout, for comparing words."""
    return re.sub(r"[\s${}\\*‖|_]", "", readable(text))


def whole(number: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\d.])(?<!\d,){re.escape(number)}(?!\d|\.\d|e-?\d)")


@functools.cache
def text_of(paper: str) -> str:
    (path,) = PAPERS.glob(FILES[paper])
    return path.read_text(encoding="utf-8")


@functools.cache
def squashed_text(paper: str) -> str:
    return squashed(text_of(paper))


@functools.cache
def captions(paper: str) -> dict[str, int]:
    """Tables by ID, and the line of each one's caption."""
    found = {}
    for index, line in enumerate(text_of(paper).split("\n")):
        if match := re.match(r"Table (A?\d+)[:.]( |$)", line):
            assert f"{paper}-{match[1].lower()}" not in found
            found[f"{paper}-{match[1].lower()}"] = index
    return found


@functools.cache
def body(table: str) -> list[str]:
    """The table's lines: the tabbed block after its caption (LOCO-REG), before it (Top-GAP), or the two paragraphs
    before it (PILCRO: header and rows)."""
    paper = table.split("-")[0]
    lines = text_of(paper).split("\n")
    caption = captions(paper)[table]
    if paper == "pilcro":
        end = caption - 1
        start = max(i for i in range(end) if not lines[i].strip())
        return [lines[start - 1], *lines[start + 1 : end]]
    step = 1 if paper == "loco" else -1
    index = caption + step
    while "\t" not in lines[index]:
        index += step
        assert abs(index - caption) < 7, f"no table by the caption of {table}"
    found = []
    while "\t" in lines[index]:
        found.append(lines[index])
        index += step
    return found[::step]


def number(cell: str) -> tuple[str, str, str, int] | None:
    """Value, std, unit and stars of a table's cell."""
    match = re.fullmatch(r"(-?\d*\.?\d+)(M?)(\*{0,3})(?: ± (\d*\.?\d+))?", readable(cell).strip())
    return None if match is None else (match[1], match[4] or "", match[2], len(match[3]))


def tabbed(table: str) -> tuple[list[Cell], Counter[tuple[str, str]]]:
    """Cells of a table by the words of its rows and columns; and what is no number."""
    headers, labels = SHAPES[table]
    rows = [line.split("\t") for line in body(table)]
    top = rows[:headers]
    for header in top[:-1]:  # a merged cell stands over the empty ones behind it
        for i in range(1, len(header)):
            header[i] = header[i] or header[i - 1]
    columns = [" | ".join(filter(None, parts)) for parts in zip(*top, strict=True)]
    cells: list[Cell] = []
    others: Counter[tuple[str, str]] = Counter()
    above = [""] * labels
    for row in rows[headers:]:
        assert len(row) == len(columns)
        above = [cell or earlier for cell, earlier in zip(row, above, strict=False)]
        named = [f"{columns[i]} {cell}" if table == "topgap-7" else cell for i, cell in enumerate(above)]
        for column, cell in zip(columns[labels:], row[labels:], strict=True):
            if (found := number(cell)) is None:
                others[table, cell] += 1
            else:
                cells.append((squashed(" | ".join(named)), squashed(column), *found))
    return cells, others


def of_pilcro(table: str) -> list[Cell]:
    header, *lines = body(table)
    names = ["Top-1", "Top-5", "TV at Top-1" if "TV at Top-1" in header else "TV", "Loss"]
    assert header.endswith(" ".join(names))
    cells: list[Cell] = []
    for line in lines:
        match = re.fullmatch(r"(?:(RC[−+]) )?(SOTA|¶[tc], α=\d+)((?: \d\.\d+){4})", line)
        assert match, line
        for name, value in zip(names, match[3].split(), strict=True):
            column = f"{match[1]} | {name}" if match[1] else name
            cells.append((squashed(match[2].replace(", ", " | ")), squashed(column), value, "", "", 0))
    return cells


def filters() -> list[Cell]:
    """LOCO-REG's Table 1, which the text has thrice: the last time, a line of the filter each."""
    cells: list[Cell] = []
    lines = [line.split() for line in body("loco-1")[1:]]
    assert [len(line) for line in lines] == [3] * 6
    for index, line in enumerate(lines):
        row = f"{'Gaussian' if index < 3 else 'Laplacian'} | {index % 3 + 1}"
        cells += [(squashed(row), str(i + 1), value, "", "", 0) for i, value in enumerate(line)]
    return cells


def architectures() -> list[Cell]:
    """LOCO-REG's Table 3: two networks side by side, each continued at the right from the second line on."""
    rows = [line.split("\t") for line in body("loco-3")]
    assert rows[0][::2] == ["MobileNet Adaption [14]", "VGG13 Adaption [24]", "Continued...", ""]
    assert rows[1][:4] == ["Type/Stride", "Filter Shape"] * 2
    cells: list[Cell] = []
    for column in (0, 2):
        layers = [row[column : column + 2] for row in rows[2:]] + [row[column + 4 : column + 6] for row in rows[1:]]
        for index, (kind, shape) in enumerate([layer for layer in layers if any(layer)], start=1):
            row = squashed(f"{rows[0][column]} | {index} {kind}")
            cells.append((row, "Type/Stride", re.sub(r".*/s", "", kind), "", "", 0))
            for i, size in enumerate(re.findall(r"\d+", shape), start=1):
                cells.append((row, squashed(f"Filter Shape {shape} | {i}"), size, "", "", 0))
    return cells


@functools.cache
def source(table: str) -> list[Cell]:
    """The numbers of a table as its paper's text has them, in order."""
    if table.startswith("pilcro"):
        return of_pilcro(table)
    if table == "loco-1":
        return filters()
    return architectures() if table == "loco-3" else tabbed(table)[0]


def as_cell(claim: Claim) -> Cell:
    names = squashed(claim["row"]), squashed(claim["column"])
    stars = claim["note"].count("*")
    return (*names, claim["value"], claim["std"], claim["unit"] if claim["unit"] == "M" else "", stars)


def quotation(claim: Claim) -> str:
    match = re.match(r"text; [^“”]+: “([^“”]+)”", claim["note"])
    assert match, f"no place and quotation: {claim}"
    return match[1]


def is_quoted(claim: Claim) -> bool:
    """The quotation stands in the paper, not cut within a number, and the value as a whole number in it."""
    return stands_in(claim, squashed_text(claim["paper"])) and bool(whole(claim["value"]).search(tokens(claim)))


def stands_in(claim: Claim, squashed_text: str) -> bool:
    quoted = squashed(quotation(claim))
    start, end = r"(?<![\d.])" * quoted[0].isdigit(), r"(?!\d|\.\d)" * quoted[-1].isdigit()
    return bool(re.search(f"{start}{re.escape(quoted)}{end}", squashed_text))


def tokens(claim: Claim) -> str:
    return re.sub(r"[${}\\_]", "", readable(quotation(claim)))


def changed(number: str) -> str:
    """The number with another last digit of its mantissa."""
    mantissa, e, exponent = number.partition("e")
    return f"{mantissa[:-1]}{(int(mantissa[-1]) + 5) % 10}{e}{exponent}"


@pytest.mark.parametrize("table", TABULATED)
def test_a_table_is_the_papers_number_by_number(table: str) -> None:
    expected = source(table)
    assert [as_cell(claim) for claim in claims() if claim["table"] == table and not of_text(claim)] == expected
    assert expected


@pytest.mark.parametrize("paper", FILES)
def test_each_number_stands_in_its_paper_often_enough(paper: str) -> None:
    """By counting in the whole text: does not rest on finding the tables."""
    text = readable(text_of(paper))
    rows = [claim for claim in claims() if claim["paper"] == paper and not of_text(claim)]
    needed = Counter(value for claim in rows for value in (claim["value"], claim["std"]) if value)
    found = {value: len(whole(value).findall(text)) for value in needed}
    assert {value: (count, found[value]) for value, count in needed.items() if found[value] < count} == {}


def test_each_number_of_the_running_text_is_quoted() -> None:
    rows = [claim for claim in claims() if of_text(claim)]
    assert {claim["table"] for claim in rows} == IN_TEXT
    assert [claim for claim in rows if not is_quoted(claim)] == []


def test_no_table_and_no_cell_is_left_out() -> None:
    found = {table for paper in FILES for table in captions(paper)}
    assert found == {*TABULATED, *WITHOUT_VALUES}
    assert sum((tabbed(table)[1] for table in SHAPES), Counter()) == NO_NUMBER
    lines = text_of("loco").split("\n")[captions("loco")["loco-6"] :]
    assert not any("\t" in line for line in lines)  # Table 6: formulas
    symbols = [cell for line in body("loco-2")[3:] for cell in line.split("\t")[1:]]
    assert len(symbols) == 18
    assert all(re.fullmatch(r"\$g\(-?\d\) - g\(-?\d\) [<>=] 0\$", cell) for cell in symbols)  # Table 2


def test_an_altered_digit_does_not_pass() -> None:
    """Of what the tests above compare."""
    unnoticed = []
    for claim in claims():
        altered = claim | {"value": changed(claim["value"])}
        if of_text(claim):
            if is_quoted(altered):
                unnoticed.append((claim["table"], claim["value"]))
        else:
            assert as_cell(altered) not in source(claim["table"])
            if claim["std"]:
                assert as_cell(claim | {"std": changed(claim["std"])}) not in source(claim["table"])
    assert unnoticed == []


@pytest.mark.parametrize("paper", FILES)
def test_the_excerpts_are_the_papers(paper: str) -> None:
    """Of the whole texts where SWEEPS_TEST_PAPERS names them; else what an excerpt of the excerpt leaves as it is."""
    from tests.data.excerpts import excerpt

    (path,) = EXCERPTS.glob(FILES[paper])
    assert excerpt(paper, text_of(paper)) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (r"0 . 93 $\pm$ 0.01", "0.93 ± 0.01"),
        ("−0.05", "-0.05"),
        ("10,000 times", "10000 times"),
        ("1.29×10^{13}", "1.29e13"),
        ("10^{-5}", "1e-5"),
        ("10⁻⁵", "1e-5"),
        (r"\frac{64}{56^2} \approx 2\%", r"64/56^2 ≈ 2\%"),
    ],
)
def test_numbers_are_read_in_any_form(written: str, expected: str) -> None:
    assert readable(written).replace("$", "") == expected


def test_a_number_is_not_found_within_another() -> None:
    text = "10.517, 0.5171 and 0.5e7 in 1.15e7, 12.43M of 20 runs 0.77***"
    absent = ["0.517", "0.5", "517", "1.15", "15", "2.43", "2", "0.7"]
    assert [number for number in absent if whole(number).search(text)] == []
    assert [number for number in ("12.43", "20", "0.77", "1.15e7") if not whole(number).search(text)] == []


def test_columns_and_their_values() -> None:
    with CLAIMS.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == COLUMNS
    rows = claims()
    assert {claim["table"] for claim in rows} == {*TABULATED, *IN_TEXT}
    for claim in rows:
        assert None not in claim
        assert all(value == value.strip() and "\n" not in value for value in claim.values()), claim
        assert claim["paper"] in FILES
        assert claim["table"].startswith(claim["paper"] + "-")
        assert claim["row"], claim
        assert claim["column"], claim
        assert re.fullmatch(r"-?(\d+(\.\d+)?|\.\d+)(e\d+)?", claim["value"]), claim
        assert re.fullmatch(r"(\d+\.\d+)?", claim["std"]), claim
        assert re.fullmatch(r"([1-9]\d*)?", claim["n"]), claim
        assert claim["unit"] in UNITS
        assert claim["direction"] in {"max", "min", "none"}
        if claim["unit"] == "fraction":
            assert 0 <= float(claim["value"]) <= 1
    names = Counter((claim["table"], claim["row"], claim["column"]) for claim in rows)
    assert [name for name, count in names.items() if count > 1] == []


def test_quantities_are_named_alike() -> None:
    for claim in claims():
        if not claim["quantity"]:
            assert claim["direction"] == "none", claim
            continue
        match = re.fullmatch(r"([a-z0-9_]+)(?::([a-z0-9/-]+)(?:@(\d+(?:\.\d+)?))?)?(?:#0)?", claim["quantity"])
        assert match, claim
        assert match[1] in METRICS, claim
    for quantity in {claim["quantity"] for claim in claims()}:
        directions = {claim["direction"] for claim in claims() if claim["quantity"] == quantity}
        assert len(directions - {"none"}) <= 1, quantity


def test_protocols_and_settings_are_columns_of_the_trials_table() -> None:
    trials = TABLES["trials"]
    for claim in claims():
        for entry in ("protocol", "settings"):
            pairs = [pair.split("=") for pair in claim[entry].split(" ")] if claim[entry] else []
            assert all(len(pair) == 2 and all(pair) for pair in pairs), claim
            keys = [key for key, _ in pairs]
            assert len(keys) == len(set(keys)), claim
            for key, value in pairs:
                kind = trials.field(key).type  # KeyError where there is no such column
                if pa.types.is_integer(kind):
                    int(value)
                elif pa.types.is_floating(kind):
                    float(value)
                elif pa.types.is_boolean(kind):
                    assert value in {"true", "false"}, claim
                elif key == "method":
                    assert value in METHODS
                elif key == "variant" and claim["paper"] == "topgap":
                    assert value in {"class_maps", "last", "all"}, claim
                else:
                    assert re.fullmatch(r"[a-z0-9-]+", value), claim
        if claim["settings"]:
            assert claim["settings"].startswith("method="), claim


def test_each_claim_is_against_a_number_of_its_table() -> None:
    rows = {(claim["table"], claim["row"], claim["column"]): claim for claim in claims()}
    for name, claim in rows.items():
        if not claim["against"]:
            continue
        row, _, column = claim["against"].partition(" || ")
        other = claim["table"], row, column or claim["column"]
        assert other in rows, claim
        assert other != name, claim
        assert rows[other]["quantity"] == claim["quantity"], claim
        assert rows[other]["unit"] == claim["unit"], claim


def test_networks_of_a_width_are_compared_at_theirs() -> None:
    """A narrow network is none of the paper's."""
    for claim in claims():
        settings = dict(word.split("=") for word in claim["protocol"].split())
        if settings.get("model") in ("vgg13", "vgg13-5x5", "mobilenet", "resnet18", "resnet18-imagenet"):
            assert settings.get("width") == "64" or claim["paper"] != "loco", claim
        if claim["paper"] == "topgap" and "model" in settings and not settings["model"].startswith("ra-"):
            expected = {"efficientnet-b0": "32", "convnext-tiny": "96"}.get(settings["model"], "64")
            assert settings.get("width") == expected, claim


def test_the_method_of_top_gaps_paper_is_the_whole_of_it() -> None:
    """The feature pyramid, ℓ1 on the class maps and λ = 1; a part of it only where the row says so."""
    partial = {"topgap-1", "topgap-7"}  # parameter counts do not depend on λ; the ablation
    for claim in claims():
        settings = dict(word.split("=") for word in claim["settings"].split())
        if settings.get("method") != "top_gap":
            continue
        assert "fpn" in settings, claim
        if claim["table"] in partial:
            continue
        if re.match(r"(last|all) \|", claim["row"]):
            assert (settings["fpn"], settings["variant"]) == ("false", claim["row"].split()[0]), claim
            assert "sparsity" in settings, claim
        else:
            assert (settings["fpn"], settings["variant"], float(settings["sparsity"])) == ("true", "class_maps", 1), (
                claim
            )
    of_ablation = [claim for claim in claims() if claim["table"] == "topgap-7" and "top_gap" in claim["settings"]]
    assert {("✓" in claim["row"].split(" | ")[0], "fpn=true" in claim["settings"]) for claim in of_ablation} == {
        (True, True), (False, False),
    }  # fmt: skip


def test_what_is_checked_has_a_protocol() -> None:
    """A mean over data sets or networks has none, and would be judged against anything. Filters at initialisation are
    drawn alike for any data set and network."""
    checked = [claim for claim in claims() if claim["quantity"] and claim["settings"]]
    assert [claim for claim in checked if not claim["protocol"] and not claim["quantity"].endswith("#0")] == []
