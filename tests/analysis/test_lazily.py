"""Modules imported at their first use."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from analysis.lazily import exports, lazily


def test_a_module_is_imported_when_an_attribute_is_asked_for() -> None:
    code = """
import sys
from analysis.lazily import lazily
colours = lazily("colorsys")
assert "colorsys" not in sys.modules and not hasattr(colours, "__wrapped__") and "colorsys" not in sys.modules
assert colours.rgb_to_hsv(0, 0, 1) == (2 / 3, 1, 1) and "colorsys" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_the_module_also_after_pickling() -> None:
    import math

    again = pickle.loads(pickle.dumps(lazily("math")))
    assert again.sqrt is math.sqrt
    with pytest.raises(AttributeError):
        _ = again.nonsense


def test_a_package_has_its_modules_names() -> None:
    of = exports("analysis", {"schema": ("TABLES",)})
    from analysis.schema import TABLES

    assert of("TABLES") is TABLES
    with pytest.raises(AttributeError, match="module 'analysis' has no attribute 'tables'"):
        of("tables")
