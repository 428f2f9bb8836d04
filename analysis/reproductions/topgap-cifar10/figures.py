"""Print the page's tables: `python analysis/reproductions/topgap-cifar10/figures.py [SWEEP]`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.records import read_sweep

ATTACKS = ("fgsm", "pgd20", "pgd50", "square", "apgd20", "apgd50")
Setting = tuple[int, float, int]
"""The pyramid (0, 1; −1: baseline), λ and k."""


def name(setting: Setting) -> str:
    pyramid, sparsity, pixels = setting
    if pyramid < 0:
        return "baseline"
    return f"{'pyramid' if pyramid else 'last map'}, λ = {sparsity:g}, k = {pixels}"


def shown(values: Sequence[float | None]) -> str:
    """Mean and standard deviation over seeds."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    spread = f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.3f}{spread}".replace("-", "−")


def main() -> None:
    sweep = read_sweep(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
    settings: dict[Setting, list[str]] = defaultdict(list)
    top1: dict[str, float | None] = {}
    for row in sweep.trials.to_pylist():
        top1[row["trial_id"]] = row["top1"]
        settings[
            (-1, 0.0, 0) if row["method"] == "baseline" else (int(row["fpn"]), row["sparsity"], row["pixels"])
        ].append(row["trial_id"])
    measured = {
        (row["trial_id"], row["metric"], row["component"]): row["value"]
        for row in sweep.measurements.to_pylist()
        if row["epoch"] > 0
    }

    def line(setting: Setting, columns: Sequence[tuple[str, str]]) -> str:
        trials = settings[setting]
        cells = [shown([measured.get((trial, *column)) for trial in trials]) for column in columns]
        return " | ".join(["", name(setting), shown([top1[trial] for trial in trials]), *cells, ""]).strip()

    order = sorted(settings)
    for metric, title in (
        ("robust_accuracy", "share of images whose predicted class stays"),
        ("robust_accuracy_correct", "share of images classified right and staying so"),
    ):
        print(f"\n{title}\n\n| setting | clean | " + " | ".join(ATTACKS) + " |")
        print("|---" * (2 + len(ATTACKS)) + "|")
        for setting in order:
            print(line(setting, [(metric, attack) for attack in ATTACKS]))
    print(
        "\n| setting | clean | ERF centre | ERF corner | ERF distance | CAM ‖X‖₁ | parameters (M) |\n"
        + "|---" * 7
        + "|"
    )
    for setting in order:
        of = [("erf", "centre"), ("erf", "corner"), ("erf_distance", ""), ("cam_sparsity", ""), ("parameters", "")]
        print(line(setting, of))


if __name__ == "__main__":
    main()
