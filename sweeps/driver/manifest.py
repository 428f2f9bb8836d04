"""`sweep.json`: what a sweep of one name is about, and that no other is recorded under it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from analysis.command_line import InputError
from analysis.records import location, open_place, write_file
from analysis.schema import SCHEMA_VERSION
from sweeps.flags import SweepFlags
from sweeps.plan import Plan

_LONGEST_NAME = 200

# what may be extended under the same name: more strengths, seeds or settings of training belong to one sweep
_EXTENSIBLE = {
    "data": ("crop", "flip", "padding", "fold"),  # what the folds are is said by their number
    "training": ("batch_size", "optimizer", "learning_rate", "momentum", "weight_decay", "label_smoothing"),
}


def contents(flags: SweepFlags, plan: Plan) -> dict[str, list[Any]]:
    """What a sweep of one name is about: data, networks, training and measurements, each with the values it takes."""
    found: dict[str, dict[str, Any]] = {}
    for trial in plan.trials:
        canonical = trial.config.canonical()
        for part in ("data", "model", "training"):
            for key, value in canonical[part].items():
                if key not in _EXTENSIBLE.get(part, ()):
                    found.setdefault(key, {})[json.dumps(value)] = value
    for metric, options in flags.metrics().items():
        found.setdefault("measure", {})[json.dumps(metric)] = metric
        for key, value in options.items():
            found.setdefault(f"{metric} {key}", {})[json.dumps(value)] = value
    return {key: [values[text] for text in sorted(values)] for key, values in sorted(found.items())}


def sweep_url(flags: SweepFlags) -> str:
    """Where the record is, as it is shown. Raises `InputError` for a name or a place that is none."""
    name = flags.name or flags.NAME
    if not name or PurePosixPath(name).name != name or name.startswith("."):
        raise InputError(f"name: {name!r}, allowed is one folder name without / and not starting with a dot")
    if not name.isprintable() or len(os.fsencode(name)) > _LONGEST_NAME:
        shown = name if len(name) < 60 else f"{name[:50]}… ({len(name)} letters)"
        raise InputError(
            f"name: {shown!r}, allowed are letters that can be printed, {_LONGEST_NAME} bytes of them at most, as file "
            "systems and terminals have limits"
        )
    try:
        place = location(flags.storage)
        whole = location(f"{place}/{name}")
    except InputError as error:
        raise InputError(f"storage: {error}") from None
    return whole if place.startswith("s3://") else os.path.join(flags.storage, name)


def check_contents(url: str, contents: Mapping[str, list[Any]]) -> None:
    """Compare with `sweep.json` of the sweep's folder, if it has one.

    Raises `InputError` if a sweep of this name is about something else, naming the first difference.
    """
    fs, path = open_place(url)
    manifest = f"{path}/sweep.json"
    if not fs.exists(manifest):
        return
    try:
        known = dict(json.loads(fs.cat_file(manifest))["contents"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{url}/sweep.json: damaged; use another --name, or move that folder away") from None
    for key in sorted({*known, *contents}):
        if known.get(key) != contents.get(key):
            raise InputError(
                f"{url} is a sweep with {key} = {_listed(known.get(key))}, this one has "
                f"{_listed(contents.get(key))}; give this one another --name"
            )


def write_contents(url: str, contents: Mapping[str, list[Any]]) -> None:
    """Say in the sweep's folder what it is about."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, "contents": contents}, indent=1, sort_keys=True)
    write_file(f"{url}/sweep.json", text.encode())


def _listed(values: Any) -> str:
    if isinstance(values, list) and values:
        return ", ".join(str(value) for value in values)
    return str(values) if values else "none"
