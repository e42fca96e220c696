"""Names of results, which never collide.

Here the output format is PNG:

* The result of a picture has its name without the ending: a.jpg becomes a.png.
* An archive, a PDF file or a video keeps its name, as the name of its result or of its folder of
  results: book.cbz, scan.pdf/page-1.png. Archives of other kinds, as book.cbr, become book.cbz.
* If two results would be one file, or a file and a folder would have one name, whatever the case of
  the letters, inputs keep their own ending: a.jpg and a.gif become a.jpg.png and a.gif.png, and
  book.cbr becomes book.cbr.cbz. A book.cbz beside it does not change.
* If that is not enough, a hash of the path of the input is added: a.jpg~1f3a9c02.png.

So names depend on the set of inputs, and not on their order or on when they are converted.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sketchify_rt.batch.kinds import Kind, archive_name, is_image, kind_of, stem_of, video_name


class Job(NamedTuple):
    """One file to convert.

    Attributes:
        source: Its path as the user would write it.
        stem: Path of the result below the output folder, of a picture without the ending of the
            output format.
    """

    source: Path
    stem: str

    @property
    def kind(self) -> Kind:
        """What it is, by its ending."""
        return kind_of(self.source.name)


class Pick(NamedTuple):
    """Files of one folder.

    Only their names are kept, so that a million of them take some 70 MB.

    Attributes:
        folder: Where they are.
        below: Folder of their results, relative to the output folder.
        names: Their names.
    """

    folder: Path
    below: str
    names: list[str]


class Folders:
    """Paths of folders with all their parents.

    A set of all parents could take gigabytes: an archive may have names of 32,000 parts.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        """Takes paths that `fold` returned."""
        self._paths = sorted(f"{path}/" for path in paths)

    def __contains__(self, path: str) -> bool:
        return self._starts(f"{path}/")

    def has_any_in(self, path: str) -> bool:
        """Tells whether there is a folder in a folder; "" is the one that paths are relative to."""
        if not path:
            return any(path != "/" for path in self._paths)
        return self._starts(f"{path}/", without_itself=True)

    def _starts(self, path: str, *, without_itself: bool = False) -> bool:
        find = bisect_right if without_itself else bisect_left
        place = find(self._paths, path)
        return place < len(self._paths) and self._paths[place].startswith(path)


def fold(name: str) -> str:
    """Returns what is equal for names that some file systems take for the same."""
    return unicodedata.normalize("NFC", name.casefold())


def join(below: str, name: str) -> str:
    """Returns the path of a file in a folder; "" is the output folder."""
    return f"{below}/{name}" if below else name


def named(picks: Sequence[Pick], folders: Folders, formats: Sequence[str]) -> Iterator[Job]:
    """Names the results that go into one folder.

    Args:
        picks: All their inputs. Their `below` may differ in case.
        folders: All folders of results.
        formats: Endings that pictures may get.

    Yields:
        The jobs, in the order of the inputs.
    """
    # a.jpg.webp keeps its ending beside a.jpg, which would get its name if there were an a.png.
    stems = (fold(stem_of(name)) for pick in picks for name in pick.names)
    nested = {stem for stem in stems if is_image(stem)}
    nested &= {fold(name) for pick in picks for name in pick.names} if nested else set()
    changes: dict[tuple[int, str], int] = {}
    crowded = folders.has_any_in(fold(picks[0].below))

    def candidates() -> Iterator[_Candidate]:
        for place, pick in enumerate(picks):
            for name in pick.names:
                least = int(bool(nested) and fold(stem_of(name)) in nested)
                yield _Candidate(place, pick, name, changes.get((place, name), least))

    def changing() -> Iterator[_Candidate]:
        """Yields the candidates of least rank for each name that several have."""
        clashes = _repeated(key for it in candidates() for key in it.keys)
        ranks: dict[str, int] = {}
        for it in candidates() if clashes else ():
            for key in clashes.intersection(it.keys):
                ranks[key] = min(it.rank, ranks.get(key, it.rank))
        for it in candidates() if clashes or crowded else ():
            if not it.is_last and (
                any(ranks.get(key) == it.rank for key in it.keys)
                or (crowded and any(path in folders for path in it.paths(formats)))
            ):
                yield it

    while changed := {(it.place, it.name): it.change + 1 for it in changing()}:
        changes |= changed
    for it in candidates():
        yield Job(it.pick.folder / it.name, join(it.pick.below, it.label))


class _Candidate:
    """A file with a name for its result, which may have to change.

    Attributes:
        place, pick, name: Which file it is.
        change: How often the name of the result has changed.
        is_last: It cannot change once more.
        label: The name, of a picture without the ending of the output format.
        keys: What no other result may be called, folded.
        rank: Of those that would have one name, those of the lowest rank change.
    """

    __slots__ = ("change", "is_last", "keys", "label", "name", "pick", "place", "rank")

    def __init__(self, place: int, pick: Pick, name: str, change: int) -> None:
        self.place, self.pick, self.name, self.change = place, pick, name, change
        kind = kind_of(name)
        if kind == "image":
            short, full = stem_of(name), name
        else:
            short, full = archive_name(name, keep=False), archive_name(name, keep=True)
        self.is_last = change > (short != full)
        self.label = self._marked(full) if self.is_last else full if change else short
        result = video_name(self.label) if kind == "video" else self.label
        own = fold(self.label)
        self.keys = (own,) if result == self.label else (own, fold(result))
        self.rank = 3 * change + (self.label == name) + (result == name)

    def _marked(self, full: str) -> str:
        place = os.fsencode(os.path.join(os.path.realpath(self.pick.folder), self.name))  # noqa: PTH118
        mark = "~" + hashlib.blake2b(place, digest_size=4).hexdigest()
        if kind_of(self.name) == "image":
            return full + mark
        stem, _, ending = full.rpartition(".")
        return f"{stem}{mark}.{ending}"

    def paths(self, formats: Sequence[str]) -> Iterator[str]:
        """Yields the paths, folded, that no folder may have."""
        below = fold(self.pick.below)
        endings = [f".{ending}" for ending in formats] if kind_of(self.name) == "image" else [""]
        for key in self.keys:
            for ending in endings:
                yield join(below, key + ending)


def _repeated(words: Iterable[str]) -> set[str]:
    once: set[str] = set()
    again: set[str] = set()
    for word in words:
        (again if word in once else once).add(word)
    return again
