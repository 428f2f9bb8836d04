"""A sweep that adds to a record of other code says so, and pools nothing; settings have names of their own."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from analysis import records
from sweeps.driver.codes import code_now, named_by_code, told_of_codes
from sweeps.driver.manifest import sweep_url
from sweeps.driver.summary import make_console, print_plan, summarise
from sweeps.flags import read_flags
from sweeps.labels import settings_in_words
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import Plan, make_plan
from tests.sweeps.test_failures import actor, starts
from trainables import trainable
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig
from trainables.method import Method
from trainables.methods import METHODS
from trainables.trainable import Trial

FLAGS = ["--alpha", "1", "--seeds", "3"]


def planned(storage: Path, *more: str) -> tuple[PilcroSweep, Plan]:
    flags = read_flags(PilcroSweep, PRESETS, [*FLAGS, "--storage", str(storage), *more], "")
    return flags, make_plan(flags)


def write(flags: PilcroSweep, plan: Plan, codes: dict[int, str | None], **columns: Any) -> None:
    """Every planned trial of these seeds, of this code; "now": today's."""
    for trial in plan.trials:
        if trial.config.seed in codes:
            code = codes[trial.config.seed]
            row = {"trial_id": trial.id, "status": "completed", "seed": trial.config.seed, "epochs": 1}
            row |= {"method": trial.config.method.name, "model": trial.config.model.model}
            row |= {"code": code_now(trial) if code == "now" else code, "top1": 0.5 + 0.1 * trial.config.seed}
            records.write_trial(sweep_url(flags), {**row, **columns}, [], [], [])


def test_a_plan_says_that_the_record_is_of_other_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, plan = planned(tmp_path)
    write(flags, plan, {0: None, 1: "00000000-11111111"})
    print_plan(flags, plan)
    out = capsys.readouterr().out
    number = 2 * len(plan.trials) // 3
    assert f"{number} recorded trials of this sweep by other code" in out
    assert "(code 00000000-11111111, unknown)" in out
    assert "unless --pool-code" in out


def test_nothing_is_said_of_todays_code_of_failures_and_of_other_networks(tmp_path: Path) -> None:
    flags, plan = planned(tmp_path)
    write(flags, plan, {0: "now"})
    write(flags, plan, {1: None}, status="failed")
    write(flags, plan, {2: None}, model="lenet5")
    assert told_of_codes(plan, sweep_url(flags), records.scan(sweep_url(flags))) == ""
    assert told_of_codes(plan, f"{tmp_path}/none", records.scan(f"{tmp_path}/none")) == ""


def test_a_damaged_trial_is_passed_over(tmp_path: Path) -> None:
    flags, plan = planned(tmp_path)
    write(flags, plan, {0: None, 1: None})
    victim = next(iter((tmp_path / "pilcro" / "trials").iterdir()))
    victim.write_bytes(victim.read_bytes()[:-20])
    number = 2 * len(plan.trials) // 3 - 1
    scan = records.scan(sweep_url(flags))
    assert told_of_codes(plan, sweep_url(flags), scan).startswith(
        f"{number} recorded trials of this sweep by other code"
    )


def test_no_mean_is_of_two_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, plan = planned(tmp_path)
    write(flags, plan, {0: None, 1: "now", 2: "now"})
    summarise(flags, plan, sweep_url(flags), make_console())
    out = capsys.readouterr().out
    settings = len(plan.trials) // 3
    assert out.count("0.6500 ± 0.0707") == settings  # seeds 1 and 2: 0.6 and 0.7
    assert out.count("0.5000  ") + out.count("0.5000 ") >= settings
    rows = {row["trial_id"]: row for row in records.read_table(sweep_url(flags), "trials").to_pylist()}
    names = named_by_code(plan, rows)
    assert len(set(names.values())) == 2 * settings
    assert sum("(code unknown)" in name for name in names.values()) == settings


def test_a_record_of_one_other_code_keeps_its_names(tmp_path: Path) -> None:
    flags, plan = planned(tmp_path)
    write(flags, plan, {0: None, 1: None})
    rows = {row["trial_id"]: row for row in records.read_table(sweep_url(flags), "trials").to_pylist()}
    assert set(named_by_code(plan, rows).values()) == {trial.setting for trial in plan.trials}


class TestCheckpoints:
    """A trial is of one code from its first epoch to its last."""

    def test_of_other_code_is_begun_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = begun(tmp_path)
        monkeypatch.setattr(trainable, "code_of", lambda *_: "00000000-11111111")
        one.reset_config({"trial": one.trial})
        assert one.step()["epoch"] == 1
        assert starts(one) == 1
        assert "which is 00000000-11111111 now; the trial begins again" in capsys.readouterr().err
        assert last(one)["code"] == "00000000-11111111"
        assert one.step()["epoch"] == 2

    def test_of_the_same_code_goes_on(self, tmp_path: Path) -> None:
        one = begun(tmp_path)
        one.reset_config({"trial": one.trial})
        assert one.step()["epoch"] == 3
        assert starts(one) == 2

    def test_from_before_code_was_told_is_of_unknown_code(self, tmp_path: Path) -> None:
        one = begun(tmp_path)
        state = last(one)
        del state["code"]
        one.checkpoints.delete()
        one.checkpoints.save(2, state)
        one.reset_config({"trial": one.trial})
        assert one.step()["epoch"] == 3
        assert last(one)["code"] is None
        while not one.step()["done"]:
            pass
        (row,) = records.read_sweep(str(tmp_path / "s")).trials.to_pylist()
        assert (row["status"], row["code"]) == ("completed", None)


def begun(tmp_path: Path) -> Trial:
    """A trial after two epochs, each kept."""
    one = actor(tmp_path / "s")
    one.step()
    one.step()
    return one


def last(one: Trial) -> dict[str, Any]:
    state, _ = one.checkpoints.load()
    assert state is not None
    return state


def test_the_record_has_the_code(tmp_path: Path) -> None:
    one = actor(tmp_path / "s")
    while not one.step()["done"]:
        pass
    (row,) = records.read_sweep(str(tmp_path / "s")).trials.to_pylist()
    assert row["code"] == trainable.code_of(METHODS[row["method"]], row["model"])


@dataclass(frozen=True)
class Own(Method):
    name = "own"
    alpha: float = 1.0
    size: int | None = None
    steps: tuple[int, ...] = ()


def words(*methods: Method, **training: float) -> list[str]:
    common = ModelConfig("resnet8", 16), DataConfig("digits"), TrainingConfig(1, **training)  # type: ignore[arg-type]
    return settings_in_words(
        [TrialConfig(method, *common, seed) for method, seed in itertools.product(methods, (0, 1))]
    )


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        ([Own(0.3), Own(0.30000000000000004)], ["own α=0.3", "own α=0.30000000000000004"]),
        ([Own(1), Own(1.0000001)], ["own α=1", "own α=1.0000001"]),
        ([Own(1), Own(10)], ["own α=1", "own α=10"]),
        ([Own(size=3), Own(size=None), Method()], ["own α=1 size=3", "own α=1", "baseline"]),
        ([Own(size=3), Own(size=4)], ["own α=1 size=3", "own α=1 size=4"]),
        ([Own(steps=(1, 2)), Own(steps=())], ["own α=1 steps=1,2", "own α=1 steps=none"]),
    ],
)
def test_settings_have_names_of_their_own(methods: list[Method], names: list[str]) -> None:
    found = words(*methods)
    assert found[::2] == names
    assert found[::2] == found[1::2]  # whatever the seed


def test_a_plan_of_near_strengths_has_a_row_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, plan = planned(tmp_path, "--alpha", "0.3", "0.30000000000000004", "--variant", "target")
    write(flags, plan, {0: "now", 1: "now", 2: "now"})
    assert len({json.dumps(trial.config.method.columns(8)) + trial.setting for trial in plan.trials}) == 3
    summarise(flags, plan, sweep_url(flags), make_console())
    assert capsys.readouterr().out.count("0.6000 ± 0.1000") == 3
