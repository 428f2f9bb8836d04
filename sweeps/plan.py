"""What a sweep consists of: the trials that its flags plan, and each one's identity."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.command_line import InputError, check_bounds
from analysis.paper.printed import check_declared
from analysis.schema import SCHEMA_VERSION
from sweeps.flags import ASKS_FROM, LEAST_PART, MOST_TRIALS, Setting, SweepFlags
from sweeps.labels import settings_in_words
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, DataInfo, check_masks, check_others, describe
from trainables.data.memory import check_memory
from trainables.method import Method
from trainables.metrics import needs_masks
from trainables.models import MODELS, check_memory_of, check_size


def trial_id(config: TrialConfig) -> str:
    """16 hex digits: a hash of the canonical configuration and the schema's version. Equal trials have equal ids."""
    identity = {"schema_version": SCHEMA_VERSION, **config.canonical()}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with its identity and what a person calls its setting, as no other setting of the plan is called."""

    id: str
    config: TrialConfig
    setting: str

    @property
    def label(self) -> str:
        fold = "" if self.config.data.fold is None else f" fold={self.config.data.fold}"
        return f"{self.setting}{fold} seed={self.config.seed}"

    @property
    def cost(self) -> float:
        """Relative time: epochs in units of a plain epoch."""
        return self.config.training.epochs * self.config.method.relative_cost

    def payload(self) -> dict[str, str]:
        """What travels to the worker."""
        return {"id": self.id, "label": self.label, "json": json.dumps(self.config.canonical(), sort_keys=True)}


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep in the order of its grid, and the description of its data sets by the flag's value; and of
    those of --shift."""

    trials: list[PlannedTrial]
    data: dict[str, DataInfo]
    others: dict[str, DataInfo] = dataclasses.field(default_factory=dict)
    declared: dict[str, str] = dataclasses.field(default_factory=dict)
    """Which of the papers' data sets those of folders and Parquet files are said to be, by their names in the record.
    No part of a trial: nothing that is computed depends on it."""

    @property
    def ids(self) -> set[str]:
        return {trial.id for trial in self.trials}


def make_plan(flags: SweepFlags) -> Plan:
    """Every combination of the flags' values, each trial once. Raises `InputError` for what cannot be trained."""
    _check_grid(flags)
    masks = needs_masks(flags.metrics())
    infos: dict[str, DataInfo] = {}
    data_configs: dict[str, list[DataConfig]] = {}
    others = {spec: describe(spec, flags.data_root, flags.exclude) for spec in flags.shift}
    # at least; before any combination is made
    _check_number(flags, len(flags.dataset) * len(_models(flags)) * _number_of_trainings(flags))
    for spec in flags.dataset:
        known = describe(spec, flags.data_root, flags.exclude)
        info = flags.described(known)
        chosen = flags.channels if flags.channels != info.channels else None
        infos[spec] = info = dataclasses.replace(info, channels=flags.channels or info.channels)
        shown = [
            DataConfig(
                dataset=info.name,
                image_size=flags.image_size,
                train_images=flags.train_images,
                validation=flags.validation,
                flip=flags.flip,
                crop=flags.crop_pixels if flags.crop else 0,
                padding=flags.padding,  # type: ignore[arg-type]  # checked by DataConfig
                scaling=flags.scaling,  # type: ignore[arg-type]
                zoom=flags.zoom,
                evaluation_size=flags.evaluation_size,
                folds=flags.folds,
                fold=None if flags.folds is None else 0,  # whose training images are the fewest
                channels=chosen,
                exclude=info.matched,
                **fields,
            )
            for fields in flags.data_fields(info)
        ]
        for first in shown:
            _check_images(info, first)
        if not _streams(known):
            images = known.train_images + known.test_images
            check_memory(spec, images, known.channels, flags.image_size or known.size)
        if masks:
            check_masks(spec, flags.data_root, flags.exclude)
        check_others(spec, flags.shift, flags.data_root, flags.exclude)
        data_configs[spec] = shown
    matched = {pattern for info in (*infos.values(), *others.values()) for pattern in info.matched}
    for pattern in flags.exclude:
        if pattern not in matched:
            raise InputError(f"exclude: {pattern!r}, allowed are patterns of what is there: it matches nothing")
    _check_number(flags, _number_of_methods(flags, infos, data_configs))
    trials: dict[str, PlannedTrial] = {}
    for spec, model, training in itertools.product(flags.dataset, _models(flags), _trainings(flags)):
        size = flags.image_size or infos[spec].size
        for data in itertools.chain.from_iterable(first.each_fold() for first in data_configs[spec]):
            steps = training.steps(infos[spec].training_images(data))
            setting = Setting(data, infos[spec].channels, size, model, training)
            methods = ([Method()] if flags.baseline else []) + list(flags.methods_for(setting))
            for method, seed in itertools.product(methods, range(flags.seeds)):
                method.check(size, size, steps)
                config = TrialConfig(method, model, data, training, seed)
                identity = trial_id(config)
                trials.setdefault(identity, PlannedTrial(identity, config, ""))
    names = settings_in_words([trial.config for trial in trials.values()])
    named = [dataclasses.replace(trial, setting=name) for trial, name in zip(trials.values(), names, strict=True)]
    return Plan(named, infos, others, _declared(flags, infos))


def _declared(flags: SweepFlags, infos: Mapping[str, DataInfo]) -> dict[str, str]:
    """What --as says. Raises `InputError` for data that are known to be others."""
    if flags.as_ and len(flags.as_) != len(flags.dataset):
        raise InputError(f"as: {' '.join(flags.as_)}, allowed is one name for each --dataset, {len(flags.dataset)}")
    for spec, name in zip(flags.dataset, flags.as_, strict=False):
        info = infos[spec]
        check_declared(name, info.name, info.classes)
    pairs = zip((infos[spec].name for spec in flags.dataset), flags.as_, strict=False)
    return {dataset: name for dataset, name in pairs if dataset != name}


def _number_of_methods(flags: SweepFlags, infos: Mapping[str, DataInfo], shown: Mapping[str, list[DataConfig]]) -> int:
    """How many methods are trained, over all settings of their first fold; where they are too many, not all counted."""
    number = 0
    for spec, model, training in itertools.product(flags.dataset, _models(flags), _trainings(flags)):
        info = infos[spec]
        size = flags.image_size or info.size
        check_size(model.model, size)
        for data in shown[spec]:
            batch = min(training.batch_size, info.training_images(data))
            largest = max(size, flags.evaluation_size or 0)
            check_memory_of(model.model, model.width, largest, batch)
            setting = Setting(data, info.channels, size, model, training)
            number += flags.baseline + sum(1 for _ in itertools.islice(flags.methods_for(setting), MOST_TRIALS))
            if number > MOST_TRIALS:
                return number
    return number


def _check_number(flags: SweepFlags, methods: int) -> None:
    """Raises `InputError` for more trials than a plan may have, or more than are likely meant, where so many methods
    are trained once a seed and fold."""
    number = methods * flags.seeds * (flags.folds or 1)
    if number > MOST_TRIALS:
        raise InputError(
            f"plan: {number:,} trials, allowed are at most {MOST_TRIALS:,}, all of which the driver holds in "
            "memory; give each part of the grid its own --name"
        )
    if number > ASKS_FROM and not flags.yes_really:
        raise InputError(f"plan: {number:,} trials, allowed with --yes-really alone are more than {ASKS_FROM:,}")


_MAY_BE_EMPTY = ("milestones", "maps_at", "measure", "alpha_range", "shift", "exclude", "as_", "ranges", "warm_start")


def _check_grid(flags: SweepFlags) -> None:
    check_bounds(flags)
    for entry in dataclasses.fields(flags):
        if getattr(flags, entry.name) == () and entry.name not in _MAY_BE_EMPTY:
            raise InputError(f"--{entry.name.replace('_', '-')}: no value, allowed is at least one")
    for flag in ("storage", "name", "data_root"):
        if getattr(flags, flag) == "":
            raise InputError(f"{flag}: empty, allowed is a name")
    if flags.estimate and not flags.dry_run:
        raise InputError("estimate: given, allowed with --dry-run")
    if flags.gpus_per_trial and flags.gpus_per_trial < LEAST_PART:
        raise InputError(f"gpus_per_trial: {flags.gpus_per_trial}, allowed are 0 and numbers of at least {LEAST_PART}")


def _streams(info: DataInfo) -> bool:
    """Whether a data set's files may be read during training."""
    return info.streamed or info.name.startswith("folder:")


def _check_images(info: DataInfo, config: DataConfig) -> None:
    size = config.image_size or info.size
    if config.crop >= size:
        raise InputError(
            f"crop_pixels: {config.crop}, allowed are fewer than the {size} pixels of {info.name}'s images"
        )
    for flag, given in (("zoom", config.zoom), ("evaluation_size", config.evaluation_size)):
        if given and not _streams(info):
            raise InputError(f"{flag}: {info.name} is held in memory, allowed are streamed data sets")
    images = info.outside_test(config)
    if config.train_images is not None and config.train_images > images:
        raise InputError(f"train_images: {config.train_images}, {info.name} has {images}")


def _models(flags: SweepFlags) -> list[ModelConfig]:
    models = []
    for name in flags.model:
        widths = flags.width or (MODELS[name].width if name in MODELS else 0,)
        models += [ModelConfig(name, width, flags.pretrained) for width in widths]
    return models


def _number_of_trainings(flags: SweepFlags) -> int:
    grid = (flags.epochs, flags.batch_size, flags.optimizer, flags.learning_rate, flags.weight_decay)
    return math.prod(map(len, grid))


def _trainings(flags: SweepFlags) -> list[TrainingConfig]:
    return [
        TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=flags.momentum,
            weight_decay=weight_decay,
            decay_normalisation=flags.decay_normalisation,
            schedule=flags.schedule,
            milestones=flags.milestones,
            decay=flags.decay,
            label_smoothing=flags.label_smoothing,
            precision=flags.precision,
        )
        for epochs, batch_size, optimizer, learning_rate, weight_decay in itertools.product(
            flags.epochs, flags.batch_size, flags.optimizer, flags.learning_rate, flags.weight_decay
        )
    ]
