"""sweeps/cluster/uv.sh with the network's answer made up: nothing but what is pinned is installed, or run.

That what is pinned is what the package index has: `test_ray_up.py`, which also installs it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "cluster" / "uv.sh"
VERSION = re.findall(r"(?m)^VERSION=(\S+)$", SCRIPT.read_text())[0]


class Machine:
    """A home directory, and a network that has one file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.wheel = folder, folder / "home", folder / "served"
        self.home.mkdir()
        self.uv = self.home / ".local" / "bin" / "uv"
        (folder / "bin").mkdir()
        curl = 'while [ "$1" != --output ]; do shift; done; cp "$SERVED" "$2"; echo "$@" >> "$SERVED.asked"'
        (folder / "bin" / "curl").write_text(f"#!/bin/bash\n{curl}\n")
        (folder / "bin" / "curl").chmod(0o755)
        with zipfile.ZipFile(self.wheel, "w") as wheel:
            wheel.writestr(f"uv-{VERSION}.data/scripts/uv", f"#!/bin/sh\necho uv {VERSION} '(linux)'\n")

    def run(self, pinned: str, kind: str = "") -> subprocess.CompletedProcess[str]:
        """uv.sh, with the hash of what it would install instead of that of uv's own wheels."""
        script = self.folder / "uv.sh"
        script.write_text(re.sub(r"SHA256=[0-9a-f]{64}", f"SHA256={pinned}", SCRIPT.read_text()))
        if kind:
            (self.folder / "bin" / "uname").write_text(f"#!/bin/sh\necho {kind}\n")
            (self.folder / "bin" / "uname").chmod(0o755)
        environment = {
            "HOME": str(self.home),
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "TMPDIR": str(self.folder),
            "SERVED": str(self.wheel),
        }
        return subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)

    def asked(self) -> list[str]:
        file = self.folder / "served.asked"
        return file.read_text().splitlines() if file.exists() else []

    def hash(self) -> str:
        return hashlib.sha256(self.wheel.read_bytes()).hexdigest()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("uv is pinned for Linux on x86_64 and aarch64")
    return Machine(tmp_path)


def test_what_is_pinned_is_installed_once(machine: Machine) -> None:
    # one of another version is there, as an image may have it
    machine.uv.parent.mkdir(parents=True)
    machine.uv.write_text("#!/bin/sh\necho uv 0.1.0\n")
    machine.uv.chmod(0o755)
    for _ in range(2):
        done = machine.run(machine.hash())
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert subprocess.run([machine.uv, "--version"], capture_output=True, text=True).stdout.startswith(
            f"uv {VERSION} "
        )
    assert len(machine.asked()) == 1
    assert "https://files.pythonhosted.org/packages/" in machine.asked()[0]
    assert f"/uv-{VERSION}-" in machine.asked()[0]
    assert not list(machine.folder.glob("tmp.*"))


def test_one_changed_byte_installs_nothing(machine: Machine) -> None:
    pinned = machine.hash()
    content = bytearray(machine.wheel.read_bytes())
    content[len(content) // 2] ^= 1
    machine.wheel.write_bytes(content)
    done = machine.run(pinned)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert pinned in done.stderr
    assert machine.hash() in done.stderr
    assert not machine.uv.exists()
    assert not list(machine.folder.glob("tmp.*"))


def test_half_an_installation_is_made_whole(machine: Machine) -> None:
    machine.uv.parent.mkdir(parents=True)
    machine.uv.write_bytes(b"\x7fELF half")
    machine.uv.chmod(0o755)
    assert machine.run(machine.hash()).returncode == 0
    assert VERSION in subprocess.run([machine.uv, "--version"], capture_output=True, text=True).stdout


def test_a_machine_without_a_pin_is_told(machine: Machine) -> None:
    done = machine.run(machine.hash(), kind="riscv64")
    assert done.returncode == 1
    assert done.stderr == "error: riscv64: uv is pinned for x86_64 and aarch64 (sweeps/cluster/uv.sh)\n"
    assert machine.asked() == []
