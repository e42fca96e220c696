"""The chunks of a PNG: its header, its metadata, and whether it is complete."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from types import ModuleType

from sketchify_rt.codec.formats import INCH, Header, truncated
from sketchify_rt.errors import BackendUnavailable

# Chunks of PNG that tell of a picture, and are no part of it. In two kinds of text there may be
# EXIF, as ImageMagick writes it, and XMP.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_METADATA = (b"acTL", b"eXIf", b"iCCP", b"pHYs", *_TEXTS)
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_MOST_TEXT = 2**20  # bytes of it, unpacked
_TRANSPARENCY = {0: 2, 2: 6}  # bytes of tRNS, by the type of colour


def probe(data: bytes) -> Header:
    """Reads the header of a PNG; `header.probe` calls it.

    Raises:
        Exception: Whatever broken data makes of it; ValueError with the reason if it is known.
    """
    if len(data) < 33:
        raise truncated(data)
    kind, width, height, bits, colour, _, checksum = struct.unpack_from(">4sIIBB3sI", data, 12)
    if kind != b"IHDR" or zlib.crc32(data[12:29]) != checksum:
        raise ValueError("corrupt data, the checksum of its IHDR chunk is wrong")
    found, texts = dict[bytes, bytes](), dict[bytes, bytes]()
    for kind, start, stop in chunks(data):
        if kind not in _METADATA:
            continue
        body = data[start + 8 : stop - 4]
        if zlib.crc32(kind + body).to_bytes(4, "big") != data[stop - 4 : stop]:
            continue
        if kind in _TEXTS:
            texts |= _text(kind, body)
        else:
            found[kind] = body
    dpi, density = None, found.get(b"pHYs", b"")
    if len(density) == 9 and density[8] == 1:
        across, down = struct.unpack_from(">II", density)
        dpi = across * INCH, down * INCH
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 0)
    block = found.get(b"eXIf") or _raw_profile(texts.get(_RAW_EXIF, b""))
    xmp, profile = texts.get(_XMP, b""), found.get(b"iCCP", b"")
    return Header(
        "PNG",
        width,
        height,
        channels,
        bits,
        animated=int.from_bytes(found.get(b"acTL", b"")[:4], "big") > 1,  # frames
        exif=block,
        xmp=xmp,
        profile=profile,
        dpi=dpi,
    )


def _text(kind: bytes, body: bytes) -> dict[bytes, bytes]:
    """The text of a chunk by its keyword, if it is EXIF or XMP and not broken; else nothing."""
    keyword, _, text = body.partition(b"\0")
    if keyword not in (_RAW_EXIF, _XMP):
        return {}
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:]
        text = text.split(b"\0", 2)[-1]  # behind language and translated keyword
    elif packed:
        text = text[1:]
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, _MOST_TEXT)
        except zlib.error:
            return {}
    return {keyword: text}


def _raw_profile(text: bytes) -> bytes:
    """EXIF as ImageMagick writes it into text: a name, a length, hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def isal_zlib() -> ModuleType:
    """The zlib of ISA-L, imported when the first PNG comes: a GPU works on JPEG without it.

    Raises:
        BackendUnavailable: isal is not installed.
    """
    try:
        from isal import isal_zlib
    except ImportError as error:
        raise BackendUnavailable(
            f"PNG needs the package isal, which cannot be imported: {error}. "
            "To fix: pip install isal"
        ) from error
    return isal_zlib


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, and where it starts and stops, with its length and checksum.

    The last may stop beyond the end of the data.
    """
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, at + 12 + length
        at += 12 + length


def picture_parts(data: bytes) -> list[slice]:
    """Checks a PNG to its end, with the checksums of what is part of the picture.

    Returns:
        Where in the file its parts are: the signature and the chunks that no decoder can do
        without, and transparency, up to the end mark, which may be missing or broken. Pillow
        refuses a picture over any other chunk that is broken or large.

    Raises:
        ValueError: it is damaged.
    """
    crc32 = isal_zlib().crc32
    view = memoryview(data)
    parts, has_data, ended = [slice(0, 8)], False, False
    for kind, start, stop in chunks(data):
        if ended := kind == b"IEND":
            break
        if kind[0] & 0x20 and kind != b"tRNS":  # lower case: ancillary
            continue
        if stop > len(data):
            raise truncated(data)
        if crc32(view[start + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop], "big"):
            name = kind.decode("latin-1")
            raise ValueError(f"corrupt data, the checksum of its {name} chunk is wrong")
        if kind == b"tRNS" and stop - start - 12 < _TRANSPARENCY.get(data[25], 1):
            continue
        if kind == b"IHDR" and start > 8:  # decoders take its size, which no limit was applied to
            raise ValueError("corrupt data, it has two IHDR chunks")
        has_data |= kind == b"IDAT"
        if start == parts[-1].stop:
            parts[-1] = slice(parts[-1].start, stop)
        else:
            parts.append(slice(start, stop))
    if not has_data:
        raise ValueError("corrupt data, it has no IDAT chunk") if ended else truncated(data)
    return parts
