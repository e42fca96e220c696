"""Which source a page is of, and which sources are kept for validation."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from sketchify_rt.errors import OptionsError


def sources_of(names: Iterable[str], pattern: str | None) -> dict[str, str]:
    """The source of each name.

    names: paths with slashes. pattern: a regular expression that is searched in a name; its first
    group, or else all that it matches, is the source. None: the folder that the file lies in; a
    file in no folder is a source of its own. Raises OptionsError where the pattern is none, or
    finds no source in a name: a wrong guess would put pages of one book into two splits.
    """
    if pattern is None:
        parents = {name: str(PurePosixPath(name).parent) for name in names}
        return {name: name if parent == "." else parent for name, parent in parents.items()}
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise OptionsError(f"{pattern!r} is no regular expression: {error}") from error
    found = {name: _first(expression.search(name)) for name in names}
    without = [name for name, source in found.items() if not source]
    if without:
        raise OptionsError(
            f"{pattern!r} finds no source in the name of {len(without)} of {len(found)} pictures, "
            f"the first of them {without[0]}; widen it, as in {pattern}|cover"
        )
    return found


def _first(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    return next(iter(match.groups()), None) or match[0]


def validation(sources: Mapping[str, str], share: float, globs: Sequence[str]) -> set[str]:
    """The sources that are kept for validation.

    sources: by name. globs: if there are any, the sources of the names they match, * matching
    slashes as well. Else about a `share`, 0..1, of all sources, each by a hash of its own name: it
    stays where it is, whatever comes or goes. Raises OptionsError for another share, and for a glob
    that matches no name.
    """
    if not 0 <= share <= 1:
        raise OptionsError(f"the share for validation must be 0 to 1, not {share:g}")
    if not globs:
        return {source for source in sources.values() if _place(source) < share}
    chosen = set[str]()
    for glob in globs:
        matching = {source for name, source in sources.items() if fnmatchcase(name, glob)}
        if not matching:
            raise OptionsError(f"no picture has a name like {glob}, to be kept for validation")
        chosen |= matching
    return chosen


def _place(source: str) -> float:
    """Uniform in 0..1."""
    return int.from_bytes(hashlib.sha256(os.fsencode(source)).digest()[:6]) / 2**48
