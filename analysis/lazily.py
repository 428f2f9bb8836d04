"""Modules that are imported when they are first used, so that a command answers before what it may not need is loaded.

`stats = lazily("scipy.stats")` stands where `from scipy import stats` would. Python has no such import before 3.15;
`importlib.util.LazyLoader` shows the module to everybody before it is loaded, and others (scipy, of torch) load it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class _Lazily:
    """Stands for a module until an attribute is asked for; each attribute is looked up once."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") and attribute != "__version__":
            raise AttributeError(attribute)  # what looks through a namespace (inspect, pytest) is not a use
        value = getattr(importlib.import_module(self.__name__), attribute)
        setattr(self, attribute, value)
        return value

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _Lazily, (self.__name__,)

    def __repr__(self) -> str:
        return f"<module {self.__name__!r}, when used>"


def lazily(name: str) -> Any:
    """The module of that name, such as "scipy.stats", imported at the first look at one of its attributes."""
    return _Lazily(name)


def exports(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package that has its modules' names too, `{module: names}`; a module is imported when the
    first of its names is asked for, so that the package's command answers before what it may not need is loaded."""
    module_of = {name: module for module, those in names.items() for name in those}

    def of(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return of
