"""Measure the trained networks of a sweep that kept them (`--keep-models`), and add the rows to its record.

    python -m trainables.metrics results/gradient_reg --metrics faithfulness,entropy --saliency-images 500
    python -m trainables.metrics results/gradient_reg --metrics saliency_maps --dataset mnist

Nothing is trained. What was measured before by the same metric on the same data set is replaced. With --dataset,
networks are measured on another data set of as many channels, resized to the size they were trained at; the names of
what is measured there end in ` on <data set>`. What was also measured at initialisation or along the epochs is measured
with the same options only: its rows are compared over epochs.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from analysis.command_line import InputError, parse, run
from analysis.records import add_measurements, read_table
from analysis.schema import TABLES, direction, unit
from trainables.configuration import TrialConfig
from trainables.data import DataConfig, Images, StreamedImages, identify, load_each, load_others
from trainables.kept_models import KeptModel, model_file, read_model, without_model
from trainables.lazily import nn, torch
from trainables.metrics import METRICS, needs_masks
from trainables.metrics.flags import MetricFlags, separated
from trainables.metrics.moment import Moment, known, known_maps, map_row
from trainables.training import build_network

_DEFAULTS: dict[str, Any] = {entry.name: entry.default for entry in dataclasses.fields(DataConfig)}


@dataclass(frozen=True, kw_only=True)
class Flags(MetricFlags):
    """What to measure, and on what."""

    sweep: Positional[str]
    """The sweep's folder or s3:// prefix, <storage>/<name>."""
    metrics: tuple[str, ...] = ()
    """Names of metrics, separated by commas or spaces."""
    trials: tuple[str, ...] = ()
    """Only these trials, by id; default: every completed one."""
    dataset: str | None = None
    """Measure on this data set; default: the one that was trained on (needed for folder: and parquet: sets, whose
    place the record does not keep)."""
    data_root: str = "data"
    """Where named data sets are."""
    exclude: tuple[str, ...] = ()
    """Files and folders of --dataset and --shift that are no data (of what was trained on: the same as then)."""
    device: str | None = None
    """cpu or cuda; default: cuda where there is one."""


def measure_afterwards(flags: Flags) -> int:
    """Measure and record; the number of trials measured. Raises `InputError` for what cannot be measured."""
    options = flags.metric_options(flags.metrics, "metrics")
    if not options:
        raise InputError(f"metrics: none, allowed are {', '.join(METRICS)}")
    if flags.measure_every:
        raise InputError(f"measure_every: {flags.measure_every}, allowed is 0: what is left of a training is its end")
    _device(flags.device)
    rows = _chosen(flags)
    missing = without_model(flags.sweep, [row["trial_id"] for row in rows])
    if missing:
        number = len(rows) - len(missing)
        raise InputError(
            f"{flags.sweep}/models: {len(missing)} of {len(rows)} networks were not kept, {missing[0]} among them; "
            + (
                f"--trials chooses from the {number} that were"
                if number
                else "another --name with --keep-models keeps them"
            )
            + ", recorded trials are not trained again"
        )
    models = {row["trial_id"]: model_file(flags.sweep, row["trial_id"]) for row in rows}
    data_of = _Data(flags)
    along = _along(flags.sweep, {row["trial_id"]: json.loads(row["config"]) for row in rows})
    for number, row in enumerate(rows, 1):
        start = time.perf_counter()
        config = TrialConfig.from_canonical(json.loads(row["config"]))
        kept = read_model(models[row["trial_id"]])
        data = data_of(config, kept)
        before = json.loads(row["measured"] or "{}")
        # how often something was measured along the epochs stays true
        chosen = {
            name: {**option, **{key: value for key, value in before.get(name, {}).items() if key == "every"}}
            for name, option in options.items()
        }
        earlier = along.get(row["trial_id"], set()) if data.name == config.data.dataset else set()
        differing = {name for name, option in chosen.items() if name in before and before[name] != option}
        measurements, maps = _measure(flags, config, kept, data, options, dict.fromkeys(differing, earlier))
        measured = {_on(name, config, data): chosen[name] for name in options}
        add_measurements(flags.sweep, row["trial_id"], measurements, maps, measured)
        seconds = time.perf_counter() - start
        print(f"{number}/{len(rows)} {row['trial_id']}: {len(measurements)} rows, {len(maps)} maps, {seconds:.1f} s")
    return len(rows)


def _chosen(flags: Flags) -> list[dict[str, Any]]:
    rows = read_table(flags.sweep, "trials", ["trial_id", "status", "config", "measured"]).to_pylist()
    completed = {row["trial_id"]: row for row in rows if row["status"] == "completed"}
    wanted = separated(flags.trials)
    for trial_id in wanted:
        if trial_id not in completed:
            raise InputError(f"trials: {trial_id!r} is no completed trial of {flags.sweep}")
    if not completed:
        raise InputError(f"no completed trials in {flags.sweep}")
    return [completed[trial_id] for trial_id in wanted or sorted(completed)]


def _along(sweep: str, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """The metrics that each of these trials has measurements of before its last epoch."""
    found: dict[str, set[str]] = {}
    for row in read_table(sweep, "measurements", ["trial_id", "epoch", "metric"]).to_pylist():
        config = configs.get(row["trial_id"])
        if config is not None and row["epoch"] != config["training"]["epochs"]:
            found.setdefault(row["trial_id"], set()).add(row["metric"])
    return found


def _device(name: str | None) -> torch.device:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"device: {name!r}, allowed are cpu, and cuda where there is one ({reason})") from None
    return device


class _Data:
    """The data sets that networks are measured on, each loaded once."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self.loaded: dict[DataConfig, Images | StreamedImages] = {}

    def __call__(self, config: TrialConfig, kept: KeptModel) -> Images | StreamedImages:
        """The trial's data set, or the one asked for, as the network takes it."""
        spec, trained_on = self.flags.dataset or config.data.dataset, config.data.dataset
        if self.flags.dataset is None and ":" in spec:
            raise InputError(f"dataset: not given, allowed is where {spec} is, folder:/path or parquet:/path")
        name = identify(spec, self.flags.data_root, config.data.exclude)
        treatment = config.data
        if name != trained_on:
            name = identify(spec, self.flags.data_root, self.flags.exclude)
        if name != trained_on:
            # all of its test split as it is: of images that nothing was trained on there are no folds
            own = ("train_images", "folds", "fold", "labels", "deformation_strength", "task_classes", "task_images")
            treatment = dataclasses.replace(
                treatment,
                dataset=name,
                image_size=kept.size,
                channels=kept.channels,
                exclude=self.flags.exclude,
                **{field: _DEFAULTS[field] for field in (*own, "task_tests")},
            )
        if treatment not in self.loaded:
            masks = needs_masks(separated(self.flags.metrics))
            found = load_each(spec, self.flags.data_root, treatment.each_fold(), masks=masks)
            load_others(list(found.values()), spec, self.flags.shift, self.flags.data_root, self.flags.exclude)
            self.loaded |= found
        data = self.loaded[treatment]
        if data.channels != kept.channels or data.classes > kept.classes:
            raise InputError(
                f"dataset: {spec} has {data.channels} channels and {data.classes} classes, allowed with {kept.url} are "
                f"{kept.channels} channels and at most {kept.classes} classes"
            )
        others = {name: dataclasses.replace(other, mean=kept.mean, std=kept.std) for name, other in data.others.items()}
        return dataclasses.replace(data, mean=kept.mean, std=kept.std, others=others)


def _on(name: str, config: TrialConfig, data: Images | StreamedImages) -> str:
    return name if data.name == config.data.dataset else f"{name} on {data.name}".lstrip()


def _measure(
    flags: Flags,
    config: TrialConfig,
    kept: KeptModel,
    data: Images | StreamedImages,
    options: Mapping[str, Mapping[str, Any]],
    fixed: Mapping[str, set[str]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and maps of the trained network on the test split; of metrics in `fixed`, whose options are others than
    before, none that were measured earlier, too."""
    device = _device(flags.device)

    def build(seed: int) -> nn.Module:
        return build_network(config, data, kept.classes, seed, fetch=False)

    model = build(config.seed)
    kept.load_into(model)
    model.to(device).eval()
    epoch = config.training.epochs
    measurements: list[dict[str, Any]] = []
    maps: list[dict[str, Any]] = []
    for name, chosen in options.items():
        measured = METRICS[name](**chosen).measure(Moment(model, data, "test", epoch, True, config.seed, device, build))
        found = measured.measurements + [_row(column, value) for column, value in measured.columns.items()]
        if not found and not measured.maps:
            raise InputError(f"metrics: {name} is measured at initialisation alone, not on a trained network")
        if any(row["metric"] in fixed.get(name, ()) for row in found):
            raise InputError(
                f"metrics: {name} was measured before the end of the training with other options, allowed are those in "
                "the trials' column measured: rows of several epochs are compared"
            )
        measurements += [
            {**known(row), "epoch": epoch, "component": _on(row["component"], config, data)} for row in found
        ]
        maps += [map_row(epoch, _on(title, config, data), values) for title, values in known_maps(measured).items()]
    return measurements, maps


def _row(column: str, value: float | None) -> dict[str, Any]:
    """A column of the trials table as a measurement."""
    entry = TABLES["trials"].field(column)
    row = {"metric": column, "component": "", "level": None, "value": value, "std": None, "n": None}
    return {**row, "unit": unit(entry), "direction": direction(entry) or "none"}


def main() -> None:
    flags = parse(Flags, sys.argv[1:], prog="python -m trainables.metrics", description=__doc__ or "")
    measure_afterwards(flags)
    print(flags.sweep)


if __name__ == "__main__":
    run(main)
