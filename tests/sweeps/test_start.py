"""How a sweep starts on a Ray of its own: what is loaded meanwhile, what Ray does without, which workers it uses."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ray._private.node import Node
from ray.tune.execution import class_cache

from sweeps.driver import cluster
from sweeps.driver.failures import BadDevices
from sweeps.driver.losses import mended_tune
from sweeps.driver.meanwhile import meanwhile


def test_work_goes_on_beside_and_its_result_is_waited_for() -> None:
    may_end = threading.Event()
    loading = meanwhile(lambda: may_end.wait(60) and threading.current_thread().daemon)
    assert not loading.done()
    may_end.set()
    assert loading.result(60) is True


def test_what_it_raises_is_raised_where_it_is_needed() -> None:
    def fail() -> None:
        raise ValueError("no such folder")

    with pytest.raises(ValueError, match="no such folder"):
        meanwhile(fail).result(60)


@pytest.mark.parametrize("dashboard", [True, False])
def test_a_local_ray_starts_without_what_is_of_no_use_to_it(dashboard: bool) -> None:
    names = ("start_monitor", "start_log_monitor", "start_api_server")
    before = [getattr(Node, name) for name in names]
    with cluster._lean(dashboard):
        left_out = [getattr(Node, name) is not function for name, function in zip(names, before, strict=True)]
    assert left_out == [True, True, not dashboard]
    assert [getattr(Node, name) for name in names] == before


def test_workers_are_prepared_where_trials_use_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert [cluster._all_are_used(processors) for processors in (3.0, 4.0, 100.0)] == [False, True, True]
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidiactl")
    assert not cluster._all_are_used(100.0)


def test_trials_of_a_local_ray_have_no_environment_of_their_own() -> None:
    """With one, none of the workers that Ray has started would do. On a cluster they keep it."""
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    assert all(before)
    with mended_tune(BadDevices(0.0, 1)):
        assert before == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)
    with mended_tune(BadDevices(0.0, 1), local=True):
        assert not class_cache.DEFAULT_ENV_VARS
        assert not class_cache.ENV_VARS_TO_PROPAGATE
    assert before == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)
