"""Names as people may give them, and places as they may be: brackets, dollars and tags, the locale C, no home, a
storage that belongs to somebody else."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from analysis.command_line import InputError, make_console, parse, run
from analysis.records import read_sweep
from analysis.report.__main__ import main as report
from sweeps import launch
from sweeps.driver.estimates import keep_steps, known_steps, steps_file
from sweeps.driver.local import check_token_file
from sweeps.pilcro import PRESETS, PilcroSweep
from tests.sweeps.driving import SHORTER, finish, results, start

HOSTILE = "x[/b]$y$<i>:smile:%s{0}_a_"
NOBODY = 65534


def dry_run(*argv: str) -> int:
    try:
        launch.main(PilcroSweep, PRESETS, "", ["--dry-run", *argv])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


class TestNames:
    @pytest.mark.parametrize("name", [HOSTILE, "a[b]", "[red]a[/red]", "[/b]", "a b\\", "é—α"])
    def test_a_plan_prints_them_as_they_are(
        self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        storage = tmp_path / name / ("long" * 40)
        assert dry_run("--storage", str(storage), "--name", f"n{name.replace('/', '')}") == 0
        out, err = capsys.readouterr()
        assert f"recorded in {storage}/n{name.replace('/', '')}\n" in out
        assert err == ""

    def test_so_are_those_of_data(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = tmp_path / HOSTILE.replace("/", "") / "[/b]"
        for kind in ("[b]", "$y$\n"):
            (folder / kind).mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / kind / f"[{number}]\n.png")
        argv = ("--dataset", f"folder:{folder}", "--storage", str(tmp_path), "--interval", "1")
        assert dry_run(*argv) == 0
        out = capsys.readouterr().out
        assert f"data folder:{folder}: 2 classes ($y$\n, [b]), images 16 to train + 4 to test, 16×16 in colour\n" in out

    @pytest.mark.parametrize("argv", [["--epochs", "[/b]"], ["--[/b]"], ["--measure", "[/b]"], ["--model", "[/b]"]])
    def test_so_are_those_that_are_refused(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert dry_run(*argv) == 2
        assert "[/b]" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["x" * 300, "é" * 150, "a\x1b[31mb", "a\nb", "a\u202eb"])
    def test_what_no_file_or_terminal_takes_is_no_name(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert dry_run("--name", name) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: --name: ")
        assert err.removesuffix("\n").isprintable()
        assert len(err) < 250

    @pytest.mark.ray
    def test_a_sweep_in_such_a_place_ends_well(self, tmp_path: Path) -> None:
        storage = tmp_path / HOSTILE
        code, out, err = finish(start(storage, *SHORTER, "--epochs", "4", "--name", "a[red]b"))
        assert code == 0, err
        assert f"record: {storage}/a[red]b\n" in out
        assert f"-m analysis.report {shlex.quote(f'{storage}/a[red]b')}\n" in out
        assert " a[red]b: mean ± standard deviation" in out
        assert len(read_sweep(f"{storage}/a[red]b").trials) == 4

    def test_the_console_has_no_markup(self, capsys: pytest.CaptureFixture[str]) -> None:
        make_console().print("[bold]a[/b] :smile: 'x' 12")
        assert capsys.readouterr().out == "[bold]a[/b] :smile: 'x' 12\n"


class TestTheLocaleC:
    ENVIRONMENT: ClassVar[dict[str, str]] = {"LC_ALL": "C", "PYTHONUTF8": "0"}

    @pytest.mark.parametrize("encoding", ["ascii", ""])
    @pytest.mark.parametrize("argv", [["--help"], ["--help-metrics"], ["--dry-run"], ["--alpha", "−1"]])
    def test_everything_is_printed(self, encoding: str, argv: list[str], tmp_path: Path) -> None:
        environment = {**self.ENVIRONMENT, **({"PYTHONIOENCODING": encoding} if encoding else {})}
        process = start(tmp_path, *argv, env=environment)
        raw_out, raw_err = process.communicate(timeout=60)
        assert process.returncode == (2 if "--alpha" in argv else 0), raw_err
        assert raw_err.count("\n") == (1 if "--alpha" in argv else 0)
        assert "Traceback" not in raw_out + raw_err

    @pytest.mark.ray
    def test_a_sweep_is_the_same_there(self, tmp_path: Path) -> None:
        code, _, err = finish(start(tmp_path / "plain", *SHORTER, "--epochs", "4"))
        assert code == 0, err
        environment = {**self.ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
        code, out, err = finish(start(tmp_path / "é", *SHORTER, "--epochs", "4", env=environment))
        assert code == 0, err
        assert out.isascii()
        assert r"/\xe9/pilcro" in out
        assert results(tmp_path / "é") == results(tmp_path / "plain")

    def test_a_name_of_no_encoding_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"'x\\udcff': no utf-8"):
            parse(PilcroSweep, ["--storage", "x\udcff"], default=PRESETS["digits"], prog="pilcro.py")


class TestWithoutAHome:
    """/proc is writable for nobody, root or not."""

    def test_a_plan_says_nothing_of_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", "/proc/none")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert dry_run("--storage", str(tmp_path)) == 0
        assert capsys.readouterr().err == ""
        with pytest.raises(OSError, match="/proc/none"):
            keep_steps({"x": 1.0})

    def test_not_even_where_nobody_knows_where_it_would_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        assert known_steps() == {}
        with pytest.raises(OSError, match="no home folder"):
            steps_file()

    def test_a_local_ray_has_a_token_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        check_token_file()
        assert os.environ["RAY_AUTH_TOKEN"] == ""
        assert (tmp_path / "home" / ".ray").stat().st_mode & 0o777 == 0o700
        monkeypatch.setenv("HOME", "/proc/none")
        check_token_file()
        first = os.environ["RAY_AUTH_TOKEN"]
        assert len(first) == 64
        check_token_file()
        assert os.environ["RAY_AUTH_TOKEN"] == first

    @pytest.mark.ray
    def test_a_sweep_ends_well(self, tmp_path: Path) -> None:
        environment = {"HOME": "/proc/none", "XDG_CACHE_HOME": ""}
        code, _, err = finish(start(tmp_path, *SHORTER, "--epochs", "4", env=environment))
        assert code == 0, err
        # what drills beside this one have killed may be ended by this sweep
        assert [line for line in err.splitlines() if "of a killed sweep" not in line] == [
            "how fast this machine trained is not kept for --dry-run: [Errno 2] No such file or directory: '/proc/none'"
        ]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
class TestSomebodyElsesStorage:
    """One user's umask was 077. What another is told, whose processes have loaded everything that they need."""

    @staticmethod
    def told(work: Callable[[], int], file: Path) -> tuple[int, str]:
        """Exit code and errors of `work` as another user."""
        file.touch(mode=0o666)
        child = os.fork()
        if not child:
            code = 99
            try:
                os.dup2(os.open(file, os.O_WRONLY), 2)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                code = work()
                sys.stderr.flush()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file.read_text()

    @pytest.mark.parametrize("closed", ["pilcro", "pilcro/trials", "pilcro/trials/*", "pilcro/sweep.json"])
    def test_it_is_said_in_one_line_and_nothing_is_lost(
        self, closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.sweeps.test_command import record_failed

        record_failed(tmp_path)
        (tmp_path / "pilcro" / "sweep.json").write_text('{"contents": {}}')
        for folder in (tmp_path, *tmp_path.parents):
            if folder != Path("/") and folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o005 != 0o005:
                folder.chmod(folder.stat().st_mode | 0o055)
        argv = ["--storage", str(tmp_path)]
        dry_run(*argv)

        def page() -> int:
            monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / "pilcro")])
            try:
                run(report)
            except SystemExit as stop:
                return int(stop.code or 0)
            return 0

        page()
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        for path in tmp_path.glob(closed):
            path.chmod(0o600 if path.is_file() else 0o700)
        for work in (lambda: dry_run(*argv), page):
            code, err = self.told(work, tmp_path / "said")
            assert code in (1, 2), err
            assert err.startswith("error: ")
            assert err.count("\n") == 1, err
            assert "ermission denied" in err
            (tmp_path / "said").unlink()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
