"""Finds the pictures to convert, and settles the names of their results before the run.

Where results go, below the output folder:

* The contents of a folder keep their structure. With one input, they are right in the output
  folder; with several, the contents of each folder are in a folder of its name.
* What a pattern finds keeps its structure below the part of the pattern before the first wildcard.
* Files that were named one by one are right in the output folder. If two of them would have one
  name, all of them keep their structure below the folder that they have in common.

`result_names` describes the names. Each file is converted once, however often it is named or found.
An input that cannot be read becomes a `Problem`, and the others are converted.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sketchify_rt.batch.kinds import (
    ENDINGS,
    ending_of,
    is_junk,
    is_looked_for,
    is_passed_over,
    remedy_for,
    stem_of,
)
from sketchify_rt.batch.result_names import Folders, Job, Pick, fold, join, named
from sketchify_rt.errors import OptionsError
from sketchify_rt.options import Format

__all__ = ["ENDINGS", "Job", "Problem", "Sources"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BROKEN_LINK = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

Parts = tuple[str, ...]


class Problem(NamedTuple):
    """An input, or something in a folder, that cannot be converted.

    Attributes:
        source: Its path.
        reason: What is wrong, and what to do.
    """

    source: Path
    reason: str


class Sources:
    """The jobs of all inputs. Can be iterated repeatedly; `len` is the number of jobs.

    Attributes:
        exist: Whether any of the inputs exists.
    """

    def __init__(
        self,
        inputs: Iterable[str],
        output: Path,
        format: Format = "png",  # noqa: A002 (as in Encoding)
    ) -> None:
        """Looks through the inputs.

        Args:
            inputs: Files, folders and patterns with * ? [ ] and **. Named files are taken whatever
                their ending. Folders are searched with all their subfolders. There, and in what
                patterns find, files are left out that are hidden, junk, or have no ending of a
                picture or of a comic, unless a pattern spells out the ending. Links are followed.
                A part of a pattern that exists literally, as "[1] a" may, is no pattern.
            output: The output folder. It need not exist. It is not searched, so that a second run
                does not convert the results of the first.
            format: Ending of the results of pictures.

        Raises:
            OptionsError: The output folder is to be converted or searched.
        """
        self._problems: dict[Problem, None] = {}
        self._told = 0  # how often there was a problem; several inputs may have the same
        self.exist = False
        try:
            self._output = output.resolve()
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a link to itself
            raise OptionsError(f"{output} cannot be an output folder: {error}") from error
        self._format = format
        self._walked: set[Path] = set()  # folders taken as a whole, resolved
        self._taken: dict[Path, set[str]] = {}  # single files taken, by resolved folder
        self._passed_over: dict[Path, set[str]] = {}  # by resolved folder
        self._picks: dict[str, list[Pick]] = {}  # by folder of the results, folded

        kinds = {name: self._look(name) for name in dict.fromkeys(inputs)}
        self._add_files([Path(name) for name, kind in kinds.items() if kind == "file"])
        for name, kind in kinds.items():
            path = Path(name)
            if kind == "folder":
                self.exist = True
                self._add_folder(path, "" if len(kinds) == 1 else _own_name(path))
            elif kind == "pattern":
                self._add_pattern(path)

    def __len__(self) -> int:
        return sum(len(pick.names) for picks in self._picks.values() for pick in picks)

    def __iter__(self) -> Iterator[Job]:
        folders = Folders(self._picks)
        for picks in self._picks.values():
            yield from named(picks, folders, [self._format])

    @property
    def problems(self) -> list[Problem]:
        """What cannot be converted."""
        return list(self._problems)

    @property
    def passed_over(self) -> Counter[str]:
        """Files that were found, but not taken, although a user may want it: numbers by ending."""
        return Counter(
            ending_of(name)
            for folder, names in self._passed_over.items()
            for name in names - self._taken.get(folder, set())
        )

    def passed_over_lines(self) -> list[str]:
        """Describes `passed_over` with what to do: one line, or none."""
        found: dict[str, list[str]] = {}
        for ending, count in sorted(self.passed_over.items(), key=lambda it: (-it[1], it[0])):
            found.setdefault(remedy_for(ending), []).append(f"{count} .{ending}")
        if not found:
            return []
        kinds = ", ".join(f"{' and '.join(counts)} ({what})" for what, counts in found.items())
        total = self.passed_over.total()
        return [f"passed over {total} file{'s' if total > 1 else ''}: {kinds}"]

    def holds(self, path: Path) -> bool:
        """Tells whether `path` is an input, or would be one for the next run."""
        return self._holds(_real(path.parent), path.name)

    def _holds(self, folder: Path, name: str) -> bool:
        return name in self._taken.get(folder, ()) or (
            folder in self._walked and is_looked_for(name)
        )

    def _tell(self, source: Path, reason: str | OSError) -> None:
        if isinstance(reason, OSError):
            reason = f"cannot be read: {reason.strerror}"
        self._problems[Problem(source, reason)] = None
        self._told += 1

    def _look(self, name: str) -> str:
        """Returns "file", "folder", "pattern", or "" with a problem."""
        path = Path(name)
        try:
            if not name:
                raise ValueError("an empty name is no input")
            return "folder" if stat.S_ISDIR(os.stat(name).st_mode) else "file"  # noqa: PTH116
        except ValueError as error:
            self._tell(path, f"no file can have this name: {error}" if name else str(error))
        except OSError as error:
            if error.errno in _BROKEN_LINK and os.path.islink(name):  # noqa: PTH114
                return "file"  # its conversion tells what is wrong
            if _URL.match(name):
                is_file = name.lower().startswith("file:")
                remedy = "Give its path" if is_file else "Download it first, see docs/batch.md"
                self._tell(path, f"{name} is a URL, and only files are read. {remedy}")
            elif glob.has_magic(name):
                return "pattern"
            elif isinstance(error, (FileNotFoundError, NotADirectoryError)):
                self._tell(path, "no such file or folder")
            else:
                self._tell(path, error)
        return ""

    def _add_files(self, paths: list[Path]) -> None:
        unique: dict[tuple[Path, str], Path] = {}
        for path in paths:
            unique.setdefault((_real(path.parent), path.name), path)
        if not unique:
            return
        self.exist = True
        flat = len({fold(stem_of(name)) for _, name in unique}) == len(unique)
        common = os.path.commonpath([folder for folder, _ in unique])
        for (folder, name), path in unique.items():
            self._taken.setdefault(folder, set()).add(name)
            self._pick(path.parent, "" if flat else _relative(folder, Path(common)), [name])

    def _add_folder(self, root: Path, below: str) -> None:
        if _real(root) == self._output:
            raise OptionsError(
                f"{root} is both an input and the output folder; choose another output folder"
            )
        before = self._told
        if not self._walk(root, below) and self._told == before:
            self._tell(root, "the folder has no images in it")

    def _walk(self, root: Path, root_below: str) -> bool:
        """Takes the pictures in and below `root`. Returns whether there were any."""
        found = False
        waiting = [(root, root_below)]
        while waiting:
            folder, below = waiting.pop()
            real = _real(folder)
            if real in self._walked or self._is_result(real, root):
                found |= folder == root
                continue
            self._walked.add(real)
            files, folders = self._list(folder)
            names = self._choose(real, files)
            found |= bool(names)
            taken = self._taken.get(real, ())
            self._pick(folder, below, [name for name in names if name not in taken])
            waiting += [(folder / name, join(below, name)) for name in reversed(folders)]
        return found

    def _is_result(self, folder: Path, root: Path) -> bool:
        """Tells whether a folder, resolved, that was found below `root` is not searched."""
        if folder == self._output:
            return True
        return self._output in folder.parents and self._output not in _real(root).parents

    def _choose(self, folder: Path, files: Iterable[str]) -> list[str]:
        """Returns the files that are looked for, and counts others. folder: resolved."""
        chosen = []
        for name in files:
            if is_looked_for(name):
                chosen.append(name)
            elif is_passed_over(name):
                self._passed_over.setdefault(folder, set()).add(name)
        return chosen

    def _list(self, folder: Path) -> tuple[list[str], list[str]]:
        """Returns the names of files and folders in a folder, sorted, without junk."""
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not is_junk(entry.name):
                        (folders if self._is_folder(entry) else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):  # of a pattern, or deleted meanwhile
            pass
        except OSError as error:
            self._tell(folder, f"the folder cannot be read: {error.strerror}")
        return sorted(files), sorted(folders)

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:
            # A broken link or a named pipe called a.jpg is taken, and its conversion tells of it.
            if not is_looked_for(entry.name):
                self._tell(Path(entry.path), error)
            return False

    def _add_pattern(self, pattern: Path) -> None:
        parts = pattern.parts
        fixed = next(
            (
                place
                for place, part in enumerate(parts)
                if glob.has_magic(part) and not os.path.lexists(Path(*parts[: place + 1]))
            ),
            None,
        )
        if fixed is None:
            self._tell(pattern, "no such file or folder")
            return
        base, rest = Path(*parts[:fixed]), parts[fixed:]
        if _real(base) == self._output:
            raise OptionsError(
                f"the pattern {pattern} searches the output folder. Choose another output folder"
            )
        if ".." in rest:
            self._tell(pattern, "a pattern cannot have .. behind a wildcard")
            return
        before = self._told
        files, folders = self._search(base, rest)
        if files or folders:
            self.exist = True
        elif self._told == before:
            self._tell(pattern, "no image has a name like this")
        for folder in sorted(files, key=str):
            real = _real(folder)
            names = sorted(name for name in files[folder] if not self._holds(real, name))
            self._taken.setdefault(real, set()).update(names)
            self._pick(folder, _relative(folder, base), names)
        for folder in sorted(folders, key=str):
            self._walk(folder, _relative(folder, base))

    def _search(self, base: Path, pattern: Parts) -> tuple[dict[Path, list[str]], list[Path]]:
        """Searches a folder for what matches the parts of a pattern.

        Returns:
            Names of files, by folder; folders.
        """
        # A pattern that spells out an ending means it; "*" and "page.*" mean the pictures.
        ending = Path(pattern[-1]).suffix
        any_ending = ending != "" and not glob.has_magic(ending)
        files: dict[Path, list[str]] = {}
        folders: list[Path] = []
        seen: set[tuple[Path, frozenset[Parts]]] = set()
        # Folders, with what is left of the pattern for their contents.
        waiting = [(base, frozenset({pattern}))]
        while waiting:
            folder, rests = waiting.pop()
            rests = rests.union(*map(_without_stars, rests))
            real = _real(folder)
            if (real, rests) in seen or self._is_result(real, base):
                continue
            seen.add((real, rests))
            if () in rests:
                folders.append(folder)
                continue
            in_it, below = self._list(folder)
            hits = {name for name, left in _matches(in_it, rests) if left == ()}
            if names := sorted(hits) if any_ending else self._choose(real, hits):
                files[folder] = names
            further: dict[str, set[Parts]] = {}
            for name, left in _matches(below, rests):
                further.setdefault(name, set()).add(left)
            waiting += [(folder / name, frozenset(lefts)) for name, lefts in further.items()]
        return files, folders

    def _pick(self, folder: Path, below: str, names: list[str]) -> None:
        if names:
            self._picks.setdefault(fold(below), []).append(Pick(folder, below, names))


def _without_stars(pattern: Parts) -> set[Parts]:
    """Returns what is left of a pattern if ** at its beginning stands for no folder."""
    lefts = set()
    while pattern and pattern[0] == "**":
        pattern = pattern[1:]
        lefts.add(pattern)
    return lefts


def _matches(names: list[str], patterns: Iterable[Parts]) -> Iterator[tuple[str, Parts]]:
    """Yields each name that matches the first part of a pattern, with what is left of it."""
    for pattern in patterns:
        part = pattern[0]
        if part == "**":
            yield from ((name, pattern) for name in names)
        elif part in names:
            yield part, pattern[1:]
        else:
            # "[Group] *.png" may mean brackets. Then no name is likely to match it otherwise.
            found = fnmatch.filter(names, part) or fnmatch.filter(names, part.replace("[", "[[]"))
            yield from ((name, pattern[1:]) for name in found)


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))  # unlike Path.resolve, it takes links to themselves


def _own_name(folder: Path) -> str:
    name = folder.absolute().name
    return _real(folder).name if name == ".." else name


def _relative(folder: Path, base: Path) -> str:
    relative = str(folder.relative_to(base))
    return "" if relative == "." else relative
