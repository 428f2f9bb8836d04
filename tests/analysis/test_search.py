"""The best settings, importances, and the page with Optuna's charts."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.groups import find_quantity
from analysis.records import read_sweep
from analysis.search import _places, importances, main, ranked, search
from analysis.search import page as page_of
from analysis.study import configurations, searched, study_of
from tests.analysis.browser import browser_fixture, chromium_fixture, open_page, resize  # noqa: F401

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def grid(record: Record, tmp_path: Path) -> Path:
    """Accuracy falls with α; what γ is matters little, and the total variation falls with α."""
    rng = np.random.default_rng(0)
    for seed, (i, alpha), (j, gamma) in itertools.product(range(3), enumerate([1.0, 10, 100, 1000]), enumerate([0, 1])):
        record(
            tmp_path / "grid",
            f"{i}{j}{seed}",
            alpha=alpha,
            gamma=float(gamma),
            seed=seed,
            top1=0.9 - 0.2 * i - 0.01 * j + 0.001 * float(rng.normal()),
            total_variation=1.0 / alpha + 0.0001 * seed,
        )
    return tmp_path / "grid"


def page(place: Path, *metrics: str) -> str:
    sweep = read_sweep(place)
    quantities = searched(sweep, metrics)
    return page_of(sweep, quantities, search(sweep, quantities))


def test_the_best_come_first_with_their_intervals(grid: Path) -> None:
    sweep = read_sweep(grid)
    quantity = find_quantity("--metric", "top1", sweep)
    found = ranked(configurations(sweep), [quantity])
    assert [one.place for one in found] == list(range(1, 9))
    assert found[0].configuration.params == {"alpha": 1.0, "gamma": 0.0}
    scores = list(found[0].configuration.scores[0].values())
    low, high = stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores))
    assert (found[0].low[0], found[0].high[0]) == pytest.approx((low, high), rel=1e-12)


def test_places_by_hand() -> None:
    assert _places([(3.0,), (1.0,), (3.0,), (2.0,)]) == [3, 1, 3, 2]
    # (1, 3), (2, 2), (3, 1): none beats another; (3, 3) is beaten by all of them, (4, 4) by that one, too
    assert _places([(1, 3), (2, 2), (3, 1), (4, 4), (3, 3), (1, 3)]) == [1, 1, 1, 3, 2, 1]


def test_importance_is_that_of_the_hyperparameter_that_matters(grid: Path) -> None:
    found = importances(study_of(grid))
    assert set(found) == {"PED-ANOVA", "fANOVA"}
    for shares in found.values():
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["alpha"] > 0.8
    assert found == importances(study_of(grid))


def test_importances_that_nothing_tells_are_none(record: Record, tmp_path: Path) -> None:
    """Optuna would say that all are equal."""
    for index in range(6):
        record(tmp_path, f"a{index}", alpha=float(index + 1), gamma=float(index % 2), top1=0.5)
    assert importances(study_of(tmp_path)) == {}
    assert importances(study_of(tmp_path, where={"gamma": 0.0})) == {}


def test_the_page_holds_everything(grid: Path) -> None:
    text = page(grid, "top1", "total_variation")
    assert text.count("plotly.js v") == 1
    rest = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', rest)
    for title in ("The best settings", "Pareto front", "History of Top-1", "Importance of", "Slices of", "Parallel"):
        assert title in rest, title
    assert text.count("Plotly.newPlot(") >= 9  # the front; of each metric history, importances, slices, coordinates
    assert text == page(grid, "top1", "total_variation")


def test_charts_are_drawn_and_nothing_is_sent(grid: Path, browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "search.html"
    file.write_text(page(grid, "top1", "total_variation"), encoding="utf-8")
    open_page(browser, file)
    drawn = "return [...document.querySelectorAll('.js-plotly-plot')].map(p => p.querySelectorAll('.trace').length)"
    charts = browser.execute_script(drawn)
    assert len(charts) == 9
    assert all(charts)
    titles = "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    assert set(browser.execute_script(titles)) >= {"Zoom", "Pan"}
    assert "Share chart..." not in browser.execute_script(titles)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [it["params"]["request"]["url"] for it in asked if it["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []
    resize(browser, 390)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 390


def test_words_of_the_record_are_text(record: Record, tmp_path: Path) -> None:
    for index in range(4):
        variant = "</script><script>alert(1)</script>" if index % 2 else "plain"
        record(tmp_path, f"a{index}", alpha=float(index + 1), variant=variant, top1=0.1 * index)
    assert "<script>alert(1)" not in page(tmp_path, "top1")


def test_the_command(grid: Path, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "search.html"
    code, printed, err = command(main, grid, "--metric", "top1", "total_variation", "--out", out)
    assert (code, err) == (0, "")
    assert printed.splitlines()[-1] == str(out)
    assert "α = 1, γ = 0" in printed
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    code, printed, err = command(main, grid, "--out", out, "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [float(row["top1"]) for row in rows] == sorted((float(row["top1"]) for row in rows), reverse=True)
    assert (rows[0]["place"], rows[0]["alpha"], rows[0]["gamma"], rows[0]["top1 n"]) == ("1", "1.0", "0.0", "3")
    assert err.strip() == str(out)


def test_every_task_has_its_ranking(record: Record, command: Command, tmp_path: Path) -> None:
    for data, alpha in itertools.product(("digits", "mnist"), (1.0, 2.0)):
        record(tmp_path, f"{data}{alpha}", dataset=data, alpha=alpha, top1=alpha / 4)
    code, printed, _ = command(main, tmp_path, "--out", tmp_path / "s.html")
    assert code == 0
    assert [line for line in printed.splitlines() if line in ("digits", "mnist")] == ["digits", "mnist"]
    assert "The best settings, mnist" in (tmp_path / "s.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--metric", "nothing"], ["--metric", "train_seconds"], ["--seed=-1"]])
def test_bad_input_is_one_line(arguments: list[str], grid: Path, command: Command) -> None:
    code, out, err = command(main, grid, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
