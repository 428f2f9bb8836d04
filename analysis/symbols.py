"""Methods, strengths and settings as the papers write them: "k = 8, λ = 1, FPN" for pixels=8, sparsity=1, fpn=True.

`groups.label` is what a command line takes; this is what a figure or a page says.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from analysis.groups import Group, digits_of, of_the_method, short

METHODS = {
    "baseline": "unregularised",
    "pilcro": "PILCRO",
    "loco_reg": "LOCO-REG",
    "top_gap": "Top-GAP",
    "deformation": "deformation stability",
    "gradient_reg": "input-gradient regularisation",
}

_SYMBOLS = {
    "alpha": "α",
    "alpha_per_image": "α per image",
    "alpha_batch": "α (batch)",
    "alpha_element": "α (element)",
    "alpha_pixel": "α (pixel)",
    "interval": "T",
    "laplacian_width": "Laplacian width",
    "pixels": "k",
    "sparsity": "λ",
    "gamma": "γ",
    "eta": "η",
    "modulation": "c",
    "sigma": "σ",
    "deformation_strength": "C",
    "fpn": "FPN",
    "fpn_channels": "FPN channels",
}

# columns whose words say nothing without them, and how they are said
_WORDS = {
    "fpn_channels": "{} FPN channels",
    "labels": "{} labels",
    "pretrained": "pretrained",
    "fpn": "FPN",
}

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def symbol(name: str) -> str:
    """A strength or another number as it is written in a sentence: "α" for alpha; other columns by their words."""
    return _SYMBOLS.get(name, short(name).replace("_", " "))


def method_name(name: str) -> str:
    """A method as its paper calls it; one's own by its name in the record."""
    return METHODS.get(name, name)


def number(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, from 0.001 to 100,000 without powers of ten, and whole ones up to there
    in full: "31.6", "12345", "2.154·10⁶"."""
    if value == 0 or not math.isfinite(value) or (value == int(value) and abs(value) < 1e5):
        return f"{value:.6g}".replace("-", "−")
    factor, exponent = f"{value:.{digits - 1}e}".split("e")
    if -4 < int(exponent) < 5:
        text = f"{float(f'{factor}e{exponent}'):.{max(0, digits - 1 - int(exponent))}f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
    factor = f"{float(factor):g}"
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return {"1": power, "-1": f"−{power}"}.get(factor, f"{factor}·{power}".replace("-", "−"))


def in_symbols(values: Mapping[str, Any], digits: Mapping[str, int] | None = None, *, in_full: bool = False) -> str:
    """A setting in the field's symbols: "PILCRO, curvature, α = 10"; numbers to as many digits as tell them from those
    of others, and `in_full` words with the column that they are of, too."""
    known = digits or {}
    return ", ".join(_setting(name, value, known.get(name, 4), in_full) for name, value in values.items())


def named(group: Group, digits: Mapping[str, int] | None = None) -> str:
    """A group in the field's symbols, as `Group.label` is in the record's; numbers to so many `digits`, by default as
    many as that has. A group that has none of a method's values is named by its method: what does not apply to it is
    not off ("no FPN")."""
    given = {name: value for name, value in group.values.items() if value is not None}
    if group.values and not given and all(map(of_the_method, group.values)):
        methods = sorted({row["method"] for row in group.trials})
        if methods:
            return " and ".join(map(method_name, methods))
    return in_symbols(given or group.values, digits or group.digits, in_full=group.in_full)


def all_named(groups: Sequence[Group], *, without: Collection[str] = ()) -> list[str]:
    """Each of the groups in the field's symbols, numbers to as few digits, from three on, as tell them apart, and
    without the columns that others tell the value of, nor those that are said elsewhere (`without`)."""
    columns = list(dict.fromkeys(name for group in groups for name in group.values))
    digits = {name: digits_of((group.values.get(name) for group in groups), 3) for name in columns}
    kept = needed([{name: group.values.get(name) for name in columns} for group in groups], columns)
    shown = set(kept).difference(without)
    return [
        named(replace(group, values={name: value for name, value in group.values.items() if name in shown}), digits)
        for group in groups
    ]


def needed(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """The columns without those that say nothing beside the others: that some have one value and some have none, where
    another column says which do ("32 FPN channels" beside "FPN"). Every row keeps a value, if it has any."""
    kept = list(columns)
    for name in columns:
        others = [other for other in kept if other != name]
        alone = any(row[name] is not None and all(row[other] is None for other in others) for row in rows)
        if not others or alone or len({row[name] for row in rows} - {None}) > 1:
            continue
        if len({tuple(row[other] for other in others) for row in rows}) == len(
            {tuple(row[other] for other in kept) for row in rows}
        ):
            kept = others
    return kept


def _setting(name: str, value: Any, digits: int, in_full: bool) -> str:
    if name == "method" and value is not None:
        return method_name(value)
    if value is None or value is False:
        return f"no {_WORDS.get(name, symbol(name)).replace('{} ', '')}"
    if value is True:
        return _WORDS.get(name, symbol(name))
    if name in _WORDS:
        return _WORDS[name].format(value if isinstance(value, str) else number(value, digits))
    if isinstance(value, str):
        return f"{symbol(name)} {value}" if "." in name or in_full else value
    if name in _SYMBOLS:
        return f"{symbol(name)} = {number(value, digits)}"
    return f"{symbol(name)} {number(value, digits)}"
