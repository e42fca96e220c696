"""The output folder of a job: its journal, and the files in the making."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sketchify_rt.batch.item import Item, checksum
from sketchify_rt.batch.journal import Journal, Record, Status
from sketchify_rt.batch.resume import (
    Convert,
    Fail,
    Rules,
    Seen,
    Settings,
    Skip,
    Wait,
    decide,
)
from sketchify_rt.batch.staging import Staged, Staging
from sketchify_rt.errors import InputError, OutputError
from sketchify_rt.files import explained, explaining
from sketchify_rt.options import Format

_CRASHES = 2  # after which an item is decoded in a process of its own


class Settling:
    """Detects files that are still being written: they change within some seconds.

    It compares two looks by the clock of this process. The modification time of a file cannot be
    used: on a network it comes from another machine, and a copy may have that of its source.
    """

    def __init__(self, seconds: float) -> None:
        """Takes the number of seconds for which a file must stay unchanged; 0 for no check."""
        self._seconds = seconds
        self._before: dict[int, float] = {}  # by hash: when it was first seen as it is
        self._now: dict[int, float] = {}

    def look(self) -> None:
        """Begins a look at all files. Files that the last look did not check are forgotten."""
        self._before, self._now = self._now, {}

    def settled(self, item: Item) -> bool:
        """Returns whether the item has stayed unchanged for long enough."""
        if not self._seconds:
            return True
        now, seen = time.monotonic(), hash((item.path, item.look()))
        since = self._now[seen] = self._before.get(seen, now)
        return now - since >= self._seconds


@dataclass(frozen=True)
class Output:
    """Where results go, and what is known of them. Thread-safe.

    Attributes:
        root: The output folder.
        format: Ending of images.
        journal: Its journal.
        staging: Files in the making.
        settings: All that results depend on besides their inputs.
        rules: What to do with results that exist.
        protected: Tells whether a path is an input, and must not be written.
        settling: Detects incomplete inputs of a watch.
        crashes: How many runs crashed with an item in work, by the name of its staged file.
    """

    root: Path
    format: Format
    journal: Journal
    staging: Staging
    settings: Settings
    rules: Rules = field(default_factory=Rules)
    protected: Callable[[Path], bool] = lambda path: False
    settling: Settling = field(default_factory=lambda: Settling(0))
    crashes: dict[str, int] = field(default_factory=dict)

    def open(self) -> None:
        """Opens the journal and the staging folder. Raises OutputError."""
        self.journal.open()
        self.journal.crashed(self.staging.open())
        self.crashes.update(self.journal.crashes())

    def reopen(self) -> None:
        """Creates again what was deleted since `open`. Raises OutputError."""
        self.journal.open()
        if not self.staging.folder.exists():
            self.staging.open()

    @property
    def suspects(self) -> bool:
        """Whether an item was in work when two runs crashed."""
        return any(times >= _CRASHES for times in self.crashes.values())

    def close(self) -> None:
        """Closes them."""
        self.journal.close()
        self.staging.close()

    def path(self, item: Item) -> Path:
        """Returns the path of a result. Raises OutputError if it is an input."""
        path = self.root / item.output
        if self.protected(path):
            raise OutputError(
                f"{path}: would overwrite an input file. Choose another output folder or format"
            )
        return path

    def decide(self, item: Item) -> Convert | Skip | Wait:
        """Decides whether an item must be converted.

        Raises:
            FailedBefore: It caused a failure in an earlier run.
            InputError: It cannot be looked at.
            OutputError: Its result would overwrite a file, or the journal cannot be read.
            Exception: Other errors of `item.decision`.
        """
        decision = item.decision
        if decision is None:
            record, seen = self.journal.get(item.key), self._seen(item)
            decision = decide(seen, record, self.rules)
            renew = isinstance(decision, Skip) and decision.renew and self.staging.is_open
            if renew and record is not None:
                moved = record._replace(source=seen.source, modified=seen.modified)
                self.journal.put(item.key, moved)
            if isinstance(decision, Fail) and isinstance(decision.error, OutputError):
                raise OutputError(f"{self.root / item.output}: {decision.error}")
        if isinstance(decision, Fail):
            raise decision.error
        if isinstance(decision, Convert):
            if not item.book and not self.settling.settled(item):
                return Wait()
            item.replace = decision.replace
        return decision

    def _seen(self, item: Item) -> Seen:
        """The item and its result as they are when this is first called."""
        if item.seen is None:
            source, path = item.look(), self.path(item)
            try:
                status = path.stat()
                result = status.st_size if stat.S_ISREG(status.st_mode) and not item.folder else 0
            except FileNotFoundError:
                result = 0
            except OSError as error:
                raise explained(path, error) from error
            hint = checksum(item.hint) if item.hint else None
            if item.hint and hint is None:
                raise InputError(f"{item.hint}: the hint cannot be read. Replace it, or remove it")
            settings = self.settings.digest(item.drawn, hint)
            item.seen = Seen(
                self._relative(item.source),
                source.size,
                source.modified,
                item.checksum,
                settings,
                result or None,
            )
        return item.seen

    def _relative(self, source: Path) -> bytes:
        try:
            return os.fsencode(os.path.relpath(source, self.root))
        except ValueError:  # another drive of Windows
            return os.fsencode(source.absolute())

    def begin(self, item: Item) -> None:
        """Creates the staged file of an item. Raises OutputError."""
        with explaining(self.root / item.output):
            item.staged = self.staging.begin(item.key)
        item.suspect = self.crashes.get(item.staged.name, 0) >= _CRASHES

    @contextmanager
    def marked(self, item: Item) -> Iterator[None]:
        """Marks an item as in work, if the folder is open. Raises OutputError."""
        if not self.staging.is_open:
            yield
            return
        self.begin(item)
        try:
            yield
        finally:
            self.end(item)

    def write(self, item: Item, data: bytes) -> None:
        """Writes the result of an item that was begun. Raises OutputError."""
        assert item.staged is not None  # noqa: S101
        with explaining(self.root / item.output):
            item.staged.file.write(data)
            self._publish(item, item.staged)

    @contextmanager
    def file(self, item: Item) -> Iterator[BinaryIO]:
        """Opens the result of an item, begun or not. It becomes visible at the end of the `with`.

        Raises:
            OutputError: It cannot be written.
        """
        if item.staged is None:
            self.begin(item)
        assert item.staged is not None  # noqa: S101
        try:
            with explaining(self.root / item.output):
                yield item.staged.file
                self._publish(item, item.staged)
        finally:
            self.end(item)

    def _publish(self, item: Item, staged: Staged) -> None:
        """Gives the staged file its name, and writes the row just before."""
        written = staged.complete()
        status: Status = "flawed" if item.flaw else "converted"
        reason, lasting = item.flaw or ("", False)
        if item.replace:  # a kill between this and the end does not pass for a conversion
            self._note(item, "replacing")
            staged.publish(self.root / item.output, replace=True)
            self._note(item, status, reason, lasting, written)
        else:
            self._note(item, status, reason, lasting, written)
            staged.publish(self.root / item.output, replace=False)

    def fail(self, item: Item, reason: str, lasting: bool) -> None:
        """Notes a failure, if the input could be looked at.

        Args:
            item: The item.
            reason: Why it failed.
            lasting: Whether it would fail again.

        Raises:
            OutputError: The journal cannot be written.
        """
        if item.seen is not None:
            self._note(item, "failed", reason, lasting)

    def _note(
        self,
        item: Item,
        status: Status,
        reason: str = "",
        lasting: bool = False,
        written: int | None = None,
    ) -> None:
        seen, limits = self._seen(item), self.rules.limits if lasting else ""
        known = (seen.source, seen.size, seen.modified, item.content, seen.settings)
        self.journal.put(item.key, Record(*known, status, reason, lasting, limits, written))

    def end(self, item: Item) -> None:
        """Ends the work at an item, whatever became of it."""
        if item.staged is not None:
            staged, item.staged = item.staged, None
            staged.end()
            if self.crashes.pop(staged.name, 0):
                with suppress(OutputError):  # then it is only decoded with care again
                    self.journal.survived(staged.name)
