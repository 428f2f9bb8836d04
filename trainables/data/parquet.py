"""Parquet files of images in Hugging Face's layout, columns image {bytes, path} and label; local or on S3."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.command_line import InputError
from analysis.lazily import lazily
from analysis.storage import open_place
from trainables.data.configuration import DataConfig
from trainables.data.memory import check_memory
from trainables.data.pictures import FOLDER_SIZE, decode, in_threads, one_line
from trainables.data.splits import InMemory

pq = lazily("pyarrow.parquet")


def _storage_errors() -> tuple[type[Exception], ...]:
    """What may be raised by storage, S3's library imported where something was raised."""
    from botocore.exceptions import BotoCoreError

    return OSError, BotoCoreError


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        return open_place(path)
    except InputError as error:
        raise InputError(f"dataset: parquet:{error}") from None


def parquet_files(path: str) -> dict[str, list[str]]:
    """Files of the train and the test split, sorted by name."""
    fs, inner = _filesystem(path)
    try:
        entries = sorted(entry for entry in fs.find(inner) if entry.endswith(".parquet"))
    except _storage_errors() as error:
        raise InputError(f"dataset: {path} cannot be read ({one_line(error)})") from None
    base = {entry: entry.rsplit("/", 1)[-1] for entry in entries}
    found = {"train": [entry for entry in entries if base[entry].startswith("train")]}
    for prefix in ("test", "validation", "val"):
        found.setdefault("test", [])
        found["test"] = found["test"] or [entry for entry in entries if base[entry].startswith(prefix)]
    for split, files in found.items():
        if not files:
            raise InputError(f"dataset: no {split}*.parquet in {path}; it needs train*.parquet and test*.parquet")
    return found


def _table(path: str, file: str, columns: list[str]) -> pa.Table:
    fs, _ = _filesystem(path)
    try:
        with fs.open(file, "rb") as opened:
            table = pq.read_table(opened, columns=columns)
    except (pa.ArrowException, *_storage_errors()) as error:
        raise InputError(
            f"dataset: {file}: no readable Parquet file with columns image, label ({one_line(error)})"
        ) from None
    for column in ("image", "label"):
        if any(name.split(".")[0] == column for name in columns) and column not in table.column_names:
            raise InputError(f"dataset: {file}: no column {column}; the layout is image {{bytes, path}}, label")
    return table


def parquet_labels(path: str, files: Sequence[str]) -> NDArray[np.int64]:
    """The labels of all rows of some files. Raises `InputError` where they are not 0, 1, …."""
    parts = [_table(path, file, ["label"])["label"] for file in files]
    if any(part.null_count or not pa.types.is_integer(part.type) for part in parts):
        raise InputError(f"dataset: {path}: label has to be whole numbers without nulls")
    labels = np.concatenate([part.to_numpy() for part in parts]).astype(np.int64)
    if len(labels) == 0 or labels.min() < 0:
        raise InputError(f"dataset: {path}: labels have to be 0, 1, …, and at least one")
    return labels


def first_image(path: str, file: str) -> bytes:
    """The bytes of a file's first image."""
    fs, _ = _filesystem(path)
    try:
        with fs.open(file, "rb") as opened:
            batch = next(pq.ParquetFile(opened).iter_batches(batch_size=1, columns=["image"]))
        content: bytes = batch.column(0)[0].as_py()["bytes"]
    except (pa.ArrowException, KeyError, IndexError, TypeError, StopIteration, *_storage_errors()) as error:
        raise InputError(f"dataset: {file}: no column image {{bytes, path}} with images ({one_line(error)})") from None
    return content


def fingerprint_of_parquet(path: str) -> str:
    """Over the files' names, sizes and footers, which hold counts and statistics of all columns."""
    digest = hashlib.sha256()
    files = parquet_files(path)
    fs, _ = _filesystem(path)
    for file in [*files["train"], *files["test"]]:
        size = fs.info(file)["size"]
        with fs.open(file, "rb") as opened:
            opened.seek(max(0, size - 65536))
            end = opened.read()
        footer = int.from_bytes(end[-8:-4], "little") + 8
        digest.update(f"{file.rsplit('/', 1)[-1]}\0{size}\n".encode() + end[-footer:])
    return digest.hexdigest()[:8]


def read_parquet(path: str, config: DataConfig) -> InMemory:
    """All images and labels, as they are divided into files train* and test*, validation* or val*."""
    files = parquet_files(path)
    first = decode(first_image(path, files["train"][0]), None, path)
    mode = "L" if first.shape[0] == 1 else "RGB"
    size = config.image_size or (first.shape[1] if first.shape[1] == first.shape[2] else FOLDER_SIZE)
    labels = {split: parquet_labels(path, names) for split, names in files.items()}
    check_memory(path, sum(map(len, labels.values())), first.shape[0], size)
    arrays = {}
    for split, names in files.items():
        images = []
        for name in names:
            column = _table(path, name, ["image"])["image"]
            # a row or its bytes may be null: then there is no image to read, which is said where it is decoded
            contents = [(entry.as_py() or {"bytes": None})["bytes"] for chunk in column.chunks for entry in chunk]
            names_of_images = [f"{name}: image {row}" for row in range(len(contents))]

            def read(content: bytes, shown: str) -> NDArray[np.uint8]:
                return decode(content, mode, shown, size)

            images += in_threads(read, contents, names_of_images)
        arrays[split] = np.stack(images), labels[split]
    classes = 1 + max(int(part.max()) for part in labels.values())
    return InMemory([str(label) for label in range(classes)], arrays["train"], arrays["test"])
