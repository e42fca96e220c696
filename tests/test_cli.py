from __future__ import annotations

import contextlib
import csv
import errno
import json
import logging
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import until
from PIL import Image

from sketchify_rt import files, inputs
from sketchify_rt.batch import api, reports
from sketchify_rt.batch.journal import HIDDEN
from sketchify_rt.cli import convert, telling
from sketchify_rt.cli.verbs import main
from sketchify_rt.errors import BackendUnavailable, DecodeError, SketchifyError
from sketchify_rt.inputs import File
from sketchify_rt.kernels import native
from sketchify_rt.options import Encoding, Options


class Engine:
    """Gives back the bytes of the file; those that start with "bad" cannot be decoded."""

    opened: list[Options]
    batch = 1

    def __init__(self, options: Options) -> None:
        Engine.opened.append(options)
        self.backend = SimpleNamespace(note=None, workers=2)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def close(self) -> None:
        pass

    def prepare(self, workers: int) -> None:
        if Engine.opened[-1].device.startswith("cuda"):
            raise BackendUnavailable("cuda: no such device; use --device cpu")

    def encode_batch(
        self, images: Sequence[File], encoding: Encoding
    ) -> Sequence[bytes | Exception]:
        try:
            return [self.encode(image, encoding) for image in images]
        except Exception as error:
            return [error]

    def encode(self, image: File, encoding: Encoding) -> bytes:
        if image.data.startswith(b"bad"):
            raise DecodeError(image.name, "the file is cut short")
        return f"{encoding.format} {encoding.quality} ".encode() + image.data


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an engine without pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "open_sketchifier", Engine)
    Engine.opened = []
    return tmp_path


def make(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["convert", *arguments])


def results(folder: str = "out") -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in visible(folder)}


def visible(folder: str) -> list[Path]:
    """All files but the journal."""
    return [path for path in Path(folder).rglob("*") if path.is_file() and HIDDEN not in path.parts]


def test_a_folder_becomes_a_folder(here: Path) -> None:
    make(in__a="1", in__sub__b="2")
    result = call("in", "-o", "out")
    assert result.exit_code == 0
    assert results() == {"a.png": "png None 1", "sub/b.png": "png None 2"}
    assert result.stdout.startswith("converted 2, skipped 0, failed 0 in ")
    assert result.stderr == ""


def test_one_bad_file_is_named_and_the_rest_converted(here: Path) -> None:
    make(in__a="1", in__b="bad", in__c="3")
    result = call("in", "gone.jpg", "-o", "out")
    assert result.exit_code == 1
    assert sorted(results()) == ["in/a.png", "in/c.png"]
    assert result.stderr.splitlines() == [
        "gone.jpg: no such file or folder",
        "in/b.jpg: the file is cut short",
    ]
    assert result.stdout.startswith("converted 2, skipped 0, failed 2 in ")


def test_quiet_tells_of_failures_alone(here: Path) -> None:
    make(a="1", b="bad")
    result = call("a.jpg", "b.jpg", "-o", "out", "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "b.jpg: the file is cut short\n"


def test_quiet_hides_warnings_of_its_own_run_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("sketchify_rt")

    class Warns(Engine):
        def __init__(self, options: Options) -> None:
            super().__init__(options)
            log.warning("using the CPU")

    monkeypatch.setattr(api, "open_sketchifier", Warns)
    make(a="1")
    call("a.jpg", "-o", "out", "-q")
    assert "using the CPU" not in caplog.text
    call("a.jpg", "-o", "out", "--overwrite")
    assert "using the CPU" in caplog.text


def test_json_is_one_document(here: Path) -> None:
    make(in__a="1", in__b="bad", in__c="3")
    call("in/c.jpg", "-o", "out")
    result = call("in", "gone/*.jpg", "-o", "out", "--json", "--skip-existing")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document.pop("seconds") >= 0
    assert document.pop("images_per_second") >= 0
    assert document == {
        "converted": 2,
        "animated": 0,
        "skipped": 0,
        "failed": 2,
        "not_done": 0,
        "stopped": None,
        "failures": [
            {"source": "gone/*.jpg", "reason": "no image has a name like this"},
            {"source": "in/b.jpg", "reason": "the file is cut short"},
        ],
        "files": [
            {"source": "in/a.jpg", "output": "out/in/a.png", "status": "converted"},
            {"source": "in/b.jpg", "output": "out/in/b.png", "status": "failed"},
            {"source": "in/c.jpg", "output": "out/in/c.png", "status": "converted"},
        ],
        "passed_over": {},
    }


def test_existing_results(here: Path) -> None:
    make(a="1", b="2")
    assert call("a.jpg", "-o", "out").exit_code == 0
    Path("out/a.png").write_text("kept")
    refused = call("a.jpg", "b.jpg", "-o", "out")
    assert refused.exit_code == 1
    assert "out/a.png: exists already; give --overwrite or --skip-existing" in refused.stderr
    assert results() == {"a.png": "kept", "b.png": "png None 2"}
    skipped = call("a.jpg", "b.jpg", "-o", "out", "--skip-existing")
    assert (skipped.exit_code, skipped.stdout[:33]) == (0, "converted 0, skipped 2, failed 0 ")
    assert call("a.jpg", "-o", "out", "--overwrite").exit_code == 0
    assert results()["a.png"] == "png None 1"
    both = call("a.jpg", "-o", "out", "--overwrite", "--skip-existing")
    assert both.exit_code == 2


def test_options_reach_the_engine(here: Path) -> None:
    make(a="1")
    options = "--model m --device cpu --mode dodge --threads 3 --strength 1.5 --max-side 9"
    options += " --precision fp32 --tile 512 --max-pixels 1000 --format webp --quality 80"
    assert call("a.jpg", "-o", "out", *options.split()).exit_code == 0
    assert Engine.opened == [
        Options("m", "cpu", "dodge", "fp32", 3, 1.5, max_side=9, tile=512, max_pixels=1000)
    ]
    assert results() == {"a.webp": "webp 80 1"}
    assert call("a.jpg", "-o", "out", "--square", "256").exit_code == 0
    assert Engine.opened[-1] == Options(square=256)
    for value, detail in ("auto", "auto"), ("800", 800):
        assert call("a.jpg", "-o", "out", "--detail", value, "--overwrite").exit_code == 0
        assert Engine.opened[-1] == Options(detail=detail)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("-o out", "nothing to convert: give INPUT or --from-file"),
        ("gone.jpg -o out", "gone.jpg: no such file or folder"),
        ("a.jpg -o a.jpg", "would overwrite an input file"),
        ("a.jpg b.jpg -o c.png", "-o c.png is for one picture. Give a folder for several"),
        ("a.jpg -o c.png --format jpg", "--format jpg and the ending of -o c.png differ"),
        ("a.jpg -o c.png --watch 3", "-o c.png is for one picture, and cannot be used with"),
        ("a.jpg --ray-actors 3", "--ray-address and --ray-actors need --ray"),
        ("a.jpg -o a.jpg/out", "a file stands where a folder is needed"),
        ("in -o in", "both an input and the output folder"),
        ("a.jpg -o out --strength 5", "5.0 is not in the range 0<=x<=4"),
        ("a.jpg -o out --quality 0 --format jpg", "0 is not in the range 1<=x<=100"),
        ("a.jpg -o out --quality 90", "png, which is lossless"),
        ("a.jpg -o out --report told.txt", "must end in .csv or .json"),
        ("a.jpg -o out --tile 100", "100 is not in the range x>=256"),
        ("a.jpg -o out --square 9 --max-side 9", "square and max_side"),
        ("a.jpg -o out --detail 63", "detail must be native, auto, or an integer of at least 64"),
        ("a.jpg -o out --detail fine", "got 'fine'"),
        ("a.jpg -o out --device tpu", "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ("a.jpg -o out --device cuda:1", "no such device; use --device cpu"),
        ("a.jpg -o out --mode pencil", "'pencil' is not one of"),
        ("a.jpg -o out -jpg", "No such option"),
    ],
)
def test_wrong_usage(here: Path, arguments: str, told: str) -> None:
    make(a="1", in__a="1")
    result = call(*arguments.split())
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""
    assert not Path("out/a.png").exists()


def test_a_folder_without_images(here: Path) -> None:
    make(a="1")
    Path("empty").mkdir()
    result = call("empty", "-o", "out")
    assert result.exit_code == 1
    assert result.stderr == "empty: the folder has no images in it\n"
    assert call("empty", "a.jpg", "-o", "out").exit_code == 1
    assert results() == {"a.png": "png None 1"}


def test_an_input_is_never_written_over(here: Path) -> None:
    make(a="1", in__a="1", in__b="2")
    result = call("a.jpg", "-o", ".", "--format", "jpg", "--overwrite")
    assert result.exit_code == 1
    assert "a.jpg: would overwrite an input file" in result.stderr
    assert call("in", "a.jpg", "-o", ".", "--overwrite").exit_code == 1
    assert Path("a.jpg").read_text() == "1"
    assert sorted(results("in")) == ["a.jpg", "b.jpg"]


def test_names_of_any_kind(here: Path) -> None:
    names = ["-x.jpg", "spaced name.jpg", "漫画.jpg", "x" * 251 + ".jpg", os.fsdecode(b"\xff.jpg")]
    for name in names:
        Path(name).write_text("bad" if name.startswith("\udcff") else "1")
    result = call("-o", "out", "--json", "--", *names)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [file["source"] for file in document["files"]] == names
    assert sorted(results()) == sorted(f"{name[:-4]}.png" for name in names[:-1])
    assert "\ufffd.jpg: the file is cut short" in call("-o", "out", names[-1]).stderr


_FAKE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_cli
from sketchify_rt.batch import api, runner
from sketchify_rt.cli.verbs import main
class Slow(test_cli.Engine):
    def encode(self, image, encoding):
        Path("begun").touch()
        time.sleep({seconds})
        return super().encode(image, encoding)
def wait(futures, timeout):
    Path("interrupted").touch()
    return runner_wait(futures, timeout)
test_cli.Engine.opened = []
api.open_sketchifier = Slow
runner_wait, runner.wait = runner.wait, wait
main(["convert", "in", "-o", "out", "--threads", "2"])
"""


def fake(seconds: float) -> list[str]:
    """A run that takes so long for each image. Tells by files when it begins and is interrupted."""
    code = _FAKE.format(tests=str(Path(__file__).parent), seconds=seconds)
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_cleanly(here: Path, sent: signal.Signals) -> None:
    make(**{f"in__p{i}": "1" for i in range(100)})
    process = subprocess.Popen(fake(0.1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: list(Path("out").glob("p*.png")))
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    done = results()
    assert 0 < len(done) < 100
    assert set(done.values()) == {"png None 1"}
    assert all(name.startswith("p") for name in done)  # no hidden part of a file
    assert stdout.startswith(f"converted {len(done)}, skipped 0, failed 0 in ")
    left = f"{100 - len(done)} images left"
    assert stderr == f"interrupted: {left}; run the same command again to continue\n"


def test_a_second_interruption_ends_at_once(here: Path) -> None:
    make(**{f"in__p{i}": "1" for i in range(9)})
    process = subprocess.Popen(fake(60), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for sign in "begun", "interrupted":
        until(Path(sign).exists)
        process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
    assert results() == {}


_STRIKE = """
import importlib.abc, os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
def strike(*_, **__):
    raise KeyboardInterrupt
class Importing(importlib.abc.MetaPathFinder):
    def __init__(self, name, native=False):
        self.name, self.native = name, native
        sys.meta_path.insert(0, self)
    def find_spec(self, name, path, target=None):
        if name == self.name and self.native:
            raise ImportError("initialization failed") from KeyboardInterrupt()
        if name == self.name:
            raise KeyboardInterrupt
{}
from sketchify_rt.cli import main
main()
"""


@pytest.mark.parametrize(
    ("strike", "status", "told"),
    [
        ("Importing('click')", 130, ""),
        ("Importing('sketchify_rt.cli.convert')", 130, "interrupted\n"),
        ("import click; click.Command.parse_args = strike", 130, "interrupted\n"),
        (
            "from sketchify_rt.batch import sources; sources.Sources.__init__ = strike",
            130,
            "interrupted\n",
        ),
        ("Importing('sketchify_rt.sketchifier')", 130, "interrupted\n"),
        ("Importing('openvino', native=True)", 130, "interrupted\n"),
        (
            "from sketchify_rt.batch import journal; journal.Journal.open = strike",
            130,
            "interrupted\n",
        ),
        # Done, and in Python's own end: as if the interruption came a moment later.
        ("threading._shutdown = lambda: os.kill(os.getpid(), signal.SIGINT)", -2, ""),
    ],
)
def test_an_early_or_a_late_interruption_ends_quietly(
    tmp_path: Path, strike: str, status: int, told: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((9, 9), 90, np.uint8))
    program = [sys.executable, "-c", _STRIKE.format(strike)]
    process = subprocess.run(
        [*program, "convert", "a.png", "-o", "out", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.stderr == told
    assert (process.returncode, process.stdout) == (status, "")


def test_a_reader_that_has_gone_is_no_traceback(here: Path) -> None:
    make(in__a="1")
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        fake(0), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    os.close(writing)
    assert process.returncode == 1
    assert process.stderr == ""
    assert list(results()) == ["a.png"]


def test_progress_is_shown_on_a_terminal(here: Path) -> None:
    make(in__a="1", in__b="bad")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 100))
    process = subprocess.run(
        fake(0.1), stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=120, check=False
    )
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # EIO, at the end
        while more := os.read(ours, 65536):
            shown += more.decode()
    os.close(ours)
    assert process.returncode == 1
    assert "2/2" in shown
    assert "images/s" in shown
    assert "failed=1" in shown
    assert shown.rstrip().endswith("in/b.jpg: the file is cut short")


def test_help_tells_every_option_its_range_and_default() -> None:
    told = CliRunner().invoke(main, ["convert", "--help"], terminal_width=100).stdout
    for parameter in convert.command.params:
        assert parameter.opts[-1] in told or parameter.name == "inputs"
    for words in ("0<=x<=4", "1<=x<=100", "x>=256", f"default: {Options.tile}", "Exit code: 0 all"):
        assert words in told
    assert "convert" in CliRunner().invoke(main, ["--help"]).stdout


def test_the_command_line_is_quick_to_answer() -> None:
    code = (
        "import sys; from sketchify_rt.cli.verbs import main\n"
        "main(['convert', '--help'], standalone_mode=False)\n"
        "print(sorted({'cv2', 'numpy', 'PIL', 'openvino', 'torch', 'tqdm'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert told.stdout.splitlines()[-1] == "[]"


def test_a_closed_stderr_stops_nothing(here: Path) -> None:
    cv2.imwrite("b.png", np.full((9, 9), 90, np.uint8))
    program = [sys.executable, "-m", "sketchify_rt", "convert", "b.png", "-o", "out"]
    line = shlex.join([*program, "--mode", "binary"]) + " 2>&-"
    assert subprocess.run(line, shell=True, timeout=120, check=False).returncode == 0
    assert visible("out") == [Path("out/b.png")]


def test_a_wrong_instruction_set_is_told_once(here: Path) -> None:
    cv2.imwrite("b.png", np.full((9, 9), 90, np.uint8))
    for words, status in ("info", 0), ("convert b.png -o out --mode binary", 2):
        told = subprocess.run(
            [sys.executable, "-m", "sketchify_rt", *words.split()],
            env={**os.environ, "SKETCHIFY_ISA": "mmx"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert told.returncode == status
        assert (told.stdout + told.stderr).count("SKETCHIFY_ISA is not an") == 1
        assert "Traceback" not in told.stderr
    assert not Path("out").exists()


def test_versions() -> None:
    module = [sys.executable, "-m", "sketchify_rt", "--version"]
    told = subprocess.run(module, capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.startswith("sketchify-rt, version 0.")


def test_info_tells_what_is_there_and_what_is_not() -> None:
    text = CliRunner().invoke(main, ["info"])
    assert text.exit_code == 0, text.output
    found = json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)
    assert found["versions"]["numpy"] == np.__version__
    assert found["isa"]["in_use"] in found["isa"]["available"]
    assert found["threads"] >= 1
    assert [info["name"] for info in found["backends"]][:1] == ["cpu"]
    assert all(info["available"] or info["detail"] for info in found["backends"])
    for word in (np.__version__, found["isa"]["in_use"], found["backends"][1]["detail"]):
        assert word in text.stdout
    assert [model["name"] for model in found["models"]] == ["lite"]
    assert found["models"][0]["credit"] in text.stdout


@pytest.mark.parametrize(("vnni", "precision"), [(True, "int8"), (False, "half")])
def test_info_tells_what_auto_is_here(
    monkeypatch: pytest.MonkeyPatch, vnni: bool, precision: str
) -> None:
    monkeypatch.setattr(native, "vnni", lambda: vnni)
    text = CliRunner().invoke(main, ["info"]).stdout
    assert f"precision auto on this CPU: {precision}" in text
    assert f"dot products      {'VNNI' if vnni else 'no VNNI'}\n" in text
    found = json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)
    assert (found["isa"]["vnni"], found["models"][0]["cpu_precision"]) == (vnni, precision)


def draw(path: str) -> None:
    page = np.full((64, 48), 255, np.uint8)
    cv2.circle(page, (24, 32), 15, 60, 3)
    cv2.imwrite(path, page)


@pytest.mark.parametrize("mode", ["dodge", "binary", "sketch"])
def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    draw("in/page.png")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    result = call("in", "-o", "out", "--mode", mode, "--threads", "2")
    assert result.exit_code == 1
    assert result.stderr.startswith("in/broken.jpg: ")
    assert visible("out") == [Path("out/page.png")]
    sketch = cv2.imread("out/page.png", cv2.IMREAD_UNCHANGED)
    assert sketch is not None
    assert (sketch.shape, sketch.dtype) == ((64, 48), np.uint8)
    assert sketch[2, 2] > 230  # paper
    assert sketch[30:35, 36:42].min() < 200  # the line


def test_the_same_command_again_does_what_is_not_done(here: Path) -> None:
    make(in__a="1", in__b="bad", in__c="3")
    assert call("in", "-o", "out").exit_code == 1
    before = {path: path.stat() for path in visible("out")}
    make(in__c="new", in__d="4")
    result = call("in", "-o", "out")
    assert result.stdout.startswith("converted 2, skipped 1, failed 1 in ")
    told = "in/b.jpg: the file is cut short (failed before; use --retry-failed to try again)\n"
    assert (result.exit_code, result.stderr) == (1, told)
    assert results() == {"a.png": "png None 1", "c.png": "png None new", "d.png": "png None 4"}
    now, then = Path("out/a.png").stat(), before[Path("out/a.png")]
    assert (now.st_ino, now.st_mtime_ns) == (then.st_ino, then.st_mtime_ns)  # it has been read

    make(in__b="2")  # mended
    result = call("in", "-o", "out")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("converted 1, skipped 3, failed 0 in ")
    result = call("in", "-o", "out", "--strength", "2")  # other settings
    assert result.stdout.startswith("converted 4, skipped 0, failed 0 in ")


def test_what_failed_is_tried_again_if_asked_for(here: Path) -> None:
    make(in__b="bad")
    call("in", "-o", "out")
    result = call("in", "-o", "out", "--retry-failed")
    assert (result.exit_code, result.stderr) == (1, "in/b.jpg: the file is cut short\n")


def test_a_picture_over_the_limit_is_tried_again_with_a_higher_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", np.full((8, 8), 90, np.uint8))
    line = ["a.png", "-o", "out", "--mode", "binary", "--max-pixels"]
    for again in ("", " (failed before"):
        result = call(*line, "63")
        assert result.exit_code == 1
        assert f"over the limit of 63; raise max_pixels to read it{again}" in result.stderr
    assert call(*line, "64").exit_code == 0
    assert visible("out") == [Path("out/a.png")]


def test_without_a_journal_nothing_is_known(here: Path) -> None:
    make(a="1")
    for _ in range(2):
        result = call("a.jpg", "-o", "out", "--no-journal")
    assert (result.exit_code, [*Path("out").iterdir()]) == (1, [Path("out/a.png")])
    assert "out/a.png: exists already" in result.stderr


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_inputs_are_taken_from_a_list(here: Path, end: str) -> None:
    make(a="1", in__b="2", **{"-c": "3"})
    names = ["a.jpg", "in", "-c.jpg", "gone.jpg"]
    Path("list").write_bytes(end.join(names).encode())
    result = call("--from-file", "list", "-o", "out")
    assert (result.exit_code, result.stderr) == (1, "gone.jpg: no such file or folder\n")
    assert sorted(results()) == ["-c.png", "a.png", "in/b.png"]
    line = ["convert", "--from-file", "-", "-o", "other"]
    given = end.join(names[:3])
    assert CliRunner().invoke(main, line, input=given).exit_code == 0
    assert sorted(results("other")) == ["-c.png", "a.png", "in/b.png"]


def test_a_list_may_begin_with_the_mark_of_utf_8(here: Path) -> None:
    make(a="1")
    Path("list").write_bytes(b"\xef\xbb\xbfa.jpg\n")
    assert call("--from-file", "list", "-o", "out").exit_code == 0
    assert sorted(results()) == ["a.png"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a.jpg".encode("utf-16"), "list: must be UTF-8, got UTF-16"),
        (b"\n", "list is empty"),
    ],
    ids=["UTF-16", "empty"],
)
def test_lists_that_are_none(here: Path, content: bytes, told: str) -> None:
    Path("list").write_bytes(content)
    result = call("--from-file", "list", "-o", "out")
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_report_replaces_no_input(here: Path) -> None:
    make(a="1")
    for name in "list.csv", "named.csv":
        Path(name).write_text("a.jpg\n")
        line = ["--from-file", "list.csv", "named.csv", "-o", "out", "--report", name]
        result = call(*line)
        assert result.exit_code == 2
        assert f"report {name} would overwrite an input. Choose another file" in result.stderr
        assert Path(name).read_text() == "a.jpg\n"


def test_the_report_of_a_run_that_broke_is_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(a="1")

    def broken(*rest: object) -> None:
        raise SketchifyError("something else went wrong")

    monkeypatch.setattr(telling.Teller, "tell", broken)
    assert call("a.jpg", "-o", "out", "--report", "report.csv").exit_code == 2
    (row,) = csv.DictReader(Path("report.csv").read_text().splitlines())
    assert (row["source"], row["status"]) == ("a.jpg", "converted")


@pytest.mark.parametrize("when", ["row", "end"])
def test_a_report_that_cannot_be_written_stops_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    make(a="1", b="2")

    Path("report.csv").write_text("an old report")

    @contextlib.contextmanager
    def rows(path: Path) -> Iterator[Callable[[object], None]]:
        with files.whole(path) as file:

            def write(row: object) -> None:
                file.write(b"a part of the new report")
                if when == "row":
                    raise OSError(errno.ENOSPC, "No space left on device")

            yield write
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reports, "_csv", rows)
    result = call("a.jpg", "b.jpg", "-o", "out", "--report", "report.csv")
    assert result.stderr.startswith(
        "the report cannot be written: report.csv: cannot be written: No space left on device; "
    )
    assert (result.exit_code, sorted(results())) == (1, ["a.png", "b.png"])
    assert Path("report.csv").read_text() == "an old report"
    assert sorted(path.name for path in Path().iterdir()) == [
        "a.jpg",
        "b.jpg",
        "out",
        "report.csv",
    ]


def test_a_report_whose_name_is_too_long_is_refused_at_once(here: Path) -> None:
    make(a="1")
    result = call("a.jpg", "-o", "out", "--report", "x" * 252 + ".csv")
    assert result.exit_code == 2
    assert "cannot be written: File name too long; give the input a shorter name" in result.stderr
    assert not Path("out").exists()


def test_control_characters_of_names_are_escaped(here: Path) -> None:
    result = call("\x1b]2J\n.jpg", "-o", "out")
    assert result.stderr == "Error: \\x1b]2J\\n.jpg: no such file or folder\n"


@pytest.mark.parametrize("option", ["--report=r.csv", "--json", "--watch=3"])
def test_a_rehearsal_reports_nothing(here: Path, option: str) -> None:
    make(a="1")
    result = call("a.jpg", "-o", "out", "--dry-run", option)
    assert result.exit_code == 2
    assert "--dry-run cannot be used with" in result.stderr


def test_a_rehearsal_tells_all_and_does_nothing(here: Path) -> None:
    make(in__a="1", in__b="bad")
    call("in", "gone", "-o", "out")
    make(in__c="3")
    before = sorted(Path().rglob("*"))
    result = call("in", "gone", "-o", "out", "--dry-run")
    assert result.stdout.splitlines() == [
        "fail     gone: no such file or folder",
        "skip     in/a.jpg -> out/in/a.png",
        "fail     in/b.jpg: the file is cut short (failed before; use --retry-failed to try again)",
        "convert  in/c.jpg -> out/in/c.png",
        "would convert 1, skip 1, fail 2",
    ]
    assert result.exit_code == 1
    assert sorted(Path().rglob("*")) == before
    assert len(Engine.opened) == 1


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_report_has_a_row_for_each_image(here: Path, ending: str) -> None:
    make(in__a="1", in__b="bad")
    report = Path(f"told/report.{ending}")
    call("in", "gone", "-o", "out", "--report", str(report))
    text = report.read_text()
    read = json.loads(text) if ending == "json" else list(csv.DictReader(text.splitlines()))
    rows = sorted([row["source"], row["status"], row["reason"] or None] for row in read)
    assert rows == [
        ["gone", "failed", "no such file or folder"],
        ["in/a.jpg", "converted", None],
        ["in/b.jpg", "failed", "the file is cut short"],
    ]
    (done,) = (row for row in read if row["status"] == "converted")
    assert done["output"] == "out/in/a.png"
    assert 0 <= float(done["seconds"]) < 60


def test_a_watch_converts_what_comes_and_tells_failures_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(in__a="1", in__b="bad")
    rounds = 0

    def wait(seconds: float) -> bool:
        nonlocal rounds
        rounds += 1
        assert seconds == 0.5
        make(**{f"in__new{rounds}": str(rounds)})
        return rounds < 4

    monkeypatch.setattr(convert, "_wait", wait)
    monkeypatch.setattr(api, "SETTLED", 0)
    result = call("in", "-o", "out", "--watch", "0.5", "--report", "report.csv", "--retry-failed")
    assert result.stderr == "in/b.jpg: the file is cut short\n"
    rows = csv.DictReader(Path("report.csv").read_text().splitlines())
    told = [(row["source"], row["status"]) for row in rows]
    assert sorted(told) == [  # once, however often it was looked for
        ("in/a.jpg", "converted"),
        ("in/b.jpg", "failed"),
        ("in/new1.jpg", "converted"),
        ("in/new2.jpg", "converted"),
        ("in/new3.jpg", "converted"),
    ]
    assert sorted(results()) == ["a.png", "new1.png", "new2.png", "new3.png"]
    assert result.stdout.startswith("converted 4, ")
    assert result.exit_code == 1


@pytest.mark.parametrize("every", [0.5, 9])
def test_a_watch_waits_for_files_to_be_whole_and_makes_the_output_folder_anew(
    here: Path, monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    make(in__a="1")
    Path("out").mkdir()
    Path("out/a.png").write_text("of another program")
    now, waits = 0.0, []

    def wait(seconds: float) -> bool:
        nonlocal now
        now += seconds
        waits.append(seconds)
        if len(waits) == 2:
            assert results() == {"a.png": "png None 1"}
            shutil.rmtree("out")
        return len(waits) < 3

    monkeypatch.setattr(convert, "_wait", wait)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    result = call("in", "-o", "out", *f"--watch {every} --overwrite --report report.csv".split())
    assert waits == [2, every, every]  # 2, while a file may be being written
    assert result.stdout.startswith("converted 2, skipped 0, failed 0 ")
    assert Path("report.csv").read_text().count("converted") == 2
    again = call("in", "-o", "out")  # knows what was made after the folder was gone
    assert (again.exit_code, again.stdout[:23]) == (0, "converted 0, skipped 1,")


def test_one_image_through_the_standard_streams(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Single(Engine):
        def encode(self, image: object, encoding: Encoding) -> bytes:
            if not isinstance(image, File):
                image = File(str(image), Path(str(image)).read_bytes())
            data = image.data
            if data == b"bad":
                raise DecodeError(image.name, "is cut short")
            return encoding.format.encode() + data

    monkeypatch.setattr(api, "open_sketchifier", Single)
    make(a="file")
    line = ["convert", "-", "-o", "-", "--format", "webp"]
    result = CliRunner().invoke(main, line, input=b"piped")
    assert (result.exit_code, result.stdout_bytes) == (0, b"webppiped")
    assert call("a.jpg", "-o", "-").stdout_bytes == b"pngfile"
    result = CliRunner().invoke(main, line, input=b"bad")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: standard input: is cut short\n"
    monkeypatch.setattr(inputs, "MAX_FILE", 2000)
    picture = cv2.imencode(".bmp", np.zeros((64, 64), np.uint8))[1].tobytes()
    result = CliRunner().invoke(main, line, input=picture)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: standard input: has more than 0 GiB, and a picture")
    for wrong in (["-", "-o", "out"], ["-", "a.jpg", "-o", "-"], ["a.jpg", "a.jpg", "-o", "-"]):
        assert call(*wrong).exit_code == 2
    assert [path.name for path in Path().iterdir()] == ["a.jpg"]


def test_videos_without_their_library_are_named_and_the_images_converted(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(a="abc")
    Path("b.mp4").write_text("a video")
    for name in [name for name in sys.modules if name.startswith("sketchify_rt.batch.video")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    told = call("a.jpg", "b.mp4", "-o", "out", "--json")
    assert told.exit_code == 1
    document = json.loads(told.stdout)
    assert document["converted"] == 1
    assert [failure["source"] for failure in document["failures"]] == ["b.mp4"]
    assert "sketchify-rt[video]" in document["failures"][0]["reason"]


def test_animations_are_counted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    pages = tmp_path / "in"
    pages.mkdir()
    for name in ("a.gif", "b.gif"):
        frames[0].save(pages / name, save_all=True, append_images=frames[1:])
    frames[0].save(pages / "c.png")
    with zipfile.ZipFile(tmp_path / "book.cbz", "w") as book:
        book.write(pages / "a.gif", "a.gif")
    arguments = ["convert", str(pages), str(tmp_path / "book.cbz"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, "--mode", "dodge"])
    assert result.stdout.splitlines()[1] == "3 with several frames or pages: the first only"
    again = CliRunner().invoke(main, [*arguments, "--mode", "dodge"])
    assert len(again.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".jpg", "x" * 300 + "/*.jpg", "a\0.jpg", "gone/a.jpg"]
)
def test_a_name_that_cannot_be_read_is_told(here: Path, name: str) -> None:
    make(in__a="a")
    alone = call(name, "-o", "out")
    assert (alone.exit_code, type(alone.exception)) == (2, SystemExit)
    both = call(name, "in/a.jpg", "-o", "out")
    assert (both.exit_code, type(both.exception)) == (1, SystemExit)
    assert "converted 1, skipped 0, failed 1" in both.output
    assert results() == {"a.png": "png None a"}


def test_what_is_passed_over_is_told_with_the_summary(here: Path) -> None:
    make(in__a="a", other__b="b")
    Path("in/b.cr2").touch()
    line = "passed over 1 file: 1 .cr2 (develop to TIFF)\n"
    for more in [], ["--dry-run"]:
        assert call("in", "-o", "out", *more).output.endswith(line)
    assert "passed over" not in call("in", "-o", "out", "--quiet").output
    assert json.loads(call("in", "-o", "out", "--json").stdout)["passed_over"] == {"cr2": 1}
    assert "passed over" not in call("other", "-o", "out").output


def test_results_do_not_collide_with_folders(here: Path) -> None:
    make(**{"in/page": "1", "in/page.webp/x": "2"})
    assert call("in", "-o", "out", "--format", "webp").exit_code == 0
    assert set(results()) == {"page.jpg.webp", "page.webp/x.webp"}
    assert call("in", "-o", "other").exit_code == 0
    assert set(results("other")) == {"page.png", "page.webp/x.png"}
