"""What a plan needs is imported without torch, Ray and the libraries of data and networks: a command answers soon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "ray", "timm", "torchvision", "sklearn", "scipy", "PIL")

# all but `trainable.py`, and what holds classes of torch's
MODULES = """
from trainables import checkpoints, configuration, data, deformation, gradient_reg, kept_models, lazily, loco_reg
from trainables import method, methods, metrics, models, pilcro, top_gap, training
from trainables.metrics import __main__, flags
from trainables.metrics.locality import __main__
"""

ASKED = """
from trainables.data import describe
from trainables.metrics import METRICS, needs_masks
from trainables.metrics.flags import MetricFlags
from trainables.models import check_model, check_size
from trainables.top_gap import is_baseline, map_side

assert needs_masks(["iou"])
assert len(MetricFlags().metric_options((name for name in METRICS if name != "shift"), "measure")) == len(METRICS) - 1
assert describe("digits", "data").train_images == 1437
check_model("resnet18-imagenet", 64, True)
check_size("lenet5", 28)
assert (map_side("preact-resnet18", 64, 3, 32, True), is_baseline("resnet8", 16, 1, 8)) == (16, True)
"""

PLANNED = """
from dataclasses import dataclass
from typing import ClassVar

from sweeps.plan import SweepFlags, make_plan
from trainables.methods import METHODS

METHODS_OPTIONS = {
    "deformation": {"sigma": 1.0},
    "gradient_reg": {"alpha": 1e3},
    "loco_reg": {"gamma": 0.5, "eta": 2.0},
    "pilcro": {"alpha": 10.0},
    "top_gap": {"pixels": 4},
}


@dataclass(frozen=True)
class Flags(SweepFlags):
    NAME: ClassVar[str] = "all"

    def methods(self):
        for name, options in METHODS_OPTIONS.items():
            yield METHODS[name](**options)


assert set(METHODS_OPTIONS) == set(METHODS) - {"baseline"}
assert len(make_plan(Flags()).trials) == 2 * len(METHODS)
"""


@pytest.mark.parametrize("code", [MODULES, ASKED, PLANNED], ids=["modules", "what a plan asks", "a plan of digits"])
def test_without_what_trains(code: str) -> None:
    said = f"import sys\n{code}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split()
