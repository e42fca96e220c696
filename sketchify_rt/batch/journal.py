"""What became of each input: one line of JSON each, appended as it happens.

A run that was ended, in whatever way, goes on from it: an input is done where the journal has a
line of it, as it is now, with the same settings, and the result still is the file that the line
tells of. A line is written before its result gets its name, so a result without a line cannot be.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from sketchify_rt import __version__, files
from sketchify_rt.batch.sinks import explained
from sketchify_rt.errors import OutputError

NAME = ".sketchify-rt.jsonl"  # in the output folder; hidden, so never an input


@dataclass(frozen=True, slots=True)
class Origin:
    """An input as it was read.

    name: its absolute path, and that of the page in it; size: bytes; modified: time of the last
    change in ns; hint: the same of the picture of a folder that is its hint, "" without.
    """

    name: str
    size: int
    modified: int
    hint: str = ""

    @classmethod
    def of(cls, path: Path, page: str = "") -> Origin:
        """The file, or a page in it. Raises OSError."""
        status = path.stat()
        whole = cls(str(path.absolute()), status.st_size, status.st_mtime_ns)
        return whole.page(page) if page else whole

    def page(self, label: str) -> Origin:
        """Of a page in it."""
        return replace(self, name=f"{self.name}/{label}")

    def hinted(self, hint: Origin) -> Origin:
        """Of it with a hint, wherever that lies."""
        return replace(self, hint=f"{hint.size} {hint.modified}")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a result is not all it should be: pages of an archive failed. lasting: see `failed`."""

    reason: str
    lasting: bool


class Journal:
    """Lines of earlier runs, as what was done and what failed, and those of this one.

    A million lines take some 200 MB. Thread-safe. One process at a time writes to a file: another
    would not know what this one makes, and make it as well.
    """

    def __init__(
        self,
        path: Path | None,
        root: Path,
        settings: dict[str, Any],
        limits: dict[str, Any] | None = None,
    ) -> None:
        """Read what is there; lines cut short by a crash are passed over.

        path: the file, None for memory alone; root: the output folder, which results are named
        below; settings: all that the results depend on, limits: what inputs are refused by and
        results do not depend on, both JSON values. Raises OutputError where the file cannot be
        read.
        """
        self._path, self._root = path, root
        self._settings, self._limits = settings, limits or {}
        self._digest = _hash(json.dumps(settings, sort_keys=True)).hex()
        self._done: set[bytes] = set()  # input, settings and result
        self._made: set[bytes] = set()  # results
        # By input and settings: the reason, and whether it was within these limits.
        self._failed: dict[bytes, tuple[str, bool]] = {}
        self._told: dict[bytes, str] = {}  # the reasons in lines of this run
        self._file = -1
        self._writing, self._torn = threading.Lock(), False
        self._read = 0  # bytes, up to the end of the last whole line
        if path is not None:
            try:
                with path.open("rb") as lines:
                    self._learn_all(lines)
            except FileNotFoundError:
                return
            except OSError as error:
                raise explained(path, error, "cannot be read") from error

    def _learn_all(self, lines: BinaryIO) -> None:
        lines.seek(self._read)
        for line in lines:
            self._learn(line)
            self._read += len(line) if line.endswith(b"\n") else 0

    def _learn(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            if "source" not in told:
                return
            hint = told.get("hint", "")
            origin = Origin(told["source"], told["size"], told["modified"], hint)
            key = _input(origin, told["settings"])
            if told["status"] == "converted":
                made = _result(told["output"], told["bytes"], told["written"])
                within = told.get("limits") == self._limits
                flaw = Flaw(told["reason"], told["lasting"]) if "reason" in told else None
                self._keep(key, made, flaw, within)
            elif told["lasting"]:
                self._failed[key] = told["reason"], told.get("limits") == self._limits
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return

    def _keep(self, key: bytes, made: bytes, flaw: Flaw | None, within: bool) -> None:
        self._made.add(made)
        if flaw is None:
            self._done.add(key + made)
        self._failed.pop(key, None)
        self._told.pop(key, None)
        if flaw and flaw.lasting:
            self._failed[key] = flaw.reason, within

    def done(self, origin: Origin, output: Path) -> bool:
        """Whether the result of this input, with these settings, is there already."""
        made = self._made_at(output)
        return made is not None and _input(origin, self._digest) + made in self._done

    def made(self, output: Path) -> bool:
        """Whether the file was written by a run of this journal and not changed since."""
        return self._made_at(output) in self._made

    def failure(self, origin: Origin) -> str | None:
        """Why this input, unchanged and with the same settings, failed for good before."""
        failed = self._failed.get(_input(origin, self._digest))
        return failed and failed[0]

    def failed_within(self, origin: Origin) -> bool:
        """Whether it failed within these limits, so that it would fail again."""
        failed = self._failed.get(_input(origin, self._digest))
        return failed is not None and failed[1]

    def _made_at(self, output: Path) -> bytes | None:
        try:
            status = output.stat()
        except OSError:
            return None
        return _result(self._below(output), status.st_size, status.st_mtime_ns)

    def converted(
        self,
        origin: Origin,
        output: Path,
        status: os.stat_result,
        seconds: float,
        flaw: Flaw | None = None,
    ) -> None:
        """Note a result. status: of the file that is about to get the name `output`.

        With a `flaw` it is no more done than what failed: one line tells of both, so that a run
        that ends here cannot know of one alone.
        Raises OutputError where the line cannot be written.
        """
        below = self._below(output)
        told: dict[str, Any] = {}
        if flaw:
            told = {"reason": flaw.reason, "lasting": flaw.lasting, "limits": self._limits}
        self._append(
            origin,
            status="converted",
            output=below,
            bytes=status.st_size,
            written=status.st_mtime_ns,
            seconds=round(seconds, 4),
            **told,
        )
        made = _result(below, status.st_size, status.st_mtime_ns)
        self._keep(_input(origin, self._digest), made, flaw, within=True)

    def failed(self, origin: Origin, reason: str, lasting: bool, seconds: float) -> None:
        """Note a failure, once. lasting: the input is to blame, so that it would fail again.

        Raises OutputError where the line cannot be written.
        """
        key = _input(origin, self._digest)
        if lasting:
            self._failed[key] = reason, True
        if self._told.get(key) == reason:  # as at each look of a watch
            return
        self._append(
            origin,
            status="failed",
            reason=reason,
            lasting=lasting,
            limits=self._limits,
            seconds=round(seconds, 4),
        )
        self._told[key] = reason

    def _append(self, origin: Origin, **told: Any) -> None:
        if self._path is None:
            return
        line = {
            "source": origin.name,
            "size": origin.size,
            "modified": origin.modified,
            "settings": self._digest,
        }
        if origin.hint:
            line["hint"] = origin.hint
        try:
            self._write(line | told)
        except OSError as error:
            raise explained(self._path, error) from error

    def open(self) -> None:
        """Begin to write, with a line on this run, or anew where the file is gone meanwhile.

        Raises OutputError, as where another run writes.
        """
        if self._path is None or self._is_open(self._path):
            return
        self.close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, flags, 0o666)
            self._lock(self._path)
            # What another run has added since this one read it. Through the same open file: closing
            # another one would end the lock.
            with open(self._file, "rb", closefd=False) as lines:
                self._learn_all(lines)
            end = os.lseek(self._file, 0, os.SEEK_END)
            if end and files.read_at(self._file, 1, end - 1) != b"\n":
                os.write(self._file, b"\n")  # ends a line that was cut short
            started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            run = {"run": __version__, "started": started, "settings": self._digest}
            self._write(run | {"with": self._settings})
        except OutputError:
            raise
        except OSError as error:
            raise explained(self._path, error) from error

    def _is_open(self, path: Path) -> bool:
        try:
            return self._file >= 0 and os.path.samestat(os.fstat(self._file), path.stat())
        except OSError:
            return False

    def _lock(self, path: Path) -> None:
        """Until the end of this process, however that comes."""
        try:
            import fcntl

            # Of the process, not of the open file: no child that was forked keeps it.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self.close()
            raise OutputError(
                f"{path.parent}: another run converts into this folder; wait for its end, or "
                "choose another output folder"
            ) from None
        except (ImportError, OSError):  # a system or a file system without locks
            return

    def _write(self, told: dict[str, Any]) -> None:
        # One call for one line, so that what a kill leaves of it is at the end.
        data = (json.dumps(told, separators=(",", ":")) + "\n").encode()
        with self._writing:
            if self._torn:  # by an earlier line, of which this one is not to be a part
                data = b"\n" + data
            written = os.write(self._file, data)
            if written != len(data):
                self._torn |= written > 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False

    def close(self) -> None:
        """End writing."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._read = -1, 0

    def _below(self, output: Path) -> str:
        return os.path.relpath(output, self._root)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).digest()


def _input(origin: Origin, settings: str) -> bytes:
    return _hash(f"{origin.name}\0{origin.size}\0{origin.modified}\0{origin.hint}\0{settings}")


def _result(below: str, size: int, written: int) -> bytes:
    return _hash(f"{below}\0{size}\0{written}")
