"""The report: what stands on it for records of every kind, and how it behaves in a browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis import profiles, report, search
from analysis.groups import telling
from analysis.records import read_sweep, write_trial
from analysis.report.page import Table
from analysis.report.trials import _all_trials
from tests.analysis.browser import browser_fixture, chromium_fixture, emulate, open_page, resize  # noqa: F401
from tests.analysis.conftest import make_trial

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).resolve().parents[2]


def text_of(page: str) -> str:
    """The page's visible words, roughly."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants, 20 strengths, two seeds, a baseline; curvature tips at the 13th; a failed and a diverged trial."""
    path = tmp_path_factory.mktemp("report") / "demo"
    number = 0

    def write(faithfulness: float | None = None, **columns: Any) -> None:
        nonlocal number
        number += 1
        trial, epochs, _, maps = make_trial(f"{number:03}", **columns)
        measured = []
        if faithfulness is not None:
            row = {"epoch": 2, "metric": "faithfulness", "component": "gradient", "direction": "max"}
            measured = [{**row, "value": faithfulness, "std": 0.1, "n": 128}]
        write_trial(str(path), trial, epochs, measured, maps)

    for seed in (0, 1):
        write(method="baseline", alpha=None, variant=None, seed=seed, top1=0.93 + 0.01 * seed, total_variation=0.5)
        for index in range(20):
            alpha = 10.0 ** (index / 4)
            top1 = (0.1 if index >= 12 else 0.92) + 0.002 * seed
            write(
                alpha=alpha, seed=seed, top1=top1, faithfulness=0.05 * index + 0.001 * seed,
                total_variation=1 / (2 + index), status="diverged" if index == 19 else "completed",
            )  # fmt: skip
            write(alpha=alpha, seed=seed, top1=0.9, variant="target", total_variation=0.4, faithfulness=0.3)
    write(alpha=5.0, seed=0, top1=None, status="failed", error="RuntimeError: <b>boom</b> & more\nlast line")
    return path


@pytest.fixture(scope="session")
def page(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.report(read_sweep(str(sweep))), encoding="utf-8")
    return path


def test_the_words(page: Path) -> None:
    words = text_of(page.read_text())
    # it begins with the answer: of the strengths 10^(k/4) the 12th, 562, is the last before the tipping point
    start = words.index("The answer PILCRO, curvature ")
    assert "Where accuracy tips over" not in words[start:][:2000]
    assert re.search(
        r"Up to α = 562\.3( \[[\d., ]+\])? accuracy holds \(Top-1 (not|at most 0\.\d+ points) below its plateau", words
    )
    # the bracket is [2.75, 3] in logarithms, the interval its union with those of the fit and of the bootstrap
    assert re.search(r"it tips at α = 7\d\d \[\d\d\d, 1000\]", words)
    # in both seeds .92 - .93 and .922 - .94: -1.4 points, half the interval 12.706205 · .0056569/√2
    assert "At α = 562.3, against none (over 2 pairs of seeds): Top-1 −1.4 points [−6.5, 3.7]" in words
    assert "PILCRO, target Accuracy holds up to the strongest strength swept, α = 5.623·10⁴" in words or (
        "PILCRO, target Accuracy holds up to the strongest strength swept, α = 56230" in words
    )
    assert "Accuracy tips at the strength where it falls to 80% of its plateau" in words
    # 12 strengths of two seeds count; what it is without regularisation belongs to the statement
    rising = "curvature: Faithfulness Estimate of gradient rises with α, from 0.0005 at α = 1 to 0.55"
    assert rising in words.replace("5·10⁻⁴", "0.0005")
    assert "it is not known without regularisation" in words
    assert "24 models)" in words
    assert "1 trial failed and 2 trials diverged: see The trials." in words
    assert "last line" in words
    assert "pilcro-1, CIFAR-100, ResNet-50" in words
    assert "not comparable" in words
    assert " nan" not in words
    assert "None" not in words


def test_everything_in_one_file(page: Path) -> None:
    text = page.read_text()
    assert "<b>boom</b>" not in text
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == []
    assert page.stat().st_size < 10_000_000
    for heading in (
        "The answer", "What was run", "The trials", "Where accuracy tips over", "What strength changes until then",
        "Settings and the baseline", "Accuracy, and what it costs", "Beside the papers",
    ):  # fmt: skip
        assert re.search(rf"<h2[^>]*>{heading}", text), heading
    figures = text.count("<figure")
    assert figures >= 6
    # each with the command that draws it and the rows it shows, but where the table above it has them
    assert text.count("ommand behind this figure") == figures
    assert text.count("Command behind this figure") == 2
    assert text.count("python -m analysis.") >= figures


def test_the_command(sweep: Path, page: Path, command: Command, tmp_path: Path) -> None:
    code, out, err = command(report.main, sweep, "--out", tmp_path / "mine.html")
    assert (code, err, out) == (0, "", f"{tmp_path / 'mine.html'}\n")
    assert (tmp_path / "mine.html").read_text() == page.read_text()  # the same each time
    assert not (sweep / "analysis").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strength", "colour"], "--strength colour: no such strength"),
        (["--seed", "-1"], "--seed: -1"),
    ],
)
def test_bad_input(sweep: Path, command: Command, argv: list[str], message: str) -> None:
    code, out, err = command(report.main, sweep, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (sweep / "analysis").exists()


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([{}], ["PILCRO Whether accuracy tips is not judged: no strength with two values. Top-1 is 90.0% (1 seed)"]),
        ([{"status": "failed", "top1": None, "error": "boom"}] * 2, ["Nothing is known: all 2 trials failed", "boom"]),
        (
            [{"alpha": a, "status": "diverged", "top1": 0.1} for a in (1.0, 10.0, 100.0)],
            ["all 3 trials diverged: sweep weaker strengths, or add the baseline"],
        ),
        ([{"alpha": a, "top1": None} for a in (1.0, 10.0, 100.0)], ["not judged: no trial has an accuracy"]),
        ([{"seed": seed} for seed in range(3)], ["no strength with two values. Top-1 is 90.0% (3 seeds)"]),
        (
            [{"alpha": a} for a in (1.0, 10.0)],
            ["Accuracy holds up to the strongest strength swept, α = 10", "Correlations with α: "],
        ),
        ([{"method": "baseline", "alpha": None, "variant": None}], ["there is nothing that could tip"]),
        (
            [{"alpha": a, "dataset": d, "top1": 0.9} for a in (1.0, 10.0, 100.0) for d in ("digits", "mnist")],
            ["PILCRO, digits Accuracy holds up to", "PILCRO, mnist Accuracy holds up to"],
        ),
    ],
)
def test_poor_records_are_said_and_not_dropped(
    tmp_path: Path, record: Record, command: Command, trials: list[dict[str, Any]], words: list[str]
) -> None:
    for index, columns in enumerate(trials):
        record(tmp_path / "demo", f"{index:02}", **columns)
    code, out, err = command(report.main, tmp_path / "demo")
    assert (code, err) == (0, "")
    told = text_of(Path(out.strip()).read_text())
    for word in words:
        assert word in told
    assert " nan" not in told


def test_an_empty_sweep(tmp_path: Path, command: Command) -> None:
    code, out, err = command(report.main, tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no recorded trials" in err


def test_on_s3(s3: str, record: Record, command: Command) -> None:
    for alpha in (1.0, 10.0, 100.0):
        record(f"{s3}/demo", f"{alpha}", alpha=alpha)
    code, out, err = command(report.main, f"{s3}/demo")
    assert (code, err, out.strip()) == (0, "", f"{s3}/demo/analysis/report.html")


@pytest.mark.parametrize(
    "name",
    [
        "pilcro-cifar10",
        "loco-cifar10",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("gradreg-mnist", "topgap-cifar10", "deform-cifar10")),
    ],
)
def test_our_reproductions(name: str, browser: Any, tmp_path: Path) -> None:
    made = tmp_path / "report.html"
    made.write_text(report.report(read_sweep(str(ROOT / "analysis" / "reproductions" / name))), encoding="utf-8")
    assert made.stat().st_size < 10_000_000
    open_page(browser, made)
    assert browser.get_log("browser") == []
    # tables fit a screen and, A4 without its margins being 703 pixels wide, a printed page
    wider = """return [...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth + 1)
        .map((box) => box.getAttribute('aria-label'))"""
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(wider) == []
    resize(browser, 703)
    emulate(browser, media="print")
    assert browser.execute_script(wider) == []


def test_in_a_browser(page: Path, browser: Any) -> None:
    open_page(browser, page)
    assert browser.get_log("browser") == []
    images = browser.execute_script(
        "return [...document.images].map(image => [image.alt, image.naturalWidth, image.complete])"
    )
    assert len(images) >= 6
    for alt, width, complete in images:
        assert len(alt) > 20
        assert width > 0
        assert complete
    # sorting the table of trials by accuracy: missing last both ways
    for direction, first in (("ascending", 0.1), ("descending", 0.94)):
        browser.execute_script(
            """const tables = [...document.querySelectorAll('table')];
            window.found = tables.find(table => table.rows[0].textContent.includes('minutes'));
            const heads = [...window.found.tHead.rows[0].cells];
            heads.find(c => c.textContent.includes('Top-1')).querySelector('button').click();"""
        )
        state = browser.execute_script(
            """const heads = [...window.found.tHead.rows[0].cells];
            const at = heads.findIndex(c => c.textContent.includes('Top-1'));
            const cells = [...window.found.tBodies[0].rows].map(row => row.cells[at].textContent);
            return [heads[at].getAttribute('aria-sort'), cells]"""
        )
        assert state[0] == direction
        numbers = [float(cell) for cell in state[1] if re.fullmatch(r"[\d.]+", cell.strip())]
        assert numbers[0] == pytest.approx(first, abs=0.002)
        assert numbers == sorted(numbers, reverse=direction == "descending")
    resize(browser, 360)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    resize(browser, 1280)
    emulate(browser, scheme="dark")
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    emulate(browser, scheme="light")
    assert background != browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert browser.get_log("browser") == []


def test_every_trial_is_in_the_order_of_settings_with_its_configuration(tmp_path: Path, record: Record) -> None:
    configurations = {}
    for number, (alpha, seed, method) in enumerate(
        [(100.0, 1, "pilcro"), (2.0, 0, "pilcro"), (None, 0, "baseline"), (100.0, 0, "pilcro"), (2.0, 1, "pilcro")]
    ):
        config = {"method": {"alpha": alpha, "name": method}, "seed": seed, "training": {"epochs": 2, "flips": [1, 2]}}
        configurations[f"{number}"] = config
        record(tmp_path / "demo", f"{number}", alpha=alpha, seed=seed, method=method, config=json.dumps(config))
    rows = read_sweep(str(tmp_path / "demo")).settings.to_pylist()
    columns = telling(rows)
    every, shared, own = (block for block in _all_trials(rows, columns) if isinstance(block, Table))
    texts = [[cell.text for cell in row] for row in every.rows]  # type: ignore[union-attr]
    assert [(row[0], row[1]) for row in texts] == [
        ("unregularised", "0"), ("PILCRO, α = 2", "0"), ("PILCRO, α = 2", "1"),
        ("PILCRO, α = 100", "0"), ("PILCRO, α = 100", "1"),
    ]  # fmt: skip
    assert [row[-1] for row in texts] == ["2", "1", "4", "3", "0"]
    # what all share and what each has of its own are all of each one's configuration
    common = {row[0].text: row[1].text for row in shared.rows}  # type: ignore[union-attr]
    assert common == {"training.epochs": "2", "training.flips": "[1, 2]"}
    for row in own.rows:
        trial, _, _, words = (cell.text for cell in row)  # type: ignore[union-attr]
        fields = dict(field.split(" = ") for field in words.split("; "))
        config = configurations[trial]
        assert fields == {
            "method.alpha": json.dumps(config["method"]["alpha"]), "method.name": json.dumps(config["method"]["name"]),
            "seed": str(config["seed"]),
        }  # fmt: skip


def test_names_are_no_tags(tmp_path: Path, record: Callable[..., bool]) -> None:
    sweep = tmp_path / "<script>alert(1)" / "<b>x[/b]$y$"
    for seed in range(2):
        for alpha in (1.0, 10.0, 100.0):
            identity = f"{int(alpha)}-{seed}"
            record(sweep, identity, alpha=alpha, seed=seed, dataset="folder:<script>alert(2)</script>@12345678")
    page = report.report(read_sweep(str(sweep)))
    assert "<b>x" not in page
    assert "&lt;b&gt;x[/b]$y$" in page
    assert "<script>alert" not in page
    assert "folder:&lt;script&gt;alert(2)&lt;/script&gt;@12345678" in page


@pytest.mark.parametrize(("seeds", "there"), [(2, False), (5, True)])
def test_distributions_of_runs_are_shown_where_there_are_runs(
    seeds: int, there: bool, tmp_path: Path, record: Record, command: Command
) -> None:
    """Of two runs a profile is two steps. The commands that are named give the same."""
    sweep = tmp_path / "demo"
    for seed in range(seeds):
        record(sweep, f"b{seed}", method="baseline", alpha=None, variant=None, seed=seed, top1=0.5 + seed / 100)
        for alpha in (1.0, 2.0):
            record(sweep, f"a{alpha}{seed}", alpha=alpha, seed=seed, top1=0.51 + seed / 100)
    page = report.report(read_sweep(str(sweep)), seed=3)
    assert ("Performance profiles" in page) == there
    # better in 1 + 2 + 3 + 4 + 5 of 25 pairs, and equal in 4
    assert (">0.680 [" in page) == there
    named = re.findall(r"python -m analysis\.(search|profiles) ([^<]*)", page)
    assert dict(named) == {
        "search": f"{sweep} --metric top1 --seed 3",
        **({"profiles": f"{sweep} --seed 3"} if there else {}),
    }
    for module, arguments in named:
        out = tmp_path / ("search.html" if module == "search" else "out")
        main = {"search": search.main, "profiles": profiles.main}[module]
        code, _, err = command(main, *arguments.split(), "--out", out)
        assert (code, err) == (0, "")
    if there:
        written = pq.read_table(tmp_path / "out" / "profiles.parquet").to_pylist()
        for row in written:
            assert f">{row['probability']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in page
