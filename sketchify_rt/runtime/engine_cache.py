"""TensorRT engines on disk: a folder each, and all that one depends on in its name.

A folder holds a plan, which is TensorRT's file, and ``engine.json``, the record, which names the
plan. The record is replaced last, by one rename: whoever is killed while writing leaves the engine
that was there, or the new one.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sketchify_rt import files
from sketchify_rt.errors import EngineError, OutputError
from sketchify_rt.runtime import engine_record
from sketchify_rt.runtime.engine_record import (
    EXPORT_FORMAT,
    Check,
    EnginePrecision,
    Machine,
    Origin,
    Recipe,
    Record,
    key,
    objections,
    plan_name,
    stale,
)

log = logging.getLogger("sketchify_rt")

_RECORD = "engine.json"
_LOCK = ".lock"
_PLAN = re.compile(r"[0-9a-f]{16}\.plan")
_NAME = re.compile(
    rf"(?P<model>.*)-(?P<precision>{'|'.join(get_args(EnginePrecision))})-[0-9a-f]{{16}}"
)
_RACES = 100  # as often a folder may vanish while it is entered
_KILLED = "left behind by a build that was killed"


class Damaged(EngineError):
    """An engine is there, but not as it was written; the message tells what to do.

    folder: where it is. reason: which file, and what is wrong with it.
    """

    def __init__(self, path: Path, what: str) -> None:
        # What it was built of is not known for sure any more.
        super().__init__(
            f"{path}: {what}. `sketchify-rt engines prune` removes damaged engines from the cache, "
            "`sketchify-rt build-engine` builds them anew; outside the cache it needs --force"
        )
        self.folder = path.parent
        self.reason = f"{path.name}: {what}"
        self._given = path, what

    def __reduce__(self) -> tuple[type[Damaged], tuple[Path, str]]:
        return type(self), self._given  # so that it survives a process boundary


@dataclass(frozen=True)
class Engine:
    """An engine on disk."""

    folder: Path
    record: Record

    def plan(self) -> bytes:
        """What TensorRT loads. Raises Damaged where it is not what was written."""
        path = self.folder / self.record.plan
        try:
            data = path.read_bytes()
        except OSError as error:
            # The same engine may have been built anew since the record was read.
            now = _look(self.folder)
            if now and now.record.key == self.record.key and now.record != self.record:
                return now.plan()
            raise Damaged(path, f"cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != self.record.plan_sha256:
            raise Damaged(path, "is damaged: its SHA-256 is not that of the record")
        return data


def root() -> Path:
    """The folder of all engines: in SKETCHIFY_CACHE, or in the user's cache folder.

    Raises OutputError where SKETCHIFY_CACHE is in the home of nobody.
    """
    import platformdirs

    given = os.environ.get("SKETCHIFY_CACHE")
    try:
        cache = Path(given).expanduser() if given else platformdirs.user_cache_path("sketchify-rt")
    except RuntimeError as error:
        raise OutputError(f"SKETCHIFY_CACHE is {given}: {error}; set it to a folder") from error
    return cache / "engines"


def folder_name(origin: Origin, recipe: Recipe, machine: Machine) -> str:
    """Where in `root` that engine is."""
    return f"{_safe(origin.name)}-{recipe.precision}-{key(origin, recipe, machine)[:16]}"


def read(folder: Path) -> Engine:
    """The engine in a folder; its plan is not read yet.

    Raises EngineError where there is none, and Damaged where its record is not what was written.
    """
    engine = _look(folder)
    if engine is None:
        raise EngineError(
            f"{folder}: no engine is there, which is a folder with {_RECORD} and a plan; "
            "`sketchify-rt build-engine --output FOLDER` makes one"
        )
    return engine


def engines(root: Path) -> list[Engine | Damaged]:
    """All engines in a folder; then what is wrong with each damaged one.

    First comes the one that was built last. A plan is not read. What others have put there is
    passed over. Raises OutputError where the folder cannot be read.
    """
    whole: list[Engine] = []
    damaged: list[Damaged] = []
    for folder in _folders(root):
        try:
            if engine := _look(folder):
                whole.append(engine)
        except Damaged as error:
            damaged.append(error)
    whole.sort(key=lambda engine: engine.record.built, reverse=True)
    return [*whole, *damaged]


@contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keeps other processes from writing an engine there; waits for one that does, and says so.

    waiting: called every second meanwhile; what it raises ends the wait. Raises OutputError where
    there is no writing.
    """
    import filelock  # it and platformdirs, 30 ms, only where they are needed

    lock = filelock.FileLock(folder / _LOCK, thread_local=False)
    patience, races = 0.0, 0
    while not lock.is_locked:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=patience)
        except filelock.Timeout:
            if not patience:
                log.warning("%s: another process is building this engine; waiting for it", folder)
            patience = 1.0
            waiting()
        except (OSError, NotImplementedError) as error:
            # Who failed to build may have taken the folder away just now; not over and over.
            races += 1
            vanished = isinstance(error, FileNotFoundError | FileExistsError)
            if not vanished or races == _RACES:
                raise _refused(folder, "the engine cannot be written", error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            if not (folder / _RECORD).exists():  # nothing was built
                (folder / _LOCK).unlink()
                folder.rmdir()
        lock.release()


def store(
    folder: Path,
    plan: bytes,
    origin: Origin,
    recipe: Recipe,
    machine: Machine,
    seconds: float,
    check: Check,
) -> Engine:
    """Writes an engine in the place of the one that is there, whole or not at all.

    It is on the disk when this returns. To be called within `locked`. Raises OutputError, and then
    leaves what was there.
    """
    digest = hashlib.sha256(plan).hexdigest()
    record = Record(
        format=EXPORT_FORMAT,
        key=key(origin, recipe, machine),
        origin=origin,
        recipe=recipe,
        machine=machine,
        plan=plan_name(digest),
        plan_sha256=digest,
        plan_bytes=len(plan),
        built=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        seconds=round(seconds, 1),
        check=check,
    )
    before = _plan_of(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.sync(folder.parent)
        try:
            files.atomic_write(folder / record.plan, plan)
            files.atomic_write(folder / _RECORD, engine_record.write(record))
        finally:
            # Where the record that was there cannot be read just now, nothing goes.
            if (now := _plan_of(folder)) or not before:
                with suppress(OSError):  # they are no harm
                    for path in _leftovers(folder, now):
                        path.unlink()
    except OSError as error:
        raise _refused(folder, "the engine cannot be written", error) from error
    return Engine(folder, record)


def find(root: Path, origin: Origin, precision: str, machine: Machine) -> tuple[Engine | None, str]:
    """The engine that fits and is whole; or None, and why the nearest one is not it.

    Of several the one that was built last; before all others those that were built on just this
    machine, since a hardware compatible one may be slower. The reason is "" where none
    was ever built of a model of that name.
    """
    whys: list[tuple[str, bool, list[str]]] = []
    found = engines(root)
    whole = [engine for engine in found if isinstance(engine, Engine)]
    for engine in sorted(whole, key=lambda engine: engine.record.machine != machine):
        reasons = objections(engine.record, origin, precision, machine)
        if not reasons:
            try:
                engine.plan()
            except Damaged as error:
                reasons = [error.reason]
            else:
                return engine, ""
        if engine.record.origin.name == origin.name:
            other = engine.record.recipe.precision != precision
            whys.append((engine.folder.name, other, reasons))
    whys += [
        (error.folder.name, False, [error.reason])
        for error in found
        if isinstance(error, Damaged)
        and error.folder.name.startswith(f"{_safe(origin.name)}-{precision}-")
    ]
    name, _, reasons = min(whys, key=lambda why: (why[1], len(why[2])), default=("", False, []))
    return None, f"{name}: {'; '.join(reasons)}" if reasons else ""


def last_seconds(root: Path, name: str, recipe: Recipe, machine: Machine) -> float | None:
    """What the last build of a model by that recipe took on such a GPU."""
    past = [
        engine.record
        for engine in engines(root)
        if isinstance(engine, Engine)
        and (engine.record.origin.name, engine.record.machine.gpu) == (name, machine.gpu)
        and engine.record.recipe == recipe
    ]
    return past[0].seconds if past else None


def prune(
    root: Path, machine: Machine | None, everything: bool = False, dry_run: bool = False
) -> list[tuple[Path, str, int]]:
    """Removes what is of no use any more, and returns it with the reason and its bytes.

    That is what is damaged or of another version of this package, what killed builds left behind,
    and engines for the GPU of `machine` that were built with another TensorRT. None: of a GPU
    nothing is known. Engines for other GPUs stay, as a cache may be shared, and so does what is
    being built, and all that has not the name of an engine. everything: all that is not being
    built. dry_run: nothing is removed. Raises OutputError, after the rest, where something cannot
    be removed.
    """
    import filelock

    removed = []
    refused: OutputError | None = None
    for folder in _folders(root):
        if not _useless(folder, machine, everything):  # looked at first, as a lock is a file too
            continue
        try:
            with filelock.FileLock(folder / _LOCK).acquire(timeout=0):
                for path, why in _useless(folder, machine, everything):
                    size = _size(path)
                    if not dry_run:
                        _remove(path)
                    removed.append((path, why, size))
        except (filelock.Timeout, FileNotFoundError):  # is being built, or was removed just now
            continue
        except (OSError, NotImplementedError) as error:
            refused = refused or _refused(folder, "it cannot be removed", error)
    if refused:
        raise refused
    return removed


def _folders(root: Path) -> list[Path]:
    """Those with the name of an engine. Whatever else is there is not ours."""
    try:
        return [
            path
            for path in sorted(root.iterdir())
            if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(
            f"{root}: the cache cannot be read ({error.strerror}); SKETCHIFY_CACHE sets another"
        ) from error


def _look(folder: Path) -> Engine | None:
    """The engine in a folder, None where there is none. Raises Damaged."""
    path = folder / _RECORD
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror})") from error
    try:
        return Engine(folder, engine_record.read(text))
    except ValueError as error:
        raise Damaged(path, str(error)) from error


def _useless(folder: Path, machine: Machine | None, everything: bool) -> list[tuple[Path, str]]:
    """What is to be removed of a folder, all or some of its files, and why."""
    if everything:
        return [(folder, "all are removed")]
    try:
        engine = _look(folder)
        if engine is None:
            return [(folder, _KILLED)]
        engine.plan()
    except Damaged as error:
        return [(folder, error.reason)]
    if machine is not None and engine.record.machine.gpu == machine.gpu:
        why = stale(engine.record, machine)
        if why:
            return [(folder, why)]
    return [(path, _KILLED) for path in _leftovers(folder, engine.record.plan)]


def _plan_of(folder: Path) -> str:
    try:
        engine = _look(folder)
    except Damaged:
        return ""
    return engine.record.plan if engine else ""


def _leftovers(folder: Path, plan: str) -> Iterator[Path]:
    """Files of ours in the folder of an engine that do not belong to it."""
    for path in sorted(folder.iterdir()):
        if files.PART.fullmatch(path.name) or (_PLAN.fullmatch(path.name) and path.name != plan):
            yield path


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    found = (file for file in (path, *path.rglob("*")) if file.is_symlink() or not file.is_dir())
    return sum(file.lstat().st_size for file in found)


def _remove(path: Path) -> None:
    """A file, or a folder of files.

    Its record first, so that there is never one without its plan; its lock last, since whoever
    wants the engine then takes a new one, and writes beside it.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for file in sorted(path.iterdir(), key=lambda file: (file.name == _LOCK, file.name != _RECORD)):
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
    try:
        path.rmdir()
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def _safe(name: str) -> str:
    """A model's name as a part of a file's."""
    return re.sub(r"[^\w.-]", "-", name)[:64]


def _refused(folder: Path, what: str, error: BaseException) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(
        f"{folder}: {what} ({reason}); SKETCHIFY_CACHE sets another folder for the cache, --output "
        "one for a new engine"
    )
