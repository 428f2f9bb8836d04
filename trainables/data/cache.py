"""What was found by reading a whole data set, kept in the user's cache, so that it is read for that once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.data.listing import File

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Found = TypeVar("Found", bound=DataclassInstance)

_VERSION = 1
"""Of what is found: another one, and it is found anew."""
_SETTLED = 2.0
"""Seconds that a file has to be left alone for: within a clock's tick its content may change and its time not."""
_WORTH_TELLING = 5.0


def cache_folder() -> Path:
    """The user's, of this project: `$XDG_CACHE_HOME/spatial-sweeps`. Raises `OSError` where there is no home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = os.path.expanduser("~/.cache")
    if not os.path.isabs(cache) and home.startswith("~"):
        raise FileNotFoundError(errno.ENOENT, "no home folder", "~")
    return Path(cache if os.path.isabs(cache) else home) / "spatial-sweeps"


def remembered(kind: type[Found], what: Sequence[Any], files: Sequence[File], find: Callable[[], Found]) -> Found:
    """What `find` finds of these files, an instance of `kind` whose fields are JSON values; what it found before where
    path, size and times of each file, and `what` else it depends on, are the same. Where the cache cannot be written
    it is found anew each time."""
    known = [[file.path, file.size, *file.stamp] for file in files]
    name = hashlib.sha256(json.dumps([_VERSION, *what, known]).encode()).hexdigest()
    try:
        kept = cache_folder() / "data" / f"{name}.json"
    except OSError:
        return find()
    try:
        return kind(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        pass  # not found yet, or damaged
    start = time.time()
    found = find()
    if any(not 0 < file.changed < start - _SETTLED for file in files):
        return found
    fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(asdict(found)))
        fresh.replace(kept)
    except OSError as error:
        if time.time() - start > _WORTH_TELLING:
            print(f"what was read of the data is not kept, and is read again each time: {error}", file=sys.stderr)
    return found
