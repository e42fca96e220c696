"""ICC profiles for gray pixels (ICC.1:2022)."""

from __future__ import annotations

import struct

_HEADER = 128  # bytes
_MOST_TAGS = 1000
# What a monochrome profile of a display or an input device must have besides its curve, 8.3.4 and
# 8.4.4; `chad` where the measurements were adapted to another white.
_REQUIRED = (b"desc", b"cprt", b"wtpt")
_OPTIONAL = (b"chad",)


def space(profile: bytes) -> str | None:
    """Colour space of the pixels, such as "RGB" or "GRAY"; None where it is no sound profile."""
    try:
        _tags(profile)
    except (ValueError, struct.error):
        return None
    return profile[16:20].decode("latin-1").rstrip()


def gray(profile: bytes) -> bytes | None:
    """The profile for the same tones in gray; None where there is none.

    One of gray pixels is kept as it is. Of one of RGB pixels by curves and a matrix, the curve of
    green becomes that of gray. One by tables, as of printers, says nothing of gray.
    """
    kind = space(profile)
    if kind == "GRAY":
        return profile[: int.from_bytes(profile[:4], "big")]
    if kind != "RGB" or profile[12:16] not in (b"mntr", b"scnr") or profile[20:24] != b"XYZ ":
        return None
    tags = _tags(profile)
    if not tags.keys() >= {b"gTRC", *_REQUIRED}:
        return None
    if bytes(tags[b"gTRC"][:4]) not in (b"curv", b"para"):
        return None
    kept = {name: tags[name] for name in (*_REQUIRED, *_OPTIONAL) if name in tags}
    return _write(profile[:_HEADER], {**kept, b"kTRC": tags[b"gTRC"]})


def _tags(profile: bytes) -> dict[bytes, memoryview]:
    """Raises ValueError or struct.error."""
    view = memoryview(profile)  # a thousand tags may share their bytes
    (size,) = struct.unpack_from(">I", profile)
    (count,) = struct.unpack_from(">I", profile, _HEADER)
    if profile[36:40] != b"acsp" or size > len(profile) or count > _MOST_TAGS:
        raise ValueError("no ICC profile, or cut")
    tags = {}
    for at in range(_HEADER + 4, _HEADER + 4 + 12 * count, 12):
        name, start, length = struct.unpack_from(">4sII", profile, at)
        if start + length > size:
            raise ValueError("a tag outside the profile")
        tags[name] = view[start : start + length]
    return tags


def _write(header: bytes, tags: dict[bytes, memoryview]) -> bytes:
    table, values = bytearray(struct.pack(">I", len(tags))), bytearray()
    behind = _HEADER + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, behind + len(values), len(value))
        values += bytes(value) + bytes(-len(value) % 4)
    size = struct.pack(">I", behind + len(values))
    # Bytes 84 to 99 are a checksum, or zero where it is not computed.
    fixed = size + header[4:16] + b"GRAY" + header[20:84] + bytes(16) + header[100:]
    return fixed + table + values
