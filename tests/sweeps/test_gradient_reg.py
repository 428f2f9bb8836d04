"""The gradient sweep as a user runs it, its presets, and measuring its kept networks afterwards."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from analysis.command_line import InputError
from analysis.records import compact, read_sweep
from sweeps.flags import read_flags
from sweeps.gradient_reg import PRESETS, GradientSweep
from sweeps.plan import make_plan
from tests.sweeps.driving import ONE_BY_ONE
from trainables.configuration import TrialConfig
from trainables.data import load
from trainables.gradient_reg import GradientRegularisation
from trainables.kept_models import KeptModel, read_model
from trainables.metrics.__main__ import Flags, measure_afterwards
from trainables.models import build_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "sweeps" / "gradient_reg.py")


def flags(*argv: str) -> GradientSweep:
    read = read_flags(GradientSweep, PRESETS, argv, "")
    assert isinstance(read, GradientSweep)
    return read


class TestPresets:
    """Section 3.1 of the paper and methods.md, section 5, number by number."""

    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "mnist-resnet18", "cifar10"])
    def test_fifty_strengths(self, name: str) -> None:
        alphas = PRESETS[name].alphas()
        np.testing.assert_allclose(alphas, np.logspace(2, 10, 50), rtol=1e-11)
        assert (alphas[0], alphas[-1]) == (1e2, 1e10)
        assert f"{alphas[31]:.2e}" == "1.15e+07"  # Figure 14

    def test_imagenettes_strengths(self) -> None:
        alphas = PRESETS["imagenette"].alphas()
        assert (len(alphas), alphas[0], alphas[-1]) == (27, 1e3, 1.29e13)
        np.testing.assert_allclose(np.diff(np.log10(alphas)), math.log10(1.29e10) / 26, rtol=1e-9)

    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "mnist-resnet18"])
    def test_small_grey_images(self, name: str) -> None:
        preset = PRESETS[name]
        assert (preset.epochs, preset.optimizer, preset.learning_rate) == ((25,), ("adam",), (1e-3,))
        assert (preset.schedule, preset.scaling, preset.validation, preset.seeds) == ("constant", "symmetric", 0.0, 1)
        assert preset.model == (("resnet18",) if name.endswith("resnet18") else ("lenet5",))

    @pytest.mark.parametrize(("name", "model"), [("cifar10", "resnet18"), ("imagenette", "resnet18-imagenet")])
    def test_colour_images(self, name: str, model: str) -> None:
        preset = PRESETS[name]
        assert (preset.epochs, preset.optimizer, preset.learning_rate) == ((50,), ("adam",), (1e-4,))
        assert (preset.schedule, preset.scaling, preset.model) == ("constant", "unit", (model,))

    @pytest.mark.parametrize("name", PRESETS)
    def test_all_metrics_the_papers_way_and_planned_without_data(self, name: str, tmp_path: Path) -> None:
        chosen = flags("--preset", name, "--data-root", str(tmp_path))
        metrics = chosen.metrics()
        assert set(metrics) == {"faithfulness", "local_lipschitz", "max_sensitivity", "entropy", "saliency_maps"}
        assert {tuple(options["explainers"]) for options in metrics.values()} == {("gradient", "deeplift")}
        assert {options["images"] for options in metrics.values()} == {128}
        if name != "digits":
            assert metrics["local_lipschitz"]["samples"] == metrics["max_sensitivity"]["samples"] == 200
        sizes = {trial.config.data.image_size for trial in make_plan(chosen).trials}
        assert sizes == {None}
        methods = [trial.config.method for trial in make_plan(chosen).trials]
        regularised = [method for method in methods if isinstance(method, GradientRegularisation)]
        assert {(method.convention, method.batchnorm) for method in regularised} == {("batch", "train")}


class TestStrengths:
    def test_all_conventions(self) -> None:
        chosen = make_plan(flags("--alpha", "1", "--convention", "batch", "image", "element", "pixel"))
        methods = [trial.config.method for trial in chosen.trials if trial.config.method.name == "gradient_reg"]
        assert {method.convention for method in methods} == {"batch", "image", "element", "pixel"}  # type: ignore[attr-defined]

    def test_a_range(self) -> None:
        assert flags("--alpha-range", "1", "1000", "4").alphas() == (1.0, 10.0, 100.0, 1000.0)

    def test_a_list_takes_the_place_of_the_presets_range(self) -> None:
        assert flags("--preset", "mnist", "--alpha", "5", "50").alphas() == (5.0, 50.0)
        assert flags("--preset", "mnist", "--alpha=7").alphas() == (7.0,)

    def test_a_range_and_its_numbers_are_the_same_trials(self) -> None:
        listed = make_plan(flags("--alpha", "1", "10", "100", "1000"))
        ranged = make_plan(flags("--alpha-range", "1", "1e3", "4"))
        assert listed.ids == ranged.ids

    @pytest.mark.parametrize(
        ("argv", "named"),
        [
            (["--alpha-range", "10", "1", "4"], "alpha_range: 10 1 4"),
            (["--alpha-range", "0", "1", "4"], "alpha_range"),
            (["--alpha-range", "1", "inf", "4"], "alpha_range"),
            (["--alpha-range", "1", "10", "1"], "alpha_range"),
            (["--alpha-range"], "--alpha-range: no value"),
            (["--search", "grid", "--alpha-range", "1", "10"], "alpha_range: 1 10, allowed are LOW HIGH N"),
            (["--alpha-range", "1", "10", "3.5"], "alpha_range: 1 10 3.5"),
            (["--alpha-range", "1", "x", "3"], "alpha-range"),
            (["--alpha", "1", "--alpha-range", "1", "10", "3"], "both given"),
            (["--convention", "sum"], "convention"),
            (["--batchnorm", "none"], "batchnorm"),
            (["--explainers", "lime"], "explainers"),
            (["--measure", "lime"], "measure"),
            (["--saliency-images", "0"], "saliency_images: 0"),
        ],
    )
    def test_refused_in_one_line(self, argv: list[str], named: str) -> None:
        with pytest.raises(InputError, match=named) as caught:
            make_plan(flags(*argv))
        assert "\n" not in str(caught.value)


# --- a whole sweep ----------------------------------------------------------------------------------------------------

SMALL = [
    *("--preset", "digits", "--alpha", "10", "--convention", "batch", "image", "--batchnorm", "train", "eval"),
    *("--seeds", "1", "--train-images", "300", "--epochs", "2", "--width", "4", "--keep-models"),
    *("--saliency-images", "6", "--saliency-samples", "2", "--saliency-panels", "1"),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = tmp_path_factory.mktemp("gradient")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, SCRIPT, "--storage", str(storage), *SMALL, *ONE_BY_ONE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "faithfulness" in done.stdout
    assert "TV" not in done.stdout
    return str(storage / "gradient_reg")


@pytest.mark.ray
class TestSweep:
    def test_the_record(self, sweep: str) -> None:
        trials = read_sweep(sweep).trials.to_pylist()
        assert {trial["status"] for trial in trials} == {"completed"}
        found = {
            (trial["method"], trial["alpha"], trial["convention"], trial["batchnorm"], trial["alpha_per_image"])
            for trial in trials
        }
        assert found == {
            ("baseline", None, None, None, None),
            ("gradient_reg", 10.0, "batch", "train", 10 / 128),
            ("gradient_reg", 10.0, "batch", "eval", 10 / 128),
            ("gradient_reg", 10.0, "image", "train", 10.0),
            ("gradient_reg", 10.0, "image", "eval", 10.0),
        }
        # images of 8² values in batches of 128
        converted = {
            (trial["convention"], trial["alpha_batch"], trial["alpha_pixel"], trial["alpha_element"])
            for trial in trials
        }
        assert converted == {
            (None, None, None, None),
            ("batch", 10.0, 640.0, 640.0 * 128),
            ("image", 1280.0, 1280.0 * 64, 1280.0 * 64 * 128),
        }
        assert json.loads(trials[0]["measured"])["faithfulness"]["images"] == 6

    def test_measurements_and_maps(self, sweep: str) -> None:
        record = read_sweep(sweep)
        rows = record.measurements.to_pylist()
        # of DeepLIFT also how far its maps are from adding up
        assert len(rows) == 5 * 4 * 2 + 5
        assert {row["epoch"] for row in rows} == {2}
        assert {row["n"] for row in rows if row["metric"] == "entropy"} == {6}
        names = {name.split("/")[0] for name in record.maps["name"].to_pylist()}
        assert names == {"image", "label", "saliency", "saliency_mean"}

    def test_the_kept_networks_are_the_trained_ones(self, sweep: str) -> None:
        """Loaded, they have the recorded accuracy."""
        for trial in read_sweep(sweep).trials.to_pylist():
            kept = read_model(f"{sweep}/models/{trial['trial_id']}.safetensors")
            assert (kept.channels, kept.size, kept.classes) == (1, 8, 10)
            model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=0)
            kept.load_into(model)
            config = TrialConfig.from_canonical(json.loads(trial["config"]))

            data = load("digits", "unused", config.data)
            assert (kept.mean, kept.std) == (data.mean, data.std)
            images, labels = next(iter(data.batches("test", 1000, device=torch.device("cpu"))))
            with torch.no_grad():
                accuracy = float((model.eval()(images).argmax(1) == labels).double().mean())
            assert accuracy == pytest.approx(trial["top1"], abs=1e-12)

    @pytest.mark.parametrize("compacted", [False, True])
    def test_measured_afterwards_as_during_the_sweep(self, sweep: str, tmp_path: Path, compacted: bool) -> None:
        """The same options give the same rows; other options replace them, and are recorded; the rest stays."""

        copy = str(tmp_path / "copy")
        shutil.copytree(sweep, copy)
        if compacted:
            compact(copy)
        before = read_sweep(copy)
        same: dict[str, Any] = {"saliency_images": 6, "saliency_samples": 2, "device": "cpu"}
        names = ("faithfulness,entropy", "local_lipschitz", "max_sensitivity")
        assert measure_afterwards(Flags(sweep=copy, metrics=names, **same)) == 5
        again = read_sweep(copy)
        key = ["trial_id", "metric", "component"]
        left, right = (
            table.to_pandas().sort_values(key).set_index(key)[["value", "std", "n", "level", "unit", "direction"]]
            for table in (before.measurements, again.measurements)
        )
        assert list(left.index) == list(right.index)
        # the networks are the same; only the order of float32 sums may differ
        np.testing.assert_allclose(left["value"], right["value"], rtol=1e-5)
        assert left["n"].equals(right["n"])
        assert again.trials.equals(before.trials)
        assert again.maps.equals(before.maps)

        chosen = before.trials["trial_id"][0].as_py()
        other: dict[str, Any] = {"saliency_images": 9, "explainers": ("gradient",), "device": "cpu"}
        assert measure_afterwards(Flags(sweep=copy, metrics=("entropy",), trials=(chosen,), **other)) == 1
        rows = read_sweep(copy).measurements.to_pylist()
        assert len(rows) == len(left) - 1
        own = [row for row in rows if row["trial_id"] == chosen and row["metric"] == "entropy"]
        assert {row["component"]: row["n"] for row in own} == {"gradient": 9}  # what `measured` says, no more
        after = {row["trial_id"]: json.loads(row["measured"]) for row in read_sweep(copy).trials.to_pylist()}
        assert after[chosen]["entropy"]["images"] == 9
        assert {value["entropy"]["images"] for name, value in after.items() if name != chosen} == {6}

    def test_on_another_data_set(self, sweep: str, tmp_path: Path) -> None:

        for split, number in (("train", 4), ("test", 3)):
            for label in range(3):
                folder = tmp_path / "shapes" / split / f"class{label}"
                folder.mkdir(parents=True)
                for index in range(number):
                    pixels = np.random.RandomState(10 * label + index).randint(0, 255, (12, 12), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
        copy = str(tmp_path / "copy")
        shutil.copytree(sweep, copy)
        record = read_sweep(copy)
        before = record.measurements.num_rows, record.maps.num_rows
        options: dict[str, Any] = {"saliency_images": 5, "saliency_panels": 1, "device": "cpu"}
        names = ("saliency_maps", "entropy", "landscape")
        dataset = f"folder:{tmp_path / 'shapes'}"
        measure_afterwards(Flags(sweep=copy, metrics=names, dataset=dataset, **options))
        after = read_sweep(copy)
        added = [row for row in after.measurements.to_pylist() if "on folder:shapes@" in row["component"]]
        assert {row["metric"] for row in added} == {"entropy", "total_variation", "completeness_gap"}
        assert len(added) == 5 * 4
        assert (after.measurements.num_rows, after.maps.num_rows) == (before[0] + len(added), before[1] + 5 * 6)
        maps = after.maps.to_pylist()
        assert {row["height"] for row in maps if not row["name"].startswith("label/")} == {8}

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"metrics": ()}, "metrics: none"),
            ({"metrics": ("lime",)}, "metrics: 'lime'"),
            ({"metrics": ("entropy",), "device": "gpu"}, "device: 'gpu'"),
            ({"metrics": ("faithfulness",), "saliency_pixels": 1}, "saliency_pixels: 1"),
            ({"metrics": ("paths",)}, "paths is measured at initialisation alone"),
            ({"metrics": ("entropy",), "trials": ("x",)}, "'x' is no completed trial"),
            ({"metrics": ("entropy",), "dataset": "cifar"}, "dataset: 'cifar'"),
        ],
    )
    def test_refuses_in_one_line(self, sweep: str, options: dict[str, Any], named: str) -> None:
        with pytest.raises(InputError, match=named) as caught:
            measure_afterwards(Flags(**{"sweep": sweep, "device": "cpu", **options}))
        assert "\n" not in str(caught.value)

    def test_a_missing_and_a_damaged_network_are_named(self, sweep: str, tmp_path: Path) -> None:

        copy = str(tmp_path / "copy")
        shutil.copytree(sweep, copy)
        first = sorted(Path(copy, "models").iterdir())[0]
        content = first.read_bytes()
        first.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=f"{first.name}: damaged"):
            measure_afterwards(Flags(sweep=copy, metrics=("entropy",), saliency_images=2, device="cpu"))
        before = read_sweep(copy).measurements
        last = sorted(Path(copy, "models").iterdir())[-1]
        last.unlink()
        with pytest.raises(InputError, match=f"1 of 5 networks were not kept, {last.stem} .*choose"):
            measure_afterwards(Flags(sweep=copy, metrics=("entropy",), saliency_images=2, device="cpu"))
        assert read_sweep(copy).measurements.equals(before)  # nothing was begun

    def test_what_is_recorded_without_its_network_is_said(self, sweep: str, tmp_path: Path) -> None:
        shutil.copytree(sweep, tmp_path / "gradient_reg")
        next(Path(tmp_path, "gradient_reg", "models").iterdir()).unlink()
        command = [sys.executable, SCRIPT, "--storage", str(tmp_path), *SMALL]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0
        assert "nothing to run" in done.stdout
        assert done.stderr.startswith("recorded trials without a kept network: 1;")

    def test_the_command(self, sweep: str, tmp_path: Path) -> None:

        copy = str(tmp_path / "copy")
        shutil.copytree(sweep, copy)
        command = [sys.executable, "-m", "trainables.metrics", copy, "--metrics", "entropy", "--saliency-images", "3"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == copy
        wrong = subprocess.run([*command, "--nope"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert wrong.returncode == 2
        assert wrong.stderr.count("\n") == 1


def test_names_are_separated_by_commas_or_spaces() -> None:
    chosen = flags("--measure", "entropy,faithfulness", "entropy", "--explainers", "gradient,deeplift", "gradient")
    metrics = chosen.metrics()
    assert list(metrics) == ["entropy", "faithfulness"]
    assert metrics["entropy"]["explainers"] == ["gradient", "deeplift"]


def test_a_network_of_another_shape_is_refused(tmp_path: Path) -> None:
    model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=0)
    other = build_model("resnet8", channels=1, size=8, classes=10, width=8, seed=0)
    state = {name: values.clone() for name, values in model.state_dict().items()}
    with pytest.raises(InputError, match=r"m\.safetensors: of another network"):
        KeptModel("m.safetensors", state, 1, 8, 10, (0.5,), (0.5,)).load_into(other)
    (tmp_path / "plain.safetensors").write_bytes(safetensors.torch.save(state))
    with pytest.raises(InputError, match=r"plain\.safetensors: damaged"):
        read_model(str(tmp_path / "plain.safetensors"))
