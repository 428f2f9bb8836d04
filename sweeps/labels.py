"""What a person calls the settings of a sweep: each by another name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.groups import digits_of, number
from trainables.configuration import TrialConfig

_SYMBOLS = {
    "alpha": "α",
    "interval": "T",
    "laplacian_width": "k",
    "gamma": "γ",
    "eta": "η",
    "modulation": "c",
    "learning_rate": "lr",
    "batch_size": "batch",
}
# which repetition of a setting it is, and what comes of the fold's own networks
_REPEATED = ("seed", "fold", "layers")


def settings_in_words(configs: Sequence[TrialConfig]) -> list[str]:
    """Each trial's method and those of its hyperparameters that vary in the sweep: `pilcro α=10 target`. Numbers have
    as many digits as tell them apart, and lists are named where nothing else tells two settings apart."""
    flat = [config.columns() for config in configs]
    single = [{name: value for name, value in columns.items() if not isinstance(value, list)} for columns in flat]
    whole = [
        {name: _text(name, value) if isinstance(value, list) else value for name, value in of.items()} for of in flat
    ]
    identities = [_identity(columns) for columns in flat]
    names: list[str] = []
    # that a method has none of something is said, and lists are, where nothing else tells two settings apart
    for columns, with_none in ((single, False), (single, True), (whole, True)):
        names = _in_words(columns, _varying(columns), with_none)
        if len({*zip(names, identities, strict=True)}) == len({*names}):
            break
    return names


def _identity(columns: Mapping[str, Any]) -> str:
    repeated = _REPEATED if columns["fold"] is not None else ("seed",)
    return json.dumps({name: value for name, value in columns.items() if name not in repeated}, sort_keys=True)


def _varying(flat: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """The columns that vary, and whether having none of one is a setting, too: a baseline has no hyperparameters, but
    one method's trials may have a value or none."""
    found = {}
    for key in dict.fromkeys(key for columns in flat for key in columns):
        if key == "method" or key in _REPEATED[:2]:
            continue
        pairs = {(columns["method"], columns.get(key)) for columns in flat}
        values = {value for _, value in pairs if value is not None}
        methods = [{method for method, value in pairs if (value is None) == none} for none in (True, False)]
        without = bool(methods[0] & methods[1])
        if key == "alpha" or len(values) > 1 or without:
            found[key] = without
    return found


def _in_words(flat: Sequence[Mapping[str, Any]], varying: Mapping[str, bool], with_none: bool) -> list[str]:
    digits = {key: digits_of(columns.get(key) for columns in flat) for key in varying}
    names = []
    for columns in flat:
        words = [columns["method"]]
        for key, without in varying.items():
            value = columns.get(key)
            symbol = _SYMBOLS.get(key, key)
            if isinstance(value, str):
                words.append(value)
            elif isinstance(value, float):
                words.append(f"{symbol}={number(value, digits[key])}")
            elif value is not None:
                words.append(f"{symbol}={value}")
            elif without and with_none and key in columns:
                words.append(f"{symbol}=none")
        names.append(" ".join(words))
    return names


def _text(name: str, values: Sequence[Any]) -> str:
    return f"{name}={','.join(map(str, values)) or 'none'}"
