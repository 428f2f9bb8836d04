"""The pages of the reproductions: made anew from their records they are what is committed; no number in them is typed,
and no sentence that claims something stands without its condition."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes
from PIL import Image

from analysis.records import read_sweep
from analysis.reproductions import pages
from analysis.reproductions.pages import FOLDERS, HERE, LIST, ClaimError, Record
from tests.analysis.test_claims import FILES, squashed, squashed_text

Command = Callable[..., tuple[int, str, str]]

TYPED = {"given", "paper", "quote", "was"}
"""The helpers whose words are typed: they say where the number is from."""

# digits that are part of a name: CIFAR-10, conv1_1, Top-1, deform-3, and the paper's tables and figures
NAMES = re.compile(r"[^\W\d][\w]*-?(?:[^\W\d][\w]*-?)*\d\w*")
_PARTS = r"(?: \(\w(?:, \w)*\))?"
REFERENCES = re.compile(rf"(?:Table|Figure|Proposition)s?\s\d+{_PARTS}(?:(?:, | and | to )A?\d+{_PARTS})*")
NUMBER_WORDS = re.compile(r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b", re.IGNORECASE)


@functools.cache
def template(folder: str) -> str:
    return (HERE / folder / "page.md").read_text(encoding="utf-8")


def prose(source: str) -> str:
    """The words of a template: no expressions, no code, no addresses of links."""
    for pattern in (r"^%%.*?$", r"^```.*?^```$", r"\{%.*?%\}", r"\{\{.*?\}\}", r"`[^`]*`", r"\]\([^)]*\)"):
        source = re.sub(pattern, " ", source, flags=re.MULTILINE | re.DOTALL)
    return NAMES.sub(" ", REFERENCES.sub(" ", source))


def outputs(source: str) -> Iterator[nodes.Expr]:
    for output in pages.environment().parse(source).find_all(nodes.Output):
        yield from (node for node in output.nodes if not isinstance(node, nodes.TemplateData))


def called(node: nodes.Expr) -> str:
    return node.node.name if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) else ""


def computes(node: nodes.Expr) -> bool:
    """Whether an expression names something that `page.py` computes, and is not made of constants."""
    names = {name.name for name in node.find_all(nodes.Name)} | ({node.name} if isinstance(node, nodes.Name) else set())
    return bool(names - pages.HELPERS.keys())


def quotations(paper: str) -> list[str]:
    """What the pages quote of this paper, without what they leave out of it."""
    found = []
    for folder in FOLDERS:
        for node in outputs(template(folder)) if folder.startswith(f"{paper}-") else ():
            if isinstance(node, nodes.Call) and called(node) == "quote":
                (words,) = node.args
                assert isinstance(words, nodes.Const)
                found += words.value.split("…")
    return found


@pytest.mark.parametrize("folder", [*FOLDERS, LIST])
def test_the_page_is_made_from_its_record(folder: str) -> None:
    """Mended by `python -m analysis.reproductions.pages`, and by reading what it changes."""
    assert (HERE / folder / "README.md").read_text(encoding="utf-8") == pages.rendered(folder)


def test_every_record_has_its_page() -> None:
    records = {path.parent.name for path in HERE.glob("*/sweep.json")}
    assert set(FOLDERS) == records == set(re.findall(r"\((.*?)/README.md\)", template(LIST)))
    assert len(records) >= 7


@pytest.mark.parametrize("folder", [*FOLDERS, LIST])
def test_no_number_is_typed(folder: str) -> None:
    source = template(folder)
    assert re.findall(r".{0,30}\d.{0,30}", prose(source)) == []
    claims_left_out = re.sub(r"\{% call so\(.*?\{% endcall %\}", " ", source, flags=re.DOTALL)
    assert [match[0] for match in NUMBER_WORDS.finditer(prose(claims_left_out))] == []
    for node in outputs(source):
        assert called(node) in TYPED or computes(node), f"line {node.lineno}: a constant"


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("falls by 0.018", True),
        ("in 25 minutes", True),
        ("p ≤ .04", True),
        ("of 5,000 queries", True),
        ("CIFAR-10, conv1_1, `--epochs 5`, PreAct-ResNet-18, Top-1, topgap-f1, Figure 3 (c)", False),
        ("falls by {{ number(found, '.3f') }}", False),
    ],
)
def test_digits_are_found(text: str, is_found: bool) -> None:
    assert bool(re.search(r"\d", prose(text))) == is_found


@pytest.mark.parametrize(
    ("text", "is_typed"),
    [
        ("{{ 0.5 }}", True),
        ("{{ '0.5' }}", True),
        ("{{ number(0.5, '.2f') }}", True),
        ("{{ number(found, '.2f') }}", False),
        ("{{ found }}", False),
    ],
)
def test_constants_are_found(text: str, is_typed: bool) -> None:
    assert [not computes(node) for node in outputs(text)] == [is_typed]


@pytest.mark.parametrize("paper", FILES)
def test_the_papers_are_quoted_word_for_word(paper: str) -> None:
    assert [words for words in quotations(paper) if squashed(words) not in squashed_text(paper)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_pictures_are_of_this_record(folder: str) -> None:
    hashes = {read_sweep(str(path.parent)).content_hash for path in (HERE / folder).rglob("sweep.json")}
    shown = re.findall(r"\]\((analysis/[^)]+\.png)\)", template(folder))
    assert shown
    assert {path.relative_to(HERE / folder).as_posix() for path in (HERE / folder).rglob("*.png")} == set(shown)
    for name in shown:
        with Image.open(HERE / folder / name) as picture:
            _, _, record = str(picture.info["Description"]).rpartition("record ")
        assert record in hashes, name


def test_a_sentence_that_does_not_follow_is_an_error() -> None:
    source = pages.environment().from_string("{% call so(last < first) %}It falls{% endcall %} to {{ last }}.")
    assert source.render(first=2, last=1) == "It falls to 1."
    with pytest.raises(ClaimError, match="“It falls” does not follow from the record"):
        source.render(first=1, last=2)
    with pytest.raises(TypeError, match="true or false"):
        pages.environment().from_string("{% call so(first) %}It falls{% endcall %}").render(first=0.5)


def test_an_altered_record_does_not_make_the_same_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that turns a sentence round is an error."""
    before = pages.rendered("deform-mnist")
    read = pages.read

    def altered(folder: str, **columns: Any) -> Record:
        record = read(folder)
        record.trials[min(record.trials)].update(columns)
        return record

    monkeypatch.setattr(pages, "read", functools.partial(altered, torch="2.16.0"))
    with pytest.raises(ValueError, match="torch: 2 values"):
        pages.rendered("deform-mnist")
    monkeypatch.setattr(pages, "read", functools.partial(altered, train_seconds=2e5, images_per_second=0.225))
    assert pages.rendered("deform-mnist") == before  # whose length no word of this page rests on
    monkeypatch.setattr(pages, "read", functools.partial(altered, top1=0.99))
    with pytest.raises(ClaimError, match="every network's test Top-1 at the end"):
        pages.rendered("deform-mnist")


def test_numbers_measured_with_other_options_are_not_averaged() -> None:
    """As the table of `topgap-cifar10` once did: FGSM on 100 and on 128 images."""
    record = pages.read("topgap-cifar10")
    baseline = record.ids(method="baseline")
    assert {record.measured["robust_accuracy", "fgsm", 12][trial]["n"] for trial in baseline} == {100, 128}
    with pytest.raises(ValueError, match="measured with different options"):
        record.values("robust_accuracy", "fgsm", ids=baseline)
    # the others have no PGD, which is of one kind then
    assert len(record.values("robust_accuracy", "pgd20", ids=baseline)) == 2


def test_the_command_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    assert command(pages.main, "loco")[::2] == (2, f"error: FOLDER: loco, allowed are {', '.join(FOLDERS)}\n")

    def rendered(folder: str) -> str:
        raise ClaimError("“It falls” does not follow from the record")

    monkeypatch.setattr(pages, "rendered", rendered)
    code, out, err = command(pages.main, "deform-init/")
    assert (code, out) == (2, "")
    assert err == "error: deform-init/page.md: “It falls” does not follow from the record\n"


def test_a_number_of_the_paper_is_in_its_table() -> None:
    assert pages.paper("0.532", "topgap-7") == "0.532"
    for printed, table in (("0.533", "topgap-7"), ("0.532", "topgap-4")):
        with pytest.raises(ClaimError, match="no number of"):
            pages.paper(printed, table)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-0.25, ".2f", "−0.25"), (-0.0001, ".3f", "0.000"), (1.4e-05, ".2g", "1.4e−5"), (1e5, ".0e", "1e5")],
)
def test_numbers_are_written(value: float, form: str, text: str) -> None:
    assert pages.number(value, form) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.01, 0.0442], "p ≤ 0.045"), ([0.044], "p ≤ 0.044"), ([1.01e-5], "p ≤ 1.1e−5"), ([0.0996], "p ≤ 0.1")],
)
def test_bounds_are_rounded_up(values: list[float], text: str) -> None:
    assert pages.at_most(values) == text


def test_tests_are_adjusted_over_all_of_a_family() -> None:
    first = {seed: float(seed) for seed in range(5)}
    rising = {seed: value + 1 + 0.1 * seed for seed, value in first.items()}
    (alone,) = pages.tested({"a": (first, rising)}).values()
    pair = pages.tested({"a": (first, rising), "b": (first, rising)})
    assert alone.rises
    assert not alone.falls
    assert [test.p for test in pair.values()] == pytest.approx([2 * alone.p, 2 * alone.p])


def test_paragraphs_are_broken_and_tables_are_not() -> None:
    words = " ".join(["word"] * 60)
    made = pages.wrapped(f"{words}\n\n- {words}\n- {words}\n\n| {words} |\n\n```\n{words}\n```\n")
    long = [line for line in made.splitlines() if len(line) > pages.WIDTH]
    assert long == [f"| {words} |", words]
    assert made.split() == f"{words} - {words} - {words} | {words} | ``` {words} ```".split()
    assert [line[:6] for line in made.splitlines()[4:8]] == ["- word", "  word", "  word", "- word"]


def test_a_table_has_as_many_cells_as_heads() -> None:
    assert pages.table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    with pytest.raises(ValueError, match="1 cells for 2 heads"):
        pages.table(["a", "b"], [["1"]])


def test_pages_say_what_was_corrected() -> None:
    for folder, (heading, said) in itertools.product(FOLDERS, [("## Corrected", "was said to|were said to")]):
        page = Path(HERE / folder / "README.md").read_text(encoding="utf-8")
        _, found, after = page.partition(heading)
        assert found, folder
        assert re.search(said, after), folder
