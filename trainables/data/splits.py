"""Data sets as they are read, whole or as names of files, and how a configuration divides them into splits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data.configuration import TASK_SEED, DataConfig, fold_splits, shuffled, split_indices
from trainables.data.folders import Folder
from trainables.data.images import Images, Moved, Split
from trainables.data.pictures import Arrays
from trainables.data.streamed import StreamedImages


@dataclass
class InMemory:
    """A data set as it was read: names of its classes, the images to train on, those to test on, and those to validate
    on, if it has such of its own: they are the validation split whatever share `validation` is."""

    class_names: Sequence[str]
    pool: Arrays
    test: Arrays
    moved: Moved = field(default_factory=Moved)
    validation: Arrays | None = None

    def split(self, config: DataConfig) -> Images:
        """Its splits, each in its fixed order; a fold's are rows of all images, which the folds have in common."""
        if config.folds is not None:
            return self._fold(config)
        images, labels = self.pool
        train, held = own_or_drawn(labels, config, self.validation is not None)
        order = shuffled(np.arange(len(self.test[1])))
        test = Split(np.ascontiguousarray(self.test[0][order]), self.test[1][order])
        validation = Split(np.ascontiguousarray(images[held]), labels[held]) if len(held) else test
        rows = len(labels) + order
        if self.validation is not None:
            own = shuffled(np.arange(len(self.validation[1])))
            validation = Split(np.ascontiguousarray(self.validation[0][own]), self.validation[1][own])
            rows = rows + len(own)
        training = Split(np.ascontiguousarray(images[train]), labels[train])
        return Images(config, tuple(self.class_names), training, validation, test, test_rows=rows)

    def _fold(self, config: DataConfig) -> Images:
        images, labels = self._together
        splits = fold_splits(labels, config)
        train, held, test = (Split(images, labels[rows], rows) for rows in splits)
        validation = held if len(held.labels) else test
        names = tuple(self.class_names)
        return Images(config, names, train, validation, test, moved=self.moved, test_rows=splits[-1])

    @functools.cached_property
    def _together(self) -> Arrays:
        """All images, of which there is one array however many folds: also in Ray's store and on a device."""
        parts = [part for part in (self.pool, self.validation, self.test) if part is not None]
        return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def own_or_drawn(
    labels: NDArray[np.int64], config: DataConfig, own: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the images to train on and of those held out, of which there are none where validation images are the
    set's own."""
    return split_indices(labels, dataclasses.replace(config, validation=0.0) if own else config)


@dataclass
class Tasks:
    """Tasks that require stability to deformation (Ruderman et al. 2018, Section 4.3): each class is one image of
    MNIST's training split, of any digit, and its examples are deformations of it.

    [reading] The paper does not say how many classes and examples there are, nor what "strength C" is: here the most
    that a control point of 3×3 is displaced in each direction, in pixels.
    """

    images: NDArray[np.uint8]

    def split(self, config: DataConfig) -> Images:
        """Its splits. An example is a row of the class's image: how it is deformed is drawn where it is shown."""
        classes, number, tests = config.task_classes, config.task_images, config.task_tests
        assert classes is not None
        assert number is not None
        assert tests is not None
        if classes > len(self.images):
            raise InputError(f"task_classes: {classes}, allowed are at most the {len(self.images)} images of MNIST")
        held = round(config.validation * number)
        if config.validation and not 0 < held < number:
            least = 1 / number
            raise InputError(
                f"validation: {config.validation} of {number} examples a class are {held}, allowed are 0 and shares "
                f"that leave one of each, from {least:.2g} to {1 - least:.2g}"
            )
        images = self.images[np.random.RandomState(TASK_SEED).permutation(len(self.images))[:classes]]

        def examples(each: int) -> Split:
            rows = shuffled(np.repeat(np.arange(classes, dtype=np.int64), each))
            return Split(images, rows, rows)

        test = examples(tests)
        names = tuple(str(label) for label in range(classes))
        return Images(config, names, examples(number - held), examples(held) if held else test, test)


@dataclass
class Streamed:
    """A data set of files that are read during training, its own pixels a side, and its channels."""

    folder: Folder
    size: int
    channels: int
    as_stored: bool = False
    """Whether images are taken without regard to EXIF data and transparency."""

    def split(self, config: DataConfig) -> StreamedImages:
        """Its splits, each in its fixed order."""
        parts = self.folder.parts()
        paths = [path for part in parts.values() for path in part[0]]
        labels = np.concatenate([part[1] for part in parts.values()])
        number = {name: len(part[0]) for name, part in parts.items()}
        own = number.get("validation", 0)
        if config.folds is not None:
            train, held, test = fold_splits(labels, config)
        else:
            train, held = own_or_drawn(labels[: number["train"]], config, own > 0)
            if own:
                held = number["train"] + shuffled(np.arange(own))
            test = number["train"] + own + shuffled(np.arange(number["test"]))
        splits = {"train": train, "validation": held if len(held) else test, "test": test}
        files = {name: ([paths[i] for i in rows], labels[rows]) for name, rows in splits.items()}
        return StreamedImages(
            config,
            tuple(self.folder.classes),
            files,
            size=config.image_size or self.size,
            channels=self.channels,
            as_stored=self.as_stored,
        )
