"""The format of a file, and what its header says, before any pixel is decoded.

`probe` is called once for a file, and its result travels with the `File`. Some decoders do not
report damage: OpenCV fills the missing part of a cut JPEG with gray, and Pillow skips checksums of
PNG. So containers with an end mark are read up to it before they are decoded.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

from sketchify_rt.codec import exif
from sketchify_rt.errors import BackendUnavailable

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from sketchify_rt.options import Hint

INCH = 0.0254  # metres

# Chunks of PNG that tell of a picture, and are no part of it. In two kinds of text there may be
# EXIF, as ImageMagick writes it, and XMP.
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_METADATA = (b"eXIf", b"iCCP", b"pHYs", *_PNG_TEXTS)
_RAW_EXIF, _PNG_XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_MOST_TEXT = 2**20  # bytes of it, unpacked
_TRANSPARENCY = {0: 2, 2: 6}  # bytes of tRNS, by the type of colour

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
_SAMPLE_FORMAT, _UNSIGNED, _FLOAT = 339, 1, 3

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
    """Name of the format, whether it is one of READABLE or not; None for unknown bytes."""
    head = data[:1024]
    for pattern, name in _SIGNATURE:
        if pattern.match(head):
            return name
    return None


@dataclass(frozen=True)
class Header:
    """What the header of a file says.

    Attributes:
        format: See `identify`.
        width: Pixels across as stored, of an animated WebP those of the canvas; 0 where unknown.
        height: Pixels down.
        channels: Samples a pixel of JPEG (1 gray, 3 colour, 4 CMYK), PNG, PNM and TIFF; else 0.
        bits: Bits a sample of PNG and TIFF; 8 elsewhere.
        alpha: Whether a WebP has an alpha plane.
        plain: Whether it is a JPEG whose first plane is luma, coded as every decoder knows it, on a
            GPU too: baseline or progressive, Huffman codes, neither RGB nor CMYK.
        text: Whether it is a PNM whose samples are decimal numbers.
        ended: Whether a JPEG has an end mark.
        unknown: Whether it is a TIFF that Pillow does not read, and OpenCV does.
        exif: EXIF block of JPEG, PNG, WebP and AVIF, and a TIFF file itself, see `exif.read`.
        xmp: XMP of JPEG, PNG, WebP, AVIF and TIFF.
        profile: ICC profile of JPEG, WebP and AVIF; of PNG the chunk that has it.
        dpi: Resolution of JPEG and PNG, in pixels per inch, across and down, as stored; as it is in
            the file, so any number.
        problem: What is wrong with the header; empty where nothing is.
    """

    format: str | None
    width: int = 0
    height: int = 0
    channels: int = 0
    bits: int = 8
    alpha: bool = False
    plain: bool = False
    text: bool = False
    ended: bool = True
    unknown: bool = False
    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    dpi: tuple[float, float] | None = None
    problem: str = ""

    @property
    def pixels(self) -> int:
        """0 where the size is unknown."""
        return self.width * self.height

    @property
    def orientation(self) -> int:
        """1 to 8, see `exif.orientation`."""
        return exif.orientation(self.exif, self.xmp) if self.exif or self.xmp else 1


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

    Whether a PNG is complete is not checked, see `sound_png`.

    Args:
        data: Any bytes.
    """
    form = identify(data)
    try:
        reader = _PROBES.get(form or "")
        return reader(data) if reader else Header(form)
    except Exception as error:  # broken data makes readers raise anything
        return Header(form, problem=str(error) or type(error).__name__)


def truncated(data: bytes) -> ValueError:
    """The error for data that ends too early."""
    return ValueError(
        f"it is truncated, the file ends after {len(data)} bytes; get a whole copy of it"
    )


_SCAN, _START, _END = 0xDA, 0xD8, 0xD9
_ADOBE, _TOLD = 0xEE, {0xFE, *range(0xE0, 0xF0)}  # comments, and segments of applications
_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}  # without a length: TEM, and the restarts
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_JFIF_UNITS = {1: 1.0, 2: 2.54}  # an inch, a centimetre; in pixels per inch
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
# What ends the data of a scan: a marker that is no restart; FF 00 is a byte FF of the data.
_NEXT_SEGMENT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
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


def _probe_jpeg(data: bytes) -> Header:
    """Reads the segments up to the first scan.

    Behind it FF D9 is an end mark indeed: scan data escapes FF, and no table holds these bytes. The
    thumbnail in EXIF, which has an end mark of its own, comes before.
    """
    width = height = channels = parts = 0
    huffman = rgb = False
    block = xmp = names = b""
    dpi, profile = None, dict[int, bytes]()
    regular, behind = True, 2
    for marker, at, body in _jpeg_segments(data):
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
                exif=block,
                xmp=xmp,
                profile=b"".join(profile.get(part, b"") for part in range(1, parts + 1)),
                dpi=dpi,
            )
        if marker in _JPEG_FRAMES and len(body) >= 6:
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
            block += body[6:] if block else body  # of more than 64 KiB it goes on in the next
        elif marker == 0xE1 and body.startswith(_XMP_MARK):
            xmp = body.removeprefix(_XMP_MARK)
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]], parts = body[14:], body[13]
    raise truncated(data)


def jpeg_parts(data: bytes) -> list[slice]:
    """Where in a JPEG its picture is: without application segments, but Adobe's, and comments.

    Pillow reads them, and is stricter than libjpeg about them, and about what lies between.
    """
    parts = [slice(0, 2)]
    for marker, at, body in _jpeg_segments(data):
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


_WEBP_METADATA = (b"EXIF", b"XMP ", b"ICCP")


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
    found = {kind: data[place] for kind, place in webp_chunks(data) if kind in _WEBP_METADATA}
    block, xmp, profile = (found.get(kind, b"") for kind in _WEBP_METADATA)
    return Header("WebP", width, height, alpha=alpha, exif=block, xmp=xmp, profile=profile)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, slice]]:
    """Kind of each chunk, and where its body is."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, slice(at + 8, at + 8 + length)
        at += 8 + length + (length & 1)


def _probe_png(data: bytes) -> Header:
    if len(data) < 33:
        raise truncated(data)
    kind, width, height, bits, colour, _, checksum = struct.unpack_from(">4sIIBB3sI", data, 12)
    if kind != b"IHDR" or zlib.crc32(data[12:29]) != checksum:
        raise ValueError("corrupt data, the checksum of its IHDR chunk is wrong")
    found, texts = dict[bytes, bytes](), dict[bytes, bytes]()
    for kind, start, stop in png_chunks(data):
        if kind not in _PNG_METADATA:
            continue
        body = data[start + 8 : stop - 4]
        if zlib.crc32(kind + body).to_bytes(4, "big") != data[stop - 4 : stop]:
            continue
        if kind in _PNG_TEXTS:
            texts |= _png_text(kind, body)
        else:
            found[kind] = body
    dpi, density = None, found.get(b"pHYs", b"")
    if len(density) == 9 and density[8] == 1:
        across, down = struct.unpack_from(">II", density)
        dpi = across * INCH, down * INCH
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 0)
    block = found.get(b"eXIf") or _raw_profile(texts.get(_RAW_EXIF, b""))
    xmp, profile = texts.get(_PNG_XMP, b""), found.get(b"iCCP", b"")
    return Header(
        "PNG", width, height, channels, bits, exif=block, xmp=xmp, profile=profile, dpi=dpi
    )


def _png_text(kind: bytes, body: bytes) -> dict[bytes, bytes]:
    """The text of a chunk by its keyword, if it is EXIF or XMP and not broken; else nothing."""
    keyword, _, text = body.partition(b"\0")
    if keyword not in (_RAW_EXIF, _PNG_XMP):
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


def _probe_pnm(data: bytes) -> Header:
    from sketchify_rt.codec import pnm

    kind, width, height, _, _ = pnm.read_header(data)
    return Header("PNM", width, height, 3 if kind in (3, 6) else 1, text=kind <= 3)


def _probe_tiff(data: bytes) -> Header:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    # Pillow takes a BigTIFF of the byte order MM for a TIFF, hence the mark of II.
    mark = b"II+\0" + data[4:16] if 43 in data[2:4] else b"II*\0" + data[4:8]
    tags = ImageFileDirectory_v2(mark, data[:2])
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    size = int(tags.get(_WIDTH, 0)), int(tags.get(_LENGTH, 0))
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    # Pillow gives 12 bits as if they were 16.
    deep = len(bits) > 1 and bits[0] > 8
    unknown = bits[0] == 12 or not _is_known_to_pillow(data, deep, tags)
    if unknown and not _is_known_to_opencv(bits, tags):
        planes = " in separate planes" if tags.get(_PLANAR_CONFIGURATION) == _SEPARATE else ""
        kind = _PHOTOMETRICS.get(tags.get(_PHOTOMETRIC, -1), "of unknown colours")
        number = " of floating point" if tags.get(_SAMPLE_FORMAT, (1,))[0] == _FLOAT else ""
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
        unknown=unknown,
        exif=data,
        xmp=xmp if isinstance(xmp, bytes) else b"",
    )


def _is_known_to_pillow(data: bytes, deep: bool, tags: Mapping[int, Any]) -> bool:
    """Whether Pillow reads a TIFF, and in a mode that has a white. deep: colour of 16 bits."""
    if deep and tags.get(_PLANAR_CONFIGURATION) == _SEPARATE:
        return False
    try:
        with open_pillow("TIFF", io.BytesIO(data)) as image:
            return image.mode not in ("I", "F")
    except Exception:  # for instance SyntaxError: unknown pixel mode
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


def _probe_pillow(form: str, data: bytes) -> Header:
    with open_pillow(form, io.BytesIO(data)) as image:
        kept = image.info if form == "AVIF" else {}
        block, xmp, profile = (kept.get(key) or b"" for key in ("exif", "xmp", "icc_profile"))
        return Header(form, *image.size, exif=block, xmp=xmp, profile=profile)


def open_pillow(form: str, source: BinaryIO) -> ImageFile:
    """Opens a file of a format that Pillow reads.

    Not by Image.open, whose own pixel limit is a setting of the process and would come before ours.
    """
    plugin = importlib.import_module(f"PIL.{form.title()}ImagePlugin")
    image: ImageFile = getattr(plugin, f"{form.title()}ImageFile")(source)
    if not isinstance(image.info.get("xmp", b""), bytes):  # of a TIFF; Pillow would stumble
        del image.info["xmp"]
    return image


_PROBES: dict[str, Callable[[bytes], Header]] = {
    "JPEG": _probe_jpeg,
    "PNG": _probe_png,
    "WebP": _probe_webp,
    "PNM": _probe_pnm,
    "TIFF": _probe_tiff,
    **{form: partial(_probe_pillow, form) for form in ("BMP", "GIF", "AVIF")},
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


def sound_png(data: bytes) -> list[slice]:
    """Checks a PNG to its end, with the checksums of what is part of the picture.

    Returns:
        Where in the file its parts are: the signature and the chunks that no decoder can do
        without, and transparency. Pillow refuses a picture over any other chunk that is broken or
        large.

    Raises:
        ValueError: it is damaged.
    """
    crc32 = isal_zlib().crc32
    view = memoryview(data)
    parts = [slice(0, 8)]
    for kind, start, stop in png_chunks(data):
        if stop > len(data):
            break
        if kind[0] & 0x20 and kind != b"tRNS":  # lower case: ancillary
            continue
        if crc32(view[start + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop], "big"):
            name = kind.decode("latin-1")
            raise ValueError(f"corrupt data, the checksum of its {name} chunk is wrong")
        if kind == b"tRNS" and stop - start - 12 < _TRANSPARENCY.get(data[25], 1):
            continue
        if start == parts[-1].stop:
            parts[-1] = slice(parts[-1].start, stop)
        else:
            parts.append(slice(start, stop))
        if kind == b"IEND":
            return parts
    raise truncated(data)


def opened(data: bytes, parts: Sequence[slice]) -> BinaryIO:
    """Parts of a file as one that can be read, without a copy of it. parts: start and stop."""
    return io.BufferedReader(_Parts(data, parts))


class _Parts(io.RawIOBase):
    def __init__(self, data: bytes, parts: Sequence[slice]) -> None:
        self._data, self._parts, self._at = memoryview(data), parts, 0
        sizes = (part.stop - part.start for part in parts)
        self._offsets = list(accumulate(sizes, initial=0))  # of each part; and the size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # from its start and where it is; nobody asks for its end
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if not 0 <= self._at < self._offsets[-1]:
            return 0
        index = bisect_right(self._offsets, self._at) - 1
        part = self._parts[index]
        start = part.start + self._at - self._offsets[index]
        found = self._data[start : min(part.stop, start + len(buffer))]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
