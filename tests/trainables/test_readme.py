"""The folder's README: it names what there is, and its examples run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from trainables.data.configuration import DataConfig
from trainables.data.named import NAMED
from trainables.methods import METHODS
from trainables.metrics import METRICS
from trainables.models import MODELS

README = (Path(__file__).resolve().parents[2] / "trainables" / "README.md").read_text(encoding="utf-8")
PARTS = {part.partition("\n")[0]: part for part in README.split("\n## ")[1:]}


@pytest.mark.parametrize(
    ("part", "names"), [("Methods", METHODS), ("Metrics", METRICS), ("Networks", MODELS), ("Data", NAMED)]
)
def test_all_names_are_there(part: str, names: dict[str, Any]) -> None:
    table = "\n".join(row.split("|")[1] for row in PARTS[part].splitlines() if row.startswith("|"))
    assert set(re.findall(r"`([^`:\n]+)`", table)) == set(names)


def test_hyperparameters_and_numbers_are_those_of_the_code() -> None:
    rows = {row.split("|")[1].strip(): row for row in PARTS["Methods"].splitlines() if row.startswith("| `")}
    for name, method in METHODS.items():
        for entry in dataclasses.fields(method):
            assert f"`{entry.name}`" in rows[f"`{name}`"]
    for row in PARTS["Networks"].splitlines():
        if row.startswith("| `"):
            names, width, smallest = row.split("|")[1:4]
            for name in re.findall("`(.+?)`", names):
                assert width.strip() == f"{MODELS[name].width}{'' if MODELS[name].any_width else ', one width'}"
                assert int(smallest) == MODELS[name].smallest
    for row in PARTS["Data"].splitlines():
        if row.startswith("| `") and re.search(r"\| [\d,]+", row):
            for name in re.findall("`(.+?)`", row.split("|")[1]):
                known = NAMED[name]
                assert f"{known.train_images + known.test_images:,}" in row
                assert f"{known.size}²" in row
                assert f"{known.classes:,}" in row
    assert DataConfig("digits").validation == 0.1


def test_the_examples_run_in_their_order() -> None:
    scope: dict[str, Any] = {"__name__": "readme"}
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples) == 7
    for example in examples:
        exec(compile(example, "README.md", "exec", dont_inherit=True), scope)
    assert scope["trial"]["status"] == "completed"
    assert scope["landscape"].shape == (32, 32)
    assert sum(fold.count("test") for fold in scope["folds"]) == 1797
