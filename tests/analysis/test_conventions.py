"""α of the gradient penalty in another convention, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.command_line import InputError
from analysis.conventions import CONVENTIONS, converted
from analysis.paper.__main__ import main
from analysis.paper.verdicts import check
from analysis.records import Sweep, read_sweep
from analysis.tipping_points import tipping_points
from trainables.gradient_reg import converted_strength

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]
MNIST: dict[str, Any] = {
    "method": "gradient_reg", "variant": None, "dataset": "mnist", "model": "lenet5", "width": 6, "epochs": 25,
    "optimizer": "adam", "learning_rate": 0.001, "batch_size": 128,
}  # fmt: skip


def alphas(sweep: Sweep) -> dict[str, float | None]:
    return {row["trial_id"]: row["alpha"] for row in sweep.trials.to_pylist()}


def test_by_hand(tmp_path: Path, record: Record) -> None:
    """128 images of 28² values: 2 in `batch` is 2 · 784 in `pixel`, 2 · 100,352 in `element`, 2 / 128 in `image`."""
    record(tmp_path / "s", "old", alpha=2.0, convention=None, **MNIST)
    record(tmp_path / "s", "image", alpha=2.0 / 128, convention="image", **MNIST)
    record(tmp_path / "s", "pixel", alpha=2.0 * 784, convention="pixel", **MNIST)
    record(tmp_path / "s", "element", alpha=2.0 * 100_352, convention="element", **MNIST)
    record(tmp_path / "s", "pilcro", alpha=7.0)
    record(tmp_path / "s", "plain", alpha=None, **{**MNIST, "method": "baseline"})
    sweep = read_sweep(str(tmp_path / "s"))
    for convention, wanted in (("batch", 2.0), ("image", 0.015625), ("pixel", 1568.0), ("element", 200_704.0)):
        found = converted(sweep, convention)
        expected = dict.fromkeys(("old", "image", "pixel", "element"), wanted)
        assert alphas(found) == pytest.approx({**expected, "pilcro": 7.0, "plain": None})
        names = {row["convention"] for row in found.trials.to_pylist() if row["method"] == "gradient_reg"}
        assert names == {convention}
        assert found.content_hash == sweep.content_hash
    assert alphas(sweep)["pixel"] == 1568.0  # as it was


@pytest.mark.parametrize("own", CONVENTIONS)
@pytest.mark.parametrize("wanted", CONVENTIONS)
def test_as_the_method_records_it(own: Any, wanted: str, tmp_path: Path, record: Record) -> None:
    """What is computed for old records is what new ones have as columns."""
    config = json.dumps({"data": {"image_size": 20, "channels": 3}})
    columns = {"alpha": 3.0, "convention": own, "config": config, **MNIST, "dataset": "folder:x", "batch_size": 64}
    record(tmp_path / "s", "old", **columns)
    (found,) = converted(read_sweep(str(tmp_path / "s")), wanted).trials["alpha"].to_pylist()
    strength = converted_strength(3.0, own, wanted, batch_size=64, image=(3, 20, 20))  # type: ignore[arg-type]
    assert found == pytest.approx(strength)


def test_what_is_recorded_stands_above_what_is_computed(tmp_path: Path, record: Record) -> None:
    record(tmp_path / "s", "t", alpha=2.0, convention="batch", alpha_element=5.0, **{**MNIST, "dataset": "folder:x"})
    assert alphas(converted(read_sweep(str(tmp_path / "s")), "element")) == {"t": 5.0}


def test_images_of_unknown_size_and_other_methods_are_refused(tmp_path: Path, record: Record) -> None:
    record(tmp_path / "s", "t", alpha=2.0, convention="batch", **{**MNIST, "dataset": "folder:x"})
    with pytest.raises(InputError, match="trial t does not say how many values an image of folder:x has"):
        converted(read_sweep(str(tmp_path / "s")), "pixel")
    assert alphas(converted(read_sweep(str(tmp_path / "s")), "image")) == {"t": 2.0 / 128}
    record(tmp_path / "other", "t", alpha=2.0)
    with pytest.raises(InputError, match="has no trial of gradient_reg"):
        converted(read_sweep(str(tmp_path / "other")), "pixel")
    with pytest.raises(InputError, match="allowed are batch, image, element, pixel"):
        converted(read_sweep(str(tmp_path / "s")), "cube")


class TestThePapersRule:
    """A record in `element` that tips over at 10^8.9 there, and so at 10^3.9 in `batch`."""

    @pytest.fixture
    def sweep(self, tmp_path: Path, record: Record) -> str:
        for index in range(25):
            alpha = 10.0 ** (2 + index / 3)
            score = 0.99 if alpha < 10**8.9 else 0.1
            record(tmp_path / "s", f"t{index:02d}", alpha=alpha, convention="element", top1=score, **MNIST)
        record(tmp_path / "s", "plain", top1=0.99, alpha=None, **{**MNIST, "method": "baseline"})
        return str(tmp_path / "s")

    def test_its_limit_is_the_papers(self, sweep: str) -> None:
        """With α in `element` the smallest beyond 1e5 that has collapsed is 10^9; in `batch` 1e5 is beyond all that."""
        for convention, reference, threshold in ((None, 0.99, 1e9), ("element", 0.99, 1e9)):
            found = tipping_points(in_paper(read_sweep(sweep), convention), reference_below=1e5)
            rule = found.curves[0].rule
            assert rule is not None
            assert (rule.reference, rule.strength) == (pytest.approx(reference), pytest.approx(threshold))
        (line,) = [line for line in check(read_sweep(sweep), "gradreg-1").lines if line.column == "top1"]
        assert "the paper's rule, limit 1e+05: 1e+09" in line.order

    def test_the_command_converts(self, sweep: str, command: Command) -> None:
        _, out, err = command(main, sweep, "--table", "gradreg-1", "--convention", "batch")
        assert err == ""
        flat = " ".join(out.split())
        assert "10^3.9" in flat or "10^3.8" in flat
        (line,) = [it for it in check(converted(read_sweep(sweep), "batch"), "gradreg-1").lines if it.column == "top1"]
        assert "limit 1e+05: none in range" in line.order
        code, _, err = command(main, sweep, "--convention", "cube")
        assert code == 2
        assert "batch" in err


def in_paper(sweep: Sweep, convention: str | None) -> Sweep:
    return sweep if convention is None else converted(sweep, convention)
