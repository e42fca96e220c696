"""The segments of a JPEG: its header, and whether its scans are complete."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from sketchify_rt.codec.formats import Header, truncated

_SCAN, _START, _END = 0xDA, 0xD8, 0xD9
_ADOBE, _TOLD = 0xEE, {0xFE, *range(0xE0, 0xF0)}  # comments, and segments of applications
_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}  # without a length: TEM, and the restarts
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_JFIF_UNITS = {1: 1.0, 2: 2.54}  # an inch, a centimetre; in pixels per inch
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
# What ends the data of a scan: a marker that is no restart; FF 00 is a byte FF of the data.
_NEXT_SEGMENT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and body of each segment up to the first scan; the last body may be cut.

    What lies between two segments is passed over, up to the next marker, as libjpeg does.
    """
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker, length = struct.unpack_from(">BH", data, at + 1)
        if marker in (0x00, 0xFF):  # no marker; a fill byte
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        elif marker in (_START, _END) or length < 2:
            raise ValueError("corrupt data, no segment where one should begin")
        else:
            yield marker, at, data[at + 4 : at + 2 + length]
            if marker == _SCAN:
                return
            at += 2 + length


def probe(data: bytes) -> Header:
    """Reads the segments up to the first scan.

    From there on FF D9 is the end mark: scan data escapes FF, and no table holds these bytes. The
    thumbnail in EXIF, which has an end mark of its own, comes before.

    Raises:
        ValueError: The file is truncated or damaged, or has more than 8 bits a sample.
    """
    width = height = channels = parts = 0
    huffman = rgb = False
    xmp = names = b""
    blocks: list[bytes] = []  # of EXIF: of more than 64 KiB it goes on in the next segment
    dpi, profile = None, dict[int, bytes]()
    regular, behind = True, 2
    for marker, at, body in _segments(data):
        regular &= not data[behind:at].strip(b"\xff")
        behind = at + 4 + len(body)
        if marker == _SCAN:
            ended = data.rfind(b"\xff\xd9", at) >= 0
            if not ended and not _has_all_scans(data, at, names):
                break
            plain = huffman and (channels == 1 or (channels == 3 and not rgb))
            return Header(
                "JPEG",
                width,
                height,
                channels,
                plain=plain and regular and ended,
                ended=ended,
                exif=b"".join(blocks),
                xmp=xmp,
                profile=b"".join(profile.get(part, b"") for part in range(1, parts + 1)),
                dpi=dpi,
            )
        if marker in _FRAMES and len(body) >= 6:
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            if bits != 8:
                raise ValueError(f"{bits} bits a sample; save it with 8 bits a sample")
            huffman = marker in _HUFFMAN_FRAMES
            names = body[6::3]  # of the planes
            rgb |= names[:3] == b"RGB"
        elif marker == _ADOBE and body.startswith(b"Adobe"):
            rgb |= body[11:12] == b"\0"  # no transform to luma and chroma
        elif marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            per_inch = _JFIF_UNITS.get(unit, 0)
            dpi = across * per_inch, down * per_inch
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            blocks.append(body[6:] if blocks else body)
        elif marker == 0xE1 and body.startswith(_XMP_MARK):
            xmp = body.removeprefix(_XMP_MARK)
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]], parts = body[14:], body[13]
    raise truncated(data)


def picture_parts(data: bytes) -> list[slice]:
    """Where in a JPEG its picture is: without application segments, but Adobe's, and comments.

    Pillow reads them, and is stricter than libjpeg about them, and about what lies between.
    """
    parts = [slice(0, 2)]
    for marker, at, body in _segments(data):
        if marker == _SCAN:
            parts.append(slice(at, len(data)))
        elif marker == _ADOBE or marker not in _TOLD:
            parts.append(slice(at, at + 4 + len(body)))
    return parts


def _has_all_scans(data: bytes, at: int, names: bytes) -> bool:
    """Whether the scans, of which the first begins at `at`, tell all bits of all coefficients.

    The last may be cut. names: of the planes, a byte each.
    """
    known = {name: set[int]() for name in names}
    while data[at + 1 : at + 2] == bytes((_SCAN,)):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if not body or len(body) < 2 * body[0] + 4:
            return False
        first, last, bit = body[2 * body[0] + 1 : 2 * body[0] + 4]
        for name in body[1 : 2 * body[0] : 2]:
            if not bit & 15 and name in known:
                known[name].update(range(first, last + 1))
        found = _NEXT_SEGMENT.search(data, at + 2 + length)
        while found and data[found.start() + 1] != _SCAN:  # a table before the next scan
            length = int.from_bytes(data[found.end() : found.end() + 2], "big")
            found = _NEXT_SEGMENT.search(data, found.end() + length)
        if found is None:
            break
        at = found.start()
    return all(len(coefficients) == 64 for coefficients in known.values())
