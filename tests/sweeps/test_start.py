"""How a sweep starts on a Ray of its own: what is loaded meanwhile, what Ray does without, which workers it uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.node import Node
from ray.tune.execution import class_cache

from sweeps.driver import local
from sweeps.driver.address import NoRay
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
    with local._lean(dashboard, []):
        left_out = [getattr(Node, name) is not function for name, function in zip(names, before, strict=True)]
    assert left_out == [True, True, not dashboard]
    assert [getattr(Node, name) for name in names] == before


def test_workers_are_prepared_where_trials_use_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert [local._all_are_used(processors) for processors in (3.0, 4.0, 100.0)] == [False, True, True]
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidiactl")
    assert not local._all_are_used(100.0)


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


def test_a_ray_that_does_not_start_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    attempts: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        attempts.append(options)
        if len(attempts) < works_at:
            raise Exception("The current node timed out during startup. This\ncould happen")

    class Started:
        def get_session_dir_path(self) -> str:
            return f"{attempts[-1]['_temp_dir']}/session"

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray._private.worker, "_global_node", Started())
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    works_at = 2
    with local.local_ray(str(tmp_path / "x"), dashboard=False, trials=1.0) as session:
        assert len(attempts) == 2
        assert session == str(tmp_path / "x" / "ray" / "session")
    told = capsys.readouterr().err
    assert told == "Ray did not start (The current node timed out during startup. This could happen); once more\n"
    attempts.clear()
    works_at = 3
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    busy = r"twice \(The current node .* could happen\); this machine is busy \(load 1000"
    with pytest.raises(NoRay, match=busy), local.local_ray(str(tmp_path / "x"), dashboard=False, trials=1.0):
        pass
    attempts.clear()
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    room = "look whether memory and /dev/shm have room"
    with pytest.raises(NoRay, match=room), local.local_ray(str(tmp_path / "x"), dashboard=False, trials=1.0):
        pass
    assert all(options["_node_ip_address"] == "127.0.0.1" for options in attempts)
    assert all(options["_temp_dir"] == str(tmp_path / "x" / "ray") for options in attempts)


def test_a_node_is_waited_for_as_long_as_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray asks for it for 30 s, which on a busy machine are too few."""
    services = ray._private.services
    asked = []

    def get_node(address: str, name: str) -> dict[str, str]:
        asked.append(address)
        if len(asked) < 4:
            raise RuntimeError("not there")
        return {"node": name}

    class Starting:
        dead: list[str] = []  # noqa: RUF012

        def dead_processes(self) -> list[str]:
            return self.dead

    monkeypatch.setattr(services, "get_node", get_node)
    nodes: list[Any] = [Starting()]
    with local._lean(False, nodes):
        assert services.get_node("host:1", "a") == {"node": "a"}
        assert len(asked) == 4
        asked.clear()
        nodes[0].dead = ["raylet"]
        with pytest.raises(RuntimeError, match="not there"):
            services.get_node("host:1", "a")
        assert len(asked) == 1
    assert services.get_node is get_node


class TestTokenFile:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        return tmp_path

    def test_is_made_for_this_user_alone(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = os.umask(0)
        try:
            local.check_token_file()
        finally:
            os.umask(before)
        file = home / ".ray" / "auth_token"
        assert [path.stat().st_mode & 0o777 for path in (file.parent, file)] == [0o700, 0o600]
        token = file.read_text()
        assert len(token) == 64
        local.check_token_file()
        assert file.read_text() == token
        assert capsys.readouterr().err == ""

    def test_is_closed_to_others(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = home / ".ray" / "auth_token"
        file.parent.mkdir(mode=0o755)
        file.write_text("secret")
        file.chmod(0o644)
        local.check_token_file()
        assert [path.stat().st_mode & 0o777 for path in (file.parent, file)] == [0o700, 0o600]
        assert file.read_text() == "secret"
        assert capsys.readouterr().err == (
            f"{file.parent} was open to other users (0755) and no longer is\n"
            f"{file} was open to other users (0644) and no longer is\n"
        )

    def test_without_a_home_it_is_in_the_environment(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / ".ray").touch()  # no folder can be made
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        local.check_token_file()
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64

    @pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare for a mount")
    def test_a_full_home_has_no_half_of_one(self, home: Path) -> None:
        code = (
            "from sweeps.driver.local import check_token_file; import os; check_token_file(); "
            "print(len(os.environ['RAY_AUTH_TOKEN']), os.listdir(os.path.expanduser('~/.ray')))"
        )
        script = f"""
            mount -t tmpfs -o size=8k,mode=700 none {home}
            mkdir -m 700 {home}/.ray
            cat /dev/zero > {home}/full 2> /dev/null
            {sys.executable} -c "{code}"
        """
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        command = ["unshare", "--mount", "bash", "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.stdout == "64 []\n"

    @pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
    def test_is_left_where_another_is_used(self, home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "disabled")
        local.check_token_file()
        assert not (home / ".ray").exists()
