"""S3 that refuses, by permission, region or credentials: one line says what is wrong; and a sweep
on S3 whose driver is killed, or loses a permission."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from analysis.command_line import InputError
from analysis.records import scan
from analysis.storage import check_storage
from sweeps.driver import lease
from sweeps.driver.lease import Lease
from tests.sweeps.driving import LONGER, SCRIPT, finish, needs_root, same, start, wait_for
from tests.sweeps.store import Store


@pytest.fixture
def through(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    s3fs.S3FileSystem.clear_instance_cache()
    yield store
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("permission", "done"),
    [("PutObject", "written"), ("ListBucket", "listed"), ("GetObject", "read"), ("DeleteObject", "deleted from")],
)
def test_each_permission_that_is_missing_is_named_before_anything_starts(
    permission: str, done: str, through: Store
) -> None:
    through.refused = {permission: (403, "AccessDenied")}
    with pytest.raises(InputError) as found:
        check_storage("s3://bucket/sweeps")
    told = str(found.value)
    assert told.startswith(f"storage s3://bucket/sweeps at {through.url}: cannot be {done} (")
    assert f": s3:{permission}); check the credentials; a sweep needs s3:PutObject, s3:ListBucket, s3:GetObject" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((301, "PermanentRedirect"), "in another region; set AWS_DEFAULT_REGION"),
        ((400, "AuthorizationHeaderMalformed"), "AuthorizationHeaderMalformed"),
        ((400, "IllegalLocationConstraintException"), "IllegalLocationConstraintException"),
        ((400, "ExpiredToken"), "ExpiredToken"),
        ((403, "InvalidAccessKeyId"), "InvalidAccessKeyId"),
        ((403, "SignatureDoesNotMatch"), "SignatureDoesNotMatch"),
        ((403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed"),
    ],
)
def test_what_s3_says_is_told(answer: tuple[int, str], told: str, through: Store) -> None:
    through.answers = [answer]
    with pytest.raises(InputError, match=told):
        check_storage("s3://bucket/sweeps")


def test_a_wrong_region_is_put_right_where_s3_names_it(through: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    through.region = "eu-west-1"
    check_storage("s3://bucket/sweeps")  # signed for us-east-1 at first
    assert through.failed > 0
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu west")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match="region_name 'eu west' doesn't match"):
        check_storage("s3://bucket/sweeps")


@pytest.fixture
def profile(s3_endpoint: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a profile, and nothing of it in the environment."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[me]\naws_access_key_id = test\naws_secret_access_key = test\n")
    (tmp_path / "config").write_text(f"[profile me]\nregion = eu-west-1\nendpoint_url = {s3_endpoint}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_PROFILE", "me")
    s3fs.S3FileSystem.clear_instance_cache()
    return tmp_path


def test_credentials_by_profile_alone(profile: Path, s3_endpoint: str) -> None:
    check_storage("s3://bucket/sweeps")
    with Lease("s3://bucket/sweeps/demo"):
        pass
    with pytest.raises(InputError, match=f"nowhere/x at {s3_endpoint}: cannot be written .the bucket does not exist"):
        check_storage("s3://nowhere/x")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("no keys", "Unable to locate credentials"),
        ("other profile", "config profile .you. could not be found"),
        ("no URL", "Invalid endpoint: localhost:9000"),
        ("damaged", "Unable to parse config file"),
    ],
)
def test_what_is_wrong_with_a_profile(harm: str, told: str, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if harm == "no keys":
        (profile / "credentials").unlink()
    elif harm == "other profile":
        monkeypatch.setenv("AWS_PROFILE", "you")
    elif harm == "no URL":
        (profile / "config").write_text("[profile me]\nregion = eu-west-1\nendpoint_url = localhost:9000\n")
    else:
        (profile / "config").write_text("[profile me\n= x")
    with pytest.raises(InputError, match=told) as found:
        check_storage("s3://bucket/sweeps")
    assert "check the bucket, AWS_ENDPOINT_URL and the credentials" in str(found.value)


def test_of_several_that_see_a_dead_driver_on_s3_one_goes_on(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the conditional put: as on a disk (`test_lease.py`)."""
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.5)
    monkeypatch.setattr(lease, "STALE_AFTER", 1.0)
    s3fs.S3FileSystem(use_listings_cache=False).pipe_file("bucket/demo/driver.json", b'{"driver": "x"}')
    entered: list[Lease] = []
    refused: list[str] = []

    def enter() -> None:
        try:
            entered.append(Lease(f"{s3}/demo").__enter__())
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(entered) == 1
        assert len(refused) == 3
        assert all("another driver" in words for words in refused)
    finally:
        for held in entered:
            held.__exit__()


def _in_training() -> bool:
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    return len(fs.glob("bucket/sweeps/pilcro/checkpoints/*/*.pt")) > 2


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("permission", ["PutObject", "ListBucket", "GetObject", "DeleteObject"])
def test_a_permission_that_is_taken_away_in_mid_run(permission: str, store: Store, uninterrupted: Path) -> None:
    """No trial is recorded as failed; the run ends with what is wrong, and the same command goes on."""
    process = start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url})
    wait_for(_in_training, "training")
    store.refused = {permission: (403, "AccessDenied")}
    code, _, err = finish(process, 400)
    store.refused = {}
    assert code == 1, err
    assert "give the same command again" in err
    assert "Traceback" not in err
    assert set(scan("s3://bucket/sweeps/pilcro").statuses.values()) <= {"completed"}
    code, _, err = finish(start("s3://bucket/sweeps", *LONGER, env={"AWS_ENDPOINT_URL": store.url}))
    assert code == 0, err
    same("s3://bucket/sweeps", uninterrupted)


@pytest.mark.ray
@pytest.mark.long
@needs_root
def test_a_killed_driver_on_s3_is_followed_by_one_of_another_machine(
    s3: str, uninterrupted: Path, tmp_path: Path
) -> None:
    """Which cannot know that it is dead, and waits until its lease is stale."""
    process = start(f"{s3}/sweeps", *LONGER)
    wait_for(_in_training, "training")
    process.kill()
    process.communicate()
    # with processes of its own
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, SCRIPT]
    done = subprocess.run(
        [*apart, "--storage", f"{s3}/sweeps", *LONGER],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )
    assert done.returncode == 0, done.stderr
    assert "6/6 trials done" in done.stdout
    same(f"{s3}/sweeps", uninterrupted)
    assert not s3fs.S3FileSystem(use_listings_cache=False).exists("bucket/sweeps/pilcro/driver.json")
