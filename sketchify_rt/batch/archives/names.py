"""Names in archives: where a member lies, and extra fields."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

UNICODE_PATH = 0x7075
"""Kind of the extra field with the name in UTF-8, beside one in a code page."""

_DRIVE = re.compile(r"[A-Za-z]:(/|$)")
_SEPARATOR = re.compile(r"[/\\]")
# In Shift-JIS, GBK and Big5 a backslash may be the second half of a character, whose first half is
# no ASCII: a cover called 表紙.jpg is not a file in a folder.
_SEPARATOR_OF_BYTES = re.compile(r"/|(?<![^\x00-\x7f])\\")


def clean(name: str, *, is_unicode: bool = True) -> str | None:
    """Returns the path of a member below the folder that the archive is unpacked to.

    Args:
        name: Its path as it is in the archive.
        is_unicode: Whether its characters are known. Else each stands for a byte.

    Returns:
        The path with "/" between the parts, and at the end if it is a folder. No part is empty, "."
        or "..". None if the path leads out of the folder.
    """
    name = (_SEPARATOR if is_unicode else _SEPARATOR_OF_BYTES).sub("/", name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or _DRIVE.match(name) or "\0" in name or ".." in parts:
        return None
    if name.endswith("/"):
        return "/".join(parts) + "/"
    return "/".join(parts) or None


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the kind of each extra field, and the field with its header of 4 bytes."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        yield kind, extra[: 4 + size]
        extra = extra[4 + size :]


def unicode_path(name: bytes, extra: bytes) -> str | None:
    """Returns the name that is in a Unicode Path field.

    Args:
        name: The name outside of the field. If it has changed, the field is out of date.
        extra: All extra fields.

    Returns:
        The name; None if there is no such field, or if it is damaged or out of date.
    """
    for kind, field in extra_fields(extra):
        body = field[4:]
        if kind == UNICODE_PATH and body[:5] == struct.pack("<BL", 1, zlib.crc32(name)):
            try:
                return body[5:].decode() or None
            except UnicodeDecodeError:
                return None
    return None
