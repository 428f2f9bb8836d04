"""The record on an object store, against a server on this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
import s3fs
from aiohttp import ClientPayloadError

from analysis import records, storage, tipping_points
from analysis.command_line import InputError
from analysis.schema import TABLES

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]


def objects(url: str) -> list[str]:
    return sorted(s3fs.S3FileSystem(use_listings_cache=False).find(url))


def test_a_sweep_on_s3_is_written_read_and_compacted_as_a_local_one(
    s3: str, tmp_path: Path, record: Record, command: Command
) -> None:
    sweep = f"{s3}/results/demo"
    assert records.scan(sweep) == records.Scan({}, {})
    with pytest.raises(InputError, match=r"s3://bucket/results/demo: no recorded trials"):
        records.read_sweep(sweep)
    for place in (sweep, str(tmp_path / "demo")):
        assert record(place, "b", status="failed", top1=None)
        assert record(place, "a")
        assert not record(place, "a", top1=0.1)
    assert records.scan(sweep) == records.Scan({"a": "completed", "b": "failed"}, {})
    assert records.content_hash(sweep) == records.content_hash(str(tmp_path / "demo"))

    code, out, err = command(records.main, "compact", sweep)
    assert (code, err) == (0, "")
    assert sorted(out.split()) == [f"{sweep}/{table}/compacted.parquet" for table in sorted(TABLES)]
    assert objects(sweep) == [path.removeprefix("s3://") for path in sorted(out.split())]
    for place in (sweep, str(tmp_path / "demo")):
        assert record(place, "b", top1=0.5)
    here, there = records.read_sweep(str(tmp_path / "demo")), records.read_sweep(sweep)
    assert (there.path, there.name) == (sweep, "demo")
    for table in TABLES:
        assert getattr(there, table).equals(getattr(here, table))
    assert pd.read_parquet(f"{sweep}/trials")["status"].tolist().count("completed") == 2


def test_what_another_process_writes_is_seen_at_once(s3: str, tmp_path: Path, record: Record) -> None:
    sweep = f"{s3}/demo"
    record(sweep, "a")
    assert set(records.scan(sweep).statuses) == {"a"}
    record(tmp_path, "b")
    # a client with a listing cache of its own stands for another process
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    for table in TABLES:
        other.pipe_file(f"{sweep}/{table}/b.parquet", (tmp_path / table / "b.parquet").read_bytes())
    assert set(records.scan(sweep).statuses) == {"a", "b"}
    other.rm_file(f"{sweep}/trials/a.parquet")
    assert set(records.scan(sweep).statuses) == {"b"}
    assert record(sweep, "a", top1=0.3)


def test_a_damaged_object_and_a_folder_marker(s3: str, record: Record) -> None:
    sweep = f"{s3}/demo"
    record(sweep, "a")
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    fs.pipe_file(f"{sweep}/trials/", b"")
    assert records.scan(sweep).statuses == {"a": "completed"}
    fs.pipe_file(f"{sweep}/epochs/a.parquet", fs.cat_file(f"{sweep}/epochs/a.parquet")[:100])
    assert "s3://bucket/demo/epochs/a.parquet" in records.scan(sweep).corrupted["a"]
    assert record(sweep, "a")
    assert records.scan(sweep) == records.Scan({"a": "completed"}, {})


def test_tipping_points_are_written_beside_the_sweep(s3: str, record: Record, command: Command) -> None:
    for index, top1 in enumerate([0.9, 0.8, 0.3]):
        record(f"{s3}/demo", f"t{index}", alpha=10.0**index, top1=top1)
    code, out, err = command(tipping_points.main, f"{s3}/demo")
    assert (code, err) == (0, "")
    written = [line for line in out.splitlines() if line.startswith("s3://")]
    assert written == [f"{s3}/demo/analysis/tipping_points.{kind}" for kind in ("parquet", "png", "svg", "pdf")]
    assert pd.read_parquet(written[0])["threshold"].tolist() == [100.0]
    assert {f"s3://{path}" for path in objects(f"{s3}/demo/analysis")} == set(written)


def test_storage_that_can_be_written(s3: str) -> None:
    records.check_storage(f"{s3}/results")
    assert objects(s3) == []


def test_a_bucket_that_does_not_exist(s3: str) -> None:
    with pytest.raises(InputError, match=r"s3://no-such-bucket/results.*the bucket does not exist"):
        records.check_storage("s3://no-such-bucket/results")
    assert records.scan("s3://no-such-bucket/demo") == records.Scan({}, {})


def test_an_endpoint_that_nobody_listens_at_is_noticed_in_seconds(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    s3fs.S3FileSystem.clear_instance_cache()
    start = time.monotonic()
    with pytest.raises(InputError, match=f"storage {s3}/results at {address}: cannot be written") as raised:
        records.check_storage(f"{s3}/results")
    assert time.monotonic() - start < 60  # botocore would try for minutes
    assert "\n" not in str(raised.value)


def test_a_server_that_says_nothing_is_noticed_in_seconds(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(storage, "ANSWER_SECONDS", 1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match=r"cannot be written \(no answer\)"):
            records.check_storage(f"{s3}/results")


def test_missing_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"cannot be written .*credentials"):
        records.check_storage(f"{s3}/results")


class Server:
    """Accepts connections and then does with each what it is told to; counts them."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.listens = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listens.getsockname()[1]}"
        self.accepted: list[socket.socket] = []
        self.answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self.accepted.append(self.listens.accept()[0])
                self.answer(self.accepted[-1])

    def close(self) -> None:
        for each in (self.listens, *self.accepted):
            each.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For seconds, several attempts also on a machine in use, and no longer than the test."""
    monkeypatch.setattr(storage, "PATIENCE", 5.0)
    monkeypatch.setattr(storage, "SENT_WITHIN", 0.5)
    monkeypatch.setattr(s3fs.core, "_error_wrapper", s3fs.core._error_wrapper)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", s3fs.S3FileSystem.retries)
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.5)
    monkeypatch.setattr(fsspec.config, "conf", {})
    records.be_patient()


def ended(function: Callable[[], object]) -> Exception | None:
    """What it raises; not awaited for ever."""
    raised: list[Exception | None] = []

    def call() -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert raised, "still waits"
    return raised[0]


@pytest.mark.parametrize("answer", ["closes", "is silent"])
def test_patience_ends_by_the_clock(answer: str, s3: str, patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the store fails: the attempts of s3fs and botocore do not multiply, and what is sent waits no longer."""
    server = Server((lambda one: one.close()) if answer == "closes" else (lambda one: None))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    fs, path = storage.open_place(f"{s3}/demo")
    for call in (lambda: records.put_file(fs, f"{path}/x", b"content"), lambda: fs.cat_file(f"{path}/x")):
        before = len(server.accepted)
        assert isinstance(ended(call), records.STORAGE_ERRORS)
        assert 1 < len(server.accepted) - before < 40  # those attempts multiplied would be 75 and more
    server.close()


def test_patience_outlasts_what_passes(s3: str, patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 60.0)
    fs, path = storage.open_place(f"{s3}/demo")
    failures = 3
    whole = storage._attempts

    async def fails(*args: Any, **options: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ClientPayloadError("cut short")
        return await whole(*args, **options)

    monkeypatch.setattr(storage, "_attempts", fails)
    records.put_file(fs, f"{path}/x", b"content")
    assert failures == -1
    assert fs.cat_file(f"{path}/x") == b"content"
    failures = 1_000
    monkeypatch.setattr(storage, "PATIENCE", 0.5)
    with pytest.raises(OSError, match="no whole answer"):  # what a driver and a worker take for the storage's
        fs.cat_file(f"{path}/x")
    failures = 0
