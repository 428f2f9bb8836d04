"""What a command line plans: grids, identities, labels, and what belongs to one sweep."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from analysis.command_line import InputError
from sweeps.driver.manifest import check_contents, contents, sweep_url, write_contents
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import Plan, make_plan, trial_id
from trainables.pilcro import Pilcro


def plan(*argv: str) -> Plan:
    return make_plan(flags(*argv))


def flags(*argv: str) -> PilcroSweep:
    read = read_flags(PilcroSweep, PRESETS, argv, "")
    assert isinstance(read, PilcroSweep)
    return read


def test_the_default_is_the_issue_of_the_paper_on_digits() -> None:
    trials = plan().trials
    assert len(trials) == (1 + 2 * 3) * 2
    methods = {trial.config.method for trial in trials}
    assert {method.alpha for method in methods if isinstance(method, Pilcro)} == {1.0, 10.0, 100.0}
    assert {method.variant for method in methods if isinstance(method, Pilcro)} == {"curvature", "target"}
    assert {(m.interval, m.laplacian_width) for m in methods if isinstance(m, Pilcro)} == {(10, 3)}
    assert len({trial.id for trial in trials}) == len(trials)


def test_several_values_make_a_grid() -> None:
    argv = "--alpha 1 10 --interval 1 5 --laplacian-width 3 5 --variant curvature target --reduction mean sum --seeds 3"
    trials = plan(*argv.split()).trials
    # the reduction is the target variant's alone: 2·2·2 curvature and 2·2·2·2 target settings, one baseline
    assert len(trials) == (8 + 16 + 1) * 3


def test_training_settings_are_a_grid_too() -> None:
    trials = plan("--learning-rate", "0.1", "0.05", "--width", "8", "16", "--alpha", "1", "--no-baseline").trials
    assert len(trials) == 2 * 2 * 2 * 2
    assert {(t.config.training.learning_rate, t.config.model.width) for t in trials} == {
        (0.1, 8),
        (0.1, 16),
        (0.05, 8),
        (0.05, 16),
    }


def test_the_presets_carry_the_papers_protocol() -> None:
    """Methods.md, section 1, number by number."""
    cifar = PRESETS["cifar100"]
    assert (cifar.dataset, cifar.model, cifar.epochs, cifar.batch_size) == (
        ("cifar100",),
        ("resnet50",),
        (200,),
        (128,),
    )
    assert (cifar.optimizer, cifar.learning_rate, cifar.schedule) == (("sgd",), (0.1,), "cosine")
    assert (cifar.weight_decay, cifar.flip, cifar.crop_pixels, cifar.padding) == ((1e-5,), True, 4, "reflect")
    assert cifar.validation == 0
    imagenet = PRESETS["imagenet"]
    assert (imagenet.model, imagenet.batch_size, imagenet.learning_rate) == (("resnet50-imagenet",), (256,), (0.256,))
    assert (imagenet.momentum, imagenet.label_smoothing, imagenet.weight_decay) == (0.875, 0.1, (3e-5,))
    assert (imagenet.decay_normalisation, imagenet.zoom) == (False, True)
    assert (imagenet.image_size, imagenet.evaluation_size) == (224, 288)
    for preset in (cifar, imagenet):
        assert (preset.alpha, preset.interval, preset.laplacian_width) == ((1.0, 10.0, 100.0), (10,), (3,))
        assert preset.variant == ("curvature", "target")
        assert preset.baseline


def test_every_preset_plans_without_its_data(tmp_path: Path) -> None:
    for name in PRESETS:
        assert plan("--preset", name, "--data-root", str(tmp_path)).trials


def test_crop_and_no_crop() -> None:
    on, off = plan("--preset", "cifar100", "--crop"), plan("--preset", "cifar100", "--no-crop")
    assert {trial.config.data.crop for trial in on.trials} == {4}
    assert {trial.config.data.crop for trial in off.trials} == {0}
    assert not on.ids & off.ids


def test_identity_is_stable_and_ignores_where_things_are() -> None:
    base = plan("--alpha", "1").ids
    assert plan("--alpha", "1", "--storage", "/elsewhere", "--cpus-per-trial", "2", "--data-root", "/x").ids == base
    assert plan("--alpha", "1", "--measure", "landscape").ids == base
    assert not plan("--alpha", "1", "--epochs", "31").ids & base
    # the same in another process, with another hash seed
    code = "from tests.sweeps.test_plan import plan; print(sorted(plan('--alpha', '1').ids))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_root())
    assert other.stdout.strip() == str(sorted(base))


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


def test_identity_covers_every_field() -> None:
    """Changing any field of a trial's configuration, one at a time, changes its id."""
    config = plan("--alpha", "1", "--variant", "target", "--no-baseline").trials[0].config
    changed: dict[str, Any] = {}
    values = {
        "method": {
            "alpha": 2.0,
            "interval": 3,
            "laplacian_width": 5,
            "variant": "curvature",
            "reduction": "sum",
            "interval_factor": False,
        },
        "model": {"model": "resnet20", "width": 4},
        "training": {
            "epochs": 31,
            "batch_size": 64,
            "optimizer": "adam",
            "learning_rate": 0.2,
            "momentum": 0.5,
            "weight_decay": 0.1,
            "decay_normalisation": False,
            "schedule": "constant",
            "decay": 0.5,
            "label_smoothing": 0.1,
            "precision": "bf16",
        },
        "data": {"crop": 1, "flip": True, "validation": 0.2, "scaling": "unit", "train_images": 500, "image_size": 16},
    }
    for part, fields in values.items():
        for name, value in fields.items():
            other = {name: value, "reduction": None} if value == "curvature" else {name: value}
            piece = dataclasses.replace(getattr(config, part), **other)
            changed[f"{part}.{name}"] = trial_id(dataclasses.replace(config, **{part: piece}))
    changed["seed"] = trial_id(dataclasses.replace(config, seed=7))
    changed["as it is"] = trial_id(config)
    assert len(set(changed.values())) == len(changed)


def test_the_baseline_is_the_same_trial_in_every_sweep() -> None:
    some, more = plan("--alpha", "1", "--variant", "target"), plan("--alpha", "5", "--interval", "2")
    baselines = [{trial.id for trial in p.trials if trial.config.method.name == "baseline"} for p in (some, more)]
    assert baselines[0] == baselines[1]
    assert len(baselines[0]) == 2


def test_labels_name_what_varies() -> None:
    labels = {trial.label for trial in plan("--alpha", "1", "10", "--variant", "target", "--seeds", "1").trials}
    assert labels == {"baseline seed=0", "pilcro α=1 seed=0", "pilcro α=10 seed=0"}
    labels = {trial.label for trial in plan("--alpha", "1", "--variant", "target", "--seeds", "1").trials}
    assert labels == {"baseline seed=0", "pilcro α=1 seed=0"}
    labels = {trial.label for trial in plan("--alpha", "1", "--learning-rate", "0.1", "0.2", "--seeds", "1").trials}
    assert "pilcro lr=0.2 α=1 curvature seed=0" in labels


def test_folds_are_run_as_seeds_are() -> None:
    trials = plan("--folds", "3", "--seeds", "2", "--alpha", "1", "--variant", "target").trials
    assert len(trials) == 2 * 3 * 2
    runs = {(trial.config.method.name, trial.config.data.fold, trial.config.seed) for trial in trials}
    assert runs == {(name, fold, seed) for name in ("baseline", "pilcro") for fold in range(3) for seed in range(2)}
    assert {trial.config.data.folds for trial in trials} == {3}
    assert "pilcro α=1 fold=2 seed=1" in {trial.label for trial in trials}
    assert len({trial.id for trial in trials} | plan("--alpha", "1", "--variant", "target").ids) == 12 + 4


def test_more_folds_than_images_of_a_class_are_refused(tmp_path: Path) -> None:
    for label, number in (("cat", 9), ("dog", 4)):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for index in range(number):
            Image.new("L", (16, 16), 20 * index).save(tmp_path / "pets" / label / f"{index}.png")
    argv = ["--dataset", f"folder:{tmp_path / 'pets'}", "--validation", "0", "--interval", "1"]
    assert plan(*argv, "--folds", "4").trials
    with pytest.raises(InputError, match=r"folds: 5, allowed are at most the 4 images of the rarest class"):
        plan(*argv, "--folds", "5")


def test_the_interval_factor_is_a_setting_of_its_own_and_none_where_it_is_the_default() -> None:
    default, on, off = (plan("--alpha", "1", *more) for more in ([], ["--interval-factor"], ["--no-interval-factor"]))
    assert default.ids == on.ids
    assert {trial.config.method.name for trial in off.trials if trial.id in on.ids} == {"baseline"}
    columns = [trial.config.columns()["interval_factor"] for trial in (default.trials[-1], off.trials[-1])]
    assert columns == [True, False]
    canonical = default.trials[-1].config.canonical()["method"]
    assert "interval_factor" not in canonical  # as recorded trials have it


def test_cost_grows_with_epochs_and_with_the_penalty() -> None:
    costs = {trial.label: trial.cost for trial in plan("--epochs", "10", "30", "--alpha", "1", "--seeds", "1").trials}
    assert costs["baseline epochs=30 seed=0"] == 3 * costs["baseline epochs=10 seed=0"]
    assert max(costs, key=lambda label: costs[label]).startswith("pilcro")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--alpha", "-1"], "alpha"),
        (["--alpha", "inf"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--alpha"], "alpha"),
        (["--interval", "0"], "interval"),
        (["--interval", "361"], "allowed are at most the 330 steps"),
        # 257 images in batches of 128: the last image alone is no step
        (
            ["--train-images", "257", "--epochs", "2", "--interval", "6", "--alpha", "100"],
            "interval: 6, allowed are at most the 4 steps of the training",
        ),
        (["--laplacian-width", "4"], "laplacian_width"),
        (["--laplacian-width", "9"], "laplacian_width"),
        (["--crop", "--crop-pixels", "8"], "crop_pixels"),
        (["--dataset", "digit"], "digit"),
        (["--dataset", "folder:{absent}"], "{absent}"),
        (["--dataset", "parquet:{absent}"], "{absent}"),
        (["--model", "resnet9"], "resnet9"),
        (["--width", "0"], "width"),
        (["--model", "lenet5"], "lenet5"),
        (["--seeds", "0"], "seeds"),
        (["--epochs", "0"], "epochs"),
        (["--variant", "both"], "both"),
        (["--preset", "cifar"], "cifar"),
        (["--search", "cma"], "--search"),
        (["--scheduler", "hyperband"], "--scheduler"),
        (["--alfa", "1"], "--alfa"),
        (["--measure", "tv"], "measure"),
        (["--train-images", "999999"], "train_images"),
        (["--validation", "1.5"], "validation"),
        (["--momentum", "2"], "momentum"),
        (["--name", "a/b"], "name"),
        (["--cpus-per-trial", "0"], "cpus_per_trial"),
        (["--cpus-per-trial", "nan"], "cpus_per_trial"),
        (["--gpus-per-trial", "inf"], "gpus_per_trial"),
        (["--checkpoint-seconds", "nan"], "checkpoint_seconds"),
        (["--storage", ""], "storage"),
        (["--name", ""], "name"),
        (["--zoom"], "zoom"),
        (["--folds", "1"], "folds: 1, allowed are whole numbers of at least 2"),
        (["--folds", "-5"], "folds: -5"),
        (["--folds", "0"], "folds: 0"),
        (["--folds", "2", "--train-images", "1000"], "train_images: 1000, digits has 898"),
        (["--folds", "2", "--interval", "211"], "allowed are at most the 210 steps"),
        (["--maps-at", "-1"], "maps_at"),
    ],
)
def test_bad_input_is_named_in_one_line(argv: list[str], named: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent"

    def read() -> None:
        chosen = flags(*(word.format(absent=absent) for word in argv))
        make_plan(chosen)
        chosen.metrics()
        sweep_url(chosen)

    with pytest.raises(InputError) as caught:
        read()
    assert named.format(absent=absent) in str(caught.value)
    assert "\n" not in str(caught.value)


class TestContents:
    def check(self, tmp_path: Path, *argv: str) -> None:
        chosen = flags(*argv)
        check_contents(str(tmp_path / "s"), contents(chosen, make_plan(chosen)))
        write_contents(str(tmp_path / "s"), contents(chosen, make_plan(chosen)))

    def test_more_strengths_seeds_and_settings_belong_to_it(self, tmp_path: Path) -> None:
        self.check(tmp_path)
        self.check(tmp_path)
        self.check(tmp_path, "--alpha", "1000", "--seeds", "5", "--interval", "3", "--learning-rate", "0.3", "--crop")

    @pytest.mark.parametrize(
        "argv",
        [
            ["--epochs", "31"],
            ["--model", "resnet20"],
            ["--width", "8"],
            ["--train-images", "100"],
            ["--measure", "landscape"],
            ["--landscape", "exact"],
            ["--validation", "0.2"],
            ["--folds", "2"],
        ],
    )
    def test_other_contents_are_refused(self, tmp_path: Path, argv: list[str]) -> None:
        self.check(tmp_path)
        before = (tmp_path / "s" / "sweep.json").read_bytes()
        with pytest.raises(InputError, match="another --name"):
            self.check(tmp_path, *argv)
        assert (tmp_path / "s" / "sweep.json").read_bytes() == before

    def test_a_damaged_description_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "s").mkdir()
        for content in ([1], {"contents": "a"}, {"contents": 1}):
            (tmp_path / "s" / "sweep.json").write_text(json.dumps(content))
            with pytest.raises(InputError, match=r"sweep\.json"):
                self.check(tmp_path)
