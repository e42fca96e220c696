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
from pictures import picture

from sketchify_rt.batch.journal import NAME

IMAGES, WORKERS, KILLS = 120, 2, 5


def command(output: Path) -> list[str]:
    words = ["convert", "in", "-o", str(output), "--mode", "binary", "--threads", str(WORKERS)]
    return [sys.executable, "-m", "sketchify_rt", *words, "--json"]


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the journal, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lines(folder: Path) -> int:
    journal = folder / NAME
    return journal.read_bytes().count(b'"converted"') if journal.exists() else 0


def test_killed_at_any_moment_it_ends_with_the_files_of_an_undisturbed_run(tmp_path: Path) -> None:
    for number in range(IMAGES):
        path = tmp_path / "in" / f"ch {number % 7}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(40 + number, 300, number))
    (tmp_path / "in/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = subprocess.run(command(whole), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert len(tree(whole)) == IMAGES

    dice, kills = random.Random(1), 0
    while kills < KILLS:
        seen = lines(parts)
        with subprocess.Popen(command(parts), cwd=tmp_path, stdout=subprocess.DEVNULL) as running:
            until = time.monotonic() + 60
            while lines(parts) == seen and running.poll() is None and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(dice.random() * 0.02)
            running.send_signal(signal.SIGKILL)
        kills += 1
        assert tree(parts).items() <= tree(whole).items()  # whole files alone
    last = subprocess.run(command(parts), cwd=tmp_path, capture_output=True, check=False)
    assert last.returncode == 1
    told = json.loads(last.stdout)
    assert tree(parts) == tree(whole)
    assert told["converted"] + told["skipped"] == IMAGES

    journal = [json.loads(line) for line in (parts / NAME).read_text().splitlines()]
    times = Counter(line["source"] for line in journal if line.get("status") == "converted")
    assert len(times) == IMAGES
    assert sum(times.values()) <= IMAGES + kills * WORKERS  # those in flight are done twice
