"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainables.data import Images, load


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest) -> Images:
    """scikit-learn's digits as the module's `DATA` says."""
    loaded = load("digits", "unused", request.module.DATA)
    assert isinstance(loaded, Images)
    return loaded


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small steps, many of them: threads would wait for one another, where a machine is shared ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
