"""What the tests of every room share: how they are dealt out to processes, what of the machine they do not see."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

# before numpy and torch are loaded: processes side by side would take each other's cores, and waiting would spin
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import s3fs
from moto.server import ThreadedMotoServer
from xdist.remote import Producer
from xdist.scheduler.loadgroup import LoadGroupScheduling

MOST_PROCESSES = 4  # with more, those that start a Ray, one after another, are what remains

for _name in [name for name in os.environ if name.startswith("AWS_") or name in ("RAY_ADDRESS", "SWEEPS_COMMIT")]:
    del os.environ[_name]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` is: none beside pytest's own for tests that are named one by one."""
    if config.args and all("::" in argument for argument in config.args):
        return 0
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", min(len(os.sched_getaffinity(0)), MOST_PROCESSES)))


class Scheduling(LoadGroupScheduling):
    """Groups as they are marked; of all other tests a file's run in one process, as they share what they are about."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return scope.split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return Scheduling(config, log) if config.option.dist == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start a Ray run in one process, one after another, as each takes the whole machine. They begin, as
    they are the longest group."""

    def starts_ray(item: pytest.Item) -> bool:
        return any(item.get_closest_marker(name) for name in ("ray", "cluster"))

    for item in filter(starts_ray, items):
        item.add_marker(pytest.mark.xdist_group("ray"))
    items.sort(key=lambda item: not starts_ray(item))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket of a server on this machine."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    # file systems are kept by their arguments, and the environment is not among them
    s3fs.S3FileSystem.clear_instance_cache()
    # named outright: a test may change the environment
    server = s3fs.S3FileSystem(endpoint_url=s3_endpoint, key="test", secret="test", use_listings_cache=False)
    server.mkdir("bucket")
    yield "s3://bucket"
    server.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sweeps keep of this machine's speed is the user's, and no test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def nobody() -> Iterator[str]:
    """Host and port of this machine at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        yield f"127.0.0.1:{taken.getsockname()[1]}"
