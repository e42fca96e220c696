"""Engine files, and the folder that they are kept in.

An engine is one file: a line with the format's number and the SHA-256 of all that follows, a line
with the record as JSON, and the plan, which is what TensorRT loads. Files are written atomically,
so a reader sees a whole engine or none. In the cache the name of a file tells the model, the
precision, and a digest of everything that the engine depends on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sketchify_rt import files
from sketchify_rt.errors import EngineError, OutputError
from sketchify_rt.tensorrt.record import FORMAT, Machine, Origin, Recipe, Record

log = logging.getLogger("sketchify_rt")

_HEAD = re.compile(rb"sketchify-rt engine (\d+) ([0-9a-f]{64})")
_NAME = re.compile(r".*-(fp16|fp32|int8)-[0-9a-f]{16}\.engine")


class Damaged(EngineError):
    """A file is not an engine that can be read.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.reason}. To fix: `sketchify-rt build-engine` builds an engine, "
            "with --output FILE --force outside the cache; `sketchify-rt engines prune` removes "
            "what is damaged from the cache"
        )


@dataclass(frozen=True)
class Engine:
    """An engine file that has been read and is whole.

    Attributes:
        path: The file.
        record: What the engine was built from and for.
        plan: What TensorRT loads.
    """

    path: Path
    record: Record
    plan: bytes = field(repr=False)

    def facts(self) -> dict[str, Any]:
        """Return what is known of the engine, for JSON."""
        return {"path": str(self.path), "plan_bytes": len(self.plan), **asdict(self.record)}


def root() -> Path:
    """Return the folder of all engines: in SKETCHIFY_CACHE, or in the user's cache folder.

    Raises:
        OutputError: SKETCHIFY_CACHE is in the home of a user that does not exist.
    """
    import platformdirs

    given = os.environ.get("SKETCHIFY_CACHE")
    try:
        cache = Path(given).expanduser() if given else platformdirs.user_cache_path("sketchify-rt")
    except RuntimeError as error:
        raise OutputError(f"SKETCHIFY_CACHE is {given}: {error}; set it to a folder") from error
    return cache / "engines"


def file_name(origin: Origin, recipe: Recipe, machine: Machine) -> str:
    """Return the name in `root` of an engine from this model, by this recipe, for this machine."""
    parts = [FORMAT, origin.sha256, asdict(recipe), asdict(machine)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{_prefix(origin, recipe.precision)}{digest[:16]}.engine"


def write(path: Path, record: Record, plan: bytes) -> Engine:
    """Write an engine atomically; it is on the disk when this returns.

    Args:
        path: The file. Its folders are made.
        record: What the engine was built from and for.
        plan: What TensorRT loads.

    Returns:
        The engine that was written.

    Raises:
        OutputError: It cannot be written. The file that was there stays.
    """
    body = record.to_json() + b"\n" + plan
    head = f"sketchify-rt engine {FORMAT} {hashlib.sha256(body).hexdigest()}\n"
    try:
        files.atomic_write(path, head.encode() + body)
    except OSError as error:
        raise _refused(path, "written", error) from error
    return Engine(path, record, plan)


def read(path: Path) -> Engine:
    """Read an engine and compare it with its SHA-256.

    Args:
        path: The file.

    Returns:
        The engine, which is whole.

    Raises:
        Damaged: There is no engine of this format, or a byte has changed.
    """
    if path.is_dir():  # as engines of format 1 were
        raise Damaged(path, "is of another version of sketchify-rt: got a folder, expected a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror})") from error
    head, _, body = data.partition(b"\n")
    found = _HEAD.fullmatch(head)
    if not found:
        raise Damaged(path, "is not an engine of sketchify-rt, or is damaged")
    if int(found[1]) != FORMAT:
        numbers = f"got format {int(found[1])}, expected {FORMAT}"
        raise Damaged(path, f"is of another version of sketchify-rt: {numbers}")
    if hashlib.sha256(body).hexdigest().encode() != found[2]:
        raise Damaged(path, "is damaged: its SHA-256 differs")
    record, _, plan = body.partition(b"\n")
    return Engine(path, Record.from_json(record), plan)


def engines(root: Path, prefix: str = "") -> list[Engine | Damaged]:
    """Read all engines in a folder.

    Args:
        root: The folder. Files that are not named as engines are left out.
        prefix: What the names begin with.

    Returns:
        The engines, the newest first; then what is wrong with each damaged one.

    Raises:
        OutputError: The folder cannot be read.
    """
    try:
        paths = sorted(root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(
            f"{root}: the cache cannot be read ({error.strerror}); SKETCHIFY_CACHE sets another"
        ) from error
    whole: list[Engine] = []
    damaged: list[Damaged] = []
    for path in paths:
        if path.name.startswith(prefix) and _NAME.fullmatch(path.name):
            try:
                whole.append(read(path))
            except Damaged as error:
                damaged.append(error)
    whole.sort(key=lambda engine: engine.record.built, reverse=True)
    return [*whole, *damaged]


def find(root: Path, origin: Origin, precision: str, machine: Machine) -> tuple[Engine | None, str]:
    """Find the engine to use on a machine.

    Engines that were built on just this machine come before those that also run here, because a
    hardware compatible engine may be slower; then the newest comes first.

    Args:
        root: The folder of engines.
        origin: The model that it must be built from.
        precision: The precision that it must have.
        machine: Where it must run.

    Returns:
        The engine, or None and why the first that was looked at cannot be used; "" if there are
        none of such a model and precision.
    """
    why = ""
    found = engines(root, _prefix(origin, precision))
    found.sort(key=lambda each: isinstance(each, Damaged) or each.record.machine != machine)
    for each in found:
        if isinstance(each, Engine):
            reason = each.record.mismatch(machine, origin)
            if not reason:
                return each, ""
        else:
            reason = each.reason
        why = why or f"{each.path.name}: {reason}"
    return None, why


def prune(
    root: Path, machine: Machine | None, everything: bool = False, dry_run: bool = False
) -> list[tuple[Path, str, int]]:
    """Remove engines that are of no use any more.

    These are damaged ones, those of another version of this package, and those for the GPU of
    `machine` that were built with another TensorRT. Engines for other GPUs stay, since a cache may
    be shared.

    Args:
        root: The folder of engines.
        machine: This machine; None if its GPU is not known.
        everything: Remove all engines.
        dry_run: Remove nothing.

    Returns:
        Path, reason and size in bytes of what was removed.

    Raises:
        OutputError: An engine cannot be removed.
    """
    removed = []
    for each in engines(root):
        if everything:
            why = "all are removed"
        elif isinstance(each, Damaged):
            why = each.reason
        else:
            own = machine and machine.gpu == each.record.machine.gpu
            why = each.record.mismatch(machine) if machine and own else ""
        if why:
            try:
                size = each.path.stat().st_size
                if not dry_run:
                    each.path.unlink()
            except FileNotFoundError:  # another process has removed it
                continue
            except OSError as error:
                raise _refused(each.path, "removed", error) from error
            removed.append((each.path, why, size))
    return removed


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes from building the same engine; wait for one that does, and say so.

    Args:
        path: The engine's file.
        waiting: Called every second while it waits; what it raises ends the wait.

    Raises:
        OutputError: The folder cannot be written.
    """
    import filelock  # it and platformdirs take 30 ms to import

    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
    patience = 0.0
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=patience)
        except filelock.Timeout:
            if not patience:
                log.warning("%s: another process is building this engine; waiting for it", path)
            patience = 1.0
            waiting()
        except (OSError, NotImplementedError) as error:
            raise _refused(path, "written", error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # newer versions of filelock leave it
            Path(lock.lock_file).unlink()
        lock.release()


def _prefix(origin: Origin, precision: str) -> str:
    name = re.sub(r"[^\w.-]", "-", origin.name)[:64]
    return f"{name}-{precision}-"


def _refused(path: Path, what: str, error: BaseException) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(
        f"{path}: the engine cannot be {what} ({reason}). To fix: SKETCHIFY_CACHE sets another "
        "folder for the cache, --output another file for a new engine"
    )
