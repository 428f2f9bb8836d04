"""Trials that a scheduler ends early: what Tune's rules are told, what is recorded, what analysis makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analysis.command_line import InputError
from analysis.records import read_sweep, read_table, write_trial
from sweeps.driver import stopping
from sweeps.driver.stopping import Stopping
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan
from sweeps.proposers import proposer_of
from tests.sweeps.driving import ONE_BY_ONE, finish, start

EPOCHS = 9  # rungs of ASHA at 1, 3 and 9; the median rule from 2


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials whose workers were told to end them."""
    found: list[str] = []
    monkeypatch.setattr(stopping, "stop_trial", found.append)
    return found


def canonical(method: str = "pilcro", fold: int | None = None) -> str:
    return json.dumps(
        {"method": {"name": method}, "data": {"fold": fold}, "model": {}, "training": {"epochs": EPOCHS}, "seed": 0}
    )


class Running:
    """What of Tune's own trials is looked at."""

    def __init__(self, name: str, config: str) -> None:
        self.trial_id, self.config = f"tune-{name}", {"trial": {"id": name, "json": config}}


def running(name: str, config: str) -> Any:
    return Running(name, config)


def recorded(sweep: Path, scores: dict[str, Sequence[float]], **columns: Any) -> None:
    """Trials with so much validation accuracy epoch after epoch."""
    for minute, (name, top1) in enumerate(scores.items()):
        row = {"trial_id": name, "status": "completed", "config": canonical(), "epochs": EPOCHS, "top1": top1[-1]}
        row["finished_at"] = datetime(2026, 11, 1, 12, minute, tzinfo=UTC)
        epochs = [{"epoch": epoch, "top1": score} for epoch, score in enumerate(top1, 1)]
        write_trial(str(sweep), {**row, **columns}, epochs, [], [])


def report(scheduler: Stopping, trial: Any, top1: Sequence[float], last: str = "completed") -> None:
    controller: Any = None
    scheduler.on_trial_add(controller, trial)
    for epoch, score in enumerate(top1, 1):
        result = {"epoch": epoch, "top1": score, "done": epoch == EPOCHS, "status": None}
        scheduler.on_trial_result(controller, trial, result)
    if len(top1) == EPOCHS:
        scheduler.on_trial_complete(controller, trial, {**result, "status": last})


GOOD = {"a": [0.9] * EPOCHS, "b": [0.8] * EPOCHS, "c": [0.7] * EPOCHS}


def test_asha_knows_the_rungs_of_the_recorded_trials(tmp_path: Path, told: list[str]) -> None:
    """At the first rung are .9, .8, .7: two thirds of the way from the lowest lies .8333 with a fourth of .3."""
    recorded(tmp_path / "pilcro", GOOD)
    scheduler = Stopping(1, 0, "asha", str(tmp_path / "pilcro"))
    report(scheduler, running("weak", canonical()), [0.3])
    report(scheduler, running("strong", canonical()), [0.95])
    assert told == ["weak"]
    report(Stopping(1, 0, "asha"), running("first", canonical()), [0.3] * EPOCHS)
    assert told == ["weak"]  # without a record there is nothing to compare it with


def test_the_median_rule_knows_the_averages_of_the_recorded_trials(tmp_path: Path, told: list[str]) -> None:
    recorded(tmp_path / "pilcro", GOOD)
    scheduler = Stopping(1, 0, "median", str(tmp_path / "pilcro"))
    report(scheduler, running("above", canonical()), [0.81, 0.81, 0.81])
    report(scheduler, running("below", canonical()), [0.5, 0.79, 0.79])
    assert told == ["below"]


def test_trials_that_do_not_compete_are_not_held_against_each_other(tmp_path: Path, told: list[str]) -> None:
    """Another fold is another test set; the unregularised trials are what all others are held against."""
    recorded(tmp_path / "pilcro", GOOD)
    recorded(tmp_path / "pilcro", {"x": [0.99] * EPOCHS}, status="failed")
    for kind in ("asha", "median"):
        scheduler = Stopping(1, 0, kind, str(tmp_path / "pilcro"))  # type: ignore[arg-type]
        report(scheduler, running("fold", canonical(fold=1)), [0.3] * 4)
        report(scheduler, running("base", canonical("baseline")), [0.2] * EPOCHS)
        assert told == []


@pytest.mark.parametrize("kind", ["asha", "median"])
@pytest.mark.parametrize("live", [True, False])
def test_the_unregularised_trials_end_no_other(tmp_path: Path, told: list[str], kind: Any, live: bool) -> None:
    """Four of them are far above all that is searched, and would end every trial at its first rung. Held against the
    trials that are searched, the weakest is ended as ever."""
    names = ("base0", "base1", "base2", "base3")
    url = str(tmp_path / "pilcro")
    if live:
        scheduler = Stopping(1, 0, kind)
        for name in names:
            report(scheduler, running(name, canonical("baseline")), [0.99] * EPOCHS)
    else:
        recorded(tmp_path / "pilcro", {name: [0.99] * EPOCHS for name in names}, config=canonical("baseline"))
        scheduler = Stopping(1, 0, kind, url)
    for name, top1 in (("a", 0.7), ("b", 0.8), ("c", 0.9)):
        report(scheduler, running(name, canonical()), [top1] * EPOCHS)
    assert told == []
    report(scheduler, running("weak", canonical()), [0.3] * 4)
    assert told == ["weak"]


def test_a_trial_is_told_once_and_one_that_has_ended_counts(told: list[str]) -> None:
    for kind in ("asha", "median"):
        told.clear()
        scheduler = Stopping(1, 0, kind)  # type: ignore[arg-type]
        for name, top1 in GOOD.items():
            report(scheduler, running(name, canonical()), top1)
        told.clear()
        report(scheduler, running("weak", canonical()), [0.3] * 4)
        assert told == ["weak"]


def test_a_search_for_a_tipping_point_needs_the_trials_that_do_worse() -> None:
    with pytest.raises(InputError, match="scheduler: asha, allowed with --search tipping are none, collapse"):
        read_flags(PilcroSweep, PRESETS, ["--search", "tipping", "--scheduler", "asha"], "")


def test_a_search_takes_a_collapsed_trial_for_a_result_and_one_that_did_worse_for_none(tmp_path: Path) -> None:
    from sweeps.proposers.proposer import Known
    from trainables.fingerprint import code_of

    flags = read_flags(PilcroSweep, PRESETS, ["--search", "tipping", "--variant", "target"], "")
    proposer: Any = proposer_of(flags)
    (config,) = {
        trial.config.seed: trial.config
        for trial in proposer.space.trials
        if trial.config.seed == 0 and trial.config.method.name == "pilcro"
    }.values()
    row = {"status": "stopped", "top1": 0.1, "code": code_of(type(config.method), config.model.model)}
    row["config"] = json.dumps(config.canonical())
    for by, scores in (("collapse", 1), ("asha", 0)):
        (found,) = proposer._known(Known({"x": {**row, "stopped_by": by}})).values()
        assert len(found.scores) == scores
        assert len(found.useless) == 1 - scores


SMALL = ["--train-images", "300", "--initialisations", "2", "--seeds", "1", "--variant", "target", "--no-baseline"]


@pytest.mark.ray
def test_collapsed_trials_are_ended_and_count(tmp_path: Path) -> None:
    """At α = 1e6 ¶t never learns; the second command finds everything recorded."""
    argv = [*SMALL, "--alpha", "0.01", "1e6", "--epochs", "9", "--scheduler", "collapse", *ONE_BY_ONE]
    code, out, err = finish(start(tmp_path, *argv))
    assert code == 0, err
    assert "1 stopped" in out
    sweep = read_sweep(str(tmp_path / "pilcro"))
    weak, strong = sorted(sweep.rows, key=lambda row: row["alpha"])
    assert (weak["status"], weak["stopped_at_epoch"], weak["stopped_by"]) == ("completed", None, None)
    assert (strong["status"], strong["stopped_by"]) == ("stopped", "collapse")
    assert 3 <= strong["stopped_at_epoch"] < 9
    assert strong["top1"] <= 0.2
    assert sweep.stopped == ()
    own = [row for row in sweep.epochs.to_pylist() if row["trial_id"] == strong["trial_id"]]
    assert [row["epoch"] for row in own] == list(range(1, strong["stopped_at_epoch"] + 1))
    assert max(row["top1"] for row in own[-3:]) <= 0.15
    assert len(own) == 3 or own[-4]["top1"] > 0.15
    code, out, err = finish(start(tmp_path, *argv))
    assert code == 0, err
    assert "nothing to run" in out


@pytest.mark.ray
def test_trials_that_do_worse_are_ended_and_left_out(tmp_path: Path) -> None:
    """One after the other: the second, at α = 1e6, is at a rung, 2 or 6, below what the first one was there."""
    argv = [*SMALL, "--alpha", "0.01", "1e6", "--epochs", "18", "--scheduler", "asha", *ONE_BY_ONE]
    code, _, err = finish(start(tmp_path, *argv))
    assert code == 0, err
    url = str(tmp_path / "pilcro")
    sweep = read_sweep(url)
    assert [row["alpha"] for row in sweep.rows] == [0.01]
    assert len(sweep.stopped) == 1
    assert {row["trial_id"] for row in sweep.epochs.to_pylist()} == {row["trial_id"] for row in sweep.rows}
    every = read_sweep(url, with_stopped=True)
    assert len(every.rows) == 2
    (strong,) = (row for row in every.rows if row["alpha"] == 1e6)
    assert (strong["status"], strong["stopped_by"]) == ("stopped", "asha")
    assert strong["stopped_at_epoch"] in (2, 6)
    assert len(read_table(url, "trials")) == 2
    assert make_plan(read_flags(PilcroSweep, PRESETS, argv, "")).ids == {row["trial_id"] for row in every.rows}
