"""What is fuzzed. A target takes any bytes and returns; whatever it raises is a finding."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from unittest import mock

import numpy as np

from sketchify_rt.codec import cpu, exif, formats, header, png_chunks
from sketchify_rt.codec.header import File
from sketchify_rt.errors import DecodeError
from sketchify_rt.kernels import native, reference

MAX_PIXELS = 2**16


def codec(data: bytes) -> None:
    """Bytes become luma or a DecodeError, the same each time."""
    _decode(data)
    if formats.identify(data) == "PNG":
        _decode(with_checksums(data))  # without them nearly all is refused at once


def _decode(data: bytes) -> None:
    try:
        gray = cpu.decode(File("fuzz", data), MAX_PIXELS)
    except DecodeError as error:
        assert error.source == "fuzz"
        assert error.reason
        return
    assert gray.dtype == np.uint8
    assert gray.ndim == 2
    assert 0 < gray.size <= MAX_PIXELS
    assert gray.flags.c_contiguous
    # What was not written would differ: it is what was in that memory before.
    np.testing.assert_array_equal(gray, cpu.decode(File("fuzz", data), MAX_PIXELS))


def with_checksums(data: bytes) -> bytes:
    """The PNG with the checksum of each chunk made right."""
    mended, at = bytearray(data), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def walk(data: bytes) -> None:
    """A header is described, or what is wrong with it; a PNG is refused with a ValueError."""
    found = header.probe(data)
    assert found.format == formats.identify(data)
    assert found.pixels >= 0
    assert found.orientation in range(1, 9)
    assert exif.read(data).orientation in range(1, 9)
    if found.format == "PNG":
        try:
            png_chunks.picture_parts(data)
        except ValueError as error:
            assert str(error)


_SHAPE = struct.Struct("<BHHBBBBB")


def kernels(data: bytes) -> None:
    """Every instruction set writes what the reference writes, and nothing beside it.

    data: which kernel, height, width, threads, strength, offset and step of the views, 9 bytes;
    then the pixels, repeated as often as needed. Source and result of the first two kernels are
    those of the hint.
    """
    which, height, width, threads, strength, offset, step, flip = _SHAPE.unpack(
        data[: _SHAPE.size].ljust(_SHAPE.size, b"\0")
    )
    height, width = 1 + height % 300, 1 + width % 1100
    height = min(height, max(1, MAX_PIXELS // width))
    offset, step, threads = offset % 70, 1 + step % 3, 1 + threads % 8
    pixels = np.frombuffer(data[_SHAPE.size :] or b"\x80", np.uint8)
    name = ("binarize", "dodge", "compose")[which % 3]
    dtype = np.dtype(np.float32 if name == "compose" else np.uint8)
    whole = np.resize(pixels, ((height * step + 1), (width + offset) * dtype.itemsize))
    source = whole.view(dtype)[: height * step : step, offset:]
    if flip & 1:
        source = source[::-1]
    strengths = () if name == "binarize" else (strength / 63.75,)
    expected = getattr(reference, name)(source, *strengths)
    for isa in native.isas():
        page = np.full((height * step + 1, width + 2 * offset + 1), 77, np.uint8)
        out = page[1 : 1 + height * step : step, offset : offset + width]
        if flip & 2:
            out = out[::-1]
        with mock.patch.object(native, "isa", return_value=isa):
            getattr(native, name)(source, *strengths, threads=threads, out=out)
            hint = native.hint(expected, source, threads=threads) if name != "compose" else None
        np.testing.assert_array_equal(out, expected)
        out[...] = 77
        assert (page == 77).all(), f"{name} of {isa} wrote beside its view"
        if hint is not None:
            np.testing.assert_array_equal(hint, reference.hint(expected, source))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": codec,
    "containers": walk,
    "kernels": kernels,
}
CORPUS = {"codec": "files", "containers": "files", "kernels": "kernels"}
"""The folder of `corpus/` that a target begins with."""
