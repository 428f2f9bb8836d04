"""What `page.md` says, from the record beside it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from scipy import stats

from analysis.reproductions.deformation import (
    CONVOLUTIONS,
    LAYERS,
    SENSITIVITY,
    SMOOTHNESS,
    Network,
    blocks,
    images,
)
from analysis.reproductions.pages import Record, mean_sd, number, table, tested

DOWNSAMPLING = ("subsample", "max-pool", "average-pool", "strided", "strided-relu")
WITHOUT_POOLING = ("subsample", "strided", "strided-relu")
CUT = 2.0
"""Deviations at which the initial weights' normal distribution is cut."""


def numbers(record: Record) -> dict[str, Any]:
    sigmas = sorted({row["sigma"] for row in record.trials.values()})
    networks = {
        (kind, sigma): Network(record, record.ids(downsampling=kind, sigma=sigma))
        for kind in DOWNSAMPLING
        for sigma in sigmas
    }
    heads = [f"σ = {sigma:g}" for sigma in sigmas]
    last = {key: network.at(SENSITIVITY, "down4", 0) for key, network in networks.items()}
    mean = {key: float(np.mean(list(values.values()))) for key, values in last.items()}
    falls = [
        networks[kind, larger].mean(SENSITIVITY, layer, 0) < networks[kind, smaller].mean(SENSITIVITY, layer, 0)
        for kind in DOWNSAMPLING
        for smaller, larger in itertools.pairwise(sigmas)
        for layer in LAYERS
    ]
    tests = tested(
        {
            f"{one} over {other}": (last[one, 0.0], last[other, 0.0])
            for one, other in itertools.permutations(DOWNSAMPLING, 2)
            if DOWNSAMPLING.index(one) < DOWNSAMPLING.index(other)
        }
    )
    pooled = {sigma: networks["max-pool", sigma] for sigma in sigmas}
    spread = {
        layer: float(np.std(list(pooled[0.0].at(SMOOTHNESS, layer, 0).values()), ddof=1)) for layer in CONVOLUTIONS
    }
    image = float(
        np.mean(list(record.values(SENSITIVITY, "input", ids=networks["max-pool", 0.0].ids, epoch=0).values()))
    )
    return {
        "blocks": blocks(record),
        "images": images(record),
        "seeds": len({row["seed"] for row in record.trials.values()}),
        "sigmas": sigmas,
        "kinds": DOWNSAMPLING,
        "layers": LAYERS,
        "measuring": record.total("measure_seconds")
        / (record.total("measure_seconds") + record.total("train_seconds")),
        "sensitivity": table(
            ["downsampling", *heads],
            [[kind, *(mean_sd(last[kind, sigma].values()) for sigma in sigmas)] for kind in DOWNSAMPLING],
        ),
        "smoothness": table(
            ["layer", *heads, "standard deviation"],
            [
                [
                    layer,
                    *(number(network.mean(SMOOTHNESS, layer, 0), ".3f") for network in pooled.values()),
                    f"{spread[layer]:.4f}",
                ]
                for layer in CONVOLUTIONS
            ],
        ),
        "mean": mean,
        "tests": tests,
        "pooling": [
            tests["subsample over max-pool"],
            tests["max-pool over strided"],
            tests["max-pool over strided-relu"],
        ],
        "average": [test for name, test in tests.items() if "average-pool" in name],
        "average_is_least": all(
            mean["average-pool", 0.0] < mean[kind, 0.0] for kind in DOWNSAMPLING if kind != "average-pool"
        ),
        "others": [test for name, test in tests.items() if set(name.split(" over ")) <= set(WITHOUT_POOLING)],
        "image": image,
        "amplified": all(
            networks[kind, 0.0].mean(SENSITIVITY, layer, 0) > image for kind in WITHOUT_POOLING for layer in LAYERS
        ),
        "below_image": [kind for kind in DOWNSAMPLING if mean[kind, 0.0] < image],
        "falls": falls,
        "alike_from_1_on": max(mean[key] for key in mean if key[1] >= 1),
        "spread": spread,
        "average_smoothness": pooled[0.0].profile(SMOOTHNESS, 0),
        "cut": total_variation(CUT),
        "uncut": total_variation(math.inf),
        "slices": slices(record),
    }


def total_variation(cut: float) -> float:
    """The expected normalised total variation of 3×3 filters of independent weights, normal and cut at so many
    deviations: 12 pairs of neighbours a slice over 9 weights, times E|a − b| / E|a|."""
    weights = stats.truncnorm(-cut, cut)
    grid = np.linspace(-min(cut, 9.0), min(cut, 9.0), 20001)
    density, below = weights.pdf(grid), weights.cdf(grid)
    # E|a − b| = 2 ∫ F (1 − F)
    apart = 2 * np.trapezoid(below * (1 - below), grid)
    return float(12 / 9 * apart / np.trapezoid(np.abs(grid) * density, grid))


def slices(record: Record) -> dict[str, int]:
    """Input times output channels of each convolution."""
    width, channels, found = record.one("width"), 3, {}
    for index, layer in enumerate(CONVOLUTIONS):
        out = width * 2 ** (index // 2)
        found[layer], channels = channels * out, out
    return found
