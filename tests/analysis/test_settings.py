"""What tells settings apart, and the one guard of every command: no number is of trials that do not belong together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import comparisons as comparisons_command
from analysis import correlations as correlations_command
from analysis import tipping_points as tipping_command
from analysis.command_line import InputError
from analysis.comparisons import comparisons
from analysis.correlations import correlations
from analysis.groups import digits_of, grouped, label
from analysis.paper import __main__ as paper_command
from analysis.paper.verdicts import check_all
from analysis.records import Sweep, read_sweep, write_trial
from analysis.report import __main__ as report_command
from analysis.report.build import report
from analysis.tipping_points import tipping_points
from tests.analysis.conftest import make_trial

STRENGTHS = np.geomspace(1, 1e6, 7)
Command = Callable[..., tuple[int, str, str]]


def curve(tip: float) -> list[float]:
    """Scores that fall from 0.9 to 0.1, to 80% of the plateau about 10^tip."""
    return [0.1 + 0.8 / (1 + 10 ** (3 * (np.log10(x) - tip))) for x in STRENGTHS]


class Writer:
    """Writes trials of two settings that differ in one thing, and the baseline of each."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = str(path), 0

    def trials(
        self, scores: list[float], *, config: dict[str, Any], baseline: float | None = 0.9, **columns: Any
    ) -> None:
        for seed in (0, 1):
            if baseline is not None:
                self.one(baseline + seed / 1000, config, seed, method="baseline", alpha=None, variant=None, **columns)
            for x, score in zip(STRENGTHS, scores, strict=True):
                self.one(score + 0.001 * seed, config, seed, alpha=float(x), **columns)

    def one(self, score: float, config: dict[str, Any], seed: int, **columns: Any) -> None:
        self.number += 1
        method = {"name": columns.get("method", "pilcro"), **config.get("method", {})}
        whole = {"data": {}, "model": {}, "training": {}, **config, "method": method, "seed": seed}
        if columns.get("method") == "baseline":
            whole["method"] = {"name": "baseline"}
        row = {
            **columns,
            "seed": seed,
            "top1": score,
            "total_variation": 1.0 / (1 + score),
            "config": json.dumps(whole, sort_keys=True),
        }
        trial, epochs, _, maps = make_trial(f"t{self.number:03d}", **row)
        write_trial(self.path, trial, epochs, [], maps)

    def read(self, **how: bool) -> Sweep:
        return read_sweep(self.path, **how)


# what two settings differ in, and what it is called
DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "training.momentum": ({"training": {"momentum": 0.9}}, {"training": {"momentum": 0.5}}, {}, {}),
    "training.label_smoothing": (
        {"training": {"label_smoothing": 0.0}},
        {"training": {"label_smoothing": 0.1}},
        {},
        {},
    ),
    "training.milestones": ({"training": {"milestones": [1]}}, {"training": {"milestones": [1, 2]}}, {}, {}),
    "data.channels": ({}, {"data": {"channels": 1}}, {}, {}),
    "data.image_size": ({"data": {"image_size": None}}, {"data": {"image_size": 16}}, {}, {}),
    "data.exclude": ({}, {"data": {"exclude": ["masks"]}}, {}, {}),
    "method.own": ({"method": {"own": 1.0}}, {"method": {"own": 2.0}}, {}, {}),
    "epochs": ({}, {}, {"epochs": 2}, {"epochs": 4}),
    "learning_rate": ({}, {}, {"learning_rate": 0.1}, {"learning_rate": 0.2}),
    "code.method": ({}, {}, {"code": "aaaaaaaa-00000000"}, {"code": "bbbbbbbb-00000000"}),
    "code.model": ({}, {}, {"code": "aaaaaaaa-00000000"}, {"code": "aaaaaaaa-11111111"}),
    "code.model of old records": ({}, {}, {"code": None}, {"code": "aaaaaaaa-00000000"}),
}


@pytest.fixture(params=DIFFERENCES)
def two(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Writer]:
    """A record of two settings that tip over at 10² and 10⁴, and whose baselines have 0.9 and 0.6."""
    config, other, columns, others = DIFFERENCES[request.param]
    writer = Writer(tmp_path / "s")
    writer.trials(curve(2), config=config, **columns)
    # the method's own hyperparameters and code are none of the baseline's
    own = request.param in ("method.own", "code.method")
    writer.trials(curve(4), config=other, baseline=None if own else 0.6, **others)
    return request.param.split(" ")[0], writer


def test_every_command_tells_them_apart(two: tuple[str, Writer]) -> None:
    name, writer = two
    sweep = writer.read()
    points = tipping_points(sweep)
    assert name in points.by
    where = [curve.fit.log10_strength for curve in points.curves if curve.fit is not None]
    assert sorted(where) == pytest.approx([2, 4], abs=0.4)
    assert len({curve.group.label() for curve in points.curves}) == 2
    found = correlations(sweep, until="all")
    assert len({test.group.label() for test in found.tests}) == 2
    assert all(test.kept == 14 for test in found.tests)
    result = comparisons(sweep)
    assert all(row.comparison.n == 2 for row in result.tested if not row.reason)
    assert len({row.label for row in result.tested}) == 14
    if name in ("training.momentum", "code.method"):
        report(sweep)
        check_all(sweep)


def test_every_command_refuses_to_pool_them(two: tuple[str, Writer]) -> None:
    name, writer = two
    sweep = writer.read()
    if name == "method.own":
        # pooled as it was asked for, and said so
        assert "differ in own" in tipping_points(sweep, by=["variant"]).notes[-1]
        with pytest.raises(InputError, match="both have seed"):
            comparisons(sweep, by=["alpha"])
        return
    advice = "--pool-code takes them for one" if name.startswith("code.") else "leave --by out"
    message = rf"mixes 2 (values of {name}|codes) \(.*add {name} to --by, or {advice}"
    with pytest.raises(InputError, match=message):
        tipping_points(sweep, by=["variant"])
    with pytest.raises(InputError, match=message):
        correlations(sweep, by=["variant"], until="all")
    with pytest.raises(InputError, match=message):
        comparisons(sweep, by=["alpha"])
    assert len(tipping_points(sweep, by=["variant", name]).curves) == 2


def test_a_baseline_of_another_training_is_no_reference(two: tuple[str, Writer]) -> None:
    """The plateau of each curve rests on its own baseline, 0.9 or 0.6, and not on their mean."""
    _, writer = two
    for row in comparisons(writer.read()).tested:
        assert {trial["top1"] for trial in row.reference} in ({0.9, 0.901}, {0.6, 0.601})
    for found in tipping_points(writer.read()).curves:
        assert set(found.baseline) in ({0.9, 0.901}, {0.6, 0.601})


def test_code_is_pooled_where_it_is_asked_for(tmp_path: Path, command: Command) -> None:
    writer = Writer(tmp_path / "s")
    for seed, code in ((0, None), (1, "aaaaaaaa-00000000"), (2, "bbbbbbbb-11111111")):
        for x, score in zip(STRENGTHS, curve(2), strict=True):
            writer.one(score + 0.01 * seed, {}, seed, alpha=float(x), code=code)
        writer.one(0.9 + 0.01 * seed, {}, seed, method="baseline", alpha=None, variant=None, code=code)
    assert len(tipping_points(writer.read()).curves) == 3
    (found,) = tipping_points(writer.read(pool_code=True)).curves
    assert found.fit is not None
    assert found.fit.seeds == 3
    assert len(found.baseline) == 3
    assert [row.comparison.n for row in comparisons(writer.read(pool_code=True)).tested] == [3] * 7
    for module in (tipping_command, correlations_command, comparisons_command, paper_command, report_command):
        code, out, err = command(module.main, writer.path, "--pool-code")
        assert (code, err) == (0, ""), module
        assert "unknown" not in out, module
    _, out, _ = command(tipping_command.main, writer.path)
    assert "code of the method unknown" in out
    assert "code of the method bbbbbbbb" in out
    assert writer.read().content_hash == writer.read(pool_code=True).content_hash


def test_codes_of_several_methods_and_networks_are_no_settings(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "s")
    writer.trials(curve(2), config={}, code="aaaaaaaa-00000000")
    for row in ("lenet5", "22222222"), ("resnet20", "33333333"):
        writer.trials(curve(2), config={}, model=row[0], code=f"aaaaaaaa-{row[1]}")
    assert tipping_points(writer.read()).by == ["model"]
    assert not any(name.startswith("code.") for name in writer.read().settings.column_names)


def test_alpha_counts_with_the_interval_in_old_records(tmp_path: Path) -> None:
    """`interval_factor` is null in records from before it was a choice, where α was multiplied by the interval."""
    writer = Writer(tmp_path / "s")
    for seed, factor in ((0, None), (1, True)):
        for x, score in zip(STRENGTHS, curve(2), strict=True):
            writer.one(score, {}, seed, alpha=float(x), interval=10, interval_factor=factor)
    assert tipping_points(writer.read()).by == []
    assert writer.read().trials["interval_factor"].null_count == 7  # the record itself says what it said


def test_labels_are_unique_wherever_values_are(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "s")
    for alpha in (0.3, 0.30000000000000004, 1.0, 1.0000001):
        for seed in (0, 1):
            writer.one(0.5 + alpha / 100, {}, seed, alpha=alpha)
    for seed in (0, 1):
        writer.one(0.9, {}, seed, method="baseline", alpha=None, variant=None)
    labels = [row.label for row in comparisons(writer.read()).tested]
    assert labels == [
        "alpha=0.3",
        "alpha=0.30000000000000004",
        "alpha=1",
        "alpha=1.0000001",
    ]
    page = report(writer.read())
    assert all(text.replace("alpha=", "α = ") in page for text in labels)


def test_words_of_two_columns_are_told_apart(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "s")
    for words in {"variant": "mean", "reduction": None}, {"variant": None, "reduction": "mean"}:
        writer.one(0.5, {}, 0, **words)
    rows = writer.read().settings.to_pylist()
    assert [group.label() for group in grouped(rows, ["variant", "reduction"])] == ["reduction=mean", "variant=mean"]
    assert label({"variant": "mean"}) == "mean"


@pytest.mark.parametrize(
    "values", [("1", 1), (None, "none"), (True, "true"), ([1], "1"), (0.5, "0.5"), ("a", None)], ids=str
)
def test_values_of_several_types_are_several_settings(values: tuple[Any, Any], tmp_path: Path) -> None:
    writer = Writer(tmp_path / "s")
    for value, tip in zip(values, (2, 4), strict=True):
        writer.trials(curve(tip), config={"method": {"own": value}}, baseline=None)
    found = tipping_points(writer.read())
    assert found.by == ["method.own"]
    assert len({curve.group.label() for curve in found.curves}) == 2


def test_own_hyperparameters_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "s")
    writer.trials(curve(2), config={"method": {"own": math.nan}})
    with pytest.raises(InputError, match=r"method\.own is nan"):
        tipping_points(writer.read())


def test_only_the_trials_own_seed_is_no_setting(tmp_path: Path) -> None:
    """Configurations that differ in it alone are read once; one of a hyperparameter is another setting."""
    writer = Writer(tmp_path / "w")
    for seed, own in ((0, 1), (0, 2), (1, 1), (1, 2)):
        writer.one(0.5, {"method": {"inner": {"a": {}, "seed": own, "training": {}}}}, seed, method="own")
    shown = [f'{{"a": {{}}, "seed": {own}, "training": {{}}}}' for own in (1, 2)]
    assert [row["method.inner"] for row in writer.read().rows] == shown * 2


def test_codes_of_another_form_are_told_apart_all_the_same(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "s")
    for seed, code in enumerate(("", "abc", "a-b-c", "a-b")):
        for x, score in zip(STRENGTHS, curve(2), strict=True):
            writer.one(score, {}, seed, alpha=float(x), code=code)
    assert len(tipping_points(writer.read()).curves) == 4


def test_a_curve_without_a_baseline_of_its_own_says_so(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "s")
    writer.trials(curve(2), config={"training": {"momentum": 0.9}})
    writer.trials(curve(2), config={"training": {"momentum": 0.5}}, baseline=None)
    notes = tipping_points(writer.read()).notes
    assert any(note.startswith("1 curve without a baseline of the same data") for note in notes)


@pytest.mark.parametrize(
    ("values", "digits"),
    [([], 6), ([1.0, None, "x"], 6), ([1.0, 1.0000001], 8), ([0.3, 0.30000000000000004], 17), ([1e-9, 2e-9], 6)],
)
def test_digits(values: list[Any], digits: int) -> None:
    assert digits_of(values) == digits
