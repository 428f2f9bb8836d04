"""Checkpoints survive what happens to files: being cut short, being replaced, being read while old."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from trainables.checkpoints import CheckpointError, Checkpoints


def state(epoch: int) -> dict[str, object]:
    return {"epoch": epoch, "model": {"weight": torch.full((3,), float(epoch))}, "rows": [{"loss": None, "top1": 0.5}]}


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pt"))


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    for epoch in (1, 2, 12):
        checkpoints.save(epoch, state(epoch))
    assert [path.name[:6] for path in files(tmp_path / "c")] == ["000002", "000012"]
    loaded, complaints = checkpoints.load()
    assert loaded is not None
    assert loaded["epoch"] == 12
    assert torch.equal(loaded["model"]["weight"], torch.full((3,), 12.0))
    assert complaints == []


def test_none_at_all_is_no_error(tmp_path: Path) -> None:
    assert Checkpoints(str(tmp_path / "c")).load() == (None, [])


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_one_is_noticed_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    newest = files(tmp_path / "c")[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": bytes(content[:-100]), "empty": b"", "flipped": bytes(content)}[damage])
    loaded, complaints = checkpoints.load()
    assert loaded is not None
    assert loaded["epoch"] == 1
    assert len(complaints) == 1
    assert newest.name in complaints[0]


def test_all_damaged_is_an_error_that_names_them(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    for path in files(tmp_path / "c"):
        path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"000001-.*") as caught:
        checkpoints.load()
    assert "000002-" in str(caught.value)


def test_the_check_reads_the_newest_that_is_whole_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    checkpoints.check()
    for epoch in (1, 2):
        checkpoints.save(epoch, state(epoch))
    older, newest = files(tmp_path / "c")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("nothing is decoded"))
    content = older.read_bytes()
    older.write_bytes(b"x")
    checkpoints.check()
    newest.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="000001-"):
        checkpoints.check()
    older.write_bytes(content)
    checkpoints.check()


def test_a_file_that_goes_meanwhile_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a driver that was killed has just ended the trial."""
    checkpoints = Checkpoints(str(tmp_path / "c"))
    checkpoints.save(1, state(1))
    (name,) = checkpoints._names()
    monkeypatch.setattr(checkpoints, "_names", lambda: [name])
    checkpoints.delete()
    assert checkpoints.load() == (None, [])
    checkpoints.check()


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A file whose name matches its content but which carries code is refused, not executed."""

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'executed')!r}, 'w')",))

    folder = tmp_path / "c"
    folder.mkdir()
    torch.save({"epoch": 1, "bad": Malicious()}, folder / "x")
    content = (folder / "x").read_bytes()
    (folder / "x").rename(folder / f"000001-{hashlib.sha256(content).hexdigest()[:16]}.pt")
    with pytest.raises(CheckpointError, match="refused"):
        Checkpoints(str(folder)).load()
    assert not (tmp_path / "executed").exists()


def test_starts_are_counted(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    assert [checkpoints.count_start() for _ in range(3)] == [1, 2, 3]
    checkpoints.save(1, state(1))
    assert Checkpoints(str(tmp_path / "c")).count_start() == 4
    checkpoints.delete()
    assert not (tmp_path / "c").exists()
    checkpoints.delete()
