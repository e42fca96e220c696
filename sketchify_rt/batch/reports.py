"""A report: a file with a row for each image, CSV or JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from sketchify_rt.batch.runner import Outcome
from sketchify_rt.errors import OptionsError, OutputError
from sketchify_rt.files import explained, explaining, whole

_COLUMNS = ("source", "output", "status", "reason", "seconds")

Row = dict[str, Any]


class ReportFile:
    """A report in the making. An old report stays until the new one is complete.

    Attributes:
        error: Why it cannot be written, or None.
    """

    def __init__(self, path: Path) -> None:
        """Opens nothing yet. Raises OptionsError if the ending is neither .csv nor .json."""
        forms = {".csv": _csv, ".json": _json}
        if path.suffix.lower() not in forms:
            raise OptionsError(f"report must end in .csv or .json, got {path}")
        self._path, self._form = path, forms[path.suffix.lower()]
        self._stack = contextlib.ExitStack()
        self._write: Callable[[Row], None] = lambda row: None
        self.error: OutputError | None = None

    def open(self) -> None:
        """Begins the file. Raises OutputError if it cannot be written."""
        with explaining(self._path), contextlib.suppress(FileNotFoundError):
            self._path.lstat()  # fails for a name that is too long
        self._write = self._stack.enter_context(self._form(self._path))

    def note(self, outcome: Outcome) -> None:
        """Writes a row. After an error, nothing more is written."""
        row = {
            "source": str(outcome.source),
            "output": str(outcome.output) if outcome.output else None,
            "status": outcome.status,
            "reason": outcome.reason or None,
            "seconds": round(outcome.seconds, 4),
        }
        try:
            self._write(row)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Completes the file, unless there was an error."""
        try:
            self._stack.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.error = error if isinstance(error, OutputError) else explained(self._path, error)
        self._write = lambda row: None
        with contextlib.suppress(OSError):  # leaves the old report
            self._stack.__exit__(type(error), error, error.__traceback__)


@contextlib.contextmanager
def _csv(path: Path) -> Iterator[Callable[[Row], None]]:
    with _text(path) as file:
        table = csv.DictWriter(file, _COLUMNS)
        table.writeheader()
        yield table.writerow


@contextlib.contextmanager
def _json(path: Path) -> Iterator[Callable[[Row], None]]:
    with _text(path) as file:
        before = "["

        def write(row: Row) -> None:
            nonlocal before
            file.write(f"{before}\n{json.dumps(row)}")
            before = ","

        yield write
        file.write("[]\n" if before == "[" else "\n]\n")


@contextlib.contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    with whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        try:
            yield text
            text.flush()
        finally:
            text.detach()
