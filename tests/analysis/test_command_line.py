from __future__ import annotations

from dataclasses import dataclass

import pytest
from tyro.conf import Positional

from analysis import command_line
from analysis.command_line import InputError, parse
from analysis.report.__main__ import Flags as ReportFlags
from analysis.results import StrengthFlags
from trainables.metrics.locality.__main__ import Flags as LocalityFlags


@dataclass
class Flags:
    sweep: Positional[str]
    share: float = 0.8


def test_flags_are_parsed_with_defaults() -> None:
    assert parse(Flags, ["demo"], prog="command") == Flags("demo", 0.8)
    assert parse(Flags, ["demo", "--share", "0.5"], prog="command") == Flags("demo", 0.5)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["demo", "--unknown"], ["--unknown", "--help"]),
        (["demo", "--shar", "1"], ["--shar", "perhaps you meant --share"]),
        (["demo", "--share", "much"], ["--share", "'much'"]),
        ([], ["Missing", "--help"]),
    ],
)
def test_what_is_wrong_is_one_line(argv: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        parse(Flags, argv, prog="command")
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "box",
    [
        "╭─ Unrecognized options ─╮\n│ Unrecognized options: --x │\n│ ──── │\n│ For full helptext, run it │\n╰────╯\n",
        " Unrecognized options \n ---- \n  Unrecognized options: --x  \n  ----\n  For full helptext, run it \n",
    ],
    ids=["drawn", "plain"],
)
def test_the_parsers_box_is_read_however_it_is_drawn(box: str) -> None:
    assert command_line._one_line(box) == "Unrecognized options: --x (see --help)"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "-1", "1e308"])
@pytest.mark.parametrize("flag", ["--share", "--reference-below"])
def test_numbers_that_nobody_means_are_refused(flag: str, value: str) -> None:
    with pytest.raises(InputError, match=f"^{flag[2:].replace('-', '_')}: .*, allowed are "):
        parse(StrengthFlags, ["demo", f"{flag}={value}"], prog="command")


@pytest.mark.parametrize("flags", [StrengthFlags, ReportFlags, LocalityFlags])
def test_seeds_have_63_bits(flags: type) -> None:
    positional = [] if flags is LocalityFlags else ["demo"]
    assert parse(flags, [*positional, "--seed", str(2**63 - 1)], prog="command").seed == 2**63 - 1
    for seed in (-1, 2**63, 10**30):
        with pytest.raises(InputError, match=rf"^seed: {seed}, allowed are "):
            parse(flags, [*positional, f"--seed={seed}"], prog="command")
