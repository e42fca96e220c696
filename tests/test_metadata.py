"""Metadata out of every format and into every format, and of the worst kind."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import (
    NOISE,
    RGB,
    XMP_TURNED,
    exif_turned,
    picture,
    png_chunk,
    samples_of_16_bits,
    saved,
    tiff_file,
)
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from sketchify_rt import Encoding, Sketchifier
from sketchify_rt.codec import cpu, exif, header, icc, metadata
from sketchify_rt.codec.header import File
from sketchify_rt.codec.metadata import NONE, Metadata, attach
from sketchify_rt.options import FORMATS, Format

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = icc.gray(SRGB)
ARTIST = "宮崎 © Ünïcode".encode()  # as writers do, whatever the standard says of ASCII
SOURCES = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
SKETCH = picture(33, 50)


def read(data: bytes) -> Metadata:
    return metadata.read(header.probe(data))


def block(orientation: int = 1, order: str = "<", **changes: Any) -> bytes:
    """EXIF with a thumbnail, a maker's note, GPS and 254 pixels an inch, 100 a centimetre."""
    tags = {"unit": 3, "resolution": (100, 1)} | changes
    thumbnail = saved(RGB, "JPEG")

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    def short(value: int) -> bytes:
        return struct.pack(order + "H", value)

    def directory(at: int, entries: dict[int, tuple[int, int, bytes]], following: bytes) -> bytes:
        head, tail = short(len(entries)), b""
        behind = at + 2 + 12 * len(entries) + 4
        for tag, (kind, count, value) in entries.items():
            head += struct.pack(order + "HHI", tag, kind, count)
            if len(value) > 4:
                head += long(behind + len(tail))
                tail += value
            else:
                head += value.ljust(4, b"\0")
        return head + following + tail

    ratio = struct.pack(order + "II", *tags["resolution"])
    interoperability = directory(2000, {1: (2, 4, b"R98\0")}, long(0)).ljust(100, b"\0")
    gps = directory(1500, {1: (2, 2, b"N\0"), 2: (5, 1, ratio)}, long(0)).ljust(500, b"\0")
    inner = {
        36864: (7, 4, b"0232"),
        37396: (3, 2, short(3) + short(4)),  # SubjectArea
        37500: (7, 9, b"MAKERNOTE"),
        37510: (7, 12, b"ASCII\0\0\0text"),  # UserComment
        40962: (4, 1, long(6000)),
        40963: (4, 1, long(4000)),
        40965: (4, 1, long(2000)),
    }
    first = {
        274: (3, 1, short(orientation)),
        282: (5, 1, ratio),
        283: (5, 1, ratio),
        296: (3, 1, short(tags["unit"])),
        315: (2, len(ARTIST) + 1, ARTIST + b"\0"),
        700: (1, 5, b"<xmp>"),
        34665: (4, 1, long(1000)),
        34853: (4, 1, long(1500)),
    }
    small = {513: (4, 1, long(2200)), 514: (4, 1, long(len(thumbnail)))}
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + long(8)
    return b"".join(
        (
            b"Exif\0\0",
            (head + directory(8, first, long(2100))).ljust(1000, b"\0"),
            directory(1000, inner, long(0)).ljust(500, b"\0"),
            gps,
            interoperability,
            directory(2100, small, long(0)).ljust(100, b"\0"),
            thumbnail,
        )
    )


def source(form: str, **extra: Any) -> bytes:
    """A file of 30 x 40 pixels with EXIF and a profile."""
    given = {"exif": block(), "icc_profile": SRGB} | extra
    if form == "TIFF":  # which Pillow writes its own way
        tags = Image.Exif()
        tags.load(given.pop("exif"))
        tags.get_ifd(IFD.Exif)
        tags[Base.Orientation] = extra.get("orientation", 1)
        given.pop("orientation", None)
        return saved(RGB, "TIFF", exif=tags, resolution_unit=3, x_resolution=100, **given)
    return saved(RGB, form, **given)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@cache
def file_of(form: Format) -> bytes:
    return cpu.encode(SKETCH, Encoding(form))


def put(form: Format, found: Metadata) -> bytes:
    return attach(file_of(form), form, found, *SKETCH.shape)


# Every format in and out


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", SOURCES)
def test_all_of_it_goes_from_every_format_to_every_format(kind: str, form: Format) -> None:
    image = opened(put(form, read(source(kind))))
    tags = image.getexif()
    assert tags.get(Base.Orientation, 1) == 1
    assert (tags[Base.XResolution], tags[Base.YResolution]) == (254, 254)
    assert tags[Base.ResolutionUnit] == 2
    inner = tags.get_ifd(IFD.Exif)
    assert (inner[Base.ExifImageWidth], inner[Base.ExifImageHeight]) == (50, 33)
    assert inner[Base.ExifVersion] == b"0232"
    assert inner[Base.UserComment] == b"ASCII\0\0\0text"
    assert not {Base.MakerNote, Base.SubjectLocation, 37396} & set(inner)
    if form != "webp":
        assert image.info["dpi"] == pytest.approx((254, 254), abs=0.01)
    profile = image.info["icc_profile"]
    assert profile == (SRGB if form == "webp" else GRAY_PROFILE)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", FORMATS)
def test_fields_are_kept_as_they_are_stored(form: Format, order: str) -> None:
    data = put(form, read(source("JPEG", exif=block(order=order))))
    found = read(data).exif
    assert found.order == order
    assert found.fields[exif.FIRST, 315] == exif.Field(2, ARTIST + b"\0")
    assert found.fields[exif.EXIF, 37510] == exif.Field(7, b"ASCII\0\0\0text")
    others = {
        (exif.INTEROPERABILITY, 1): exif.Field(2, b"R98\0"),
        (exif.GPS, 1): exif.Field(2, b"N\0"),
        (exif.GPS, 2): exif.Field(5, struct.pack(order + "II", 100, 1)),
    }
    assert others == {
        place: field
        for place, field in found.fields.items()
        if place[0] in (exif.INTEROPERABILITY, exif.GPS)
    }
    assert (exif.FIRST, 700) not in found.fields


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_of_the_original_shows(form: Format) -> None:
    data = put(form, read(source("JPEG")))
    assert b"MAKERNOTE" not in data and b"<xmp>" not in data
    assert data.count(b"\xff\xd8\xff") == (form == "jpg")  # no thumbnail
    assert opened(data).getexif().get_ifd(IFD.IFD1) == {}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("quality", [None, 80])
def test_the_pixels_are_those_without_it(form: Format, quality: int | None) -> None:
    encoding = Encoding(form, None if form == "png" else quality)
    plain = cpu.encode(SKETCH, encoding)
    data = attach(plain, form, read(source("JPEG")), *SKETCH.shape)
    assert len(data) > len(plain)
    for flags in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR):
        before, after = (
            cv2.imdecode(np.frombuffer(file, np.uint8), flags) for file in (plain, data)
        )
        np.testing.assert_array_equal(before, after)
    before, after = opened(plain), opened(data)
    assert (before.mode, before.size, before.format) == (after.mode, after.size, after.format)
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    np.testing.assert_array_equal(
        cpu.decode(File("plain", plain), 10**6), cpu.decode(File("with metadata", data), 10**6)
    )


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_added_where_nothing_is_known(form: Format) -> None:
    assert read(saved(RGB, "PNG")) == read(saved(RGB, "GIF")) == read(b"") == NONE
    assert put(form, NONE) == file_of(form)


def test_what_is_in_a_result_is_read_again() -> None:
    for form in FORMATS:
        once = put(form, read(source("JPEG")))
        assert attach(file_of(form), form, read(once), *SKETCH.shape) == once


# Resolution


def with_chunk(body: bytes) -> bytes:
    data = saved(RGB, "PNG")
    return data[:33] + png_chunk(b"pHYs", body) + data[33:]


@pytest.mark.parametrize(
    ("data", "dpi"),
    [
        (saved(RGB, "JPEG", dpi=(300, 200)), (300, 200)),
        (saved(RGB, "JPEG"), None),  # unit 0, an aspect
        (saved(RGB, "PNG", dpi=(300, 200)), (300, 200)),
        (saved(RGB, "PNG"), None),
        (saved(RGB, "TIFF", dpi=(300, 200)), (300, 200)),
        (saved(RGB, "TIFF", resolution_unit=3, x_resolution=100, y_resolution=50), (254, 127)),
        (saved(RGB, "TIFF", resolution_unit=1, x_resolution=3, y_resolution=4), None),
        (source("WEBP"), (254, 254)),
        (source("AVIF"), (254, 254)),
        (source("JPEG", exif=block(unit=2, resolution=(721, 2))), (360.5, 360.5)),
        (source("JPEG", exif=block(unit=1)), None),
        (source("JPEG", exif=block(resolution=(1, 0))), None),
        (source("JPEG", exif=block(resolution=(0, 1))), None),
        (source("JPEG", exif=block(resolution=(2**32 - 1, 1))), None),
        (source("JPEG", dpi=(96, 96)), (96, 96)),  # the container's before that of EXIF
        (saved(RGB, "JPEG", dpi=(100, 50)).replace(b"\1\0d\0002", b"\2\0d\0002", 1), (254, 127)),
        (with_chunk(struct.pack(">IIB", 3, 4, 0)), None),  # an unknown unit
    ],
)
def test_units_of_resolution(data: bytes, dpi: tuple[float, float] | None) -> None:
    found = read(data).dpi
    assert found is None if dpi is None else found == pytest.approx(dpi, abs=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_resolution_turns_with_the_picture(orientation: int) -> None:
    tags = Image.Exif()
    tags[Base.Orientation] = orientation
    found = read(saved(RGB, "JPEG", dpi=(300, 200), exif=tags))
    assert found.dpi == ((200, 300) if orientation >= 5 else (300, 200))


@pytest.mark.parametrize("form", FORMATS)
def test_a_resolution_without_exif(form: Format) -> None:
    data = put(form, Metadata(dpi=(300, 200)))
    assert read(data).dpi == pytest.approx((300, 200), abs=0.01)
    if form != "webp":
        assert read(data).exif == exif.NONE


def test_resolution_that_jfif_cannot_hold() -> None:
    for dpi in ((0.2, 300), (300, 70_000)):
        assert opened(put("jpg", Metadata(dpi=dpi))).info["jfif_unit"] == 0
    assert NONE.scaled(2, 3) == NONE
    assert Metadata(dpi=(300, 200)).scaled(0.5, 2) == Metadata(dpi=(150, 400))
    assert Metadata(dpi=(300, 200)).scaled(1e-6, 1) == NONE


# Colour profiles


def lightness(image: Image.Image, profile: bytes) -> np.ndarray:
    """Tones as sRGB sees them through the profile."""
    through = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
    )
    assert through is not None
    return np.asarray(through).astype(int)


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_the_gray_profile_gives_the_tones_of_the_colour_one(form: Format) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(8, axis=0)
    data = attach(cpu.encode(ramp, Encoding(form)), form, Metadata(profile=SRGB), *ramp.shape)
    profile = opened(data).info["icc_profile"]
    assert profile[16:20] == b"GRAY" and int.from_bytes(profile[:4], "big") == len(profile)
    tones = lightness(Image.fromarray(ramp), profile)
    assert np.abs(tones - ramp[..., None]).max() <= 1
    opened_profile = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    assert opened_profile.xcolor_space.strip() == "GRAY"
    assert opened_profile.profile_description == "sRGB built-in"
    assert opened_profile.copyright


def test_the_curve_is_that_of_the_profile() -> None:
    """A gamma of 1.0 in the place of sRGB's curve: the tones must become lighter."""
    at = SRGB.index(b"gTRC")
    start, length = struct.unpack_from(">II", SRGB, at + 4)
    assert SRGB[start : start + 4] == b"para" and length >= 16
    linear = bytearray(SRGB)
    linear[start : start + 16] = struct.pack(">4sIHHi", b"para", 0, 0, 0, 1 << 16)
    tones = lightness(Image.fromarray(np.full((4, 4), 128, np.uint8)), icc.gray(bytes(linear)))
    assert np.abs(tones - 188).max() <= 1  # sRGB of 0.502


def test_a_gray_profile_is_kept_and_webp_has_none_of_it() -> None:
    for form in ("png", "jpg"):
        data = put(form, Metadata(profile=GRAY_PROFILE + b"behind it"))
        assert opened(data).info["icc_profile"] == GRAY_PROFILE
    assert put("webp", Metadata(profile=GRAY_PROFILE)) == file_of("webp")


def padded(profile: bytes, size: int) -> bytes:
    """With bytes that no tag tells of."""
    whole = profile + np.random.default_rng(0).bytes(size - len(profile))
    return struct.pack(">I", size) + whole[4:]


@pytest.mark.parametrize("size", [65_519, 65_520, 200_000])
def test_a_large_profile_goes_into_several_segments_of_jpeg(size: int) -> None:
    profile = padded(GRAY_PROFILE, size)
    data = put("jpg", Metadata(profile=profile))
    assert opened(data).info["icc_profile"] == profile
    assert data.count(b"ICC_PROFILE\0") == -(-size // 65_519)
    assert read(data).profile == profile
    assert opened(put("png", Metadata(profile=profile))).info["icc_profile"] == profile


def test_profiles_that_say_nothing_of_gray() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    printer = SRGB[:12] + b"prtr" + SRGB[16:]
    tables = SRGB.replace(b"gTRC", b"A2B0")
    broken_curve = bytearray(SRGB)
    (start,) = struct.unpack_from(">I", SRGB, SRGB.index(b"gTRC") + 4)
    broken_curve[start : start + 4] = b"none"
    no_signature = SRGB.replace(b"acsp", b"abcd")
    many = SRGB[:128] + struct.pack(">I", 10**6) + SRGB[132:]
    outside = SRGB.replace(b"gTRC", b"gTRC\xff", 1)
    for bad in (lab, printer, tables, bytes(broken_curve), no_signature, many, outside, SRGB[:400]):
        assert icc.gray(bad) == b""
        assert put("png", Metadata(profile=bad)) == file_of("png")
    assert icc.gray(b"") == b"" and icc.space(SRGB) == "RGB"


def test_what_is_outside_a_profile_and_too_many_tags() -> None:
    at = SRGB.index(b"gTRC") + 8  # its length
    assert icc.gray(SRGB[:at] + struct.pack(">I", 10**6) + SRGB[at + 4 :]) == b""

    def with_tags(count: int) -> bytes:
        table = b"".join(struct.pack(">III", tag, 128, 4) for tag in range(count))
        body = GRAY_PROFILE[4:128] + struct.pack(">I", count) + table
        return struct.pack(">I", 4 + len(body)) + body

    assert icc.gray(with_tags(1000)) == with_tags(1000)
    assert icc.gray(with_tags(1001)) == b""


def test_values_begin_where_the_standards_want_them() -> None:
    (count,) = struct.unpack_from(">I", GRAY_PROFILE, 128)
    tags = [struct.unpack_from(">4sII", GRAY_PROFILE, 132 + 12 * at) for at in range(count)]
    assert [tag[0] for tag in tags] == [b"desc", b"cprt", b"wtpt", b"chad", b"kTRC"]
    assert all(start % 4 == 0 for _, start, _ in tags)
    odd = exif.Exif("<", {(exif.FIRST, tag): exif.Field(7, b"12345") for tag in (1, 2, 3)})
    written = odd.write(1, 1, None)
    places = [struct.unpack_from("<I", written, 18 + 12 * at)[0] for at in range(3)]
    assert places == [50, 56, 62]
    assert exif.Exif("<", {(exif.FIRST, 274): exif.Field(3, b"\6\0")}).write(1, 1, None) == b""


# Of the worst kind


def entries(*fields: tuple[int, int, int, int], at: int = 8, size: int = 0) -> bytes:
    body = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *f) for f in fields)
    return (b"II*\0" + struct.pack("<I", at) + body + b"\0" * 4).ljust(size, b"x")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"II*\0",
        b"XX*\0\x08\0\0\0\0\0",
        entries(at=2**32 - 1),
        entries(at=4),  # points at itself
        entries((34665, 4, 1, 8), (34853, 4, 1, 8)),  # directories that are the first one
        entries((315, 2, 2**32 - 1, 30)),
        entries((315, 2, 100, 2**32 - 1)),
        entries((315, 99, 4, 0)),
        entries((315, 2, 0, 0)),
        struct.pack("<4sIH", b"II*\0", 8, 65535),
    ],
)
def test_broken_exif_is_left_out(bad: bytes) -> None:
    found = exif.read(bad)
    assert found.write(1, 1, None) in (b"", b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    data = saved(RGB, "JPEG", icc_profile=SRGB)
    data = data[:2] + metadata._segment(0xE1, b"Exif\0\0" + bad) + data[2:]
    assert read(data).profile == SRGB


def test_many_fields_that_share_one_value_take_no_more_than_there_is() -> None:
    shared = entries(*((tag, 7, 50_000, 8) for tag in range(1, 4000)), size=60_000)
    outer = entries((34665, 4, 1, 26))
    found = exif.read(outer[:26] + shared[8:])
    assert len(found.write(1, 1, None)) < 2 * 110_000


@pytest.mark.parametrize("form", FORMATS)
def test_exif_of_10_megabytes(form: Format) -> None:
    comment = b"ASCII\0\0\0" + bytes(10**7)
    tags = Image.Exif()
    tags[Base.Artist] = "A"
    tags.get_ifd(IFD.Exif)[Base.UserComment] = comment
    found = read(saved(RGB, "PNG", exif=tags))
    data = put(form, found)
    kept = opened(data).getexif()
    if form == "jpg":
        assert not kept and len(data) < 10**5  # there is no room for it
    else:
        assert kept[Base.Artist] == "A"
        assert kept.get_ifd(IFD.Exif)[Base.UserComment] == comment


def test_a_profile_that_blows_up_is_not_read() -> None:
    packed = zlib.compress(bytes(2**26))
    data = saved(RGB, "PNG", dpi=(300, 300))
    bomb = png_chunk(b"iCCP", b"x\0\0" + packed)
    assert read(data[:33] + bomb + data[33:]) == Metadata(dpi=read(data).dpi)


def test_exif_behind_the_pixels_of_a_png() -> None:
    data = saved(RGB, "PNG")
    found = read(data[:-12] + png_chunk(b"eXIf", block()[6:]) + data[-12:])
    assert found.dpi == (254, 254)


@pytest.mark.parametrize("kind", SOURCES)
def test_cut_and_flipped_bytes_never_raise(kind: str) -> None:
    rng = np.random.default_rng(5)
    data = source(kind)
    for turn in range(200):
        bad = bytearray(data)
        for at in rng.integers(0, min(len(data), 6000), rng.integers(1, 6)):
            bad[at] = rng.choice([0, 0xFF, rng.integers(256)])
        if rng.integers(3) == 0:
            del bad[rng.integers(len(bad)) :]
        found = read(bytes(bad))
        result = put(FORMATS[turn % 3], found)
        if FORMATS[turn % 3] != "jpg":
            np.testing.assert_array_equal(cpu.decode(File("it", result), 10**6), SKETCH)


def test_flipped_bytes_of_profile_and_exif_alone_never_raise() -> None:
    rng = np.random.default_rng(6)
    for _ in range(2000):
        profile, tags = bytearray(SRGB), bytearray(block())
        for whole in (profile, tags):
            whole[rng.integers(min(len(whole), 1200))] = rng.integers(256)
        found = metadata.assemble(bytes(tags), bytes(profile), None, 1)
        for form in FORMATS:
            put(form, found)


# Through the engine


@pytest.fixture(scope="module")
def sketchify() -> Sketchifier:
    return Sketchifier(mode="dodge", device="cpu", threads=1)


@pytest.mark.parametrize("form", FORMATS)
def test_the_engine_keeps_it_on_request_alone(sketchify: Sketchifier, form: Format) -> None:
    data = source("JPEG", exif=block(6), dpi=(300, 200))
    plain = sketchify.encode(data, Encoding(form))
    assert read(plain) == NONE or form == "jpg"
    assert read(plain).exif == exif.NONE
    kept = sketchify.encode(data, Encoding(form, metadata=True))
    image = opened(kept)
    assert image.size == opened(plain).size == (30, 40)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(opened(plain)))
    assert read(kept).dpi == pytest.approx((200, 300), abs=0.01)
    inner = image.getexif().get_ifd(IFD.Exif)
    assert (inner[Base.ExifImageWidth], inner[Base.ExifImageHeight]) == (30, 40)
    assert image.getexif().get(Base.Orientation, 1) == 1


@pytest.mark.parametrize(
    ("options", "dpi", "size"),
    [
        ({"max_side": 20}, (150, 150), (20, 15)),
        ({"max_side": 100}, (300, 300), (40, 30)),
        ({"square": 60}, (600, 600), (60, 60)),
        ({"square": 90, "detail": 64}, (900, 900), (90, 90)),
    ],
)
def test_the_size_in_print_stays(
    options: dict[str, int], dpi: tuple[float, float], size: tuple[int, int]
) -> None:
    data = source("JPEG", dpi=(300, 300))
    sketch = Sketchifier(mode="dodge", device="cpu", **options)
    image = opened(sketch.encode(data, Encoding(metadata=True)))
    assert image.size == size
    assert image.info["dpi"] == pytest.approx(dpi, abs=0.02)  # whole pixels a metre
    assert image.getexif()[Base.XResolution] == dpi[0]


def test_a_pil_image_brings_its_own(sketchify: Sketchifier) -> None:
    image = Image.open(io.BytesIO(source("JPEG", exif=block(8), dpi=(300, 200))))
    kept = opened(sketchify.encode(image, Encoding("png", metadata=True)))
    assert kept.info["dpi"] == pytest.approx((200, 300), abs=0.01)
    assert kept.info["icc_profile"] == GRAY_PROFILE
    assert kept.size == (30, 40)
    tiff = Image.open(io.BytesIO(source("TIFF")))
    assert read(sketchify.encode(tiff, Encoding(metadata=True))).dpi == pytest.approx((254, 254))
    odd = Image.fromarray(NOISE[..., 0])
    odd.info |= {"dpi": ("x", None), "icc_profile": b"no profile", "exif": b"no exif"}
    assert read(sketchify.encode(odd, Encoding(metadata=True))) == NONE


# Orientation, from whichever field it is


def turned_by_xmp(form: str, xmp: bytes = XMP_TURNED, **options: Any) -> bytes:
    if form != "PNG":
        return saved(RGB, form, xmp=xmp, **options)
    data = saved(RGB, form, **options)
    text = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    return data[:33] + text + data[33:]


def turned_by_text(kind: bytes, **options: Any) -> bytes:
    """As ImageMagick writes EXIF into a PNG."""
    block = exif_turned(3, "<")
    text = b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
    text = zlib.compress(text) if kind == b"zTXt" else text
    packed = b"Raw profile type exif\0" + (b"\0" if kind == b"zTXt" else b"") + text
    data = saved(RGB, "PNG", **options)
    return data[:33] + png_chunk(kind, packed) + data[33:]


DPI = {"dpi": (300, 200)}
_FIELD = struct.pack("<HHIHH", 274, 3, 1, 6, 0)
ODD_EXIF = {
    "twins": b"Exif\0\0II*\0"
    + struct.pack("<IH", 8, 2)
    + _FIELD
    + _FIELD.replace(b"\6", b"\1")
    + bytes(4),
    "mark II": b"Exif\0\0II\0*" + exif_turned(3, "<")[10:],
    "mark MM": b"Exif\0\0MM*\0" + exif_turned(3, ">")[10:],
}
LONG_TIFF = tiff_file(RGB, 2, orientation=6)
TURNED = {
    **{
        f"{form} {kind} {order}": saved(RGB, form, exif=exif_turned(kind, order), **options)
        for form, options in (("JPEG", DPI), ("PNG", DPI), ("WEBP", {"lossless": True}))
        for kind in (1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
        for order in "<>"
    },
    **{f"{form} XMP": turned_by_xmp(form, **DPI) for form in ("JPEG", "PNG")},
    **{f"JPEG {name}": saved(RGB, "JPEG", exif=block, **DPI) for name, block in ODD_EXIF.items()},
    "TIFF XMP": tiff_file(RGB, 2, xmp=XMP_TURNED),
    **{f"{form} XMP": turned_by_xmp(form) for form in ("WEBP", "AVIF")},
    **{
        f"{form} XMP {spelling.decode()}": turned_by_xmp(
            form, XMP_TURNED.replace(b'tiff:Orientation="6"/', spelling), **DPI
        )
        for form in ("JPEG", "PNG")
        for spelling in (
            b"tiff:Orientation='6'/",
            b'tiff:Orientation = "6"/',
            b"><tiff:Orientation>6</tiff:Orientation",
            b"><tiff:Orientation>\n 6\n</tiff:Orientation",
        )
    },
    **{kind.decode(): turned_by_text(kind, **DPI) for kind in (b"tEXt", b"zTXt")},
    **{
        f"TIFF {kind}": LONG_TIFF.replace(
            struct.pack("<HHII", 274, 4, 1, 6), struct.pack("<HHII", 274, kind, 1, 6)
        )
        for kind in (1, 3, 4, 6, 8, 9)
    },
}


@pytest.mark.parametrize("name", TURNED)
def test_file_and_pil_image_are_turned_alike(sketchify: Sketchifier, name: str) -> None:
    data = TURNED[name]
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    encoding = Encoding("png", metadata=True, alpha="keep")
    results = [sketchify.encode(it, encoding) for it in (data, Image.open(io.BytesIO(data)))]
    assert opened(results[0]).size == opened(results[1]).size == (30, 40)
    plain, inner = np.asarray(opened(results[0])), np.asarray(opened(results[1]))
    assert np.abs(plain.astype(int) - inner).mean() < 2  # another luma of JPEG
    assert cpu.from_pil(loaded).shape == (40, 30)
    has_dpi = name.startswith(("JPEG", "PNG", "tE", "zT"))
    for result in results:
        dpi = opened(result).info.get("dpi")
        assert dpi == (pytest.approx((200, 300), abs=0.02) if has_dpi else None)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_xmp_is_not_asked_where_exif_tells(form: str) -> None:
    tags = Image.Exif()
    tags[Base.Orientation] = 1
    data = saved(RGB, form, exif=tags, xmp=XMP_TURNED)
    assert File("", data).header.orientation == 1
    assert cpu.decode(File("", data), 10**6).shape == (30, 40)
    assert cpu.from_pil(Image.open(io.BytesIO(data))).shape == (30, 40)


def test_deep_tiff_with_orientation_in_xmp_or_of_other_types() -> None:
    samples = samples_of_16_bits(4, 6, 3)
    expected = np.rot90(cpu.decode(File("", tiff_file(samples, 2)), 99), -1)
    long = struct.pack("<HHII", 274, 4, 1, 6)
    data = tiff_file(samples, 2, orientation=6)
    for kind in (1, 3, 4):
        file = File("", data.replace(long, struct.pack("<HHII", 274, kind, 1, 6)))
        np.testing.assert_array_equal(cpu.decode(file, 99), expected)
    xmp = tiff_file(samples, 2, xmp=XMP_TURNED)
    np.testing.assert_array_equal(cpu.decode(File("", xmp), 99), expected)


def test_xmp_of_another_type_in_a_tiff_is_left_out() -> None:
    data = tiff_file(RGB, 2, xmp=XMP_TURNED)
    size = len(XMP_TURNED)
    odd = data.replace(struct.pack("<HHI", 700, 1, size), struct.pack("<HHI", 700, 4, size // 4))
    assert odd != data
    assert cpu.decode(File("", odd), 10**6).shape == (30, 40)


def test_metadata_that_no_flag_of_a_webp_tells_of_does_not_turn_it() -> None:
    data = bytearray(saved(RGB, "WEBP", exif=exif_turned(3, "<"), xmp=XMP_TURNED))
    data[20] &= ~0x0C
    assert cpu.decode(File("", bytes(data)), 10**6).shape == (30, 40)
    assert cpu.from_pil(Image.open(io.BytesIO(data))).shape == (30, 40)


def test_exif_that_was_changed_in_pil_counts() -> None:
    image = Image.open(io.BytesIO(TURNED["JPEG 3 <"]))
    image.getexif()[Base.Orientation] = 1
    assert cpu.from_pil(image).shape == (30, 40)
