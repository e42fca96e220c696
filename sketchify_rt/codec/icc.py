"""ICC profiles for gray pixels (ICC.1:2022)."""

from __future__ import annotations

import struct

_HEADER = 128  # bytes
_MOST_TAGS = 1000
# What a monochrome profile of a display or an input device must have besides its curve, 8.3.4 and
# 8.4.4; `chad` where the measurements were adapted to another white.
_REQUIRED = (b"desc", b"cprt", b"wtpt")
_KEPT = (*_REQUIRED, b"chad")


def space(profile: bytes) -> str | None:
    """Colour space of the pixels, such as "RGB" or "GRAY"; None where the profile is broken."""
    return profile[16:20].decode("latin-1").rstrip() if _tags(profile) else None


def gray(profile: bytes) -> bytes:
    """The profile for the same tones in gray.

    A profile of gray pixels is kept as it is. Of one of RGB pixels by curves and a matrix, the
    curve of green becomes that of gray. One by tables, as of printers, says nothing of gray.

    Returns:
        A profile; empty where there is none for gray.
    """
    kind, tags = space(profile), _tags(profile)
    if kind == "GRAY":
        return profile[: int.from_bytes(profile[:4], "big")]
    if kind != "RGB" or profile[12:16] not in (b"mntr", b"scnr") or profile[20:24] != b"XYZ ":
        return b""
    if not tags.keys() >= {b"gTRC", *_REQUIRED}:
        return b""
    curve = profile[tags[b"gTRC"]]
    if curve[:4] not in (b"curv", b"para"):
        return b""
    kept = {name: profile[tags[name]] for name in _KEPT if name in tags} | {b"kTRC": curve}
    table, values = struct.pack(">I", len(kept)), b""
    behind = _HEADER + 4 + 12 * len(kept)
    for name, value in kept.items():
        table += struct.pack(">4sII", name, behind + len(values), len(value))
        values += value + bytes(-len(value) % 4)
    size = struct.pack(">I", behind + len(values))
    # Bytes 84 to 99 are a checksum, or zero where it is not computed.
    header = size + profile[4:16] + b"GRAY" + profile[20:84] + bytes(16) + profile[100:_HEADER]
    return header + table + values


def _tags(profile: bytes) -> dict[bytes, slice]:
    """Where the value of each tag is; empty where the profile is broken."""
    size, count = (int.from_bytes(profile[at : at + 4], "big") for at in (0, _HEADER))
    table = profile[_HEADER + 4 : _HEADER + 4 + 12 * count]
    sound = profile[36:40] == b"acsp" and size <= len(profile) and count <= _MOST_TAGS
    if not sound or len(table) < 12 * count:
        return {}
    tags = {
        name: slice(start, start + length)
        for name, start, length in struct.iter_unpack(">4sII", table)
    }
    return tags if all(place.stop <= size for place in tags.values()) else {}
