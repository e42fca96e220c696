"""EXIF, colour profile and resolution: out of a source, and into the file of its sketch.

They are put into a file that is already encoded, whatever encoded it. XMP, comments and text are
left out, and so is what is broken, since metadata is no reason to refuse a picture: each of the
three on its own, and of EXIF each field.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import PIL.Image

from sketchify_rt.codec import exif, header, icc, png
from sketchify_rt.codec.header import File
from sketchify_rt.options import Format

_MOST_PROFILE = 2**24  # bytes; those of printers have some 2 MiB
_INCH = 0.0254  # metres
_DPI = (0.01, 99_999.0)  # what is believed

_JPEG_BODY = 65_533  # bytes of a segment, besides its marker and length
_EXIF_MARK, _ICC_MARK = b"Exif\0\0", b"ICC_PROFILE\0"
_JFIF_NONE, _JFIF_INCH, _JFIF_CENTIMETRE = 0, 1, 2

_VP8X_ICC, _VP8X_ALPHA, _VP8X_EXIF = 0x20, 0x10, 0x08

Density = tuple[float, float]


@dataclass(frozen=True)
class Metadata:
    """What a file tells of its picture. dpi: pixels per inch, across and down, of the upright one.

    profile: ICC, as it is in the file.
    """

    exif: exif.Exif | None = None
    profile: bytes | None = None
    dpi: Density | None = None

    def scaled(self, across: float, down: float) -> Metadata:
        """For a picture with so many times the pixels, in print as large as before."""
        if self.dpi is None:
            return self
        return replace(self, dpi=_believed((self.dpi[0] * across, self.dpi[1] * down)))


NONE = Metadata()


def read(file: File) -> Metadata:
    """Metadata of a JPEG, PNG, WebP, TIFF or AVIF, without decoding pixels; whatever the bytes.

    The resolution is that of the container, else that of EXIF.
    """
    reader = _READERS.get(file.header.format or "")
    block, profile, dpi = reader(file.data) if reader else (b"", None, None)
    return _metadata(block, profile, dpi)


def from_pil(image: PIL.Image.Image) -> Metadata:
    """Metadata of a Pillow image, before its pixels are loaded, which turns a TIFF upright."""
    info = image.info
    try:
        block = info.get("exif") or image.getexif().tobytes()
    except Exception:  # as in a file, where it is broken
        block = b""
    try:
        across, down = map(float, info["dpi"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return _metadata(block, info.get("icc_profile"), None)
    return _metadata(block, info.get("icc_profile"), (across, down))


def _metadata(block: bytes, profile: bytes | None, dpi: Density | None) -> Metadata:
    found = exif.read(block)
    dpi = _believed(dpi) or _believed(found.dpi if found else None)
    if found:
        profile = profile or found.profile
        if dpi and found.orientation >= 5:
            dpi = dpi[::-1]
    return Metadata(found, profile, dpi)


def _believed(dpi: Density | None) -> Density | None:
    # Not a number is in no range.
    return dpi if dpi and all(_DPI[0] <= value <= _DPI[1] for value in dpi) else None


_Found = tuple[bytes, bytes | None, Density | None]


def _read_jpeg(data: bytes) -> _Found:
    block, dpi = b"", None
    parts: dict[int, bytes] = {}
    count = 0
    for marker, _, body in _sound_segments(data):
        if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            per_inch = {_JFIF_INCH: 1.0, _JFIF_CENTIMETRE: 100 * _INCH}.get(unit)
            dpi = (across * per_inch, down * per_inch) if per_inch else None
        elif marker == 0xE1 and body.startswith(_EXIF_MARK):
            block = body
        elif marker == 0xE2 and body.startswith(_ICC_MARK) and len(body) > 14:
            parts[body[12]], count = body[14:], body[13]
    whole = parts and sorted(parts) == list(range(1, count + 1))
    return block, b"".join(parts[at] for at in sorted(parts)) if whole else None, dpi


def _sound_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    with contextlib.suppress(ValueError):
        yield from header.jpeg_segments(data)


def _read_png(data: bytes) -> _Found:
    block, profile, dpi = b"", None, None
    for kind, start, stop in header.png_chunks(data):
        body = slice(start + 8, stop - 4)
        if kind == b"eXIf":
            block = data[body]
        elif kind == b"iCCP":
            profile = _inflated(data[body].partition(b"\0")[2][1:])
        elif kind == b"pHYs" and len(data[body]) == 9:
            across, down, unit = struct.unpack(">IIB", data[body])
            dpi = (across * _INCH, down * _INCH) if unit == 1 else None  # metres; 0 is none
    return block, profile, dpi


def _inflated(packed: bytes) -> bytes | None:
    unpack = zlib.decompressobj()
    try:
        profile = unpack.decompress(packed, _MOST_PROFILE)
    except zlib.error:
        return None
    return profile if unpack.eof else None


def _read_webp(data: bytes) -> _Found:
    wanted = (b"EXIF", b"ICCP")
    chunks = {k: data[start:stop] for k, start, stop in header.webp_chunks(data) if k in wanted}
    return chunks.get(b"EXIF", b""), chunks.get(b"ICCP"), None


def _read_tiff(data: bytes) -> _Found:
    return data, None, None  # a block of EXIF is nothing else


def _read_avif(data: bytes) -> _Found:
    try:
        with header.open_pillow("AVIF", data) as image:
            return image.info.get("exif", b""), image.info.get("icc_profile"), None
    except Exception:  # broken data makes decoders raise anything
        return b"", None, None


_READERS = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "WebP": _read_webp,
    "TIFF": _read_tiff,
    "AVIF": _read_avif,
}


def attach(encoded: bytes, form: Format, metadata: Metadata, height: int, width: int) -> bytes:
    """The file with the metadata in it.

    encoded: of `height` x `width` pixels in gray, in the format `form`, as `codec` writes it. The
    colour profile becomes one of gray, see `icc.gray`; but WebP holds colour, and keeps only one of
    RGB. WebP has no resolution but that of EXIF. JPEG has no room for EXIF of 64 KiB.
    """
    if metadata == NONE:
        return encoded
    found, dpi = metadata.exif, metadata.dpi
    if form == "webp" and dpi:
        found = found or exif.Exif("<", {})
    block = found.write(width, height, dpi) if found else b""
    profile = metadata.profile or b""
    if form == "webp":
        profile = profile if icc.space(profile) == "RGB" else b""
        return _into_webp(encoded, block, profile, width, height)
    into = _into_png if form == "png" else _into_jpeg
    return into(encoded, block, icc.gray(profile) or b"", dpi)


def _into_png(encoded: bytes, block: bytes, profile: bytes, dpi: Density | None) -> bytes:
    added = b""
    if profile:
        added += png.chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if dpi:
        across, down = (round(value / _INCH) for value in dpi)
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
    image = [(k, encoded[start:stop]) for k, start, stop in header.webp_chunks(encoded)]
    image = [chunk for chunk in image if chunk[0] != b"VP8X"]
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
