"""Files of a record on a disk or on S3: opened, read, written atomically, and with patience where the store fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from analysis.command_line import InputError
from analysis.lazily import lazily

if TYPE_CHECKING:
    import fsspec
else:
    fsspec = lazily("fsspec")
local, s3fs = lazily("fsspec.implementations.local"), lazily("s3fs")

# how long a store may take to answer the probe of `check_storage`
ANSWER_SECONDS = 12

PATIENCE = 120.0
"""Seconds for which the store may fail before a process that is patient gives up."""
SENT_WITHIN = 20.0
"""Seconds that sending a file may take, and a second more for each `SENT_PER_SECOND` bytes of it."""
SENT_PER_SECOND = 250_000
_PATIENT = 1_000_000  # s3fs's number of attempts, where the clock decides
_attempts: Any = None  # s3fs's own way of calling the store, once `be_patient` has put another in its place

Item = TypeVar("Item")
Result = TypeVar("Result")

# what a disk or an object store raises; s3fs turns the store's answers into OSErrors, but not a failed connection
STORAGE_ERRORS = (OSError, BotoCoreError)


class StorageError(InputError, OSError):
    """The storage failed on a file or folder of the record, which the message names: to a command that reads it a wrong
    input, and to a sweep no failure of a trial's."""


def be_patient() -> None:
    """From here on this process rides out failures of S3 that pass: it tries for `PATIENCE` where the store answers 5xx
    or does not answer. For a sweep's driver and workers; a command that only reads says soon what is wrong.
    """
    global _attempts
    s3fs.S3FileSystem.retries = _PATIENT
    # botocore's own attempts would multiply these
    fsspec.config.conf.setdefault("s3", {}).setdefault("config_kwargs", {"retries": {"total_max_attempts": 1}})
    if s3fs.core._error_wrapper is not _patiently:
        _attempts, s3fs.core._error_wrapper = s3fs.core._error_wrapper, _patiently


async def _patiently(
    function: Callable[..., Any],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    retries: int,
) -> Any:
    """What s3fs calls the store through, but by the clock, however long an attempt takes."""
    if retries != _PATIENT:  # of a file system that was opened not to be
        return await _attempts(function, args=args, kwargs=kwargs, retries=retries)
    # what is read has a timeout for every stretch of silence, what is sent has none
    body = (kwargs or {}).get("Body")
    allowed = None if body is None else SENT_WITHIN + (len(body) / SENT_PER_SECOND if isinstance(body, bytes) else 0)
    until, wait = time.monotonic() + PATIENCE, 0.1
    while True:
        try:
            async with asyncio.timeout(allowed):
                return await _attempts(function, args=args, kwargs=kwargs, retries=1)
        except Exception as error:
            # s3fs turns the store's answers into other exceptions, which do not say the status
            if not _passes(error.__cause__ if isinstance(error.__cause__, ClientError) else error):
                raise
            if time.monotonic() + wait > until:
                if isinstance(error, STORAGE_ERRORS) and str(error):
                    raise
                raise OSError(f"no whole answer ({type(error).__name__})") from error
        await asyncio.sleep(wait)
        wait = min(1.7 * wait, 15.0)


def _passes(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return isinstance(status, int) and status >= 500
    return isinstance(error, (BotoConnectionError, *s3fs.core.S3_RETRYABLE_ERRORS))


def location(url: str | os.PathLike[str]) -> str:
    """The one way to write a place of the storage: the absolute path of a folder or file, or `s3://bucket/key` without
    empty segments. Characters that elsewhere make a pattern (`[12]`, `*`, `?`) stand for themselves.

    Raises `InputError` for what is no such place.
    """
    text = os.fspath(url)
    if isinstance(url, os.PathLike) and text.startswith("s3:/"):
        text = f"s3://{text[4:].lstrip('/')}"  # a pathlib.Path has one slash where two were written
    scheme, colon, rest = text.partition(":")
    if scheme.lower() == "s3" and rest.startswith("//"):
        return f"s3://{_key(text, rest[2:])}"
    if not text or "\0" in text or "://" in text or (colon and scheme.lower() in _SCHEMES):
        raise InputError(f"{text if text and text.isprintable() else repr(text)}, {_PLACES}")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise InputError(f"{text}: there is no user {text[1:].split('/')[0]}; a folder of that name is ./{text}")
    return "/" + os.path.abspath(path).lstrip("/")  # POSIX keeps two slashes at the beginning


_PLACES = "allowed are a folder or s3://bucket/prefix"
_SCHEMES = ("s3", "s3a", "s3n", "file")
_BUCKET = re.compile(r"[A-Za-z0-9._-]+|arn:aws[^/]*")


def _key(text: str, rest: str) -> str:
    """Bucket and key of what follows s3://."""
    if not rest.strip("/") or rest.startswith("/"):
        raise InputError(f"{text}: no bucket; {_PLACES}")
    parts = [part for part in rest.split("/") if part]
    if not _BUCKET.fullmatch(parts[0]):
        raise InputError(f"{text}: {parts[0]!r} is no bucket's name; {_PLACES}")
    if {".", ".."} & {*parts}:
        raise InputError(f"{text}: a key of S3 has no . and .. between slashes; write it without")
    if "?versionId=" in rest or any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in rest):
        raise InputError(f"{text!r}: allowed in a key are characters that can be printed, and no ?versionId=")
    return "/".join(parts)


def open_place(url: str | os.PathLike[str], **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:
    """File system and path of a place, written in any way that `location` knows.

    Of the file systems' methods only those are used that take a path for what it is: `cat_file`, `pipe_file`,
    `rm_file`, `ls`, `find`, `exists`, `open`, `info`. Others (`rm`, `cat`, `glob`, `expand_path`) look for patterns.
    """
    place = location(url)
    if place.startswith("s3://"):
        # what other processes write is to be seen at once, and s3fs would answer from its cache
        return s3fs.S3FileSystem(use_listings_cache=False, **options), place.removeprefix("s3://")
    return local.LocalFileSystem(), place


def remove_folder(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Delete a folder and what is in it, and nothing else, if there is one."""
    if isinstance(fs, local.LocalFileSystem):  # which knows no patterns here, and removes a link, not what it is of
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=True)
        return
    for _ in _parallel(fs.rm_file, [key for key in fs.find(path) if key.startswith(f"{path}/")], fs):
        continue


def open_briefly(url: str) -> tuple[fsspec.AbstractFileSystem, str, dict[str, Any]]:
    """File system and path of what must be answered in seconds, also in a process that is patient; and what is to be
    given to each call, as a server that takes a request and says nothing is not covered by the others' timeouts."""
    if not location(url).startswith("s3://"):
        return *open_place(url), {}
    # the defaults try for minutes
    config = {"connect_timeout": 4, "read_timeout": 5, "retries": {"total_max_attempts": 1}}
    fs, path = open_place(url, config_kwargs=config)
    fs.retries = 2  # s3fs's own, of these instances only
    return fs, path, {"timeout": ANSWER_SECONDS}


def _shown(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """The path as a user would type it."""
    return path if isinstance(fs, local.LocalFileSystem) else fs.unstrip_protocol(path)


def _parallel(
    function: Callable[[Item], Result], items: Iterable[Item], fs: fsspec.AbstractFileSystem
) -> Iterator[Result]:
    # a disk is bound by decoding, where more threads only get in each other's way; an object store by its latency
    with ThreadPoolExecutor(4 if isinstance(fs, local.LocalFileSystem) else 32) as pool:
        yield from pool.map(function, items)


def _bytes(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    if isinstance(fs, local.LocalFileSystem):  # half the time of fsspec's own way, for files this small
        with open(path, "rb") as file:
            return file.read()
    content: bytes = fs.cat_file(path)
    return content


def put_file(fs: fsspec.AbstractFileSystem, path: str, content: bytes, **limit: float) -> None:
    """The whole file or nothing, whatever happens meanwhile; `limit` as `open_briefly` gives it."""
    if not isinstance(fs, local.LocalFileSystem):
        fs.pipe_file(path, content, **limit)
        return
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    # readers pass over names with a leading dot, so what a crash leaves behind disturbs nobody
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)  # the order of the four tables shall survive a power cut, too
    finally:
        os.close(directory)


def write_file(url: str, content: bytes) -> str:
    """Write a file atomically, to a folder (made when missing) or to S3; its path as a user would type it.

    Raises `StorageError` if it cannot be written.
    """
    fs, path = open_place(url)
    try:
        put_file(fs, path, content)
    except STORAGE_ERRORS as error:
        raise StorageError(f"{url}: cannot be written ({_reason(error)})") from None
    return _shown(fs, path)


def read_file(url: str) -> bytes | None:
    """A file's content, from a folder or S3; None if it does not exist. Raises `StorageError` if it cannot be read."""
    fs, path = open_place(url)
    try:
        return _bytes(fs, path)
    except FileNotFoundError:
        return None
    except STORAGE_ERRORS as error:
        raise StorageError(f"{url}: cannot be read ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


# what a sweep does with its storage, in the order in which it is tried, and the permission that S3 wants for it
_STEPS = (("written", "PutObject"), ("listed", "ListBucket"), ("read", "GetObject"), ("deleted from", "DeleteObject"))


def check_storage(url: str) -> None:
    """Find out in seconds whether a sweep could be recorded under `url` (made when it is a missing folder).

    Writes, lists, reads and deletes a probe. Raises `InputError` if that fails: a folder without permission, a missing
    bucket, missing credentials or such that may not do all of it, an endpoint that does not answer or is none.
    """
    fs, path, limit = open_briefly(url)
    probe = f"{path}/.probe-{uuid.uuid4().hex}"
    steps = iter(_STEPS)
    try:
        done, permission = next(steps)
        if isinstance(fs, local.LocalFileSystem):
            os.makedirs(path, exist_ok=True)
        fs.pipe_file(probe, b"probe", **limit)
        done, permission = next(steps)
        fs.ls(probe, detail=False, **limit)
        done, permission = next(steps)
        fs.cat_file(probe, **limit)
        done, permission = next(steps)
        fs.rm_file(probe, **limit)
    # ValueError: an endpoint that is no URL; RecursionError: botocore asks for ever for a region that nobody names
    except (*STORAGE_ERRORS, ValueError, RecursionError) as error:
        place = _endpoint(fs) if limit else ""
        reason = _reason(error)
        if limit and isinstance(error, FileNotFoundError):
            reason = "the bucket does not exist"
        elif isinstance(error, TimeoutError):
            reason = "no answer"
        elif isinstance(error, RecursionError):
            reason = "the bucket is in another region; set AWS_DEFAULT_REGION to that"
        way_out = "check the bucket, AWS_ENDPOINT_URL and the credentials" if limit else "choose another --storage"
        if limit and isinstance(error, PermissionError):
            way_out = f"check the credentials; a sweep needs {', '.join(f's3:{needed}' for _, needed in _STEPS)} there"
            reason += f": s3:{permission}"
        raise InputError(f"storage {url}{place and f' at {place}'}: cannot be {done} ({reason}); {way_out}") from None


def _endpoint(fs: fsspec.AbstractFileSystem) -> str:
    """Where the requests go, if not to AWS: by the environment, or by a profile of the configuration file."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    client = getattr(fs, "_s3", None)
    used = str(client.meta.endpoint_url) if client is not None else ""
    return named or ("" if used.endswith(".amazonaws.com") else used)
