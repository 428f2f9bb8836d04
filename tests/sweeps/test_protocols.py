"""Every preset of every method against the protocol of its paper: what is not as there is meant to be, and is said."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from analysis.paper.items import METHODS
from analysis.paper.printed import Said, everything_said
from analysis.paper.protocol import _same, _unlike, _unlike_measured
from analysis.schema import TABLES
from analysis.settings import settings_of
from sweeps.flags import SweepFlags
from sweeps.plan import make_plan

PAPERS = {method: paper for paper, method in METHODS.items()}
PRESETS = [
    (script, preset)
    for script in PAPERS
    for preset in importlib.import_module(f"sweeps.{script}").PRESETS
    if preset != "digits"
]
# of which the papers have no number and no statement
NONE = {("pilcro", "mnist"), ("pilcro", "cifar10"), ("gradient_reg", "mnist-resnet18")}
# what deviates, and the words of the preset's help that say so
DELIBERATE = {("top_gap", "oxford-pets", "37 classes (paper: 53)"): "parameters are those with 37 classes"}


def flags_of(script: str, preset: str, tmp_path: Path) -> SweepFlags:
    """The preset for one seed, and few strengths, which decide no field of the training; its folder is CUB's."""
    flags: SweepFlags = importlib.import_module(f"sweeps.{script}").PRESETS[preset]
    changed: dict[str, Any] = {"seeds": 1, "data_root": str(tmp_path / "none")}
    if getattr(flags, "alpha_range", ()):
        changed["alpha_range"] = (*flags.alpha_range[:2], 3)  # type: ignore[attr-defined]
    if preset == "folder":
        pixels = np.zeros((4, 4, 3), np.uint8)
        for number in range(200):
            (tmp_path / "cub" / f"{number:03}").mkdir(parents=True)
            for index in range(5):
                Image.fromarray(pixels + index).save(tmp_path / "cub" / f"{number:03}" / f"{index}.png")
        changed |= {"dataset": (f"folder:{tmp_path / 'cub'}",), "as_": ("cub-200-2011",)}
    return dataclasses.replace(flags, **changed)


def planned(flags: SweepFlags) -> list[dict[str, Any]]:
    """The trials of a plan as the record would have their settings."""
    plan = make_plan(flags)
    rows = []
    for trial in plan.trials:
        config = trial.config
        columns = {**config.columns(), **config.method.columns(config.training.batch_size)}
        row = {name: columns.get(name) for name in TABLES["trials"].names}
        row |= {"config": json.dumps(config.canonical()), "measured": json.dumps(flags.metrics())}
        rows.append({**row, "declared": plan.declared.get(config.data.dataset)})
    found: list[dict[str, Any]] = settings_of(pa.Table.from_pylist(rows, schema=TABLES["trials"])).to_pylist()
    return found


def about(row: dict[str, Any], said: Said) -> bool:
    """Whether what a paper says is of a trial's setting, data set and network."""
    whole = {**row, "dataset": row["declared"] or row["dataset"]}
    wanted = {name: value for name, value in said.protocol.items() if name in ("dataset", "model", "crop")}
    return all(_same(name, whole[name], value) for name, value in {**said.settings, **wanted}.items())


def deviations(script: str, flags: SweepFlags) -> tuple[int, set[str]]:
    """Against how many numbers and statements a preset is held, and in what it deviates."""
    rows = planned(flags)
    held, found = 0, set()
    for said in everything_said():
        if said.paper != PAPERS[script] or not said.settings or not said.quantity:
            continue
        own = [row for row in rows if about(row, said)]
        held += bool(own)
        for row in own:
            found.update((*_unlike(row, said), *_unlike_measured(row, said)))
    return held, found


@pytest.mark.parametrize(("script", "preset"), PRESETS)
def test_a_preset_is_its_papers_protocol(script: str, preset: str, tmp_path: Path) -> None:
    flags = flags_of(script, preset, tmp_path)
    held, found = deviations(script, flags)
    assert bool(held) == ((script, preset) not in NONE)
    for deviation in found:
        assert DELIBERATE[script, preset, deviation] in flags.about
    assert {it for name, of, it in DELIBERATE if (name, of) == (script, preset)} == found


@pytest.mark.parametrize(
    ("script", "preset", "changed", "told"),
    [
        ("top_gap", "imagenet", {"pretrained": False}, "not pretrained (paper: with ImageNet's weights)"),
        ("top_gap", "cifar10", {"attack_queries": 1000}, "measured with queries=1000 (paper: 5000)"),
        ("top_gap", "cifar10", {"attack_images": 500}, "measured with images=500 (paper: all)"),
        ("top_gap", "cifar10", {"attack_restarts": 2}, "measured with restarts=2 (paper: 1)"),
        ("top_gap", "cifar10", {"step_size": "eps/4"}, "PGD by steps of eps/4 (paper: eps/30)"),
        ("pilcro", "imagenet", {"evaluation_size": None}, "evaluation_size is 224 (paper: 288)"),
        ("loco_reg", "cifar100", {"momentum": 0.0}, "momentum is 0 (paper: 0.9)"),
        ("gradient_reg", "imagenette", {"image_size": 160}, "image_size is 160 (paper: 320)"),
        ("gradient_reg", "mnist", {"saliency_images": 64}, "measured with images=64 (paper: 128)"),
        ("deformation", "cifar10", {"deformation_grid": 5}, "measured with grid=5 (paper: 3)"),
    ],
)
def test_what_is_changed_is_seen(script: str, preset: str, changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    flags = dataclasses.replace(flags_of(script, preset, tmp_path), **changed)
    assert told in deviations(script, flags)[1]


@pytest.mark.parametrize(("script", "preset"), PRESETS)
def test_a_preset_has_an_interval_or_says_that_it_has_none(script: str, preset: str) -> None:
    flags: SweepFlags = importlib.import_module(f"sweeps.{script}").PRESETS[preset]
    assert flags.about
    repeated = flags.seeds * (flags.folds or 1) > 1
    assert ("no interval" in flags.about) != repeated
