"""What a penalty costs a training step: the small residual network, in one process on one thread.

    python -m tests.benchmarks.penalty [--model resnet8 --width 16 --size 32 --batch 128]     # PILCRO, T = 10
    python -m tests.benchmarks.penalty --method gradient_reg --model lenet5 --size 28 --channels 1
    python -m tests.benchmarks.penalty --method loco_reg --model resnet18 --width 16 --blocks 40

Alternates blocks of T plain steps with blocks of T steps with the penalty (PILCRO's: in one of them; LOCO-REG's: both
with weight decay), and prints the median of the ratios of neighbouring blocks, and their quartiles.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch.nn import functional as F

from trainables.gradient_reg import GradientRegularisation
from trainables.loco_reg import LocoReg
from trainables.method import Method, Step
from trainables.models import MODELS, build_model
from trainables.pilcro import Pilcro


@dataclass(frozen=True)
class Benchmark:
    method: Literal["pilcro", "gradient_reg", "loco_reg"] = "pilcro"
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
    parameters = list(model.parameters())
    decay = 1e-3 if flags.method == "loco_reg" else 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=decay)

    def block(method: Method) -> float:
        # this thread's processor time: the machine may be in use, and on the CPU one thread does it all
        start = time.thread_time()
        for number in range(1, flags.interval + 1):
            model.train()
            inputs = images.detach().requires_grad_(method.differentiates_images)
            loss = F.cross_entropy(model(inputs), labels)
            step = Step(model, inputs, labels, number, generator, data=None, cross_entropy=loss)  # type: ignore[arg-type]
            penalty = method.penalty(step)
            if penalty is not None:
                loss = loss + penalty.weight * penalty.value
            optimizer.zero_grad()
            loss.backward(inputs=parameters)
            method.adjust_gradients(model, decay)
            optimizer.step()
        return time.thread_time() - start

    plain = Method()
    methods: dict[str, Method] = {
        "pilcro": Pilcro(1.0, flags.interval),
        "gradient_reg": GradientRegularisation(1.0),
        "loco_reg": LocoReg(0.5, 2.0),
    }
    regularised = methods[flags.method]
    regularised.build(model, None)  # type: ignore[arg-type]  # none of them looks at the data there
    block(plain), block(regularised)  # warm-up
    ratios = []
    for _ in range(flags.blocks):
        base = block(plain)
        ratios.append(block(regularised) / base)
    alone = []
    for _ in range(flags.blocks):
        start = time.thread_time()
        regularised.adjust_gradients(model, decay)
        alone.append((time.thread_time() - start) * flags.interval / base)
    low, median, high = statistics.quantiles(ratios, n=4)
    bar = {"pilcro": "; bar: 1.30", "loco_reg": "; bar: 1.03"}.get(flags.method, "")
    print(
        f"{flags.model} width {width}, {flags.size}² px, batch {flags.batch}, T = {flags.interval}: "
        f"step with {flags.method} / plain step {median:.3f} (quartiles {low:.3f}, {high:.3f}{bar})"
    )
    if flags.method == "loco_reg":
        print(f"what it adds to the gradients, timed alone: {100 * statistics.median(alone):.3f}% of a plain step")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
