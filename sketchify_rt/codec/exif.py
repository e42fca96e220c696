"""EXIF: what is kept of a block, and how it is written for the sketch.

A block is a TIFF file without pixels: directories of fields (CIPA DC-008). Fields are moved as the
bytes they are, in their byte order: a round trip through the values of Pillow would lose their
types, and turn text that is not ASCII into question marks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_HEADS = {order: head for head, order in _ORDERS.items()}

# Bytes a value of each type, BYTE to IFD, and UTF-8 of version 3.0.
_SIZES = {**dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)), 129: 1}
_SHORT, _LONG, _RATIONAL = 3, 4, 5

_ORIENTATION = 274
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_CENTIMETRE = 3
_PROFILE = 34675
_WRITTEN_ANEW = {_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _PROFILE}
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_PIXEL_X_DIMENSION, _PIXEL_Y_DIMENSION = 40962, 40963

# Of the first directory what is about the picture, since a TIFF file has all about its pixels there
# too: DocumentName, ImageDescription, Make, Model, PageName, Software, DateTime, Artist,
# HostComputer, Rating, RatingPercent, Copyright, and what Windows writes, XPTitle to XPSubject.
_KEPT = {269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}
_KEPT |= _WRITTEN_ANEW | {_EXIF, _GPS}

# MakerNote has offsets that no longer hold, and often a preview of the original; SubjectArea and
# SubjectLocation are places in the original.
_LEFT_OUT = {37500, 37396, 41492}

_DIRECTORIES = {_EXIF, _GPS, _INTEROPERABILITY}
# Directories within directories. No tag comes twice on the way down, so that no loop can be.
_Tree = Mapping[int, "_Tree"]
_TREE: _Tree = {_EXIF: {_INTEROPERABILITY: {}}, _GPS: {}}


class Field(NamedTuple):
    """The values of one tag, as they are stored, and their type."""

    kind: int
    data: bytes


Directory = Mapping[int, "Field | Directory"]


@dataclass(frozen=True)
class Exif:
    """What is kept of a block: fields by tag, in byte order "<" or ">", directories in them."""

    order: str
    fields: Directory

    @property
    def orientation(self) -> int:
        """1..8, 1 where it is not told."""
        value = self._number(_ORIENTATION) or 1
        return int(value) if value in range(1, 9) else 1

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch, across and down, of the stored picture; None where it is not told."""
        x, y = self._number(_X_RESOLUTION), self._number(_Y_RESOLUTION)
        unit = self._number(_RESOLUTION_UNIT)
        if x is None or y is None or unit == 1:  # pixels a unit that nobody knows
            return None
        per_inch = 2.54 if unit == _CENTIMETRE else 1.0
        return x * per_inch, y * per_inch

    @property
    def profile(self) -> bytes | None:
        """The ICC profile of a TIFF file."""
        field = self.fields.get(_PROFILE)
        return field.data if isinstance(field, Field) else None

    def _number(self, tag: int) -> float | None:
        field = self.fields.get(tag)
        if not isinstance(field, Field):
            return None
        if field.kind == _RATIONAL:
            above, below = struct.unpack_from(self.order + "II", field.data)
            return above / below if below else None
        code = {_SHORT: "H", _LONG: "I"}.get(field.kind)
        return float(struct.unpack_from(self.order + code, field.data)[0]) if code else None

    def write(self, width: int, height: int, dpi: tuple[float, float] | None) -> bytes:
        """The block of an upright picture of `width` x `height` pixels, empty if it has no fields.

        dpi: pixels per inch, across and down, below 100,000; None for none.
        """
        fields = {tag: field for tag, field in self.fields.items() if tag not in _WRITTEN_ANEW}
        if dpi is not None:
            fields[_X_RESOLUTION], fields[_Y_RESOLUTION] = map(self._rational, dpi)
            fields[_RESOLUTION_UNIT] = Field(_SHORT, struct.pack(self.order + "H", 2))
        if not fields:
            return b""
        inner = fields.get(_EXIF)
        if isinstance(inner, dict):
            sides = {_PIXEL_X_DIMENSION: width, _PIXEL_Y_DIMENSION: height}
            fields[_EXIF] = inner | {
                tag: Field(_LONG, self._long(side)) for tag, side in sides.items()
            }
        return _HEADS[self.order] + self._long(8) + self._directory(fields, 8)

    def _directory(self, fields: Directory, at: int) -> bytes:
        """The entries, to stand at that offset, and behind them the values that are too long."""
        entries, values = bytearray(), bytearray()
        behind = at + 2 + 12 * len(fields) + 4
        for tag, field in sorted(fields.items()):
            place = behind + len(values)
            if isinstance(field, Field):
                kind, value = field
                count = len(value) // _SIZES[kind]
            else:
                kind, count, value = _LONG, 1, self._directory(field, place)
            entries += struct.pack(self.order + "HHI", tag, kind, count)
            if isinstance(field, Field) and len(value) <= 4:
                entries += value.ljust(4, b"\0")
            else:
                entries += self._long(place)
                values += value + bytes(len(value) % 2)  # all begin at even offsets
        return struct.pack(self.order + "H", len(fields)) + entries + self._long(0) + values

    def _long(self, value: int) -> bytes:
        return struct.pack(self.order + "I", value)

    def _rational(self, value: float) -> Field:
        near = Fraction(value).limit_denominator(10_000)
        return Field(_RATIONAL, self._long(near.numerator) + self._long(near.denominator))


def read(block: bytes, kept: Set[int] = _KEPT) -> Exif | None:
    """What is kept of a block, with or without the mark of JPEG, or of a TIFF file.

    Left out is what is broken or outside the block, and the thumbnail, which shows the original.
    None where nothing is left.
    """
    tiff = block.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    fields = _Reader(tiff, order).directory(4, _TREE, kept)
    return Exif(order, fields) if fields else None


def orientation(block: bytes) -> int:
    """1..8, of a block as `read` takes it; 1 where it is not told, or the block is broken."""
    found = read(block, {_ORIENTATION})
    return found.orientation if found else 1


class _Reader:
    """Takes in all no more bytes than there are, however many fields point at the same."""

    def __init__(self, tiff: bytes, order: str) -> None:
        self._tiff = tiff
        self._order = order
        self._left = len(tiff)

    def directory(
        self, pointer: int, tree: _Tree, kept: Set[int] | None = None
    ) -> dict[int, Field | Directory]:
        """Fields of the directory that the offset at `pointer` leads to. kept: None for all."""
        (at,) = struct.unpack_from(self._order + "I", self._tiff, pointer)
        count = self._tiff[at : at + 2]
        if len(count) < 2:
            return {}
        (entries,) = struct.unpack(self._order + "H", count)
        fields: dict[int, Field | Directory] = {}
        for entry in range(at + 2, min(at + 2 + 12 * entries, len(self._tiff) - 11), 12):
            tag, kind, number = struct.unpack_from(self._order + "HHI", self._tiff, entry)
            if tag in _LEFT_OUT or (kept is not None and tag not in kept):
                continue
            found: Field | Directory | None = None
            if tag in tree:
                found = self.directory(entry + 8, tree[tag])
            elif tag not in _DIRECTORIES:
                found = self._field(entry + 8, kind, number)
            if found:
                fields[tag] = found
        return fields

    def _field(self, at: int, kind: int, number: int) -> Field | None:
        """So many values, there or where the offset there leads."""
        length = _SIZES.get(kind, 0) * number
        if length > 4:
            (at,) = struct.unpack_from(self._order + "I", self._tiff, at)
        value = self._tiff[at : at + length]
        if not value or len(value) < length or length > self._left:
            return None
        self._left -= length
        return Field(kind, value)
