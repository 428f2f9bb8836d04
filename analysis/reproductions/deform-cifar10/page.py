"""What `page.md` says, from the record beside it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy import stats

from analysis.reproductions.deformation import (
    BEHIND_FIRST,
    CONVOLUTIONS,
    FIRST_BLOCK,
    LAYERS,
    MEAN,
    SENSITIVITY,
    SMOOTHNESS,
    Network,
    blocks,
    images,
    layers_of,
    profile_table,
)
from analysis.reproductions.pages import Record, Tested, layer_name, listed, mean_sd, table, tested

POOLED, STRIDED = "max-pool", "strided-relu"
SECOND_BLOCK = ("conv2_1", "conv2_2")
LAST_BLOCKS = ("conv3_1", "conv3_2", "conv4_1", "conv4_2")
MONOTONE = 0.01
"""A mean that rises and falls by more than this in total, along the epochs, is not monotone."""


def numbers(record: Record) -> dict[str, Any]:
    settings = {
        (kind, labels): Network(record, record.ids(downsampling=kind, labels=labels))
        for labels in ("real", "random")
        for kind in (POOLED, STRIDED)
    }
    start, last = 0, record.last
    columns = {f"{kind}: at initialisation": (settings[kind, "real"], start) for kind in (POOLED, STRIDED)}
    columns |= {f"{kind}, {labels}: trained": (network, last) for (kind, labels), network in settings.items()}
    epochs = sorted({epoch for _, _, epoch in record.measured})
    named = {f"{kind.replace('-', '_')}_{labels}": network for (kind, labels), network in settings.items()}
    return {
        "layers": LAYERS,
        "blocks": blocks(record),
        "images": images(record),
        "plain": record.one("crop") == 0 and not record.configured("data", "flip"),
        "seeds": len({row["seed"] for row in record.trials.values()}),
        "accuracies": accuracies(record, settings),
        "learnt": all(row["train_top1"] > 0.9995 for (_, epoch), row in record.by_epoch.items() if epoch == last),
        "pooling_is_worth": 100
        * (
            mean(record.column("top1", settings[POOLED, "real"].ids))
            - mean(record.column("top1", settings[STRIDED, "real"].ids))
        ),
        "sensitivity": profile_table(SENSITIVITY, columns),
        **named,
        **{f"trained_{name}": trained(network) for name, network in named.items()},
        **{f"apart_{labels}": apart(settings, labels, last) for labels in ("real", "random")},
        "apart_at_start": apart(settings, "real", start),
        "rougher": {
            kind: tested(
                {
                    layer: (
                        settings[kind, "real"].at(SMOOTHNESS, layer),
                        settings[kind, "random"].at(SMOOTHNESS, layer),
                    )
                    for layer in LAST_BLOCKS
                }
            )
            for kind in (POOLED, STRIDED)
        },
        "along": along(record, settings, epochs),
        "SENSITIVITY": SENSITIVITY,
        "SMOOTHNESS": SMOOTHNESS,
        "MEAN": MEAN,
    }


def mean(values: dict[int, float]) -> float:
    return float(np.mean(list(values.values())))


def accuracies(record: Record, settings: dict[tuple[str, str], Network]) -> str:
    rows = []
    for (kind, labels), network in settings.items():
        train = [record.by_epoch[trial, record.last]["train_top1"] for trial in network.ids]
        test = record.column("top1", network.ids).values()
        rows.append([f"{kind}, {labels}", mean_sd(train), mean_sd(test), str(len(network.ids))])
    return table(["network, labels", "training Top-1", "test Top-1", "n"], rows)


def trained(network: Network) -> dict[str, Any]:
    """Trained less at initialisation, by metric: tests of each layer, over which Holm's p goes."""
    found: dict[str, Any] = {}
    for metric, key in ((SENSITIVITY, "sensitivity"), (SMOOTHNESS, "smoothness")):
        tests = tested(
            {layer: (network.at(metric, layer, 0), network.at(metric, layer)) for layer in layers_of(metric)}
        )
        first = [name for name, _ in itertools.takewhile(lambda item: item[1].rises, tests.items())]
        found[key] = {
            "tests": tests,
            "rising_first": len(first),
            "rising_p": [tests[layer].p for layer in first],
            "falling_p": [test.p for layer, test in tests.items() if layer != "conv1_1"],
            "falls_elsewhere": all(test.falls for layer, test in tests.items() if layer != "conv1_1"),
            "most_in": max(tests, key=lambda layer: tests[layer].difference),
        }
    return found


def apart(settings: dict[tuple[str, str], Network], labels: str, epoch: int) -> dict[str, Any]:
    """Strided-relu less max-pool, by metric: tests of each layer, and the mean magnitude over layers, by seed."""
    pooled, strided = settings[POOLED, labels], settings[STRIDED, labels]
    found: dict[str, Any] = {}
    for metric, key in ((SENSITIVITY, "sensitivity"), (SMOOTHNESS, "smoothness")):
        pairs = {
            layer: (pooled.at(metric, layer, epoch), strided.at(metric, layer, epoch)) for layer in layers_of(metric)
        }
        tests = tested(pairs)
        behind = {layer: test for layer, test in tests.items() if layer in BEHIND_FIRST}
        magnitudes = [
            float(np.mean([abs(two[seed] - one[seed]) for one, two in pairs.values()])) for seed in pairs["conv1_1"][0]
        ]
        profiles = [list(network.profile(metric, epoch).values()) for network in (pooled, strided)]
        found[key] = {
            "tests": tests,
            "behind": list(behind.values()),
            "shown": [test for test in behind.values() if test.rises],
            "not_shown": [layer for layer, test in behind.items() if not test.rises],
            "first": [tests[layer] for layer in FIRST_BLOCK],
            "magnitudes": magnitudes,
            "share": np.mean(magnitudes) / np.mean(profiles),
            "largest_in": max(tests, key=lambda layer: tests[layer].difference),
            "alike": float(stats.pearsonr(*profiles).statistic),
            "in_the_mean": only(tested({MEAN: (pooled.at(metric, MEAN, epoch), strided.at(metric, MEAN, epoch))})),
        }
    found["spread"] = [
        float(np.mean([np.std(list(network.at(SENSITIVITY, layer, epoch).values()), ddof=1) for layer in LAYERS]))
        for network in (pooled, strided)
    ]
    found["peaks"] = [max(LAYERS, key=network.profile(SENSITIVITY, epoch).__getitem__) for network in (pooled, strided)]
    found["last_below_second_block"] = all(
        network.mean(SENSITIVITY, "down4", epoch) < network.mean(SENSITIVITY, layer, epoch)
        for network in (pooled, strided)
        for layer in SECOND_BLOCK
    )
    # of the filters' total variation with the layer's place
    found["trend"] = {
        kind: float(
            stats.spearmanr(range(len(layers)), [network.mean(SMOOTHNESS, layer, epoch) for layer in layers])[0]
        )
        for kind, network, layers in (("pooled", pooled, CONVOLUTIONS), ("strided", strided, CONVOLUTIONS[2:]))
    }
    return found


def only(tests: dict[str, Tested]) -> Tested:
    (test,) = tests.values()
    return test


def along(record: Record, settings: dict[tuple[str, str], Network], epochs: list[int]) -> dict[str, Any]:
    """What goes up and down between initialisation and the end, of the mean over seeds."""
    found: dict[str, Any] = {"epochs": epochs}
    both: dict[str, dict[str, list[str]]] = {SENSITIVITY: {}, SMOOTHNESS: {}}
    for (kind, labels), network in settings.items():
        name = f"{kind}, {labels}"
        for metric in both:
            steps = {layer: np.diff(network.curve(metric, layer, epochs)) for layer in layers_of(metric)}
            both[metric][name] = [
                layer_name(layer)
                for layer, own in steps.items()
                if min(own[own > 0].sum(), -own[own < 0].sum()) > MONOTONE
            ]
        smooth = network.curve(SMOOTHNESS, MEAN, epochs)
        accuracy = [
            np.mean([record.by_epoch[trial, epoch]["train_top1"] for trial in network.ids]) for epoch in epochs[1:]
        ]
        sensitive = {layer: network.curve(SENSITIVITY, layer, epochs) for layer in LAYERS}
        found[name] = {
            "share_of_fall": dict(zip(epochs, (smooth[0] - smooth) / (smooth[0] - smooth[-1]), strict=True)),
            "train_top1": dict(zip(epochs[1:], map(float, accuracy), strict=True)),
            "falling_first": [layer for layer, own in sensitive.items() if own[1] < own[0]],
            "least_at": {layer: epochs[int(own.argmin())] for layer, own in sensitive.items()},
            "last": sensitive["down4"],
        }
    found["not_monotone"] = {
        metric: "; ".join(f"{name}: {listed(layers)}" for name, layers in own.items() if layers)
        for metric, own in both.items()
    }
    found["smooth_is_monotone"] = not any(both[SMOOTHNESS][f"{kind}, real"] for kind in (POOLED, STRIDED))
    found["from_conv3_2_on"] = all(
        found[f"{kind}, {labels}"]["falling_first"] == list(LAYERS[LAYERS.index("conv3_2") :])
        for kind, labels in ((POOLED, "real"), (STRIDED, "real"), (POOLED, "random"))
    )
    return found
