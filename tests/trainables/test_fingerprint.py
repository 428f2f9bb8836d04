"""Which code a trial was trained by: what changes the fingerprint, and what does not."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.fingerprint import code_of
from trainables.method import Method
from trainables.methods import METHODS
from trainables.models import MODELS

ROOT = Path(__file__).resolve().parents[2]

OWN = '''
"""A method."""
from dataclasses import dataclass
from trainables.method import Method, Penalty

SCALE = 1.0

def squares(images):
    """Their sum."""
    return images.square().sum()

@dataclass(frozen=True)
class Own(Method):
    name = "own"
    alpha: float = 1.0
    """Its strength."""

    def penalty(self, step):
        # of the images
        return Penalty(SCALE * squares(step.images), self.alpha)
'''


def own(tmp_path: Path, source: str) -> str:
    """The fingerprint of the method in this source."""
    number = len(list(tmp_path.iterdir()))
    file = tmp_path / f"own{number}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # where inspect looks for a class's file
    spec.loader.exec_module(module)
    found: type[Method] = module.Own
    return of(found, "resnet8")[0]


def of(method: type[Method], model: str) -> list[str]:
    """The fingerprints of the method and of the network."""
    code = code_of(method, model)
    assert code is not None
    return code.split("-")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A method."""', '"""Another word."""'),
        ('    """Their sum."""\n', ""),
        ('    """Its strength."""\n', ""),
        ("# of the images", "# of all images"),
        (
            "Penalty(SCALE * squares(step.images), self.alpha)",
            "Penalty(\n    SCALE * squares(step.images), self.alpha,)",
        ),
        ("def squares(images):", "def squares(images: object) -> object:"),
        ("SCALE = 1.0", "SCALE = 1.0\nUNUSED = 3"),
        ("    def penalty", "    def check(self, height, width, steps):\n        raise ValueError\n\n    def penalty"),
        ("    alpha:", "    metrics = ('landscape',)\n    alpha:"),
    ],
)
def test_what_computes_nothing_else_changes_nothing(old: str, new: str, tmp_path: Path) -> None:
    assert old in OWN
    assert own(tmp_path, OWN.replace(old, new)) == own(tmp_path, OWN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE * squares", "100 * SCALE * squares"),
        ("SCALE = 1.0", "SCALE = 100.0"),
        ("images.square()", "images.abs()"),
        ("alpha: float = 1.0", "alpha: float = 2.0"),
        (
            "    def penalty",
            "    def adjust_gradients(self, model, weight_decay):\n        model.zero_grad()\n\n    def penalty",
        ),
    ],
)
def test_what_computes_something_else_is_told(old: str, new: str, tmp_path: Path) -> None:
    assert old in OWN
    assert own(tmp_path, OWN.replace(old, new)) != own(tmp_path, OWN)


def test_a_function_may_move_to_another_place(tmp_path: Path) -> None:
    function = OWN[OWN.index("def squares") : OWN.index("@dataclass")]
    assert own(tmp_path, OWN.replace(function, "") + function) == own(tmp_path, OWN)


def test_methods_and_networks_are_told_apart() -> None:
    codes = {of(kind, "lenet5")[0] for kind in METHODS.values()}
    assert len(codes) == len(METHODS)
    codes = {of(Method, name)[1] for name in MODELS}
    assert len(codes) == len(MODELS)


SCRIPT = """
from trainables.fingerprint import code_of
from trainables.methods import METHODS
from trainables.models import MODELS
import sys
print(*(f"{name}:{code_of(kind, 'lenet5').split('-')[0]}" for name, kind in METHODS.items()))
print(*(f"{name}:{code_of(METHODS['baseline'], name).split('-')[1]}" for name in MODELS))
assert "torch" not in sys.modules, "a plan does without torch"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, str]]:
    """A copy of the source, `project.file(name)`, and the fingerprints it has: by the names of methods and networks."""
    root = tmp_path_factory.mktemp("project")
    for floor in ("analysis", "trainables"):
        shutil.copytree(ROOT / floor, root / floor, ignore=shutil.ignore_patterns("reproductions", "__pycache__"))

    def codes() -> dict[str, str]:
        done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True)
        return dict(pair.split(":") for pair in done.stdout.split())

    codes.root = root  # type: ignore[attr-defined]
    return codes


HE_NORMAL = {name for name in MODELS if "resnet" in name} - {"resnet50-imagenet"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("pilcro.py", "def laplacian(", "def laplacian(_factor: float = 100.0, *", {"pilcro"}),
        ("models/first_order.py", "from __future__", "# a comment\nfrom __future__", set()),
        ("models/class_maps.py", "PYRAMID_MAPS = ", "PYRAMID_MAPS = 1 + ", {"top_gap"}),
        ("models/preactivation.py", 'nonlinearity="relu"', 'nonlinearity="linear"', HE_NORMAL),
        ("models/blocks.py", "class PreActivationBlock(nn.Module):", "class PreActivationBlock(nn.Module):\n    a = 1",
         {"preact-resnet18", "wide-resnet40-4"}),
        ("models/__init__.py", '    "lenet5":', '    "another": Architecture(_lenet5, 6, 12, (1, 1)),\n    "lenet5":',
         {"another"}),
        ("method.py", "    def penalty(", "    another = 1\n\n    def penalty(", set()),
        ("training.py", "from __future__", "# a comment\nfrom __future__", set()),
    ],
)  # fmt: skip
def test_what_is_reached_counts_and_nothing_else(
    file: str, old: str, new: str, changed: set[str], project: Callable[[], dict[str, str]]
) -> None:
    """Of a copy of this project with one file changed: `changed` names whose fingerprint is another."""
    path = project.root / "trainables" / file  # type: ignore[attr-defined]
    source = path.read_text()
    assert old in source
    before = project()
    path.write_text(source.replace(old, new, 1))
    try:
        after = project()
    finally:
        path.write_text(source)
    found = {name for name in after if after[name] != before.get(name)}
    assert found == changed
    assert before == project()


STALE = """
from pathlib import Path
from trainables.fingerprint import code_of
from trainables.methods import METHODS
before = code_of(METHODS["baseline"], "lenet5")
file = Path("trainables/pilcro.py")
source = file.read_text()
file.write_text(source.replace("return Penalty(", "return 100 * Penalty(") + "\\n# edited")
try:
    # what this process has loaded is trained by; which code that was cannot be told any more
    print(code_of(METHODS["pilcro"], "lenet5"), code_of(METHODS["baseline"], "lenet5") == before)
finally:
    file.write_text(source)
print(code_of(METHODS["pilcro"], "lenet5"))
"""


def test_source_that_changes_while_a_process_runs_is_of_unknown_code(project: Callable[[], dict[str, str]]) -> None:
    root = project.root  # type: ignore[attr-defined]
    done = subprocess.run([sys.executable, "-c", STALE], cwd=root, capture_output=True, text=True, check=True)
    first, last = done.stdout.splitlines()
    assert first == "None True"
    assert last.split("-")[0] == project()["pilcro"]
