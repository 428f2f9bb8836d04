"""What `page.md` says, from the record beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.comparisons import comparisons
from analysis.paper.printed import claims
from analysis.reproductions.pages import Record, mean_sd, number, table, tested

PARTS = ("all", "lower", "upper")
PAIRS = {"c-n": "m(c, n)", "n-co": "m(n, co)"}
RATIOS = {"n-c": "r(n, c)", "co-n": "r(co, n)"}
PLAIN = "plain L2"
UNTRAINED = f"{PLAIN}, at initialisation"


def numbers(record: Record) -> dict[str, Any]:
    plain = record.ids(method="baseline")
    factors = sorted({row["modulation"] for row in record.trials.values()} - {None})
    settings = {PLAIN: plain, **{f"c = {factor:g}": record.ids(modulation=factor) for factor in factors}}
    ratios = {
        (metric, pair, layer): list(record.values(metric, f"{pair}/{layer}", ids=plain).values())
        for metric in ("weight_ratio", "weight_ratio_absolute")
        for pair in RATIOS
        for layer in layers(record)
    }
    coefficients = {
        name: {
            layer: float(np.mean(list(record.values(name, layer, ids=settings["c = 1.5"], epoch=0).values())))
            for layer in layers(record)
        }
        for name in ("gamma", "eta")
    }
    locality = {UNTRAINED: localities(record, plain, 0)}
    locality |= {f"{name}, trained": localities(record, ids, record.last) for name, ids in settings.items()}
    trained = [np.mean(values) for name, own in locality.items() if name != UNTRAINED for values in own.values()]
    whole = [np.mean(own[pair, "all"]) for name, own in locality.items() if name != UNTRAINED for pair in PAIRS]
    errors = {name: {s: 100 * (1 - v) for s, v in record.column("top1", ids).items()} for name, ids in settings.items()}
    tests = tested({name: (errors[PLAIN], own) for name, own in errors.items() if name != PLAIN})
    rows = comparisons(record.sweep).tested
    return {
        "seeds": len(plain),
        "milestones": [str(epoch) for epoch in record.configured("training", "milestones")],
        "weight_decay": record.one("weight_decay"),
        "cpu_hours": (record.total("train_seconds") + record.total("measure_seconds")) / 3600,
        "factors": factors,
        "signed": {(layer, pair): ratios["weight_ratio", pair, layer] for layer in layers(record) for pair in RATIOS},
        "absolute": {
            (layer, pair): ratios["weight_ratio_absolute", pair, layer] for layer in layers(record) for pair in RATIOS
        },
        "ratio_table": table(
            ["layer", *(f"{kind} {title}" for kind in ("signed", "absolute") for title in RATIOS.values())],
            [
                [
                    layer,
                    *(
                        between(ratios[metric, pair, layer])
                        for metric in ("weight_ratio", "weight_ratio_absolute")
                        for pair in RATIOS
                    ),
                ]
                for layer in layers(record)
            ],
        ),
        "all_positive": all(
            value > 0 for key, values in ratios.items() if key[0] == "weight_ratio_absolute" for value in values
        ),
        "spread": {
            layer: max(
                max(values) / min(values)
                for key, values in ratios.items()
                if key[0] == "weight_ratio_absolute" and key[2] == layer
            )
            for layer in layers(record)
        },
        "layers": layers(record),
        "coefficients": coefficients,
        "below": [layer for layer, value in coefficients["gamma"].items() if value < 1],
        "above": [layer for layer, value in coefficients["eta"].items() if value > 1],
        "strongest": [
            sorted(coefficients["gamma"], key=coefficients["gamma"].__getitem__)[:2],
            sorted(coefficients["eta"], key=coefficients["eta"].__getitem__)[-2:],
        ],
        "negative_centres": negative_centres(record, plain),
        "below_neighbours": sum(
            value < 0
            for layer in layers(record)
            for value in record.values("locality", f"c-n/{layer}", ids=plain).values()
        ),
        "networks_layers": len(plain) * len(layers(record)),
        "locality": table(
            ["", *(f"{title}: {part}" for title in PAIRS.values() for part in PARTS)],
            [[name, *(mean_sd(values) for values in own.values())] for name, own in locality.items()],
        ),
        "locality_is_negative": max(trained) < 0,
        "largest_locality": -min(whole),
        "errors": table(
            ["", "error in %", "difference to plain L2", "p (paired t)", "p after Holm"],
            [
                [PLAIN, mean_sd(errors[PLAIN].values(), ".2f"), "", "", ""],
                *(error_row(name, errors, tests[name]) for name in tests),
            ],
        ),
        "least_p": min(test.comparison.p_value for test in tests.values()),
        "none_shown": all(test.p > 0.05 for test in tests.values()),
        "at_1_5": tests["c = 1.5"],
        "spread_at_1_5": float(
            np.std([errors["c = 1.5"][seed] - errors[PLAIN][seed] for seed in errors[PLAIN]], ddof=1)
        ),
        "needed": next(row.seeds_needed for row in rows if row.group.values["modulation"] == 1.5),
        "papers_gain": papers_error("Standard Regular.") - papers_error("LOCO-REG"),
    }


def layers(record: Record) -> list[str]:
    return [
        component.removeprefix("n-c/")
        for metric, component, epoch in record.measured
        if (metric, epoch) == ("weight_ratio", 0) and component.startswith("n-c/")
    ]


def between(values: Sequence[float]) -> str:
    """Mean, least and greatest."""
    return f"{number(float(np.mean(values)), '.2f')} ({number(min(values), '.2f')} to {number(max(values), '.2f')})"


def localities(record: Record, ids: Sequence[str], epoch: int) -> dict[tuple[str, str], list[float]]:
    return {
        (pair, part): list(record.values("locality", f"{pair}/{part}", ids=ids, epoch=epoch).values())
        for pair in PAIRS
        for part in PARTS
    }


def negative_centres(record: Record, ids: Sequence[str]) -> int:
    """Of the trained networks' layers those whose mean weight at the centre is negative: with m_n = r m_c the sign of
    m_c is that of (m_c − m_n) / (1 − r); m(c, n) of a layer has the sign of m_c − m_n."""
    negative = 0
    for layer in layers(record):
        difference = record.values("locality", f"c-n/{layer}", ids=ids)
        ratio = record.values("weight_ratio", f"n-c/{layer}", ids=ids)
        negative += sum(difference[seed] / (1 - ratio[seed]) < 0 for seed in ratio)
    return negative


def error_row(name: str, errors: dict[str, dict[int, float]], test: Any) -> list[str]:
    difference = [errors[name][seed] - errors[PLAIN][seed] for seed in errors[PLAIN]]
    signed = f"{'+' if test.difference > 0 else ''}{mean_sd(difference, '.2f')}"
    return [name, mean_sd(errors[name].values(), ".2f"), signed, f"{test.comparison.p_value:.2f}", f"{test.p:.2g}"]


def papers_error(column: str) -> float:
    (claim,) = (c for c in claims() if (c.table, c.row, c.column) == ("loco-5", "CIFAR-10 | VGG13", column))
    return claim.value
