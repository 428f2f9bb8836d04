"""Every sweep that the READMEs have a user type is one that can be planned."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sweeps.flags import read_flags
from sweeps.proposers import proposer_of
from tests.sweeps.test_help import script

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    {
        match
        for file in ("README.md", "sweeps/README.md", "trainables/README.md")
        for match in re.findall(
            r"^(?:uv run )?python sweeps/(.*)$", (ROOT / file).read_text().replace("\\\n", " "), flags=re.MULTILINE
        )
    }
)


def test_they_are_found() -> None:
    assert len(COMMANDS) >= 15
    assert (ROOT / "README.md").read_text().count("\n") <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_can_be_planned(command: str, tmp_path: Path) -> None:
    name, *argv = shlex.split(command, comments=True)
    for number, word in enumerate(argv):
        if word.startswith("folder:"):  # the user's own: a folder of two classes
            folder = tmp_path / "images"
            make_images(folder)
            other = tmp_path / f"other{number}"
            make_images(other)
            argv[number] = f"folder:{folder if argv[number - 1] == '--dataset' else other}"
    if {"--help", "--help-metrics", "--help-search"} & set(argv):
        with pytest.raises(SystemExit) as stop:
            read_flags(*script(name.removesuffix(".py")), argv, "")
        assert stop.value.code == 0
        return
    if "--warm-start" in argv:  # of a record that the commands before have made
        argv[argv.index("--warm-start") :] = argv[argv.index("--warm-start") + 2 :]
    assert proposer_of(read_flags(*script(name.removesuffix(".py")), argv, "")).space.trials


def make_images(folder: Path) -> None:
    from PIL import Image

    for label, grey in (("cat", 60), ("dog", 200)):
        for number in range(20):
            file = folder / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (grey, number, len(folder.name))).save(file)
