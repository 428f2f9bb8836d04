"""Data sets as they are read, whole or as names of files, and how a configuration divides them into splits."""

from __future__ import annotations

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
    """A data set as it was read: names of its classes, the images that are not for testing, and those that are."""

    class_names: Sequence[str]
    pool: Arrays
    test: Arrays
    moved: Moved = field(default_factory=Moved)

    def split(self, config: DataConfig) -> Images:
        """Its splits, each in its fixed order; a fold's are rows of all images, which the folds have in common."""
        if config.folds is not None:
            return self._fold(config)
        images, labels = self.pool
        train, held = split_indices(labels, config)
        order = shuffled(np.arange(len(self.test[1])))
        test = Split(np.ascontiguousarray(self.test[0][order]), self.test[1][order])
        validation = Split(np.ascontiguousarray(images[held]), labels[held]) if len(held) else test
        training = Split(np.ascontiguousarray(images[train]), labels[train])
        rows = len(labels) + order
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
        (images, labels), (test_images, test_labels) = self.pool, self.test
        return np.concatenate([images, test_images]), np.concatenate([labels, test_labels])


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
    """A data set of files that are read during training, and its own pixels a side."""

    folder: Folder
    size: int

    def split(self, config: DataConfig) -> StreamedImages:
        """Its splits, each in its fixed order."""
        paths = [*self.folder.train[0], *self.folder.test[0]]
        labels = np.concatenate([self.folder.train[1], self.folder.test[1]])
        if config.folds is not None:
            train, held, test = fold_splits(labels, config)
        else:
            first = len(self.folder.train[0])
            train, held = split_indices(labels[:first], config)
            test = shuffled(np.arange(first, len(paths)))
        splits = {"train": train, "validation": held if len(held) else test, "test": test}
        files = {name: ([paths[i] for i in rows], labels[rows]) for name, rows in splits.items()}
        return StreamedImages(config, tuple(self.folder.classes), files, size=config.image_size or self.size)
