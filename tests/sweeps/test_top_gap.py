"""What the sweep over Top-GAP plans: k by the size of the class maps, the ablation, the paper's protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from analysis.command_line import InputError
from sweeps.driver import placement
from sweeps.flags import read_flags
from sweeps.plan import Plan, make_plan
from sweeps.top_gap import PRESETS, TopGapSweep
from trainables.method import Method
from trainables.top_gap import TopGap


def flags(*argv: str) -> TopGapSweep:
    read = read_flags(TopGapSweep, PRESETS, argv, "")
    assert isinstance(read, TopGapSweep)
    return read


def plan(*argv: str) -> Plan:
    return make_plan(flags(*argv))


def settings(found: Plan) -> set[Method]:
    return {trial.config.method for trial in found.trials}


def test_the_default_sweeps_k_on_digits() -> None:
    trials = plan().trials
    methods = settings(plan()) - {Method()}
    # maps of 4×4, k = 1 is max pooling and all of them average pooling
    assert {method.pixels for method in methods if isinstance(method, TopGap)} == {1, 2, 4, 8, 16}
    assert all(isinstance(m, TopGap) and m.fpn and m.sparsity == 1 and m.variant == "class_maps" for m in methods)
    assert len(trials) == (1 + 5) * 2


def test_the_ablation_is_two_to_the_third() -> None:
    """Table 7: eight cells of which one is the baseline; without the pyramid k has the same share of a smaller map."""
    found = settings(plan("--pixels", "4", "all", "--sparsity", "0", "1", "--heads", "fpn", "last"))
    assert len(found) == 8
    cells = {(m.fpn, m.sparsity, m.pixels) for m in found if isinstance(m, TopGap)}
    assert cells == {
        *((True, sparsity, pixels) for sparsity in (0.0, 1.0) for pixels in (4, 16)),
        *((False, sparsity, pixels) for sparsity in (0.0, 1.0) for pixels in (1, 4)),
    } - {(False, 0.0, 4)}
    assert Method() in found
    # without the baseline its cell is one of the method's
    alone = settings(plan("--pixels", "all", "--sparsity", "0", "--heads", "last", "--no-baseline"))
    assert alone == {TopGap(4, 0.0, fpn=False, fpn_channels=None)}


@pytest.mark.parametrize(("model", "cells"), [("resnet8", 0), ("vgg13", 1), ("convnext-tiny", 1), ("densenet-121", 0)])
def test_the_baseline_s_cell_is_left_out_where_it_is_the_baseline(model: str, cells: int) -> None:
    """A network without pyramid, ℓ1 and Top-GAP is the network itself if that ends in average pooling and a layer."""
    argv = ("--model", model, "--image-size", "32", "--pixels", "all", "--sparsity", "0", "--heads", "last")
    assert len(settings(plan(*argv)) - {Method()}) == cells


def test_without_l1_its_place_and_norm_make_no_difference() -> None:
    argv = "--pixels 4 --sparsity 0 1 --places class_maps last all --norm mean sum --no-baseline"
    found = settings(plan(*argv.split()))
    assert len(found) == 1 + 3 * 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--pixels 17", "pixels: 17, allowed with resnet8 on digits are at most 16, as its class maps have 4×4 pixels"),
        ("--pixels 0", "pixels: '0', allowed are whole numbers of at least 1, and all"),
        ("--pixels many", "pixels: 'many', allowed are"),
        ("--sparsity -1", "sparsity: -1.0, allowed are finite numbers of at least 0"),
        ("--preset folder", "dataset: 'folder:', allowed is folder:/path"),
        ("--dropout 1", "dropout: 1.0, allowed are numbers in [0, 1)"),
        ("--model resnet20 --pretrained", "pretrained: there are no weights for resnet20 of width 16, allowed are"),
        ("--model vgg11-bn --width 8 --image-size 32", "width: 8, allowed is 64, the only one of vgg11-bn"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(argv: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        plan(*argv.split())
    assert message in str(told.value)


def test_the_presets_carry_the_papers_protocol() -> None:
    """Section 4, Tables 3, 4 and A5."""
    cifar = PRESETS["cifar10"]
    assert cifar.pixels == ("8", "16", "32", "64", "128", "256")
    assert cifar.model == ("preact-resnet18", "resnet18", "resnet34", "resnet50", "wide-resnet40-4")
    assert (cifar.seeds, cifar.epsilon, cifar.attack_steps) == (5, ("8/255",), (20, 50))
    for name in ("oxford-pets", "folder"):
        preset = PRESETS[name]
        assert preset.pixels == ("64", "128", "256", "512", "1024", "2048")
        assert (preset.image_size, preset.folds, preset.pretrained) == (224, 5, True)
        assert (preset.epsilon, preset.attack_steps) == (("1/255",), (40,))
    imagenet = PRESETS["imagenet"]
    assert (imagenet.pixels, imagenet.folds, imagenet.dataset) == (("256",), None, ("imagenet",))
    for preset in PRESETS.values():
        assert (preset.sparsity, preset.heads, preset.baseline) == ((1.0,), ("fpn",), True)
    # APGD and Square beside PGD (Section 4.3); training from scratch with a large rate, or fine-tuning with a small one
    assert cifar.attacks == ("fgsm", "pgd", "square", "apgd")
    assert (cifar.attack_queries, cifar.attack_images) == (5000, 10_000)
    assert {name for name, preset in PRESETS.items() if preset.pretrained} == {"oxford-pets", "folder", "imagenet"}


@pytest.mark.parametrize("preset", ["cifar10", "oxford-pets", "folder", "imagenet"])
def test_every_preset_plans(preset: str, tmp_path: Path) -> None:
    argv = ["--preset", preset]
    if preset == "folder":
        for name in ("bee", "wasp"):
            (tmp_path / name).mkdir()
            for index in range(6):
                Image.new("RGB", (224, 224), (40 * index, 0, 0)).save(tmp_path / name / f"{index}.png")
        argv += ["--dataset", f"folder:{tmp_path}"]
    found = plan(*argv)
    models, runs = {"cifar10": (5, 5), "oxford-pets": (2, 5), "folder": (1, 5), "imagenet": (2, 1)}[preset]
    assert len(found.trials) == models * runs * (1 + len(PRESETS[preset].pixels))


def test_weights_that_cannot_be_had_are_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(model: str, **options: bool) -> None:
        raise OSError("no connection")

    pending = plan("--model", "resnet18-imagenet", "--image-size", "32", "--pretrained", "--seeds", "1").trials
    assert all(trial.config.columns()["pretrained"] for trial in pending)
    monkeypatch.setattr("timm.create_model", create)
    with pytest.raises(InputError, match=r"pretrained: timm's weights of resnet18 cannot be had \(no connection\)"):
        placement.check_weights(pending)
    placement.check_weights(plan().trials)
