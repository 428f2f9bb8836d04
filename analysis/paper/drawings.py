"""How the figures of the papers are drawn from a record: one function for each kind."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from analysis.by_epoch import series
from analysis.correlations import correlations, panels
from analysis.figures import (
    cam_panels,
    corruption_table,
    curves,
    layer_profile,
    map_panels,
    metric_figure,
    panel_curves,
    saliency_figure,
    strength_figure,
)
from analysis.groups import Row, evenly, quantities
from analysis.options import UNKNOWN, Options, options_of, told_apart
from analysis.paper.choice import (
    Drawn,
    Rows,
    _by_layer,
    _first,
    _maps,
    _mean,
    _mean_map,
    _mean_maps,
    _means,
    _of,
    _parts,
    _ranges,
    _rows,
    _settings,
    _some_settings,
    _Spec,
    _stem,
    map_names,
)
from analysis.records import Sweep
from analysis.tipping_points import figure_groups, tipping_points

_COLUMNS = 6


def _epochs(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    rows = _rows(sweep, spec)
    chosen = {column: _some_settings(rows, column) for column in spec.names}
    ids = {row["trial_id"] for settings in chosen.values() for _, trials in settings for row in trials}
    by_trial = series(sweep, ids, spec.names)
    for column in spec.names:
        groups = {}
        for name, trials in chosen[column]:
            own = [by_trial[row["trial_id"]] for row in trials if row["trial_id"] in by_trial]
            epochs = np.unique(np.concatenate([one.epochs for one in own])) if own else np.array([], int)
            values = np.full((len(own), len(epochs)), math.nan)
            for index, one in enumerate(own):
                values[index, np.searchsorted(epochs, one.epochs)] = one.values[column]
            if np.isfinite(values).any():
                groups[name] = epochs, values
        if groups:
            figure = curves(groups, metric=column, log=column == "total_variation")
            yield Drawn(f"-{column}", figure, *_means(groups, "epoch", column))
            if spec.draw is _first_epochs:
                zoomed = {
                    name: (epochs[: max(2, len(epochs) // 5)], values[:, : max(2, len(epochs) // 5)])
                    for name, (epochs, values) in groups.items()
                }
                figure = curves(zoomed, metric=column, log=column == "total_variation")
                yield Drawn(f"-{column}-first", figure, *_means(zoomed, "epoch", column))


def _first_epochs(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    yield from _epochs(sweep, spec)


def _epochs_and_landscapes(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    yield from _epochs(sweep, spec)
    found = _mean_maps(sweep, _rows(sweep, spec), "importance_landscape")
    if found:
        figure = map_panels(found, label="importance (mean square 1)", columns=_COLUMNS)
        yield Drawn("-landscapes", figure, *_ranges(found))


def _trajectories(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    """Measurements along the epochs: the mean over layers, and each layer, by setting."""
    for metric in spec.names:
        rows = _rows(sweep, spec)
        by_trial = _by_layer(sweep, rows, metric)
        for part, stem, own in _parts(rows, spec):
            layers: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
            for name, trials in evenly(_settings(own, [metric]), _MAX_LINES):
                series = [by_trial[row["trial_id"]] for row in trials if row["trial_id"] in by_trial]
                epochs = sorted({epoch for one in series for epoch in one})
                for layer in dict.fromkeys(key for one in series for at in one.values() for key in at):
                    values = [[one.get(epoch, {}).get(layer, math.nan) for epoch in epochs] for one in series]
                    layers.setdefault(layer, {})[name] = np.array(epochs), np.array(values)
            means = layers.pop("", {})
            if means:
                title = ", ".join(text for text in (part, "mean over layers") if text)
                figure = curves(means, metric=metric, band="sd2", title=title)
                yield Drawn(_stem(metric, stem), figure, *_means(means, "epoch", metric))
            if layers:
                figure = panel_curves(layers, metric=metric, title=part)
                shown: Rows = []
                for layer, groups in layers.items():
                    columns, own_rows = _means(groups, "epoch", metric)
                    shown += [(layer, *row) for row in own_rows]
                yield Drawn(_stem(metric, stem, "layers"), figure, (("layer", False), *columns), shown)


_MAX_LINES = 6


def _paths(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    rows = _rows(sweep, spec)
    shown = []
    kind_of = {row["trial_id"]: options_of(row["measured"], "initial_landscape") or UNKNOWN for row in rows}
    measured: set[Options] = set()
    for name, title in (("initial_landscape", "importance at initialisation"), ("path_importance", "path counts")):
        means = _means_by_options(_maps(sweep, rows, name, 0, np.float32), kind_of)
        measured = measured or {*means}
        words = told_apart(measured) if len(measured) > 1 else dict.fromkeys(measured, "")
        for kind in sorted(measured & means.keys(), key=words.__getitem__):
            shown.append((", ".join(part for part in (title, words[kind]) if part), means[kind]))
    yield Drawn("", map_panels(shown, label="importance (mean square 1)", columns=2), *_ranges(shown))


def _means_by_options(maps: Mapping[str, np.ndarray], kind_of: Mapping[str, Options]) -> dict[Options, np.ndarray]:
    """The mean over the trials that were measured with the same options, of a map of each."""
    kinds = {kind_of[trial] for trial in maps}
    return {kind: _mean_map([one for trial, one in maps.items() if kind_of[trial] == kind]) for kind in kinds}


def _saliency(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    """The saliency maps of the first images by strength, for each way of explaining."""
    rows = _first(_rows(sweep, spec))
    names = map_names(sweep, {row["trial_id"] for row in rows})
    explained = {name.split("/")[2] for name in names if name.startswith("saliency/") and " on " not in name}
    # others are those of class activation maps
    images = [name for name in names if name.startswith("image/") and name.split("/")[1] in explained]
    pictures = [_maps(sweep, rows, name) for name in images]
    ways = sorted({name.split("/")[1] for name in names if name.startswith("saliency/") and " on " not in name})
    settings = _settings(rows)
    chosen = [settings[i] for i in sorted({round(i) for i in np.linspace(0, len(settings) - 1, 7)})]
    for way in ways:
        numbers = [name.split("/")[1] for name in images]
        maps = {number: _maps(sweep, rows, f"saliency/{way}/{number}") for number in numbers}
        first = [next(iter(picture.values())) for picture in pictures if picture]
        shown: list[tuple[str, list[np.ndarray]]] = [(f"image; {way}", first)]
        for title, trials in chosen:
            own = [maps[number].get(trials[0]["trial_id"]) for number in numbers]
            if all(one is not None for one in own):
                shown.append((title, [one for one in own if one is not None]))
        if len(shown) > 1:
            figure = saliency_figure(shown, _classes(sweep, rows, numbers))
            panels_of = [
                (f"{title}, image {n}", m) for title, maps_of in shown for n, m in zip(numbers, maps_of, strict=True)
            ]
            yield Drawn(f"-{way}", figure, *_ranges(panels_of), images=len(first))


def _cams(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    """Class activation maps `cam/<image>` over `image/<image>` by setting."""
    rows = _first(_rows(sweep, spec))
    names = map_names(sweep, {row["trial_id"] for row in rows})
    # those of another data set have images of their own, which may not be there
    numbers = [name.split("/")[1] for name in names if name.startswith("cam/") and " on " not in name][:_COLUMNS]
    shown: list[tuple[str, list[tuple[np.ndarray, np.ndarray | None]]]] = []
    pictures = {number: _maps(sweep, rows, f"image/{number}") for number in numbers}
    plain = {number: _unit(next(iter(pictures[number].values()))) for number in numbers}
    maps = {number: _maps(sweep, rows, f"cam/{number}") for number in numbers}
    for title, trials in _some_settings(rows):
        trial = trials[0]["trial_id"]
        if all(trial in maps[number] for number in numbers):
            shown.append((title, [(plain[number], maps[number][trial]) for number in numbers]))
    panels_of = [
        (f"{title}, image {n}", cam)
        for title, own in shown
        for n, (_, cam) in zip(numbers, own, strict=True)
        if cam is not None
    ]
    shown.insert(0, ("image", [(plain[number], None) for number in numbers]))
    figure = cam_panels(shown, _classes(sweep, rows, numbers))
    yield Drawn("", figure, *_ranges(panels_of), images=len(numbers))


def _unit(image: np.ndarray) -> np.ndarray:
    """The image with numbers from 0 to 1."""
    low, high = float(image.min()), float(image.max())
    return (image - low) / (high - low or 1)


def _classes(sweep: Sweep, rows: Sequence[Row], numbers: Sequence[str]) -> list[str]:
    """The class of each image by its name, or by its number where the data set has no names; of records from before
    classes were recorded, which image it is."""
    names: list[str] = next((json.loads(row["class_names"]) for row in rows if row["class_names"]), [])
    found = []
    for number in numbers:
        label = next((int(one.item()) for one in _maps(sweep, rows, f"label/{number}").values()), None)
        named = label is not None and label < len(names)
        found.append(f"image {number}" if label is None else names[label] if named else f"class {label}")
    return found


def _accuracy(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    result = tipping_points(sweep, reference_below=spec.limit)
    groups = figure_groups(result)
    rows = [(group.label, x, y) for group in groups for x, y in zip(group.strength, group.score, strict=True)]
    columns = (("setting", False), ("alpha", True), ("top1", True))
    yield Drawn("", strength_figure(groups, share=result.share), columns, rows)


def _metrics(sweep: Sweep, spec: _Spec, strength: str = "alpha") -> Iterator[Drawn]:
    chosen = [name for name, quantity in quantities(sweep).items() if quantity.metric in spec.names]
    result = correlations(sweep, strength=strength, metrics=chosen, reference_below=spec.limit)
    images = {value.n for test in result.tests for value in test.values}
    drawn = panels(result)
    rows = [(panel.title, x, y) for panel in drawn for x, y in zip(panel.strength, panel.value, strict=True)]
    columns = (("metric", False), (strength, True), ("value", True))
    figure = metric_figure(drawn, strength=strength, excluded="beyond the tipping point")
    yield Drawn("", figure, columns, rows, images=next(iter(images)) if len(images) == 1 else None)


def _by_pixels(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    yield from _metrics(sweep, spec, "pixels")


def _by_deformation(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    yield from _profile(sweep, spec, (_END,), ordered=True, start=True)
    yield from _metrics(sweep, spec, "deformation_strength")


_START, _END = "initialisation", "trained"


def _profile(
    sweep: Sweep, spec: _Spec, moments: Sequence[str] = (_START, _END), *, ordered: bool = False, start: bool = False
) -> Iterator[Drawn]:
    """A measurement by layer, at initialisation and after training, by setting. With `start` the mean over all trials
    at initialisation is a line of the figure."""
    rows = _rows(sweep, spec)
    for metric in spec.names:
        measured = _by_layer(sweep, rows, metric)
        for part, stem, own in _parts(rows, spec):
            trials_of = [measured[row["trial_id"]] for row in own if row["trial_id"] in measured]
            layers = list(dict.fromkeys(layer for trial in trials_of for at in trial.values() for layer in at if layer))
            kinds = {layer: "downsampling" for layer in layers if re.fullmatch(r"down\d+", layer)}
            for moment in moments:
                groups = {}
                for name, trials in _some_settings(own, metric):
                    values = []
                    for trial in trials:
                        epochs = measured.get(trial["trial_id"], {})
                        # a diverged network has no value at the end
                        found = epochs.get(0 if moment == _START else trial["epochs"])
                        if found:
                            values.append([found.get(layer, math.nan) for layer in layers])
                    if np.isfinite(values).any():
                        groups[name] = layers, np.array(values, dtype=float)
                if groups:
                    at_start = [_mean(one.get(0, {}).get(layer, math.nan) for one in trials_of) for layer in layers]
                    title = ", ".join(text for text in (part, "" if len(moments) == 1 else moment) if text)
                    figure = layer_profile(
                        groups,
                        metric=metric,
                        layers=layers,
                        kinds=kinds,
                        ordered=ordered,
                        reference=("mean at initialisation", at_start) if start else None,
                        title=title,
                    )
                    name = _stem(metric, stem, moment)
                    yield Drawn(name, figure, *_means(groups, "layer", metric))


_PARTS = ("all", "lower", "upper", "lower-slices", "upper-slices")


def _locality(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    """`locality` of each layer after training, its component "c-n/<layer>", by setting; a figure for each pair."""
    rows = _rows(sweep, spec)
    table = _of(sweep, "measurements", {row["trial_id"] for row in rows})
    measured = table.filter(pc.and_(pc.equal(table["metric"], "locality"), pc.greater(table["epoch"], 0))).to_pylist()
    by_trial: dict[str, dict[str, float]] = {}
    for row in measured:
        by_trial.setdefault(row["trial_id"], {})[row["component"]] = row["value"]
    components = [it.rpartition("/") for it in dict.fromkeys(row["component"] for row in measured)]
    for pair in dict.fromkeys(pair for pair, _, _ in components):
        layers = [layer for of, _, layer in components if of == pair and layer not in _PARTS]
        groups = {}
        for name, trials in _some_settings(rows):
            found = [by_trial[trial["trial_id"]] for trial in trials if trial["trial_id"] in by_trial]
            values = [[one.get(f"{pair}/{layer}", math.nan) for layer in layers] for one in found]
            if values:
                groups[name] = layers, np.array(values, dtype=float)
        if groups and layers:
            near, far = pair.rpartition("/")[2].split("-")
            figure = layer_profile(groups, metric=f"locality m({near}, {far})", layers=layers)
            yield Drawn(f"-{pair.replace('/', '-')}", figure, *_means(groups, "layer", "locality"))


def _profile_at_start(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    yield from _profile(sweep, spec, (_START,), ordered=bool(spec.parts))


def _profile_at_end(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    yield from _profile(sweep, spec, (_END,), start=True)


def _levels(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    """A measurement against its level (the share of pixels removed, an attack's steps), by setting."""
    rows = _rows(sweep, spec)
    table = _of(sweep, "measurements", {row["trial_id"] for row in rows})
    for metric in spec.names:
        measured = table.filter(pc.and_(pc.equal(table["metric"], metric), pc.is_valid(table["level"]))).to_pylist()
        for component in sorted({row["component"] for row in measured}):
            groups = {}
            own = [row for row in measured if row["component"] == component]
            levels = sorted({row["level"] for row in own})
            if len(levels) < 2:
                continue
            for name, trials in _some_settings(rows, metric):
                values = []
                for trial in trials:
                    found = {row["level"]: row["value"] for row in own if row["trial_id"] == trial["trial_id"]}
                    if found:
                        values.append([found.get(level, math.nan) for level in levels])
                if values:
                    array = np.array(values, dtype=float)
                    area = float(np.trapezoid(np.nanmean(array, 0), levels)) / (levels[-1] - levels[0])
                    groups[f"{name}: mean {area:.3f}"] = np.array(levels), array
            if groups:
                figure = curves(groups, metric=metric, band="ci", x=_LEVELS.get(metric, "level"))
                yield Drawn(f"-{component}" if component else "", figure, *_means(groups, "level", metric))


_LEVELS = {"salience_ablation": "pixels replaced, most relevant first"}


def _steps(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    """A measurement under attack against the attack's steps, which end its component (`pgd20`), by setting; a figure
    for each attack and ε that has several numbers of steps."""
    rows = _rows(sweep, spec)
    table = _of(sweep, "measurements", {row["trial_id"] for row in rows})
    for metric in spec.names:
        attacks: dict[tuple[str, float], dict[str, dict[int, float]]] = {}
        for row in table.filter(pc.equal(table["metric"], metric)).to_pylist():
            parts = re.fullmatch(r"(\D+)(\d+)", row["component"] or "")
            if parts and row["level"] is not None and row["value"] is not None:
                by_trial = attacks.setdefault((parts[1], row["level"]), {})
                by_trial.setdefault(row["trial_id"], {})[int(parts[2])] = row["value"]
        for (attack, epsilon), by_trial in sorted(attacks.items()):
            steps = sorted({step for values in by_trial.values() for step in values})
            groups = {}
            for name, trials in _some_settings(rows, metric):
                found = [by_trial[trial["trial_id"]] for trial in trials if trial["trial_id"] in by_trial]
                if found:
                    values = [[one.get(step, math.nan) for step in steps] for one in found]
                    groups[name] = np.array(steps, dtype=float), np.array(values, dtype=float)
            if groups and len(steps) > 1:
                figure = curves(groups, metric=metric, band="ci", x=f"steps of {attack.upper()} (ε = {epsilon:.3g})")
                yield Drawn(f"-{attack}-{epsilon:.3g}", figure, *_means(groups, "steps", metric))


def _corruptions(sweep: Sweep, spec: _Spec) -> Iterator[Drawn]:
    """`corruption_accuracy`, its component "category/corruption", its level the severity; the mean over seeds."""
    rows = _rows(sweep, spec)
    table = _of(sweep, "measurements", {row["trial_id"] for row in rows})
    measured = table.filter(pc.equal(table["metric"], spec.names[0])).to_pylist()
    settings: dict[str, dict[tuple[str, str], dict[int, float]]] = {}
    for name, trials in _some_settings(rows, spec.names[0]):
        ids = {row["trial_id"] for row in trials}
        found: dict[tuple[str, str], dict[int, list[float]]] = {}
        for row in measured:
            if row["trial_id"] in ids:
                category, _, corruption = row["component"].partition("/")
                by_severity = found.setdefault((category, corruption), {})
                by_severity.setdefault(int(row["level"] or 0), []).append(row["value"])
        if found:
            settings[name] = {
                key: {severity: float(np.mean(values)) for severity, values in by_severity.items()}
                for key, by_severity in found.items()
            }
    shown: Rows = [
        (name, corruption, float(severity), value)
        for name, found in settings.items()
        for (_, corruption), by_severity in found.items()
        for severity, value in by_severity.items()
    ]
    columns = (("setting", False), ("corruption", False), ("severity", True), (spec.names[0], True))
    yield Drawn("", corruption_table(settings, metric=spec.names[0]), columns, shown)
