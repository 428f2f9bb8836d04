"""What PILCRO costs a training step: the small residual network, T = 10, in one process on one thread.

    python -m tests.benchmarks.penalty [--model resnet8 --width 16 --size 32 --batch 128]

Alternates blocks of T plain steps with blocks of T steps of which one has the penalty, and prints the median of the
ratios of neighbouring blocks, and their quartiles.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
import tyro
from torch.nn import functional as F

from trainables.method import Method, Step
from trainables.models import MODELS, build_model
from trainables.pilcro import Pilcro


@dataclass(frozen=True)
class Benchmark:
    model: str = "resnet8"
    width: int | None = None
    size: int = 32
    channels: int = 3
    batch: int = 128
    interval: int = 10
    blocks: int = 12


def main(flags: Benchmark) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(flags.batch, flags.channels, flags.size, flags.size)
    labels = torch.randint(0, 10, (flags.batch,))
    width = flags.width or MODELS[flags.model].width
    model = build_model(flags.model, channels=flags.channels, size=flags.size, classes=10, width=width, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def block(method: Method) -> float:
        start = time.perf_counter()
        for number in range(1, flags.interval + 1):
            model.train()
            loss = F.cross_entropy(model(images), labels)
            penalty = method.penalty(Step(model, images, labels, number, generator, data=None))  # type: ignore[arg-type]
            if penalty is not None:
                loss = loss + penalty.weight * penalty.value
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start

    plain, pilcro = Method(), Pilcro(1.0, flags.interval)
    block(plain), block(pilcro)  # warm-up
    ratios = []
    for _ in range(flags.blocks):
        base = block(plain)
        ratios.append(block(pilcro) / base)
    low, median, high = statistics.quantiles(ratios, n=4)
    print(
        f"{flags.model} width {width}, {flags.size}² px, batch {flags.batch}, T = {flags.interval}: "
        f"step with PILCRO / plain step {median:.3f} (quartiles {low:.3f}, {high:.3f}; bar: 1.30)"
    )


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
