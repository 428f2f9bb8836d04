"""A data set loaded once by a machine, mapped by all its processes."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.command_line import InputError
from trainables.data import DataConfig, Images, SharedData, identify, load, shared
from trainables.pilcro import Pilcro, smoothness_of

DIGITS = DataConfig("digits")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder and no locks of this test's own before and after."""
    monkeypatch.setattr(shared.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shared, "_IN_USE", {})
    return tmp_path / f"spatial-sweeps-{os.getuid()}"


def loaded(config: DataConfig = DIGITS, methods: tuple[Pilcro, ...] = ()) -> Images:
    data = SharedData("digits", ".", (config,), methods).load()[config]
    assert isinstance(data, Images)
    return data


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


def test_it_is_what_would_have_been_loaded() -> None:
    method = Pilcro(alpha=1.0, interval=1, laplacian_width=3, variant="target")
    data = loaded(DIGITS, (method,))
    plain = load("digits", ".", DIGITS)
    assert isinstance(data, Images)
    assert isinstance(plain, Images)
    for split in ("train", "validation", "test"):
        ours, theirs = getattr(data, split), getattr(plain, split)
        assert np.array_equal(ours.images, theirs.images)
        assert np.array_equal(ours.labels, theirs.labels)
        assert not ours.images.flags.writeable
    assert (data.mean, data.std, data.class_names, data.config) == (plain.mean, plain.std, plain.class_names, DIGITS)
    assert data.memo, "what the method derives is derived before the data are shared"
    assert bool((smoothness_of(data, 3) == smoothness_of(plain, 3)).all())
    # Ray sends a data set on with what was mapped
    again = pickle.loads(pickle.dumps(data))
    assert np.array_equal(again.train.images, plain.train.images)


def test_processes_that_ask_at_once_load_it_once(tmp_path: Path) -> None:
    code = f"""
import time
from trainables.data import DataConfig, SharedData, load_each, shared
def slowly(*arguments, **named):
    open({str(tmp_path / "loaded")!r}, "a").write("x")
    time.sleep(1)
    return load_each(*arguments, **named)
shared.load_each = slowly
data = SharedData("digits", ".", (DataConfig("digits"),)).load()
print(int(data[DataConfig("digits")].train.images.sum()))
"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        for _ in range(3)
    ]
    printed = {process.communicate(timeout=120)[0] for process in processes}
    assert len(printed) == 1
    assert int(printed.pop()) == load("digits", ".", DIGITS).train.images.sum()
    assert (tmp_path / "loaded").read_text() == "x"


def test_what_is_used_stays_and_what_is_not_goes(temporary: Path) -> None:
    first = loaded()
    sum_ = int(first.train.images.sum())
    half = temporary / ("0" * 32)  # of a process killed while it wrote
    half.mkdir()
    (half / "arrays").write_bytes(b"12")
    loaded(DataConfig("digits", image_size=16))
    assert len(entries(temporary)) == 2
    assert not half.exists()
    assert int(first.train.images.sum()) == sum_
    for lock in shared._IN_USE.values():
        lock.close()
    shared._IN_USE.clear()
    loaded(DataConfig("digits", image_size=12))
    assert len(entries(temporary)) == 1


def test_a_half_written_one_is_loaded_again(temporary: Path) -> None:
    data = SharedData("digits", ".", (DIGITS,))
    data.load()
    for lock in shared._IN_USE.values():
        lock.close()
    shared._IN_USE.clear()
    (entry,) = entries(temporary)
    (entry / "whole").unlink()
    (entry / "arrays").write_bytes(b"")
    again = data.load()[DIGITS]
    assert np.array_equal(again.train.images, load("digits", ".", DIGITS).train.images)  # type: ignore[union-attr]


@pytest.mark.parametrize("lost", ["arrays", "rest", "used"])
def test_one_that_was_cleaned_away_in_part_is_loaded_again(lost: str, temporary: Path) -> None:
    data = SharedData("digits", ".", (DIGITS,))
    data.load()
    for lock in shared._IN_USE.values():
        lock.close()
    shared._IN_USE.clear()
    (entry,) = entries(temporary)
    (entry / lost).unlink()
    assert np.array_equal(data.load()[DIGITS].train.images, load("digits", ".", DIGITS).train.images)  # type: ignore[union-attr]
    (entry / "arrays").write_bytes(b"cut off")
    assert np.array_equal(data.load()[DIGITS].train.images, load("digits", ".", DIGITS).train.images)  # type: ignore[union-attr]


def test_data_that_are_others_than_planned_are_refused(tmp_path: Path) -> None:
    """A node that comes hours after the plan must not train on what has been put there since."""
    folder = tmp_path / "images"
    for label, value in (("cat", 0), ("dog", 255)):
        (folder / label).mkdir(parents=True)
        for index in range(20):
            Image.new("L", (8, 8), value).save(folder / label / f"{index}.png")
    spec = f"folder:{folder}"
    planned = DataConfig(identify(spec, "."))
    assert SharedData(spec, ".", (planned,)).load()[planned].count("train") > 0
    Image.new("L", (8, 8), 7).save(folder / "cat" / "0.png")
    later = SharedData(spec, ".", (dataclasses.replace(planned, flip=True),))
    with pytest.raises(InputError, match="the data have changed"):
        later.load()


def test_a_folder_that_is_not_the_users_alone_is_refused(temporary: Path, tmp_path: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(InputError, match="not a folder of yours alone"):
        loaded()
    temporary.rmdir()
    (tmp_path / "home" / "thesis").mkdir(parents=True)
    temporary.symlink_to(tmp_path / "home")
    with pytest.raises(InputError, match="not a folder of yours alone"):
        loaded()
    assert (tmp_path / "home" / "thesis").exists()


def test_what_is_not_a_data_set_is_left_alone(temporary: Path) -> None:
    (temporary / "thesis").mkdir(parents=True, mode=0o700)
    temporary.chmod(0o700)
    loaded()
    assert (temporary / "thesis").exists()
