"""What `page.md` says, from the record beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from analysis.multiplicity import adjust
from analysis.reproductions.deformation import (
    CONVOLUTIONS,
    LAYERS,
    MEAN,
    SENSITIVITY,
    SMOOTHNESS,
    Network,
    blocks,
    images,
)
from analysis.reproductions.pages import SIGNIFICANT, Record, mean_sd, number, p_text, table, tested


def numbers(record: Record) -> dict[str, Any]:
    strengths = sorted({row["deformation_strength"] for row in record.trials.values()})
    networks = {strength: Network(record, record.ids(deformation_strength=strength)) for strength in strengths}
    epochs = sorted({epoch for _, _, epoch in record.measured})
    weak, strong = networks[strengths[0]], networks[strengths[-1]]
    pair = weak.at(SMOOTHNESS, MEAN), strong.at(SMOOTHNESS, MEAN)
    (test,) = tested({MEAN: pair}).values()
    trends = {layer: trend(networks, layer) for layer in (*CONVOLUTIONS, MEAN)}
    adjusted = dict(zip(trends, adjust([p for _, p in trends.values()]), strict=True))
    rows = []
    for layer, (rho, _) in trends.items():
        start = [value for network in networks.values() for value in network.at(SMOOTHNESS, layer, 0).values()]
        cells = [mean_sd(network.at(SMOOTHNESS, layer).values()) for network in networks.values()]
        rows.append([layer, number(float(np.mean(start)), ".3f"), *cells, number(rho, ".2f"), p_text(adjusted[layer])])
    smoother = [layer for layer in CONVOLUTIONS if trends[layer][0] < 0 and adjusted[layer] < SIGNIFICANT]
    changes = [
        network.mean(SMOOTHNESS, layer) / network.mean(SMOOTHNESS, layer, 0) - 1
        for network in networks.values()
        for layer in CONVOLUTIONS
    ]
    curves = [network.curve(SMOOTHNESS, MEAN, epochs) for network in networks.values()]

    def validation(epoch: int) -> dict[float, float]:
        return {
            strength: float(np.mean([record.by_epoch[trial, epoch]["top1"] for trial in network.ids]))
            for strength, network in networks.items()
        }

    def rising(epoch: int) -> list[str]:
        """The layers in which the mean is above that at initialisation, with every C."""
        return [
            layer
            for layer in LAYERS
            if all(own.mean(SENSITIVITY, layer, epoch) > own.mean(SENSITIVITY, layer, 0) for own in networks.values())
        ]

    return {
        "blocks": blocks(record),
        "images": images(record),
        "drawn": record.images // record.configured("data", "task_classes"),
        "classes": record.configured("data", "task_classes"),
        "strengths": [f"{strength:g}" for strength in strengths],
        "seeds": len(weak.ids),
        "smoothness": table(
            ["layer", "at initialisation", *(f"C = {strength:g}" for strength in strengths), "ρ", "p"], rows
        ),
        "smoother": smoother,
        "smoother_p": [adjusted[layer] for layer in smoother],
        "others": [layer for layer in CONVOLUTIONS if layer not in smoother],
        "mean_p": adjusted[MEAN],
        "test": test,
        "seeds_smoother": sum(pair[1][seed] < pair[0][seed] for seed in pair[0]),
        "largest_change": max(map(abs, changes)),
        "all_fall": max(changes) < 0,
        "change_by_strength": -test.difference / weak.mean(SMOOTHNESS, MEAN),
        "test_top1": {row["top1"] for row in record.trials.values()},
        "first_epoch": validation(1),
        "later_epochs": min(min(validation(epoch).values()) for epoch in range(2, record.last + 1)),
        "first_share": [float((own[0] - own[1]) / (own[0] - own[-1])) for own in curves],
        "epochs": epochs,
        "rising": rising(record.last),
        "rising_early": rising(epochs[1]),
        "last_at_start": float(np.mean([own.mean(SENSITIVITY, "down4", 0) for own in networks.values()])),
        "last_early": [own.mean(SENSITIVITY, "down4", epochs[1]) for own in networks.values()],
        "last": [own.mean(SENSITIVITY, "down4") for own in networks.values()],
        "input": [
            float(np.mean(list(record.values(SENSITIVITY, "input", ids=own.ids).values()))) for own in (weak, strong)
        ],
    }


def trend(networks: dict[float, Network], layer: str) -> tuple[float, float]:
    """Spearman's ρ of total variation with C over all networks, and its p-value."""
    pairs = [(strength, value) for strength, own in networks.items() for value in own.at(SMOOTHNESS, layer).values()]
    found = stats.spearmanr(*zip(*pairs, strict=True))
    return float(found.statistic), float(found.pvalue)
