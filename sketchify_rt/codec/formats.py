"""Formats of image files: how they are recognised, and what a header says."""

from __future__ import annotations

import importlib.util
import re
import struct
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

from sketchify_rt.codec import exif

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

INCH = 0.0254  # metres

READABLE = ("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "AVIF", "PNM", "PSD", "HEIC", "JPEG XL")

_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WebP"),
    # also without its file header, as in a clipboard
    (rb"BM|\x28\x00\x00\x00.{8}\x01\x00[\x01\x04\x08\x10\x18\x20]\x00", "BMP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
    (rb"....ftyp(avif|avis|(mif1|msf1|miaf)....([\x20-\x7e]{4})*?avif)", "AVIF"),
    (rb"....ftyp(hei|hev|mif1|msf1|miaf)", "HEIC"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (rb"8BPS\x00[\x01\x02]", "PSD"),
    (rb"P[1-6][\s#]", "PNM"),
    # not read, but worth their name in the message
    (rb"P[fF]\s", "PFM"),
    (rb"P7\s", "PAM"),
    (rb"....ftyp", "an MP4 video"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"gimp xcf", "GIMP (XCF)"),
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
        channels: Samples a pixel of JPEG (1 gray, 3 colour, 4 CMYK), PNG, PNM, TIFF and PSD; else
            0.
        bits: Bits a sample of PNG, TIFF and PSD; 8 elsewhere.
        alpha: Whether a WebP or PSD has an alpha plane.
        animated: Whether there are more frames or pages than the first, which alone is read.
        upright: Whether the decoder turns the picture, whatever EXIF and XMP say.
        plain: Whether it is a JPEG whose first plane is luma, coded as every decoder knows it, on a
            GPU too: baseline or progressive, Huffman codes, neither RGB nor CMYK.
        text: Whether it is a PNM whose samples are decimal numbers.
        ended: Whether a JPEG has an end mark.
        unknown: Whether it is a TIFF that Pillow does not read, and OpenCV does.
        exif: EXIF block, and a TIFF file itself, see `exif.read`.
        xmp: XMP.
        profile: ICC profile; of PNG the chunk that has it. Not that of JPEG XL, see
            `jxl.described`.
        dpi: Resolution of JPEG, PNG and PSD, in pixels per inch, across and down, as stored; as it
            is in the file, so any number.
        problem: What is wrong with the header; empty where nothing is.
    """

    format: str | None
    width: int = 0
    height: int = 0
    channels: int = 0
    bits: int = 8
    alpha: bool = False
    animated: bool = False
    upright: bool = False
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
        if self.upright or not (self.exif or self.xmp):
            return 1
        return exif.orientation(self.exif, self.xmp)


def truncated(data: bytes) -> ValueError:
    """The error for data that ends too early."""
    return ValueError(
        f"it is truncated, the file ends after {len(data)} bytes; get a whole copy of it"
    )


_PILLOW_VALUE_ERRORS = ("not enough image data", "invalid palette size")  # of BMP


def reason(error: Exception, data: bytes) -> str:
    """What an error of a decoder says about a file, and what to do; our own are ValueErrors."""
    told = str(error) or type(error).__name__
    if isinstance(error, ValueError) and told not in _PILLOW_VALUE_ERRORS:
        return told
    if "truncated" in told or isinstance(error, struct.error):
        return str(truncated(data))
    if told.startswith("decoder error"):  # of TIFF: also a compression that libtiff lacks
        return "its data is corrupt, or compressed in an unknown way; save it anew as PNG"
    if told.startswith(("Unsupported", "unsupported")):
        return f"{told}; save it as PNG"
    return f"corrupt data ({told}); get a whole copy of it, or save it anew as PNG"


def import_extra(module: str, extra: str) -> ModuleType:
    """A module of a package that is an extra of this one.

    Raises:
        ValueError: It cannot be imported; with the remedy.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"a package is missing ({error}). To fix: pip install 'sketchify-rt[{extra}]'"
        ) from error


def installed() -> list[str]:
    """The extras for formats that can be imported."""
    modules = {"heic": "pillow_heif", "jxl": "pillow_jxl"}
    return [extra for extra, module in modules.items() if importlib.util.find_spec(module)]


def open_pillow(form: str, source: BinaryIO) -> ImageFile:
    """Opens a file of a format that Pillow reads.

    Not by Image.open, whose own pixel limit is a setting of the process and would come before ours.
    """
    if form == "HEIC":
        image: ImageFile = import_extra("pillow_heif.as_plugin", "heic").HeifImageFile(source)
    else:
        name = form.title()
        plugin = importlib.import_module(f"PIL.{name}ImagePlugin")
        if form == "BMP":
            name = "Bmp" if source.read(2) == b"BM" else "Dib"
            source.seek(0)
        image = getattr(plugin, f"{name}ImageFile")(source)
    if not isinstance(image.info.get("xmp", b""), bytes):  # of a TIFF; Pillow would stumble
        del image.info["xmp"]
    return image
