"""The page as HTML."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import random
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from analysis.report.page import (
    Bullets,
    Callout,
    Cell,
    Column,
    Facts,
    Figure,
    Section,
    Subsection,
    Table,
    Text,
    render,
)

NASTY = """</script></style><script>alert("1")</script><img src=x onerror='alert(2)'> & &amp; "quoted" <!-- -->"""
NAMES = [Column("trial"), Column("score", "number", "Share of images that are right.")]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'


def png(width: int = 400, height: int = 200, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(content, format="png", **options)
    return content.getvalue()


def page(*blocks: Any) -> str:
    return render("A page", [Section("Only section", blocks)])


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data

    def values(self, attribute: str) -> list[str | None]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


def every_block(text: str) -> list[Any]:
    """A block of every kind with this text wherever there can be one."""
    cell = Cell(text, text, text, "good")
    table = Table(text, [Column(text, help=text), Column(text)], [[cell, text], [text, Cell("", reason=text)]], text)
    large = Table(text, [Column(text)], [[cell], *[[text]] * 300], text, collapsed=True)
    return [
        Text([text]),
        Text(text),
        Bullets([text]),
        Facts([(text, text), (text, cell)]),
        Callout(text, "warn"),
        table,
        large,
        Figure(text, text, svg=SVG, caption=text, rows=table, command=text),
        Subsection(text, [table, large]),
    ]


def test_text_is_shown_as_it_is_and_is_never_markup() -> None:
    plain, nasty = (
        Parsed(render(text, [Section(text, every_block(text), text)], subtitle=text, footer=text, description=text))
        for text in ("text", NASTY)
    )
    assert [tag for tag, _ in nasty.tags] == [tag for tag, _ in plain.tags]
    assert [list(attributes) for _, attributes in nasty.tags] == [list(attributes) for _, attributes in plain.tags]
    assert nasty.text.count(NASTY) > 30
    assert not [name for _, attributes in nasty.tags for name in attributes if name.startswith("on")]


def test_rows_kept_as_json_survive_what_would_end_the_script() -> None:
    html = page(Table("t", [Column("a"), Column("b", "number")], [[NASTY, 0.5]] * 201))
    (content,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert json.loads(content) == [[NASTY, "0.5"]] * 201


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    blocks = [*every_block("content"), *every_block("content"), *every_block("content 2"), *every_block("α, β")]
    parsed = Parsed(render("content", [Section(title, blocks) for title in ("content", "Content!", "?", "!")]))
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert "α-β" in ids
    links = [str(link)[1:] for link in parsed.values("href") if str(link).startswith("#")]
    assert len(links) == 1 + 4 + 16
    referring = [parsed.values(name) for name in ("aria-labelledby", "aria-describedby", "for")]
    assert {*links, *(name for names in referring for name in names)} <= set(ids)
    labels = [attributes["aria-label"] for _, attributes in parsed.tags if attributes.get("role") == "region"]
    assert len(labels) == len(set(labels))


def test_landmarks_and_policy() -> None:
    html = render("T & T", [Section("One", [])], subtitle="below", footer="end", description='says "it"')
    parsed = Parsed(html)
    tags = [tag for tag, _ in parsed.tags]
    assert html.startswith("<!DOCTYPE html>")
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert tags.count(landmark) == 1, landmark
    assert ("html", {"lang": "en"}) in parsed.tags
    assert {"name": "description", "content": 'says "it"'} in [attributes for _, attributes in parsed.tags]
    (policy,) = (attributes["content"] for _, attributes in parsed.tags if "http-equiv" in attributes)
    assert policy is not None
    for part in ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'"):
        assert part in policy.split("; ")
    assert not re.search(r"https?://", html)


def test_equal_content_gives_an_equal_page() -> None:
    assert page(*every_block("x")) == page(*every_block("x"))


@pytest.mark.parametrize("text", ["", " ", "—", "nan", "NaN"])
def test_missing_text_needs_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        Cell(text)
    with pytest.raises(ValueError, match="needs a reason"):
        Cell(text, reason=" ")
    shown = Parsed(page(Table("t", [Column("a")], [[Cell(text, reason="it diverged")]]))).text
    assert "— it diverged" in shown
    assert "nan" not in shown.lower()


@pytest.mark.parametrize("value", [math.nan, np.float64("nan"), np.float32("nan")])
def test_nan_needs_a_reason(value: float) -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        Cell("0.5", value)
    with pytest.raises(ValueError, match=r"table 't', row 2, column 'score': .* needs a reason"):
        Table("t", NAMES, [["a", 0.5], ["b", value]])
    with pytest.raises(ValueError, match="needs a reason"):
        Facts([("score", value)])
    assert Cell("0.5", value, "of one seed").key is None


@pytest.mark.parametrize("entry", ["", "nan", "0.5 ± nan", None])
def test_missing_entries_of_a_table_need_a_reason(entry: Any) -> None:
    with pytest.raises(ValueError, match=r"table 't', row 1, column 'score': .*needs a reason"):
        Table("t", NAMES, [["a", entry]])


def test_the_method_none_is_not_missing() -> None:
    assert Cell("none").key == "none"


def test_a_number_column_is_sorted_by_numbers() -> None:
    table = Table("t", NAMES, [["a", "1e-3"], ["b", 2], ["c", Cell("20%", 0.2)], ["d", np.int64(3)]])
    keys = [json.loads(str(row)) for row in Parsed(page(table)).values("data-keys")]
    assert keys == [["a", 0.001], ["b", 2.0], ["c", 0.2], ["d", 3.0]]
    with pytest.raises(ValueError, match=r"'20%' is not a number"):
        Table("t", NAMES, [["a", "20%"]])


def test_infinities_are_sorted_as_the_largest() -> None:
    html = page(Table("t", NAMES, [["a", math.inf], ["b", -math.inf], ["c", 1e300]]))
    keys = [json.loads(str(row))[1] for row in Parsed(html).values("data-keys")]
    assert keys[1] < -1e307 < keys[2] < 1e307 < keys[0] < math.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table("t", [], []), "at least one column"),
        (lambda: Table(" ", NAMES, []), "caption"),
        (lambda: Table("t", NAMES, [["a", 1], ["b"]]), "row 2: 1 entries for 2 columns"),
        (lambda: Figure("f", " ", svg=SVG), "alt"),
        (lambda: Figure("", "alt", svg=SVG), "title"),
        (lambda: Figure("f", "alt"), "one picture"),
        (lambda: Figure("f", "alt", png(), SVG), "one picture"),
        (lambda: Figure("f", "alt", png=SVG), "not a PNG"),
        (lambda: Figure("f", "alt", svg=png()), "not an SVG"),
        (lambda: render("t", []), "at least one"),
        (lambda: render(" ", [Section("s", [])]), "title"),
        (lambda: render("t", [Section("", [])]), "title"),
        (lambda: render("t", [Section("s", [Subsection(" ", [])])]), "title"),
    ],
)
def test_what_cannot_be_shown_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_model_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Cell("a").text = "b"  # type: ignore[misc]


@pytest.mark.parametrize(("options", "size"), [({"dpi": (200, 200)}, ("192", "96")), ({}, ("400", "200"))])
def test_a_png_is_shown_at_its_own_resolution(options: Any, size: tuple[str, str]) -> None:
    parsed = Parsed(page(Figure("f", "an alt", png=png(**options))))
    (image,) = (attributes for tag, attributes in parsed.tags if tag == "img")
    assert (image["width"], image["height"]) == size
    assert image["alt"] == "an alt"


def test_a_figure_shows_what_is_behind_it() -> None:
    rows = Table("Rows", NAMES, [["a", 1]])
    assert "behind this figure" not in page(Figure("f", "alt", svg=SVG))
    assert "<summary>Rows behind this figure" in page(Figure("f", "alt", svg=SVG, rows=rows))
    assert "<summary>Command behind this figure" in page(Figure("f", "alt", svg=SVG, command="do"))
    assert "<summary>Rows and command behind this figure" in page(Figure("f", "alt", svg=SVG, rows=rows, command="do"))


def large_table(rows: int = 10_000) -> Table:
    """Twelve columns; the score is a permutation of 0…rows−1, in halves, and every hundredth is missing."""
    generator = random.Random(0)
    scores = generator.sample(range(rows), rows)
    columns = [Column("trial"), Column("score", "number"), Column("method"), Column("rank", "number")]
    columns += [Column(f"metric {index}", "number") for index in range(8)]
    return Table(
        "Epochs of all trials",
        columns,
        [
            [
                f"trial-{index}",
                Cell("", reason="diverged early") if score % 100 == 50 else Cell(f"{score / 2:.1f}", score / 2),
                ("pilcro", "none", "total_variation")[score % 3],
                index % 2,
                *[generator.random() for _ in range(8)],
            ]
            for index, score in enumerate(scores)
        ],
        note="Also in the record.",
    )


def test_size() -> None:
    assert len(render("t", [Section("s", [])]).encode()) < 25_000
    html = page(large_table(), dataclasses.replace(large_table(), caption="Another"))
    assert len(html.encode()) < 10_000_000
    assert "<noscript>" in html
