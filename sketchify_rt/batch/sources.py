"""Inputs as typed by a user -> the images to convert, each with the name of its result.

Names of results, relative to the output folder and without the ending of the output format:

* The contents of a folder keep their structure. A lone folder's contents come right below the
  output folder; when there is more than one input, each folder's come below its own name.
* What a pattern finds keeps its structure below the pattern's part before the first wildcard.
* Files named one by one lie flat; if two of them would get one name, all of them keep their
  structure below the folder they have in common.
* Twins, which would still write one file (a.jpg and a.png; A.png and a.png, since file systems
  exist that hold these for the same), all keep their own ending: a.jpg.png and a.png.png. Those
  whose full names are the same too add a hash of where they lie: a.jpg~1f3a9c02.png. So a name
  hangs on the set of inputs, never on the order in which they are converted.

Archives, PDF files and videos keep their own names, as the name of a result or of the folder of
results: book.cbz, scan.pdf/page-1.png. Where other results have a folder of that name, the hash is
added as well, and to x.avi, whose sketches are x.avi.mkv, where there is a video of that name.

Each file is taken once, however often it is named or linked to as part of a folder.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Container, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

from sketchify_rt.errors import OptionsError

ENDINGS = frozenset(
    "avif bmp dib gif heic heif hif jfif jpe jpeg jpg jxl pbm pgm png pnm ppm psb psd tif tiff "  # noqa: SIM905
    "webp".split()
)
Kind = Literal["image", "archive", "pdf", "video"]

# By ending; all others are taken for images, and told by their content.
_KINDS: dict[str, Kind] = {
    "cbz": "archive",
    "zip": "archive",
    "pdf": "pdf",
    **dict.fromkeys(("avi", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "webm"), "video"),
}
# Of these only comics are looked for: what else is in a folder beside pictures may be anything.
_LOOKED_FOR = ENDINGS | {"cbz"}
_JUNK = frozenset({"desktop.ini", "thumbs.db", "__macosx", "@eadir", "$recycle.bin"})


class Job(NamedTuple):
    """One file to convert.

    source: its path as the user would write it; stem: path of the result below the output folder,
    of an image without the ending of the output format, else whole.
    """

    source: Path
    stem: str

    @property
    def kind(self) -> Kind:
        """What it is, told by its ending."""
        return _kind(self.source.name)


class Problem(NamedTuple):
    """An input, or a folder below one, that gave no images, and why."""

    source: Path
    reason: str


class _Pick(NamedTuple):
    """Files of one folder: names only, so that a million of them take some 70 MB."""

    folder: Path
    below: str
    names: list[str]


class Sources:
    """Iterable of `Job`s, as often as wanted; `len` is their number.

    problems: inputs that gave nothing; exist: whether any of the inputs exists.
    """

    def __init__(self, inputs: Iterable[str], output: Path) -> None:
        """Look through the folders.

        inputs: files, folders (recursed, links followed, loops survived) and patterns with
            * ? [ ] and **. A named file is taken whatever it is called; in folders and in what
            patterns find, hidden files, junk and files without an ending of an image or of a comic
            (cbz) are left out.
        output: the output folder; it need not exist. It is left out of the folders searched, so
            that a second run does not convert the results of the first.
        Raises OptionsError where the output folder is one of the folders to convert or to search.
        """
        self.problems: list[Problem] = []
        self.exist = False
        try:
            self._output = output.resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError of a loop of links, to Python 3.12
            raise OptionsError(f"{output} cannot be an output folder: {error}") from error
        self._walked: set[Path] = set()  # folders taken as a whole, resolved
        self._taken: dict[Path, set[str]] = {}  # single files taken, by resolved folder
        self._picks: dict[str, list[_Pick]] = {}  # by folder of the results, case folded

        given = list(dict.fromkeys(inputs))
        self._add_files([Path(name) for name in given if name and _is_file(name)])
        for name in given:
            path = Path(name)
            if not name:
                self.problems.append(Problem(path, "an empty name is no input"))
            elif path.is_dir():
                self.exist = True
                self._add_folder(path, "" if len(given) == 1 else _own_name(path))
            elif not os.path.lexists(name):
                self._add_pattern(path)

    def __len__(self) -> int:
        return sum(len(pick.names) for picks in self._picks.values() for pick in picks)

    def __iter__(self) -> Iterator[Job]:
        paths = (key.split("/") for key in self._picks)
        folders = {path for parts in paths for path in accumulate(parts, "{}/{}".format)}
        for picks in self._picks.values():
            yield from _name(picks, folders)

    def holds(self, path: Path) -> bool:
        """Whether `path` is one of the inputs, or would be found among them by the next run."""
        folder = path.parent.resolve()
        return path.name in self._taken.get(folder, ()) or (
            folder in self._walked and _is_looked_for(path.name)
        )

    def _add_files(self, paths: list[Path]) -> None:
        self.exist = bool(paths)
        unique = {(path.parent.resolve(), path.name): path for path in reversed(paths)}
        files = dict(reversed(unique.items()))
        if not files:
            return
        flat = len({_stem(name).casefold() for _, name in files}) == len(files)
        common = os.path.commonpath([folder for folder, _ in files])
        for (folder, name), path in files.items():
            self._taken.setdefault(folder, set()).add(name)
            below = "" if flat else _relative(folder, Path(common))
            self._pick(path.parent, below, [name])

    def _add_folder(self, root: Path, below: str) -> None:
        if root.resolve() == self._output:
            raise OptionsError(
                f"{root} is both an input and the output folder; choose another output folder"
            )
        if not self._walk(root, below):
            self.problems.append(Problem(root, "the folder has no images in it"))

    def _walk(self, root: Path, root_below: str) -> bool:
        """Take the images in and below `root`; whether there were any, or a problem to tell of."""
        seen = False
        waiting = [(root, root_below)]
        while waiting:
            folder, below = waiting.pop()
            real = folder.resolve()
            if real in self._walked or real == self._output:
                seen |= folder == root
                continue
            self._walked.add(real)
            try:
                files, folders = _list(folder)
            except OSError as error:
                seen = True
                reason = f"the folder cannot be read: {error.strerror}"
                self.problems.append(Problem(folder, reason))
                continue
            seen |= bool(files)
            taken = self._taken.get(real, ())
            self._pick(folder, below, [name for name in files if name not in taken])
            waiting += [(folder / name, _join(below, name)) for name in reversed(folders)]
        return seen

    def _add_pattern(self, pattern: Path) -> None:
        fixed = next((i for i, part in enumerate(pattern.parts) if glob.has_magic(part)), None)
        if fixed is None:
            self.problems.append(Problem(pattern, "no such file or folder"))
            return
        base, rest = Path(*pattern.parts[:fixed]), Path(*pattern.parts[fixed:])
        if base.resolve() == self._output:
            raise OptionsError(
                f"the pattern {pattern} searches the output folder. Choose another output folder"
            )
        try:
            files, folders = self._find(base, rest)
        except (ValueError, OSError) as error:
            self.problems.append(Problem(pattern, f"no pattern that can be searched: {error}"))
            return
        if not files and not folders:
            self.problems.append(Problem(pattern, "no image has a name like this"))
            return
        self.exist = True
        for parent in sorted(files):
            folder = Path(parent)
            real = folder.resolve()
            taken = self._taken.setdefault(real, set())
            names = sorted({name for name in files[parent] if not self.holds(real / name)})
            taken.update(names)
            self._pick(folder, _relative(folder, base), names)
        for folder in sorted(folders):
            self._walk(folder, _relative(folder, base))

    def _find(self, base: Path, rest: Path) -> tuple[dict[str, list[str]], list[Path]]:
        """Names of the files that match, by folder, and the folders that match."""
        # A pattern that spells out an ending means it; "*" and "page.*" mean the images.
        any_ending = rest.suffix != "" and not glob.has_magic(rest.suffix)
        results = self._output if base.resolve() in self._output.parents else None
        files: dict[str, list[str]] = {}
        folders: list[Path] = []
        for hit in base.glob(str(rest)):
            if any(map(_is_junk, hit.relative_to(base).parts)):
                continue
            if results and hit.resolve().is_relative_to(results):
                continue
            if hit.is_dir():
                folders.append(hit)
            elif any_ending or _is_looked_for(hit.name):
                files.setdefault(str(hit.parent), []).append(hit.name)
        return files, folders

    def _pick(self, folder: Path, below: str, names: list[str]) -> None:
        if names:
            self._picks.setdefault(below.casefold(), []).append(_Pick(folder, below, names))


def _name(picks: list[_Pick], folders: Container[str] = ()) -> Iterator[Job]:
    """Jobs of all files whose results go into one folder. folders: of all results, case folded."""

    def names() -> Iterator[str]:
        return (name for pick in picks for name in pick.names)

    twins = _repeated(_stem(name).casefold() for name in names())
    # a.jpg.webp, whose plain stem is what a twin a.jpg will be called, is a twin of it.
    nested = {stem for name in names() if _is_image(stem := _stem(name).casefold())}
    twins |= nested.intersection(name.casefold() for name in names())
    same = _repeated(name.casefold() for name in names() if _stem(name).casefold() in twins)
    # x.avi, whose sketches are x.avi.mkv, where there is an x.avi.mkv besides.
    videos = {name.casefold() for name in names() if _kind(name) == "video"}
    same |= (wrapped := {name for name in videos if f"{name}.mkv" in videos})
    twins |= wrapped
    for folder, below, files in picks:
        for name in files:
            label = _stem(name)
            # What is no image may become a folder of pages.
            crossed = _kind(name) != "image" and _join(below, name).casefold() in folders
            if crossed or label.casefold() in twins:
                label = name
                if crossed or name.casefold() in same:
                    place = os.fsencode(folder.resolve() / name)
                    mark = "~" + hashlib.blake2b(place, digest_size=4).hexdigest()
                    cut = len(name) if _kind(name) == "image" else name.rindex(".")
                    label = name[:cut] + mark + name[cut:]
            yield Job(folder / name, _join(below, label))


def _repeated(words: Iterable[str]) -> set[str]:
    once: set[str] = set()
    again: set[str] = set()
    for word in words:
        (again if word in once else once).add(word)
    return again


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the images and of the folders in `folder`, without junk."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_junk(entry.name):
                continue
            if _is_folder(entry):
                folders.append(entry.name)
            # A broken link or a named pipe is taken, so that it is reported, not passed over.
            elif _is_looked_for(entry.name):
                files.append(entry.name)
    return sorted(files), sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(name: str) -> bool:
    return os.path.lexists(name) and not Path(name).is_dir()


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _is_image(name: str) -> bool:
    return not _is_junk(name) and "." in name and _ending(name) in ENDINGS


def _is_looked_for(name: str) -> bool:
    return not _is_junk(name) and "." in name and _ending(name) in _LOOKED_FOR


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _kind(name: str) -> Kind:
    return _KINDS.get(_ending(name), "image") if "." in name else "image"


def _stem(name: str) -> str:
    """The name without its ending, if that is an image's: "page.v2" is whole."""
    return name.rpartition(".")[0] if _is_image(name) else name


def _own_name(folder: Path) -> str:
    name = folder.absolute().name
    return folder.resolve().name if name == ".." else name


def _relative(folder: Path, base: Path) -> str:
    relative = str(folder.relative_to(base))
    return "" if relative == "." else relative


def _join(below: str, name: str) -> str:
    return f"{below}/{name}" if below else name
