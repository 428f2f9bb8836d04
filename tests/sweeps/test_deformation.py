"""What the sweep over deformation stability plans."""

from __future__ import annotations

import itertools

import pytest

from analysis.command_line import InputError
from sweeps.deformation import PRESETS, DeformationSweep
from sweeps.flags import read_flags
from sweeps.plan import Plan, make_plan
from trainables.deformation import Deformation


def plan(*argv: str) -> Plan:
    read = read_flags(DeformationSweep, PRESETS, argv, "")
    assert isinstance(read, DeformationSweep)
    return make_plan(read)


def test_sigma_downsampling_labels_and_seeds_are_a_grid() -> None:
    argv = "--sigma 0 1 --downsampling max-pool strided --labels real random --seeds 3"
    trials = plan(*argv.split()).trials
    found = {(t.config.method, t.config.data.labels, t.config.seed) for t in trials}
    methods = [Deformation(sigma, layer) for sigma in (0.0, 1.0) for layer in ("max-pool", "strided")]
    assert found == set(itertools.product(methods, ("real", "random"), range(3)))
    assert {t.config.columns()["labels"] for t in trials} == {"real", "random"}
    assert {t.config.columns()["sigma"] for t in trials} == {0.0, 1.0}
    assert {t.config.columns()["downsampling"] for t in trials} == {"max-pool", "strided"}


def test_tasks_are_a_data_set_for_each_strength() -> None:
    found = plan("--preset", "mnist-tasks", "--task-classes", "7", "--task-images", "30", "--seeds", "1")
    assert {t.config.columns()["deformation_strength"] for t in found.trials} == {1.0, 2.0, 3.0, 4.0}
    assert len(found.trials) == 4 * 2
    (info,) = found.data.values()
    assert (info.classes, info.train_images, info.test_images) == (7, 210, 1400)


def test_the_presets_carry_the_papers_protocol() -> None:
    """Section 2.2."""
    cifar, imagenet, tasks = PRESETS["cifar10"], PRESETS["imagenet"], PRESETS["mnist-tasks"]
    assert cifar.downsampling == ("subsample", "max-pool", "average-pool", "strided", "strided-relu")
    assert (cifar.labels, cifar.seeds, cifar.model) == (("real", "random"), 5, ("vgg-cifar",))
    assert (imagenet.model, imagenet.downsampling) == (("vgg-imagenet",), ("max-pool", "strided-relu"))
    assert tasks.deformation_strength == (1.0, 2.0, 3.0, 4.0)
    for preset in PRESETS:
        assert plan("--preset", preset, "--seeds", "1").trials


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--sigma -1", "sigma: -1.0, allowed are finite numbers of at least 0"),
        ("--model resnet8", "downsampling: max-pool, allowed with resnet8 is own"),
        ("--image-size 8", "model: vgg-cifar on images of 8 pixels, allowed are 16 and more"),
        ("--preset mnist-tasks --folds 2", "folds: 2, allowed with mnist-tasks is none"),
        ("--preset mnist-tasks --task-classes 1", "task_classes: 1, allowed are whole numbers of at least 2"),
    ],
)
def test_what_cannot_be_trained_is_refused(argv: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        plan(*argv.split())
    assert message in str(told.value)
