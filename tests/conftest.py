"""What the tests of every room share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer


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
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sweeps keep of this machine's speed is the user's, and no test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
