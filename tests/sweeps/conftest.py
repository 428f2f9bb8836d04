from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeps.driving import LONGER, finish, start


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a sweep of six trials that nothing disturbed."""
    storage = tmp_path_factory.mktemp("uninterrupted")
    code, out, err = finish(start(storage, *LONGER, cwd=storage))
    assert code == 0, err
    assert "6/6 trials done" in out
    assert err == ""
    return storage
