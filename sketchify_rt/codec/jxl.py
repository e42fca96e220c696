"""JPEG XL (ISO/IEC 18181): what its header says. pillow_jxl, which reads it, decodes it whole."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sketchify_rt.codec import boxes, exif, jpeg
from sketchify_rt.codec.formats import Header, import_extra

if TYPE_CHECKING:
    from PIL.Image import Image

_BARE = b"\xff\x0a"  # begins a file without boxes, and the codestream within these
_PICTURE = (b"jxlc", b"jxlp", b"jbrd")  # boxes
_HEAD = 64  # bytes of the codestream that are enough
_RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height


class _Bits:
    """Reads numbers, the lowest bit first; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self._rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value


def probe(data: bytes) -> Header:
    """Reads the header of a JPEG XL; `header.probe` calls it.

    Raises:
        ValueError: The file is truncated or damaged.
    """
    stream, block, xmp = data, b"", b""
    if not data.startswith(_BARE):
        stream = b""
        for kind, place in boxes.walk(data, _PICTURE):
            if kind in (b"jxlc", b"jxlp") and len(stream) < _HEAD:
                start = place.start + (4 if kind == b"jxlp" else 0)  # behind the part's number
                stream += data[start : min(place.stop, start + _HEAD)]
            elif kind == b"Exif":
                block = data[place]
                if not exif.is_block(block):  # behind an offset, which some leave out
                    block = block[4 + int.from_bytes(block[:4], "big") :]
            elif kind == b"xml ":
                xmp = data[place]
    if not stream.startswith(_BARE):
        raise ValueError("corrupt data, no picture in it")
    bits = _Bits(stream[2:_HEAD])
    width, height = _size(bits)
    return Header(
        "JPEG XL", width, height, animated=_is_animated(bits), upright=True, exif=block, xmp=xmp
    )


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else 1 + bits.take((9, 13, 18, 30)[bits.take(2)])

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    above, below = _RATIOS[ratio - 1]
    return height * above // below, height


def _is_animated(bits: _Bits) -> bool:
    if bits.take(1) or not bits.take(1):  # all as by default; no such fields
        return False
    bits.take(3)  # orientation
    if bits.take(1):
        _size(bits)  # for viewers
    # Behind a preview it is not looked for.
    return not bits.take(1) and bool(bits.take(1))


def decode(data: bytes) -> Image | bytes:
    """The picture in a JPEG XL, upright; or the JPEG that it was made from without loss.

    Raises:
        ValueError: The package is not installed, or the data is damaged.
    """
    decoder = import_extra("pillow_jxl", "jxl").Decoder(num_threads=0)  # this one alone
    try:
        is_jpeg, info, content, profile, _ = decoder(data)
    except RuntimeError as error:  # which tells how to build libjxl
        raise ValueError("corrupt data, or a part of it is missing; get a whole copy") from error
    if is_jpeg:
        return bytes(content)
    import PIL.Image

    image = PIL.Image.frombytes(info.mode, (info.width, info.height), content)
    image.info["icc_profile"] = profile
    return image


def described(data: bytes, found: Header) -> Header:
    """The header with the metadata that only decoding tells. Raises what `decode` raises."""
    content = decode(data)
    if isinstance(content, bytes):
        return jpeg.probe(content)
    return replace(found, profile=content.info["icc_profile"] or b"")
