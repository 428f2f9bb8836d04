"""The same trials as a user would first write them: a Tune function trainable, torchvision transforms, `DataLoader`.

It shares with this project the networks, the penalty's formula and the data's files; the loop, the loading, the
augmentation and the reporting are those of Ray's and PyTorch's tutorials. Run by `sweep.py`.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from typing import Any

import torch
from ray import tune
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, images: Any, labels: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(torch.from_numpy(self.images[index].copy())), int(self.labels[index])


def landscape(model: nn.Module, images: torch.Tensor, create_graph: bool) -> torch.Tensor:
    images = images.clone().requires_grad_()
    logits = model(images)
    chosen = torch.distributions.Categorical(logits=logits.detach()).sample()
    picked = logits.gather(1, chosen[:, None]).sum()
    (gradients,) = torch.autograd.grad(picked, images, create_graph=create_graph)
    squares = gradients.square().mean(0)
    norm = squares.norm(dim=0)
    return norm * norm.numel() ** 0.5 / squares.norm()


def train(config: dict[str, Any]) -> None:
    from sweeps.flags import read_flags
    from sweeps.pilcro import PRESETS, PilcroSweep
    from sweeps.plan import make_plan
    from trainables.configuration import TrialConfig
    from trainables.data import load
    from trainables.models import build_model
    from trainables.pilcro import curvature_penalty, data_smoothness, target_penalty, total_variation

    trial = TrialConfig.from_canonical(json.loads(config["trial"]))
    flags = read_flags(PilcroSweep, PRESETS, config["argv"], "")
    (spec,) = make_plan(flags).data
    data = load(spec, flags.data_root, trial.data)
    torch.manual_seed(trial.seed)
    method: Any = trial.method
    scale: list[Any] = [
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(data.mean), list(data.std)),
    ]
    augment: list[Any] = []
    if trial.data.crop:
        augment.append(v2.RandomCrop(data.size, padding=trial.data.crop, padding_mode="reflect"))
    if trial.data.flip:
        augment.append(v2.RandomHorizontalFlip())
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    loaders = {
        name: DataLoader(
            ImageDataset(split.images, split.labels, v2.Compose((augment if name == "train" else []) + scale)),
            batch_size=trial.training.batch_size if name == "train" else 500,
            shuffle=name == "train",
            num_workers=2,
        )
        for name, split in splits.items()
    }
    model = build_model(
        trial.model.model,
        channels=data.channels,
        size=data.size,
        classes=data.classes,
        width=trial.model.width,
        seed=trial.seed,
    )
    smoothness = data_smoothness(torch.from_numpy(data.train.images.copy())).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.training.learning_rate, momentum=trial.training.momentum)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trial.training.epochs)

    def evaluate(loader: DataLoader[Any]) -> dict[str, float]:
        model.eval()
        loss = top1 = n = 0.0
        squares: Any = 0
        for images, labels in loader:
            with torch.no_grad():
                logits = model(images)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            top1 += int((logits.argmax(1) == labels).sum())
            n += len(labels)
            squares = landscape(model, images, create_graph=False)
        return {"loss": loss / n, "top1": top1 / n, "total_variation": float(total_variation(squares))}

    number = 0
    for _ in range(trial.training.epochs):
        model.train()
        for images, labels in loaders["train"]:
            number += 1
            loss = F.cross_entropy(model(images), labels)
            if method.name == "pilcro" and number % method.interval == 0:
                model.eval()
                importance = landscape(model, images, create_graph=True)
                if method.variant == "curvature":
                    penalty = curvature_penalty(importance)
                else:
                    penalty = target_penalty(importance, smoothness)
                model.train()
                loss = loss + method.alpha * method.interval * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        tune.report(evaluate(loaders["validation"]))
    tune.report(evaluate(loaders["test"]))


def main() -> None:
    from sweeps.flags import read_flags
    from sweeps.pilcro import PRESETS, PilcroSweep
    from sweeps.plan import make_plan

    argv = sys.argv[1:]
    plan = make_plan(read_flags(PilcroSweep, PRESETS, argv, ""))
    trials = [json.dumps(trial.config.canonical()) for trial in plan.trials]
    with tempfile.TemporaryDirectory() as storage:
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space={"trial": tune.grid_search(trials), "argv": argv},
            run_config=tune.RunConfig(storage_path=storage, name="plain"),
        )
        results = tuner.fit()
        if results.errors:
            raise results.errors[0]
        print(f"{len(results)} trials")


if __name__ == "__main__":
    # by its name, so that Ray ships the functions by reference: torch cannot be pickled with them
    importlib.import_module("tests.benchmarks.plain_tune").main()
