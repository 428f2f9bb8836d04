"""The page as a browser shows it, by mouse, by key and by script."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from analysis.report.page import (
    Answer,
    Callout,
    Cell,
    Column,
    Figure,
    Section,
    Subsection,
    Table,
    render,
)
from tests.analysis.browser import browser_fixture, chromium_fixture, emulate, open_page, resize  # noqa: F401
from tests.analysis.test_page import NAMES, NASTY, SVG, every_block, large_table, page, png


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
        !each.closest('.scroll, .card') && each.getBoundingClientRect().right > innerWidth + 0.5)
        .map((each) => each.outerHTML)
    """
    assert rich.execute_script(beyond) == []


@pytest.mark.parametrize("words", ["input-gradient regularisation", "the same value for every model " * 9, "w" * 300])
def test_a_table_with_a_long_name_and_a_reason_fits_the_page(browser: Any, tmp_path: Path, words: str) -> None:
    """That of correlations, as its row without numbers made it wider than the page."""
    columns = [Column("setting"), Column("metric"), *(Column(f"number {n}", "number") for n in range(4))]
    columns += [Column("r [95% interval]", "number"), Column("p of r", "number"), Column("why there is no number")]
    missing = [Cell("", reason="none", quiet=True)] * 6
    known = [Cell("15 of 21", 15), -1, 0.0002, 0.0002, Cell("−0.898 [−0.966, −0.714]", -0.9), 5.5e-6]
    rows = [[words, "Max-Sensitivity, Saliency", *missing, words], ["PILCRO", "TV", *known, "·"]]
    tables = [Table("Shown", columns, rows), Table("Folded away", columns, rows, collapsed=True)]
    file = tmp_path / "page.html"
    file.write_text(page(*tables, Table("Paged", columns, rows * 200)), encoding="utf-8")
    open_page(browser, file)
    browser.execute_script("document.querySelectorAll('details.table').forEach((each) => (each.open = true))")
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    widths = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].map((box) => [box.scrollWidth, box.clientWidth])"
    )
    assert len(widths) == 3
    assert [(table, box) for table, box in widths if table > box] == []


def test_what_is_wider_than_the_page_says_that_it_scrolls(browser: Any, tmp_path: Path) -> None:
    figures = [Figure("Wide", "A picture", png=png(900, 300)), Figure("Small", "A picture", png=png(200, 100))]
    wide = Table("Of many columns", [Column(f"a column {index}") for index in range(20)], [["word"] * 20])
    file = tmp_path / "page.html"
    file.write_text(page(*figures, wide), encoding="utf-8")
    open_page(browser, file)
    hints = """return ['#wide', '#small', '.scroll'].map((name) =>
        getComputedStyle(document.querySelector(name), '::before').content.includes('scrolls sideways'))"""
    assert browser.execute_script(hints) == [False, False, True]
    resize(browser, 390)
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert browser.execute_script(hints) == [True, False, True]
    emulate(browser, media="print")
    assert browser.execute_script(hints) == [False, False, False]


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
    # drawings are dark, too, their black turned to white; pixels stay as they are
    cards = rich.execute_script(
        "return [...document.querySelectorAll('.card')].map((card) => [card.querySelector('img').src.slice(11, 14),"
        " getComputedStyle(card).backgroundColor, getComputedStyle(card.querySelector('img')).filter])"
    )
    assert {tuple(card) for card in cards} == {
        ("svg", "rgb(26, 26, 26)", "invert(0.9) hue-rotate(180deg)"),
        ("png", "rgb(255, 255, 255)", "none"),
    }
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


def test_on_paper_what_is_folded_away_is_there_and_folded_again_after(browser: Any, tmp_path: Path) -> None:
    large = large_table()
    folded = Table("Folded", NAMES, [["a", 1]], collapsed=True)
    file = tmp_path / "page.html"
    file.write_text(page(folded, large), encoding="utf-8")
    open_page(browser, file)
    states = "return [...document.querySelectorAll('details')].map((each) => each.open)"
    rows = "return [...document.querySelectorAll('table')].map((each) => each.tBodies[0].rows.length)"
    assert not any(browser.execute_script(states))
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert all(browser.execute_script(states))
    assert browser.execute_script(rows) == [1, 10_000]
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert not any(browser.execute_script(states))
    assert browser.execute_script(rows) == [1, 100]


def test_a_wide_table_fits_the_paper(browser: Any, tmp_path: Path) -> None:
    """A4 with its margins is 186 mm wide, 703 pixels."""
    columns = [
        Column("setting"),
        *(Column(f"a number {n} [95% interval]", "number") for n in range(6)),
        Column("words"),
    ]
    cells = [Cell("−0.123 [−0.234, 0.345]", -0.123)] * 6
    file = tmp_path / "page.html"
    file.write_text(page(Table("Wide", columns, [["k = 128, λ = 1, no FPN", *cells, "x" * 60]])), encoding="utf-8")
    open_page(browser, file)
    resize(browser, 703)
    emulate(browser, media="print")
    width = "return [document.querySelector('.scroll').scrollWidth, document.querySelector('main').clientWidth]"
    table, paper = browser.execute_script(width)
    assert table <= paper


def test_an_answer_stands_out_with_its_numbers(browser: Any, tmp_path: Path) -> None:
    answer = Answer("A <method>", "It holds.", "There:", [Cell("+1 [0, 2]", tone="good"), Cell("−2")], "No more.")
    file = tmp_path / "page.html"
    file.write_text(page(answer), encoding="utf-8")
    open_page(browser, file)
    box = browser.find_element("css selector", ".answer")
    assert box.find_element("css selector", "strong").text == "A <method>"
    assert "It holds." in box.text
    assert [each.text for each in box.find_elements("css selector", ".numbers > .number")] == ["+1 [0, 2]", "−2"]
    assert box.find_elements("css selector", ".good")[0].text == "+1 [0, 2]"
    resize(browser, 390)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_narrow_screen_gets_the_narrow_picture(browser: Any, tmp_path: Path) -> None:
    figure = Figure("Two", "A picture", svg=SVG, narrow=png(30, 20))
    file = tmp_path / "page.html"
    file.write_text(page(figure), encoding="utf-8")
    open_page(browser, file)
    shown = "return document.querySelector('.card img').currentSrc.slice(11, 14)"
    assert browser.execute_script(shown) == "svg"
    resize(browser, 390)
    browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert browser.execute_script(shown) == "png"


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
