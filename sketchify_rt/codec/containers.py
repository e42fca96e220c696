"""What a file is, told from its content, and what its container says before any pixel is decoded.

The decoders fill the missing part of a cut file with gray and report success (OpenCV on JPEG), or
skip checksums (Pillow on PNG), so containers with an end mark are walked to it first. All functions
but `identify` and `pixels` raise ValueError with what is wrong.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from types import ModuleType

from sketchify_rt.errors import BackendUnavailable

READABLE = ("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "AVIF", "PNM")

_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"BM", "BMP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
    (rb"....ftyp(avif|avis|(mif1|msf1|miaf)....([\x20-\x7e]{4})*?avif)", "AVIF"),
    (rb"P[1-6][\s#]", "PNM"),
    # not read, but worth their name in the message
    (rb"....ftyp(hei|hev|mif1|msf1)", "HEIC"),
    (rb"....ftyp", "an MP4 video"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"8BPS", "Photoshop (PSD)"),
    (rb"gimp xcf", "GIMP (XCF)"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"\x00\x00\x01\x00", "an icon (ICO)"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"Rar!|7z\xbc\xaf|\x1f\x8b", "an archive"),
    # The group (?>...) gives nothing back: without it, 30 comments take minutes.
    (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?\?>)?(?>(?:<!--.*?-->|<!DOCTYPE svg.*?>|\s)*)<svg", "SVG"),
    (rb"(?i:(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head))", "an HTML page"),
)
_SIGNATURE = tuple((re.compile(pattern, re.DOTALL), name) for pattern, name in _SIGNATURES)


def identify(data: bytes) -> str | None:
    """Name of the format: one of READABLE, or of one that is not read; None for unknown bytes."""
    head = data[:1024]
    return next((name for pattern, name in _SIGNATURE if pattern.match(head)), None)


@dataclass(frozen=True)
class Header:
    """Size in pixels as stored, channels (of JPEG: 1 gray, 3 colour, 4 CMYK), EXIF orientation.

    plain: a JPEG whose first plane is luma, coded as every decoder knows it, on a GPU too: baseline
    or progressive, Huffman codes, neither RGB nor CMYK.
    """

    width: int
    height: int
    channels: int
    orientation: int
    plain: bool = False


def truncated(data: bytes) -> ValueError:
    """The error for data that ends too early."""
    return ValueError(f"it is truncated, the file ends after {len(data)} bytes")


def jpeg_header(data: bytes) -> Header:
    """Walks the segments, so that the end mark of a thumbnail in EXIF does not count.

    After the first scan begins, FF D9 is the end: scan data escapes FF, and no table holds it.
    """
    width = height = channels = 0
    orientation = 1
    huffman = rgb = False
    at = 2
    while at + 4 <= len(data):
        mark, marker, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            raise ValueError("corrupt data, no segment where one should begin")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            if data.rfind(b"\xff\xd9", at) < 0:
                raise truncated(data)
            plain = huffman and (channels == 1 or (channels == 3 and not rgb))
            return Header(width, height, channels, orientation, plain)
        body = data[at + 4 : at + 2 + length]
        if marker in _JPEG_FRAMES and len(body) >= 6:
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            if bits != 8:
                raise ValueError(f"{bits} bits a sample; save it with 8 bits a sample")
            huffman = marker in _HUFFMAN_FRAMES
            rgb |= body[6::3][:3] == b"RGB"  # the names of the planes
        elif marker == 0xEE and body.startswith(b"Adobe"):
            rgb |= body[11:12] == b"\0"  # no transform to luma and chroma
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body)
        at += 2 + length
    raise truncated(data)


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive


def webp_header(data: bytes) -> Header:
    """Of a still or animated file; the size is that of the canvas."""
    if len(data) < max(30, 8 + int.from_bytes(data[4:8], "little")):
        raise truncated(data)
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("corrupt data, no frame where one should begin")
    orientation, at = 1, 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)
    return Header(width, height, 3, orientation)


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


def check_png(data: bytes) -> None:
    """Walks the chunks to the end, and checks every checksum."""
    crc32 = isal_zlib().crc32
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            name = kind.decode("latin-1")
            raise ValueError(f"corrupt data, the checksum of its {name} chunk is wrong")
        if kind == b"IEND":
            return
        at = end
    raise truncated(data)


def without_profile(data: bytes) -> bytes:
    """A PNG without its colour profile and resolution.

    Pillow refuses the whole picture where these are broken, or the profile has over 1 MiB.
    data: as `check_png` passes it.
    """
    at = 8
    while (kind := data[at + 4 : at + 8]) not in (b"IDAT", b"IEND"):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind in (b"iCCP", b"pHYs"):
            data = data[:at] + data[end:]
        else:
            at = end
    return data


def pixels(data: bytes) -> int:
    """Width times height by the header of a JPEG, PNG or WebP; 0 where it cannot be told."""
    try:
        match identify(data):
            case "JPEG":
                header = jpeg_header(data)
            case "WebP":
                header = webp_header(data)
            case "PNG":
                width, height = struct.unpack_from(">II", data, 16)
                return int(width * height)
            case _:
                return 0
    except (ValueError, struct.error):
        return 0
    return header.width * header.height


_ORIENTATION, _SHORT = 274, 3  # tag and type


def exif_orientation(exif: bytes) -> int:
    """Orientation 1..8 in an EXIF block, 1 if it has none or is broken."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = ">" if tiff[:2] == b"MM" else "<"
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if (tag, kind) == (_ORIENTATION, _SHORT) and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass
    return 1
