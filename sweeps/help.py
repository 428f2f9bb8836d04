"""`--help` of a sweep: flags in groups, the method's own first, each with its default; `--help-metrics`: the rest."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import os
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from analysis.bounds import bounds_of
from trainables.metrics import METRICS
from trainables.metrics.flags import MetricFlags

if TYPE_CHECKING:
    from sweeps.flags import SweepFlags

GROUPS = {
    "data": (
        "dataset",
        "as_",
        "data_root",
        "image_size",
        "evaluation_size",
        "channels",
        "exclude",
        "train_images",
        "validation",
        "folds",
        "scaling",
        "flip",
        "crop",
        "crop_pixels",
        "padding",
        "zoom",
    ),
    "network": ("model", "width", "pretrained"),
    "training": (
        "epochs",
        "batch_size",
        "optimizer",
        "learning_rate",
        "momentum",
        "weight_decay",
        "decay_normalisation",
        "schedule",
        "milestones",
        "decay",
        "label_smoothing",
        "precision",
        "seeds",
        "baseline",
    ),
    "measuring": ("measure", "keep_models"),
    "running": (
        "preset",
        "search",
        "storage",
        "name",
        "cpus_per_trial",
        "gpus_per_trial",
        "checkpoint_seconds",
        "keep_checkpoints",
        "retry_failed",
        "forget_failed",
        "dashboard",
        "dry_run",
        "estimate",
        "yes_really",
    ),
}
"""The flags of every sweep as `--help` shows them, below those of the method, which are all others but the metrics'."""

SEARCH = ("interval_width", "extend", "scheduler", "samples", "budget_hours")
"""The flags of a search, as `--help-search` shows them."""

_VALUES = {int: "N", float: "X", str: "NAME"}
_COLUMN = 32


def sweep_help(kind: type[SweepFlags], presets: Mapping[str, SweepFlags], default: SweepFlags, description: str) -> str:
    """The page of `--help`, with the defaults of the chosen preset. Lines are as long as COLUMNS says, or 110."""
    elsewhere = {name for names in GROUPS.values() for name in names} | {*_names(MetricFlags), *SEARCH}
    own = [name for name in _names(kind) if name not in elsewhere]
    lines = [f"usage: python sweeps/{kind.NAME}.py [--preset NAME] [--FLAG VALUE ...]", "", description.strip()]
    for title, names in ((f"{kind.NAME}, swept", own), *GROUPS.items()):
        lines += ["", f"{title}:", *_flags(kind, default, names)]
    presets_are = f"Where several values are allowed (…), all combinations are trained. Presets: {', '.join(presets)}."
    if default.about:
        presets_are += f" {default.preset}: {default.about}."
    presets_are += " Of metrics and searches say more --help-metrics and --help-search."
    lines += ["", *textwrap.wrap(presets_are, _width(), break_on_hyphens=False)]
    return "\n".join(lines)


def metrics_help(
    kind: type[SweepFlags], presets: Mapping[str, SweepFlags], default: SweepFlags, description: str
) -> str:
    """The page of `--help-metrics`."""
    known = textwrap.fill(", ".join(METRICS), _width(), initial_indent="  ", subsequent_indent="  ")
    lines = ["What --measure may name:", known, "", "options of the metrics:"]
    return "\n".join([*lines, *_flags(kind, default, _names(MetricFlags))])


def search_help(
    kind: type[SweepFlags], presets: Mapping[str, SweepFlags], default: SweepFlags, description: str
) -> str:
    """The page of `--help-search`."""
    flag = f"--{kind.STRENGTH.replace('_', '-')} "
    low, high = (_default(end) for end in default.strength_range)
    what = f"the tipping point by {flag}LOW..HIGH [{low}..{high}]" if kind.STRENGTH else "nothing: it has no strength"
    search = f"--search tipping of {kind.NAME}.py looks for {what}, for each combination of the other values."
    return "\n".join([*textwrap.wrap(search, _width()), "", "options of a search:", *_flags(kind, default, SEARCH)])


def _names(kind: type) -> list[str]:
    hidden = ("gpu_share", "strength_range", "about")
    return [entry.name for entry in dataclasses.fields(kind) if entry.name not in hidden]


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    return max(60, int(columns)) if columns.isdecimal() else 110


def _flags(kind: type[SweepFlags], default: SweepFlags, names: Iterable[str]) -> Iterator[str]:
    hints, docs, bounds = _hints(kind), _docs(kind), bounds_of(kind)
    for name in names:
        value = getattr(default, name)
        flag = name.rstrip("_").replace("_", "-")
        shown = f"  --[no-]{flag}" if isinstance(value, bool) else f"  --{flag} {_values(hints[name])}"
        beside = ["" if value in (None, ()) else _default(value), str(bounds.get(name, ""))]
        text = f"{docs[name]} [{'; '.join(filter(None, beside))}]" if any(beside) else docs[name]
        if len(shown) > _COLUMN - 2:
            yield shown
            shown = ""
        column = " " * _COLUMN
        yield from textwrap.wrap(
            text, _width(), initial_indent=shown.ljust(_COLUMN), subsequent_indent=column, break_on_hyphens=False
        )


def _values(hint: Any) -> str:
    """What may follow a flag: `N …` for whole numbers, the choices where there are some."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return f"{_values(get_args(hint)[0])} …"
    return "|".join(get_args(hint)) if get_origin(hint) is Literal else _VALUES[hint]


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(_default(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


_hints = functools.cache(get_type_hints)


@functools.cache
def _docs(kind: type) -> dict[str, str]:
    """The text below each field, in the class that has it last."""
    docs: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in itertools.pairwise([*definition.body, ast.Pass()]):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                said = text.value if isinstance(text, ast.Expr) else None
                docs[field.target.id] = " ".join(str(said.value).split()) if isinstance(said, ast.Constant) else ""
    return docs
