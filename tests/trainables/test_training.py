"""The training loop against a plain one written out here, and its promise to resume bit for bit."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images
from trainables.method import Method, Penalty, Step
from trainables.metrics import METRICS, Landscape, PathCounts
from trainables.metrics.moment import EVALUATION_BATCH, derived_seed
from trainables.models import build_model
from trainables.pilcro import Pilcro, curvature_penalty, expected_landscape, importance_landscape, total_variation
from trainables.training import Run, evaluate, make_optimizer

DATA = DataConfig("digits", train_images=300, crop=1, flip=True)


pytestmark = pytest.mark.usefixtures("one_thread")


def config(method: Method | None = None, seed: int = 0, **training: Any) -> TrialConfig:
    settings = {"epochs": 3, "batch_size": 64, "weight_decay": 1e-3, **training}
    return TrialConfig(method or Method(), ModelConfig("resnet8", 8), DATA, TrainingConfig(**settings), seed)


METRICS_USED = {"landscape": Landscape(maps_at=(1,)), "paths": PathCounts(initialisations=2, images=20)}
CLOCKS = {"seconds", "train_seconds", "measure_seconds", "images_per_second", "started_at", "finished_at"}


def without_clocks(tables: tuple[Any, ...]) -> tuple[Any, ...]:
    trial, epochs, measurements, maps = tables
    strip = lambda row: {key: value for key, value in row.items() if key not in CLOCKS}  # noqa: E731
    return strip(trial), [strip(row) for row in epochs], measurements, maps


def train(run: Run) -> Run:
    run.begin()
    while not run.finished:
        run.train_epoch()
    return run


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


METHODS_TRIED = [
    Method(),
    Pilcro(1.0, interval=2),
    Pilcro(0.5, interval=3, variant="target"),
]


@pytest.mark.parametrize("method", METHODS_TRIED, ids=lambda method: f"{method.name}-{getattr(method, 'variant', '')}")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_resumed_after_every_epoch_equals_uninterrupted(data: Images, method: Method, optimizer: str) -> None:
    rate = 0.1 if optimizer == "sgd" else 1e-3
    setting = config(method, optimizer=optimizer, learning_rate=rate)
    whole = train(Run(setting, data, metrics=METRICS_USED))
    run = Run(setting, data, metrics=METRICS_USED)
    run.begin()
    while not run.finished:
        run.train_epoch()
        if not run.finished:
            state = through_a_file(run.state())
            torch.manual_seed(7)  # nothing may depend on the global generator
            run = Run(setting, data, metrics=METRICS_USED)
            run.restore(state)
    assert without_clocks(run.tables()) == without_clocks(whole.tables())
    for (name, left), right in zip(whole.model.state_dict().items(), run.model.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


def test_equals_a_plain_loop(data: Images) -> None:
    """PILCRO at T = 2 with SGD, momentum, weight decay and cosine schedule, written out with torch's own parts."""
    setting = config(Pilcro(3.0, interval=2), seed=5, epochs=2)
    run = train(Run(setting, data))

    model = build_model("resnet8", channels=1, size=8, classes=10, width=8, seed=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    order = torch.Generator().manual_seed(derived_seed(5, "data"))
    draws = torch.Generator().manual_seed(derived_seed(5, "penalty"))
    number = 0
    losses, penalties = [], []
    for _ in range(2):
        model.train()
        for images, labels in data.training_batches(64, generator=order, device=torch.device("cpu")):
            number += 1
            loss = F.cross_entropy(model(images), labels)
            losses.append((loss.item(), len(labels)))
            if number % 2 == 0:
                model.eval()
                penalty = curvature_penalty(importance_landscape(model, images, generator=draws, create_graph=True))
                penalties.append(penalty.item())
                model.train()
                loss = loss + 3.0 * 2 * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
    for (name, left), right in zip(model.state_dict().items(), run.model.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6, msg=name)
    steps = number // 2
    mean_loss = sum(loss * n for loss, n in losses[steps:]) / sum(n for _, n in losses[steps:])
    assert run.epochs[1]["train_loss"] == pytest.approx(mean_loss, rel=1e-5)
    half = sum(1 for step in range(1, steps + 1) if step % 2 == 0)
    assert run.epochs[0]["penalty"] == pytest.approx(sum(penalties[:half]) / half, rel=1e-5)
    assert run.epochs[1]["learning_rate"] == pytest.approx(0.05)


def test_seed_pairs_settings(data: Images) -> None:
    """Same seed: same initialisation and order of images, whatever the method; another seed: others."""
    plain, regularised = Run(config(), data), Run(config(Pilcro(1.0)), data)
    other = Run(config(seed=1), data)
    weights = [next(run.model.parameters()) for run in (plain, regularised, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    # before its first penalty (the last of 15 steps) the regularised run is the plain one
    late = train(Run(config(Pilcro(1.0, interval=15)), data))
    baseline = train(plain)
    assert [row["train_loss"] for row in late.epochs[:-1]] == [row["train_loss"] for row in baseline.epochs[:-1]]
    assert [row["penalty"] is None for row in late.epochs] == [True, True, False]


def test_measuring_does_not_change_training(data: Images) -> None:
    setting = config(Pilcro(1.0, interval=2))
    measured, plain = train(Run(setting, data, metrics=METRICS_USED)), train(Run(setting, data))
    assert measured.epochs[-1]["train_loss"] == plain.epochs[-1]["train_loss"]
    assert measured.final["top1"] == plain.final["top1"]
    assert "total_variation" not in plain.epochs[-1]


def test_tables_of_a_completed_run(data: Images) -> None:
    run = train(Run(config(), data, metrics=METRICS_USED))
    trial, epochs, measurements, maps = run.tables()
    assert trial["status"] == "completed"
    assert trial["error"] is None
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert {"learning_rate", "train_loss", "penalty", "train_top1", "top1", "top5", "loss", "total_variation"} <= set(
        epochs[0]
    )
    test_images, test_labels = zip(*data.batches("test", 64, device=torch.device("cpu")), strict=True)
    with torch.no_grad():
        logits = run.model.eval()(torch.cat(test_images))
    labels = torch.cat(test_labels)
    assert trial["top1"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert trial["loss"] == pytest.approx(float(F.cross_entropy(logits.double(), labels)), rel=1e-5)
    assert {(row["metric"], row["epoch"], row["n"]) for row in measurements} == {
        ("total_variation", 0, data.count("validation")),
        ("path_importance_correlation", 0, 2),
    }
    assert [(row["name"], row["epoch"]) for row in maps] == [
        ("importance_landscape", 0),
        ("path_importance", 0),
        ("initial_landscape", 0),
        ("importance_landscape", 1),
        ("importance_landscape", 3),
    ]
    assert all(row["height"] == row["width"] == 8 and len(row["values"]) == 64 for row in maps)
    last = torch.tensor(maps[-1]["values"]).reshape(8, 8)
    assert float(total_variation(last)) == pytest.approx(epochs[-1]["total_variation"], rel=1e-5)


def test_exact_landscape_of_the_test_split(data: Images) -> None:
    run = train(Run(config(), data, metrics={"landscape": Landscape(expectation="exact")}))
    images = torch.cat([images for images, _ in data.batches("test", EVALUATION_BATCH, device=torch.device("cpu"))])
    expected = float(total_variation(expected_landscape(run.model.eval(), images)))
    assert run.final["total_variation"] == pytest.approx(expected, rel=1e-4)


class Exploding(Method):
    """Adds a penalty that becomes NaN in the second epoch."""

    def penalty(self, step: Step) -> Penalty | None:
        value = step.model(step.images).square().mean()
        return Penalty(value * math.nan if step.number > 6 else value, 0.1)


def test_a_run_whose_loss_is_nan_is_recorded_as_diverged_at_chance(data: Images) -> None:
    run = train(Run(config(Exploding()), data, metrics=METRICS_USED))
    trial, epochs, _, _ = run.tables()
    assert trial["status"] == "diverged"
    assert trial["top1"] == pytest.approx(0.1)
    assert trial["top5"] == pytest.approx(0.5)
    assert trial["loss"] is None
    assert trial["total_variation"] is None
    assert len(epochs) == 2
    assert epochs[1]["train_loss"] is None


def test_parameters_that_become_infinite_are_noticed(data: Images) -> None:
    run = train(Run(config(learning_rate=1e30), data))
    assert run.status == "diverged"


def test_evaluation_by_hand() -> None:
    logits = torch.tensor([[4.0, 3, 2, 1, 0, -1], [0, 1, 2, 3, 4, 5], [0, 1, 9, 0, 0, 0]])
    labels = torch.tensor([0, 0, 1])

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield logits[:2], labels[:2]
        yield logits[2:], labels[2:]

    result = evaluate(nn.Identity(), batches())
    assert result["top1"] == pytest.approx(1 / 3)
    assert result["top5"] == pytest.approx(2 / 3)
    assert result["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)


def test_no_weight_decay_on_normalisation() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    optimizer = make_optimizer(model, TrainingConfig(epochs=1, weight_decay=0.5, decay_normalisation=False))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in model.parameters()] == [0.5, 0.5, 0, 0, 0.5, 0.5]
    everywhere = make_optimizer(model, TrainingConfig(epochs=1, weight_decay=0.5))
    assert [group["weight_decay"] for group in everywhere.param_groups] == [0.5]


def test_mixed_precision_trains(data: Images) -> None:
    plain, mixed = train(Run(config(), data)), train(Run(config(precision="bf16"), data))
    assert mixed.status == "completed"
    # eight bits of mantissa: near the float32 loss, and not equal to it
    assert mixed.epochs[0]["train_loss"] == pytest.approx(plain.epochs[0]["train_loss"], rel=0.1)
    assert mixed.epochs[0]["train_loss"] != plain.epochs[0]["train_loss"]


def test_label_smoothing_is_in_training_and_not_in_evaluation(data: Images) -> None:
    smooth = train(Run(config(label_smoothing=0.2, epochs=1), data))
    expected = evaluate(smooth.model.eval(), data.batches("test", EVALUATION_BATCH, device=torch.device("cpu")))
    assert smooth.final["loss"] == expected["loss"]


def test_the_metric_registry_builds_from_plain_options() -> None:
    assert METRICS["landscape"](expectation="exact", images=5, maps_at=[1, 2]) == Landscape("exact", 5, (1, 2))
    for options in ({"expectation": "both"}, {"images": 0}, {"maps_at": [-1]}):
        with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
            METRICS["landscape"](**options)
    with pytest.raises(ValueError, match="initialisations"):
        METRICS["paths"](initialisations=0)


def test_a_dead_network_goes_on_and_has_no_total_variation(data: Images) -> None:
    """Its gradient is zero for every batch: no penalty can be taken, and a landscape of zeros is not a flat one."""
    run = Run(config(Pilcro(1.0, interval=1, variant="target"), epochs=1), data, metrics={"landscape": Landscape()})
    with torch.no_grad():
        run.model[-1].weight.zero_()
    run.optimizer = torch.optim.SGD([run.model[-1].bias], lr=0.1)
    row = run.train_epoch()
    assert run.status == "completed"
    assert row["total_variation"] is None
    assert run.final["total_variation"] is None
    assert math.isfinite(row["penalty"])
    assert not any(record["name"] == "importance_landscape" for record in run.maps)
