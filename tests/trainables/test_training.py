"""The training loop against a plain one written out here, and its promise to resume bit for bit."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images, load
from trainables.data.images import Split
from trainables.method import Method, Penalty, Step
from trainables.metrics import METRICS, Landscape, PathCounts
from trainables.metrics.moment import EVALUATION_BATCH, Measured, Moment, derived_seed
from trainables.models import build_model
from trainables.pilcro import Pilcro, curvature_penalty, expected_landscape, importance_landscape, total_variation
from trainables.training import Run, evaluate, exploded_loss, make_optimizer

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


class Times(nn.Module):
    """Logits times a factor, another one in evaluation mode."""

    def __init__(self, training: float, evaluation: float) -> None:
        super().__init__()
        self.factors = training, evaluation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factors[0 if self.training else 1]


@dataclasses.dataclass(frozen=True)
class Scaled(Method):
    """The baseline with logits that are scaled."""

    training: float = 1.0
    evaluation: float = 1.0

    def build(self, model: nn.Module, data: Any) -> nn.Module:
        return nn.Sequential(model, Times(self.training, self.evaluation))


@pytest.mark.parametrize(
    ("training", "evaluation", "status"),
    # losses of about 2 times the factor; 100 times that of guessing one of ten is 230
    [(1.0, 1.0, "completed"), (20.0, 20.0, "completed"), (1e9, 1e9, "diverged"), (1.0, 1e9, "diverged")],
)
def test_a_run_that_ends_with_an_absurd_loss_has_diverged_with_its_numbers(
    data: Images, training: float, evaluation: float, status: str
) -> None:
    run = train(Run(config(Scaled(training, evaluation), epochs=2, learning_rate=1e-30), data))
    trial, epochs, _, _ = run.tables()
    assert trial["status"] == status
    wanted = evaluate(run.model.eval(), data.batches("test", EVALUATION_BATCH, device=torch.device("cpu")))
    assert {name: trial[name] for name in wanted} == wanted
    assert (epochs[-1]["train_loss"] > 230) == (training > 100)
    assert (trial["loss"] > 230) == (evaluation > 100)


def test_what_is_absurd_depends_on_the_classes() -> None:
    assert exploded_loss(10) == pytest.approx(230.26, abs=0.01)
    assert exploded_loss(2) == pytest.approx(69.31, abs=0.01)
    assert exploded_loss(100_000) == 1000


def test_a_loss_that_is_nan_on_the_test_split_alone_has_diverged(data: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def nan_on_test(model: nn.Module, batches: Iterator[Any]) -> dict[str, float]:
        given = list(batches)
        found = evaluate(model, given)
        on_test = sum(len(labels) for _, labels in given) == data.count("test")
        return {**found, "loss": math.nan} if on_test else found

    monkeypatch.setattr("trainables.training.evaluate", nan_on_test)
    run = train(Run(config(epochs=1, learning_rate=1e-30), data))
    assert run.status == "diverged"
    assert run.final == {"top1": 0.1, "top5": 0.5, "loss": None, "total_variation": None}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 6, 128])
@pytest.mark.parametrize("number", [1, 2, 5, 6, 7, 11])
def test_steps_are_those_that_happen(number: int, batch_size: int) -> None:
    pixels, labels = np.arange(number * 16, dtype=np.uint8).reshape(number, 1, 4, 4), np.zeros(number, np.int64)
    split = Split(pixels, labels)
    images = Images(DataConfig("digits"), ("a", "b"), split, split, split)
    generator, settings = torch.Generator().manual_seed(0), TrainingConfig(epochs=3, batch_size=batch_size)
    happened = [
        len(batch)
        for _ in range(3)
        for batch, _ in images.training_batches(batch_size, generator=generator, device=torch.device("cpu"))
    ]
    assert settings.steps(number) == len(happened)


def test_an_interval_beyond_the_steps_that_happen_is_refused() -> None:
    """257 images in batches of 128 are two steps an epoch, not three: a sixth of two epochs there is none."""
    settings = DataConfig("digits", train_images=257)
    images = load("digits", "unused", settings)
    training = TrainingConfig(epochs=2, batch_size=128)
    trial = TrialConfig(Pilcro(100.0, interval=6), ModelConfig("resnet8", 4), settings, training, 0)
    with pytest.raises(ValueError, match="interval: 6, allowed are at most the 4 steps of the training"):
        Run(trial, images)
    allowed = dataclasses.replace(trial, method=Pilcro(100.0, interval=4))
    assert [row["penalty"] is None for row in train(Run(allowed, images)).epochs] == [True, False]


class Undefined:
    """A metric of which nothing is defined."""

    def measure(self, moment: Moment) -> Measured:
        row = {"metric": "undefined", "component": "", "level": 1.0, "value": math.nan, "std": math.inf, "n": 3}
        maps = {"bad": torch.tensor([[1.0, math.nan]]), "good": torch.ones(2, 2)}
        return Measured({"total_variation": -math.inf}, [{**row, "unit": "", "direction": "none"}], maps)


def test_what_is_not_defined_is_null_in_the_record(data: Images) -> None:
    run = train(Run(config(epochs=1), data, metrics={"undefined": Undefined()}))
    trial, epochs, measurements, maps = run.tables()
    assert trial["total_variation"] is None
    assert epochs[0]["total_variation"] is None
    assert {(row["value"], row["std"], row["level"], row["n"]) for row in measurements} == {(None, None, 1.0, 3)}
    assert {row["name"] for row in maps} == {"good"}


def test_the_correlation_of_black_images_is_null() -> None:
    """Their landscape is zero everywhere: no correlation with anything."""
    black = Split(np.zeros((20, 1, 8, 8), np.uint8), np.arange(20) % 10)
    images = Images(DATA, tuple("0123456789"), black, black, black)
    run = Run(config(), images, metrics={"paths": PathCounts(initialisations=1, images=5)})
    run.begin()
    (row,) = run.tables()[2]
    assert (row["metric"], row["value"], row["n"]) == ("path_importance_correlation", None, 1)


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
