"""A local Ray for a user without a home folder that can be written: in a container, as a service."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def bring_token() -> None:
    """Ray keeps the token of a local cluster in ~/.ray. Where that cannot be, this process and its workers have one of
    their own."""
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / "auth_token").exists() or os.access(folder, os.W_OK):
            return
    except (OSError, RuntimeError):  # the latter: it is not known where it would be
        pass
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
