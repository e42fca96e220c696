"""`convert_folder`: a job as a function."""

from __future__ import annotations

import contextlib
import csv
import errno
from pathlib import Path

import cv2
import jobs
import pytest
from pictures import picture, saved

from sketchify_rt import (
    Encoding,
    InputError,
    Options,
    Outcome,
    OutputError,
    Sketchifier,
    convert_folder,
)
from sketchify_rt.batch.api import Event, FolderJob
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.resume import Convert

OPTIONS = Options(mode="dodge", device="cpu")


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "ch1").mkdir(parents=True)
    for number, name in enumerate(("a.png", "ch1/b.png")):
        (folder / name).write_bytes(saved(picture(seed=number), "PNG"))
    return folder


def test_a_folder_becomes_a_folder_and_the_same_call_continues(pages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (pages / "bad.png").write_bytes(b"no picture")
    report = convert_folder(pages, out, OPTIONS, Encoding("webp"))
    assert (report.converted, report.skipped, report.stopped) == (2, 0, "")
    assert [failure.source for failure in report.failed] == [pages / "bad.png"]
    with Sketchifier(mode="dodge", device="cpu") as sketchify:
        for name in "a", "ch1/b":
            expected = sketchify.encode(pages / f"{name}.png", Encoding("webp"))
            assert (out / f"{name}.webp").read_bytes() == expected
        (pages / "bad.png").write_bytes(saved(picture(seed=9), "PNG"))
        again = convert_folder(pages, out, OPTIONS, Encoding("webp"))
        assert (again.converted, again.skipped, again.failed) == (1, 2, [])
        darker = convert_folder(pages, out, Options(mode="dodge", strength=2), Encoding("webp"))
        assert (darker.converted, darker.skipped) == (3, 0)
        expected = sketchify.encode(pages / "a.png", Encoding("webp"), strength=2)
        assert (out / "a.webp").read_bytes() == expected


def test_several_inputs_and_settings(pages: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    out, table = tmp_path / "out", tmp_path / "rows.csv"
    names = [pages / "a.png", str(pages / "ch1")]
    report = convert_folder(
        names, str(out), OPTIONS, report=table, resume=False, on_event=events.append
    )
    assert report.converted == 2
    made = sorted(path for path in out.rglob("*") if path.is_file())
    assert made == [out / "a.png", out / "ch1/b.png"]  # without a journal
    assert all(isinstance(event, Outcome) for event in events)
    with table.open() as file:
        rows = {row["source"]: (row["status"], row["output"]) for row in csv.DictReader(file)}
    assert rows == {
        str(pages / "a.png"): ("converted", str(out / "a.png")),
        str(pages / "ch1/b.png"): ("converted", str(out / "ch1/b.png")),
    }
    refused = convert_folder(names, out, OPTIONS, resume=False)
    assert [failure.status for failure in refused.failed] == ["failed", "failed"]
    assert convert_folder(names, out, OPTIONS, resume=False, existing="skip").skipped == 2


def test_what_cannot_be_is_raised(pages: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file"):
        convert_folder(tmp_path / "nowhere", tmp_path / "out")
    with FolderJob([pages], tmp_path / "out", OPTIONS) as job:
        job.run()
        with pytest.raises(OutputError, match="another run converts into this folder"):
            convert_folder(pages, tmp_path / "out", OPTIONS)


def test_threads_of_opencv_stay_those_of_the_caller(pages: Path, tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        convert_folder(pages, tmp_path / "out", OPTIONS)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_second_run_is_refused_and_harms_nothing(pages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with contextlib.closing(jobs.output(out)) as first:
        first.open()
        item = Item(0, pages / "a.png", "a.png")
        assert isinstance(first.decide(item), Convert)
        first.begin(item)
        with pytest.raises(OutputError, match="another run converts into this folder"):
            convert_folder(pages, out, OPTIONS)
        with pytest.raises(OutputError), FolderJob([pages], out, OPTIONS) as job:
            list(job.plan())
        first.write(item, b"sketch")
        first.end(item)
    assert (out / "a.png").read_bytes() == b"sketch"


def test_a_report_that_cannot_be_written_is_in_the_report(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("an old report")
    assert convert_folder(pages, tmp_path / "first", OPTIONS, report=table).unwritten is None
    before = table.read_text()
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target == table:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    report = convert_folder(pages, tmp_path / "second", OPTIONS, report=table)
    assert (report.converted, report.failed) == (2, [])
    assert "No space left on device; make room there" in str(report.unwritten)
    assert table.read_text() == before
