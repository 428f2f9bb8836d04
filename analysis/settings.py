"""The trials of a record with a column for whatever tells their settings apart: what they are grouped by.

The trials table has columns for the hyperparameters of the methods that come with this project and for the training's
most swept fields. The rest of a configuration is a column here, by the part of it: `training.momentum`,
`data.image_size`, `method.` and the name of a hyperparameter of one's own. `code.method` and `code.model` say which
source a trial was trained by, where the record has several of one method or network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

# which repetition of its setting a trial is, and what a column of another name says
_NO_SETTING = {"data": ("fold",), "method": ("name",)}
# LOCO-REG's coefficients are those of the fold's own networks
_OF_THE_FOLD = ("layers",)

UNKNOWN = "unknown"


def settings_of(trials: pa.Table, *, pool_code: bool = False) -> pa.Table:
    """The trials table with those columns; with `pool_code` without those of the code."""
    found = trials
    if "interval_factor" in trials.column_names:
        # what older records have of it is what there was before the choice
        place = trials.column_names.index("interval_factor")
        factor = [
            interval is not None if known is None and interval is not None else known
            for known, interval in zip(
                *(trials[name].to_pylist() for name in ("interval_factor", "interval")), strict=True
            )
        ]
        found = found.set_column(place, trials.field(place), pa.array(factor, pa.bool_()))
    # configurations that differ in the seed alone are looked at once
    kinds: dict[str, int] = {}
    texts = (_without_seed(text or "") for text in trials["config"].to_pylist())
    of = [kinds.setdefault(text, len(kinds)) for text in texts]
    distinct = _beyond(map(_parsed, kinds), len(kinds), {*trials.column_names})
    beyond = {name: [values[kind] for kind in of] for name, values in distinct.items()}
    if not pool_code:
        beyond |= _code(*(trials[name].to_pylist() for name in ("code", "method", "model")))
    for name, values in beyond.items():
        found = found.append_column(name, pa.array(values))
    return found


_OWN_SEED = re.compile(r'(?<=\}), "seed": \d+(?=, "training": \{)')


def _without_seed(text: str) -> str:
    """A configuration as it is recorded, without the trial's seed; as it is where that is not plain to see."""
    parts = _OWN_SEED.split(text)
    return "".join(parts) if len(parts) == 2 else text


def _parsed(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text or "{}")
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _beyond(configs: Iterable[Mapping[str, Any]], number: int, columns: Collection[str]) -> dict[str, list[Any]]:
    """What so many configurations say beyond the columns, by name."""
    found: dict[tuple[str, str], list[Any]] = {}
    folds = False
    for index, config in enumerate(configs):
        for part in ("data", "model", "training", "method"):
            values = config.get(part)
            for key, value in values.items() if isinstance(values, dict) else ():
                folds = folds or (bool(value) and (part, key) == ("data", "folds"))
                if key in columns or key in _NO_SETTING.get(part, ()):
                    continue
                if (part, key) not in found:
                    found[part, key] = [_ABSENT] * number
                found[part, key][index] = value
    if folds:
        for key in _OF_THE_FOLD:
            found.pop(("method", key), None)
    return {
        f"{part}.{key}": _column(values, absent=None if part == "method" else "default")
        for (part, key), values in found.items()
    }


_ABSENT = object()


def _column(values: Sequence[Any], absent: str | None) -> list[Any]:
    """As values of one type: numbers, truths or text. A field that a configuration does not have is at its default; in
    a method's, it is another's hyperparameter."""
    known = [value for value in values if value is not _ABSENT]
    alike = absent is None or len(known) == len(values)
    if alike and all(isinstance(value, bool) for value in known):
        return [None if value is _ABSENT else value for value in values]
    if alike and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return [None if value is _ABSENT else float(value) for value in values]
    written = {json.dumps(value, sort_keys=True): _written(value) for value in known}
    # values of several types that are written alike have quotation marks where they are text
    plain = len(set(written.values()) - {absent}) == len(written)
    return [
        absent if value is _ABSENT else _written(value) if plain else json.dumps(value, sort_keys=True)
        for value in values
    ]


def _written(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_written, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _part(code: str | None, end: int) -> str:
    """The method's or the network's fingerprint."""
    parts = (code or "").split("-")
    return parts[end] if len(parts) == 2 else code or UNKNOWN


def _code(codes: Sequence[str | None], methods: Sequence[str], models: Sequence[str]) -> dict[str, list[str | None]]:
    """The fingerprints of methods and networks, where trials of one differ in them."""
    found = {}
    for name, of, end in (("code.method", methods, 0), ("code.model", models, 1)):
        parts = [_part(code, end) for code in codes]
        kinds: dict[str, set[str]] = {}
        for thing, part in zip(of, parts, strict=True):
            kinds.setdefault(thing, set()).add(part)
        if any(len(several) > 1 for several in kinds.values()):
            found[name] = [part if len(kinds[thing]) > 1 else None for thing, part in zip(of, parts, strict=True)]
    return found
