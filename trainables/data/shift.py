"""Other data sets of the same classes, to test on what was trained here: distribution shift.

Of a folder with train/ and test/ the test part is taken, of other sets the test split. [reading] Of a folder without,
all images: nothing is trained on them. Images are resized and scaled as those that were trained on, and have their
channels. Classes are matched by their names; by their numbers where a set has none but those, as many Parquet files and
`digits`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.command_line import InputError
from trainables.data.configuration import DataConfig
from trainables.data.folders import class_folder
from trainables.data.images import Images, Split
from trainables.data.memory import fits
from trainables.data.pictures import read_files
from trainables.data.sources import DataInfo, describe, identify, load, parse_spec
from trainables.data.streamed import StreamedImages

Names = tuple[str, ...]
LISTED = 20


def check_others(spec: str, others: Sequence[str], root: str, exclude: Sequence[str] = ()) -> None:
    """Raise `InputError` where the classes of a set in `others` are not those of `spec`, as far as is known without
    loading them: names, of named sets the number; or where it is `spec`."""
    if not others:
        return
    here = describe(spec, root, exclude)
    names = _class_names(here)
    for other in others:
        there = describe(other, root, exclude)
        if there.name == here.name:
            raise InputError(f"shift: {other} is what is trained on, allowed are other data sets")
        found = _class_names(there)
        if isinstance(names, tuple) and isinstance(found, tuple):
            match(names, found, spec, other)
        else:
            number, others_number = (part if isinstance(part, int) else len(part) for part in (names, found))
            _same_number(number, others_number, spec, other)


def load_others(
    data: Sequence[Images | StreamedImages], spec: str, others: Sequence[str], root: str, exclude: Sequence[str] = ()
) -> None:
    """Load the other sets once and keep them in `others` of each of `data`, the folds of `spec`, by their name in the
    record.

    Raises `InputError` where classes do not match, and what `load` raises.
    """
    for other in others:
        name = identify(other, root, exclude)
        if name == data[0].name:
            raise InputError(f"shift: {other} is what is trained on, allowed are other data sets")
        loaded = _load(data[0], spec, other, root, name, exclude)
        for fold in data:
            fold.others[name] = dataclasses.replace(loaded, mean=fold.mean, std=fold.std)


def _load(
    data: Images | StreamedImages, spec: str, other: str, root: str, name: str, exclude: Sequence[str]
) -> Images | StreamedImages:
    size, channels = data.evaluation_size, data.channels
    config = DataConfig(
        name,
        image_size=size,
        validation=0.0,
        scaling=data.config.scaling,
        channels=channels,
        exclude=tuple(exclude),
    )
    place = parse_spec(other)

    def streamed(test: tuple[list[str], NDArray[np.int64]], as_stored: bool = False) -> StreamedImages:
        splits = {"train": test, "validation": test, "test": test}
        scale = {"mean": data.mean, "std": data.std, "channels": channels, "as_stored": as_stored}
        return StreamedImages(config, data.class_names, splits, size=size, **scale)  # type: ignore[arg-type]

    if place.kind == "folder":
        folder = class_folder(place.path, exclude)
        parts = [folder.test] if folder.divided else [folder.train, folder.test]
        files = [file for part in parts for file in part[0]]
        order = match(data.class_names, tuple(folder.classes), spec, other)
        labels = order[np.concatenate([part[1] for part in parts])]
        if isinstance(data, StreamedImages) or not fits(len(files), channels, size):
            return streamed((files, labels))
        images, labels = read_files(files, labels, size, channels)
        return _as_trained(data, config, images, labels)
    found = load(other, root, config)
    order = match(data.class_names, found.class_names, spec, other)
    if isinstance(found, StreamedImages):
        paths, labels = found.files["test"]
        return streamed((paths, order[labels]), found.as_stored)
    return _as_trained(data, config, found.test.images, order[found.test.labels])


def _as_trained(
    data: Images | StreamedImages, config: DataConfig, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Images:
    test = Split(images, labels)
    return Images(config, data.class_names, test, test, test, mean=data.mean, std=data.std)


def match(names: Names, others: Names, spec: str, other: str) -> NDArray[np.int64]:
    """For each class of `others` its number in `names`.

    Raises `InputError` that lists the classes that only one of the two has.
    """
    if _are_numbers(names) or _are_numbers(others):
        _same_number(len(names), len(others), spec, other)
        return np.arange(len(others), dtype=np.int64)
    unknown, lacking = sorted(set(others) - set(names)), sorted(set(names) - set(others))
    if unknown or lacking:
        parts = [f"has {_listed(unknown)}, which {spec} has not"] if unknown else []
        parts += [f"lacks {_listed(lacking)}"] if lacking else []
        raise InputError(f"shift: {other} {', and '.join(parts)}; allowed are sets of the same classes")
    return np.array([names.index(name) for name in others], dtype=np.int64)


def _same_number(number: int, others: int, spec: str, other: str) -> None:
    if number != others:
        raise InputError(f"shift: {other} has {others} classes, allowed are the {number} of {spec}")


def _are_numbers(names: Names) -> bool:
    return names == tuple(str(number) for number in range(len(names)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _class_names(info: DataInfo) -> Names | int:
    """The number of classes of named sets, all of whose names are known once they are loaded."""
    return info.class_names if len(info.class_names) == info.classes else info.classes
