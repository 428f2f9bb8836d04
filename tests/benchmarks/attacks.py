"""What robust accuracy under PGD costs beside a plain loop: LeNet-5 on MNIST or digits, torchattacks 3.5.1.

    python -m tests.benchmarks.attacks [--dataset mnist --data-root data] [--images 500] [--steps 20 50] [--epsilon 0.1]

One process, one thread, in one run: a short training, then robust accuracy after each number of steps by this project
(its metric, as a sweep measures it: one run of the most steps, which leaves lost images alone) and by torchattacks (a
run for each). Prints both accuracies (random starts differ), CPU seconds, and their ratio; the fewer images survive the
more is saved.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy are loaded

import time
from dataclasses import dataclass

import torch
import torchattacks
import tyro

from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, load
from trainables.method import Method
from trainables.metrics import Moment
from trainables.metrics.attacks import Attacks, predictions
from trainables.models.pixels import PixelModel
from trainables.training import Run


@dataclass(frozen=True)
class Benchmark:
    dataset: str = "digits"
    data_root: str = "data"
    images: int = 500
    steps: tuple[int, ...] = (20, 50)
    epsilon: tuple[float, ...] = (0.02, 0.1)
    epochs: int = 4


def main(flags: Benchmark) -> None:
    torch.set_num_threads(1)
    config = DataConfig(flags.dataset, validation=0.0, image_size=None if flags.dataset != "digits" else 16)
    data = load(flags.dataset, flags.data_root, config)
    training = TrainingConfig(epochs=flags.epochs, optimizer="adam", learning_rate=2e-3, schedule="constant")
    run = Run(TrialConfig(Method(), ModelConfig("lenet5", 6), config, training, 0), data)
    while not run.finished:
        run.train_epoch()
    network = run.model.eval()
    moment = Moment(network, data, "test", 1, True, 0, torch.device("cpu"), lambda seed: network)
    model = PixelModel(network, data)
    inputs, _ = data.select("test", torch.arange(min(flags.images, data.count("test"))), device=torch.device("cpu"))
    images = model.pixels(inputs)
    classes = predictions(model, images)
    print(f"{'':24} {'here':>10} {'torchattacks':>14}   (random starts differ)")
    for epsilon in flags.epsilon:
        start = time.process_time()
        metric = Attacks(("pgd",), (str(epsilon),), flags.steps, images=flags.images)
        rows = metric.measure(moment).measurements
        ours = time.process_time() - start
        start = time.process_time()
        theirs = {}
        for steps in flags.steps:
            attack = torchattacks.PGD(model, eps=epsilon, alpha=epsilon / 4, steps=steps)
            theirs[f"pgd{steps}"] = float((predictions(model, attack(images, classes)) == classes).double().mean())
        plain = time.process_time() - start
        for row in rows:
            if row["metric"] == "robust_accuracy":
                print(f"{row['component']:8} ε = {epsilon:<10g} {row['value']:11.3f} {theirs[row['component']]:14.3f}")
        print(f"{'CPU seconds':24} {ours:10.2f} {plain:14.2f}   {plain / ours:.1f} times faster")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
