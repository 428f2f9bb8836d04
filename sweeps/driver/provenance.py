"""Which code trained the networks."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from analysis.command_line import InputError


def git_state(root: Path) -> dict[str, Any]:
    """Commit of this project's checkout, and whether it has been changed since; None where there is none. What
    SWEEPS_COMMIT says where code came without its history, as a Ray job's does."""
    if not (root / ".git").exists():
        told = os.environ.get("SWEEPS_COMMIT", "")
        found = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", told)
        if told and not found:
            raise InputError(f"SWEEPS_COMMIT: {told!r}, allowed is a commit's 40 digits, with -dirty after changes")
        return {"git_commit": found and found[1], "git_dirty": found and bool(found[2])}
    commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    status = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=False
    )
    if commit.returncode or status.returncode:
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit.stdout.strip(), "git_dirty": bool(status.stdout.strip())}
