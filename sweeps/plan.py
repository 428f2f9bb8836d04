"""What a sweep consists of: its flags, the trials they plan, each trial's identity, and what is not yet recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, NamedTuple

import fsspec
import numpy as np
import tyro

from analysis.command_line import InputError, parse
from analysis.records import write_file
from analysis.schema import SCHEMA_VERSION
from trainables.configuration import ModelConfig, Optimizer, Precision, Schedule, TrainingConfig, TrialConfig
from trainables.data import DataConfig, DataInfo, check_masks, check_others, describe
from trainables.method import Method
from trainables.metrics import METRICS, needs_masks
from trainables.metrics.flags import MetricFlags
from trainables.models import MODELS, check_size


class Setting(NamedTuple):
    """What a method is trained on: a data set, its images' channels and pixels a side, a network, and how."""

    data: DataConfig
    channels: int
    size: int
    model: ModelConfig
    training: TrainingConfig


_MEASURE = f"What to measure besides accuracy and loss: {', '.join(METRICS)}. Default: what the method's paper reports."


@dataclass(frozen=True)
class SweepFlags(MetricFlags, ABC):
    """The flags that every sweep has. Flags that take several values make a grid of all their combinations."""

    NAME: ClassVar[str]

    preset: str = "digits"
    """Which set of defaults to start from; every other flag overrides it."""
    dataset: tuple[str, ...] = ("digits",)
    """Data sets by name, or folder:/path, parquet:/path, parquet:s3://bucket/prefix."""
    model: tuple[str, ...] = ("resnet8",)
    """Networks by name."""
    width: tuple[int, ...] | None = None
    """Channels of the first stage; default: the network's own."""
    pretrained: bool = False
    """Begin with timm's weights for ImageNet, for networks that have them."""
    epochs: tuple[int, ...] = (30,)
    batch_size: tuple[int, ...] = (128,)
    optimizer: tuple[Optimizer, ...] = ("sgd",)
    learning_rate: tuple[float, ...] = (0.1,)
    """Initial learning rate."""
    momentum: float = 0.9
    weight_decay: tuple[float, ...] = (0.0,)
    decay_normalisation: bool = True
    """Whether weight decay also applies to the parameters of normalisation layers."""
    schedule: Schedule = "cosine"
    milestones: tuple[int, ...] = ()
    """Epochs after which the step schedule multiplies the learning rate by --decay."""
    decay: float = 0.1
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    """bf16: mixed precision where the device has it."""
    flip: bool = False
    """Random horizontal flips."""
    crop: bool = False
    """Random crops after padding by --crop-pixels (the RC+ of PILCRO's tables; --no-crop is RC-)."""
    crop_pixels: int = 4
    padding: str = "reflect"
    """What --crop pads with: reflect or zero."""
    zoom: bool = False
    """Random resized crops (streamed data sets)."""
    image_size: int | None = None
    """Images are resized to this many pixels; default: the data set's own size."""
    evaluation_size: int | None = None
    """Size of validation and test images where it differs (streamed data sets)."""
    train_images: int | None = None
    """Use only so many training images (a fixed stratified draw)."""
    validation: float = 0.1
    """Share of the training images held out for validation; 0: the test split serves as it, as in the papers."""
    scaling: str = "standardise"
    """Network input: standardise (per-channel mean and deviation), unit ([0, 1]) or symmetric ([-1, 1])."""
    seeds: int = 2
    """Number of seeds: 0, 1, …; a seed decides initialisation, order of the data and every other random draw."""
    folds: int | None = None
    """Stratified cross-validation: all images, also those of the test split, in so many parts; each seed trains once
    for each part, which it is tested on, and on the others."""
    baseline: bool = True
    """Whether to run the unregularised baseline, one trial a seed and fold."""

    measure: Annotated[tuple[str, ...] | None, tyro.conf.arg(help=_MEASURE)] = None
    storage: str = "results"
    """Folder or s3://bucket/prefix for the record."""
    name: str | None = None
    """The sweep's name, a folder below --storage; default: the script's."""
    data_root: str = "data"
    """Where named data sets are, or are downloaded to."""
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    """GPUs of a trial, fractions allowed; default: 0 where the cluster has no GPUs, else the preset's share: 0.25 or
    0.5 for small networks, 1 for others, and with another data set, network, size or batch than the preset's."""
    gpu_share: Annotated[float, tyro.conf.Fixed, tyro.conf.Suppress] = 1.0
    """The preset's default of --gpus-per-trial where the cluster has GPUs; no flag."""
    checkpoint_seconds: float = 10.0
    """A trial writes a checkpoint at the end of an epoch when the last one is at least so old."""
    keep_models: bool = False
    """Keep the trained networks of completed trials as models/<trial_id>.safetensors, to be measured later."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of recorded trials."""
    retry_failed: bool = False
    """Run failed trials, and those whose record or checkpoint is damaged, again."""
    dashboard: bool = False
    """Start the Ray dashboard with a local Ray, on 127.0.0.1; a cluster that is found has its own. With one each trial
    starts a process of its own, which takes seconds."""
    dry_run: bool = False
    """Print the plan and run nothing."""

    @abstractmethod
    def methods(self) -> Iterator[Method]:
        """The method's settings: the grid of its hyperparameters."""

    def methods_for(self, setting: Setting) -> Iterator[Method]:
        """The same where they depend on the data set and its fold, the network or its training."""
        return self.methods()

    def data_fields(self, info: DataInfo) -> Iterator[dict[str, Any]]:
        """What else is done with a data set, as fields of `DataConfig`: each its trials."""
        yield {}

    def described(self, info: DataInfo) -> DataInfo:
        """The description of a data set, completed where it is for the flags to say how large it is."""
        return info

    def in_stages(self) -> Iterator[SweepFlags]:
        """The flags of each stage, as a rule one; the next is asked for when the one before is recorded."""
        yield self

    def default_metrics(self) -> tuple[str, ...]:
        first = next(self.methods(), None)
        return first.metrics if first is not None else ()

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Options of each metric to record, by its name."""
        return self.metric_options(self.default_metrics() if self.measure is None else self.measure, "measure")


@dataclass(frozen=True)
class StrengthFlags(SweepFlags):
    """The flags of a sweep over a penalty's strength α: a list, or a range in even steps of its logarithm."""

    alpha: tuple[float, ...] = (1.0, 10.0, 100.0)
    """Strength of the penalty."""
    alpha_range: tuple[float, ...] = ()
    """LOW HIGH N: N strengths from LOW to HIGH, evenly spaced in their logarithms; instead of --alpha."""

    def alphas(self) -> tuple[float, ...]:
        """The strengths of the sweep. Raises `InputError` for a range that is none."""
        if not self.alpha_range:
            return self.alpha
        shown = " ".join(f"{number:g}" for number in self.alpha_range)
        low, high, number = self.alpha_range if len(self.alpha_range) == 3 else (0, 0, 0)
        if not (0 < low < high < math.inf and number >= 2 and number == int(number)):
            raise InputError(
                f"alpha_range: {shown}, allowed are LOW HIGH N, two rising numbers above 0, a whole one of at least 2"
            )
        # without the last digits' noise: 1000, not 1000.0000000000002, which would be another trial
        return tuple(float(f"{alpha:.12g}") for alpha in np.geomspace(low, high, int(number)))


def trial_id(config: TrialConfig) -> str:
    """16 hex digits: a hash of the canonical configuration and the schema's version. Equal trials have equal ids."""
    identity = {"schema_version": SCHEMA_VERSION, **config.canonical()}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with its identity and what a person calls its setting."""

    id: str
    config: TrialConfig
    label: str

    @property
    def cost(self) -> float:
        """Relative time: epochs in units of a plain epoch."""
        return self.config.training.epochs * self.config.method.relative_cost

    def payload(self) -> dict[str, str]:
        """What travels to the worker."""
        return {"id": self.id, "label": self.label, "json": json.dumps(self.config.canonical(), sort_keys=True)}


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep in the order of its grid, and the description of its data sets by the flag's value."""

    trials: list[PlannedTrial]
    data: dict[str, DataInfo]

    @property
    def ids(self) -> set[str]:
        return {trial.id for trial in self.trials}


def make_plan(flags: SweepFlags) -> Plan:
    """Every combination of the flags' values, each trial once. Raises `InputError` for what cannot be trained."""
    _check_grid(flags)
    masks = needs_masks(flags.metrics())
    infos: dict[str, DataInfo] = {}
    data_configs: dict[str, list[DataConfig]] = {}
    for spec in flags.dataset:
        infos[spec] = info = flags.described(describe(spec, flags.data_root))
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
                **fields,
            )
            for fields in flags.data_fields(info)
        ]
        for first in shown:
            _check_images(info, first)
        if masks:
            check_masks(spec, flags.data_root)
        check_others(spec, flags.shift, flags.data_root)
        data_configs[spec] = [config for first in shown for config in first.each_fold()]
    trials: dict[str, PlannedTrial] = {}
    for spec, model, training in itertools.product(flags.dataset, _models(flags), _trainings(flags)):
        size = flags.image_size or infos[spec].size
        check_size(model.model, size)
        for data in data_configs[spec]:
            steps = training.epochs * -(-infos[spec].training_images(data) // training.batch_size)
            setting = Setting(data, infos[spec].channels, size, model, training)
            methods = ([Method()] if flags.baseline else []) + list(flags.methods_for(setting))
            for method, seed in itertools.product(methods, range(flags.seeds)):
                method.check(size, size, steps)
                config = TrialConfig(method, model, data, training, seed)
                identity = trial_id(config)
                trials.setdefault(identity, PlannedTrial(identity, config, ""))
    labels = _labels([trial.config for trial in trials.values()])
    labelled = [dataclasses.replace(trial, label=label) for trial, label in zip(trials.values(), labels, strict=True)]
    return Plan(labelled, infos)


_MAY_BE_EMPTY = ("milestones", "maps_at", "measure", "alpha_range", "shift")


def _check_grid(flags: SweepFlags) -> None:
    for entry in dataclasses.fields(flags):
        if getattr(flags, entry.name) == () and entry.name not in _MAY_BE_EMPTY:
            raise InputError(f"--{entry.name.replace('_', '-')}: no value, allowed is at least one")
    if flags.seeds < 1:
        raise InputError(f"seeds: {flags.seeds}, allowed are whole numbers of at least 1")
    if flags.crop_pixels < 1:
        raise InputError(f"crop_pixels: {flags.crop_pixels}, allowed are whole numbers of at least 1")
    for flag in ("storage", "name"):
        if getattr(flags, flag) == "":
            raise InputError(f"{flag}: empty, allowed is a name")
    if not (math.isfinite(flags.cpus_per_trial) and flags.cpus_per_trial > 0):
        raise InputError(f"cpus_per_trial: {flags.cpus_per_trial}, allowed are numbers above 0")
    if flags.gpus_per_trial is not None and not (math.isfinite(flags.gpus_per_trial) and flags.gpus_per_trial >= 0):
        raise InputError(f"gpus_per_trial: {flags.gpus_per_trial}, allowed are numbers of at least 0")
    if not flags.checkpoint_seconds >= 0:
        raise InputError(f"checkpoint_seconds: {flags.checkpoint_seconds}, allowed are numbers of at least 0")


def _check_images(info: DataInfo, config: DataConfig) -> None:
    size = config.image_size or info.size
    if config.crop >= size:
        raise InputError(
            f"crop_pixels: {config.crop}, allowed are fewer than the {size} pixels of {info.name}'s images"
        )
    if (config.zoom or config.evaluation_size) and not info.streamed and not info.name.startswith("folder:"):
        raise InputError(f"zoom, evaluation_size: {info.name} is held in memory, allowed are streamed data sets")
    images = info.outside_test(config)
    if config.train_images is not None and config.train_images > images:
        raise InputError(f"train_images: {config.train_images}, {info.name} has {images}")


def _models(flags: SweepFlags) -> list[ModelConfig]:
    models = []
    for name in flags.model:
        widths = flags.width or (MODELS[name].width if name in MODELS else 0,)
        models += [ModelConfig(name, width, flags.pretrained) for width in widths]
    return models


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


def _labels(configs: Sequence[TrialConfig]) -> list[str]:
    """Each trial's method and those of its hyperparameters that vary in the sweep: `pilcro α=10 target seed=1`."""
    flat = [
        {key: value for key, value in config.columns().items() if not isinstance(value, list)} for config in configs
    ]
    keys = dict.fromkeys(key for columns in flat for key in columns)
    # a baseline has no hyperparameters: only values that are there count as different
    varying = [
        key
        for key in keys
        if key not in ("method", "seed", "fold")
        and (key == "alpha" or len({columns[key] for columns in flat if columns.get(key) is not None}) > 1)
    ]
    labels = []
    for columns in flat:
        shown = [columns["method"]]
        for key in varying:
            value = columns.get(key)
            if value is not None:
                shown.append(value if isinstance(value, str) else f"{_SYMBOLS.get(key, key)}={_short(value)}")
        fold = "" if columns["fold"] is None else f" fold={columns['fold']}"
        labels.append(" ".join(shown) + f"{fold} seed={columns['seed']}")
    return labels


_SYMBOLS = {
    "alpha": "α",
    "interval": "T",
    "laplacian_width": "k",
    "gamma": "γ",
    "eta": "η",
    "modulation": "c",
    "learning_rate": "lr",
    "batch_size": "batch",
}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- the sweep's folder ---------------------------------------------------------------------------------------------

# what may be extended under the same name: more strengths, seeds or settings of training belong to one sweep
_EXTENSIBLE = {
    "data": ("crop", "flip", "padding", "fold"),  # what the folds are is said by their number
    "training": ("batch_size", "optimizer", "learning_rate", "momentum", "weight_decay", "label_smoothing"),
}


def contents(flags: SweepFlags, plan: Plan) -> dict[str, list[Any]]:
    """What a sweep of one name is about: data, networks, training and measurements, each with the values it takes."""
    found: dict[str, dict[str, Any]] = {}
    for trial in plan.trials:
        canonical = trial.config.canonical()
        for part in ("data", "model", "training"):
            for key, value in canonical[part].items():
                if key not in _EXTENSIBLE.get(part, ()):
                    found.setdefault(key, {})[json.dumps(value)] = value
    for metric, options in flags.metrics().items():
        found.setdefault("measure", {})[json.dumps(metric)] = metric
        for key, value in options.items():
            found.setdefault(f"{metric} {key}", {})[json.dumps(value)] = value
    return {key: [values[text] for text in sorted(values)] for key, values in sorted(found.items())}


def sweep_url(flags: SweepFlags) -> str:
    name = flags.name or flags.NAME
    if not name or PurePosixPath(name).name != name or name.startswith("."):
        raise InputError(f"name: {name!r}, allowed is one folder name without / and not starting with a dot")
    if "://" in flags.storage and not flags.storage.startswith("s3://"):
        raise InputError(f"storage: {flags.storage}, allowed are a folder or s3://bucket/prefix")
    return f"{flags.storage.rstrip('/') or '/'}/{name}"


def check_contents(url: str, contents: Mapping[str, list[Any]]) -> None:
    """Compare with `sweep.json` of the sweep's folder, if it has one.

    Raises `InputError` if a sweep of this name is about something else, naming the first difference.
    """
    fs, path = fsspec.core.url_to_fs(url)
    manifest = f"{path}/sweep.json"
    fs.invalidate_cache()
    if not fs.exists(manifest):
        return
    try:
        known = dict(json.loads(fs.cat_file(manifest))["contents"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{url}/sweep.json: damaged; use another --name, or move that folder away") from None
    for key in sorted({*known, *contents}):
        if known.get(key) != contents.get(key):
            raise InputError(
                f"{url} is a sweep with {key} = {_listed(known.get(key))}, this one has "
                f"{_listed(contents.get(key))}; give this one another --name"
            )


def write_contents(url: str, contents: Mapping[str, list[Any]]) -> None:
    """Say in the sweep's folder what it is about."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, "contents": contents}, indent=1, sort_keys=True)
    write_file(f"{url}/sweep.json", text.encode())


def _listed(values: Any) -> str:
    if isinstance(values, list) and values:
        return ", ".join(str(value) for value in values)
    return str(values) if values else "none"


def read_flags(
    kind: type[SweepFlags], presets: Mapping[str, SweepFlags], argv: Sequence[str], description: str
) -> SweepFlags:
    """The command line as flags: the preset's defaults, overridden by what is given."""
    chosen = "digits"
    for position, word in enumerate(argv):
        if word == "--preset" and position + 1 < len(argv):
            chosen = argv[position + 1]
        elif word.startswith("--preset="):
            chosen = word.removeprefix("--preset=")
    if chosen not in presets:
        raise InputError(f"preset: {chosen!r}, allowed are {', '.join(presets)}")
    default = presets[chosen]
    given = {word.split("=")[0].replace("_", "-") for word in argv if word.startswith("--")}
    if {"--alpha", "--alpha-range"} <= given:
        raise InputError("--alpha, --alpha-range: both given, allowed is one of them")
    if "--alpha" in given and isinstance(default, StrengthFlags):
        default = dataclasses.replace(default, alpha_range=())
    flags = parse(kind, argv, default=default, prog=f"{kind.NAME}.py", description=description)
    if "--alpha-range" in given and isinstance(flags, StrengthFlags) and not flags.alpha_range:
        raise InputError("--alpha-range: no value, allowed are LOW HIGH N")  # the default strengths were not asked for
    if any(getattr(flags, name) != getattr(default, name) for name in _SIZE):
        flags = dataclasses.replace(flags, gpu_share=1.0)  # it may be larger than what the preset's share is meant for
    return flags


_SIZE = ("dataset", "model", "width", "batch_size", "image_size", "evaluation_size")
