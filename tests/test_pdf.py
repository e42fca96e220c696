from __future__ import annotations

import importlib
import io
import itertools
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sketchify_rt.batch.pdf import Pdf
from sketchify_rt.errors import BackendUnavailable, ContainerError, DecodeError, InputError
from sketchify_rt.image import to_luma


def document(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF file of objects 1, 2, ...; the first is its catalogue."""
    data, places = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer\n<< /Size %d /Root 1 0 R %b >>\n" % (len(objects) + 1, trailer)
    return bytes(data + b"startxref\n%d\n%%%%EOF\n" % start)


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(data), entries, data)


def one_page(
    content: bytes, entries: bytes = b"", *more: bytes, box: bytes = b"0 0 72 36"
) -> bytes:
    """A page of 72 x 36 points, an inch by a half. more: objects from 5 on."""
    return document(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [%b] /Contents 4 0 R %b >>" % (box, entries),
        stream(content),
        *more,
    )


# Red, then blue, in the lower left quarter of an inch.
RED = b"1 0 0 rg 0 0 18 18 re f"
BLUE = b"0 0 1 rg 0 0 18 18 re f"


@pytest.fixture
def put(tmp_path: Path) -> object:
    def put(data: bytes) -> Path:
        path = tmp_path / "ä b.pdf"
        path.write_bytes(data)
        return path

    return put


def test_what_is_drawn_is_luma_on_white(put) -> None:
    with Pdf(put(one_page(RED))) as pdf:
        assert len(pdf) == 1
        page = pdf.render(0, 72)
    assert page.dtype == np.uint8
    assert page.flags.c_contiguous
    expected = np.full((36, 72), 255, np.uint8)
    expected[18:, :18] = 76  # of red, by COLOR_RGB2GRAY
    np.testing.assert_array_equal(page, expected)


@pytest.mark.parametrize(
    ("dpi", "shape"), [(72, (36, 72)), (200, (100, 200)), (300, (150, 300)), (25, (13, 25))]
)
def test_sides_follow_from_dpi_rounded_up(put, dpi: int, shape: tuple[int, int]) -> None:
    assert Pdf(put(one_page(RED))).render(0, dpi).shape == shape
    assert Pdf(put(one_page(RED))).render(0).shape == (100, 200)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_pages_are_upright(put, turn: int) -> None:
    straight = Pdf(put(one_page(RED))).render(0, 144)
    turned = Pdf(put(one_page(RED, b"/Rotate %d" % turn))).render(0, 144)
    np.testing.assert_array_equal(turned, np.rot90(straight, -turn // 90))


def test_a_crop_box_is_what_is_seen(put) -> None:
    page = Pdf(put(one_page(RED, b"/CropBox [9 9 36 36]"))).render(0, 72)
    assert page.shape == (27, 27)
    assert (page[-9:, :9] == 76).all()
    assert (page[:-9] == 255).all()


def test_annotations_and_filled_in_forms_are_drawn(put) -> None:
    look = stream(BLUE, b"/Type /XObject /Subtype /Form /BBox [0 0 18 18]")
    square = b"/Annots [<< /Subtype /Square /F 4 /Rect [0 0 18 18] /AP << /N 5 0 R >> >>]"
    page = Pdf(put(one_page(b"", square, look))).render(0, 72)
    assert (page[-18:, :18] == 29).all()  # blue

    data = document(
        b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [6 0 R] >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 36] /Contents 4 0 R /Annots [6 0 R] >>",
        stream(b""),
        look,
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /F 4 /Rect [0 0 18 18] "
        b"/AP << /N 5 0 R >> >>",
    )
    assert (Pdf(put(data)).render(0, 72)[-18:, :18] != 255).all()


def test_a_scan_comes_out_as_it_went_in(put) -> None:
    scan = np.random.default_rng(1).integers(0, 256, (60, 40, 3), np.uint8)
    data = io.BytesIO()
    PIL.Image.fromarray(scan).resize((400, 600), 0).save(data, "PDF", resolution=200, quality=100)
    page = Pdf(put(data.getvalue())).render(0, 200)
    assert page.shape == (600, 400)
    difference = page[5::10, 5::10].astype(int) - to_luma(scan)
    assert abs(difference).mean() < 2


@pytest.mark.parametrize(("count", "first"), [(1, "page-1"), (9, "page-1"), (10, "page-01")])
def test_pages_are_named_so_that_they_sort(put, count: int, first: str) -> None:
    pages = [PIL.Image.new("L", (8, 8), 20 * number) for number in range(count)]
    data = io.BytesIO()
    pages[0].save(data, "PDF", save_all=True, append_images=pages[1:], resolution=72)
    pdf = Pdf(put(data.getvalue()))
    assert len(pdf) == count
    assert pdf.label(0) == first
    labels = [pdf.label(number) for number in range(count)]
    assert labels == sorted(labels)
    assert abs(int(pdf.render(count - 1, 72)[4, 4]) - 20 * (count - 1)) <= 2


def test_drawing_takes_the_memory_that_was_told(put, tmp_path: Path) -> None:
    path = put(one_page(RED, box=b"0 0 720 720"))
    told = Pdf(path).size(0, 301)
    assert told == 3010 * 3010 * 4
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from sketchify_rt.batch.pdf import Pdf\n"
        "status = Path('/proc/self/status')\n"
        "peak = lambda: 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', status.read_text())[1])\n"
        "pdf = Pdf(Path(sys.argv[1]))\n"
        "pdf.render(0, 30)\n"
        "before = peak()\n"
        "pdf.render(0, 301)\n"
        "print(peak() - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert 0.9 * told < int(ran.stdout) < 1.1 * told + 4 * 2**20, ran.stderr


def test_what_is_not_drawn_takes_no_memory(put) -> None:
    small = Pdf(put(one_page(RED)), max_pixels=9)
    assert small.size(0, 72) == small.size(1, 72) == 0
    small.close()
    assert small.size(0, 1) == 0


def test_a_page_that_is_too_large_is_refused_by_name(put) -> None:
    path = put(one_page(RED))
    assert Pdf(path, max_pixels=20_000).render(0, 200).size == 20_000
    with pytest.raises(
        InputError,
        match=r"b\.pdf/page-1: is 200 x 100 = 20000 pixels at 200 dpi, over .* lower dpi",
    ):
        Pdf(path, max_pixels=19_999).render(0, 200)
    with pytest.raises(InputError, match="is 25 x 13 = 325 pixels"):
        Pdf(path, max_pixels=324).render(0, 25)
    for box in (b"0 0 1000000 1000000", b"0 0 2000000000 1", b"-99999999 0 99999999 9"):
        with pytest.raises(InputError, match=r"page-1: is .* over the limit"):
            Pdf(put(one_page(RED, box=box))).render(0)
    endless = b"-1%b. 0 1%b. 5" % (b"0" * 39, b"0" * 39)
    with pytest.raises(DecodeError, match=r"page-1: has an invalid size \(inf x 5\)"):
        Pdf(put(one_page(RED, box=endless))).render(0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello" * 1000, "is no PDF file"),
        (b"%PDF-1.7\n" + b"x" * 5000, "is cut short, its end is missing; get a whole copy"),
        (b"%PDF-1.7\n" + b"x" * 5000 + b"%%EOF", "is damaged; get a whole copy"),
        (document(b"<< /Type /Catalog >>"), "is damaged; get a whole copy"),
    ],
)
def test_what_is_no_whole_pdf_is_told(put, data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=rf"b\.pdf: {reason}$"):
        Pdf(put(data))


def test_a_missing_file_a_folder_and_a_name_that_cannot_be(tmp_path: Path) -> None:
    for name, why in (("no.pdf", "No such file"), ("", "Is a directory"), ("a\0b", "null byte")):
        with pytest.raises(InputError, match=rf"cannot be read \(.*{why}"):
            Pdf(tmp_path / name)


def test_a_file_that_says_it_has_millions_of_pages_is_refused(put) -> None:
    pages = b"<< /Type /Pages /Kids [3 0 R] /Count %d /MediaBox [0 0 72 36] >>"
    page = b"<< /Type /Page /Parent 2 0 R >>"
    told = document(b"<< /Type /Catalog /Pages 2 0 R >>", pages % 1_000_000, page)
    with pytest.raises(ContainerError, match="too many pages: got 1000000, at most 100000"):
        Pdf(put(told))


def test_a_password_is_told(put) -> None:
    lock = b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%b> /U <%b> >> /ID [<00> <00>]"
    pages = b"<< /Type /Pages /Kids [] /Count 0 >>"
    objects = (b"<< /Type /Catalog /Pages 2 0 R >>", pages)
    with pytest.raises(InputError, match="is locked with a password; save a copy without one"):
        Pdf(put(document(*objects, trailer=lock % (b"11" * 32, b"22" * 32))))
    unknown = b"/Encrypt << /Filter /Other /V 9 >> /ID [<00> <00>]"
    with pytest.raises(InputError, match="is encrypted in a way"):
        Pdf(put(document(*objects, trailer=unknown)))


def test_a_file_cut_short_anywhere_is_refused(put) -> None:
    pages = [PIL.Image.effect_noise((300, 200), 50) for _ in range(3)]
    data = io.BytesIO()
    pages[0].save(data, "PDF", save_all=True, append_images=pages[1:])
    whole = data.getvalue()
    assert len(Pdf(put(whole))) == 3
    end = whole.rindex(b"%%EOF") + 5
    for length in {*range(0, end, end // 300), *range(end - 40, end)}:
        with pytest.raises(InputError, match=r"b\.pdf: is (empty|no PDF|cut short)"):
            Pdf(put(whole[:length]))
    assert len(Pdf(put(whole[:end]))) == 3


BEHIND = {
    "NULs": bytes(5000),
    "white space": b" \r\n\t" * 2000,
    "a page of a web server": b"<html><body>served in 0.1 s</body></html>" * 99,
    "an unfinished download": bytes(3 * 2**20),
    "across two chunks": b"x" * (2**20 - 3),
    "noise": random.Random(1).randbytes(70_000),
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_what_is_behind_the_end_does_not_matter(put, behind: bytes) -> None:
    assert (Pdf(put(one_page(RED) + behind)).render(0, 72)[-18:, :18] == 76).all()


def changed(data: bytes) -> bytes:
    """The file with a new page content and a second end, as programs save changes."""
    update = b"4 0 obj\n%b\nendobj\n" % stream(BLUE + bytes(3 * 2**20))
    place = len(data) + 1
    return b"%b\n%bxref\n4 1\n%010d 00000 n \ntrailer\n%b\nstartxref\n%d\n%%%%EOF\n" % (
        data,
        update,
        place,
        b"<< /Size 5 /Root 1 0 R /Prev %d >>" % int(data.rsplit(b"startxref\n", 1)[1].split()[0]),
        place + len(update),
    )


@pytest.mark.parametrize("behind", [b"", bytes(5000)])
def test_a_change_that_is_cut_short_is_refused(put, behind: bytes) -> None:
    before = one_page(RED)
    whole = changed(before)
    assert Pdf(put(whole + behind)).render(0, 72)[-1, 0] == 29  # blue
    ends = len(before) + 20, len(before) + 2**20, len(whole) - 300, len(whole) - 8
    for end in ends:
        with pytest.raises(ContainerError, match="is cut short, its end is missing"):
            Pdf(put(whole[:end] + behind))


def test_a_file_for_the_web_tells_its_length(put) -> None:
    told = b"%%PDF-1.7\n9 0 obj\n<< /Linearized 1 /L %d /H [1 2] >>\nendobj\n"
    rest = one_page(RED).removeprefix(b"%PDF-1.7\n")
    size = len(told % 1000) + len(rest)
    assert len(Pdf(put(told % min(size, 999) + b"\n" + rest))) == 1
    with pytest.raises(ContainerError, match="is cut short, its end is missing"):
        Pdf(put(told % (size + 5000) + rest))


def test_damage_is_an_error_or_another_picture_and_nothing_else(put) -> None:
    chance = random.Random(5)
    whole = one_page(RED + b" BT (text) Tj ET", b"/Rotate 90")
    outcomes = set()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            page = Pdf(put(bytes(data)), max_pixels=2**20).render(0, 72)
            assert page.dtype == np.uint8
            assert page.size <= 2**20
            outcomes.add("drawn")
        except (InputError, DecodeError) as error:
            assert "b.pdf" in str(error)
            outcomes.add(type(error).__name__)
    assert {"drawn", "ContainerError"} <= outcomes


def test_a_page_that_is_not_there_is_damaged_and_the_others_are_drawn(put) -> None:
    data = document(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [9 0 R 3 0 R] /Count 2 /MediaBox [0 0 72 36] >>",
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>",
        stream(RED),
    )
    pdf = Pdf(put(data))
    with pytest.raises(DecodeError, match=r"b\.pdf/page-1: is damaged .* get a whole copy"):
        pdf.render(0)
    assert pdf.render(1, 72)[-1, 0] == 76


def test_eight_threads_and_several_documents(tmp_path: Path) -> None:
    shades, paths = range(0, 240, 30), []
    for shade in shades:
        pages = [PIL.Image.new("L", (64, 64), shade + number) for number in range(4)]
        paths.append(tmp_path / f"{shade}.pdf")
        pages[0].save(paths[-1], "PDF", save_all=True, append_images=pages[1:], resolution=72)

    def shade_of(path: Path, number: int) -> int:
        return int(Pdf(path).render(number, 72)[32, 32])  # forgotten, and so closed, right away

    shared = {path: Pdf(path) for path in paths}
    wanted = list(itertools.product(paths, range(4)))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            ours = list(pool.map(lambda it: int(shared[it[0]].render(it[1], 72)[32, 32]), wanted))
            alone = list(pool.map(lambda it: shade_of(*it), wanted))
            assert ours == alone
    for (path, number), shade in zip(wanted, ours, strict=True):
        assert abs(shade - int(path.stem) - number) <= 1


def test_a_closed_file_says_so_and_a_forgotten_one_is_closed(put) -> None:
    path = put(one_page(RED))
    pdf = Pdf(path)
    pdf.close()
    pdf.close()
    with pytest.raises(InputError, match="is closed"):
        pdf.render(0)

    forgotten = Pdf(path)
    document = forgotten._document
    assert document is not None and document.raw
    del forgotten
    assert not document.raw


def test_without_the_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sketchify_rt.batch.pdf")
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'sketchify-rt\[pdf\]'"):
        importlib.import_module("sketchify_rt.batch.pdf")
