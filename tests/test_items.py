from __future__ import annotations

import contextlib
import gc
import os
import resource
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jobs
import numpy as np
import PIL.Image
import pytest

from sketchify_rt.batch.api import FolderJob, convert_folder
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.items import Items
from sketchify_rt.batch.journal import HIDDEN
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.resume import Convert, Existing
from sketchify_rt.batch.runner import Report, run
from sketchify_rt.batch.sources import Sources
from sketchify_rt.errors import DecodeError, DecoderKilled, OutputError
from sketchify_rt.inputs import File, Loaded
from sketchify_rt.options import Encoding, Options

PAGES = ("p10.jpg", "notes.txt", "p2.jpg", "ComicInfo.xml")


class Engine:
    """Turns the letters of a file round; the size of pixels where they come as such."""

    batch = 1

    def prepare(self, workers: int) -> None:
        pass

    def encode_batch(
        self, images: Sequence[Loaded], encoding: Encoding
    ) -> Sequence[bytes | Exception]:
        results: list[bytes | Exception] = []
        for image in images:
            if not isinstance(image, File):
                results.append(str(np.shape(image)).encode())
            elif image.data == b"bad":
                results.append(DecodeError(image.name, "is cut short"))
            elif image.data == b"killed":
                results.append(DecoderKilled(image.name, "its decoder was killed"))
            else:
                results.append(image.data[::-1])
        return results


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def comic(path: str, **changed: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in PAGES:
            archive.writestr(name, changed.get(name.partition(".")[0], f"of {name}"))


def members(path: str) -> list[tuple[str, str]]:
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name).decode()) for name in archive.namelist()]


@contextlib.contextmanager
def opened(
    *names: str, unpack: bool = False, existing: Existing = "refuse", retry: bool = False
) -> Iterator[tuple[Items, Output]]:
    """The items of these inputs, with an output folder that is open."""
    root = Path("out")
    sources = Sources(names, root)
    to = jobs.output(root, existing=existing, retry=retry, protected=sources.holds)
    to.open()
    with contextlib.closing(to), contextlib.closing(Items(sources, to, unpack)) as items:
        yield items, to


def convert(
    *names: str, unpack: bool = False, existing: Existing = "refuse", retry: bool = False
) -> tuple[Report, Items]:
    with opened(*names, unpack=unpack, existing=existing, retry=retry) as (items, to):
        return run(Engine(), items, to, Encoding(), workers=3), items


def reasons(report: Report) -> dict[str, str]:
    return {str(outcome.source): outcome.reason for outcome in report.failed}


def visible() -> list[str]:
    found = (path.relative_to("out") for path in Path("out").rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != HIDDEN)


def test_an_archive_becomes_an_archive_of_sketches_once() -> None:
    comic("in/sub/book.cbz")
    Path("in/a.jpg").write_text("abc")
    report, items = convert("in")
    assert (report.converted, report.failed, report.not_done, len(items)) == (3, [], 0, 3)
    assert visible() == ["a.png", "sub/book.cbz"]
    assert members("out/sub/book.cbz") == [
        ("p10.png", "gpj.01p fo"),
        ("notes.txt", "of notes.txt"),
        ("p2.png", "gpj.2p fo"),
        ("ComicInfo.xml", "of ComicInfo.xml"),
    ]
    before = Path("out/sub/book.cbz").stat()
    report, _ = convert("in")
    assert (report.converted, report.skipped) == (0, 2)
    comic("in/sub/book.cbz", p2="new")
    report, _ = convert("in")
    assert (report.converted, report.skipped) == (2, 1)
    assert ("p2.png", "wen") in members("out/sub/book.cbz")
    assert Path("out/sub/book.cbz").stat().st_mtime_ns > before.st_mtime_ns


def test_a_page_that_fails_stays_as_it_was_and_is_told_of_until_it_is_mended() -> None:
    comic("book.cbz", p2="bad")
    report, _ = convert("book.cbz")
    assert reasons(report) == {"book.cbz/p2.jpg": "is cut short"}
    assert dict(members("out/book.cbz"))["p2.jpg"] == "bad"
    report, _ = convert("book.cbz")
    told = "1 of 2 pages stayed as they were; the first: p2.jpg: is cut short"
    assert reasons(report)["book.cbz"].startswith(told)
    assert report.converted == 0
    report, _ = convert("book.cbz", retry=True)
    assert (report.converted, list(reasons(report))) == (1, ["book.cbz/p2.jpg"])
    comic("book.cbz")
    report, _ = convert("book.cbz")
    assert (report.converted, report.failed) == (2, [])
    assert [name for name, _ in members("out/book.cbz")][::2] == ["p10.png", "p2.png"]


def test_an_archive_is_tried_again_unless_all_that_failed_would_fail_again() -> None:
    comic("book.cbz", p2="bad", p10="killed")
    for _ in range(2):
        report, _ = convert("book.cbz")
        assert sorted(reasons(report)) == ["book.cbz/p10.jpg", "book.cbz/p2.jpg"]
    Path("alone.jpg").write_text("killed")
    for _ in range(2):
        report, _ = convert("alone.jpg")
        assert reasons(report) == {"alone.jpg": "its decoder was killed"}


@pytest.mark.parametrize("name", ["book.cbz", "scan.pdf"])
def test_a_file_of_pages_that_is_replaced_meanwhile_is_done_anew(name: str) -> None:
    def make(width: int) -> None:
        comic("book.cbz", p2=f"of {width}")
        pages = [PIL.Image.new("L", (width, 90), 200) for _ in range(2)]
        pages[0].save("new.pdf", save_all=True, append_images=pages[1:], resolution=200)
        Path("new.pdf").replace("scan.pdf")

    make(60)
    with opened(name, unpack=True) as (items, to):
        pages = iter(items)
        first = next(pages)
        make(70)
        for item in (first, *pages):
            assert isinstance(to.decide(item), Convert)
            to.begin(item)
            to.write(item, b"old")
            to.end(item)
    report, _ = convert(name, unpack=True)
    assert (report.converted, report.failed) == (2, [])
    assert all(Path("out", path).read_bytes() != b"old" for path in visible())


@pytest.mark.parametrize("unpack", [True, False])
def test_a_damaged_container_is_noted_and_told_again_without_being_opened(
    unpack: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.cbz").write_bytes(b"PK\3\4 and so on")
    Path("b.pdf").write_bytes(b"%PDF-1.7 cut short")
    first, _ = convert("a.cbz", "b.pdf", unpack=unpack)
    told = reasons(first)
    assert told["a.cbz"].startswith("is damaged or truncated")
    assert told["b.pdf"].startswith("is cut short")
    with opened() as (_, to):
        rows = {name: to.journal.get(name.encode()) for name in told}
    assert {name: row and row.reason for name, row in rows.items()} == told
    with monkeypatch.context() as patch:
        for kind in "archives.Archive", "pdf.Pdf":
            patch.setattr(f"sketchify_rt.batch.{kind}.__init__", lambda *_: 1 / 0)
        again, _ = convert("a.cbz", "b.pdf", unpack=unpack)
    before = " (failed before; use --retry-failed to try again)"
    assert reasons(again) == {name: reason + before for name, reason in told.items()}
    retried, _ = convert("a.cbz", "b.pdf", unpack=unpack, retry=True)
    assert reasons(retried) == told


def test_what_others_put_into_the_folder_meanwhile_stays() -> None:
    Path("a.jpg").write_text("abc")
    comic("b.cbz")
    with opened("a.jpg", "b.cbz") as (items, to):
        image, *pages = list(items)
        assert isinstance(to.decide(image), Convert)
        to.begin(image)
        Path("out/a.png").write_text("of others")
        Path("out/b.cbz").write_text("of others")
        with pytest.raises(OutputError, match=r"a\.png: was created by another program"):
            to.write(image, b"sketch")
        put(pages[0])
        with pytest.raises(OutputError, match=r"b\.cbz: was created by another program"):
            put(pages[1])
    assert Path("out/a.png").read_text() == Path("out/b.cbz").read_text() == "of others"


def test_a_file_in_the_place_of_an_archive_is_named_once() -> None:
    comic("book.cbz")
    Path("out").mkdir()
    Path("out/book.cbz").write_text("of others")
    report, _ = convert("book.cbz")
    told = "out/book.cbz: exists already; give --overwrite or --skip-existing"
    assert reasons(report) == {"book.cbz": told}


def put(item: Item) -> None:
    assert item.book
    book, page = item.book
    book.put(page, b"sketch")


def test_an_archive_that_is_not_finished_is_told_and_leaves_nothing() -> None:
    for name in "a.cbz", "b.cbz", "c.cbz":
        comic(name)
    with opened("a.cbz", "b.cbz", "c.cbz") as (items, _):
        for item in list(items)[:3]:  # both pages of a.cbz and one of b.cbz
            put(item)
        told = list(items.unfinished())
    assert [(outcome.index, str(outcome.source)) for outcome in told] == [(1, "b.cbz")]
    assert told[0].status == "failed"
    assert visible() == ["a.cbz"]


def test_a_rehearsal_keeps_no_archive_open_and_writes_nothing() -> None:
    names = [f"{number}.cbz" for number in range(40)]
    for name in names:
        comic(name)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 20, hard))
    try:
        with FolderJob(names, Path("out")) as job:
            verbs = [plan.verb for plan in job.plan()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert verbs == ["convert"] * 80
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("encoding", "isolate", "reason"),
    [
        (Encoding(), True, "--isolate does not support videos. Convert it without --isolate if"),
        (Encoding(alpha="lines"), False, "--alpha lines does not support videos. Convert it"),
    ],
)
def test_videos_are_refused_where_they_cannot_be_had(
    encoding: Encoding, isolate: bool, reason: str
) -> None:
    Path("b.mp4").write_text("a video")
    PIL.Image.new("L", (20, 20)).save("c.png")
    options = Options(mode="dodge")
    report = convert_folder(["b.mp4", "c.png"], "out", options, encoding, isolate=isolate)
    assert report.converted == 1
    ((name, why),) = reasons(report).items()
    assert name == "b.mp4"
    assert why.startswith(reason)


def test_an_archive_is_unpacked_page_by_page() -> None:
    comic("book.cbz", p2="bad")
    report, items = convert("book.cbz", unpack=True)
    assert (report.converted, len(items)) == (1, 2)
    assert reasons(report) == {"book.cbz/p2.jpg": "is cut short"}
    assert visible() == ["book.cbz/p10.png"]
    assert Path("out/book.cbz/p10.png").read_text() == "gpj.01p fo"
    report, _ = convert("book.cbz", unpack=True)
    assert (report.skipped, len(report.failed)) == (1, 1)
    gc.collect()  # would warn of an archive that was not closed


def test_an_archive_that_is_none_is_told_and_the_rest_done() -> None:
    Path("in").mkdir()
    Path("in/broken.cbz").write_bytes(b"PK\3\4 and so on")
    comic("in/good.cbz")
    report, items = convert("in")
    assert list(reasons(report)) == ["in/broken.cbz"]
    assert (report.converted, report.not_done, len(items)) == (2, 0, 3)
    assert visible() == ["good.cbz"]


@pytest.mark.parametrize("name", ["a.png", "a.cbz", "a.zip", "a.pdf"])
def test_nobody_waits_for_the_other_end_of_a_named_pipe(name: str) -> None:
    comic("in/good.cbz")
    os.mkfifo(f"in/{name}")
    report, _ = convert("in/good.cbz", f"in/{name}")
    assert report.converted == 2
    assert reasons(report) == {f"in/{name}": "is a folder, a named pipe or a device; give a file"}


def test_pages_of_a_pdf_become_pictures() -> None:
    pages = [PIL.Image.new("L", (60 + i, 90), 200) for i in range(11)]
    pages[0].save("scan.pdf", save_all=True, append_images=pages[1:], resolution=72)
    report, items = convert("scan.pdf")
    assert (report.converted, report.failed, len(items)) == (11, [], 11)
    names = visible()
    assert names[0] == "scan.pdf/page-01.png"
    assert len(names) == 11
    # At 200 dpi; a pixel that is begun counts.
    assert Path("out/scan.pdf/page-03.png").read_text() == "(250, 173)"
    report, _ = convert("scan.pdf")
    assert report.skipped == 11
    Path("none.pdf").write_text("no PDF")
    report, _ = convert("none.pdf")
    assert list(reasons(report)) == ["none.pdf"]


@pytest.mark.parametrize("unpack", [False, True])
def test_items_tell_how_much_memory_reading_takes(unpack: bool) -> None:
    Path("a.jpg").write_bytes(b"12345")
    comic("b.cbz")
    PIL.Image.new("L", (72, 36)).save("c.pdf", resolution=72)
    with opened("a.jpg", "b.cbz", "c.pdf", unpack=unpack) as (items, _):
        sizes = [item.size() for item in items]
    stored = [2 * len(f"of {name}") for name in ("p10.jpg", "p2.jpg")]
    assert sizes == [5, *stored, 200 * 100 * 4]
