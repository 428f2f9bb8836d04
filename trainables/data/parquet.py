"""Parquet files of images as the Hugging Face hub has them, local or on S3.

Files are of a split by their names (`train.parquet`, `test-00000-of-00002.parquet`) or their folder's
(`train/0000.parquet`), and of a configuration by the folder that these lie in. Images are bytes, or `{bytes, path}`;
labels whole numbers, which a `ClassLabel` of the metadata names, or strings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.command_line import InputError
from analysis.lazily import lazily
from trainables.data.cache import remembered
from trainables.data.configuration import DataConfig
from trainables.data.contents import Contents, Survey, digest_of
from trainables.data.listing import SPLITS, File, Skipped, file_system, list_files, storage_errors
from trainables.data.memory import check_memory
from trainables.data.pictures import Arrays, as_array, in_threads, look, one_line, picture, square
from trainables.data.splits import InMemory

pq = lazily("pyarrow.parquet")

_IMAGES = ("image", "img")
_LABELS = ("label", "fine_label", "labels")
_NAMES = "|".join(SPLITS)
# train.parquet, train-0.parquet, train_part_3.parquet, train-00000-of-00002-1a2b3c.parquet
_PART = r"[-_.]?(?:part|shard|chunk)?[-_.]?(\d+)(?:-of-(\d+))?(?:-[0-9a-f]+)?"
_FILE = re.compile(rf"({_NAMES})(?:{_PART})?\.parquet", re.I)
_FOLDER = re.compile(rf"(?:partial-)?({_NAMES})", re.I)
_LAYOUT = "train.parquet and test.parquet, train-00000-of-00002.parquet, or train/0000.parquet"
_ROWS = 256


@dataclass(frozen=True)
class Choice:
    """What a spec says beside the path, after a ?: a configuration, the columns of image and label."""

    config: str | None = None
    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class ParquetSet:
    """The files of each split, train, validation and test, as far as there are any, sorted by name."""

    path: str
    choice: Choice
    splits: dict[str, list[File]]
    skipped: Skipped
    matched: tuple[str, ...]
    """The patterns of `exclude` that something matched."""

    @property
    def files(self) -> list[File]:
        return [file for files in self.splits.values() for file in files]


def parquet_set(path: str, choice: Choice, exclude: Sequence[str] = ()) -> ParquetSet:
    """The files of a data set. Raises `InputError` where they are not laid out so, for several configurations of which
    none is chosen, for files of one split that are named in two ways, and for missing parts of one."""
    listing = list_files(path, exclude)
    skipped = listing.skipped
    configs: dict[str, dict[str, list[tuple[str, File]]]] = {}
    for file in listing.files:
        found = _place(file.below)
        if found is not None:
            config, split, form = found
            configs.setdefault(config, {}).setdefault(split, []).append((form, file))
        elif file.below.endswith(".parquet"):
            skipped.add("Parquet files of no split by their names", file.below)
        else:
            skipped.add("files that are no Parquet files", file.below)
    if not configs:
        left_out = "; ".join(skipped.told())
        skipping = f", skipped are {left_out}" if left_out else ""
        raise InputError(f"dataset: no train*.parquet in {path}{skipping}; it needs {_LAYOUT}")
    splits = _chosen(path, configs, choice, skipped)
    for split in ("train", "test"):
        if split not in splits and not (split == "test" and "validation" in splits):
            raise InputError(f"dataset: no {split}*.parquet in {path}; it needs {_LAYOUT}")
    for parts in splits.values():
        _check_parts(parts)
    order: list[str] = [split for split in ("train", "validation", "test") if split in splits]
    files = {split: [file for _, file in splits[split]] for split in order}
    return ParquetSet(path, choice, files, skipped, listing.matched)


def _place(below: str) -> tuple[str, str, str] | None:
    """Configuration, split and form of the name of a file; None where it is of no split."""
    *folders, name = below.split("/")
    by_name = _FILE.fullmatch(name)
    by_folder = _FOLDER.fullmatch(folders[-1]) if folders else None
    form = f"{folders.pop()}/" if by_folder else ""
    if by_name:
        form += by_name[1] + ("-N" if by_name[2] else "") + (f"-of-{by_name[3]}" if by_name[3] else "")
        return "/".join(folders), SPLITS[by_name[1].lower()], form
    if by_folder and name.endswith(".parquet"):
        return "/".join(folders), SPLITS[by_folder[1].lower()], form
    return None


def _chosen(
    path: str, configs: dict[str, dict[str, list[tuple[str, File]]]], choice: Choice, skipped: Skipped
) -> dict[str, list[tuple[str, File]]]:
    """The files of the configuration chosen, or of the only one."""
    names = {config or ".": config for config in sorted(configs)}
    wanted = choice.config
    if wanted is None and len(names) > 1:
        raise InputError(
            f"dataset: {path} has {len(names)} configurations, allowed is one: parquet:{path}?config=NAME with one of "
            f"{', '.join(names)}"
        )
    # data/ is where the hub keeps the files of a set with one configuration
    by_last = {config.rsplit("/", 1)[-1]: config for config in configs}
    if wanted is not None and wanted not in names and wanted not in by_last:
        raise InputError(f"dataset: config {wanted!r} of {path}, allowed are {', '.join(names)}")
    taken = next(iter(configs)) if wanted is None else names.get(wanted, by_last.get(wanted, ""))
    for config, splits in configs.items():
        for parts in splits.values():
            for _, file in parts:
                if config != taken:
                    skipped.add("files of other configurations", file.below)
    return configs[taken]


def _check_parts(parts: Sequence[tuple[str, File]]) -> None:
    forms = {form: file.below for form, file in parts}
    if len(forms) > 1:
        one, other = list(forms.values())[:2]
        raise InputError(f"dataset: {one} beside {other}: two forms of one split, --exclude leaves one out")
    (form,) = forms
    _, _, number = form.partition("-of-")
    if number and len(parts) != int(number):
        file = parts[0][1].path
        raise InputError(f"dataset: {file}: {len(parts)} such files are there, allowed are all {int(number)} parts")


@contextlib.contextmanager
def _reading(file: File) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, *storage_errors()) as error:
        raise InputError(
            f"dataset: {file.path}: no readable Parquet file with images and labels ({one_line(error)})"
        ) from None


@dataclass(frozen=True)
class _Columns:
    """Names of the columns of image and label, and the labels' names in the metadata, if they have some."""

    image: str
    label: str | None
    """None: there is none, as of some sets' test images."""
    names: tuple[str, ...] = ()


def _columns(file: File, schema: pa.Schema, choice: Choice, *, labelled: bool) -> _Columns:
    features: dict[str, Any] = {}
    with contextlib.suppress(KeyError, ValueError, TypeError):
        features = dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}

    def one(what: str, asked: str | None, known: Sequence[str], kind: str) -> str | None:
        if asked is not None:
            known = (asked,)
        found = [name for name in known if name in schema.names]
        typed = [name for name in schema.names if kinds.get(name) == kind] if asked is None else []
        if found or len(typed) == 1:
            return (found or typed)[0]
        if what == "label" and not labelled:
            return None
        raise InputError(
            f"dataset: {file.path}: no column {' or '.join(known)}, it has {', '.join(schema.names)}; "
            f"parquet:PATH?{what}=NAME names the one with the {what}s"
        )

    image, label = one("image", choice.image, _IMAGES, "Image"), one("label", choice.label, _LABELS, "ClassLabel")
    assert image is not None
    kind = schema.field(image).type
    fields = [kind.field(index).name for index in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    if "bytes" not in fields and not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(f"dataset: {file.path}: {image} is {kind}, allowed are bytes and {{bytes, path}}")
    named = features.get(label or "")
    names = named.get("names") if isinstance(named, dict) else None
    return _Columns(image, label, tuple(map(str, names or ())))


def _batches(file: File, fs: Any, choice: Choice, *, labelled: bool) -> Iterator[tuple[list[bytes | None], pa.Array]]:
    """Contents of images and their labels as they are, some rows at a time; null labels where there is no column."""
    with _reading(file), fs.open(file.path, "rb") as opened:
        content = pq.ParquetFile(opened)
        columns = _columns(file, content.schema_arrow, choice, labelled=labelled)
        raw = not pa.types.is_struct(content.schema_arrow.field(columns.image).type)
        image = columns.image if raw else f"{columns.image}.bytes"
        wanted = [image] if columns.label is None else [image, columns.label]
        for batch in content.iter_batches(batch_size=_ROWS, columns=wanted):
            # a row or its bytes may be null: then there is no image, which is said where it is opened
            entries = batch.column(columns.image).to_pylist()
            contents = entries if raw else [entry and entry["bytes"] for entry in entries]
            labels = pa.nulls(len(contents)) if columns.label is None else batch.column(columns.label)
            yield contents, labels


def _open(found: ParquetSet) -> tuple[Any, _Columns]:
    """The file system, and the columns of the training split."""
    fs, _ = file_system(found.path)
    file = found.splits["train"][0]
    with _reading(file), fs.open(file.path, "rb") as opened:
        return fs, _columns(file, pq.read_schema(opened), found.choice, labelled=True)


def _values(labels: pa.Array, file: File) -> list[Any]:
    """Labels as whole numbers or strings. Raises `InputError` for others."""
    kind = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
    string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (string or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise InputError(f"dataset: {file.path}: labels are {kind}, allowed are whole numbers and strings")
    return [int(value) if isinstance(value, bool) else value for value in labels.to_pylist()]


def _read_labels(found: ParquetSet, labels: dict[str, list[Any]]) -> tuple[list[Any], dict[str, NDArray[np.int64]]]:
    """The values that are classes, in their order, and the labels of each split: a test split without any, beside a
    validation split, is left out. Raises `InputError` for missing ones, and for classes that nothing is trained on."""

    def missing(value: Any) -> bool:
        return value is None or (isinstance(value, int) and value < 0)

    if "validation" in labels and "test" in labels and all(map(missing, labels["test"])):
        labels = {split: values for split, values in labels.items() if split != "test"}
    for split, values in labels.items():
        number = sum(map(missing, values))
        if number or not values:
            raise InputError(
                f"dataset: {found.path}: {number} of {len(values)} labels of the {split} split are missing or "
                "negative, allowed are whole numbers from 0 and strings, one for each image"
            )
        if len({type(value) for value in values} | {type(labels["train"][0])}) > 1:
            raise InputError(f"dataset: {found.path}: labels are numbers and strings, allowed are either")
    classes = sorted(set(labels["train"]))
    for split, values in labels.items():
        unknown = sorted(set(values) - set(classes))
        if unknown:
            shown = ", ".join(map(str, unknown[:10])) + (", …" if len(unknown) > 10 else "")
            raise InputError(f"dataset: {found.path}: {split} has classes that train does not have: {shown}")
    number_of = {value: number for number, value in enumerate(classes)}
    return classes, {
        split: np.array([number_of[value] for value in values], dtype=np.int64) for split, values in labels.items()
    }


def contents_of_parquet(found: ParquetSet) -> Contents:
    """What is in it, by opening each image, or as it was found before.

    The fingerprint is eight digits of a hash of the classes' names, and in their order of each split's labels and
    images, whatever the files are called and however they are written. Raises `InputError` for an image that is none,
    named by its file and row.
    """
    what = ["parquet", found.path, found.choice.image, found.choice.label]
    splits = [[split, file.path] for split, files in found.splits.items() for file in files]
    return remembered(Contents, [*what, splits], found.files, lambda: _read(found))


def _read(found: ParquetSet) -> Contents:
    fs, columns = _open(found)
    looks: dict[str, list[Any]] = {}
    labels: dict[str, list[Any]] = {}
    for split, files in found.splits.items():
        looks[split], labels[split] = [], []
        for file in files:
            row = 0
            for contents, values in _batches(file, fs, found.choice, labelled=split == "train"):
                for content in contents:
                    looks[split].append((look(content, f"{file.path}: image {row}"), digest_of(content or b"")))
                    row += 1
                labels[split] += _values(values, file)
    classes, by_split = _read_labels(found, labels)
    names = _class_names(classes, columns)
    left_out = []
    for split in set(labels) - set(by_split):
        left_out.append(f"images of a {split} split without labels: {len(labels[split])}")
    survey = Survey()
    digest = hashlib.sha256(json.dumps(names).encode())
    for split, numbers in by_split.items():
        digest.update(f"\n{_role(split, by_split)}\n".encode() + numbers.astype("<i8").tobytes())
        for seen, own in looks[split]:
            digest.update(own)
            survey.add(_role(split, by_split), seen, own)
    rarest = int(np.unique(np.concatenate(list(by_split.values())), return_counts=True)[1].min())
    return survey.contents(digest.hexdigest()[:8], names, rarest, left_out)


def _class_names(classes: Sequence[Any], columns: _Columns) -> list[str]:
    def name(value: Any) -> str:
        return columns.names[value] if isinstance(value, int) and value < len(columns.names) else str(value)

    return [name(value) for value in classes]


def _role(split: str, present: dict[str, Any]) -> str:
    """What a split is for: validation images are those to test on where there are no others."""
    return "test" if split == "validation" and "test" not in present else split


def read_parquet(found: ParquetSet, config: DataConfig) -> InMemory:
    """All images and labels, by split."""
    contents = contents_of_parquet(found)
    size, channels = config.image_size or contents.size, config.channels or contents.channels
    check_memory(found.path, contents.number, channels, size)
    fs, columns = _open(found)
    arrays: dict[str, Any] = {}
    labels: dict[str, list[Any]] = {}
    for split, files in found.splits.items():
        arrays[split], labels[split] = [], []
        for file in files:

            def read(content: bytes | None, name: str) -> NDArray[np.uint8]:
                return as_array(square(picture(content, channels, name), size))

            row = 0
            for contents_of_rows, values in _batches(file, fs, found.choice, labelled=split == "train"):
                names = [f"{file.path}: image {row + index}" for index in range(len(contents_of_rows))]
                arrays[split] += in_threads(read, contents_of_rows, names)
                row += len(names)
                labels[split] += _values(values, file)
    classes, by_split = _read_labels(found, labels)
    parts: dict[str, Arrays] = {
        _role(split, by_split): (np.stack(arrays[split]), numbers) for split, numbers in by_split.items()
    }
    return InMemory(_class_names(classes, columns), parts["train"], parts["test"], validation=parts.get("validation"))
