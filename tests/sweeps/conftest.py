from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.driving import LONGER, SHORTER, end, finish, start
from tests.sweeps.store import Store


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    end()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a sweep of six trials that nothing disturbed."""
    return undisturbed(tmp_path_factory.mktemp("uninterrupted"), LONGER, 6)


@pytest.fixture(scope="session")
def shorter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a sweep of four trials that nothing disturbed."""
    return undisturbed(tmp_path_factory.mktemp("shorter"), SHORTER, 4)


def undisturbed(storage: Path, argv: list[str], trials: int) -> Path:
    code, out, err = finish(start(storage, *argv, cwd=storage))
    assert code == 0, err
    assert f"{trials}/{trials} trials done" in out
    assert err == ""
    return storage


@pytest.fixture
def store(s3: str, s3_endpoint: str) -> Iterator[Store]:
    found = Store(s3_endpoint)
    yield found
    found.close()
