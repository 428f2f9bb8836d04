"""Settings and numbers as the papers write them."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.groups import Group
from analysis.symbols import all_named, in_symbols, method_name, needed, number, symbol


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pixels": 8, "sparsity": 1.0, "fpn": True}, "k = 8, λ = 1, FPN"),
        ({"fpn": False}, "no FPN"),
        ({"method": "pilcro", "variant": "curvature", "alpha": 31.6}, "PILCRO, curvature, α = 31.6"),
        ({"fpn_channels": 32, "labels": "random"}, "32 FPN channels, random labels"),
        ({"training.momentum": 0.9, "training.schedule": "cosine"}, "momentum 0.9, schedule cosine"),
        ({"alpha": None}, "no α"),
        ({"method.mine": 2.0}, "mine 2"),
    ],
)
def test_settings(values: dict[str, Any], words: str) -> None:
    assert in_symbols(values) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (31.6, "31.6"), (1000.0, "1000"), (12345, "12345"), (12345.6, "12350"), (2154434.69, "2.154·10⁶"),
        (1e10, "10¹⁰"), (0.001, "0.001"), (1e-5, "10⁻⁵"), (-0.5, "−0.5"), (-2.5e-7, "−2.5·10⁻⁷"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_symbols() -> None:
    assert (symbol("alpha"), symbol("learning_rate"), symbol("method.my_own")) == ("α", "learning rate", "my own")
    assert (method_name("loco_reg"), method_name("mine")) == ("LOCO-REG", "mine")


def rows(*settings: dict[str, Any]) -> list[dict[str, Any]]:
    names = {name for one in settings for name in one}
    return [dict.fromkeys(names) | one for one in settings]


def test_what_follows_from_another_column_is_left_out() -> None:
    some = rows({"fpn": True, "fpn_channels": 32}, {"fpn": False}, {"fpn": True, "fpn_channels": 32})
    assert needed(some, ["fpn", "fpn_channels"]) == ["fpn"]
    more = rows({"fpn": True, "fpn_channels": 32}, {"fpn": True, "fpn_channels": 64}, {"fpn": False})
    assert needed(more, ["fpn", "fpn_channels"]) == ["fpn", "fpn_channels"]
    # one column tells two settings that the other does not, which is all that one of them has a value of
    apart = rows({"fpn": True, "fpn_channels": 32}, {"fpn": True})
    assert needed(apart, ["fpn", "fpn_channels"]) == ["fpn", "fpn_channels"]
    assert needed(rows({"fpn": True, "fpn_channels": 32}), ["fpn", "fpn_channels"]) == ["fpn_channels"]


def test_names_of_groups_are_as_short_as_tell_them_apart() -> None:
    groups = [Group({"alpha": alpha}, (), ()) for alpha in (10.0, 2154.41, 2154.43)]
    assert all_named(groups) == ["α = 10", "α = 2154.41", "α = 2154.43"]
    assert all_named(groups[:2]) == ["α = 10", "α = 2150"]


CURVATURE = {"variant": "curvature", "reduction": None}


def of(trained: str, **values: Any) -> Group:
    return Group(values, [{"method": trained}], ())


def test_what_a_setting_does_not_have_is_not_named() -> None:
    both = [of("pilcro", variant="target", reduction="mean"), of("pilcro", variant="target", reduction="sum")]
    assert all_named([of("pilcro", **CURVATURE)]) == ["curvature"]
    assert all_named([of("pilcro", **CURVATURE), *both]) == ["curvature", "target, mean", "target, sum"]
    two = [
        of("pilcro", method="pilcro", variant="curvature", convention=None),
        of("gradient_reg", method="gradient_reg", variant=None, convention="image"),
    ]
    assert all_named(two) == ["PILCRO", "input-gradient regularisation"]
    assert all_named(two[:1]) == ["curvature"]
    assert all_named(two, without=("method",)) == ["", ""]
    # by that column alone it is its method's name; what is off is said
    assert all_named([of("pilcro", reduction=None), of("pilcro", reduction="sum")]) == ["PILCRO", "sum"]
    assert all_named([of("top_gap", fpn=False), of("top_gap", fpn=True)]) == ["no FPN", "FPN"]
