"""Makes the samples of this folder from the whole sets: `python -m tests.data.sample FOLDER`, which has them in
`MNIST/raw/*.gz` and `cifar10-jpeg/*.parquet`; prints what test_data.py compares with."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
MNIST = {"train": 600, "t10k": 200}
CIFAR10 = {"train": 200, "test": 100}


def mnist(source: Path) -> None:
    """The first images and labels of each file, bytes as they are, behind a header with their number."""
    folder = HERE / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for split, number in MNIST.items():
        for kind, size, head in (("images-idx3", 28 * 28, 16), ("labels-idx1", 1, 8)):
            name = f"{split}-{kind}-ubyte.gz"
            content = gzip.decompress((source / "MNIST" / "raw" / name).read_bytes())
            kept = content[head : head + number * size]
            content = content[:4] + struct.pack(">I", number) + content[8:head] + kept
            (folder / name).write_bytes(gzip.compress(content, mtime=0))
            values = np.frombuffer(kept, np.uint8)
            if size == 1:
                print(name, np.bincount(values).tolist())
            else:
                print(name, round(float(values.mean() / 255), 4), round(float(values.std() / 255), 4))


def cifar10(source: Path) -> None:
    """The first rows of each file with their schema, class names included."""
    folder = HERE / "cifar10-jpeg"
    folder.mkdir(exist_ok=True)
    for split, number in CIFAR10.items():
        table = pq.ParquetFile(source / "cifar10-jpeg" / f"{split}.parquet").read_row_group(0).slice(0, number)
        pq.write_table(table, folder / f"{split}.parquet", compression="zstd", write_statistics=False)
        print(split, np.bincount(table["label"].to_numpy()).tolist())


if __name__ == "__main__":
    mnist(Path(sys.argv[1]))
    cifar10(Path(sys.argv[1]))
