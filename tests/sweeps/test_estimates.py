"""What a plan says of its cost, and where it knows it from."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

import pytest

from sweeps.driver.estimates import estimated_seconds, keep_steps, known_steps, recorded_steps, step_name, steps_file
from sweeps.driver.summary import print_plan
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import Plan, make_plan

STEP = "resnet8 of width 16, batches of 128 1×8×8 images"


def plan_of(*argv: str) -> tuple[PilcroSweep, Plan]:
    flags = read_flags(PilcroSweep, PRESETS, [*argv], "")
    assert isinstance(flags, PilcroSweep)
    return flags, make_plan(flags)


def test_without_a_measurement_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(*plan_of("--dry-run", "--storage", str(tmp_path)))
    said = f"estimated cost: not known, as nothing like it was trained on this machine ({STEP})"
    assert said in capsys.readouterr().out
    assert not steps_file().exists()


def test_it_is_measured_on_request_and_known_from_then_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(*plan_of("--dry-run", "--estimate", "--storage", str(tmp_path)))
    measured = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"estimated cost: [\d.e-]+ core-hours at this machine's speed .*", measured)
    print_plan(*plan_of("--dry-run", "--storage", str(tmp_path)))
    assert capsys.readouterr().out.splitlines()[-1] == measured
    assert list(known_steps()) == [STEP]


def test_the_estimate_by_hand() -> None:
    """1,293 training images (1,437 less a tenth for validation) in 30 epochs, half a second for each 128 of them."""
    flags, plan = plan_of("--seeds", "1", "--measure")
    baseline = plan.trials[0]
    assert step_name(plan, baseline) == STEP
    assert estimated_seconds(flags.metrics(), plan, baseline, {STEP: 0.5}) == pytest.approx(30 * 1293 / 128 * 0.5)


def test_what_was_recorded_here_on_one_core_counts() -> None:
    _, plan = plan_of("--seeds", "3", "--variant", "curvature", "--alpha", "1")
    here = {"host": platform.node(), "device": "cpu (x86_64)", "cpus": 1.0, "status": "completed", "batch_size": 128}
    baselines = [trial for trial in plan.trials if trial.config.method.name == "baseline"]
    rows = [
        {**here, "trial_id": trial.id, "images_per_second": speed}
        for trial, speed in zip(baselines, (1280.0, 640.0, 320.0), strict=True)
    ]
    assert recorded_steps(plan, rows) == {STEP: pytest.approx(0.2)}
    other = {"host": "elsewhere", "device": "NVIDIA", "cpus": 2.0, "status": "diverged", "images_per_second": None}
    for column, value in other.items():
        assert recorded_steps(plan, [{**rows[0], column: value}]) == {}
    # the trial of a method that costs more a step says the same of a plain one
    pilcro = next(trial for trial in plan.trials if trial.config.method.name == "pilcro")
    cost = pilcro.config.method.relative_cost
    assert cost > 1
    slow = {**here, "trial_id": pilcro.id, "images_per_second": 1280.0 / cost}
    assert recorded_steps(plan, [slow]) == {STEP: pytest.approx(0.1)}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"HOST": 3}', '{"HOST": {"a": "x"}}'])
def test_a_damaged_cache_is_none(content: str) -> None:
    steps_file().parent.mkdir(parents=True)
    steps_file().write_text(content.replace("HOST", platform.node()))
    assert known_steps() == {}
    keep_steps({"a": 1.0})
    assert known_steps() == {"a": 1.0}


def test_the_steps_of_other_machines_stay() -> None:
    keep_steps({"a": 1.0})
    everywhere = json.loads(steps_file().read_text())
    steps_file().write_text(json.dumps({"elsewhere": {"a": 2.0}, **everywhere}))
    keep_steps({"b": 3.0})
    assert known_steps() == {"a": 1.0, "b": 3.0}
    assert json.loads(steps_file().read_text())["elsewhere"] == {"a": 2.0}
