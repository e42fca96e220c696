"""Finds hints in a folder: the hint of an input is a picture with the name of its result."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sketchify_rt.batch.kinds import is_image, stem_of
from sketchify_rt.errors import InputError, SketchifyError

if TYPE_CHECKING:
    from sketchify_rt.inputs import File, Loaded, Picture


class HintFolder:
    """Pictures in and below a folder, by the names of results. Thread-safe.

    A folder in it is listed when the first input needs it. The last 64 lists are kept.
    """

    def __init__(self, folder: Path) -> None:
        """Lists nothing yet.

        Args:
            folder: The folder. It need not have a hint for each input.
        """
        self.folder = folder
        self._listed = functools.lru_cache(maxsize=64)(_pictures)

    def find(self, stem: str) -> Path | None:
        """Returns the picture with that name and any readable ending, or None if no file has it.

        Args:
            stem: Path of a result below the output folder, without its ending.

        Raises:
            InputError: There are several, or the folder cannot be read.
        """
        path = self.folder / stem
        found = self._listed(path.parent).get(path.name, [])
        if len(found) > 1:
            raise InputError(
                f"{path.parent}: there must be one hint for it: got {' and '.join(found)}; keep one"
            )
        return path.parent / found[0] if found else None

    def holds(self, stem: str) -> bool:
        """Tells whether there is a hint for the result of that name, or a folder of hints."""
        folder = os.path.isdir(self.folder / stem)  # noqa: PTH112 (which may raise)
        return folder or self.find(stem) is not None


def give(image: Loaded, hint: Path) -> File | Picture:
    """Returns the image with a picture as its hint. Raises InputError if it cannot be read."""
    from sketchify_rt import inputs  # it imports NumPy, which --help does not need

    try:
        painted = inputs.painted(hint)
    except SketchifyError as error:
        raise InputError(
            f"its hint cannot be read: {error}. Replace the hint, or remove it to use auto"
        ) from error
    return inputs.hinted(image, painted)


def _pictures(folder: Path) -> dict[str, list[str]]:
    """Returns the names of the pictures in a folder by their stems; {} if there is no folder."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(
            f"{folder}: the hints cannot be read ({error.strerror}). Change its permissions, or "
            "use another folder"
        ) from error
    found: dict[str, list[str]] = {}
    for name in names:
        if is_image(name):
            found.setdefault(stem_of(name), []).append(name)
    return found
