"""The house holds: floors import downward only, nothing imports in a circle, and no file is above 600 lines without a
reason.

The imports are read from the source (grimp), wherever in a file they stand; those for type checking alone do not count,
as they are never made; a name given to `lazily` is an import, and so is a module of `exports`.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("sweeps", "trainables", "analysis")
MOST_LINES = 600
REASON = "Longer than 600 lines: "
"""So the reason begins, in the docstring at the top of a file."""


def files(root: Path, floors: Iterable[str] = FLOORS) -> list[Path]:
    """The project's source, without the scripts and records of reproductions, which are no part of the package."""
    return [
        file
        for floor in floors
        for file in sorted((root / floor).rglob("*.py"))
        if "reproductions" not in file.relative_to(root).parts
    ]


def module_name(root: Path, file: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def graph_of(root: Path, floors: Iterable[str] = FLOORS) -> grimp.ImportGraph:
    first, *others = floors
    graph = grimp.build_graph(
        first, *others, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    for file in files(root, floors):
        importer = module_name(root, file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "exports":
                for name in ast.literal_eval(node.args[1]):
                    graph.add_import(importer=importer, imported=f"{importer}.{name}")
            if node.func.id == "lazily":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{importer}: lazily takes a name in quotes"
                name = argument.value
                inside = name.partition(".")[0] in floors
                imported = name if inside else name.partition(".")[0]
                if imported not in graph.modules:
                    assert not inside, f"{importer}: lazily({name!r}), but there is no such module"
                    graph.add_module(imported, is_squashed=True)
                graph.add_import(importer=importer, imported=imported)
    return graph


def upward(graph: grimp.ImportGraph, floors: Iterable[str] = FLOORS) -> list[str]:
    """Imports of a floor by one below it."""
    order = list(floors)
    return sorted(
        f"{importer} imports {imported}"
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if (own := importer.partition(".")[0]) in order
        and (other := imported.partition(".")[0]) in order
        and order.index(other) < order.index(own)
    )


def importers(graph: grimp.ImportGraph, floor: str, package: str) -> set[str]:
    """The modules of a floor that import an outside package."""
    found = graph.find_modules_that_directly_import(package) if package in graph.modules else set()
    return {name for name in found if name.partition(".")[0] == floor}


def circles(graph: grimp.ImportGraph) -> list[str]:
    """The shortest circle of imports through each import that is part of one, each circle once."""
    found: dict[frozenset[str], str] = {}
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            back = graph.find_shortest_chain(importer=imported, imported=importer)
            if back is not None:
                found.setdefault(frozenset(back), " → ".join([importer, *back]))
    return list(found.values())


def too_long(root: Path, floors: Iterable[str] = FLOORS) -> list[str]:
    """Files of more lines than are allowed without a reason."""
    found = []
    for file in files(root, floors):
        text = file.read_text(encoding="utf-8")
        number = len(text.splitlines())
        if number > MOST_LINES and REASON not in (ast.get_docstring(ast.parse(text)) or ""):
            found.append(f"{file.relative_to(root)}: {number} lines")
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return graph_of(ROOT)


def test_floors_import_downward_only(graph: grimp.ImportGraph) -> None:
    assert not upward(graph)


def test_nothing_imports_in_a_circle(graph: grimp.ImportGraph) -> None:
    assert not circles(graph)


@pytest.mark.parametrize("package", ["torch", "torchvision", "timm", "ray"])
def test_analysis_needs_neither_torch_nor_ray(graph: grimp.ImportGraph, package: str) -> None:
    assert not importers(graph, "analysis", package)


def test_ray_is_at_the_edge(graph: grimp.ImportGraph) -> None:
    assert importers(graph, "trainables", "ray") == {"trainables.trainable"}
    # a module that imports this one needs Ray, too
    assert not importers(graph, "trainables", "trainables.trainable")


def test_analysis_loads_neither_torch_nor_ray_by_others() -> None:
    modules = [module_name(ROOT, file) for file in files(ROOT, ["analysis"])]
    assert len(modules) >= 30
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "ray", "trainables", "sweeps"} & set(loaded.stdout.split())


def test_long_files_say_why() -> None:
    assert not too_long(ROOT)


SOUND = {
    "upper_floor/__init__.py": "",
    "upper_floor/plan.py": "import ray\nfrom middle_floor import method\n",
    "middle_floor/__init__.py": "",
    "middle_floor/method.py": "from lower_floor.schema import NAMES\n",
    "middle_floor/trainable.py": "import ray\nfrom middle_floor import method\n",
    "lower_floor/__init__.py": "",
    "lower_floor/schema.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lower_floor import records\nNAMES = ()\n"
    ),
    "lower_floor/records.py": "import scipy\nfrom lower_floor import schema\n",
}


def judged(folder: Path, monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str]) -> dict[str, bool]:
    """Whether each of the rules finds fault with a small house of three floors, these files in place of its own."""
    for name, text in {**SOUND, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    floors = ("upper_floor", "middle_floor", "lower_floor")
    graph = graph_of(folder, floors)
    for name in [name for name in sys.modules if name.partition(".")[0] in floors]:
        del sys.modules[name]
    return {
        "upward": bool(upward(graph, floors)),
        "circle": bool(circles(graph)),
        "torch below": bool(importers(graph, floors[2], "torch")),
        "ray inside": importers(graph, floors[1], "ray") != {"middle_floor.trainable"},
        "long": bool(too_long(folder, floors)),
    }


@pytest.mark.parametrize(
    ("name", "text", "faults"),
    [
        ("lower_floor/new.py", "import numpy\n", set()),
        ("lower_floor/new.py", "from upper_floor import plan\n", {"upward"}),
        ("middle_floor/new.py", "def late():\n    from upper_floor.plan import main\n", {"upward"}),
        ("lower_floor/new.py", 'method = lazily("middle_floor.method")\n', {"upward", "circle"}),
        ("lower_floor/schema.py", "from lower_floor import records\n", {"circle"}),
        ("lower_floor/schema.py", 'records = lazily("lower_floor.records")\n', {"circle"}),
        ("lower_floor/new.py", "from torch.nn import functional\n", {"torch below"}),
        ("lower_floor/new.py", 'torch = lazily("torch.nn")\n', {"torch below"}),
        ("middle_floor/new.py", "from ray import tune\n", {"ray inside"}),
        ("upper_floor/new.py", "x = 1\n" * 600, set()),
        ("upper_floor/new.py", "x = 1\n" * 601, {"long"}),
        ("upper_floor/new.py", f'"""Much.\n\n{REASON}one table.\n"""\n' + "x = 1\n" * 601, set()),
    ],
)
def test_each_rule_can_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, faults: set[str]
) -> None:
    if "circle" in faults and "upward" in faults:
        # below needs above, which needs it
        changes = {name: text, "middle_floor/method.py": "from lower_floor import new\n"}
    else:
        changes = {name: text}
    found = judged(tmp_path, monkeypatch, changes)
    assert {rule for rule, broken in found.items() if broken} == faults
