from __future__ import annotations

import io
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from fuzz.targets import with_checksums
from pictures import (
    FILES,
    NOISE,
    RGB,
    RNG,
    bomb,
    luma_of,
    on_white,
    png_chunk,
    png_file,
    ppm_of_16_bits,
    samples_of_16_bits,
    saved,
    tiff_file,
    to_8_bits,
    with_orientation,
)
from PIL import Image

from sketchify_rt.codec.cpu import decode, encode, from_pil
from sketchify_rt.codec.header import File
from sketchify_rt.errors import BackendUnavailable, DecodeError, EncodeError, InputError
from sketchify_rt.options import Encoding

MAX_PIXELS = 10**6


def decoded(data: bytes) -> np.ndarray:
    luma = decode(File("page", data), MAX_PIXELS)
    assert luma.dtype == np.uint8
    assert luma.flags.c_contiguous
    return luma


def reason(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(File("folder/page.png", data), max_pixels)
    assert str(caught.value).startswith("folder/page.png: ")
    return caught.value.reason


# Luma of 8-bit files


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "packbits"}),
    ],
)
def test_rgb_and_gray(form: str, options: dict[str, Any]) -> None:
    rgb = NOISE[..., :3]
    np.testing.assert_array_equal(decoded(saved(rgb, form, **options)), luma_of(rgb))
    gray = NOISE[..., 3]
    np.testing.assert_array_equal(decoded(saved(gray, form, **options)), gray)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette(form: str) -> None:
    image = Image.fromarray(RGB).quantize(16)
    colours = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decoded(saved(image, form)), luma_of(colours))


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_one_bit(form: str) -> None:
    bits = NOISE[..., 0] > 127
    expected = np.where(bits, 255, 0)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(bits), form)), expected)


def test_lossy_formats_stay_close() -> None:
    for data in (saved(RGB, "AVIF", quality=95), saved(RGB, "WEBP", quality=100)):
        assert np.abs(decoded(data).astype(int) - luma_of(RGB)).mean() < 4


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (60, 200)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert np.abs(decoded(data).astype(int) - 60).max() <= (2 if form == "AVIF" else 0)
    assert File("", data).header.animated
    assert not File("", saved(frames[0], form, **options)).header.animated


def test_frames_of_a_large_gif_are_counted_without_memory() -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    data = bytearray(saved(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2))
    data[6:10] = struct.pack("<HH", 10_000, 10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = File("", bytes(data)).header
    assert found.animated
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


@pytest.mark.parametrize(
    "behind", [b"", b",", b"junk", b"junk,", b"\x21", b"\x21\xfe\x05a", b"\x21\xf9\x04"]
)
def test_a_gif_that_is_broken_behind_its_first_frame(behind: bytes) -> None:
    data = FILES["GIF"]
    file = File("", data[:-1] + behind)
    assert file.header.animated == (behind in (b",", b"junk,"))
    np.testing.assert_array_equal(decoded(file.data), decoded(data))


def test_what_a_tiff_has_behind_its_first_page_may_be_a_thumbnail_or_broken() -> None:
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[:8, :8])]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        second = image.tag_v2.offset
    tag, subfile = struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 254, 4, 1, 1)
    assert data.count(tag) == 1
    assert not File("", data.replace(tag, subfile)).header.animated
    text = struct.pack("<HHII", 254, 2, 1, ord("x"))  # no number
    assert not File("", data.replace(tag, text)).header.problem
    cut = File("", data[: second + 1])
    assert not cut.header.animated
    np.testing.assert_array_equal(decoded(cut.data), luma_of(RGB))


@pytest.mark.parametrize("frames", [1, 2])
def test_animation_of_16_bits(frames: int) -> None:
    samples = samples_of_16_bits(9, 11, 3)
    plain = png_file(samples, 16, 2)
    control = struct.pack(">IIIIIHHBB", 0, 11, 9, 0, 0, 1, 1, 0, 0)
    second = struct.pack(">IIIIIHHBB", 1, 11, 9, 0, 0, 1, 1, 0, 0)
    data = png_file(
        samples,
        16,
        2,
        png_chunk(b"acTL", struct.pack(">II", frames, 0)),
        png_chunk(b"fcTL", control),
    )
    if frames == 2:
        start, stop = plain.index(b"IDAT"), plain.index(b"IEND") - 8
        frame = png_chunk(b"fdAT", struct.pack(">I", 2) + plain[start + 4 : stop])
        data = data[:-12] + png_chunk(b"fcTL", second) + frame + data[-12:]
    np.testing.assert_array_equal(decoded(data), decoded(plain))
    assert File("", data).header.animated == (frames == 2)
    with_default = data.replace(png_chunk(b"fcTL", control), b"")  # that is no frame
    np.testing.assert_array_equal(decoded(with_default), decoded(plain))


def test_first_gif_frame_smaller_than_the_canvas() -> None:
    screen = struct.pack("<HHBBB", 4, 3, 0x80, 0, 0) + bytes((0, 0, 0, 90, 90, 90))
    control = b"\x21\xf9\x04\x01\x00\x00\x00\x00"  # index 0 is transparent
    frame = b"\x2c" + struct.pack("<HHHHB", 1, 1, 2, 1, 0) + b"\x02\x02\x4c\x0a\x00"
    luma = decoded(b"GIF89a" + screen + control + frame + b"\x3b")
    assert luma.tolist() == [[255] * 4, [255, 90, 90, 255], [255] * 4]


# JPEG


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_is_the_stored_luma_plane(subsampling: int, progressive: bool) -> None:
    planes = np.dstack([luma_of(RGB), RGB[..., 0], RGB[..., 1]])  # colours far out of RGB's range
    image = Image.fromarray(planes, "YCbCr")
    data = saved(image, "JPEG", quality=100, subsampling=subsampling, progressive=progressive)
    assert np.abs(decoded(data).astype(int) - planes[..., 0]).max() <= 1


def test_gray_jpeg() -> None:
    data = saved(luma_of(RGB), "JPEG", quality=100)
    assert np.abs(decoded(data).astype(int) - luma_of(RGB)).max() <= 1


def test_jpeg_that_stores_rgb() -> None:
    data = saved(RGB, "JPEG", quality=100, subsampling=0, keep_rgb=True)
    assert np.abs(decoded(data).astype(int) - luma_of(RGB)).max() <= 2


def test_cmyk_jpeg_with_inks_inverted_as_adobe_does() -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    data = saved(image, "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(decoded(data).astype(int) - luma_of(RGB)).max() <= 2


# 16 bits a sample


@pytest.mark.parametrize(
    "write",
    [
        lambda samples: png_file(samples, 16, 0),
        lambda samples: tiff_file(samples, 1),
        lambda samples: tiff_file(samples, 1, order=">"),
        lambda samples: tiff_file(~samples, 0),
        ppm_of_16_bits,
    ],
    ids=["png", "tiff", "big-endian tiff", "inverted tiff", "pgm"],
)
def test_gray_of_16_bits(write: Callable[[np.ndarray], bytes]) -> None:
    samples = samples_of_16_bits(9, 11)
    np.testing.assert_array_equal(decoded(write(samples)), to_8_bits(samples))


@pytest.mark.parametrize(
    "write",
    [
        lambda samples: png_file(samples, 16, 2),
        lambda samples: tiff_file(samples, 2),
        lambda samples: tiff_file(samples, 2, order=">"),
        ppm_of_16_bits,
    ],
    ids=["png", "tiff", "big-endian tiff", "ppm"],
)
def test_rgb_of_16_bits(write: Callable[[np.ndarray], bytes]) -> None:
    samples = samples_of_16_bits(9, 11, 3)
    np.testing.assert_array_equal(decoded(write(samples)), luma_of(to_8_bits(samples)))


def test_tiff_of_16_bits_with_premultiplied_alpha_or_padding() -> None:
    samples = samples_of_16_bits(9, 11, 4)
    samples[..., :3] = samples[..., :3].astype(np.int64) * samples[..., 3:] // 65535
    rgb, alpha = samples[..., :3] / 257, samples[..., 3:] / 257
    expected = luma_of(np.rint(rgb + 255 - alpha))
    # Pillow drops the low bytes and divides by alpha, which rounds twice
    assert np.abs(decoded(tiff_file(samples, 2, extra=1)).astype(int) - expected).max() <= 3
    padded = decoded(tiff_file(samples, 2, extra=0))
    assert np.abs(padded.astype(int) - luma_of(rgb)).max() <= 1


# TIFF


def test_tiff_premultiplied_alpha() -> None:
    alpha = NOISE[..., 3:]
    colour = (NOISE[..., :3].astype(int) * alpha // 255).astype(np.uint8)
    expected = luma_of(colour + (255 - alpha))
    for samples in (np.dstack([colour, alpha]), np.dstack([colour[..., 0], alpha])):
        rgb = samples.shape[2] == 4
        expected = (
            luma_of(colour + (255 - alpha)) if rgb else colour[..., 0] + (255 - alpha[..., 0])
        )
        luma = decoded(tiff_file(samples, 2 if rgb else 1, extra=1))
        assert np.abs(luma.astype(int) - expected).max() <= 1


def test_tiff_cmyk() -> None:
    ink, black = NOISE[..., :3].astype(float), NOISE[..., 3:].astype(float)
    expected = luma_of(np.rint((255 - ink) * (255 - black) / 255))
    assert np.abs(decoded(tiff_file(NOISE, 5)).astype(int) - expected).max() <= 1


def test_tiff_in_planes_or_inverted() -> None:
    rgb = NOISE[..., :3]
    np.testing.assert_array_equal(decoded(tiff_file(rgb, 2, planar=2)), luma_of(rgb))
    np.testing.assert_array_equal(decoded(tiff_file(NOISE[..., 0], 0)), 255 - NOISE[..., 0])


@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_of_16_bits_in_compressed_planes(channels: int) -> None:
    samples = samples_of_16_bits(5, 6, channels)
    raw = tiff_file(samples, 2, planar=2, **({"extra": 2} if channels == 4 else {}))
    size = samples.nbytes // channels
    start = len(raw) - channels * size
    starts = range(start, len(raw), size)
    planes = [zlib.compress(raw[at : at + size]) for at in starts]
    sizes = [len(plane) for plane in planes]
    new = [start + sum(sizes[:index]) for index in range(channels)]
    data = raw[:start] + b"".join(planes)
    many = f"<{channels}I"
    for old, value in (
        (struct.pack("<HHII", 259, 4, 1, 1), struct.pack("<HHII", 259, 4, 1, 8)),
        (struct.pack(many, *starts), struct.pack(many, *new)),
        (struct.pack(many, *[size] * channels), struct.pack(many, *sizes)),
    ):
        assert data.count(old) == 1
        data = data.replace(old, value)
    # Pillow drops the low bytes.
    expected = samples[..., :3] >> 8
    if channels == 4:
        expected = on_white(expected, samples[..., 3] >> 8)
    np.testing.assert_array_equal(decoded(data), luma_of(expected))
    np.testing.assert_array_equal(from_pil(Image.open(io.BytesIO(data))), decoded(data))


@pytest.mark.parametrize("mode", ["RGB", "P", "1"])
def test_bmp_without_its_file_header(mode: str) -> None:
    data = saved(Image.fromarray(RGB).convert(mode), "BMP")
    np.testing.assert_array_equal(decoded(data[14:]), decoded(data))


def test_tiff_of_12_bits() -> None:
    samples = RNG.integers(0, 4096, (5, 8), np.uint16)
    samples[0, :4] = 0, 4095, 8, 9  # 8 is below half a step, 9 above
    high, low = samples[:, ::2], samples[:, 1::2]
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], 2).astype(np.uint8)
    data = tiff_file(packed.reshape(5, 12), 1, bits=12)
    data = data.replace(struct.pack("<HHII", 256, 4, 1, 12), struct.pack("<HHII", 256, 4, 1, 8))
    np.testing.assert_array_equal(decoded(data), np.floor(samples.astype(int) * 255 / 4095 + 0.5))
    np.testing.assert_array_equal(from_pil(Image.open(io.BytesIO(data))), decoded(data))


def test_inverted_tiff_of_16_bits_as_pil_image() -> None:
    data = tiff_file(samples_of_16_bits(5, 6), 0)
    np.testing.assert_array_equal(from_pil(Image.open(io.BytesIO(data))), decoded(data))


def test_gray_tiff_of_32_bits() -> None:
    samples = RNG.integers(0, 2**32, (5, 6), np.uint32)
    samples[0, :2] = 0, 2**32 - 1
    assert np.abs(decoded(tiff_file(samples, 1)) - samples / 16843009).max() < 0.51


def test_lab_tiff_and_pil_image() -> None:
    lab = np.array([[[255, 0, 0], [0, 0, 0], [137, 0, 0], [137, 80, 67], [225, 178, 75]]], np.uint8)
    # white, black, gray, and nearly pure red and green of sRGB
    expected = [255, 0, 127, 76, 150]
    data = tiff_file(lab, 8)
    assert np.abs(decoded(data)[0].astype(int) - expected).max() <= 12
    assert np.abs(decoded(data)[0, :3].astype(int) - expected[:3]).max() <= 2
    np.testing.assert_array_equal(from_pil(Image.open(io.BytesIO(data))), decoded(data))


def big_endian_big_tiff(samples: np.ndarray, photometric: int) -> bytes:
    """One uncompressed strip; of the byte order MM, with offsets of 64 bits."""
    height, width = samples.shape[:2]
    count = samples.shape[2] if samples.ndim == 3 else 1
    bits = [samples.itemsize * 8] * count
    data = samples.astype(samples.dtype.newbyteorder(">")).tobytes()
    fields = {256: width, 257: height, 258: 0, 259: 1, 262: photometric, 273: 0, 274: 1}
    fields |= {277: count, 278: height, 279: len(data)}
    fields[273] = 16 + 8 + 20 * len(fields) + 8
    head = struct.pack(">2sHHHQQ", b"MM", 43, 8, 0, 16, len(fields))
    for tag, value in fields.items():
        kind, packed = 4, struct.pack(">II", value, 0)
        if tag == 258:
            kind, packed = 3, struct.pack(f">{count}H", *bits).ljust(8, b"\0")
        head += struct.pack(">HHQ", tag, kind, count if tag == 258 else 1) + packed
    return head + bytes(8) + data


@pytest.mark.parametrize("samples", [RGB, luma_of(RGB), samples_of_16_bits(9, 11, 3)])
def test_big_endian_big_tiff(samples: np.ndarray) -> None:
    kind = 1 if samples.ndim == 2 else 2
    np.testing.assert_array_equal(
        decoded(big_endian_big_tiff(samples, kind)), decoded(tiff_file(samples, kind))
    )


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tiff_file(np.dstack([NOISE, NOISE[..., 0]]), 5, extra=2), "CMYK, 5 x 8 bits"),
        (tiff_file(samples_of_16_bits(5, 6, 2), 1, extra=2), "gray, 2 x 16 bits"),
        (tiff_file(samples_of_16_bits(5, 6, 3), 8), "CIELAB, 3 x 16 bits"),
        (saved(Image.new("I", (6, 5)), "TIFF"), "gray, 1 x 32 bits with a sign"),
        (
            saved(np.ones((5, 6), np.float32), "TIFF"),
            "gray, 1 x 32 bits of floating point",
        ),
        (  # 1 sample a pixel, of three
            tiff_file(samples_of_16_bits(5, 6, 3), 2).replace(
                struct.pack("<HHII", 277, 4, 1, 3), struct.pack("<HHII", 277, 4, 1, 1)
            ),
            "RGB, 3 x 16 bits",
        ),
        (
            tiff_file(samples_of_16_bits(5, 6, 3), 2, planar=2),
            "RGB, 3 x 16 bits in separate planes",
        ),
        (
            tiff_file(np.zeros((5, 6, 3), np.uint32), 2, planar=2),
            "RGB, 3 x 32 bits in separate planes",
        ),
    ],
)
def test_tiff_that_no_decoder_reads_right_is_refused_with_a_remedy(data: bytes, what: str) -> None:
    remedy = "save it as RGB with 8 bits a sample"
    assert reason(data) == f"cannot be read as TIFF: {what}; {remedy}"


def test_tiff_that_is_damaged_or_of_another_compression_is_no_other_kind_of_tiff() -> None:
    data = tiff_file(RGB, 2)

    def changed(tag: int, value: int, to: int) -> bytes:
        old = struct.pack("<HHII", tag, 4, 1, value)
        assert data.count(old) == 1
        return data.replace(old, old[:8] + struct.pack("<I", to))

    assert reason(changed(259, 1, 34712)) == (
        "cannot be read as TIFF: compression 34712; save it as PNG"
    )
    assert reason(changed(259, 1, 5)).endswith(
        "its data is corrupt, or compressed in an unknown way; save it anew as PNG"
    )
    assert "corrupt data (" in reason(changed(277, 3, 2**31))


# What Pillow says, with a remedy


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (
            FILES["BMP"][:28] + b"\2\0" + FILES["BMP"][30:],
            "Unsupported BMP pixel depth (2); save it as PNG",
        ),
        (
            FILES["GIF"][:1500],
            "it is truncated, the file ends after 1500 bytes; get a whole copy of it",
        ),
        (
            FILES["GIF"][:99],
            "corrupt data (no more images in GIF file); get a whole copy of it, or save it anew as "
            "PNG",
        ),
        (FILES["PNG"][:33] + FILES["PNG"][-12:], "corrupt data, it has no IDAT chunk"),
        # Of another size, to which no limit would be applied.
        (FILES["PNG"][:33] + FILES["PNG"][8:], "corrupt data, it has two IHDR chunks"),
    ],
)
def test_what_pillow_refuses_has_a_remedy(data: bytes, why: str) -> None:
    assert reason(data) == f"cannot be read as {File('', data).header.format}: {why}"


# PNM


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P1\n# drawn by hand\n3 2\n1 0 1\n011", [[0, 255, 0], [255, 0, 0]]),
        (b"P1 2 1\n# 01\n1 0\n", [[0, 255]]),
        (b"P2 3 1 9\n0 4 9", [[0, 113, 255]]),
        (b"P2\n2 1 # size\n65535\n128 129", [[0, 1]]),
        (b"P2 2 1 100 250 7", [[255, 18]]),
        (b"P3 1 2 1\n1 1 1\n1 0 0", [[255], [76]]),
        (b"P4\n10 2\n\xa0\x40\x00\x80", [[0, 255, 0] + [255] * 6 + [0], [255] * 8 + [0, 255]]),
        (b"P5 2 1 7\n\x07\x03", [[255, 109]]),
        (b"P5 2 1 1000\n\x03\xe8\x01\xf4", [[255, 128]]),
        (b"P6 1 1 255 \x00\xff\x00", [[150]]),
    ],
)
def test_pnm(data: bytes, expected: list[list[int]]) -> None:
    assert decoded(data).tolist() == expected


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"P5 3 1 255\n\x01\x02", "truncated"),
        (b"P4 9 2\n\x01\x02\x03", "truncated"),
        (b"P2 3 1 255 1 2", "truncated"),
        (b"P1 3 1 10", "truncated"),
        (b"P2 3 1 255 1 x 3", "unmatched"),
        (b"P5 3", "header"),
        (b"P5 3 1 0 \x01\x02\x03", "maxval"),
        (b"P5 0 1 255 ", "no pixels"),
    ],
)
def test_pnm_that_is_damaged(data: bytes, why: str) -> None:
    assert why in reason(data)


# Orientation


@pytest.mark.parametrize(
    "write",
    [
        lambda rgb, orientation: with_orientation("JPEG", rgb, orientation),
        lambda rgb, orientation: with_orientation("PNG", rgb, orientation),
        lambda rgb, orientation: with_orientation("WEBP", rgb, orientation),
        lambda rgb, orientation: with_orientation("AVIF", rgb, orientation),
        lambda rgb, orientation: with_orientation("TIFF", rgb, orientation),
        lambda rgb, orientation: tiff_file(rgb.astype(np.uint16) * 257, 2, orientation=orientation),
        lambda rgb, orientation: tiff_file(
            luma_of(rgb).astype(np.uint16) * 257, 1, orientation=orientation
        ),
    ],
    ids=["jpeg", "png", "webp", "avif", "tiff", "tiff of 16 bits", "gray tiff of 16 bits"],
)
def test_orientation_is_applied_once(write: Callable[[np.ndarray, int], bytes]) -> None:
    stored = RGB[:16, :24]
    upright = {
        1: lambda image: image,
        2: np.fliplr,
        3: lambda image: np.rot90(image, 2),
        4: np.flipud,
        5: lambda image: np.rot90(np.fliplr(image)),
        6: lambda image: np.rot90(image, -1),
        7: lambda image: np.rot90(np.flipud(image)),
        8: np.rot90,
    }
    for orientation, turn in upright.items():
        luma, expected = decoded(write(stored, orientation)), turn(luma_of(stored))
        assert luma.shape == expected.shape, orientation
        assert np.abs(luma.astype(int) - expected).mean() < 3, orientation


def test_png_of_16_bits_with_orientation() -> None:
    samples = samples_of_16_bits(4, 6, 3)
    exif = png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    expected = np.rot90(luma_of(to_8_bits(samples)), -1)
    np.testing.assert_array_equal(decoded(png_file(samples, 16, 2, exif)), expected)


def test_broken_exif_is_ignored() -> None:
    data = saved(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert decoded(data).shape == (30, 40)


# What is no image, or not all of one


@pytest.mark.parametrize("name", FILES)
def test_truncated_anywhere(name: str) -> None:
    data = FILES[name]
    decoded(data)
    last = len(data) - (13 if "PNG" in name else 4)  # a PNG is read without its end mark
    for length in {*range(1, 20), *range(40, last, 17), last}:
        assert reason(data[:length]), length


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "progressive JPEG", "16-bit PNG"])
def test_truncated_says_so(name: str) -> None:
    half = len(FILES[name]) // 2
    assert reason(FILES[name][:half]).endswith(
        f"it is truncated, the file ends after {half} bytes; get a whole copy of it"
    )


def test_end_of_a_thumbnail_is_not_the_end_of_the_jpeg() -> None:
    thumbnail = saved(RGB[:8, :8], "JPEG")
    exif = b"Exif\0\0" + thumbnail
    data = FILES["JPEG"]
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert decoded(data).shape == (30, 40)
    np.testing.assert_array_equal(decoded(data[:-2]), decoded(data))
    assert "truncated" in reason(data[:-4])


JPEGS = [
    saved(RGB, "JPEG", **options)
    for options in (
        {},
        {"quality": 97, "subsampling": 0},
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 1},
        {"optimize": True},
    )
] + [saved(luma_of(RGB), "JPEG"), saved(Image.fromarray(RGB).convert("CMYK"), "JPEG")]


@pytest.mark.parametrize("data", JPEGS)
def test_a_whole_jpeg_without_its_end_mark_is_read_and_a_cut_one_is_not(data: bytes) -> None:
    for whole in (data[:-1], data[:-2]):
        np.testing.assert_array_equal(decoded(whole), decoded(data))
    for length in range(20, len(data) - 2):
        assert "truncated" in reason(data[:length]), length


def segments(data: bytes) -> list[int]:
    """Where the segments before the pixels begin."""
    starts, at = [], 2
    while data[at + 1] != 0xDA:
        starts.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return [*starts, at]


@pytest.mark.parametrize(
    "stray",
    [b"\0", b"\n", b"\0\0\1\2\3", b"\xff\0", b"\xff\xff", b"\xff\xd0", b"\xff\x01", b"x" * 999],
)
@pytest.mark.parametrize("data", [JPEGS[0], JPEGS[2], JPEGS[-1]], ids=["", "progressive", "CMYK"])
def test_stray_bytes_between_segments_of_a_jpeg_are_passed_over(data: bytes, stray: bytes) -> None:
    places = segments(data)[1:]  # a JPEG is known by the mark of its first segment
    assert len(places) >= 3
    for at in places:
        strayed = data[:at] + stray + data[at:]
        np.testing.assert_array_equal(decoded(strayed), decoded(data))
        found = File("", strayed).header
        assert found.plain == (stray == b"\xff\xff" and data is not JPEGS[-1])
    everywhere = data[: places[0]] + b"".join(
        stray + data[start:stop]
        for start, stop in zip(places, [*places[1:], len(data)], strict=True)
    )
    np.testing.assert_array_equal(decoded(everywhere), decoded(data))
    assert "truncated" in reason(everywhere[:-9])


def test_a_progressive_jpeg_without_its_last_scan_is_cut() -> None:
    data = JPEGS[2]
    last = data.rindex(b"\xff\xda")
    table = data.rindex(b"\xff\xc4", 0, last)
    for at in {last, table}:
        assert "truncated" in reason(data[:at])
        decoded(data[:at] + b"\xff\xd9")  # which its own end mark says


def test_bytes_after_the_end_are_ignored() -> None:
    np.testing.assert_array_equal(decoded(FILES["JPEG"] + bytes(99)), decoded(FILES["JPEG"]))
    np.testing.assert_array_equal(decoded(FILES["PNG"] + b"junk"), decoded(FILES["PNG"]))


def flipped(chunk: bytes) -> bytes:
    """With a wrong checksum."""
    return chunk[:-1] + bytes((chunk[-1] ^ 1,))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"no profile"),
        png_chunk(b"iCCP", b"name\0\0" + b"no deflated data"),
        png_chunk(b"iCCP", b"name\0\1" + b"another method"),
        png_chunk(b"iCCP", b"large\0\0" + zlib.compress(bytes(3 * 2**20))),
        png_chunk(b"pHYs", b"short"),
        png_chunk(b"gAMA", b"\0\1"),
        png_chunk(b"cHRM", bytes(31)),
        png_chunk(b"sRGB", b""),
        png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(2 * 2**20))),
        png_chunk(b"zTXt", b"workflow\0\7"),
        png_chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(2 * 2**20))),
        png_chunk(b"tEXt", b"workflow\0" + bytes(2**21)) * 40,
        png_chunk(b"acTL", b"short"),
        png_chunk(b"fcTL", bytes(26)),
        png_chunk(b"fdAT", b""),
        png_chunk(b"tRNS", b"\0"),
        *(
            flipped(png_chunk(kind, b"any"))
            for kind in (b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"gAMA", b"tIME", b"eXIf", b"juNk")
        ),
    ],
    ids=lambda chunk: f"{chunk[4:8].decode()} {len(chunk)} {chunk[-1]}",
)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_with_broken_or_large_chunks_of_no_picture_is_the_same(
    chunk: bytes, bits: int
) -> None:
    if bits == 8:
        samples, colour = np.arange(33 * 57, dtype=np.uint8).reshape(33, 57, 1), 0
    else:
        samples, colour = samples_of_16_bits(9, 11, 3), 2
    plain, broken = png_file(samples, bits, colour), png_file(samples, bits, colour, chunk)
    assert len(broken) == len(plain) + len(chunk)
    np.testing.assert_array_equal(decoded(broken), decoded(plain))
    behind = plain[:-12] + chunk + plain[-12:]
    np.testing.assert_array_equal(decoded(behind), decoded(plain))
    assert File("", broken).header.orientation == 1


def test_broken_critical_chunks_and_transparency_of_a_png_are_refused() -> None:
    samples = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    palette = bytes(range(256)) * 3
    for bad in (flipped(png_chunk(b"PLTE", palette)), flipped(png_chunk(b"NEWs", b""))):
        assert "checksum of its" in reason(
            png_file(samples, 8, 3, png_chunk(b"PLTE", palette), bad)
        )
    bad = flipped(png_chunk(b"tRNS", b"\0"))
    assert "tRNS" in reason(png_file(samples, 8, 3, png_chunk(b"PLTE", palette), bad))


@pytest.mark.parametrize("name", ["PNG", "palette PNG", "16-bit PNG"])
def test_a_png_without_a_whole_end_mark_is_read_and_a_cut_one_is_not(name: str) -> None:
    data = FILES[name]
    for whole in (
        *(data[:-length] for length in range(1, 13)),
        flipped(data),
        data[:-12] + png_chunk(b"tEXt", b"a" * 99)[:50],
    ):
        np.testing.assert_array_equal(decoded(whole), decoded(data))
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    for count in (0, 1, length // 2, length - 30):
        first = data[: start - 8] + png_chunk(b"IDAT", data[start : start + count])
        # By OpenCV 16 bits are read, and it does not say why not.
        assert ("corrupt" if "16" in name else "truncated") in reason(first), count
        assert reason(first + data[-12:]) == reason(first).replace(
            f"after {len(first)}", f"after {len(first) + 12}"
        )
    assert "truncated" in reason(data[: start - 8] + png_chunk(b"tEXt", b"a" * 99)[:50])


@pytest.mark.parametrize("length", [16, 256, 300])
def test_alphas_of_a_palette_may_be_too_many(length: int) -> None:
    index = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    palette, alphas = png_chunk(b"PLTE", bytes(range(48))), bytes(range(0, 160, 10)).ljust(length)
    plain = png_file(index, 8, 3, palette, png_chunk(b"tRNS", alphas[:16]))
    many = png_file(index, 8, 3, palette, png_chunk(b"tRNS", alphas))
    np.testing.assert_array_equal(decoded(many), decoded(plain))


def test_a_png_of_very_many_chunks_is_read_in_a_second() -> None:
    plain = FILES["PNG"]
    many = (png_chunk(b"IDAT", b"") + png_chunk(b"juNk", b"")) * 50_000
    at = plain.index(b"IDAT") - 4
    start = time.perf_counter()
    np.testing.assert_array_equal(decoded(plain[:at] + many + plain[at:]), decoded(plain))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("at", "chunk"), [(16, "IHDR"), (len(FILES["PNG"]) // 2, "IDAT")])
def test_flipped_bit_in_a_png(at: int, chunk: str) -> None:
    data = bytearray(FILES["PNG"])
    data[at] ^= 1
    assert reason(bytes(data)) == (
        f"cannot be read as PNG: corrupt data, the checksum of its {chunk} chunk is wrong"
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\0" * 100, "is not an image this program reads (JPEG, PNG, WebP"),
        (b"just some text", "is not an image"),
        (b"<!DOCTYPE html><html>", "seems to be an HTML page"),
        (b"PK\x03\x04rest", "seems to be a ZIP archive"),
        (b"%PDF-1.7", "seems to be PDF"),
        (b"<!---->" * 140, "is not an image"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="x">', "seems to be SVG"),
        (b"Pf 2 2 -1.0\n" + bytes(16), "seems to be PFM"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "seems to be an MP4"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, why: str) -> None:
    assert reason(data).startswith(why)


def test_random_bytes() -> None:
    for length in (1, 2, 3, 10, 100, 10_000):
        reason(RNG.bytes(length))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "raw TIFF"])
def test_size_is_refused_before_decoding(form: str) -> None:
    size = "16383 x 16383" if form == "WEBP" else "60000 x 50000"
    why = reason(bomb(form), 2**27)
    assert why.startswith(f"is {size} = ")
    assert "limit of 134217728; raise max_pixels" in why


def test_limit_is_inclusive() -> None:
    assert decode(File("page", FILES["AVIF"]), 1200).shape == (30, 40)
    assert "40 x 30 = 1200 pixels" in reason(FILES["AVIF"], 1199)


@pytest.mark.parametrize("name", FILES)
def test_mutations_give_an_image_or_a_decode_error(name: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(150):
        data = bytearray(FILES[name])
        for _ in range(rng.integers(1, 5)):
            at, kind = int(rng.integers(len(data))), rng.integers(4)
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                data[at] = rng.integers(256)
            elif kind == 2:
                del data[at : at + int(rng.integers(1, 20))]
            else:
                data[at:at] = rng.bytes(int(rng.integers(1, 8)))
        mutated = with_checksums(bytes(data)) if data[:4] == b"\x89PNG" else bytes(data)
        try:
            decoded(mutated)
        except DecodeError:
            continue


# Pillow images


@pytest.mark.parametrize(
    ("mode", "tolerance"), [("L", 0), ("RGB", 0), ("RGBA", 0), ("LA", 0), ("RGBa", 1), ("HSV", 4)]
)
def test_from_pil(mode: str, tolerance: int) -> None:
    image = Image.fromarray(NOISE if "A" in mode.upper() else RGB).convert(mode)
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    luma = from_pil(image)
    expected = luma_of(np.asarray(flat)[..., :3])
    assert np.abs(luma.astype(int) - expected).max() <= tolerance + (mode in ("RGBA", "LA"))


def test_from_pil_of_16_bits() -> None:
    samples = samples_of_16_bits(5, 6)
    np.testing.assert_array_equal(from_pil(Image.fromarray(samples)), to_8_bits(samples))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_from_pil_refuses_what_has_no_white(mode: str) -> None:
    with pytest.raises(InputError, match=f"mode {mode} "):
        from_pil(Image.new(mode, (3, 2)))


def test_from_pil_applies_orientation_of_an_opened_file() -> None:
    data = with_orientation("PNG", RGB, 6)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(from_pil(image), np.rot90(luma_of(RGB), -1))
    with Image.open(io.BytesIO(with_orientation("TIFF", RGB, 6))) as image:
        np.testing.assert_array_equal(from_pil(image), np.rot90(luma_of(RGB), -1))


# Encoding

SHAPES = [(1, 1), (1, 5000), (5000, 1), (2, 3), (301, 517)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["png", "webp"])
def test_lossless_round_trip(form: Any, shape: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, shape, np.uint8)
    data = encode(image, Encoding(form))
    np.testing.assert_array_equal(decoded(data), image)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("L")), image)


def test_png_is_gray_and_valid_for_every_reader() -> None:
    image = RNG.integers(0, 256, (301, 517), np.uint8)
    data = encode(image, Encoding("png"))
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "L"
        opened.verify()
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, image)


def test_png_compresses() -> None:
    page = np.full((1401, 992), 255, np.uint8)
    page[::20] = RNG.integers(0, 256, 992, np.uint8)
    assert len(encode(page, Encoding("png"))) < page.size / 10


def test_strided_image() -> None:
    image = RNG.integers(0, 256, (20, 60), np.uint8)[:, 10:40]
    for form in ("png", "webp"):
        np.testing.assert_array_equal(decoded(encode(image, Encoding(form))), image)


def test_quality() -> None:
    image = luma_of(RGB)
    for form in ("jpg", "webp"):
        coarse, fine = (encode(image, Encoding(form, quality)) for quality in (10, 95))
        assert len(coarse) < len(fine)
        assert np.abs(decoded(fine).astype(int) - image).mean() < 3
    assert encode(image, Encoding("jpg")) == encode(image, Encoding("jpg", 95))


@pytest.mark.parametrize(("form", "limit"), [("webp", 16383), ("jpg", 65500)])
def test_sides_the_format_cannot_hold(form: Any, limit: int) -> None:
    strip = np.zeros((1, limit), np.uint8)
    assert decoded(encode(strip, Encoding(form))).shape == strip.shape
    for shape in ((1, limit + 1), (limit + 1, 1)):
        with pytest.raises(EncodeError, match=rf"at most {limit} a side; use png"):
            encode(np.zeros(shape, np.uint8), Encoding(form))


def test_without_isal_only_png_fails_and_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = luma_of(RGB)
    png, jpeg = encode(page, Encoding("png")), encode(page, Encoding("jpg"))
    expected = decoded(jpeg)
    monkeypatch.setitem(sys.modules, "isal", None)
    np.testing.assert_array_equal(decoded(jpeg), expected)
    for step in (
        lambda: decode(File("page", png), MAX_PIXELS),
        lambda: encode(page, Encoding("png")),
    ):
        with pytest.raises(BackendUnavailable, match=r"isal, which .*To fix: pip install isal"):
            step()


def test_a_jpeg_of_many_segments_takes_little_time() -> None:
    segment = b"\xff\xe1" + struct.pack(">H", 16) + b"Exif\0\0" + bytes(8)
    start = time.perf_counter()
    found = File("page", b"\xff\xd8" + 400_000 * segment).header
    assert time.perf_counter() - start < 4  # 0.3 s; joined one by one they took 10
    assert "truncated" in found.problem
