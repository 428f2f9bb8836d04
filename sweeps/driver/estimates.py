"""About how long trials take, from what a training step took on this machine: in trials that it has recorded, or timed
with --estimate. Kept in the user's cache (`$XDG_CACHE_HOME/spatial-sweeps/steps.json`), so that a plan needs no torch.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeps.plan import Plan, PlannedTrial
from trainables.data.cache import cache_folder
from trainables.metrics import METRICS

Steps = dict[str, float]
"""Seconds of a plain training step on one core, by network, width, image and batch: `step_name`."""


def steps_file() -> Path:
    """Where they are kept. Raises `OSError` where there is no home."""
    return cache_folder() / "steps.json"


def known_steps() -> Steps:
    """Those of this machine; none where the file is missing or cannot be used, as they can be measured anew."""
    try:
        known = json.loads(steps_file().read_text())[platform.node()]
        return {str(name): float(seconds) for name, seconds in known.items() if float(seconds) > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def keep_steps(steps: Mapping[str, float]) -> None:
    """Add to those of this machine. Raises `OSError` where the cache cannot be written."""
    file = steps_file()
    try:
        everywhere = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        everywhere = {}
    everywhere[platform.node()] = {**known_steps(), **steps}
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(everywhere, indent=1, sort_keys=True))
    fresh.replace(file)


def step_name(plan: Plan, trial: PlannedTrial) -> str:
    """What a step's time depends on, for a plain network."""
    info, config = _info(plan, trial), trial.config
    size = config.data.image_size or info.size
    images = f"{info.channels}×{size}×{size} images"
    return f"{config.model.model} of width {config.model.width}, batches of {config.training.batch_size} {images}"


def estimated_seconds(
    measure: Mapping[str, Mapping[str, Any]], plan: Plan, trial: PlannedTrial, steps: Mapping[str, float]
) -> float:
    """Images trained on, and explained or perturbed, times the seconds of a plain training step, one core."""
    config, info = trial.config, _info(plan, trial)
    features = info.channels * (config.data.image_size or info.size) ** 2
    metrics = [METRICS[name](**chosen) for name, chosen in measure.items()]
    measured = sum(metric.image_passes(features) for metric in metrics if hasattr(metric, "image_passes"))
    images = trial.cost * info.training_images(config.data) + measured
    return images / config.training.batch_size * steps[step_name(plan, trial)]


def recorded_steps(plan: Plan, rows: Iterable[Mapping[str, Any]]) -> Steps:
    """What a plain step took in these rows of the trials table, those of this machine on one core: the median."""
    planned = {trial.id: trial for trial in plan.trials}
    found: dict[str, list[float]] = {}
    for row in rows:
        here = row["host"] == platform.node() and str(row["device"]).startswith("cpu") and row["cpus"] == 1
        if here and row["status"] == "completed" and row["images_per_second"]:
            trial = planned[row["trial_id"]]
            seconds = row["batch_size"] / row["images_per_second"] / trial.config.method.relative_cost
            found.setdefault(step_name(plan, trial), []).append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def time_steps(plan: Plan, trials: Iterable[PlannedTrial]) -> Steps:
    """A plain training step of each of these trials' networks, timed now on random images with one thread."""
    return {
        name: _time_step(plan, trial) for name, trial in {step_name(plan, trial): trial for trial in trials}.items()
    }


def _info(plan: Plan, trial: PlannedTrial) -> Any:
    return next(info for info in plan.data.values() if info.name == trial.config.data.dataset)


def _time_step(plan: Plan, trial: PlannedTrial) -> float:
    import torch  # here, as a plan does without

    from trainables.models import build_model

    config, info = trial.config, _info(plan, trial)
    size = config.data.image_size or info.size
    # large images are timed in small batches: an estimate is not worth minutes
    batch = min(config.training.batch_size, 128, max(2, 2**17 // size**2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = build_model(
        config.model.model,
        channels=info.channels,
        size=size,
        classes=info.classes,
        width=config.model.width,
        seed=0,
    )
    images, labels = torch.randn(batch, info.channels, size, size), torch.zeros(batch, dtype=torch.int64)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        times.append(time.perf_counter() - start)
        if times[-1] > 5:
            break
    torch.set_num_threads(threads)
    return min(times) * config.training.batch_size / batch
