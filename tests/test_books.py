from __future__ import annotations

import contextlib
import errno
import gc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import jobs
import pytest

from sketchify_rt.batch.archives import Archive, writer
from sketchify_rt.batch.books import OpenBook
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.journal import HIDDEN
from sketchify_rt.errors import InputError, OutputError

PAGES = 6


class Sketch(bytes):
    """Counts those that are in memory."""

    alive: ClassVar[int] = 0

    def __init__(self, _: bytes) -> None:
        Sketch.alive += 1

    def __del__(self) -> None:
        Sketch.alive -= 1


@pytest.fixture
def book(tmp_path: Path) -> Iterator[OpenBook]:
    with zipfile.ZipFile(tmp_path / "a.cbz", "w") as archive:
        for number in range(PAGES):
            archive.writestr(f"{number}.jpg", b"page")
    to = jobs.output(tmp_path / "out")
    to.open()
    source = tmp_path / "a.cbz"
    with contextlib.closing(to):
        yield OpenBook(Item(0, source, "sub/a.cbz"), Archive(source), to)


def folder(book: OpenBook) -> Path:
    """Where the archive of results is to be."""
    return book.archive.path.parent / "out/sub"


def put(book: OpenBook, numbers: list[int]) -> list[int | None]:
    """Error numbers of the pages that failed."""
    failures = []
    for number in numbers:
        try:
            book.put(book.archive.pages[number], Sketch(b"x" * 1000))
        except OutputError as error:
            failures.append(error.errno)
    return failures


def test_where_an_archive_cannot_be_written_no_later_page_is_kept(
    book: OpenBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writer.Book, "_write", fail)
        assert put(book, [0, 1]) == [errno.EIO] * 2
    assert put(book, [2, 3, 4, 5]) == [errno.EIO] * 4  # too late: two pages are missing
    assert not folder(book).exists()
    gc.collect()
    assert Sketch.alive == 0


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_where_an_archive_is_lost_in_the_middle_no_later_page_is_kept(
    book: OpenBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert put(book, [0, 2, 3]) == []
    assert Sketch.alive == 2  # they wait for page 1
    monkeypatch.setattr(writer.Book, "_write", fail)
    assert put(book, [1, 4]) == [errno.EIO] * 2
    gc.collect()
    assert Sketch.alive == 0
    assert not folder(book).exists()
    assert list((folder(book).parent / HIDDEN / "staging").iterdir()) == []


def test_an_archive_is_let_go_of_with_its_last_page_even_where_it_is_lost(book: OpenBook) -> None:
    folder(book).write_text("in the way of a folder")
    *rest, last = book.archive.pages
    put(book, list(range(len(rest))))
    assert not book.complete
    assert book.archive.read(last).data == b"page"
    put(book, [len(rest)])
    assert book.complete
    with pytest.raises(InputError, match="closed"):
        book.archive.read(last)
    book.abort()
