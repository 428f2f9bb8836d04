"""Which options of a metric its numbers depend on is said of every option of every metric."""

from __future__ import annotations

import dataclasses
import inspect
import sys

import pytest

from analysis.options import _ATTACKS, BESIDES, DEPENDS_ON
from trainables.metrics import METRICS


@pytest.mark.parametrize("name", METRICS)
def test_every_option_is_one_or_the_other(name: str) -> None:
    options = {field.name for field in dataclasses.fields(METRICS[name])}  # type: ignore[arg-type]
    depends = {option for chosen in DEPENDS_ON[name].values() for option in chosen}
    assert depends | {*BESIDES.get(name, ())} == options
    assert not depends & {*BESIDES.get(name, ())}
    # and the names are those that it gives
    source = inspect.getsource(sys.modules[METRICS[name].__module__])
    assert [made for made in DEPENDS_ON[name] if f'"{made}' not in source] == []


def test_none_is_left_over() -> None:
    assert DEPENDS_ON.keys() == METRICS.keys()
    assert BESIDES.keys() <= METRICS.keys()
    attacks = {option for options in _ATTACKS.values() for option in options}
    assert attacks == {*DEPENDS_ON["attacks"]["robust_accuracy"]}
