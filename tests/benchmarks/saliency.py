"""What the saliency metrics cost beside Quantus: LeNet-5 on MNIST, all four metrics of the input gradient and DeepLIFT.

    python -m tests.benchmarks.saliency [--data-root data] [--images 128] [--samples 200]

One process, one thread, in one run: a short training, then the four metrics of both explainers by this project (its
metrics, as a sweep measures them) and by Quantus 0.6 with its settings of `tests/trainables/test_saliency.py` and
captum's DeepLIFT. Prints CPU seconds of both, their ratio, and by how much this project's memory grew at most.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy are loaded

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import nn

from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, load
from trainables.method import Method
from trainables.metrics import Moment
from trainables.metrics.saliency import (
    Entropy,
    Faithfulness,
    LocalLipschitz,
    MaxSensitivity,
    deeplift,
    entropy,
    explain_in_chunks,
    faithfulness_estimate,
    input_gradient,
    local_lipschitz,
    max_sensitivity,
    prediction_changes,
)
from trainables.models import build_model
from trainables.training import Run


@dataclass(frozen=True)
class Benchmark:
    data_root: str = "data"
    dataset: str = "mnist"
    images: int = 128
    samples: int = 200


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    answer = work()
    return time.process_time() - start, answer


def grown_memory(work: Callable[[], Any]) -> tuple[float, Any]:
    """MiB by which the process grew at most during the work (Linux: the peak is reset first)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    answer = work()
    return (_status("VmHWM") - before) / 1024, answer


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def large_images() -> float:
    """The same for 128 images of 320² and a narrow ResNet-18, a few perturbed features and one draw of noise: the
    chunk bounds the activations, whatever the width; what is held for all images is what is left."""
    model = build_model("resnet18-imagenet", channels=3, size=320, classes=10, width=8, seed=0).eval()
    images, labels = torch.rand(128, 3, 320, 320), torch.zeros(128, dtype=torch.int64)

    def work() -> None:
        changes = prediction_changes(model, images, labels, torch.arange(4))
        for explain in (input_gradient, deeplift):
            attributions = explain_in_chunks(explain, model, images, labels)
            entropy(attributions)
            local_lipschitz(model, images, labels, explain, samples=1, attributions=attributions)
            max_sensitivity(model, images, labels, explain, samples=1, attributions=attributions)
        # as if every feature had been perturbed
        faithfulness_estimate(model, images, labels, attributions, changes=changes[:, :1] + attributions.flatten(1))

    return grown_memory(work)[0]


def quantus_scores(model: nn.Module, images: Any, labels: Any, samples: int) -> dict[str, float]:
    import quantus
    from captum.attr import DeepLift, Saliency

    explainers: dict[str, Any] = {"gradient": Saliency(model), "deeplift": DeepLift(model)}

    def mirror(arr: NDArray[Any], indices: Any, **_: Any) -> NDArray[Any]:
        rows, out = np.arange(len(arr))[:, None], arr.copy()
        out[rows, indices] = (arr.min(1, keepdims=True) + arr.max(1, keepdims=True) - arr)[rows, indices]
        return out

    quiet: dict[str, Any] = {"normalise": False, "disable_warnings": True}
    metrics = {
        "faithfulness": quantus.FaithfulnessEstimate(
            similarity_func=quantus.similarity_func.correlation_pearson,
            features_in_step=1,
            abs=False,
            perturb_func=mirror,
            **quiet,
        ),
        "local_lipschitz": quantus.LocalLipschitzEstimate(
            nr_samples=samples, perturb_mean=0.0, perturb_std=0.1, abs=False, **quiet
        ),
        "max_sensitivity": quantus.MaxSensitivity(
            nr_samples=samples, lower_bound=-0.2, upper_bound=0.2, abs=False, **quiet
        ),
        "entropy": quantus.Complexity(abs=True, **quiet),
    }
    means = {}
    for name, explainer in explainers.items():
        options = {"abs": False} if name == "gradient" else {}

        def explain(
            model: nn.Module, inputs: Any, targets: Any, explainer: Any = explainer, options: Any = options, **_: Any
        ) -> NDArray[np.float32]:
            given = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
            return explainer.attribute(given, target=torch.as_tensor(np.asarray(targets)), **options).detach().numpy()

        attributions = explain(model, images, labels)
        for metric, compute in metrics.items():
            scores = compute(
                model=model,
                x_batch=images,
                y_batch=labels,
                a_batch=attributions.copy(),
                channel_first=True,
                softmax=False,
                explain_func=explain,
                device="cpu",
                batch_size=128,
            )
            means[f"{metric} {name}"] = float(np.nanmean(scores))
    return means


def main(flags: Benchmark) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data = load(flags.dataset, flags.data_root, DataConfig(flags.dataset, validation=0.0, scaling="symmetric"))
    training = TrainingConfig(epochs=1, optimizer="adam", learning_rate=1e-3, schedule="constant")
    run = Run(TrialConfig(Method(), ModelConfig("lenet5", 6), data.config, training, 0), data)
    run.train_epoch()
    model = run.model.eval()
    moment = Moment(model, data, "test", 1, True, 0, torch.device("cpu"), lambda seed: model)
    metrics: list[Any] = [
        Faithfulness(images=flags.images),
        LocalLipschitz(images=flags.images, samples=flags.samples),
        MaxSensitivity(images=flags.images, samples=flags.samples),
        Entropy(images=flags.images),
    ]
    _, images, labels = metrics[0].batch(moment)
    grown, (ours, measured) = grown_memory(
        lambda: cpu_seconds(lambda: [metric.measure(moment).measurements for metric in metrics])
    )
    theirs, means = cpu_seconds(lambda: quantus_scores(model, images.numpy(), labels.numpy(), flags.samples))
    print(f"{'mean over images':32} {'here':>10} {'Quantus':>10}   (noise differs)")
    for row in (row for rows in measured for row in rows):
        name = f"{row['metric']} {row['component']}"
        print(f"{name:32} {row['value']:10.5f} {means[name]:10.5f}")
    print(f"memory grew by {grown:.0f} MiB at most, with 128 images of 320² by {large_images():.0f} MiB (bar: 1024)")
    print(f"CPU seconds: here {ours:.1f}, Quantus {theirs:.1f}: {theirs / ours:.2f} times faster (bar: 3)")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
