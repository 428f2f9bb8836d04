"""About how long trials take."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from sweeps.flags import SweepFlags
from sweeps.plan import Plan, PlannedTrial
from trainables.metrics import METRICS
from trainables.models import build_model

_STEP_SECONDS: dict[tuple[Any, ...], float] = {}


def estimated_seconds(flags: SweepFlags, plan: Plan, trial: PlannedTrial) -> float:
    """Images trained on, and explained or perturbed, times the measured time of a plain training step on random images
    of that size, one thread."""
    config = trial.config
    info = next(info for info in plan.data.values() if info.name == config.data.dataset)
    size = config.data.image_size or info.size
    images = info.training_images(config.data)
    key = (config.model, size, info.channels, config.training.batch_size)
    if key not in _STEP_SECONDS:
        _STEP_SECONDS[key] = _time_step(info.channels, size, info.classes, trial)
    features = info.channels * size**2
    metrics = [METRICS[name](**chosen) for name, chosen in flags.metrics().items()]
    measured = sum(metric.image_passes(features) for metric in metrics if hasattr(metric, "image_passes"))
    return (trial.cost * images + measured) / config.training.batch_size * _STEP_SECONDS[key]


def _time_step(channels: int, size: int, classes: int, trial: PlannedTrial) -> float:
    # large images are timed in small batches: an estimate is not worth minutes
    batch = min(trial.config.training.batch_size, 128, max(2, 2**17 // size**2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = build_model(
        trial.config.model.model, channels=channels, size=size, classes=classes, width=trial.config.model.width, seed=0
    )
    images, labels = torch.randn(batch, channels, size, size), torch.zeros(batch, dtype=torch.int64)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        times.append(time.perf_counter() - start)
        if time.perf_counter() - start > 5:
            break
    torch.set_num_threads(threads)
    return float(np.min(times)) * trial.config.training.batch_size / batch
