"""Names in archives: where a member lies, and the order in which people read."""

from __future__ import annotations

import re

_DRIVE = re.compile(r"[A-Za-z]:(/|$)")
_SEPARATOR = re.compile(r"[/\\]")
# In Shift-JIS, GBK and Big5 a backslash may be the second half of a character, whose first half is
# no ASCII: a cover called 表紙.jpg is not a file in a folder.
_SEPARATOR_OF_BYTES = re.compile(r"/|(?<![^\x00-\x7f])\\")


def clean(name: str, *, known: bool = True) -> str | None:
    """The name with "/" between its parts and at the end of a folder's, and no part empty or ".".

    known: whether the encoding of the name is; if not, each character stands for one byte.
    None where a file of that name would not lie below the folder that the archive is unpacked to.
    """
    name = (_SEPARATOR if known else _SEPARATOR_OF_BYTES).sub("/", name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or _DRIVE.match(name) or "\0" in name or ".." in parts:
        return None
    if name.endswith("/"):
        return "/".join(parts) + "/"
    return "/".join(parts) or None


def reading_order(name: str) -> list[list[str | tuple[int, str]]]:
    """A key to sort clean names by as people do: page 2 before page 10, whatever the case."""
    return [
        # Numbers as digits, the longer the larger: int() refuses those of thousands of digits.
        [
            (len(token.lstrip("0")), token.lstrip("0")) if place % 2 else token
            for place, token in enumerate(re.split("([0-9]+)", part.casefold()))
        ]
        for part in name.split("/")
    ]
