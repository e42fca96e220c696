"""An image file, and what its header says before any pixel is decoded.

`probe` is called once for a file, and its result travels with the `File`. Some decoders do not
report damage: OpenCV fills the missing part of a cut JPEG with gray, and Pillow skips checksums of
PNG. So containers with an end mark are read up to it before they are decoded.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from sketchify_rt.codec import boxes, gif, jpeg, jxl, png_chunks, tiff
from sketchify_rt.codec.formats import Header, identify, open_pillow, reason, truncated

if TYPE_CHECKING:
    from sketchify_rt.options import Hint


@dataclass(frozen=True)
class File:
    """The bytes of an image file.

    Attributes:
        name: For messages.
        data: The bytes.
        hint: Of this image alone, see `inputs.hinted`; None for that of the `Sketchifier`.
    """

    name: str
    data: bytes
    hint: Hint | None = None

    @cached_property
    def header(self) -> Header:
        """See `probe`."""
        return probe(self.data)


def probe(data: bytes) -> Header:
    """Reads the header of a file; what is wrong with a damaged one is in `Header.problem`.

    Whether a PNG is complete is not checked, see `png_chunks.picture_parts`.

    Args:
        data: Any bytes.
    """
    form = identify(data)
    try:
        reader = _PROBES.get(form or "")
        return reader(data) if reader else Header(form)
    except Exception as error:  # broken data makes readers raise anything
        return Header(form, problem=reason(error, data))


# With the flag that tells of each; libwebp leaves out what its flag does not tell of.
_WEBP_METADATA = {b"EXIF": 0x08, b"XMP ": 0x04, b"ICCP": 0x20}
_WEBP_ANIMATION, _WEBP_ALPHA = 0x02, 0x10


def _probe_webp(data: bytes) -> Header:
    if len(data) < max(30, 8 + int.from_bytes(data[4:8], "little")):
        raise truncated(data)
    kind, flags = data[12:16], 0
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        flags = data[20]
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        flags = _WEBP_ALPHA * (bits >> 28 & 1)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("corrupt data, no frame where one should begin")
    found = {
        kind: data[place]
        for kind, place in webp_chunks(data)
        if flags & _WEBP_METADATA.get(kind, 0)
    }
    block, xmp, profile = (found.get(kind, b"") for kind in _WEBP_METADATA)
    return Header(
        "WebP",
        width,
        height,
        alpha=bool(flags & _WEBP_ALPHA),
        animated=bool(flags & _WEBP_ANIMATION),
        exif=block,
        xmp=xmp,
        profile=profile,
    )


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, slice]]:
    """Kind of each chunk, and where its body is."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, slice(at + 8, at + 8 + length)
        at += 8 + length + (length & 1)


def _probe_pnm(data: bytes) -> Header:
    from sketchify_rt.codec import pnm

    kind, width, height, _, _ = pnm.read_header(data)
    return Header("PNM", width, height, 3 if kind in (3, 6) else 1, text=kind <= 3)


def _probe_psd(data: bytes) -> Header:
    from sketchify_rt.codec import psd

    return psd.probe(data)


def _probe_heic(data: bytes) -> Header:
    for _ in boxes.walk(data, (b"meta", b"mdat", b"moov")):  # which libheif leaves unchecked
        pass
    return replace(_probe_pillow("HEIC", data), upright=True)


def _probe_pillow(form: str, data: bytes) -> Header:
    with open_pillow(form, io.BytesIO(data)) as image:
        kept = image.info if form in ("AVIF", "HEIC") else {}
        block, xmp, profile = (kept.get(key) or b"" for key in ("exif", "xmp", "icc_profile"))
        animated = getattr(image, "is_animated", False)
        return Header(form, *image.size, animated=animated, exif=block, xmp=xmp, profile=profile)


_PROBES: dict[str, Callable[[bytes], Header]] = {
    "JPEG": jpeg.probe,
    "PNG": png_chunks.probe,
    "WebP": _probe_webp,
    "PNM": _probe_pnm,
    "GIF": gif.probe,
    "TIFF": tiff.probe,
    "PSD": _probe_psd,
    "HEIC": _probe_heic,
    "JPEG XL": jxl.probe,
    **{form: partial(_probe_pillow, form) for form in ("BMP", "AVIF")},
}
