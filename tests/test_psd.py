"""The flattened picture of Photoshop's files."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from pictures import (
    NOISE,
    RGB,
    exif_turned,
    luma_of,
    on_white,
    psd_file,
    samples_of_16_bits,
    to_8_bits,
)
from PIL import Image, ImageCms

from sketchify_rt.codec import cpu, extras
from sketchify_rt.codec.header import File, probe
from sketchify_rt.errors import DecodeError
from sketchify_rt.options import Encoding

BITMAP, GRAY, INDEXED, COLOUR, CMYK, MULTICHANNEL, DUOTONE, LAB = 0, 1, 2, 3, 4, 7, 8, 9
LUMA = luma_of(RGB)
PLANES = [*np.moveaxis(RGB, 2, 0)]
ALPHA = NOISE[..., 3]


def decoded(data: bytes) -> np.ndarray:
    return cpu.decode(File("page", data), 10**6)


def reason(data: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        decoded(data)
    return caught.value.reason


def alpha_of(data: bytes) -> np.ndarray | None:
    return cpu.decode_alpha(File("page", data))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("pack", [False, True])
def test_kinds_of_colour(pack: bool, version: int) -> None:
    options: dict[str, Any] = {"pack": pack, "version": version}
    rgb = psd_file(PLANES, COLOUR, **options)
    np.testing.assert_array_equal(decoded(rgb), LUMA)
    for mode in (GRAY, DUOTONE):
        np.testing.assert_array_equal(decoded(psd_file([LUMA], mode, **options)), LUMA)
    if version == 1:  # Pillow knows no PSB
        with Image.open(io.BytesIO(rgb)) as image:
            np.testing.assert_array_equal(np.asarray(image), RGB)

    black = (LUMA < 99).astype(np.uint8)[:, :13]  # a row ends within a byte
    bitmap = psd_file([black], BITMAP, bits=1, **options)
    np.testing.assert_array_equal(decoded(bitmap), np.where(black, 0, 255))

    indexed = Image.fromarray(RGB).quantize(256)
    colours = np.zeros((256, 3), np.uint8)
    stored = np.asarray(indexed.getpalette(), np.uint8).reshape(-1, 3)
    colours[: len(stored)] = stored
    index = np.asarray(indexed)
    data = psd_file([index], INDEXED, palette=colours.T.tobytes(), **options)
    np.testing.assert_array_equal(decoded(data), luma_of(colours[index]))


@pytest.mark.parametrize("bits", [8, 16])
def test_inks(bits: int) -> None:
    planes = NOISE if bits == 8 else samples_of_16_bits(9, 11, 4)
    white = 2**bits - 1
    light = planes.astype(np.int64)
    colours = light[..., :3] * light[..., 3:] / white * 255 / white
    data = psd_file([*np.moveaxis(planes, 2, 0)], CMYK, bits=bits)
    assert np.abs(decoded(data).astype(int) - luma_of(np.rint(colours))).max() <= 1


@pytest.mark.parametrize("pack", [False, True])
def test_16_bits(pack: bool) -> None:
    samples = samples_of_16_bits(9, 11, 3)
    planes = [*np.moveaxis(samples, 2, 0)]
    colour = psd_file(planes, COLOUR, bits=16, pack=pack)
    np.testing.assert_array_equal(decoded(colour), luma_of(to_8_bits(samples)))
    gray = psd_file(planes[:1], GRAY, bits=16, pack=pack)
    np.testing.assert_array_equal(decoded(gray), to_8_bits(samples[..., 0]))


# Transparency


def test_a_picture_that_is_composited_on_white_is_so_once() -> None:
    matted = on_white(NOISE[..., :3], ALPHA)
    data = psd_file([*np.moveaxis(matted, 2, 0), ALPHA], COLOUR, layers=-2)
    np.testing.assert_array_equal(decoded(data), luma_of(matted))
    found = alpha_of(data)
    assert found is not None
    np.testing.assert_array_equal(found, ALPHA)


def test_one_that_is_not_is_composited() -> None:
    data = psd_file([*np.moveaxis(NOISE, 2, 0)], COLOUR, layers=-1)
    np.testing.assert_array_equal(decoded(data), luma_of(on_white(NOISE[..., :3], ALPHA)))
    gray = psd_file([NOISE[..., 0], ALPHA], GRAY, layers=-1)
    np.testing.assert_array_equal(decoded(gray), on_white(NOISE[..., 0], ALPHA))
    found = alpha_of(gray)
    assert found is not None
    np.testing.assert_array_equal(found, ALPHA)


@pytest.mark.parametrize("layers", [None, 0, 3])
def test_a_stored_selection_is_no_transparency(layers: int | None) -> None:
    data = psd_file([*PLANES, ALPHA], COLOUR, layers=layers)
    np.testing.assert_array_equal(decoded(data), LUMA)
    assert alpha_of(data) is None


@pytest.mark.parametrize("version", [1, 2])
def test_transparency_of_16_bits(version: int) -> None:
    samples = samples_of_16_bits(9, 11, 2)
    planes = [*np.moveaxis(samples, 2, 0)]
    data = psd_file(planes, GRAY, bits=16, layers=-1, version=version)
    size = 4 * version
    # Photoshop tells of layers of 16 bits in a block behind an empty section.
    block = bytes(size) + bytes(4) + b"8BIMLr16" + (2).to_bytes(size, "big") + b"\xff\xff"
    old = (2).to_bytes(size, "big") + b"\xff\xff"
    old = len(old).to_bytes(size, "big") + old
    assert data.count(old) == 1
    moved = data.replace(old, len(block).to_bytes(size, "big") + block)
    expected = on_white(to_8_bits(samples[..., 0]), to_8_bits(samples[..., 1]))
    for it in (data, moved):
        np.testing.assert_array_equal(decoded(it), expected)
        found = alpha_of(it)
        assert found is not None
        np.testing.assert_array_equal(found, to_8_bits(samples[..., 1]))


# Metadata


def test_metadata_is_kept_and_does_not_turn() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    resources = {
        1005: struct.pack(">IHHIHH", 300 << 16, 1, 1, 200 << 16, 1, 1),
        1039: profile,
        1058: exif_turned(3, ">")[6:],
        1060: b"<xmp/>",  # of an even length, and the next of an odd one
        2000: b"odd",
        1057: b"\0\0\0\1\1",
    }
    data = psd_file(PLANES, COLOUR, resources=resources)
    np.testing.assert_array_equal(decoded(data), LUMA)
    found = extras.read(File("", data), Encoding(metadata=True)).metadata
    assert found.dpi == (300, 200)
    assert found.profile == profile
    assert probe(data).xmp == b"<xmp/>"


# What is not read


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (psd_file([*np.zeros((3, 4, 5), np.uint32)], COLOUR, bits=32), "32 bits a sample"),
        (psd_file(PLANES, LAB), "Lab colour"),
        (psd_file(PLANES, MULTICHANNEL), "multichannel"),
        (psd_file(PLANES, 5), "mode 5"),
        (
            psd_file(PLANES, COLOUR, resources={1057: b"\0\0\0\1\0"}),
            "it has no flattened picture, only layers",
        ),
        (psd_file([LUMA], GRAY)[:26] + bytes(12) + b"\0\3", "compression 3"),
    ],
)
def test_what_is_not_read_has_a_remedy(data: bytes, why: str) -> None:
    assert reason(data) == f"cannot be read as PSD: {why}; export it as PNG"


def test_what_is_damaged() -> None:
    assert "1 of 3 channels" in reason(psd_file([LUMA], COLOUR))
    assert "palette" in reason(psd_file([LUMA], INDEXED))
    data = psd_file(PLANES, COLOUR, pack=True)
    for length in range(12, len(data) - 1, 211):
        assert "truncated" in reason(data[:length]), length
    rows = len(data) - 90 * 61
    broken = data[:rows] + b"\x7f" + data[rows + 1 :]  # 128 bytes for the 40 of a row
    assert reason(broken).startswith("cannot be read as PSD: corrupt data")
