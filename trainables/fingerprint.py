"""Which code a trial was trained by: a fingerprint of the source of its method and of its network.

The source is that of the method's class, or of the function that builds the network, and of everything of this project
that it names, as far as that goes: its base classes, functions, constants. It is compared as a syntax tree without
comments, docstrings, annotations and formatting, so that only what is computed counts, and neither where a function
stands nor Python's version. Nothing is imported or run for it. What every trial shares, the training loop and the
seeding of its random numbers, is not in it: of that the record has the commit (`git_commit`).

A process runs the source that it has loaded: it is read when this module is imported, and a trial of source that has
changed since then is of unknown code, as nobody knows which of its modules were loaded before.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.method import Method
from trainables.models import MODELS

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = "trainables"
_NOT_FOLLOWED = ("METHODS", "METRICS", "MODELS", "Method")
"""Registries, as another method or network changes none of the others; and the base class, which adds nothing to the
loss: its fingerprint, the baseline's, is always the same."""
# of a method: what it records besides by default, how long it takes, and what it refuses
_NO_TRAINING = {"metrics", "relative_cost", "check"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# of a node that says nothing of what is computed, or that not every version of Python has
_LEFT_OUT = {"annotation", "returns", "type_comment", "type_ignores", "type_params", "kind", "ctx", "simple"}


def code_of(method: type[Method], model: str) -> str | None:
    """The column `code` of a trial of this method and network: the fingerprints of the two, 8 hex digits each, as in
    "3f2a91c0-77aa01bc"; None where their source has changed since this process has begun."""
    build: Callable[..., Any] = method
    parts = [_fingerprint(thing) for thing in (build, MODELS[model].build)]
    if any(_has_changed(file) for _, files in parts for file in files):
        return None
    return "-".join(fingerprint for fingerprint, _ in parts)


@functools.cache
def _fingerprint(thing: Callable[..., Any]) -> tuple[str, tuple[Path, ...]]:
    """The fingerprint, and the files that it is of."""
    source = _Source()
    source.add(thing)
    files = tuple(sorted({file for file, _ in source.seen}))
    return hashlib.sha256("\n".join(sorted(source.texts)).encode()).hexdigest()[:8], files


def _text_of(file: Path) -> str:
    if file not in _LOADED:
        _LOADED[file] = file.read_text(encoding="utf-8")
    return _LOADED[file]


def _has_changed(file: Path) -> bool:
    try:
        return file.read_text(encoding="utf-8") != _text_of(file)
    except OSError:
        return True


_LOADED: dict[Path, str] = {file: file.read_text(encoding="utf-8") for file in Path(__file__).parent.rglob("*.py")}


@dataclass
class _Source:
    """The definitions that a thing consists of, each once, as text."""

    texts: set[str] = field(default_factory=set)
    seen: set[tuple[Path, str]] = field(default_factory=set)

    def add(self, thing: Callable[..., Any]) -> None:
        """A class or function, and what a function that another one has made was made with."""
        file = inspect.getsourcefile(thing)
        assert file is not None
        self.follow(Path(file), thing.__qualname__.partition(".")[0])
        held = inspect.getclosurevars(thing).nonlocals if inspect.isfunction(thing) else {}
        for name, value in sorted(held.items()):
            if inspect.isfunction(value) or inspect.isclass(value):
                self.add(value)
            else:
                self.texts.add(f"{name} = {value!r}")

    def follow(self, file: Path, name: str) -> None:
        """What `name` is at the top of a file, with all that it names."""
        if (file, name) in self.seen or name in _NOT_FOLLOWED:
            return
        self.seen.add((file, name))
        module = _read(file)
        for node in module.definitions.get(name, ()):
            self.texts.add(_text(node))
            local = {**module.imported, **_imports(ast.walk(node), file)}
            for used, attribute in _used(node):
                if used in module.definitions:
                    self.follow(file, used)
                elif used in local:
                    home, own = local[used]
                    self.follow(home, own or attribute)


@dataclass(frozen=True)
class _Module:
    definitions: dict[str, list[ast.stmt]]
    imported: dict[str, tuple[Path, str]]
    """Names of this project's things, by the name they have here: the file they are of, and their name there."""


@functools.cache
def _read(file: Path) -> _Module:
    definitions: dict[str, list[ast.stmt]] = {}
    body = ast.parse(_text_of(file)).body
    for node in body:
        names: list[str] = []
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        for name in names:
            definitions.setdefault(name, []).append(node)
    return _Module(definitions, _imports(body, file))


def _imports(nodes: Any, file: Path) -> dict[str, tuple[Path, str]]:
    """`from … import …` of this project's modules; of a module that is imported whole, its own name there is empty."""
    found = {}
    for node in nodes:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.partition(".")[0] != _PACKAGE or node.module == f"{_PACKAGE}.lazily":
            continue
        home = _file(node.module)
        for alias in node.names:
            inner = _file(f"{node.module}.{alias.name}")
            if inner is not None:
                found[alias.asname or alias.name] = (inner, "")
            elif home is not None:
                found[alias.asname or alias.name] = (home, alias.name)
    return found


def _file(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _meaning(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a node that say what is computed."""
    for name, value in ast.iter_fields(node):
        if name in _LEFT_OUT or value is None or value == []:
            continue
        if name == "body" and isinstance(value, list):
            value = [part for part in value if not _says_nothing(part, of_class=isinstance(node, ast.ClassDef))]
        yield name, value


def _says_nothing(node: ast.stmt, of_class: bool) -> bool:
    """A docstring, or the words below a field; and what of a method is no part of its training."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    names = {getattr(target, "name", getattr(target, "id", "")) for target in targets}
    return of_class and names <= _NO_TRAINING


def _text(node: Any) -> str:
    """A syntax tree as text that is the same in every version of Python, unlike `ast.dump`'s."""
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ", ".join(f"{name}={_text(value)}" for name, value in _meaning(node))
    return f"{type(node).__name__}({fields})"


def _used(node: Any) -> Iterator[tuple[str, str]]:
    """The names that a definition uses, each with what is asked of it, as in `name.attribute` ("": nothing)."""
    if isinstance(node, list):
        for part in node:
            yield from _used(part)
    elif isinstance(node, ast.AST):
        if isinstance(node, ast.Name):
            yield node.id, ""
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr
        for _, value in _meaning(node):
            yield from _used(value)
