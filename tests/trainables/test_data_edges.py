"""Data sets at their edges: what would otherwise be lost, leaked or ignored in silence is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainables.test_data import in_memory, pictures, png, write_folder, write_mnist, write_parquet
from trainables.data import DataConfig, load, memory


def refused(match: str, spec: str, root: str | Path = "unused", **options: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(spec, str(root), DataConfig(spec, **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("validation", [0.02, 0.99])
def test_a_validation_split_is_never_empty_nor_everything(validation: float, tmp_path: Path) -> None:
    """0.02 of 16 images rounds to none, and the test split would have stood in for it unasked."""
    write_folder(tmp_path, pictures(20))
    refused("validation", f"folder:{tmp_path}", validation=validation)
    assert in_memory(f"folder:{tmp_path}", validation=0.1).count("validation") == 2


@pytest.mark.parametrize("option", [{"zoom": True}, {"evaluation_size": 24}])
def test_options_of_streamed_sets_are_refused_for_a_folder_in_memory(option: dict[str, Any], tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(20))
    refused(f"^{next(iter(option))}: ", f"folder:{tmp_path}", **option)


def test_resized_sets_that_do_not_fit_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    refused("cifar10.*60000 images of 224 pixels", "cifar10", tmp_path, image_size=224)
    assert not list(tmp_path.iterdir())


def test_parquet_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on both splits together: 2 × 20 images of 12² pixels and 3 channels."""
    for split in ("train", "test"):
        write_parquet(str(tmp_path / f"{split}.parquet"), pictures(20))
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 40 * 3 * 144)
    in_memory(f"parquet:{tmp_path}")
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 40 * 3 * 144 - 1)
    refused("40 images of 12 pixels", f"parquet:{tmp_path}")


@pytest.mark.parametrize("content", [b"garbage", b""])
def test_damaged_idx_files(content: bytes, tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    refused("damaged", "mnist", tmp_path)


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "x.png"}])
def test_null_images_in_parquet(image: Any, tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(array), "path": ""}, "label": label} for array, label in pictures(6)]
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist([*rows, {"image": image, "label": 0}]), tmp_path / f"{split}.parquet")
    refused(r"train\.parquet: image 6: no readable image", f"parquet:{tmp_path}")


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    deep = [((array.astype(np.uint16) * 257), label) for array, label in pictures(10, channels=1)]
    write_folder(tmp_path / "f", deep)  # type: ignore[arg-type]
    refused("8 bits a channel", f"folder:{tmp_path / 'f'}")
    for split in ("train", "test"):
        write_parquet(str(tmp_path / "p" / f"{split}.parquet"), deep)  # type: ignore[arg-type]
    refused("8 bits a channel", f"parquet:{tmp_path / 'p'}")
