"""A trial's configuration: every field that changes its result, and nothing else (no path, no number of workers)."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from analysis.command_line import InputError
from trainables.data import DataConfig
from trainables.data.configuration import OMIT_DEFAULT
from trainables.method import Method
from trainables.methods import METHODS
from trainables.models import check_model

Optimizer = Literal["sgd", "adam"]
Schedule = Literal["cosine", "step", "constant"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class ModelConfig:
    """Which network, see `trainables.models`; the width is given, so that a default never has two identities."""

    model: str
    width: int
    pretrained: bool = field(default=False, metadata=OMIT_DEFAULT)
    """Whether it begins with timm's weights for ImageNet."""

    def __post_init__(self) -> None:
        check_model(self.model, self.width, self.pretrained)


@dataclass(frozen=True)
class TrainingConfig:
    """How it is trained. Learning rates follow the schedule by epoch: cosine to 0, or times `decay` at milestones."""

    epochs: int
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_normalisation: bool = True
    """False: no weight decay on the parameters of normalisation layers."""
    schedule: Schedule = "cosine"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    """bf16: mixed precision for the cross-entropy pass; penalties and measurements stay in float32."""

    def __post_init__(self) -> None:
        for name, count in {"epochs": self.epochs, "batch_size": self.batch_size}.items():
            if count < 1:
                raise InputError(f"{name}: {count}, allowed are whole numbers of at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate: {self.learning_rate}, allowed are finite numbers above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay: {self.weight_decay}, allowed are finite numbers of at least 0")
        for name, number in {"momentum": self.momentum, "label_smoothing": self.label_smoothing}.items():
            if not 0 <= number < 1:
                raise InputError(f"{name}: {number}, allowed are numbers in [0, 1)")
        if not 0 < self.decay <= 1:
            raise InputError(f"decay: {self.decay}, allowed are numbers in (0, 1]")
        for name, choice, choices in (
            ("optimizer", self.optimizer, get_args(Optimizer)),
            ("schedule", self.schedule, get_args(Schedule)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if choice not in choices:
                raise InputError(f"{name}: {choice!r}, allowed are {', '.join(choices)}")
        if list(self.milestones) != sorted(set(self.milestones)) or any(epoch < 1 for epoch in self.milestones):
            raise InputError(f"milestones: {self.milestones}, allowed are rising epochs of at least 1")
        if self.schedule != "step" and self.milestones:
            raise InputError(f"milestones: {self.milestones}, allowed with the step schedule alone")

    def steps(self, images: int) -> int:
        """Optimiser steps of the whole training on so many images: an epoch ends with a smaller batch where they are no
        multiple of the batch size, but for one of a single image, which the data leave out."""
        full, rest = divmod(images, self.batch_size)
        return self.epochs * (full + (rest > 1 or rest == images))

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate during `epoch`, counted from 1; a milestone m applies after epoch m."""
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / self.epochs)) / 2
        if self.schedule == "step":
            return self.learning_rate * self.decay ** sum(epoch > milestone for milestone in self.milestones)
        return self.learning_rate


@dataclass(frozen=True)
class TrialConfig:
    """One trial: a method's hyperparameters, a network, data, training, and the seed of every random draw."""

    method: Method
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    seed: int

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed: {self.seed}, allowed are whole numbers of at least 0")

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values, equal for equal trials: numbers that are declared as float are floats.

        A field declared with `metadata=OMIT_DEFAULT` is left out where it has its default: so a field that a later
        version adds does not change the identity of the trials that are recorded.
        """
        return {
            "method": {"name": self.method.name, **_identifying(self.method)},
            "model": _identifying(self.model),
            "data": _identifying(self.data),
            "training": _identifying(self.training),
            "seed": self.seed,
        }

    @classmethod
    def from_canonical(cls, canonical: dict[str, Any]) -> TrialConfig:
        method = dict(canonical["method"])
        training = dict(canonical["training"])
        training["milestones"] = tuple(training["milestones"])
        return cls(
            METHODS[method.pop("name")](**method),
            ModelConfig(**canonical["model"]),
            DataConfig(**canonical["data"]),
            TrainingConfig(**training),
            canonical["seed"],
        )

    def columns(self) -> dict[str, Any]:
        """All fields flat, by name, for those that are columns of the trials table."""
        flat = {**_plain(self.data), **_plain(self.model), **_plain(self.training), **_plain(self.method)}
        # null in records from before there was the choice
        return {**flat, "pretrained": self.model.pretrained or None, "method": self.method.name, "seed": self.seed}


def _identifying(config: Any) -> dict[str, Any]:
    """A dataclass's fields as JSON values, without those that are left out at their default."""
    plain = _plain(config)
    for entry in dataclasses.fields(config):
        if entry.metadata.get("omit_default") and getattr(config, entry.name) == entry.default:
            del plain[entry.name]
    return plain


def _plain(config: Any) -> dict[str, Any]:
    """A dataclass's fields as JSON values."""
    plain = {}
    kind: type = type(config)
    for name, is_float in _fields(kind):
        value = getattr(config, name)
        if is_float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


@functools.cache  # a plan asks for it many times for every trial
def _fields(kind: Any) -> list[tuple[str, bool]]:
    """The names of a dataclass's fields, and whether each is declared as float."""
    hints = typing.get_type_hints(kind, localns={"DataConfig": DataConfig})
    kinds = {name: get_args(hint) if isinstance(hint, types.UnionType) else (hint,) for name, hint in hints.items()}
    return [(entry.name, float in kinds[entry.name]) for entry in dataclasses.fields(kind)]
