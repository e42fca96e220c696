"""Runs that are killed, and what the next one makes of it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import pytest
from pictures import picture
from test_sinks import ALL_NAMED

from sketchify_rt.batch.journal import NAME
from sketchify_rt.codec import cpu as codec
from sketchify_rt.codec.header import File
from sketchify_rt.options import MAX_PIXELS

IMAGES, WORKERS, KILLS = 120, 2, 5


# A file system that knows no files without a name, and is slow, so that parts of some are left.
SLOW = f"""{ALL_NAMED}
import time
dup = os.dup
def slow(number):
    time.sleep(0.02)
    return dup(number)
os.dup = slow
from sketchify_rt.cli import main
main()
"""
PROGRAMS = {"unnamed": ("-m", "sketchify_rt"), "named": ("-c", SLOW)}


def command(output: Path, files: str) -> list[str]:
    words = ["convert", "in", "-o", str(output), "--mode", "binary", "--threads", str(WORKERS)]
    return [sys.executable, *PROGRAMS[files], *words, "--json"]


def tree(folder: Path) -> dict[str, bytes]:
    """Pixels of all files but the journal, hidden ones too; of parts, whatever they hold.

    Not the bytes of the files: ISA-L does not always compress the same, see `codec.png`.
    """
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {str(path.relative_to(folder)): pixels(path) for path in files}


def pixels(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".part":
        return data
    image = codec.decode(File(path.name, data), MAX_PIXELS)
    return bytes(str(image.shape), "ascii") + image.tobytes()


def lines(folder: Path) -> int:
    journal = folder / NAME
    return journal.read_bytes().count(b'"converted"') if journal.exists() else 0


@pytest.mark.parametrize("files", PROGRAMS)
def test_killed_at_any_moment_it_ends_with_the_files_of_an_undisturbed_run(
    tmp_path: Path, files: str
) -> None:
    for number in range(IMAGES):
        path = tmp_path / "in" / f"ch {number % 7}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(40 + number, 300, number))
    (tmp_path / "in/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = subprocess.run(command(whole, files), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert len(tree(whole)) == IMAGES

    dice, kills, left = random.Random(1), 0, 0
    while kills < KILLS:
        seen = lines(parts)
        with subprocess.Popen(
            command(parts, files), cwd=tmp_path, stdout=subprocess.DEVNULL
        ) as running:
            until = time.monotonic() + 60
            while lines(parts) == seen and running.poll() is None and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(dice.random() * 0.02)
            running.send_signal(signal.SIGKILL)
        kills += 1
        named = {name: data for name, data in tree(parts).items() if not name.endswith(".part")}
        assert named.items() <= tree(whole).items()  # whole files alone
        left += len(tree(parts)) - len(named)
    assert (left > 0) == (files == "named")
    last = subprocess.run(command(parts, files), cwd=tmp_path, capture_output=True, check=False)
    assert last.returncode == 1
    told = json.loads(last.stdout)
    assert tree(parts) == tree(whole)
    assert told["converted"] + told["skipped"] == IMAGES

    journal = [json.loads(line) for line in (parts / NAME).read_text().splitlines()]
    times = Counter(line["source"] for line in journal if line.get("status") == "converted")
    assert len(times) == IMAGES
    assert sum(times.values()) <= IMAGES + kills * WORKERS  # those in flight are done twice
