"""Which errors of Ray count against a trial, without a Ray; `test_nodes.py` and `test_faults.py` have the real ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.experiment import Trial

from sweeps.driver import losses
from sweeps.driver.failures import BadDevices
from trainables.trainable import OutOfGpuMemory


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What the cluster says of the node of the actor "a", which can be reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = {
            "NodeID": "n",
            "Alive": True,
            "NodeManagerAddress": "127.0.0.1",
            "NodeManagerPort": server.getsockname()[1],
        }
        state = SimpleNamespace(actors=lambda actor: {"Address": {"NodeID": "n"}} if actor == "a" else {})
        monkeypatch.setattr(losses.ray._private, "state", state)
        monkeypatch.setattr(losses.ray, "nodes", lambda: [said])
        monkeypatch.setattr(losses, "GOES_WITHIN", 0.0)
        yield said


def test_what_goes_with_its_node_is_preempted(node: dict[str, object]) -> None:
    error = RayActorError("a", "died")
    with losses.mended_tune(BadDevices(0.0, 6)):
        assert not error.preempted
        assert not RayActorError("unknown", "died").preempted
        assert not ActorDiedError().preempted
        # the cluster has not noticed yet
        node["NodeManagerPort"] = 1
        assert error.preempted
        node["Alive"] = False
        assert error.preempted
        assert RayActorError("a", "died", preempted=True).preempted
    assert not error.preempted


def test_what_ray_cannot_say_is_a_workers_loss(node: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again for a while, and no end of the sweep."""
    answers: list[object] = []

    def nodes() -> object:
        answer = answers.pop() if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(losses.ray, "nodes", nodes)
    answers[:] = [RuntimeError("the GCS is away")]
    assert not losses.went_with_its_node(RayActorError("a", "died"))
    monkeypatch.setattr(losses, "GOES_WITHIN", 60.0)
    answers[:] = [[], RuntimeError("the GCS is away")]
    assert losses.went_with_its_node(RayActorError("a", "died"))


class Failing:
    """What Tune keeps of a trial's failures."""

    def __init__(self, name: str) -> None:
        self.config, self.max_failures = {"trial": {"id": name}}, 3
        self.run_metadata = SimpleNamespace(num_failures=0, last_result={})

    def lose(self, error: RayActorError, times: int, epoch: int) -> bool:
        """Whether it is tried again after the last."""
        self.run_metadata.last_result["epoch"] = epoch
        for _ in range(times):
            Trial._handle_ray_actor_error(self, error)
        return self.run_metadata.num_failures <= self.max_failures


def test_a_trial_that_takes_node_after_node_with_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, lost = losses.MAX_NODE_LOSSES, RayActorError("a", "died", preempted=True)
    with losses.mended_tune(BadDevices(0.0, 6)) as in_a_row:
        unlucky, harmful = Failing("unlucky"), Failing("harmful")
        # what gets further between its losses may have any number of them
        assert all(unlucky.lose(lost, limit - 1, epoch) for epoch in range(1, 6))
        assert harmful.lose(lost, limit - 1, 3)
        assert harmful.run_metadata.num_failures == 0
        assert not harmful.lose(lost, 1, 2)  # again from an older checkpoint is no progress
        assert in_a_row == {"unlucky": limit - 1, "harmful": limit}
    plain = Failing("plain")
    assert plain.lose(lost, 3 * limit, 1)


def test_an_error_that_tune_does_not_know_is_an_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Exception] = []
    monkeypatch.setattr(RayActorManager, "_actor_task_failed", lambda self, task, error: seen.append(error))
    with losses.mended_tune(BadDevices(0.0, 6)):
        for error in (OutOfMemoryError("low"), RayActorError("a", "died"), ValueError("no error of Ray")):
            RayActorManager._actor_task_failed(None, None, error)
        # of an actor that lives
        raised = RayTaskError("step", "", OutOfGpuMemory("full")).as_instanceof_cause()
        assert isinstance(raised, RayActorError)
        RayActorManager._actor_task_failed(None, None, raised)
    stopped = seen.pop()
    assert isinstance(stopped, RayTaskError)
    assert not isinstance(stopped, RayActorError)
    assert isinstance(stopped.cause, OutOfGpuMemory)
    assert [type(error) for error in seen] == [RayActorError, RayActorError, ValueError]
    assert [str(error) for error in seen] == ["low", "died", "no error of Ray"]


def test_what_is_told_of_memory() -> None:
    words = (
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.9.9.9, ID: bde2) "
        "was 7.24GB used / 23.54GB limit (0.307482)\nOOM kill reason: Memory usage 7693955072B exceeded threshold"
    )
    told = losses.out_of_memory(RayActorError(error_msg=words))
    assert told is not None
    assert told.startswith(
        "out of memory: Ray killed its worker as the node ran low (7.24GB used / 23.54GB limit); fewer"
    )
    assert losses.out_of_memory(RayActorError(error_msg="died")) is None
