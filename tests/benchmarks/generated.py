"""Records of large sweeps, for benchmarks: what a sweep's own plan says its trials are, with numbers that are drawn.

Trials, their identities, configurations and options of metrics are those of the sweep's script; accuracies fall with
strength as a logistic curve does. All is written by the record's own encoder, a file a trial or compacted.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from analysis.record_file import encode
from analysis.records import COMPACTED
from analysis.schema import TABLES
from sweeps import gradient_reg, pilcro
from sweeps.flags import SweepFlags
from sweeps.plan import Plan, PlannedTrial, make_plan

Method = Literal["pilcro", "gradient_reg"]
STRENGTHS, SEEDS, IMAGES, SIDE = 50, 10, 50, 28
EXPLAINERS = ("gradient", "deeplift")
EPSILON = (2 / 255, 4 / 255, 8 / 255)
CORRUPTIONS, SEVERITIES = ("fog", "blur", "jpeg"), range(1, 6)
# what is explained of the networks of the first seed
PANELS = (3, 17)
_EPOCH = [name for name in TABLES["epochs"].names if name not in ("trial_id", "epoch")]


def planned(method: Method, trials: int, epochs: int, storage: str) -> tuple[SweepFlags, Plan]:
    """The flags of a sweep of about so many trials, 50 strengths × 10 seeds a setting, and its plan."""
    settings = max(1, round(trials / (STRENGTHS * SEEDS)))
    flags: SweepFlags
    if method == "pilcro":
        flags = dataclasses.replace(
            pilcro.PRESETS["digits"],
            variant=("curvature", "target") if settings > 1 else ("curvature",),
            interval=tuple(range(1, max(1, settings // 2) + 1)),
            measure=("landscape", "faithfulness", "local_lipschitz", "max_sensitivity", "attacks", "paths"),
        )
    else:
        flags = dataclasses.replace(
            gradient_reg.PRESETS["digits"],
            weight_decay=tuple(1e-6 * number for number in range(settings)),
            measure=("faithfulness", "local_lipschitz", "max_sensitivity", "entropy", "saliency_maps"),
        )
    flags = dataclasses.replace(
        flags,
        alpha_range=(1e2, 1e10, STRENGTHS),
        seeds=SEEDS,
        epochs=(epochs,),
        storage=storage,
        name=method,
        yes_really=True,
    )
    return flags, make_plan(flags)


def write_record(flags: SweepFlags, plan: Plan, *, compacted: bool) -> None:
    """The whole record, as `compact` leaves it, or a file a trial and table."""
    folder = Path(flags.storage) / str(flags.name)
    trials = sorted(plan.trials, key=lambda trial: trial.id)
    rng = np.random.default_rng(0)
    tables = {"trials": _trials(flags, trials, rng)}
    top1 = tables["trials"]["top1"].to_numpy()
    tables["epochs"] = _epochs(trials, top1, rng)
    tables["measurements"] = _measurements(flags, trials, rng)
    tables["maps"] = _maps(flags, trials, rng)
    for name, table in tables.items():
        (folder / name).mkdir(parents=True)
        if compacted:
            (folder / name / f"{COMPACTED}.parquet").write_bytes(encode(table, compacted=True))
            continue
        ids = table["trial_id"].combine_chunks().dictionary_encode()
        numbers = ids.indices.to_numpy()
        starts = np.searchsorted(numbers, np.arange(len(ids.dictionary) + 1))
        bounds = dict(zip(ids.dictionary.to_pylist(), itertools.pairwise(starts), strict=True))

        def write(trial: PlannedTrial, name: str = name, table: pa.Table = table, bounds: dict = bounds) -> None:
            start, end = bounds.get(trial.id, (0, 0))
            content = encode(table.slice(start, end - start))
            with open(folder / name / f"{trial.id}.parquet", "wb") as file:
                file.write(content)

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for _ in pool.map(write, trials):
                continue


def _strength(trial: PlannedTrial) -> float:
    """log₁₀ α; 0 of the baseline."""
    alpha = trial.config.columns().get("alpha")
    return 0.0 if alpha is None else math.log10(alpha)


def _trials(flags: SweepFlags, trials: list[PlannedTrial], rng: np.random.Generator) -> pa.Table:
    schema, measured = TABLES["trials"], json.dumps(flags.metrics(), sort_keys=True)
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    rows = []
    for number, trial in enumerate(trials):
        config = trial.config
        columns = {**config.columns(), **config.method.columns(config.training.batch_size, (1, 8, 8))}
        columns = {name: value for name, value in columns.items() if name in schema.names}
        fall = 0.85 / (1 + math.exp(-4 * (_strength(trial) - 5 - (len(trial.setting) % 5) / 5)))
        top1 = float(np.clip(0.95 - fall + 0.005 * rng.normal(), 0, 1))
        rows.append(
            {
                **columns,
                "trial_id": trial.id,
                "schema_version": 1,
                "sweep": flags.name,
                "config": json.dumps(config.canonical(), sort_keys=True),
                "measured": measured,
                "status": "completed",
                "top1": top1,
                "top5": float(min(1.0, top1 + 0.03)),
                "loss": 2.3 * (1 - top1),
                "total_variation": float(rng.random()) if config.method.name != "gradient_reg" else None,
                "train_seconds": 60 + float(rng.random()),
                "measure_seconds": 5 + float(rng.random()),
                "images_per_second": 4000 * float(rng.random()),
                "attempts": 1,
                "cpus": 1.0,
                "gpus": 0.0,
                "started_at": begun + timedelta(seconds=60 * number, microseconds=number),
                "finished_at": begun + timedelta(seconds=60 * number + 65, microseconds=number),
                "git_commit": "5d1f" * 10,
                "git_dirty": False,
                "code": "0123456789ab-ba9876543210",
                "host": "node",
                "device": "cpu (x86_64)",
                "python": "3.11.7",
                "torch": "2.15.0",
                "ray": "2.60.0",
                "project_version": "0.1.0",
            }
        )
    return pa.Table.from_pylist(rows, schema=schema)


def _repeated(trials: list[PlannedTrial], times: int) -> pa.Array:
    return pa.array([trial.id for trial in trials]).take(np.repeat(np.arange(len(trials)), times))


def _epochs(trials: list[PlannedTrial], top1: np.ndarray, rng: np.random.Generator) -> pa.Table:
    epochs = trials[0].config.training.epochs
    grown = np.outer(top1, np.arange(1, epochs + 1) / epochs).ravel()
    columns = {name: pa.array(rng.random(len(grown))) for name in _EPOCH}
    columns["top1"] = pa.array(grown)
    columns["epoch"] = pa.array(np.tile(np.arange(1, epochs + 1), len(trials)))
    columns["trial_id"] = _repeated(trials, epochs)
    schema = TABLES["epochs"]
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _measured(flags: SweepFlags) -> Iterator[tuple[str, str, float | None, str, str]]:
    """Metric, component, level, unit and direction of each number of a trial."""
    for metric in ("faithfulness", "local_lipschitz", "max_sensitivity"):
        for explainer in EXPLAINERS:
            yield metric, explainer, None, "", "max" if metric == "faithfulness" else "min"
    for image in range(IMAGES):
        yield "faithfulness_per_image", "gradient", float(image), "", "max"
    if flags.name == "pilcro":
        for epsilon in EPSILON:
            yield "robust_accuracy", "pgd20", epsilon, "fraction", "max"
    else:
        for severity in SEVERITIES:
            for corruption in CORRUPTIONS:
                yield "corruption_accuracy", corruption, float(severity), "fraction", "max"
        for explainer in EXPLAINERS:
            yield "entropy", explainer, None, "nats", "none"


def _measurements(flags: SweepFlags, trials: list[PlannedTrial], rng: np.random.Generator) -> pa.Table:
    rows = list(_measured(flags))
    size, schema = len(rows) * len(trials), TABLES["measurements"]
    drift = np.repeat([_strength(trial) for trial in trials], len(rows))
    columns = {
        "trial_id": _repeated(trials, len(rows)),
        "epoch": pa.array(np.full(size, trials[0].config.training.epochs)),
        "value": pa.array(rng.random(size) + drift / 10),
        "std": pa.array(np.full(size, 0.1)),
        "n": pa.array(np.full(size, 128)),
    }
    places = np.tile(np.arange(len(rows)), len(trials))
    for name, values in zip(
        ("metric", "component", "level", "unit", "direction"), zip(*rows, strict=True), strict=True
    ):
        columns[name] = pa.array(values, schema.field(name).type).take(places)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _maps(flags: SweepFlags, trials: list[PlannedTrial], rng: np.random.Generator) -> pa.Table:
    last = trials[0].config.training.epochs
    rows: list[tuple[str, int, str]] = []
    for trial in trials:
        if flags.name == "pilcro":
            at = (("importance_landscape", last), ("initial_landscape", 0), ("path_importance", 0))
            rows += [(trial.id, epoch, name) for name, epoch in at]
        elif trial.config.seed == 0:
            names = [f"image/{image}" for image in PANELS]
            names += [f"saliency/{explainer}/{image}" for explainer in EXPLAINERS for image in PANELS]
            rows += [(trial.id, last, name) for name in names]
    values = rng.random(len(rows) * SIDE**2, dtype=np.float32)
    offsets = np.arange(0, len(values) + 1, SIDE**2, dtype=np.int32)
    schema = TABLES["maps"]
    ids, epochs, names = zip(*rows, strict=True)
    side = pa.array(np.full(len(rows), SIDE))
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=schema.field("values").type)
    return pa.Table.from_arrays([pa.array(ids), pa.array(epochs), pa.array(names), side, side, lists], schema=schema)
