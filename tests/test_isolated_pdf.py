"""PDF files in processes of their own: the same pages and errors, and what hangs costs its page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from jobs import output
from test_pdf import RED, document, one_page, stream

from sketchify_rt.batch.budget import needed
from sketchify_rt.batch.decoders import Decoders
from sketchify_rt.batch.isolated_pdf import IsolatedPdf
from sketchify_rt.batch.items import Items
from sketchify_rt.batch.pdf import Pdf
from sketchify_rt.batch.sources import Sources
from sketchify_rt.cli.verbs import main
from sketchify_rt.errors import DecodeError, InputError, SketchifyError
from sketchify_rt.options import Encoding

MAX_PIXELS = 10**6


@pytest.fixture(scope="module")
def pool() -> Iterator[Decoders]:
    with Decoders(2, 60, MAX_PIXELS) as pool:
        yield pool


def pages(*kids: bytes, more: tuple[bytes, ...] = ()) -> bytes:
    """A file with a page of 72 x 36 points for each of `kids`, what it draws; more: objects."""
    first = 3 + len(more)
    places = range(first, first + 2 * len(kids), 2)
    tree = (
        b"<< /Type /Pages /Kids [%b] /Count %d /MediaBox [0 0 72 36] "
        b"/Resources << /XObject << %b >> >> >>"
    )
    forms = b" ".join(b"/F%d %d 0 R" % (i, 3 + i) for i in range(len(more)))
    objects = []
    for place, kid in zip(places, kids, strict=True):
        objects += [b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R >>" % (place + 1), stream(kid)]
    return document(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        tree % (b" ".join(b"%d 0 R" % place for place in places), len(kids), forms),
        *more,
        *objects,
    )


def laughing(levels: int = 12) -> bytes:
    """A first page of 10**levels squares, by forms that draw one another, and a second of one."""
    forms = [
        stream(
            b"/F%d Do " % (i + 1) * 10 if i < levels else RED,
            b"/Type /XObject /Subtype /Form /BBox [0 0 72 36] "
            b"/Resources << /XObject << /F%d %d 0 R >> >>" % (i + 1, 4 + i),
        )
        for i in range(levels + 1)
    ]
    return pages(b"/F0 Do", RED, more=tuple(forms))


def outcome(make: Callable[[], object]) -> object:
    try:
        return make()
    except SketchifyError as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    "data",
    [
        pages(RED, b"", RED),
        one_page(RED, b"/Rotate 90", box=b"0 0 71 35"),
        one_page(RED, box=b"0 0 1000000 1000000"),
        document(
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [9 0 R] /Count 1 /MediaBox [0 0 72 36] >>",
        ),
        b"",
        b"hello" * 1000,
        one_page(RED)[:-20],
        b"%PDF-1.7\n" + b"x" * 5000 + b"%%EOF",
    ],
    ids=["pages", "turned", "large", "no page", "empty", "no pdf", "cut", "damaged"],
)
def test_pages_and_errors_are_those_of_this_process(
    pool: Decoders, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "ä b.pdf"
    path.write_bytes(data)

    def told(pdf: Pdf | IsolatedPdf) -> list[object]:
        drawn = [outcome(lambda at=at: pdf.render(at, 90).tolist()) for at in range(len(pdf))]
        labels = [(pdf.label(at), pdf.size(at, 90), pdf.size(at)) for at in range(len(pdf))]
        return [*labels, *drawn]

    ours = outcome(lambda: told(IsolatedPdf(path, pool, MAX_PIXELS)))
    assert ours == outcome(lambda: told(Pdf(path, MAX_PIXELS)))


def test_a_name_that_cannot_be_is_told(pool: Decoders, tmp_path: Path) -> None:
    for name, why in (("no.pdf", "No such file"), ("a\0b", "null byte")):
        with pytest.raises(InputError, match=rf"cannot be read \(.*{why}"):
            IsolatedPdf(tmp_path / name, pool)


def test_a_file_that_changes_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pages(RED))
    with Decoders(1, 60, MAX_PIXELS) as pool:
        pdf = IsolatedPdf(path, pool)
        assert pdf.render(0, 72)[-1, 0] == 76
        path.write_bytes(pages(b""))
        assert pdf.render(0, 72).min() == 255


def test_a_page_that_hangs_fails_in_time_and_the_next_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(laughing(2))
    with Decoders(1, 60, MAX_PIXELS) as pool:
        assert IsolatedPdf(path, pool).render(0, 72)[-1, 0] == 76  # it is what it is taken for
    path.write_bytes(laughing())
    with Decoders(1, 3, MAX_PIXELS) as pool:
        pdf = IsolatedPdf(path, pool)
        start = time.monotonic()
        with pytest.raises(DecodeError, match=r"a\.pdf/page-1: took longer than 3 s to decode"):
            pdf.render(0, 72)
        assert 3 <= time.monotonic() - start < 6
        assert pdf.render(1, 72)[-1, 0] == 76


def test_nothing_of_a_pdf_is_read_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of convert --isolate; and one page that hangs costs that page."""
    monkeypatch.chdir(tmp_path)
    Path("a.pdf").write_bytes(laughing())
    Path("b.pdf").write_bytes(pages(RED, b""))
    Path("c.pdf").write_bytes(b"hello" * 1000)
    here, open_pdf = os.getpid(), Pdf.__init__

    def init(self: Pdf, *arguments: object) -> None:
        assert os.getpid() != here
        open_pdf(self, *arguments)

    monkeypatch.setattr(Pdf, "__init__", init)
    common = ["convert", "a.pdf", "b.pdf", "c.pdf", "-o", "out", "--mode", "dodge", "--isolate"]
    rehearsed = CliRunner().invoke(main, [*common, "--dry-run"])
    assert "c.pdf: is no PDF file" in rehearsed.output
    result = CliRunner().invoke(main, [*common, "--timeout", "5"])
    assert result.exit_code == 1
    assert "a.pdf/page-1: took longer than 5 s to decode" in result.output
    assert "c.pdf: is no PDF file" in result.output
    made = sorted(str(path) for path in Path("out").rglob("*.png"))
    assert made == ["out/a.pdf/page-2.png", "out/b.pdf/page-1.png", "out/b.pdf/page-2.png"]


def test_a_page_tells_what_it_needs_before_it_is_drawn(pool: Decoders, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pages(RED))
    to = output(tmp_path / "out", journal=False)
    to.open()
    (item,) = Items(Sources([str(path)], tmp_path / "out"), to, dpi=90, decoders=pool)
    for encoding in Encoding("png"), Encoding("webp"):
        assert item.need(encoding) == needed(item.read(), encoding)
    to.close()
