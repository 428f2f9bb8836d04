from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
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
from tests.analysis.browser import browser_fixture, chromium_fixture, emulate, open_page, resize  # noqa: F401

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


# in the browser


@pytest.fixture
def rich(browser: Any, tmp_path: Path) -> Any:
    """A browser that shows a page with a bit of everything."""
    mixed = Table(
        "Mixed",
        [Column("name"), Column("score", "number"), Column("rank", "number")],
        [
            ["layer10", 10, 1],
            ["layer9", Cell("", reason="diverged"), 1],
            ["layer1", 9.5, 1],
            ["Layer2", -3, 0],
            ["layer3", Cell("", reason="failed"), 0],
            ["layer4", 1e3, 0],
        ],
    )
    many = Table("Many", NAMES, [[f"trial-{index}", (index * 7) % 40] for index in range(40)])
    wide = Table("Wide", [Column(f"a column {index}") for index in range(20)], [["w" * 40] * 20])
    tones = [[Cell("word", tone=tone)] for tone in ("good", "bad", "warn", "muted")]
    figure = Figure("Vector", "A black bar", svg=SVG, rows=mixed, command="python -m x \\\n  --flag 'a b' <in")
    html = render(
        "A rich page",
        [
            Section("Words", every_block("x" * 300), "intro"),
            Section("Tables", [mixed, many, wide, Table("Tones", [Column("tone")], tones)]),
            Section("Figures", [figure, Subsection("Pixels", [Figure("Wide", "White", png=png(3000, 300))])]),
            Section("Nasty", every_block(NASTY)),
            Section("Notes", [Callout("text", tone) for tone in ("", "good", "bad", "warn", "muted")]),
        ],
        subtitle="below",
        footer="end",
    )
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    open_page(browser, file)
    return browser


def table(browser: Any, caption: str) -> Any:
    """The element of the first table with that caption."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.table')]"
        ".find((box) => box.querySelector('.caption').textContent === arguments[0])",
        caption,
    )


def column(browser: Any, box: Any, index: int) -> list[str]:
    return browser.execute_script(
        "return [...arguments[0].querySelectorAll('tbody tr')].map((row) => row.cells[arguments[1]].textContent)",
        box,
        index,
    )


def sorting(box: Any) -> list[str | None]:
    return [head.get_dom_attribute("aria-sort") for head in box.find_elements("css selector", "thead th")]


def sort_button(box: Any, index: int) -> Any:
    return box.find_elements("css selector", "thead th button")[index]


def test_opens_without_complaint_or_request(rich: Any) -> None:
    assert rich.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in rich.get_log("performance")]
    urls = [message["params"]["request"]["url"] for message in messages if message["method"].endswith("WillBeSent")]
    assert [url for url in urls if not url.startswith("data:")] == [rich.current_url]
    assert rich.title == "A rich page"
    assert rich.execute_script("return document.querySelectorAll('main script:not([type])').length") == 0


def test_sorts_by_click(rich: Any) -> None:
    box = table(rich, "Mixed")
    assert sorting(box) == [None, None, None]
    sort_button(box, 1).click()
    assert sorting(box) == [None, "ascending", None]
    assert column(rich, box, 1) == ["-3", "9.5", "10", "1000", "— diverged", "— failed"]
    sort_button(box, 1).click()
    assert sorting(box) == [None, "descending", None]
    assert column(rich, box, 1) == ["1000", "10", "9.5", "-3", "— diverged", "— failed"]
    sort_button(box, 0).click()
    assert sorting(box) == ["ascending", None, None]
    assert column(rich, box, 0) == ["layer1", "Layer2", "layer3", "layer4", "layer9", "layer10"]
    sort_button(box, 2).click()  # keeps the order among equals, in both directions
    assert column(rich, box, 0) == ["Layer2", "layer3", "layer4", "layer1", "layer9", "layer10"]
    sort_button(box, 2).click()
    assert column(rich, box, 0) == ["layer1", "layer9", "layer10", "Layer2", "layer3", "layer4"]
    assert {cell.tag_name for cell in box.find_elements("css selector", "tbody tr > :first-child")} == {"th"}


@pytest.mark.parametrize("key", ["\ue007", " "], ids=["enter", "space"])
def test_sorts_by_key(rich: Any, key: str) -> None:
    box = table(rich, "Mixed")
    button = sort_button(box, 1)
    button.send_keys(key)
    assert sorting(box)[1] == "ascending"
    assert column(rich, box, 1)[0] == "-3"
    assert rich.switch_to.active_element == button
    button.send_keys(key)
    assert sorting(box)[1] == "descending"
    assert column(rich, box, 1)[0] == "1000"


def test_filters(rich: Any) -> None:
    box = table(rich, "Many")
    entry, count = (box.find_element("css selector", each) for each in ("input", ".count"))
    assert entry.accessible_name == "Filter rows"
    assert count.text == "showing 40 of 40"
    entry.send_keys("TRIAL-3")
    assert count.text == "showing 11 of 40"
    assert column(rich, box, 0) == ["trial-3", *[f"trial-{index}" for index in range(30, 40)]]
    sort_button(box, 1).click()
    scores = [int(score) for score in column(rich, box, 1)]
    assert scores == sorted(scores)
    assert len(scores) == 11
    entry.send_keys(" 21")  # all of the words
    assert column(rich, box, 0) == ["trial-3"]
    entry.send_keys("x")
    assert column(rich, box, 0) == []
    assert count.text == "showing 0 of 40"
    entry.send_keys("\ue009a", "\ue017")
    assert count.text == "showing 40 of 40"


def test_a_table_without_many_rows_has_no_filter(rich: Any) -> None:
    assert not table(rich, "Mixed").find_elements("css selector", "input")


def test_the_head_of_a_long_table_stays_in_sight(rich: Any) -> None:
    box = table(rich, "Many")
    region = box.find_element("css selector", "[role=region]")
    assert (region.get_dom_attribute("tabindex"), region.accessible_name) == ("0", "Table: Many")
    tops = "return ['thead th', 'tbody th'].map((e) => arguments[0].querySelector(e).getBoundingClientRect().top)"
    head, body = rich.execute_script(tops, box)
    rich.execute_script("arguments[0].scrollTop = 300", region)
    scrolled_head, scrolled_body = rich.execute_script(tops, box)
    assert scrolled_head == pytest.approx(head, abs=2)
    assert scrolled_body == pytest.approx(body - 300, abs=2)


def test_a_large_table(browser: Any, tmp_path: Path) -> None:
    large = large_table()
    file = tmp_path / "page.html"
    file.write_text(page(large), encoding="utf-8")
    open_page(browser, file)
    box = table(browser, large.caption)
    count, pages, entry = (box.find_element("css selector", each) for each in (".count", ".pages span", "input"))
    previous, following = box.find_elements("css selector", ".pages button")
    assert (count.text, pages.text) == ("showing 10,000 of 10,000", "rows 1–100 of 10,000")
    assert column(browser, box, 0) == [f"trial-{index}" for index in range(100)]

    def ordered(sign: int) -> list[str]:
        """What column 0 has to be when sorted by score, from the content itself."""
        rows: list[Any] = list(large.rows)
        present = [row for row in rows if row[1].key is not None]
        return [row[0].text for row in sorted(present, key=lambda row: sign * row[1].key)] + [
            row[0].text for row in rows if row[1].key is None
        ]

    button = sort_button(box, 1)
    took = browser.execute_script(
        "const start = performance.now(); arguments[0].click(); document.body.offsetHeight;"
        "return performance.now() - start",
        button,
    )
    assert took < 2000  # milliseconds: wide of the mark on purpose, it is some tens
    up = ordered(1)
    assert column(browser, box, 0) == up[:100]
    following.click()
    assert column(browser, box, 0) == up[100:200]
    assert pages.text == "rows 101–200 of 10,000"
    previous.click()
    previous.click()  # there is none before the first
    assert column(browser, box, 0) == up[:100]
    assert [each.get_dom_attribute("aria-disabled") for each in (previous, following)] == ["true", "false"]
    button.click()
    assert sorting(box)[1] == "descending"
    assert column(browser, box, 0) == ordered(-1)[:100]
    entry.send_keys("diverged")
    following.click()  # there is none after the last
    assert (count.text, pages.text) == ("showing 100 of 10,000", "rows 1–100 of 100")
    assert column(browser, box, 0) == ordered(1)[-100:]
    assert column(browser, box, 1) == ["— diverged early"] * 100
    entry.clear()
    entry.send_keys("trial-77 total")
    expected = [name for name in ordered(-1) if name.startswith("trial-77")]
    methods = {row[0].text: row[2].text for row in large.rows}  # type: ignore[union-attr]
    expected = [name for name in expected if methods[name] == "total_variation"]
    assert column(browser, box, 0) == expected
    assert browser.get_log("browser") == []


def test_rows_are_the_same_written_by_python_and_by_the_page(browser: Any, tmp_path: Path) -> None:
    tones: Any = ("", "good", "bad", "warn", "muted")
    row = [
        *[Cell(NASTY, 1, NASTY, tone) for tone in tones],
        Cell("nan", reason="r"),
        Cell("20%", 0.2),
        *("a", 1, math.inf),
    ]
    columns = [Column(str(index)) for index in range(5)] + [Column("n", "number")] * 2 + [Column("x")] * 3
    file = tmp_path / "page.html"
    file.write_text(page(Table("t", columns, [row]), Table("t", columns, [row] * 300)), encoding="utf-8")
    open_page(browser, file)
    small, large = browser.execute_script(
        "return [...document.querySelectorAll('.table')].map((box) => box.querySelector('tbody tr').innerHTML)"
    )
    assert large.replace(' scope="row"', "") == small.replace(' scope="row"', "")


def test_pictures_are_shown_and_described(rich: Any) -> None:
    for image in rich.find_elements("css selector", "img"):
        assert image.get_dom_attribute("alt")
        assert rich.execute_script("return arguments[0].complete && arguments[0].naturalWidth", image) > 0


@pytest.mark.parametrize("width", [360, 768, 1280, 1600])
def test_nothing_is_wider_than_the_window(rich: Any, width: int) -> None:
    resize(rich, width)
    rich.execute_script("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    # nor is the window, which would grow to hold what is
    assert rich.execute_script("return [document.documentElement.scrollWidth <= innerWidth, innerWidth]") == [
        True,
        width,
    ]
    beyond = """return [...document.querySelectorAll('body *')].filter((each) =>
        !each.closest('.scroll') && each.getBoundingClientRect().right > innerWidth + 0.5).map((each) => each.outerHTML)
    """
    assert rich.execute_script(beyond) == []


CONTRASTS = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
    if (colour[3] > 0) throw new Error("half transparent: " + element.outerHTML);
  }
  throw new Error("no background");
};
document.querySelectorAll("details").forEach((each) => (each.open = true));
const result = [];
for (const element of document.querySelectorAll("body, body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!(own || element.matches("input")) || element.matches("script, noscript")) continue;
  for (const part of [null, "::before", "::after"]) {
    const [text, back] = [numbers(getComputedStyle(element, part).color), behind(element)].map(light);
    result.push([(Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05), element.outerHTML.slice(0, 120)]);
  }
}
return result;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(rich: Any, scheme: str) -> None:
    emulate(rich, scheme=scheme)
    contrasts = rich.execute_script(CONTRASTS)
    assert len(contrasts) > 500
    assert [entry for entry in contrasts if entry[0] < 4.5] == []


def background(browser: Any) -> str:
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_follows_the_systems_colours_and_the_readers_choice(rich: Any) -> None:
    light = background(rich)
    emulate(rich, scheme="dark")
    dark = background(rich)
    assert dark != light
    assert rich.execute_script("return getComputedStyle(document.querySelector('.card')).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    button = rich.find_element("css selector", "button.theme")
    seen = []
    for key in ("\ue007", " ", "\ue007"):
        button.send_keys(key)
        seen.append((button.accessible_name, background(rich)))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: auto", dark)]
    button.click()
    rich.refresh()
    assert rich.find_element("css selector", "button.theme").text == "Theme: light"
    assert background(rich) == light


def test_works_where_storage_is_refused(rich: Any) -> None:
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    script = rich.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    try:
        rich.refresh()
        rich.find_element("css selector", "button.theme").click()
        assert rich.find_element("css selector", "button.theme").text == "Theme: light"
        sort_button(table(rich, "Mixed"), 1).click()
        assert rich.get_log("browser") == []
    finally:
        rich.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_tones_differ_by_more_than_colour(rich: Any) -> None:
    signs = rich.execute_script(
        "return [...arguments[0].querySelectorAll('td span, th span')]"
        ".map((each) => [getComputedStyle(each, '::before').content, getComputedStyle(each).fontStyle].join())",
        table(rich, "Tones"),
    )
    assert len(set(signs)) == 4
    assert [sign for sign, mark in zip(signs, "✓✗▲", strict=False) if mark not in sign] == []


def test_headings_skip_no_level(rich: Any) -> None:
    headings = rich.find_elements("css selector", "h1, h2, h3, h4, h5, h6")
    levels = [int(heading.tag_name[1]) for heading in headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_first_key_leads_to_the_content(rich: Any) -> None:
    rich.find_element("css selector", "body").send_keys("\ue004")
    link = rich.switch_to.active_element
    assert link.text == "Skip to the content"
    assert link.location["y"] >= 0
    link.send_keys("\ue007")
    assert rich.switch_to.active_element.tag_name == "main"


@pytest.mark.parametrize("clipboard", [True, False])
def test_copies_the_command(rich: Any, clipboard: bool) -> None:
    if not clipboard:
        rich.execute_script("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))")
    details = rich.find_element("css selector", "#vector details")
    details.find_element("css selector", "summary").click()
    box = details.find_element("css selector", ".command")
    box.find_element("css selector", "button").send_keys("\ue007")
    rich.execute_async_script("setTimeout(arguments[0], 200)")
    assert box.find_element("css selector", "[role=status]").text == "Copied"
    rich.execute_script("document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))")
    paste = rich.find_element("css selector", "#paste")
    paste.send_keys("\ue009v")
    assert paste.get_property("value") == "python -m x \\\n  --flag 'a b' <in"


def test_on_paper_all_rows_are_there_and_no_buttons(rich: Any) -> None:
    emulate(rich, scheme="dark", media="print")
    assert background(rich) == "rgb(255, 255, 255)"
    region = table(rich, "Many").find_element("css selector", ".scroll")
    assert rich.execute_script("return arguments[0].scrollHeight - arguments[0].clientHeight", region) == 0
    assert not rich.find_element("css selector", "nav").is_displayed()
    assert not rich.find_element("css selector", "button.theme").is_displayed()


def test_without_javascript_the_tables_are_there(rich: Any) -> None:
    rich.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        rich.refresh()
        shown = rich.find_element("css selector", "body").text
        controls = [each for each in rich.find_elements("css selector", "button, input") if each.is_displayed()]
    finally:
        rich.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "trial-39" in shown
    assert controls == []
