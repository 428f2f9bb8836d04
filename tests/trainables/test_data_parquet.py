"""Parquet sets as they are found on the hub: configurations, forms of names, columns, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from analysis.command_line import InputError
from tests.trainables.test_data import as_set, in_memory, pictures, png, write_folder
from tests.trainables.test_data_files import rows, write
from trainables.data import describe, identify


def test_backups_and_other_folders_are_not_merged(tmp_path: Path) -> None:
    items = pictures(30)
    spec = write(tmp_path / "x", {"train": rows(items[:20]), "test": rows(items[20:]), "train_backup": rows(items)})
    (tmp_path / "x" / "README.md").write_text("")
    info = describe(spec, "")
    assert (info.train_images, info.test_images) == (20, 10)
    assert info.skipped == (
        "files that are no Parquet files: 1 (README.md)",
        "Parquet files of no split by their names: 1 (train_backup.parquet)",
    )
    write(tmp_path / "x" / ".cache", {"train": rows(items)})
    assert describe(spec, "").train_images == 20
    write(tmp_path / "x" / "old", {"train": rows(items[5:]), "test": rows(items[:5])})
    with pytest.raises(
        InputError, match=rf"has 2 configurations, allowed is one: {spec}\?config=NAME with one of \., old"
    ):
        describe(spec, "")
    assert describe(f"{spec}?config=old", "").train_images == 25
    assert describe(f"{spec}?config=.", "").name == info.name
    assert describe(f"{spec}/old", "").train_images == 25
    assert describe(spec, "", ("old",)).name == info.name
    with pytest.raises(InputError, match=r"config 'new' of .*, allowed are \., old"):
        describe(f"{spec}?config=new", "")


def test_forms_of_names(tmp_path: Path) -> None:
    items = pictures(30)
    spec = write(
        tmp_path / "a",
        {
            "default/train/0000": rows(items[:10]),
            "default/train/0001": rows(items[10:20]),
            "default/test/0000": rows(items[20:]),
        },
    )
    assert describe(spec, "").train_images == 20
    assert identify(f"{spec}?config=default", "") == identify(spec, "")
    spec = write(
        tmp_path / "b",
        {
            "Train-00000-of-00002-1a2b": rows(items[:10]),
            "Train-00001-of-00002-3c4d": rows(items[10:20]),
            "val_part_1": rows(items[20:]),
        },
    )
    assert (describe(spec, "").train_images, describe(spec, "").test_images) == (20, 10)
    (tmp_path / "b" / "Train-00001-of-00002-3c4d.parquet").unlink()
    with pytest.raises(InputError, match="1 such files are there, allowed are all 2 parts"):
        describe(spec, "")
    spec = write(tmp_path / "c", {"train": rows(items), "train-0": rows(items), "test": rows(items)})
    with pytest.raises(
        InputError, match=r"train\.parquet.* beside train.*two forms of one split|train-0\.parquet beside"
    ):
        describe(spec, "")


def named(table: pa.Table, column: str, names: list[str]) -> pa.Table:
    """With a ClassLabel in its metadata, as the library `datasets` writes it."""
    features = {"img": {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_columns_and_names_of_the_hub(tmp_path: Path) -> None:
    """CIFAR-100's: `img`, `fine_label`, `coarse_label`, named by the metadata."""
    items = pictures(24, classes=4)

    def table(part: list[Any]) -> pa.Table:
        found = rows(part, "img", "fine_label")
        coarse = pa.array([label // 2 for label in found["fine_label"].to_pylist()])
        return named(found.append_column("coarse_label", coarse), "fine_label", ["ape", "bee", "cat", "dog"])

    spec = write(tmp_path / "x", {"train": table(items[:16]), "test": table(items[16:])})
    data = in_memory(spec, validation=0.0)
    assert data.class_names == ("ape", "bee", "cat", "dog")
    assert as_set(data.test) == {(array.transpose(2, 0, 1).tobytes(), label) for array, label in items[16:]}
    coarse = in_memory(f"{spec}?label=coarse_label&image=img", validation=0.0)
    assert as_set(coarse.test) == {(array.transpose(2, 0, 1).tobytes(), label // 2) for array, label in items[16:]}
    assert (coarse.class_names, coarse.name == data.name) == (("0", "1"), False)
    with pytest.raises(InputError, match="no column kind, it has img, fine_label, coarse_label"):
        describe(f"{spec}?label=kind", "")


def test_strings_raw_bytes_and_gaps(tmp_path: Path) -> None:
    items = [(array, ["cow", "ant", "bee"][i % 3]) for i, (array, _) in enumerate(pictures(18))]
    spec = write(tmp_path / "a", {"train": rows(items[:12], label="labels"), "test": rows(items[12:], label="labels")})
    data = in_memory(spec, validation=0.0)
    assert data.class_names == ("ant", "bee", "cow")
    assert as_set(data.test) == {
        (array.transpose(2, 0, 1).tobytes(), ["ant", "bee", "cow"].index(name)) for array, name in items[12:]
    }
    raw = pa.table({"image": [png(array) for array, _ in items], "label": [(3, 7, 5)[i % 3] for i in range(18)]})
    spec = write(tmp_path / "b", {"train": raw, "test": raw.slice(0, 6)})
    info = describe(spec, "")
    assert (info.classes, info.class_names) == (3, ("3", "5", "7"))
    assert set(in_memory(spec).train.labels.tolist()) == {0, 1, 2}
    spec = write(tmp_path / "c", {"train": raw, "test": raw.set_column(1, "label", pa.array([9] * 18))})
    with pytest.raises(InputError, match="test has classes that train does not have: 9"):
        describe(spec, "")


@pytest.mark.parametrize("label", ["label", None])
def test_a_test_split_without_labels_beside_a_validation_split(label: str | None, tmp_path: Path) -> None:
    items = pictures(30)
    test = rows([(array, -1) for array, _ in items[20:]], label=label)
    spec = write(tmp_path, {"train": rows(items[:14]), "validation": rows(items[14:20]), "test": test})
    info = describe(spec, "")
    assert (info.train_images, info.validation_images, info.test_images) == (14, 0, 6)
    assert info.skipped == ("images of a test split without labels: 10",)
    assert as_set(in_memory(spec).test) == {
        (array.transpose(2, 0, 1).tobytes(), label) for array, label in items[14:20]
    }
    write(tmp_path, {"test": rows(items[20:])})
    data = in_memory(spec)
    assert (data.count("train"), data.count("validation"), data.count("test")) == (14, 6, 10)
    write(tmp_path, {"test": rows([(array, -(i % 2)) for i, (array, _) in enumerate(items[20:])])})
    with pytest.raises(InputError, match="5 of 10 labels of the test split are missing or negative"):
        describe(spec, "")


def test_a_path_with_a_question_mark_is_a_path(tmp_path: Path) -> None:
    items = pictures(12)
    spec = write(tmp_path / "x?config=old", {"train": rows(items), "test": rows(items[:4])})
    assert describe(spec, "").train_images == 12
    write_folder(tmp_path / "is?this", items)
    assert describe(f"folder:{tmp_path}/is?this", "").classes == 2
    for text, why in (
        ("x?split=a", "'split=a', allowed after [?] are config=NAME&image=NAME&label=NAME"),
        ("x?config=", "'config='"),
    ):
        with pytest.raises(InputError, match=why):
            describe(f"parquet:{tmp_path}/{text}", "")
