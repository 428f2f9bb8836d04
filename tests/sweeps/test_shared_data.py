"""Data on S3 are loaded by the node, once, and the record is the one that data of the driver's own give."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from PIL import Image
from sklearn.datasets import load_digits

from analysis.records import read_sweep
from tests.sweeps.driving import finish, results, start


def _write(folder: str, fs: s3fs.S3FileSystem | None = None) -> None:
    digits = load_digits()
    for split, rows in (("train", slice(0, 400)), ("test", slice(400, 600))):
        pictures = []
        for pixels in np.rint(digits.images[rows] * (255 / 16)).astype(np.uint8):
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "png")
            pictures.append({"bytes": content.getvalue(), "path": ""})
        table = pa.table({"image": pictures, "label": digits.target[rows]})
        pq.write_table(table, f"{folder}/{split}.parquet", filesystem=fs)


@pytest.mark.long
@pytest.mark.ray
def test_data_on_s3_are_loaded_by_the_node(s3: str, s3_endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    _write(str(tmp_path / "images"))
    fs = s3fs.S3FileSystem(endpoint_url=s3_endpoint, key="test", secret="test")
    fs.put(str(tmp_path / "images"), "bucket/images", recursive=True)
    flags = [
        "--alpha",
        "1",
        "--interval",
        "1",
        "--variant",
        "target",
        "--seeds",
        "2",
        "--epochs",
        "2",
        "--initialisations",
        "2",
    ]
    for name, dataset in (("here", f"parquet:{tmp_path}/images"), ("s3", "parquet:s3://bucket/images")):
        temporary = tmp_path / f"tmp-{name}"
        temporary.mkdir()
        # Ray's socket paths must stay under 107 bytes
        environment = {"TMPDIR": str(temporary), "RAY_TMPDIR": os.environ.get("RAY_TMPDIR", "/tmp")}
        process = start(tmp_path / name, *flags, "--dataset", dataset, env=environment)
        code, _, err = finish(process)
        assert code == 0, err
        loaded = list((temporary / f"spatial-sweeps-{os.getuid()}").glob("*/whole"))
        assert len(loaded) == (name == "s3")
    assert set(read_sweep(str(tmp_path / "s3" / "pilcro")).trials["status"].to_pylist()) == {"completed"}
    here, there = results(tmp_path / "here"), results(tmp_path / "s3")
    assert all(there[table].equals(here[table]) for table in here)


@pytest.mark.long
@pytest.mark.ray
def test_data_that_no_node_can_decode(s3: str, s3_endpoint: str, tmp_path: Path) -> None:
    """Nothing is recorded as failed: the data can be mended, and the same command goes on."""
    (tmp_path / "images").mkdir()
    _write(str(tmp_path / "images"))
    test = pq.read_table(tmp_path / "images" / "test.parquet").to_pylist()
    # its head, which the driver has looked at, is whole
    test[7]["image"]["bytes"] = test[7]["image"]["bytes"][:60]
    pq.write_table(pa.Table.from_pylist(test), tmp_path / "images" / "test.parquet")
    fs = s3fs.S3FileSystem(endpoint_url=s3_endpoint, key="test", secret="test")
    fs.put(str(tmp_path / "images"), "bucket/images", recursive=True)
    flags = [
        "--alpha",
        "1",
        "--interval",
        "1",
        "--variant",
        "curvature",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--initialisations",
        "1",
    ]
    process = start(tmp_path / "results", *flags, "--dataset", "parquet:s3://bucket/images")
    code, _, err = finish(process)
    assert code == 1, err
    told = [line for line in err.splitlines() if line.startswith("not finished")]
    assert len(told) == 2, err
    assert all("cannot load its data: InputError: bucket/images/test.parquet" in line for line in told), err
    assert not (tmp_path / "results" / "pilcro" / "trials").exists()
