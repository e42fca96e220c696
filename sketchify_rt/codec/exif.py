"""EXIF: what is kept of a block, and how it is written for the sketch.

A block is a TIFF file without pixels: directories of fields (CIPA DC-008). Fields are copied as
bytes, in their byte order. Pillow, which decodes and encodes them, would lose their types, and turn
text that is not ASCII into question marks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

# The last two are wrong, and read as by Pillow.
_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II\0*": "<", b"MM*\0": ">"}

# Bytes a value of each type, BYTE to IFD, and UTF-8 of version 3.0.
_SIZES = {**dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)), 129: 1}
_SHORT, _LONG, _RATIONAL = 3, 4, 5
# By type. A number that ought to be a SHORT is taken in any of these, as other readers do.
_NUMBERS = {
    1: "B",
    _SHORT: "H",
    _LONG: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    _RATIONAL: "II",
    10: "ii",
}

# The directories, and in which other one the offset of each is.
FIRST, EXIF, GPS, INTEROPERABILITY = 0, 34665, 34853, 40965
_OUTER = {EXIF: FIRST, GPS: FIRST, INTEROPERABILITY: EXIF}

_ORIENTATION = 274
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_NO_UNIT, _INCH, _CENTIMETRE = 1, 2, 3
_PROFILE = 34675
_WRITTEN_ANEW = {_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _PROFILE}
_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION = 40962, 40963

# Of the first directory what is about the picture, since a TIFF file has all about its pixels there
# too: DocumentName, ImageDescription, Make, Model, PageName, Software, DateTime, Artist,
# HostComputer, Rating, RatingPercent, Copyright, and what Windows writes, XPTitle to XPSubject.
_KEPT = {269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}
_KEPT |= _WRITTEN_ANEW

# MakerNote has offsets that no longer hold, and often a preview of the original; SubjectArea and
# SubjectLocation are places in the original; offsets of directories are written anew.
_LEFT_OUT = {37500, 37396, 41492, *_OUTER}


class Field(NamedTuple):
    """The values of one tag, as they are stored, and their type.

    Attributes:
        kind: Number of the type, such as 2 for ASCII.
        data: The values, in the byte order of the block.
    """

    kind: int
    data: bytes


_NO_FIELD = Field(0, b"")


@dataclass(frozen=True)
class Exif:
    """What is kept of a block.

    Attributes:
        order: Byte order, "<" or ">", as the module `struct` takes it.
        fields: By directory and tag; offsets of directories are not among them.
    """

    order: str
    fields: Mapping[tuple[int, int], Field]

    @property
    def orientation(self) -> int:
        """1 to 8; 1 where there is none."""
        return _known(self._number(_ORIENTATION))

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch, across and down, of the stored picture; None where there are none."""
        x, y, unit = map(self._number, (_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT))
        per_inch = 2.54 if unit == _CENTIMETRE else 1.0
        return (x * per_inch, y * per_inch) if x and y and unit != _NO_UNIT else None

    @property
    def profile(self) -> bytes:
        """The ICC profile of a TIFF file; empty where there is none."""
        return self.fields.get((FIRST, _PROFILE), _NO_FIELD).data

    def _number(self, tag: int) -> float:
        """The value of a field in the first directory; 0 where there is none."""
        kind, data = self.fields.get((FIRST, tag), _NO_FIELD)
        if kind not in _NUMBERS:
            return 0.0
        value, *below = struct.unpack_from(self.order + _NUMBERS[kind], data)
        if below:
            return value / below[0] if below[0] else 0.0
        return float(value)

    def write(self, width: int, height: int, dpi: tuple[float, float] | None) -> bytes:
        """The block of the sketch.

        Args:
            width: Pixels across, upright.
            height: Pixels down.
            dpi: Pixels per inch, across and down, below 100,000; None for none.

        Returns:
            The block without the mark that it has in JPEG; empty where there are no fields.
        """
        order = self.order
        fields = dict(self.fields)
        for tag in _WRITTEN_ANEW:
            fields.pop((FIRST, tag), None)
        if dpi is not None:
            for tag, value in zip((_X_RESOLUTION, _Y_RESOLUTION), dpi, strict=True):
                ratio = Fraction(value).limit_denominator(10_000).as_integer_ratio()
                fields[FIRST, tag] = Field(_RATIONAL, struct.pack(order + "II", *ratio))
            fields[FIRST, _RESOLUTION_UNIT] = Field(_SHORT, struct.pack(order + "H", _INCH))
        if not fields:
            return b""
        for inner, outer in reversed(_OUTER.items()):
            if any(where == inner for where, _ in fields):
                fields[outer, inner] = Field(_LONG, bytes(4))
        if (FIRST, EXIF) in fields:
            for tag, side in ((_PIXEL_X_DIMENSION, width), (_PIXEL_Y_DIMENSION, height)):
                fields[EXIF, tag] = Field(_LONG, struct.pack(order + "I", side))
        head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
        return head + self._directory(fields, FIRST, 8)

    def _directory(self, fields: Mapping[tuple[int, int], Field], which: int, start: int) -> bytes:
        """One directory, to stand at that offset, and behind it what does not fit into 4 bytes."""
        own = sorted((tag, field) for (where, tag), field in fields.items() if where == which)
        entries, behind = struct.pack(self.order + "H", len(own)), b""
        for tag, (kind, value) in own:
            count = len(value) // _SIZES[kind]
            place = start + 2 + 12 * len(own) + 4 + len(behind)
            if tag in _OUTER:
                value = self._directory(fields, tag, place)
            if len(value) > 4:
                behind += value + bytes(len(value) % 2)  # all begin at even offsets
                value = struct.pack(self.order + "I", place)
            entries += struct.pack(self.order + "HHI4s", tag, kind, count, value)
        return entries + bytes(4) + behind


NONE = Exif("<", {})

_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([0-9])""")


def orientation(block: bytes, xmp: bytes) -> int:
    """Orientation of the picture of a file, 1 to 8; 1 where neither tells one.

    Args:
        block: EXIF, see `read`; any bytes.
        xmp: XMP, which is asked where EXIF has no such field; any bytes.
    """
    found = read(block)
    if (FIRST, _ORIENTATION) in found.fields:
        return found.orientation
    match = _XMP_ORIENTATION.search(xmp)
    return _known(int(match[1])) if match else 1


def of_pil(image: Image) -> int:
    """The same of a Pillow image, whose EXIF may have been changed since it was opened."""
    info = image.info
    try:
        value = image.getexif().get(_ORIENTATION)  # or that of XMP, as most write it
    except Exception:  # a block that Pillow finds broken
        return orientation(info.get("exif") or b"", info.get("xmp") or b"")
    if value is None:
        return orientation(b"", info.get("xmp") or b"")
    if isinstance(value, (bytes, tuple)):  # of type BYTE; of several numbers
        value = value[0] if value else 1
    return _known(value)


def _known(value: object) -> int:
    return next((known for known in range(2, 9) if known == value), 1)


def is_block(data: bytes) -> bool:
    """Whether it begins as EXIF without the mark that it has in JPEG."""
    return data[:4] in _ORDERS


def read(block: bytes) -> Exif:
    """What is kept of a block.

    Fields that are broken or outside the block are left out, and so is the thumbnail, which shows
    the original. The fields have together no more bytes than the block, however many of them point
    at the same place.

    Args:
        block: With or without the mark that it has in JPEG, or a TIFF file; any bytes.
    """
    tiff = block.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return NONE
    fields: dict[tuple[int, int], Field] = {}
    offsets, left = {FIRST: tiff[4:8]}, len(tiff)
    for which in (FIRST, *_OUTER):
        if which not in offsets:
            continue
        (start,) = struct.unpack(order + "I", offsets[which])
        (count,) = struct.unpack(order + "H", tiff[start : start + 2].ljust(2, b"\0"))
        entries = tiff[start + 2 : start + 2 + 12 * count]
        whole = entries[: len(entries) // 12 * 12]
        for tag, kind, number, value in struct.iter_unpack(order + "HHI4s", whole):
            if _OUTER.get(tag) == which:
                offsets[tag] = value
            length = _SIZES.get(kind, 0) * number
            if tag in _LEFT_OUT or (which == FIRST and tag not in _KEPT) or not 0 < length <= left:
                continue
            if length > 4:
                (place,) = struct.unpack(order + "I", value)
                if place + length > len(tiff):
                    continue
                value = tiff[place : place + length]
            if (which, tag) not in fields:  # of twins the first counts, as it does in Pillow
                fields[which, tag] = Field(kind, value[:length])
                left -= length
    return Exif(order, fields) if fields else NONE
