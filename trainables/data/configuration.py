"""What is done with a data set, as part of a trial's identity; and the fixed, stratified draws of its splits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError

Padding = Literal["reflect", "zero"]
Scaling = Literal["standardise", "unit", "symmetric"]
Labels = Literal["real", "random"]

# the seeds of the draws below are part of what a data set is: changing one changes every result
TEST_SEED, VALIDATION_SEED, SUBSET_SEED, ORDER_SEED, FOLD_SEED, LABEL_SEED, TASK_SEED = 1, 2, 3, 4, 5, 6, 7

TASKS = "mnist-tasks"

OMIT_DEFAULT = {"omit_default": True}
"""A field's metadata: no part of a trial's identity where it has its default, as trials are recorded that had no such
field."""


@dataclass(frozen=True)
class DataConfig:
    """A data set by its name in the record, and what is done with its images."""

    dataset: str
    image_size: int | None = None
    """Pixels a side after resizing (short side, then centre crop); None: the set's own size."""
    train_images: int | None = None
    """Only so many training images, a fixed stratified draw; None: all."""
    validation: float = 0.1
    """Share of the training images held out, in [0, 1); 0: the test split serves as validation split. Sets with a
    validation split of their own have that one."""
    flip: bool = False
    """Random horizontal flips of training images."""
    crop: int = 0
    """Training images are padded by so many pixels and cropped at random to their size."""
    padding: Padding = "reflect"
    scaling: Scaling = "standardise"
    """The network's input: standardise (per channel, by the training images), unit [0, 1] or symmetric [−1, 1]."""
    zoom: bool = False
    """Streamed sets: random resized crops (area 8–100%, ratio 3/4–4/3) of training images."""
    evaluation_size: int | None = None
    """Streamed sets: pixels a side of validation and test images, where they differ from training images."""
    folds: int | None = field(default=None, metadata=OMIT_DEFAULT)
    """Stratified cross-validation: the images of the training and the test split together in so many parts."""
    fold: int | None = field(default=None, metadata=OMIT_DEFAULT)
    """The part that is the test split, in 0 … folds - 1; the others are the training images."""

    labels: Labels = field(default="real", metadata=OMIT_DEFAULT)
    """random: those of the training images are replaced by uniform random ones, the same in every epoch and trial."""
    deformation_strength: float | None = field(default=None, metadata=OMIT_DEFAULT)
    """Images are deformed at random, by so many pixels at the control points: training images anew whenever they are
    drawn, the others each in one way."""
    task_classes: int | None = field(default=None, metadata=OMIT_DEFAULT)
    """mnist-tasks: the number of classes, each the deformations of one image."""
    task_images: int | None = field(default=None, metadata=OMIT_DEFAULT)
    """mnist-tasks: deformations of a class to train on in an epoch (with those for validation)."""
    task_tests: int | None = field(default=None, metadata=OMIT_DEFAULT)
    """mnist-tasks: deformations of a class to test on."""
    channels: int | None = field(default=None, metadata=OMIT_DEFAULT)
    """1: grey, 3: in colour; None: as most images are."""
    exclude: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)
    """Patterns of files and folders that are no data: see `listing`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))  # a list, where it is read from the record
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels: {self.channels}, allowed are 1 (grey) and 3 (colour)")
        sizes = {"image_size": self.image_size, "evaluation_size": self.evaluation_size}
        for name, number in {**sizes, "train_images": self.train_images}.items():
            if number is not None and number < 1:
                raise InputError(f"{name}: {number}, allowed are whole numbers of at least 1")
        if not 0 <= self.validation < 1:
            raise InputError(f"validation: {self.validation}, allowed are shares in [0, 1)")
        if self.folds is not None and self.folds < 2:
            raise InputError(f"folds: {self.folds}, allowed are whole numbers of at least 2")
        if self.folds is None and self.fold is not None:
            raise InputError(f"fold: {self.fold}, allowed with folds alone")
        if self.folds is not None and (self.fold is None or not 0 <= self.fold < self.folds):
            raise InputError(f"fold: {self.fold}, allowed with {self.folds} folds are 0 to {self.folds - 1}")
        if self.labels not in get_args(Labels):
            raise InputError(f"labels: {self.labels!r}, allowed are {', '.join(get_args(Labels))}")
        strength = self.deformation_strength
        if strength is not None and not (math.isfinite(strength) and strength >= 0):
            raise InputError(f"deformation_strength: {strength}, allowed are finite numbers of at least 0")
        for name, least in (("task_classes", 2), ("task_images", 1), ("task_tests", 1)):
            number = getattr(self, name)
            if number is None and self.dataset == TASKS:
                raise InputError(f"dataset: {TASKS} without {name}; sweeps/deformation.py has these tasks")
            if (number is None) == (self.dataset == TASKS):
                allowed = f"whole numbers of at least {least}" if number is None else f"none but of {TASKS}"
                raise InputError(f"{name}: {number}, allowed are {allowed}")
            if number is not None and number < least:
                raise InputError(f"{name}: {number}, allowed are whole numbers of at least {least}")
        if self.dataset == TASKS:
            if strength is None:
                raise InputError(f"deformation_strength: None, allowed with {TASKS} are numbers of at least 0")
            for name in ("folds", "train_images"):
                if getattr(self, name) is not None:
                    raise InputError(f"{name}: {getattr(self, name)}, allowed with {TASKS} is none")
        if self.crop < 0:
            raise InputError(f"crop: {self.crop}, allowed are whole numbers of at least 0")
        if self.padding not in get_args(Padding):
            raise InputError(f"padding: {self.padding!r}, allowed are {', '.join(get_args(Padding))}")
        if self.scaling not in get_args(Scaling):
            raise InputError(f"scaling: {self.scaling!r}, allowed are {', '.join(get_args(Scaling))}")

    def each_fold(self) -> list[DataConfig]:
        """The configurations of all folds; this one alone where there are none."""
        if self.folds is None:
            return [self]
        return [dataclasses.replace(self, fold=fold) for fold in range(self.folds)]

    def check_size(self, size: int) -> None:
        """Raise `ValueError` if images of `size` pixels are too small for the crops."""
        if self.crop >= size:
            raise InputError(f"crop: {self.crop} pixels, allowed are fewer than the image's {size}")


def stratified(labels: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """Indices of `number` images in rising order, each class in proportion (largest remainders), by a fixed seed."""
    draw = np.random.RandomState(seed)  # the legacy generator: its streams never change
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * (number / len(labels))
    take = np.floor(exact).astype(int)
    by_remainder = np.argsort(-(exact - take), kind="stable")
    take[by_remainder[: number - take.sum()]] += 1
    chosen = [draw.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def check_folds(config: DataConfig, rarest: int) -> None:
    """Raises `InputError` for more folds than the rarest class has images: some would be tested without it."""
    if config.folds is not None and config.folds > rarest:
        raise InputError(
            f"folds: {config.folds}, allowed are at most the {rarest} images of the rarest class of {config.dataset}"
        )


def split_indices(labels: NDArray[np.int64], config: DataConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and the validation images among the images that are not for testing, each in a fixed
    random order, so that the first n of a split are a fair sample of it. Validation is empty with `validation` 0."""
    everything = np.arange(len(labels), dtype=np.int64)
    number = round(config.validation * len(labels))
    if config.validation and not 0 < number < len(labels):
        raise InputError(
            f"validation: {config.validation} of {len(labels)} images are {number}, allowed are 0 (the test split "
            "serves as validation split) and shares that give both splits at least one image"
        )
    held = stratified(labels, number, VALIDATION_SEED)
    train = np.setdiff1d(everything, held)
    if config.train_images is not None:
        if config.train_images > len(train):
            raise InputError(
                f"train_images: {config.train_images}, {config.dataset} has {len(train)} outside its validation split"
            )
        train = train[stratified(labels[train], config.train_images, SUBSET_SEED)]
    return shuffled(train), shuffled(held)


def random_labels(number: int, classes: int) -> NDArray[np.int64]:
    """Uniform random labels (Ruderman et al. 2018, Section 5; Zhang et al. 2017), by a fixed seed."""
    return np.random.RandomState(LABEL_SEED).randint(0, classes, number).astype(np.int64)


def fold_splits(labels: NDArray[np.int64], config: DataConfig) -> tuple[NDArray[np.int64], ...]:
    """Indices of the training, the validation and the test images of the configuration's fold among all images, those
    of both the data set's splits, each in a fixed random order. [reading] The papers say "stratified cross-validation"
    and no more: scikit-learn's `StratifiedKFold`, shuffled by a fixed seed that is not the trial's, so that every
    method and seed has the same folds; a validation split is held out of the other folds as it is without folds."""
    from sklearn.model_selection import StratifiedKFold  # here, as it takes a second to import

    assert config.folds is not None
    assert config.fold is not None
    check_folds(config, int(np.unique(labels, return_counts=True)[1].min()))
    folds = StratifiedKFold(config.folds, shuffle=True, random_state=FOLD_SEED)
    rest, test = list(folds.split(labels, labels))[config.fold]
    train, held = split_indices(labels[rest], config)
    return rest[train], rest[held], shuffled(test)


def shuffled(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.random.RandomState(ORDER_SEED).permutation(indices)
