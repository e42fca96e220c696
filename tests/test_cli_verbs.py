"""What holds for all commands: how they are found, and how their output and errors are shown."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result

from sketchify_rt.cli import common, printable
from sketchify_rt.cli.verbs import main
from sketchify_rt.errors import DecodeError, OptionsError

PROGRAM = [sys.executable, "-m", "sketchify_rt"]
FULL = "Error: standard output cannot be written: No space left on device."
CLOSED = "Error: standard output cannot be written: it is closed."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one picture."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", np.full((9, 9), 90, np.uint8))
    return tmp_path


def call(line: str) -> Result:
    return CliRunner().invoke(main, shlex.split(line))


def shell(line: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash, where `sketchify-rt` is the program."""
    code = f'sketchify-rt() {{ {shlex.join(PROGRAM)} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", code], stderr=subprocess.PIPE, text=True, timeout=120, check=False, **how
    )


@pytest.mark.parametrize(
    "line",
    [
        "a.png -o out --mode binary",
        "--mode binary a.png -o out",
        "-o out --mode=binary -- a.png",
        "./info -o out --mode binary",
        "info.d -o out --mode binary",
    ],
)
def test_without_a_command_it_converts(here: Path, line: str) -> None:
    Path("info.d").mkdir()
    for copy in "info", "info.d/a.png":
        Path(copy).write_bytes(Path("a.png").read_bytes())
    result = call(line)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("converted 1, ")
    assert [path.suffix for path in Path("out").glob("[!.]*")] == [".png"]


def test_a_command_wins_against_a_file_of_its_name(here: Path) -> None:
    Path("info").touch()
    assert call("info").stdout.startswith("versions\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("covnert x", "no such command or file: got covnert. Did you mean convert?"),
        ("Engine list", "no such command or file: got Engine. Did you mean engines?"),
        ("watch", "no such command or file: got watch. The commands are convert, compare, "),
        ("gone.jpg -o out", "Error: gone.jpg: no such file or folder"),
        ("--nonsense", "No such option"),
        ("--version=1", "No such option"),
    ],
)
def test_words_that_are_no_command(here: Path, line: str, told: str) -> None:
    result = call(line)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        ([], "e", {"engines", "export-server"}),
        ([], "--v", {"--version"}),
        (["a.png"], "--keep", {"--keep-metadata"}),
        (["engines"], "ver", {"verify"}),
    ],
)
def test_completion(words: list[str], incomplete: str, found: set[str]) -> None:
    complete = BashComplete(main, {}, "sketchify-rt", "_SKETCHIFY_RT_COMPLETE")
    assert {item.value for item in complete.get_completions(words, incomplete)} == found


COMMANDS = [
    "--help",
    "--version",
    "info --json",
    "engines list",
    "compare --help",
    "compare a.png -o sheet.png --detail 64",
    "a.png -o -",
    "a.png -o out --json",
    "a.png -o out --dry-run",
]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_standard_output_is_told(here: Path, command: str) -> None:
    done = shell(f"sketchify-rt {command} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(FULL) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_standard_output_is_told(here: Path, command: str) -> None:
    done = shell(f"sketchify-rt {command} >&-")
    assert done.returncode == 1
    assert done.stderr.startswith(CLOSED) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_pipe_ends_without_a_word(here: Path, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = shell(f"sketchify-rt {command} >&{writing}", pass_fds=(writing,))
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_standard_output_is_no_failure_if_nothing_is_written(here: Path) -> None:
    done = shell("sketchify-rt a.png -o out --mode binary --quiet >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert cv2.imread("out/a.png") is not None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("stream", ["/dev/full", "&-"])
def test_a_standard_error_that_cannot_be_written_stops_nothing(here: Path, stream: str) -> None:
    Path("bad.png").write_bytes(b"no image")
    done = shell(f"sketchify-rt bad.png a.png gone.png -o out --mode binary 2>{stream} >told")
    assert done.returncode == 1
    assert Path("told").read_text().startswith("converted 1, skipped 0, failed 2 ")


def test_the_whole_output_arrives(here: Path) -> None:
    shell("sketchify-rt a.png -o - --mode binary > piped.png; sketchify-rt a.png -o out -q")
    piped = cv2.imread("piped.png", cv2.IMREAD_UNCHANGED)
    assert piped is not None and piped.shape == (9, 9)


def test_any_name_can_be_printed_in_any_encoding(here: Path) -> None:
    Path("a.png").rename("漫\udcff.png")
    done = shell("PYTHONIOENCODING=latin-1 sketchify-rt 漫*.png -o out --dry-run > told")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("told").read_text().startswith("convert  \\u6f2b\\ufffd.png -> out/")


def test_control_characters_are_printed_as_words() -> None:
    text = "a\x1b[2J\r\x07b\x7f\x9b1m\n\tc漫"
    assert printable(text) == "a\\x1b[2J\\r\\x07b\\x7f\\x9b1m\n\tc漫"


@pytest.mark.parametrize(
    "words",
    [
        ["engines", "list\x1b]0;x\x07"],
        ["--\x1b[2J"],
        ["convert", "a.png", "-o", "a.png\x1b[2J", "--mode", "\x1b[2J"],
        ["build-engine", "\x1b[2J"],
        ["export-server", "\x1b[2J", "--model", "\x1b[2J"],
        ["engines", "verify", "\x1b[2J"],
        ["compare", "\x1b[2J.png", "-o", "sheet.png"],
        ["compare", "a.png", "\x1b[2J.png", "-o", "sheet.png", "--detail", "64"],
    ],
)
def test_errors_hold_no_control_characters(here: Path, words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code > 0
    assert "\\x1b" in result.stderr
    assert "\x1b" not in result.output


HEADING = re.compile(r"^(\S.*):$", re.MULTILINE)
OF_COMPARE = ["Output", "Pencil and looks", "Size", "GPU", "Memory and safety", "Messages"]


@pytest.mark.parametrize(
    ("line", "headings"),
    [
        ("compare --help", OF_COMPARE),
        ("build-engine -h", ["Engine", "Build", "Output", "Messages"]),
        ("info --help", ["Options"]),
        ("export-server --help", ["Options"]),
    ],
)
def test_a_long_list_of_options_has_headings(line: str, headings: list[str]) -> None:
    told = call(line).stdout
    assert HEADING.findall(told) == headings
    assert "-h, --help" in told.split(f"\n{headings[-1]}:\n")[1]


def test_options_are_below_the_heading_of_their_group() -> None:
    names = [f"--{letter}" for letter in "abcdefghijkl"]

    def build(*groups: str) -> str:
        command = common.Command("run", callback=lambda: None)
        for name, group in zip(names, groups, strict=False):
            command.params.append(common.Option([name], group=group, default=name[2:]))
        return CliRunner().invoke(command, ["--help"]).stdout

    told = build("One", "Two", "One", *["Three"] * 9)
    assert HEADING.findall(told) == ["One", "Two", "Three"]
    assert "\nOne:\n  --a TEXT  [default: a]\n  --c TEXT  [default: c]\n\nTwo:\n" in told
    assert told.endswith("  --help    Show this message and exit.\n")
    assert HEADING.findall(build("One", "Two", *["Three"] * 9)) == ["Options"]  # a short list


def test_the_reference_has_these_headings() -> None:
    hooks = runpy.run_path(str(Path(__file__).parents[1] / "docs/hooks.py"))
    pages = dict(
        zip([words for words, _ in hooks["commands"]()], hooks["_reference"](), strict=True)
    )
    assert HEADING.findall(pages["sketchify-rt compare"]) == OF_COMPARE


@pytest.mark.parametrize(
    ("error", "attributes", "code"),
    [
        (OptionsError("wrong"), {}, 2),
        (DecodeError("a", "wrong"), {}, 1),
        (DecodeError("a", "wrong"), {"failure": common.Refusal}, 2),
    ],
)
def test_errors_of_the_package_are_told(
    error: Exception, attributes: dict[str, Any], code: int
) -> None:
    @common.command(**attributes)
    def command() -> None:
        raise error

    result = CliRunner().invoke(command, [])
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.endswith(f"Error: {error}\n")


@pytest.mark.parametrize(
    ("overwrite", "skip", "existing"),
    [(False, False, "refuse"), (True, False, "overwrite"), (False, True, "skip")],
)
def test_what_is_done_with_results_that_exist(overwrite: bool, skip: bool, existing: str) -> None:
    assert common.existing(overwrite, skip) == existing
    with pytest.raises(click.UsageError, match="cannot be used together"):
        common.existing(True, True)
