"""What a command line may say: the flags that every sweep has, and how they are read."""

from __future__ import annotations

import dataclasses
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import tyro

from analysis.bounds import AT_LEAST_0, POSITIVE, SEED, SHARE, Bound, at_least
from analysis.command_line import InputError, check_bounds, parse
from sweeps.help import metrics_help, search_help, sweep_help
from sweeps.ranges import Ranges, shown_range, without_ranges
from trainables.checkpoints import EPOCHS, MOST_EPOCHS
from trainables.configuration import ModelConfig, Optimizer, Precision, Schedule, TrainingConfig
from trainables.data import DataConfig, DataInfo
from trainables.method import Method
from trainables.metrics.flags import FLAGS, MetricFlags

if TYPE_CHECKING:
    from sweeps.plan import Plan
    from sweeps.proposers.stages import Later

MOST_TRIALS = 1_000_000
"""Of a plan: the driver holds them all, 4 KB each, and so does Tune."""
ASKS_FROM = 100_000
"""Trials above which a plan asks for --yes-really: hardly ever are they meant."""


Search = Literal["grid", "tipping", "random", "tpe", "gp", "nsga2"]
OPTUNA: tuple[Search, ...] = ("random", "tpe", "gp", "nsga2")
"""The searches of Optuna's samplers."""
BY_OPTUNA = "--search random, tpe, gp or nsga2"
Scheduler = Literal["none", "asha", "median", "collapse"]
Range = Annotated[tuple[float | str, ...], tyro.conf.Fixed, tyro.conf.Suppress]
"""The two ends of a range of strengths, as its flag has them."""

MOST_PIXELS = 2**14
"""Of an image's side."""
LEAST_PART = 0.01
"""Of a processor or a GPU: a hundred trials that share it have a hundred processes' memory."""


class Setting(NamedTuple):
    """What a method is trained on: a data set, its images' channels and pixels a side, a network, and how."""

    data: DataConfig
    channels: int
    size: int
    model: ModelConfig
    training: TrainingConfig


@dataclass(frozen=True)
class SweepFlags(MetricFlags, ABC):
    """The flags that every sweep has. Flags that take several values make a grid of all their combinations."""

    NAME: ClassVar[str]
    STRENGTH: ClassVar[str] = ""
    """The flag, and field of the method, whose tipping point a search looks for; "": there is none."""

    STEPS: ClassVar[Mapping[str, int]] = {}
    """Between the whole numbers of a range that are allowed, from its low end on; of others 1."""

    preset: str = "digits"
    """Which set of defaults to start from; every other flag overrides it."""
    about: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = ""
    """Which experiments of the paper the preset is, and in what it is not as there; no flag."""
    dataset: tuple[str, ...] = ("digits",)
    """Data sets by name, or folder:/path, parquet:/path, parquet:s3://bucket/prefix; then
    ?config=…&image=…&label=… names configuration and columns."""
    as_: Annotated[tuple[str, ...], tyro.conf.arg(name="as")] = ()
    """The paper's data set that a folder is (cub-200-2011, …), one a --dataset."""
    model: tuple[str, ...] = ("resnet8",)
    """Networks by name (trainables/README.md)."""
    width: tuple[int, ...] | None = None
    """Channels of the first stage; default: the network's own."""
    pretrained: bool = False
    """Begin with timm's weights for ImageNet, for networks that have them."""
    epochs: tuple[int, ...] = (30,)
    """How often every training image is seen."""
    batch_size: tuple[int, ...] = (128,)
    """Images a step."""
    optimizer: tuple[Optimizer, ...] = ("sgd",)
    """Stochastic gradient descent, or Adam."""
    learning_rate: tuple[float, ...] = (0.1,)
    """Learning rate at the start."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: tuple[float, ...] = (0.0,)
    """Added to the gradients, as a multiple of the weights."""
    decay_normalisation: bool = True
    """Whether weight decay also applies to normalisation layers."""
    schedule: Schedule = "cosine"
    """How the learning rate falls: to 0 by a cosine, in steps, not at all."""
    milestones: tuple[int, ...] = ()
    """Epochs after which --schedule step multiplies by --decay."""
    decay: float = 0.1
    """What the step schedule multiplies the learning rate by."""
    label_smoothing: float = 0.0
    """Share of a label spread over all classes."""
    precision: Precision = "float32"
    """bf16: mixed precision, refused on GPUs without it."""
    flip: bool = False
    """Flip training images horizontally at random."""
    crop: bool = False
    """Crop training images at random after padding (PILCRO's RC+)."""
    crop_pixels: int = 4
    """Pixels that --crop pads on each side."""
    padding: str = "reflect"
    """What --crop pads with: reflect or zero."""
    zoom: bool = False
    """Random resized crops (streamed data sets)."""
    image_size: int | None = None
    """Pixels a side to resize images to; default: the set's own."""
    evaluation_size: int | None = None
    """The same for validation and test images (streamed data sets)."""
    channels: int | None = None
    """1: images in grey, 3: in colour; default: as most images are."""
    exclude: tuple[str, ...] = ()
    """What is no data, by name or path below the set's: annotations '*_mask.png'."""
    train_images: int | None = None
    """Use so many training images, a fixed stratified draw; default: all."""
    validation: float = 0.1
    """Share of training images held out; 0: validation on the test split, as in the papers."""
    scaling: str = "standardise"
    """Network input: standardise (per-channel mean and deviation), unit ([0, 1]), symmetric ([-1, 1])."""
    seeds: int = 2
    """Number of seeds (0, 1, …) of each setting; a seed decides every random draw of its trial."""
    folds: int | None = None
    """Stratified cross-validation in so many parts, each tested on once a seed; default: the test split."""
    baseline: bool = True
    """Also train the unregularised network, one trial a seed and fold."""

    search: Search = "grid"
    """All combinations, or a search (--help-search)."""
    interval_width: float = 0.3
    """Decades of a tipping point's 95% interval at which its search ends."""
    extend: bool = False
    """Where accuracy holds in the whole range, or nowhere in it, look on beyond it, up to six decades."""
    scheduler: Scheduler = "none"
    """End trials early: asha and median (not with --search tipping) those that do worse than others by validation
    accuracy, which analysis leaves out; collapse those that for a third of their epochs were no better than
    guessing."""
    samples: int | None = None
    """Trials at most, with those that are recorded."""
    budget_hours: float | None = None
    """Hours that trials may have GPUs, or where they have none processors, with those of what is recorded; what has
    begun ends, and nothing begins beyond."""
    objective: tuple[str, ...] = ("validation_top1",)
    """What Optuna's samplers make large or small: columns and measurements of the record, NAME:min or NAME:max where
    nothing else says which is better; of several the Pareto front."""
    racing: bool = False
    """One seed after the other, and none more of a setting that has diverged, or is worse than the best by three
    standard deviations between seeds."""
    warm_start: tuple[str, ...] = ()
    """Sweeps whose trials Optuna's samplers know from the beginning: folders or s3://bucket/prefix/name."""
    search_seed: int = 0
    """Of the sampler's draws."""
    ranges: Annotated[Ranges, tyro.conf.Fixed, tyro.conf.Suppress] = ()
    """What is searched, as field, low and high; LOW..HIGH after a flag says it."""
    strength_range: Range = (1e-2, 1e4)
    """The preset's range of strengths for a search; LOW..HIGH after the strength's flag is another."""

    measure: tuple[str, ...] | None = None
    """What to measure besides accuracy and loss (--help-metrics); default: what the method's paper reports."""
    storage: str = "results"
    """Folder or s3://bucket/prefix for the record."""
    name: str | None = None
    """The sweep's name, a folder below --storage; default: the script's."""
    data_root: str = "data"
    """Folder where named data sets are, or are downloaded to."""
    cpus_per_trial: float = 1.0
    """Processors of a trial."""
    gpus_per_trial: float | None = None
    """GPUs of a trial, or a part of one; default: 0 where there are none, else the preset's share, or 1 with other
    data, network or batch."""
    gpu_share: Annotated[float, tyro.conf.Fixed, tyro.conf.Suppress] = 1.0
    """The preset's default of --gpus-per-trial where the cluster has GPUs; no flag."""
    checkpoint_seconds: float = 10.0
    """Seconds after which the end of an epoch writes a checkpoint again."""
    keep_models: bool = False
    """Keep trained networks (models/<trial_id>.safetensors)."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of recorded trials."""
    retry_failed: bool = False
    """Run failed trials again, from their last checkpoint, and damaged ones."""
    forget_failed: bool = False
    """Delete the checkpoints that failed trials keep."""
    dashboard: bool = False
    """Start Ray's dashboard with a local Ray; trials begin seconds later."""
    dry_run: bool = False
    """Print the plan and run nothing."""
    estimate: bool = False
    """With --dry-run: time a training step now, not as trained before."""
    yes_really: bool = False
    """Plan more than 100,000 trials."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "width": Bound(1, 2**16, "a convolution between so many channels has 155 GB of weights"),
        "epochs": Bound(1, MOST_EPOCHS, EPOCHS),
        "batch_size": Bound(1, 2**20, "nobody trains with larger ones: the largest data set has as many images"),
        "learning_rate": POSITIVE,
        "momentum": SHARE,
        "weight_decay": AT_LEAST_0,
        "milestones": Bound(1, MOST_EPOCHS, EPOCHS),
        "decay": Bound(0, 1, above=True),
        "label_smoothing": SHARE,
        "crop_pixels": Bound(1, MOST_PIXELS, "images are not larger"),
        "image_size": Bound(1, MOST_PIXELS, "one image in colour has 3 GB by then"),
        "evaluation_size": Bound(1, MOST_PIXELS, "one image in colour has 3 GB by then"),
        "train_images": at_least(1),
        "validation": SHARE,
        "seeds": Bound(1, MOST_TRIALS, "a plan has no more trials"),
        "interval_width": Bound(0, 100, "no strengths lie farther apart", above=True),
        "samples": Bound(1, MOST_TRIALS, "a plan has no more trials"),
        "budget_hours": Bound(0, math.inf, above=True),
        "search_seed": SEED,
        "folds": Bound(2, MOST_TRIALS, "a plan has no more trials"),
        "cpus_per_trial": Bound(LEAST_PART, 8192, "Linux has no more processors"),
        "gpus_per_trial": Bound(0, 1024, "no node has more"),
        "checkpoint_seconds": Bound(0, math.inf),
    }

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

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """The fields that nothing comes of as the others are, each with what it goes with."""
        if "sgd" not in self.optimizer:
            yield "momentum", "--optimizer sgd"
        if self.schedule != "step":
            yield "decay", "--schedule step"
        if not self.crop:
            yield from (("crop_pixels", "--crop"), ("padding", "--crop"))
        if self.search != "tipping":
            yield from (("interval_width", "--search tipping"), ("extend", "--search tipping"))
        if self.search not in OPTUNA:
            yield from ((name, BY_OPTUNA) for name in ("objective", "racing", "warm_start", "search_seed"))
        elif self.seeds == 1 and self.folds is None:
            yield "racing", "--seeds above 1"
        if self.scheduler in ("asha", "median") and self.search == "tipping":
            raise InputError(
                f"scheduler: {self.scheduler}, allowed with --search tipping are none, collapse: "
                "a tipping point is about the trials that do worse"
            )
        if max(self.maps_at, default=0) > max(self.epochs, default=0):
            yield "maps_at", f"--epochs {max(self.maps_at)}"

    def later(self, plan: Plan) -> Later | None:
        """What comes when all trials of the plan, which is that of these flags, are recorded; None: nothing does."""
        return None

    def only_grid(self) -> str:
        """The flag with its value that goes with a grid alone; "" where there is none."""
        return ""

    def at_range_ends(self) -> SweepFlags:
        """The same with the two ends of the range of strengths that a search looks in. Raises `InputError`."""
        if not self.STRENGTH:
            raise InputError(f"search: {self.search}, allowed for {self.NAME}, which has no one strength, is grid")
        low, high = self.strength_range
        if isinstance(low, float) and isinstance(high, float) and not 0 < low < high:
            raise InputError(f"{self.STRENGTH}: {low:g}..{high:g}, allowed for a search are two rising numbers above 0")
        ends: dict[str, Any] = {self.STRENGTH: self.strength_range}
        return dataclasses.replace(self, **ends)

    def default_metrics(self) -> tuple[str, ...]:
        first = next(self.methods(), None)
        return first.metrics if first is not None else ()

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Options of each metric to record, by its name."""
        return self.metric_options(self.default_metrics() if self.measure is None else self.measure, "measure")


@dataclass(frozen=True)
class StrengthFlags(SweepFlags):
    """The flags of a sweep over a penalty's strength α: a list, or a range in even steps of its logarithm."""

    STRENGTH: ClassVar[str] = "alpha"

    alpha: tuple[float, ...] = (1.0, 10.0, 100.0)
    """Strength of the penalty."""
    alpha_range: tuple[float, ...] = ()
    """LOW HIGH N: N strengths from LOW to HIGH, evenly spaced in their logarithms; LOW HIGH: the range of a search."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {"alpha": AT_LEAST_0}

    def at_range_ends(self) -> SweepFlags:
        return dataclasses.replace(super().at_range_ends(), alpha_range=())  # type: ignore[call-arg]

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
        if number > MOST_TRIALS:
            raise InputError(f"alpha_range: {shown}, allowed are at most {MOST_TRIALS:,} strengths: a plan has no more")
        # without the last digits' noise: 1000, not 1000.0000000000002, which would be another trial
        return tuple(float(f"{alpha:.12g}") for alpha in np.geomspace(low, high, int(number)))


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
        raise InputError(f"--preset: {chosen!r}, allowed are {', '.join(presets)}")
    default = presets[chosen]
    given = {word.split("=")[0].replace("_", "-") for word in argv if word.startswith("--")}
    if {"--alpha", "--alpha-range"} <= given:
        raise InputError("--alpha, --alpha-range: both given, allowed is one of them")
    if "--alpha" in given and isinstance(default, StrengthFlags):
        default = dataclasses.replace(default, alpha_range=())
    pages = {"-h": sweep_help, "--help": sweep_help, "--help-metrics": metrics_help, "--help-search": search_help}
    for asked, page in pages.items():
        if asked in argv:
            print(page(kind, presets, default, description))
            raise SystemExit(0)
    rest, ranges = without_ranges(kind, argv)
    flags = parse(kind, rest, default=default, prog=f"{kind.NAME}.py")
    if "--alpha-range" in given and isinstance(flags, StrengthFlags) and not flags.alpha_range:
        raise InputError("--alpha-range: no value, allowed are LOW HIGH N")  # the default strengths were not asked for
    flags = _searched(flags, given, ranges)
    for name, needed in flags.without_effect():
        if getattr(flags, name) != getattr(default, name):
            raise InputError(f"{name}: given, allowed with {needed}: it would change nothing")
    for name, metrics in _unmeasured(flags):
        if getattr(flags, name) != getattr(default, name):
            flag = f"--{name.replace('_', '-')}"
            print(f"{flag} changes nothing here: none of {', '.join(metrics)} is measured", file=sys.stderr)
    if any(getattr(flags, name) != getattr(default, name) for name in _SIZE):
        flags = dataclasses.replace(flags, gpu_share=1.0)  # it may be larger than what the preset's share is meant for
    return flags


def _searched(flags: SweepFlags, given: set[str], ranges: Ranges) -> SweepFlags:
    """The flags with the ranges that are given, and a grid where a list of strengths is, or another flag that goes with
    a grid alone, and no search is asked for. Raises `InputError` where it is."""
    if isinstance(flags, StrengthFlags) and "--alpha-range" in given and len(flags.alpha_range) == 2:
        if flags.search == "grid" and "--search" in given:
            return flags  # whose range lacks a number, as it is told
        low, high = flags.alpha_range
        if flags.search == "grid":
            raise InputError(f"alpha_range: {low:g} {high:g}, allowed with a --search alone is a range")
        ranges = (*ranges, ("alpha", low, high))
        flags = dataclasses.replace(flags, alpha_range=())
    for field, *ends in ranges:
        if flags.only_grid():
            raise InputError(f"{field}: {shown_range(*ends)}, allowed with {flags.only_grid()} is no range")
        needed = "a --search" if field == flags.STRENGTH else BY_OPTUNA
        if flags.search == "grid" or (field != flags.STRENGTH and flags.search not in OPTUNA):
            raise InputError(f"{field}: {shown_range(*ends)}, allowed with {needed} alone is a range")
        if field == flags.STRENGTH and isinstance(flags, StrengthFlags):
            flags = dataclasses.replace(flags, alpha_range=())
    lists = [name for name in (flags.STRENGTH, "alpha_range") if name and f"--{name.replace('_', '-')}" in given]
    lists = [name for name in lists if not any(field == flags.STRENGTH for field, *_ in ranges)]
    own = {field: ends for field, *ends in ranges}
    if flags.search in OPTUNA:
        if flags.only_grid():
            raise InputError(f"search: {flags.search}, allowed with {flags.only_grid()} is grid")
        if flags.STRENGTH and not lists:
            own.setdefault(flags.STRENGTH, [*flags.strength_range])
        return dataclasses.replace(flags, ranges=tuple((field, *ends) for field, ends in own.items()))
    if flags.STRENGTH in own:
        ends_of: dict[str, Any] = {flags.STRENGTH: tuple(own[flags.STRENGTH])}
        check_bounds(dataclasses.replace(flags, **ends_of))  # under its own name
        return dataclasses.replace(flags, strength_range=tuple(own[flags.STRENGTH]))
    only = flags.only_grid() or ", ".join(f"--{name.replace('_', '-')}" for name in lists)
    if flags.search != "grid" and only:
        if "--search" in given:
            more = "" if flags.only_grid() else f"; with --{flags.STRENGTH} LOW..HIGH a search"
            raise InputError(f"search: {flags.search}, allowed with {only} is grid{more}")
        return dataclasses.replace(flags, search="grid")
    return flags


_SIZE = ("dataset", "model", "width", "batch_size", "image_size", "evaluation_size")


def _unmeasured(flags: SweepFlags) -> Iterator[tuple[str, list[str]]]:
    """Options of metrics that are not measured, each with these metrics."""
    of: dict[str, list[str]] = {}
    for metric, options in FLAGS.items():
        for field in options.values():
            of.setdefault(field, []).append(metric)
    measured = flags.metrics()
    yield from ((field, metrics) for field, metrics in of.items() if not measured.keys() & metrics)
