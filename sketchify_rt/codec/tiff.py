"""The header of a TIFF, and which library reads its pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from sketchify_rt.codec.formats import Header, open_pillow

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Tags of TIFF, and their values
_WIDTH, _LENGTH, _BITS_PER_SAMPLE, _XMP = 256, 257, 258, 700
_PHOTOMETRIC, _GRAY, _RGB = 262, 1, 2
_PHOTOMETRICS = {
    0: "gray",
    _GRAY: "gray",
    _RGB: "RGB",
    3: "a palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
    9: "ICCLAB",
    32845: "LogLuv",
}
_PLANAR_CONFIGURATION, _SEPARATE = 284, 2
_SAMPLES_PER_PIXEL = 277
_EXTRA_SAMPLES, _STRAIGHT_ALPHA = 338, 2
_SAMPLE_FORMAT, _UNSIGNED = 339, 1
_NUMBERS = {2: " with a sign", 3: " of floating point"}
_COMPRESSION, _RAW = 259, 1
_SUBFILE, _NO_PAGE = 254, 0b101  # a reduced copy, a mask


def probe(data: bytes) -> Header:
    """Reads the header of a TIFF; `header.probe` calls it.

    Raises:
        Exception: Whatever broken data makes of it; ValueError with the reason if it is known.
    """
    from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

    # Pillow takes a BigTIFF of the byte order MM for a TIFF, hence the mark of II.
    mark = b"II+\0" + data[4:16] if 43 in data[2:4] else b"II*\0" + data[4:8]
    tags = ImageFileDirectory_v2(mark, data[:2])
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    size = int(tags.get(_WIDTH, 0)), int(tags.get(_LENGTH, 0))
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    if (compression := tags.get(_COMPRESSION, _RAW)) not in COMPRESSION_INFO:
        raise ValueError(f"compression {compression}; save it as PNG")
    # Pillow gives 12 bits as if they were 16.
    deep = len(bits) > 1 and bits[0] > 8
    fault = "" if bits[0] == 12 else _fault_in_pillow(data, deep, tags)
    unknown = fault is not None
    if unknown and not _is_known_to_opencv(bits, tags):
        if fault:
            raise ValueError(f"corrupt data ({fault}); get a whole copy of it, or save it anew")
        planes = " in separate planes" if tags.get(_PLANAR_CONFIGURATION) == _SEPARATE else ""
        kind = _PHOTOMETRICS.get(tags.get(_PHOTOMETRIC, -1), "of unknown colours")
        number = _NUMBERS.get(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0], "")
        raise ValueError(
            f"{kind}, {len(bits)} x {bits[0]} bits{number}{planes}; save it as RGB with 8 bits a "
            "sample"
        )
    xmp = tags.get(_XMP, b"")
    return Header(
        "TIFF",
        *size,
        len(bits),
        bits[0],
        animated=_has_next_page(tags, stream),
        unknown=unknown,
        exif=data,
        xmp=xmp if isinstance(xmp, bytes) else b"",
    )


def _fault_in_pillow(data: bytes, deep: bool, tags: Mapping[int, Any]) -> str | None:
    """Why Pillow does not read a TIFF, or gives it in a mode that has no white.

    Args:
        data: The file.
        deep: Whether it is colour of 16 bits.
        tags: Of its first page.

    Returns:
        "" for pixels that it does not know; what is wrong with a damaged file; None for nothing.
    """
    raw = tags.get(_COMPRESSION, _RAW) == _RAW
    if deep and raw and tags.get(_PLANAR_CONFIGURATION) == _SEPARATE:
        return ""  # which Pillow reads wrong
    try:
        with open_pillow("TIFF", io.BytesIO(data)) as image:
            return "" if image.mode in ("I", "F") else None
    except Exception as error:
        return "" if str(error) == "unknown pixel mode" else str(error) or type(error).__name__


def _has_next_page(tags: ImageFileDirectory_v2, stream: BinaryIO) -> bool:
    """Whether there is a directory behind this one, which is no thumbnail."""
    first = tags.next
    if not first:
        return False
    try:
        stream.seek(first)
        tags.load(stream)
        return not int(tags.get(_SUBFILE, 0)) & _NO_PAGE
    except Exception:  # what is behind the first page may be broken
        return False


def _is_known_to_opencv(bits: Sequence[int], tags: Mapping[int, Any]) -> bool:
    """Whether OpenCV reads a TIFF as it is: gray, RGB, or RGB with straight alpha, of integers."""
    expected = {
        (_GRAY, 1, ()),
        (_RGB, 3, ()),
        (_RGB, 4, (_STRAIGHT_ALPHA,)),
    }
    if tags.get(_SAMPLES_PER_PIXEL, 1) != len(bits):
        return False  # OpenCV leaves memory as it is
    if len(bits) > 1 and tags.get(_PLANAR_CONFIGURATION) == _SEPARATE:
        return False  # OpenCV takes planes for pixels
    deepest = 16 if len(bits) > 1 else 32
    what = tags.get(_PHOTOMETRIC), len(bits), tuple(tags.get(_EXTRA_SAMPLES, ()))
    integers = set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) == {_UNSIGNED}
    return what in expected and integers and len(set(bits)) == 1 and bits[0] in (8, 12, 16, deepest)
