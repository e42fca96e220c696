"""EXIF, colour profile and resolution: read of a source, and put into the file of its sketch.

They are put into a file that is already encoded, on the processor or on a GPU. XMP, comments and
text are left out. What is broken is left out too, since metadata is no reason to refuse a picture:
each of the three on its own, and each field of EXIF.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from dataclasses import dataclass, replace

import PIL.Image
from PIL.ExifTags import Base

from sketchify_rt.codec import exif, header, icc, png
from sketchify_rt.codec.formats import INCH, Header
from sketchify_rt.options import Format

_MOST_PROFILE = 2**24  # bytes; those of printers have some 2 MiB
_DPI = (0.01, 99_999.0)  # what is believed

_JPEG_BODY = 65_533  # bytes of a segment, besides its marker and length
_EXIF_MARK, _ICC_MARK = b"Exif\0\0", b"ICC_PROFILE\0"
_JFIF_NONE, _JFIF_INCH = 0, 1

_VP8X_ICC, _VP8X_ALPHA, _VP8X_EXIF = 0x20, 0x10, 0x08

Density = tuple[float, float]
"""Pixels per inch, across and down."""


@dataclass(frozen=True)
class Metadata:
    """What a file tells of its picture.

    Attributes:
        exif: What is kept of EXIF.
        profile: ICC profile, as it is in the file; empty for none.
        dpi: Resolution of the upright picture; None where it is unknown.
    """

    exif: exif.Exif = exif.NONE
    profile: bytes = b""
    dpi: Density | None = None

    def scaled(self, across: float, down: float) -> Metadata:
        """For a picture with so many times the pixels, in print as large as before."""
        if self.dpi is None:
            return self
        return replace(self, dpi=_believed((self.dpi[0] * across, self.dpi[1] * down)))


NONE = Metadata()


def read(found: Header) -> Metadata:
    """Metadata of a file by its header; of BMP, GIF and PNM there is none."""
    profile = _inflated(found.profile) if found.format == "PNG" else found.profile
    return assemble(found.exif, profile, found.dpi, found.orientation)


def from_pil(image: PIL.Image.Image) -> Metadata:
    """Metadata of a Pillow image, before its pixels are loaded, which turns a TIFF upright."""
    info = image.info
    try:
        block = info.get("exif") or image.getexif().tobytes()
    except Exception:  # as in a file, where it is broken
        block = b""
    dpi = None
    with contextlib.suppress(KeyError, TypeError, ValueError, ArithmeticError):
        across, down = map(float, info["dpi"])
        if Base.XResolution in getattr(image, "tag_v2", (Base.XResolution,)):  # else Pillow says 1
            dpi = across, down
    return assemble(block, info.get("icc_profile") or b"", dpi, exif.of_pil(image))


def assemble(block: bytes, profile: bytes, dpi: Density | None, orientation: int) -> Metadata:
    """Metadata of what is in a file, whatever the bytes.

    Args:
        block: EXIF, see `exif.read`.
        profile: ICC profile; empty for that of EXIF.
        dpi: Resolution of the picture as it is stored; None for that of EXIF.
        orientation: Of the picture as it is stored, 1 to 8.
    """
    found = exif.read(block)
    dpi = _believed(dpi) or _believed(found.dpi)
    if dpi and orientation >= 5:
        dpi = dpi[::-1]
    return Metadata(found, profile or found.profile, dpi)


def _believed(dpi: Density | None) -> Density | None:
    # Not a number is in no range.
    return dpi if dpi and all(_DPI[0] <= value <= _DPI[1] for value in dpi) else None


def _inflated(chunk: bytes) -> bytes:
    """The profile in a chunk iCCP of PNG; empty where it is broken or too large."""
    unpack = zlib.decompressobj()
    try:
        profile = unpack.decompress(chunk.partition(b"\0")[2][1:], _MOST_PROFILE)
    except zlib.error:
        return b""
    return profile if unpack.eof else b""


def attach(
    encoded: bytes, form: Format, metadata: Metadata, height: int, width: int, rgb: bool = False
) -> bytes:
    """The file of a sketch with metadata in it.

    The colour profile becomes one of gray, see `icc.gray`; but colours and WebP, which holds
    colour, keep only one of RGB. WebP has no resolution but that of EXIF. JPEG has no room for EXIF
    of 64 KiB.

    Args:
        encoded: A file, as `codec` writes it.
        form: Its format.
        metadata: Of the source.
        height: Pixels down of the sketch.
        width: Pixels across.
        rgb: Whether it has the colours of the source.
    """
    if metadata == NONE:
        return encoded
    found, dpi, profile = metadata.exif, metadata.dpi, metadata.profile
    block = found.write(width, height, dpi) if found.fields or form == "webp" else b""
    if rgb or form == "webp":
        profile = profile if icc.space(profile) == "RGB" else b""
    else:
        profile = icc.gray(profile)
    if form == "webp":
        return _into_webp(encoded, block, profile, width, height)
    into = _into_png if form == "png" else _into_jpeg
    return into(encoded, block, profile, dpi)


def _into_png(encoded: bytes, block: bytes, profile: bytes, dpi: Density | None) -> bytes:
    added = b""
    if profile:
        added += png.chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if dpi:
        across, down = (round(value / INCH) for value in dpi)
        added += png.chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if block:
        added += png.chunk(b"eXIf", block)
    behind = 8 + 12 + 13  # signature and header
    return encoded[:behind] + added + encoded[behind:]


def _into_jpeg(encoded: bytes, block: bytes, profile: bytes, dpi: Density | None) -> bytes:
    behind = 2
    if encoded[2:4] == b"\xff\xe0":  # JFIF, written anew
        behind += 2 + int.from_bytes(encoded[4:6], "big")
    across, down = (round(value) for value in dpi or (1, 1))
    known = dpi and 1 <= across <= 0xFFFF and 1 <= down <= 0xFFFF
    density = (_JFIF_INCH, across, down) if known else (_JFIF_NONE, 1, 1)
    added = _segment(0xE0, struct.pack(">5sHBHHBB", b"JFIF\0", 0x0102, *density, 0, 0))
    if block and len(_EXIF_MARK + block) <= _JPEG_BODY:
        added += _segment(0xE1, _EXIF_MARK + block)
    step = _JPEG_BODY - len(_ICC_MARK) - 2
    parts = [profile[at : at + step] for at in range(0, len(profile), step)]
    if len(parts) < 256:
        for number, part in enumerate(parts, 1):
            added += _segment(0xE2, _ICC_MARK + bytes((number, len(parts))) + part)
    return encoded[:2] + added + encoded[behind:]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _into_webp(encoded: bytes, block: bytes, profile: bytes, width: int, height: int) -> bytes:
    if not block and not profile:
        return encoded
    image = [(k, encoded[place]) for k, place in header.webp_chunks(encoded) if k != b"VP8X"]
    flags = (_VP8X_ICC if profile else 0) | (_VP8X_EXIF if block else 0)
    flags |= _VP8X_ALPHA if header.probe(encoded).alpha else 0
    sides = ((side - 1).to_bytes(3, "little") for side in (width, height))
    extended = struct.pack("<I3s3s", flags, *sides)
    chunks = [(b"VP8X", extended), (b"ICCP", profile), *image, (b"EXIF", block)]
    body = b"WEBP" + b"".join(
        struct.pack("<4sI", kind, len(part)) + part + bytes(len(part) & 1)
        for kind, part in chunks
        if part
    )
    return struct.pack("<4sI", b"RIFF", len(body)) + body
