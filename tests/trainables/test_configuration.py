"""A trial's configuration: validated, canonical, the same after a journey through JSON."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from sweeps.plan import trial_id
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig
from trainables.method import Method
from trainables.methods import METHODS
from trainables.pilcro import Pilcro


def config(method: Method | None = None, **training: object) -> TrialConfig:
    return TrialConfig(
        method or Pilcro(10),
        ModelConfig("resnet8", 16),
        DataConfig("digits"),
        TrainingConfig(**{"epochs": 3, **training}),  # type: ignore[arg-type]
        seed=1,
    )


def test_round_trip_through_json() -> None:
    original = config(Pilcro(10, 5, 3, "target", "sum"), schedule="step", milestones=(1, 2), learning_rate=1)
    again = TrialConfig.from_canonical(json.loads(json.dumps(original.canonical())))
    assert again == original
    assert again.canonical() == original.canonical()


def test_whole_numbers_and_floats_are_the_same_strength() -> None:
    assert json.dumps(config(Pilcro(10)).canonical()) == json.dumps(config(Pilcro(10.0)).canonical())
    assert json.dumps(config(learning_rate=1).canonical()) == json.dumps(config(learning_rate=1.0).canonical())


def test_fields_added_later_leave_identities_as_they_are() -> None:
    """The id is that of the version before `folds` was added: what is recorded under it is not run again."""
    assert trial_id(config()) == "bd0f581541226d0a"
    assert "folds" not in config().canonical()["data"]
    folded = dataclasses.replace(config(), data=DataConfig("digits", folds=5, fold=2))
    assert {"folds": 5, "fold": 2}.items() <= folded.canonical()["data"].items()
    assert TrialConfig.from_canonical(json.loads(json.dumps(folded.canonical()))) == folded
    assert len({trial_id(config()), trial_id(folded)}) == 2
    # they are columns all the same
    assert config().columns()["fold"] is None
    assert folded.columns()["fold"] == 2


def test_columns_are_flat() -> None:
    columns = config(Pilcro(10, 5, 3, "target", "sum"), weight_decay=0.5).columns()
    assert columns["method"] == "pilcro"
    assert columns["alpha"] == 10
    assert columns["interval"] == 5
    assert columns["reduction"] == "sum"
    assert columns["weight_decay"] == 0.5
    assert columns["dataset"] == "digits"
    assert columns["width"] == 16
    assert columns["seed"] == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -1.0),
        ("momentum", 1.0),
        ("label_smoothing", -0.1),
        ("optimizer", "lbfgs"),
        ("schedule", "linear"),
        ("precision", "fp8"),
        ("milestones", (3, 2)),
        ("milestones", (3,)),
    ],
)
def test_refuses(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        config(**{field: value})


def test_cosine_equals_torch() -> None:
    training = TrainingConfig(epochs=7, learning_rate=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for epoch in range(1, 8):
        assert training.learning_rate_at(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_steps_equal_torch() -> None:
    training = TrainingConfig(epochs=9, learning_rate=0.1, schedule="step", milestones=(2, 5), decay=0.316)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 5], gamma=0.316)
    for epoch in range(1, 10):
        assert training.learning_rate_at(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_every_method_is_registered_under_its_own_name() -> None:
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}
