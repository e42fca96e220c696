"""What a file is, told from its content, and whether all of it is there.

The decoders fill the missing part of a cut file with gray and report success (OpenCV on JPEG), or
skip checksums (Pillow on PNG), so the containers that carry an end mark are walked here first.
"""

from __future__ import annotations

import re
import struct

from isal import isal_zlib

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
    (rb"....ftyp", "MP4 video"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"8BPS", "Photoshop (PSD)"),
    (rb"gimp xcf", "GIMP (XCF)"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"\x00\x00\x01\x00", "icon (ICO)"),
    (rb"PK\x03\x04", "ZIP archive"),
    (rb"Rar!|7z\xbc\xaf|\x1f\x8b", "archive"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml.*?)?(<!--.*?-->|<!DOCTYPE svg.*?>|\s)*<svg", "SVG"),
    (rb"(?i:(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head))", "HTML page"),
)
_SIGNATURE = tuple((re.compile(pattern, re.DOTALL), name) for pattern, name in _SIGNATURES)


def identify(data: bytes) -> str | None:
    """Name of the format: one of READABLE, or of one that is not read; None for unknown bytes."""
    head = data[:1024]
    return next((name for pattern, name in _SIGNATURE if pattern.match(head)), None)


def damage(data: bytes, name: str) -> str | None:
    """What is wrong with the container `name`, to be read after the name of the file, or None."""
    check = _CHECKS.get(name)
    return check(data) if check else None


def _truncated(data: bytes) -> str:
    return f"is truncated: it ends after {len(data)} bytes"


def _jpeg_damage(data: bytes) -> str | None:
    """Walks the segments, so that the end mark of a thumbnail in EXIF does not count.

    After the first scan begins, FF D9 is the end: scan data escapes FF, and no table holds it.
    """
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return "is corrupt: no JPEG segment where one should begin"
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0xDA:
            return None if data.rfind(b"\xff\xd9", at) >= 0 else _truncated(data)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no length follows
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return _truncated(data)


def _png_damage(data: bytes) -> str | None:
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if isal_zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return f"is corrupt: the checksum of its {kind.decode('latin-1')} chunk is wrong"
        if kind == b"IEND":
            return None
        at = end
    return _truncated(data)


def _webp_damage(data: bytes) -> str | None:
    return _truncated(data) if len(data) < 8 + int.from_bytes(data[4:8], "little") else None


_CHECKS = {"JPEG": _jpeg_damage, "PNG": _png_damage, "WebP": _webp_damage}


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP canvas in pixels. Raises ValueError if the header is cut."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no WebP frame header")


def webp_exif(data: bytes) -> bytes:
    """The EXIF chunk of a WebP file, empty if there is none."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return data[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)
    return b""
