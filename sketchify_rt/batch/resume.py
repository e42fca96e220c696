"""Decides whether an item must be converted, from its row in the journal and its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sketchify_rt import models
from sketchify_rt.batch.journal import Record
from sketchify_rt.errors import OutputError, SketchifyError
from sketchify_rt.options import Encoding, Options, Painted

Existing = Literal["refuse", "overwrite", "skip"]

_EXISTS = "exists already; give --overwrite or --skip-existing"

# Options that make no difference to a result, except for the last bits of a sum.
_HOW = ("device", "threads", "tile", "max_pixels", "batch", "device_memory", "compile", "runtime")


class FailedBefore(SketchifyError):
    """The input caused a failure in an earlier run, and has not changed since."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An item and its result as they are now.

    Attributes:
        source: Path of the input relative to the output folder, as in `Record`.
        size: Bytes of the input.
        modified: Time of its last change in nanoseconds.
        content: Returns the checksum of the input. Called only if nothing else decides.
        settings: Digest of all that the result depends on.
        result: Bytes of the file that has the result's name; None if there is none, or an empty
            one, as a power cut may leave.
    """

    source: bytes
    size: int
    modified: int
    content: Callable[[], int | None]
    settings: str
    result: int | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a run does with results that exist and with earlier failures.

    Attributes:
        existing: What to do if a result exists. "refuse" keeps what the journal knows to be done,
            replaces other results of the journal, and fails for files that are not in it.
        retry_failed: Try inputs again that failed before.
        limits: Limits of this run. What failed within other limits is tried again.
        repeat: Report earlier failures again, rather than skip them.
    """

    existing: Existing = "refuse"
    retry_failed: bool = False
    limits: str = ""
    repeat: bool = True


@dataclass(frozen=True, slots=True)
class Convert:
    """The item must be converted. replace: whether it may replace the file that is there."""

    replace: bool = False


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing is to be done. renew: whether its row should name the input as it is now."""

    renew: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """The item fails without being tried."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Wait:
    """The item may be incomplete: another program may still write it. The next look decides."""


Decision = Convert | Skip | Fail


def decide(seen: Seen, record: Record | None, rules: Rules) -> Decision:
    """Decides about one item. Reads nothing but `seen.content`.

    Args:
        seen: The item and its result.
        record: Row of the result in the journal.
        rules: Rules of the run.
    """
    if rules.existing == "overwrite":
        return Convert(replace=True)
    if record is not None and _same_input(seen, record):
        moved = (record.source, record.modified) != (seen.source, seen.modified)
        if record.status == "converted" and record.written == seen.result:
            return Skip(renew=moved)
        flawed = record.status == "flawed" and record.written == seen.result
        failed = record.lasting and (flawed or record.status == "failed")
        if failed and record.limits == rules.limits and not rules.retry_failed:
            if not rules.repeat:
                return Skip()
            advice = "(failed before; use --retry-failed to try again)"
            return Fail(FailedBefore(f"{record.reason} {advice}"))
    if seen.result is None:
        return Convert()
    if rules.existing == "skip":
        return Skip()
    if record is not None and (record.status == "replacing" or record.written == seen.result):
        return Convert(replace=True)
    return Fail(OutputError(_EXISTS))


def _same_input(seen: Seen, record: Record) -> bool:
    """Whether the row is about this input, unchanged, with the same settings.

    Copies on other machines have other times, and links have other paths: then the content decides.
    """
    if (seen.size, seen.settings) != (record.size, record.settings):
        return False
    if (seen.source, seen.modified) == (record.source, record.modified):
        return True
    return record.content is not None and record.content == seen.content()


def keeps(path: Path, existing: Existing) -> bool:
    """Returns whether a file that has the name of a result is kept.

    Args:
        path: The result.
        existing: See `Rules`.

    Raises:
        OutputError: A file has the name, and `existing` is "refuse".
    """
    # Unlike Path.is_file, this never raises.
    if existing == "overwrite" or not os.path.isfile(path) or not path.stat().st_size:  # noqa: PTH113
        return False
    if existing == "refuse":
        raise OutputError(f"{path}: {_EXISTS}")
    return True


class Settings:
    """All that results depend on besides their inputs."""

    def __init__(self, options: Options, encoding: Encoding, dpi: int) -> None:
        """Args are those of the job. Raises ModelError."""
        self._values = _values(options) | {"encoding": dataclasses.asdict(encoding)}
        self._dpi = dpi
        self._plain = self._digest({})

    def digest(self, pdf: bool = False, hint: int | None = None) -> str:
        """Returns a digest for the journal.

        Args:
            pdf: Whether it is a page of a PDF file.
            hint: Checksum of the picture that is its own hint.
        """
        more: dict[str, Any] = {"dpi": self._dpi} if pdf else {}
        if hint is not None:
            more["hint"] = hint
        return self._digest(more) if more else self._plain

    def _digest(self, more: dict[str, Any]) -> str:
        text = json.dumps(self._values | more, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _values(options: Options) -> dict[str, Any]:
    """The options that matter for a result."""
    values = {name: value for name, value in vars(options).items() if name not in _HOW}
    values["detail"] = options.max_detail
    for name in ("blacks", "paper", "levels"):
        del values[name]
    look = options.whole_look
    values["look"] = dataclasses.asdict(look) | {"paper": float(look.paper)}
    values["strength"] = float(options.strength)  # 1 is 1.0
    if isinstance(options.hint, Painted):
        values["hint"] = options.hint.digest
    if options.mode == "sketch":
        manifest = models.load(options.model).manifest
        values["model"] = [manifest.sha256, manifest.int8_sha256]
        if not manifest.takes_hint:
            del values["hint"]
            if options.binary != "page":  # auto is the threshold
                del values["binary"]
        return values
    for name in ("model", "engine", "precision", "hint", "binary"):
        del values[name]
    if options.mode == "binary":
        del values["strength"]
    return values
