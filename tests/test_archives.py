from __future__ import annotations

import errno
import io
import itertools
import os
import random
import resource
import stat
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pytest

from sketchify_rt.batch.archives import Archive, Book, Member, directory, writer
from sketchify_rt.batch.archives.waiting import Waiting
from sketchify_rt.errors import DecodeError, InputError, OutputError, SketchifyError

NOISE = random.Random(6).randbytes
COMIC = b"<?xml version='1.0'?><ComicInfo><Title>\xc3\xa4</Title></ComicInfo>"
SYMLINK = (stat.S_IFLNK | 0o777) << 16


class Raw(NamedTuple):
    """A member as it lies in a file, with whatever lies the headers tell."""

    name: bytes
    data: bytes = b"data"
    method: int = 0
    flags: int = 0
    size: int | None = None
    crc: int | None = None
    attributes: int = 0
    extra: bytes = b""
    at: int | None = None


def build(*members: Raw, comment: bytes = b"") -> bytes:
    """A ZIP file of what zipfile would refuse to write."""
    body, directory = b"", b""
    for one in members:
        size = len(one.data) if one.size is None else one.size
        crc = zlib.crc32(one.data) if one.crc is None else one.crc
        packed = struct.pack("<3H", 20, one.flags, one.method) + struct.pack("<2H", 0x6000, 0x5A21)
        packed += struct.pack("<3L", crc, len(one.data), size)
        at = len(body) if one.at is None else one.at
        directory += b"PK\1\2\x14\3" + packed
        directory += struct.pack(
            "<5H2L", len(one.name), len(one.extra), 0, 0, 0, one.attributes, at
        )
        directory += one.name + one.extra
        if one.at is None:
            body += b"PK\3\4" + packed + struct.pack("<2H", len(one.name), len(one.extra))
            body += one.name + one.extra + one.data
    count = len(members) & 0xFFFF
    end = struct.pack("<4H2LH", 0, 0, count, count, len(directory), len(body), len(comment))
    return body + directory + b"PK\5\6" + end + comment


def put(path: Path, *members: Raw, comment: bytes = b"") -> Path:
    path.write_bytes(build(*members, comment=comment))
    return path


def inflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


def results(archive: Archive) -> dict[int, bytes]:
    return {page.index: f"sketch of {page.name}".encode() * 50 for page in archive.pages}


def rewrite(source: Path, output: Path, failed: tuple[str, ...] = ()) -> zipfile.ZipFile:
    """All pages put, as sketches in PNG; what came of it, checked by zipfile."""
    with Archive(source) as archive:
        book, sketches = Book(archive, output, "png"), results(archive)
        done = [
            book.put(page, None if page.name in failed else sketches[page.index])
            for page in archive.pages
        ]
    assert done == [False] * (len(done) - 1) + [True]
    return zipfile.ZipFile(io.BytesIO(output.read_bytes()))


@pytest.fixture
def comic(tmp_path: Path) -> Path:
    """A comic as they are found, with all that is in them besides pages."""
    path = tmp_path / "book.cbz"
    with zipfile.ZipFile(path, "w") as file:
        file.comment = b"scanned by \xe4"
        file.writestr("ComicInfo.xml", COMIC, zipfile.ZIP_DEFLATED)
        file.mkdir("ch 1")
        page = zipfile.ZipInfo("ch 1/page 10.jpg", (1999, 12, 31, 23, 59, 58))
        page.external_attr, page.comment = 0o100640 << 16, b"the tenth"
        page.create_system = 0
        page.extra = struct.pack("<2HBL", 0x5455, 5, 1, 946684798)
        file.writestr(page, NOISE(4000))
        file.writestr("ch 1/page 2.PNG", NOISE(100) + bytes(5000), zipfile.ZIP_DEFLATED)
        for junk in "__MACOSX/ch 1/page 2.jpg", ".DS_Store", "ch 1/Thumbs.db", "ch 1/._page 2.jpg":
            file.writestr(junk, NOISE(30))
        file.writestr("cover.webp", NOISE(2000))
        file.writestr("extras/more.zip", build(Raw(b"x.jpg")))
    return path


def test_pages_are_the_images_in_the_order_of_the_archive(comic: Path) -> None:
    with Archive(comic) as archive:
        pages = [page.name for page in archive.pages]
        assert pages == ["ch 1/page 10.jpg", "ch 1/page 2.PNG", "cover.webp"]
        assert [archive.stem(page) for page in archive.pages] == [
            "ch 1/page 10",
            "ch 1/page 2",
            "cover",
        ]
        assert len(archive.members) == 10


def test_a_page_is_read_by_many_threads_at_once(comic: Path) -> None:
    with zipfile.ZipFile(comic) as file:
        expected = {name: file.read(name) for name in file.namelist()}
    with Archive(comic) as archive, ThreadPoolExecutor(8) as pool:
        pages = archive.pages * 40
        for page, file in zip(pages, pool.map(archive.read, pages), strict=True):
            assert file.data == expected[page.name]
            assert file.name == f"{comic}/{page.name}"


def test_a_large_format_and_one_that_was_streamed(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", bytes(900))
        with file.open("b.jpg", "w", force_zip64=True) as member:
            member.write(b"x" * 700)
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\n" + pipe.data)
    with Archive(tmp_path / "a.zip") as archive:
        assert [archive.read(page).data for page in archive.pages] == [bytes(900), b"x" * 700]
    with rewrite(tmp_path / "a.zip", tmp_path / "b.zip", ("a.jpg", "b.jpg")) as file:
        assert [file.read(name) for name in ("a.jpg", "b.jpg")] == [bytes(900), b"x" * 700]
        assert [info.flag_bits for info in file.infolist()] == [0, 0]
    with rewrite(tmp_path / "a.zip", tmp_path / "b.zip") as file:
        assert [info.flag_bits for info in file.infolist()] == [0, 0]


@pytest.mark.parametrize(
    "name",
    [
        *(b"../a.jpg", b"/a.jpg", b"a/../../b.jpg", b"..\\a.jpg", b"C:/a.jpg", b"c:\\a.jpg"),
        *(b"\\\\h\\a", b"a\0.jpg", b"..", b"", b"a/..", b"notes/../../x.txt"),
        *("ä\\..\\..\\b.jpg".encode(), b"\xff/..\\..\\b.jpg"),
    ],
)
def test_names_that_lead_out_of_the_folder(tmp_path: Path, name: bytes) -> None:
    source = put(tmp_path / "a.cbz", Raw(b"1.jpg"), Raw(name))
    with pytest.raises(InputError, match=r"a\.cbz: .* has a path outside of .*\. Rename it"):
        Archive(source)


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        (b"./a.jpg", "a.jpg"),
        (b"ch 1//a.jpg", "ch 1/a.jpg"),
        (b"ch 1\\.\\a.jpg", "ch 1/a.jpg"),
        (b"K: a king.jpg", "K: a king.jpg"),
        (b"a../a...jpg", "a../a...jpg"),
        (b"-x/~.jpg", "-x/~.jpg"),
    ],
)
def test_odd_names_that_do_no_harm(tmp_path: Path, name: bytes, cleaned: str) -> None:
    with Archive(put(tmp_path / "a.zip", Raw(name), Raw(b"./"))) as archive:
        assert [page.name for page in archive.pages] == [cleaned]
        assert archive.stem(archive.pages[0]) == cleaned[:-4]


def test_a_name_too_long_for_a_file_is_still_a_page(tmp_path: Path) -> None:
    source = put(tmp_path / "a.zip", Raw(b"x" * 300 + b".jpg"), Raw(b"b.jpg"))
    with Archive(source) as archive:
        assert archive.stem(archive.pages[0]) == "x" * 300
    with rewrite(source, tmp_path / "b.zip") as file:
        assert file.namelist() == ["x" * 300 + ".png", "b.png"]


ENCODINGS = {
    "marked": ([Raw("表紙é.jpg".encode(), flags=0x800)], ["表紙é"], "表紙é.png".encode()),
    "unmarked": ([Raw("表紙é.jpg".encode())], ["表紙é"], "表紙é.png".encode()),
    "cp437": ([Raw(b"\x82t\x82.jpg")], ["été"], b"\x82t\x82.png"),
    "Shift-JIS": ([Raw("表紙.jpg".encode("cp932"))], ["ò\\Äå"], "表紙.png".encode("cp932")),
}


@pytest.mark.parametrize(("members", "stems", "kept"), ENCODINGS.values(), ids=ENCODINGS)
def test_names_in_any_encoding(
    tmp_path: Path, members: list[Raw], stems: list[str], kept: bytes
) -> None:
    source = put(tmp_path / "a.zip", *members)
    with Archive(source) as archive:
        assert [archive.stem(page) for page in archive.pages] == stems
    with rewrite(source, tmp_path / "b.zip") as file:
        assert [info.orig_filename for info in file.infolist()] == [stems[0] + ".png"]
    assert (tmp_path / "b.zip").read_bytes().count(kept) == 2  # before the data, in the directory


def unicode_path(
    raw: bytes, name: bytes, version: int = 1, crc: int | None = None, kind: int = 0x7075
) -> bytes:
    crc = zlib.crc32(raw) if crc is None else crc
    return struct.pack("<2HBL", kind, 5 + len(name), version, crc) + name


RAW = "表紙.jpg".encode("cp932")
TIME = struct.pack("<2HBL", 0x5455, 5, 1, 946684798)


@pytest.mark.parametrize("raw", [RAW, b"__.jpg", b"ch#U8868.jpg"])
@pytest.mark.parametrize("failed", [(), ("章/表紙.jpg",)])
def test_unicode_paths_are_names(tmp_path: Path, raw: bytes, failed: tuple[str, ...]) -> None:
    extra = TIME + unicode_path(raw, "章/表紙.jpg".encode())
    note = unicode_path(b"??.txt", "註.txt".encode())
    source = put(
        tmp_path / "a.cbz", Raw(raw, extra=extra), Raw(raw), Raw(b"??.txt", COMIC, extra=note)
    )
    with Archive(source) as archive:
        page, other = archive.pages
        assert page.name == "章/表紙.jpg"
        assert archive.stem(page) == "章/表紙"
        assert archive.read(page).name == f"{source}/章/表紙.jpg"
        plain = archive.stem(other)
    with rewrite(source, tmp_path / "b.cbz", failed) as file:
        result, _, text = file.infolist()
        assert file.namelist() == [
            f"章/表紙.{'jpg' if failed else 'png'}",
            f"{plain}.png",
            "註.txt",
        ]
        assert result.flag_bits & text.flag_bits & 0x800
        assert result.extra == TIME
        assert text.extra == b""
        assert file.read("註.txt") == COMIC


@pytest.mark.parametrize(
    "extra",
    [
        unicode_path(RAW, b"b.jpg", crc=1),  # of another name
        unicode_path(RAW, b"b.jpg", version=2),
        unicode_path(RAW, b"b.jpg", kind=0x7076),
        unicode_path(RAW, b"\xff.jpg"),
        unicode_path(RAW, b""),
        struct.pack("<2H", 0x7075, 3) + unicode_path(RAW, b"")[4:7],
        unicode_path(RAW, b"b.jpg")[:3],
        b"",
    ],
)
def test_damaged_unicode_paths_are_ignored(tmp_path: Path, extra: bytes) -> None:
    source = put(tmp_path / "a.zip", Raw(RAW, extra=extra))
    with Archive(source) as archive:
        assert archive.pages[0].name == "ò\\Äå.jpg"
    with rewrite(source, tmp_path / "b.zip") as file:
        assert file.infolist()[0].flag_bits == 0
    assert (tmp_path / "b.zip").read_bytes().count(RAW[:-3] + b"png") == 2


def test_a_unicode_path_leads_nowhere_and_is_no_twin(tmp_path: Path) -> None:
    source = put(tmp_path / "a.zip", Raw(b"a.jpg", extra=unicode_path(b"a.jpg", b"../a.jpg")))
    with pytest.raises(InputError, match=r"the member '\.\./a\.jpg' has a path outside"):
        Archive(source)
    twin = Raw(b"a.jpg", extra=unicode_path(b"a.jpg", b"b.jpg"))
    with pytest.raises(InputError, match=r"two members have the name 'b\.jpg'"):
        Archive(put(source, Raw(b"b.jpg"), twin))
    with Archive(put(source, Raw(b"a.jpg"), twin)) as archive:
        assert [archive.stem(page) for page in archive.pages] == ["a", "b"]


def test_results_that_are_unpacked_are_no_folders_of_pages(tmp_path: Path) -> None:
    names = ["a.jpg", "A.PNG/1.jpg", "b.jpg", "b.png/notes.txt", "c.jpg", "c.webp/x/1.jpg"]
    source = put(tmp_path / "a.zip", *(Raw(name.encode()) for name in names))
    with Archive(source) as archive:
        stems = [archive.stem(page) for page in archive.pages]
    assert stems == ["a.jpg", "A.PNG/1", "b", "c.jpg", "c.webp/x/1"]
    parts = b"a/" * 30_000  # of which a set of all folders would take 1.8 GB
    deep = put(tmp_path / "b.zip", Raw(parts + b"a.jpg"), Raw(parts + b"b.jpg"))

    def name() -> None:
        with Archive(deep) as archive:
            assert archive.stem(archive.pages[0]).endswith("a/a")
            Book(archive, tmp_path / "c.zip", "png")

    assert peak(name) < 2**23


def test_twins_have_names_of_their_own(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "b.jpg", "x/C.jpg", "X/c.jpg", "sub/a.jpg", "a.jpg.png"]
    source = put(tmp_path / "a.zip", *(Raw(name.encode()) for name in names))
    with Archive(source) as archive:
        stems = [archive.stem(page) for page in archive.pages]
    assert stems[:3] == ["a.jpg", "a.png", "b"]
    assert stems[3].startswith("x/C.jpg~")
    assert stems[5:] == ["sub/a", "a.jpg.png"]
    assert len({stem.casefold() for stem in stems}) == len(names)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"Rar!\x1a\x07\x01\x00" + bytes(99),
            "must be a ZIP archive, got a RAR archive. Repack it",
        ),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "got a 7-Zip archive"),
        (b"%PDF-1.7 " + bytes(99), r"got a PDF file\. Name it \.pdf"),
        (b"a.jpg".ljust(257, b"\0") + b"ustar" + bytes(999), "got a tar archive. Repack it as ZIP"),
        (bytes(60) + b"BOOKMOBI" + bytes(999), "got a Kindle book. Convert it to EPUB or PDF"),
        (b"", "is not a ZIP archive"),
        (b"\xff\xd8\xff\xe0" + bytes(5000), "is not a ZIP archive"),
        (b"PK\3\4" + bytes(5000), r"is damaged or truncated .*\. Get a complete copy"),
        (build(), "has no images in it"),
        (build(Raw(b"notes.txt"), Raw(b".a.jpg"), Raw(b"a.jpg/")), "has no images in it"),
        (build(Raw(b"a.jpg"), Raw(b"a.jpg")), "two members have the name 'a.jpg'. Rename one"),
        (build(Raw(b"x\\a.jpg"), Raw(b"./x/a.jpg")), "two members have the name 'x/a.jpg'"),
        (build(Raw(b"a.jpg"), Raw(b"\xff.jpg", flags=0x800)), "is damaged or truncated"),
    ],
)
def test_what_is_no_archive_of_pages(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.cbz").write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.cbz: .*{reason}"):
        Archive(tmp_path / "a.cbz")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.cbz: cannot be read \(No such file"):
        Archive(tmp_path / "gone.cbz")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        Archive(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        Archive(tmp_path / "a\0.cbz")


def overlapping() -> dict[str, tuple[bytes, str]]:
    kernel = Raw(b"a.jpg", bytes(100))
    first = Raw(b"b.jpg", build(kernel)[:135])  # the member "a.jpg" is in its data
    in_extra = Raw(b"c.jpg", extra=struct.pack("<2H", 0xCAFE, 135) + build(kernel)[:135])
    two = build(kernel, kernel._replace(name=b"b.jpg"))
    return {
        "the same": (build(kernel, kernel._replace(name=b"b.jpg", at=0)), "overlaps another"),
        "one in another": (build(first, kernel._replace(at=35)), "shares data"),
        "one in an extra field": (build(in_extra, kernel._replace(at=39)), "shares data"),
        "beyond the end": (build(kernel._replace(at=10**6)), "overlaps another member"),
        "in the directory": (build(kernel._replace(at=0)), "overlaps another member"),
        "no header": (two[:135] + b"PK\4\4" + two[139:], "does not start where the directory"),
        "a rest": (two[:135] + build(kernel), "is first in the directory, but not in the file"),
    }


@pytest.mark.parametrize("case", overlapping())
def test_members_that_share_data(tmp_path: Path, case: str) -> None:
    data, how = overlapping()[case]
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.zip: is damaged or malicious: .* {how}.*\. Get"):
        Archive(tmp_path / "a.zip")


def test_truncated_anywhere_it_is_refused(comic: Path, tmp_path: Path) -> None:
    data, path = comic.read_bytes(), tmp_path / "cut.cbz"
    nested, end = data.index(b"x.jpg"), len(data) - len(b"scanned by \xe4")
    cuts = {*range(0, end, 41), *range(nested, nested + 150), *range(end - 99, end)}
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"cut\.cbz: .*(; |\. Get|\. Use)"):
            Archive(path)


def test_damage_is_never_more_than_an_error_of_ours(comic: Path, tmp_path: Path) -> None:
    chance, data = random.Random(3), comic.read_bytes()
    directory = data.index(b"PK\1\2")
    path, output = tmp_path / "bad" / "a.cbz", tmp_path / "out" / "b.cbz"
    path.parent.mkdir()
    opened = 0
    for trial in range(400):
        bad = bytearray(data)
        for _ in range(chance.choice([1, 2, 8])):
            place = chance.randrange(directory if trial % 2 else 0, len(data))
            bad[place] = chance.choice([0, 0xFF, bad[place] ^ 1 << chance.randrange(8)])
        path.write_bytes(bad)
        try:
            archive = Archive(path)
        except InputError:
            continue
        opened += 1
        with archive:
            book = Book(archive, output, "jpg")
            for page in archive.pages:
                try:
                    book.put(page, archive.read(page).data)
                except DecodeError:
                    book.put(page, None)
        with zipfile.ZipFile(output) as file:
            assert len(file.filelist) == len(archive.members)
    assert 50 < opened < 400
    assert list(output.parent.iterdir()) == [output]


BAD_PAGES = {
    "encrypted": (Raw(b"b.jpg", NOISE(50), flags=1), "encrypted; repack"),
    "AES": (Raw(b"b.jpg", NOISE(50), method=99, flags=1), "encrypted; repack"),
    "bzip2": (Raw(b"b.jpg", NOISE(50), method=12), "compressed by method 12; repack"),
    "Deflate64": (Raw(b"b.jpg", NOISE(50), method=9), "compressed by method 9; repack"),
    "a link": (Raw(b"b.jpg", b"/etc/passwd", attributes=SYMLINK), "a symbolic link; repack"),
    "a wrong checksum": (Raw(b"b.jpg", crc=1), "its checksum is wrong; get a whole copy"),
    "a wrong size": (Raw(b"b.jpg", size=5), "its checksum is wrong"),
    "no Deflate": (Raw(b"b.jpg", b"\xff" * 9, method=8), "damaged in the archive: .*; get"),
    "cut Deflate": (Raw(b"b.jpg", inflated(b"abc" * 99)[:-3], 8, 0, 297), "checksum is wrong"),
    "large": (Raw(b"b.jpg", bytes(9), method=8, size=10**9), "takes 954 MiB, and a page .* 512"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD_PAGES.values(), ids=BAD_PAGES)
def test_a_bad_page_is_bad_alone_and_kept_as_it_is(tmp_path: Path, bad: Raw, reason: str) -> None:
    source = put(
        tmp_path / "a.cbz",
        Raw(b"a.jpg"),
        bad,
        Raw(b"c.jpg", inflated(b"c"), 8, 6, 1, zlib.crc32(b"c")),
    )
    with Archive(source) as archive:
        first, second, third = archive.pages
        with pytest.raises(DecodeError, match=reason) as caught:
            archive.read(second)
        assert caught.value.source == f"{source}/b.jpg"
        assert [archive.read(first).data, archive.read(third).data] == [b"data", b"c"]
    with rewrite(source, tmp_path / "b.cbz", ("b.jpg",)) as file:
        assert file.namelist() == ["a.png", "b.jpg", "c.png"]
        assert file.getinfo("c.png").flag_bits == 0  # those of Deflate
        old, new = zipfile.ZipFile(source).getinfo("b.jpg"), file.getinfo("b.jpg")
        for field in ("compress_type", "flag_bits", "CRC", "compress_size", "file_size"):
            assert getattr(old, field) == getattr(new, field)
    assert (tmp_path / "b.cbz").read_bytes().count(bad.name + bad.data) == 1


def test_a_copied_member_still_opens_with_its_password(tmp_path: Path) -> None:
    def encrypt(plain: bytes, password: bytes) -> bytes:
        table = [zipfile._gen_crc(i) for i in range(256)]  # type: ignore[attr-defined]
        keys, out = [0x12345678, 0x23456789, 0x34567890], bytearray()

        def update(byte: int) -> None:
            keys[0] = keys[0] >> 8 ^ table[(keys[0] ^ byte) & 0xFF]
            keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
            keys[2] = keys[2] >> 8 ^ table[(keys[2] ^ keys[1] >> 24) & 0xFF]

        for byte in password:
            update(byte)
        for byte in plain:
            mixed = keys[2] | 2
            out.append(byte ^ (mixed * (mixed ^ 1) >> 8 & 0xFF))
            update(byte)
        return bytes(out)

    check = bytes([*range(11), 0x60])  # ends with the hour, since sizes follow the data
    secret = encrypt(check + b"a secret", b"pw")
    member = Raw(b"b.jpg", secret, flags=9, size=8, crc=zlib.crc32(b"a secret"))
    source = put(tmp_path / "a.cbz", Raw(b"a.jpg"), member)
    with rewrite(source, tmp_path / "b.cbz", ("b.jpg",)) as file:
        assert file.read("b.jpg", b"pw") == b"a secret"
    follows = struct.pack("<4s3L", b"PK\7\10", zlib.crc32(b"a secret"), 20, 8)
    assert (tmp_path / "b.cbz").read_bytes().count(secret + follows) == 1


def peak(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_bomb_fills_the_memory(tmp_path: Path) -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    bomb = block * 1000 + deflate.flush()
    assert len(bomb) < 2**21
    honest = Raw(b"honest.bmp", bomb, 8, size=1000 * 2**20)
    lying = Raw(b"lying.bmp", bomb, 8, size=1000)
    source = put(tmp_path / "a.zip", honest, lying, Raw(b"notes.txt", bomb, 8))

    def read() -> None:
        with Archive(source) as archive:
            for page in archive.pages:
                with pytest.raises(DecodeError):
                    archive.read(page)

    assert peak(read) < 8 * 2**20
    assert peak(lambda: rewrite(source, tmp_path / "b.zip").close()) < 32 * 2**20
    assert (tmp_path / "b.zip").stat().st_size < 2**22


def test_a_name_of_many_folders_takes_little_memory(tmp_path: Path) -> None:
    source = put(tmp_path / "a.zip", Raw(b"a.jpg"), Raw(b"a/" * 32_000 + b"b.txt"))
    with Archive(source) as archive:
        assert peak(lambda: Book(archive, tmp_path / "b.zip", "png")) < 2**20  # it was 1 GB


def test_a_directory_without_end_is_refused_at_once(tmp_path: Path) -> None:
    entry = build(Raw(b"a" * 54))[-22 - 100 : -22]
    count = directory.MAX_DIRECTORY // 100 + 1
    end = struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 100 * count, 0, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(entry * count + b"PK\5\6" + end)

    def refuse() -> None:
        with pytest.raises(InputError, match=r"a\.zip: has a directory of 16 MiB"):
            Archive(path)

    assert peak(refuse) < 2**20


def test_cut_short_while_it_is_open(comic: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "b.cbz"
    with Archive(comic) as archive:
        book = Book(archive, output, "png")
        first, *rest = archive.pages
        assert not book.put(first, b"sketch")
        os.truncate(comic, archive.pages[-1].start)
        for page in rest[:-1]:
            assert not book.put(page, b"sketch")
        with pytest.raises(InputError, match=r"book\.cbz: was cut short while it was open"):
            archive.read(rest[-1])
        for _ in range(2):
            with pytest.raises(InputError, match="was cut short"):
                book.put(rest[-1], None)
        book.abort()
    assert list(output.parent.iterdir()) == []
    with pytest.raises(InputError, match="cannot be read"):
        archive.read(first)  # it is closed


def test_all_but_the_pages_stays_as_it_was(comic: Path, tmp_path: Path) -> None:
    with rewrite(comic, tmp_path / "out.cbz", ("ch 1/page 2.PNG",)) as new:
        old = zipfile.ZipFile(comic)
        assert new.testzip() is None
        assert new.comment == old.comment
        renamed = {"ch 1/page 10.jpg": "ch 1/page 10.png", "cover.webp": "cover.png"}
        assert new.namelist() == [renamed.get(name, name) for name in old.namelist()]
        for before, after in zip(old.infolist(), new.infolist(), strict=True):
            for field in ("date_time", "comment", "extra", "external_attr", "create_system"):
                assert getattr(before, field) == getattr(after, field)
            if before.filename in renamed:
                assert new.read(after) == f"sketch of {before.filename}".encode() * 50
                assert after.compress_type == zipfile.ZIP_STORED
            else:
                assert new.read(after) == old.read(before)
                assert after.compress_type == before.compress_type
        assert new.read("ComicInfo.xml") == COMIC


def test_new_names_are_no_other_members(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.jpg.png", "b.jpg", "b.png/x.txt", "c.jpg", "C.PNG/", "d.png"]
    source = put(tmp_path / "a.zip", *(Raw(name.encode()) for name in names))
    expected = ["a.jpg~.png", "a.png.png", "a.jpg.png.png", "b~.png", "b.png/x.txt", "c~.png"]
    with rewrite(source, tmp_path / "b.zip") as file:
        assert file.namelist() == [*expected, "C.PNG/", "d.png"]
    with rewrite(source, tmp_path / "b.zip", ("a.jpg.png", "c.jpg")) as file:
        kept = [*expected[:2], "a.jpg.png", *expected[3:5], "c.jpg", "C.PNG/", "d.png"]
        assert file.namelist() == kept


def test_whatever_the_order_the_bytes_are_the_same(comic: Path, tmp_path: Path) -> None:
    seen = set()
    with Archive(comic) as archive:
        sketches = results(archive)
        for order in itertools.permutations(archive.pages):
            book = Book(archive, tmp_path / "b.cbz", "png")
            done = [book.put(page, sketches[page.index]) for page in order]
            assert done == [False, False, True]
            seen.add((tmp_path / "b.cbz").read_bytes())
    assert len(seen) == 1


@pytest.mark.parametrize("memory", [0, 5, 10, 10**6])
def test_what_waits_comes_back_from_memory_and_file(tmp_path: Path, memory: int) -> None:
    waiting = Waiting(tmp_path, memory)
    kept = {place: bytes([place]) * place if place % 3 else None for place in range(9)}
    for _ in range(2):
        for place, data in reversed(kept.items()):
            waiting.put(place, data)
        assert not list(tmp_path.iterdir())  # no name, whatever ends the process
        for place, data in kept.items():
            assert place in waiting
            assert waiting.pop(place) == data
            assert place not in waiting
    waiting.put(1, b"x" * 20)
    waiting.clear()
    assert 1 not in waiting


def test_a_page_that_takes_long_keeps_no_others_in_memory(
    comic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "Waiting", lambda folder: Waiting(folder, 1000))
    with Archive(comic) as archive:
        first, *others = archive.pages
        sketches = {page.index: bytes([65 + page.index]) * 50_000 for page in archive.pages}
        book = Book(archive, tmp_path / "b.cbz", "png")
        assert [book.put(page, sketches[page.index]) for page in others] == [False] * len(others)
        assert book.put(first, sketches[first.index])
    with zipfile.ZipFile(tmp_path / "b.cbz") as made:
        found = [made.read(name)[:1] for name in made.namelist() if name.endswith(".png")]
    assert found == [sketches[page.index][:1] for page in archive.pages]


def test_threads_in_any_order_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(archive: Archive, member: Member) -> Iterator[bytes]:
        time.sleep(0.02)  # for others to come in between
        return raw(archive, member)

    raw = Archive.raw
    monkeypatch.setattr(Archive, "raw", slowly)
    pages = (Raw(b"%d.jpg" % number, NOISE(2000)) for number in range(200))
    source = put(tmp_path / "a.zip", Raw(b"ComicInfo.xml", COMIC), *pages)
    seen = set()
    with Archive(source) as archive:
        sketches = results(archive)
        for trial in range(4):
            book = Book(archive, tmp_path / "b.zip", "png")
            order = random.Random(trial).sample(archive.pages, 200)
            with ThreadPoolExecutor(8) as pool:
                done = list(pool.map(book.put, order, [sketches[page.index] for page in order]))
            assert done.count(True) == 1
            seen.add((tmp_path / "b.zip").read_bytes())
    assert len(seen) == 1


def test_a_page_is_written_in_its_turn_and_let_go(tmp_path: Path) -> None:
    source = put(tmp_path / "a.zip", *(Raw(b"%d.jpg" % number) for number in range(64)))

    def convert() -> None:
        with Archive(source) as archive:
            book = Book(archive, tmp_path / "b.zip", "png")
            for page in archive.pages:
                book.put(page, bytes(2**20))

    assert peak(convert) < 8 * 2**20


def test_until_it_is_complete_there_is_no_file(comic: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "b.cbz"
    with Archive(comic) as archive:
        book = Book(archive, output, "webp")
        for page in archive.pages[:-1]:
            book.put(page, b"x")
        (part,) = output.parent.iterdir()
        assert part.name.startswith(".")
        book.put(archive.pages[-1], b"x")
        book.abort()  # too late
        with pytest.raises(OutputError, match="is complete already"):
            book.put(archive.pages[0], b"x")
    assert list(output.parent.iterdir()) == [output]


def test_a_book_given_up_leaves_nothing(comic: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "b.cbz"
    with Archive(comic) as archive:
        book = Book(archive, output, "png")
        book.put(archive.pages[0], b"x")
        book.abort()
        book.abort()
        with pytest.raises(OutputError, match=r"b\.cbz: was not completed\. Run the same"):
            book.put(archive.pages[1], b"x")
    assert list(output.parent.iterdir()) == []


def test_a_file_of_the_caller_is_written_and_ended(comic: Path, tmp_path: Path) -> None:
    output, ended = tmp_path / "b.cbz", list[object]()

    @contextmanager
    def into(name: str) -> Iterator[BinaryIO]:
        try:
            with (tmp_path / name).open("w+b") as file:
                yield file
            ended.append(None)
        except BaseException as error:
            ended.append(type(error))
            raise

    with Archive(comic) as archive:
        results = [Book(archive, output, "png"), Book(archive, output, "png", into("a"))]
        for book in results:
            for page in archive.pages:
                book.put(page, b"x")
        given_up = Book(archive, output, "png", into("c"))
        given_up.put(archive.pages[0], b"x")
        assert ended == [None]
        given_up.abort()
    assert (tmp_path / "a").read_bytes() == output.read_bytes()
    assert len(ended) == 2
    assert ended[1] is not None


def test_what_the_end_of_its_file_raises_undoes_the_book(comic: Path, tmp_path: Path) -> None:
    @contextmanager
    def refusing() -> Iterator[BinaryIO]:
        with (tmp_path / "a").open("w+b") as file:
            yield file
        raise KeyboardInterrupt

    with Archive(comic) as archive:
        book = Book(archive, tmp_path / "b.cbz", "png", refusing())
        *rest, last = archive.pages
        for page in rest:
            book.put(page, b"x")
        with pytest.raises(KeyboardInterrupt):
            book.put(last, b"x")
        with pytest.raises(OutputError, match="was not completed"):
            book.put(last, b"x")
    assert not (tmp_path / "b.cbz").exists()


@pytest.mark.parametrize("room", [100, 20_000, 60_000, 61_400])
def test_a_full_disk_is_told_once_and_for_all_pages(tmp_path: Path, room: int) -> None:
    source = put(tmp_path / "a.zip", *(Raw(b"%d.jpg" % number) for number in range(3)))
    output = tmp_path / "new" / "b.cbz"
    failures: list[SketchifyError] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Archive(source) as archive:
        book = Book(archive, output, "png")
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            for page in archive.pages:
                try:
                    book.put(page, NOISE(20_400))
                except OutputError as error:
                    failures.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failures
    for error in failures:
        assert isinstance(error, OutputError)
        assert error.errno == errno.EFBIG
        assert str(error).startswith(f"{output}: cannot be written: File too large; raise")
    assert list(output.parent.iterdir()) == []


def test_large_results_are_zip64(
    comic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = rewrite(comic, tmp_path / "plain.cbz", ("ch 1/page 10.jpg",))
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    monkeypatch.setattr(writer, "ZIP64_LIMIT", 1000)
    with rewrite(comic, tmp_path / "large.cbz", ("ch 1/page 10.jpg",)) as file:
        assert file.testzip() is None
        assert file.namelist() == plain.namelist()
        assert [file.read(name) for name in file.namelist()] == [
            plain.read(name) for name in plain.namelist()
        ]
    assert b"PK\6\6" in (tmp_path / "large.cbz").read_bytes()
    # Once more, from one that has such fields already.
    with rewrite(tmp_path / "large.cbz", tmp_path / "again.cbz", ("ch 1/page 10.jpg",)) as file:
        data = (tmp_path / "again.cbz").read_bytes()
        for info in file.infolist():
            assert kinds(info.extra).count(1) == (max(info.file_size, info.header_offset) > 1000)
            name, extra = struct.unpack_from("<2H", data, info.header_offset + 26)
            header = data[info.header_offset : info.header_offset + 30 + name + extra]
            large = info.file_size > 1000
            assert kinds(header[30 + name :]).count(1) == large
            assert (header[18:26] == b"\xff" * 8) == large


def kinds(extra: bytes) -> list[int]:
    """Of extra fields."""
    found = []
    while extra:
        kind, size = struct.unpack_from("<2H", extra)
        found.append(kind)
        extra = extra[4 + size :]
    return found
