"""What a file is, told from its content, and what its header says before any pixel is decoded.

`probe` is called once for a file, and its result travels with the `File`. The decoders fill the
missing part of a cut file with gray and report success (OpenCV on JPEG), or skip checksums (Pillow
on PNG), so containers with an end mark are walked to it first.
"""

from __future__ import annotations

import io
import itertools
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import TYPE_CHECKING

from sketchify_rt.codec import exif
from sketchify_rt.errors import BackendUnavailable

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from sketchify_rt.options import Hint

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
    """What the header of a file says.

    Attributes:
        format: See `identify`.
        width, height: Pixels as stored, of an animated WebP those of the canvas; 0 where unknown.
        channels: Samples a pixel of JPEG (1 gray, 3 colour, 4 CMYK), PNG, PNM and TIFF; else 0.
        bits: A sample of PNG and TIFF has so many; 8 elsewhere.
        orientation: Of EXIF in JPEG and WebP, 1 to 8; 1 elsewhere.
        alpha: Whether a WebP has an alpha plane.
        plain: A JPEG whose first plane is luma, coded as every decoder knows it, on a GPU too:
            baseline or progressive, Huffman codes, neither RGB nor CMYK.
        text: A PNM whose samples are decimal numbers.
        problem: What is wrong with the header; empty where nothing is.
    """

    format: str | None
    width: int = 0
    height: int = 0
    channels: int = 0
    bits: int = 8
    orientation: int = 1
    alpha: bool = False
    plain: bool = False
    text: bool = False
    problem: str = ""

    @property
    def pixels(self) -> int:
        """0 where the size is unknown."""
        return self.width * self.height


@dataclass(frozen=True)
class File:
    """The bytes of an image file.

    name: for messages; hint: of this image alone, see `inputs.hinted`, None for that of the
    `Sketchifier`.
    """

    name: str
    data: bytes
    hint: Hint | None = None

    @cached_property
    def header(self) -> Header:
        """See `probe`."""
        return probe(self.data)


def probe(data: bytes) -> Header:
    """What the header of a file says; of a damaged one what is wrong with it, whatever the bytes.

    A PNG is not walked to its end, see `check_png`.
    """
    form = identify(data)
    try:
        reader = _PROBES.get(form or "")
        return reader(data) if reader else Header(form)
    except Exception as error:  # broken data makes readers raise anything
        return Header(form, problem=str(error) or type(error).__name__)


def truncated(data: bytes) -> ValueError:
    """The error for data that ends too early."""
    return ValueError(f"it is truncated, the file ends after {len(data)} bytes")


def _probe_jpeg(data: bytes) -> Header:
    """Walks the segments, so that the end mark of a thumbnail in EXIF does not count.

    After the first scan begins, FF D9 is the end: scan data escapes FF, and no table holds it.
    """
    width = height = channels = 0
    orientation = 1
    huffman = rgb = False
    for marker, at, body in jpeg_segments(data):
        if marker == _SCAN:
            if data.rfind(b"\xff\xd9", at) < 0:
                break
            plain = huffman and (channels == 1 or (channels == 3 and not rgb))
            return Header("JPEG", width, height, channels, orientation=orientation, plain=plain)
        if marker in _JPEG_FRAMES and len(body) >= 6:
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            if bits != 8:
                raise ValueError(f"{bits} bits a sample; save it with 8 bits a sample")
            huffman = marker in _HUFFMAN_FRAMES
            rgb |= body[6::3][:3] == b"RGB"  # the names of the planes
        elif marker == 0xEE and body.startswith(b"Adobe"):
            rgb |= body[11:12] == b"\0"  # no transform to luma and chroma
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = exif.orientation(body)
    raise truncated(data)


_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and body of each segment, up to the first scan.

    Raises:
        ValueError: where a segment should begin and does not.
    """
    at = 2
    while at + 4 <= len(data):
        mark, marker, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            raise ValueError("corrupt data, no segment where one should begin")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        yield marker, at, data[at + 4 : at + 2 + length]
        if marker == _SCAN:
            return
        at += 2 + length


def _probe_webp(data: bytes) -> Header:
    if len(data) < max(30, 8 + int.from_bytes(data[4:8], "little")):
        raise truncated(data)
    kind, alpha = data[12:16], False
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        alpha = bool(data[20] & 0x10)
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        alpha = bool(bits >> 28 & 1)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("corrupt data, no frame where one should begin")
    blocks = [data[start:stop] for kind, start, stop in webp_chunks(data) if kind == b"EXIF"]
    turned = exif.orientation(blocks[-1]) if blocks else 1
    return Header("WebP", width, height, orientation=turned, alpha=alpha)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, and where its body starts and stops."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, at + 8 + length
        at += 8 + length + (length & 1)


def _probe_png(data: bytes) -> Header:
    """Nothing is wrong with a cut one yet: `check_png` tells."""
    if len(data) < 26:
        return Header("PNG")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    return Header("PNG", width, height, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 0), bits)


def _probe_pnm(data: bytes) -> Header:
    from sketchify_rt.codec import pnm

    found = pnm.read_header(data)
    channels = 3 if found.kind in (3, 6) else 1
    return Header("PNM", found.width, found.height, channels, text=found.kind <= 3)


def _probe_tiff(data: bytes) -> Header:
    from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

    with TiffImageFile(io.BytesIO(data)) as image:
        bits = image.tag_v2.get(BITSPERSAMPLE, (1,))
        return Header("TIFF", *image.size, len(bits), bits[0])


def _probe_pillow(form: str, data: bytes) -> Header:
    with open_pillow(form, data) as image:
        return Header(form, *image.size)


def open_pillow(form: str, data: bytes) -> ImageFile:
    """The file of a BMP, GIF or AVIF.

    Not by Image.open, whose own pixel limit is a setting of the process and would come before ours.
    """
    from PIL import AvifImagePlugin, BmpImagePlugin, GifImagePlugin

    classes: dict[str, type[ImageFile]] = {
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
    }
    return classes[form](io.BytesIO(data))


_PROBES: dict[str, Callable[[bytes], Header]] = {
    "JPEG": _probe_jpeg,
    "PNG": _probe_png,
    "WebP": _probe_webp,
    "BMP": partial(_probe_pillow, "BMP"),
    "GIF": partial(_probe_pillow, "GIF"),
    "TIFF": _probe_tiff,
    "AVIF": partial(_probe_pillow, "AVIF"),
    "PNM": _probe_pnm,
}


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


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, and where it starts and stops, with its length and checksum.

    The last may stop beyond the end of the data.
    """
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, at + 12 + length
        at += 12 + length


def check_png(data: bytes) -> None:
    """Walks the chunks to the end, and checks every checksum.

    Raises:
        ValueError: what is wrong.
    """
    crc32 = isal_zlib().crc32
    view = memoryview(data)
    for kind, start, stop in png_chunks(data):
        if stop > len(data):
            break
        if crc32(view[start + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop], "big"):
            name = kind.decode("latin-1")
            raise ValueError(f"corrupt data, the checksum of its {name} chunk is wrong")
        if kind == b"IEND":
            return
    raise truncated(data)


def without_profile(data: bytes) -> bytes:
    """A PNG without its colour profile and resolution.

    Pillow refuses the whole picture where these are broken, or the profile has over 1 MiB.
    data: as `check_png` passes it.
    """
    before = itertools.takewhile(lambda chunk: chunk[0] not in (b"IDAT", b"IEND"), png_chunks(data))
    for kind, start, stop in reversed([*before]):
        if kind in (b"iCCP", b"pHYs"):
            data = data[:start] + data[stop:]
    return data
