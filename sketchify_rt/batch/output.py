"""Decides whether an input must be converted, and where its result goes."""

from __future__ import annotations

import dataclasses
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sketchify_rt import models
from sketchify_rt.batch.journal import Flaw, Journal, Origin
from sketchify_rt.batch.sinks import Folder
from sketchify_rt.errors import InputError, OutputError, SketchifyError
from sketchify_rt.options import Encoding, Look, Options, Painted

# What makes no difference to a result, but for the last bits of a sum.
_HOW = ("device", "threads", "tile", "max_pixels", "batch", "device_memory", "compile", "runtime")


class FailedBefore(SketchifyError):
    """The input caused a failure in an earlier run, and has not changed since."""


class Unsettled(SketchifyError):
    """The input may be incomplete: another program may still write it. The next look decides."""


class Settling:
    """Detects files that are still being written: they change within some seconds.

    It compares two looks by the clock of this process. The modification time of a file cannot be
    used: on a network it comes from another machine, and a copy may have that of its source.
    """

    def __init__(self, seconds: float) -> None:
        """`seconds`: for which a file must have stayed as it is."""
        self._seconds = seconds
        self._before: dict[int, float] = {}  # by hash: when it was first seen as it is
        self._now: dict[int, float] = {}

    def look(self) -> None:
        """Begin a look at all files. Only what the last one was asked for is kept in mind."""
        self._before, self._now = self._now, {}

    def check(self, origin: Origin) -> None:
        """Raises Unsettled."""
        if not self._seconds:
            return
        now, seen = time.monotonic(), hash(origin)
        since = self._now[seen] = self._before.get(seen, now)
        if now - since < self._seconds:
            raise Unsettled(f"{origin.name}: may be incomplete: it has changed recently")


@dataclass(frozen=True)
class Output:
    """The output folder with its journal.

    Attributes:
        folder: The folder.
        journal: Its journal.
        retry: Try inputs again that caused a failure before.
        settling: Detects incomplete inputs of a watch.
        failed_before: Whether to report such a failure again.
    """

    folder: Folder
    journal: Journal
    retry: bool = False
    settling: Settling = field(default_factory=lambda: Settling(0))
    failed_before: Literal["tell", "skip"] = "tell"

    def wants(self, origin: Origin, path: Path) -> bool:
        """Whether the result at `path` is to be made, rather than there already.

        What a run of the journal made is done once, and anew where the input or the settings have
        changed; what failed for good is tried anew within other limits; of other files that are
        there, `Folder.existing` decides.
        Raises FailedBefore, Unsettled, and OutputError where the file may not be replaced.
        """
        if wanted := self._wants(origin, path):
            self.settling.check(origin)
        return wanted

    def _wants(self, origin: Origin, path: Path) -> bool:
        if self.folder.existing == "overwrite":
            return True
        if self.passes_over(origin):
            return False
        if self.journal.failure(origin) is None and self.journal.done(origin, path):
            return False
        if self.folder.existing == "refuse" and self.journal.made(path):
            return True
        return not self.folder.skips(path)

    def passes_over(self, origin: Origin) -> bool:
        """Whether it failed for good before, and is not to be told of again.

        Raises FailedBefore where it is.
        """
        if self.folder.existing == "overwrite" or self.retry:
            return False
        if not self.journal.failed_within(origin):
            return False
        if self.failed_before == "skip":
            return True
        reason = self.journal.failure(origin)
        raise FailedBefore(f"{reason} (failed before; use --retry-failed to try again)")

    def converted(
        self,
        origin: Origin,
        path: Path,
        status: os.stat_result,
        seconds: float,
        flaw: Flaw | None = None,
    ) -> None:
        """Note a result that is about to get the name `path`, see `Journal.converted`.

        Raises OutputError where the line cannot be written, or others have put a file there since
        the result was wanted.
        """
        if not self.journal.made(path) and self.folder.skips(path):
            raise OutputError(f"{path}: was created by another program meanwhile, and is kept")
        self.journal.converted(origin, path, status, seconds, flaw)


def origin(path: Path, page: str = "") -> Origin:
    """The file as it is now, or a page in it; InputError where there is none.

    Nothing that opens a file by its path waits for the other end of a named pipe, or reads a device
    without an end, if it comes after this.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: is a folder, a named pipe or a device; give a file")
        return Origin.of(path, page)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({why})") from error


def settings(options: Options, encoding: Encoding, dpi: int) -> dict[str, Any]:
    """All that results depend on beside their inputs, for the journal. Raises ModelError."""
    told = {k: v for k, v in vars(options).items() if k not in _HOW}
    told["detail"] = options.max_detail
    for name in "look", "blacks", "paper", "levels":
        del told[name]
    if options.whole_look != Look():  # else as in journals from before there were looks
        told["look"] = dataclasses.asdict(options.whole_look)
    if isinstance(options.hint, Painted):
        told["hint"] = options.hint.digest
    if options.mode == "sketch":
        manifest = models.load(options.model).manifest
        told["model"] = [manifest.sha256, manifest.int8_sha256]
        if not manifest.takes_hint:
            del told["hint"]
            if options.binary != "page":  # auto is the threshold
                del told["binary"]
    else:
        del told["model"], told["precision"], told["hint"], told["binary"]
    return told | {"encoding": dataclasses.asdict(encoding), "dpi": dpi}
