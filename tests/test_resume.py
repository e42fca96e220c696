"""Runs that are killed, and what the next one makes of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from pathlib import Path

import cv2
import pytest
from pictures import picture

from sketchify_rt import Encoding, Options
from sketchify_rt.batch import decoders
from sketchify_rt.batch.api import FolderJob, convert_folder
from sketchify_rt.batch.journal import HIDDEN
from sketchify_rt.batch.runner import Report
from sketchify_rt.codec import cpu as codec
from sketchify_rt.codec.header import File
from sketchify_rt.options import MAX_PIXELS

IMAGES, PAGES, WORKERS, KILLS = 90, 30, 2, 5


def command(output: Path) -> list[str]:
    words = ["convert", "in", "-o", str(output), "--mode", "binary", "--threads", str(WORKERS)]
    return [sys.executable, "-m", "sketchify_rt", *words, "--unpack", "--json"]


def tree(folder: Path) -> dict[str, bytes]:
    """Pixels of all results.

    Not the bytes of the files: ISA-L does not always compress the same, see `codec.png`.
    """
    files = (path for path in folder.rglob("*") if path.is_file() and HIDDEN not in path.parts)
    return {str(path.relative_to(folder)): pixels(path) for path in files}


def pixels(path: Path) -> bytes:
    image = codec.decode(File(path.name, path.read_bytes()), MAX_PIXELS)
    return bytes(str(image.shape), "ascii") + image.tobytes()


def make(folder: Path) -> None:
    """Pictures, a damaged one, and a book."""
    for number in range(IMAGES):
        path = folder / f"ch {number % 7}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(40 + number, 300, number))
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    with zipfile.ZipFile(folder / "book.cbz", "w") as book:
        for number in range(PAGES):
            book.writestr(f"{number}.png", cv2.imencode(".png", picture(60, 200, number))[1])


def done(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*.png") if HIDDEN not in path.parts)


def test_killed_at_any_moment_it_ends_with_the_files_of_an_undisturbed_run(tmp_path: Path) -> None:
    make(tmp_path / "in")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = subprocess.run(command(whole), cwd=tmp_path, capture_output=True, check=False)
    assert first.returncode == 1
    expected = tree(whole)
    assert len(expected) == IMAGES + PAGES

    dice = random.Random(1)
    for _ in range(KILLS):
        seen = done(parts)
        with subprocess.Popen(command(parts), cwd=tmp_path, stdout=subprocess.DEVNULL) as running:
            until = time.monotonic() + 60
            while done(parts) == seen and running.poll() is None and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(dice.random() * 0.02)
            running.send_signal(signal.SIGKILL)
        assert tree(parts).items() <= expected.items()  # complete files alone
    last = subprocess.run(command(parts), cwd=tmp_path, capture_output=True, check=False)
    assert last.returncode == 1
    assert tree(parts) == expected
    told = json.loads(last.stdout)
    assert told["converted"] + told["skipped"] == IMAGES + PAGES
    assert told["skipped"] >= KILLS  # at least one of each run, pages of the book among them
    assert list((parts / HIDDEN).iterdir()) == [parts / HIDDEN / "journal.sqlite3"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def few(folder: str = "in") -> None:
    """Three pictures and a book of two."""
    Path(folder).mkdir()
    for name in "abc":
        cv2.imwrite(f"{folder}/{name}.png", picture(40, 60, ord(name)))
    with zipfile.ZipFile(f"{folder}/book.cbz", "w") as book:
        for number in range(2):
            book.writestr(f"{number}.png", cv2.imencode(".png", picture(60, 50, number))[1])


def convert(source: str = "in", output: str = "out", strength: float = 1.0) -> Report:
    options = Options(mode="dodge", strength=strength, threads=1)
    return convert_folder(source, output, options, Encoding())


def rows() -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"out/{HIDDEN}/journal.sqlite3")) as database:
        return database.execute("SELECT * FROM results").fetchall()


def counts(report: Report) -> tuple[int, int, int]:
    return report.converted, report.skipped, len(report.failed)


def test_both_folders_moved_together_are_done() -> None:
    few()
    assert counts(convert()) == (5, 0, 0)
    Path("elsewhere").mkdir()
    for name in "in", "out":
        Path(name).rename(f"elsewhere/{name}")
    assert counts(convert("elsewhere/in", "elsewhere/out")) == (0, 4, 0)


def test_a_link_to_the_inputs_is_the_inputs() -> None:
    few()
    convert()
    Path("link").symlink_to("in")
    before = rows()
    with FolderJob(["link"], Path("out"), Options(mode="dodge")) as job:
        assert [plan.verb for plan in job.plan()] == ["skip"] * 4
    assert rows() == before  # a rehearsal changes nothing
    assert counts(convert("link")) == (0, 4, 0)


def test_a_copy_on_another_machine_is_done_and_next_time_without_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few()
    convert()
    shutil.copytree("in", "other/in", copy_function=shutil.copy)  # without the times
    shutil.copytree("out", "other/out", copy_function=shutil.copy)
    for path in Path("other/in").iterdir():
        os.utime(path, (1, 1))
    assert counts(convert("other/in", "other/out")) == (0, 4, 0)
    monkeypatch.setattr("sketchify_rt.batch.item.checksum", lambda path: 1 / 0)
    assert counts(convert("other/in", "other/out")) == (0, 4, 0)


def test_a_file_of_the_same_size_with_other_pixels_is_done_anew() -> None:
    few()
    cv2.imwrite("in/plain.bmp", picture(40, 60, 1))
    convert()
    status = Path("in/plain.bmp").stat()
    cv2.imwrite("in/plain.bmp", picture(40, 60, 2))
    assert Path("in/plain.bmp").stat().st_size == status.st_size
    assert counts(convert()) == (1, 4, 0)


def test_a_result_that_was_changed_or_replaced_by_others_is_kept() -> None:
    few()
    convert()
    Path("out/a.png").write_bytes(b"a picture of mine")
    Path("out/b.png").unlink()
    report = convert()
    assert counts(report) == (1, 2, 1)
    assert report.failed[0].reason.endswith("exists already; give --overwrite or --skip-existing")
    assert Path("out/a.png").read_bytes() == b"a picture of mine"


def test_other_options_make_results_anew_and_a_failure_keeps_the_old_one() -> None:
    few()
    convert()
    assert counts(convert(strength=2)) == (5, 0, 0)
    before = Path("out/a.png").read_bytes()
    good = Path("in/a.png").read_bytes()
    Path("in/a.png").write_bytes(good[:50])
    assert counts(convert(strength=2)) == (0, 3, 1)
    assert Path("out/a.png").read_bytes() == before
    Path("in/a.png").write_bytes(good)
    assert counts(convert()) == (5, 0, 0)


def test_killed_while_a_result_is_replaced_it_is_replaced_by_the_next_run() -> None:
    few()
    convert()
    with sqlite3.connect(f"out/{HIDDEN}/journal.sqlite3") as database:
        database.execute("UPDATE results SET status = 'replacing' WHERE output = ?", (b"a.png",))
    database.close()
    assert counts(convert()) == (1, 3, 0)


# Stands for a decoder that kills its process: it ends it for files of one name.
KILLER = """
import os, sys
from sketchify_rt.codec import cpu
decode = cpu.decode
def kill(file, max_pixels):
    if file.name.endswith("b.png"):
        os.kill(os.getpid(), 9)
    return decode(file, max_pixels)
cpu.decode = kill
from sketchify_rt.cli import main
main()
"""


@pytest.mark.parametrize("deadly", [True, False])
def test_a_file_that_kills_the_process_twice_is_tried_in_a_process_of_its_own(
    deadly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few()
    words = ["convert", "in", "-o", "out", "--mode", "dodge", "--threads", "1", "--json"]
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", KILLER, *words], check=False)
        assert run.returncode == -signal.SIGKILL
    if deadly:  # in the process of the decoder, too
        decoder = tmp_path / "deadly.py"
        decoder.write_text("import os, signal\ndef decode(*_): os.kill(os.getpid(), 11)\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        defaults = (None, "deadly:decode", None, False)
        monkeypatch.setattr(decoders.Decoders.__init__, "__defaults__", defaults)
    report = convert()
    if deadly:
        assert counts(report) == (3, 1, 1)
        assert report.failed[0].source == Path("in/b.png")
        assert report.failed[0].reason == "crashed its decoder (SIGSEGV)"
        assert counts(convert()) == (0, 3, 1)  # it is not tried again
    else:
        assert counts(report) == (4, 1, 0)
    with sqlite3.connect(f"out/{HIDDEN}/journal.sqlite3") as database:
        assert database.execute("SELECT * FROM crashes").fetchall() == []
    database.close()
