"""CIFAR-10 as grey images of 28 pixels, in the image layout of `parquet:` data sets: what MNIST is not.

python analysis/reproductions/gradreg-mnist/grey_cifar.py DATA/cifar10-jpeg images/grey-cifar
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGES = {"train": 10_000, "test": 2_000}


def grey(content: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("L").resize((28, 28), Image.Resampling.BILINEAR).save(out, "PNG")
    return out.getvalue()


def main(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for split, number in IMAGES.items():
        table = pq.read_table(source / f"{split}.parquet").slice(0, number)
        images = [{"bytes": grey(row["bytes"]), "path": None} for row in table["image"].to_pylist()]
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        columns = {"image": pa.array(images, kind), "label": table["label"].combine_chunks()}
        path = target / f"{split}.parquet"
        pq.write_table(pa.table(columns), path)
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
