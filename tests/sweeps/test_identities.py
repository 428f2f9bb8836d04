"""A trial is its configuration: what was recorded long ago keeps its id."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from sweeps.plan import trial_id
from trainables.configuration import TrialConfig

REPRODUCTIONS = Path(__file__).resolve().parents[2] / "analysis" / "reproductions"


def test_recorded_trials_keep_their_ids() -> None:
    recorded = [
        row
        for file in sorted(REPRODUCTIONS.rglob("trials/*.parquet"))
        for row in pq.read_table(file, columns=["trial_id", "config"]).to_pylist()
    ]
    changed = [
        row["trial_id"]
        for row in recorded
        if trial_id(TrialConfig.from_canonical(json.loads(row["config"]))) != row["trial_id"]
    ]
    assert not changed
    assert len({row["trial_id"] for row in recorded}) >= 261
