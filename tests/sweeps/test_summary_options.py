"""The summary of a sweep's command: no mean over trials that were measured with other options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis import records
from sweeps.driver.manifest import sweep_url
from sweeps.driver.summary import make_console, summarise
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan


@pytest.mark.parametrize("others", [0, 1, 3])
def test_other_options_are_in_no_mean(others: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--alpha", "1", "--seeds", "3", "--landscape-images", "100", "--storage", str(tmp_path)]
    flags = read_flags(PilcroSweep, PRESETS, arguments, "")
    plan = make_plan(flags)
    first = sorted({trial.config.seed for trial in plan.trials})[:others]
    for trial in plan.trials:
        options = flags.metrics()
        is_other = trial.config.seed in first
        if is_other:
            options = {**options, "landscape": {**options["landscape"], "images": 128}}
        row = {"trial_id": trial.id, "status": "completed", "seed": trial.config.seed, "epochs": 1, "top1": 0.5}
        row["method"] = trial.config.method.name
        row |= {"total_variation": 9.0 if is_other else 1.0, "measured": json.dumps(options, sort_keys=True)}
        records.write_trial(sweep_url(flags), row, [], [], [])
    assert summarise(flags, plan, sweep_url(flags), make_console()) == 0
    out, err = capsys.readouterr()
    means = {0: "1.0000 ± 0.0000", 1: "1.0000 ± 0.0000", 3: "9.0000 ± 0.0000"}  # all of one kind belong together
    assert out.count(means[others]) == len(plan.trials) // 3
    assert ("were measured with other options (total_variation)" in err) == (others == 1)
    assert out.count("0.5000 ± 0.0000") == len(plan.trials) // 3
