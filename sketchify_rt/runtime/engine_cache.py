"""TensorRT engines on disk: a folder each, and all that one depends on in its name.

A folder holds a plan, which is TensorRT's file, and ``engine.json``, the record, which names the
plan. The record is replaced last, by one rename: whoever is killed while writing leaves the engine
that was there, or the new one.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import logging
import math
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import filelock
import platformdirs

from sketchify_rt import __version__
from sketchify_rt.errors import EngineError, OptionsError, OutputError

log = logging.getLogger("sketchify_rt")

EnginePrecision = Literal["fp16", "fp32", "int8"]

_RECORD = "engine.json"
_LOCK = ".lock"
_NEW = ".new-"  # begins the name of a file that is being written
_PLAN = re.compile(r"[0-9a-f]{16}\.plan")
_NAME = re.compile(
    rf"(?P<model>.*)-(?P<precision>{'|'.join(get_args(EnginePrecision))})-[0-9a-f]{{16}}"
)
_SUM = re.compile(rb'"record_sha256": "([^"]*)"')
_AMPERE = (8, 0)  # compute capability
_RACES = 100  # as often a folder may vanish while it is entered
_KILLED = "left behind by a build that was killed"


class Damaged(EngineError):
    """An engine is there, but not as it was written; the message tells what to do.

    folder: where it is. reason: which file, and what is wrong with it.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}; {_rebuild(path.parent)} builds the engine anew")
        self.folder = path.parent
        self.reason = f"{path.name}: {what}"
        self._given = path, what

    def __reduce__(self) -> tuple[type[Damaged], tuple[Path, str]]:
        return type(self), self._given  # so that it survives a process boundary


@dataclass(frozen=True)
class Recipe:
    """What is asked of a build.

    tile: least, best and longest side in pixels; three equal ones make a static engine. batch:
    least, best and largest number of tiles. optimization_level: 0..5, TensorRT's. workspace: MiB
    that a layer may work in, None for TensorRT's default. version_compatible, hardware_compatible:
    see `unfit`.
    """

    precision: EnginePrecision = "fp16"
    tile: tuple[int, int, int] = (512, 512, 512)
    batch: tuple[int, int, int] = (1, 16, 32)
    optimization_level: int = 3
    workspace: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        """Raises OptionsError naming what is out of its range."""
        if self.precision not in get_args(EnginePrecision):
            known = ", ".join(get_args(EnginePrecision))
            raise OptionsError(f"precision is {self.precision!r}; an engine's is one of {known}")
        for name in ("tile", "batch"):
            least, best, most = getattr(self, name)
            if not 1 <= least <= best <= most:
                raise OptionsError(
                    f"{name} is {least}, {best}, {most}; it must be the least, the best and the "
                    "most, from 1"
                )
        if not 0 <= self.optimization_level <= 5:
            raise OptionsError(f"optimization_level is {self.optimization_level}; it may be 0 to 5")
        if self.workspace is not None and self.workspace < 1:
            raise OptionsError(f"workspace is {self.workspace}; it must be at least 1 MiB")

    @property
    def static(self) -> bool:
        """Whether all tiles have one shape."""
        return self.tile[0] == self.tile[2]


@dataclass(frozen=True)
class Machine:
    """What a plan is bound to. capability: compute capability, as "9.0"."""

    tensorrt: str
    cuda: str
    driver: str
    gpu: str
    capability: str


@dataclass(frozen=True)
class Origin:
    """What an engine is made of.

    name: the model's. sha256: of the ONNX with its external data. package: version of this package,
    which makes of it the ONNX that TensorRT gets.
    """

    name: str
    sha256: str
    package: str


@dataclass(frozen=True)
class Check:
    """How an engine did beside the float32 model.

    largest, mean: difference in levels of 255. megapixels_s: with batches of the best size. crops:
    number of tiles.
    """

    largest: float
    mean: float
    megapixels_s: float
    crops: int


@dataclass(frozen=True)
class Record:
    """All that is known of an engine. plan: its file. built: UTC, ISO 8601. seconds: building."""

    key: str
    origin: Origin
    recipe: Recipe
    machine: Machine
    plan: str
    plan_sha256: str
    plan_bytes: int
    built: str
    seconds: float
    check: Check


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
    given = os.environ.get("SKETCHIFY_CACHE")
    try:
        cache = Path(given).expanduser() if given else platformdirs.user_cache_path("sketchify-rt")
    except RuntimeError as error:
        raise OutputError(f"SKETCHIFY_CACHE is {given}: {error}; set it to a folder") from error
    return cache / "engines"


def key(origin: Origin, recipe: Recipe, machine: Machine) -> str:
    """SHA-256, hexadecimal, of all that decides what a build gives."""
    parts = [asdict(part) for part in (origin, recipe, machine)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
    """All engines in a folder, the newest first; then what is wrong with each damaged one.

    A plan is not read. What others have put there is passed over. Raises OutputError where the
    folder cannot be read.
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
        key=key(origin, recipe, machine),
        origin=origin,
        recipe=recipe,
        machine=machine,
        plan=f"{digest[:16]}.plan",
        plan_sha256=digest,
        plan_bytes=len(plan),
        built=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        seconds=round(seconds, 1),
        check=check,
    )
    blank = json.dumps({"record_sha256": "", **asdict(record)}, indent=2).encode() + b"\n"
    text = blank.replace(b'"record_sha256": ""', b'"record_sha256": "%b"' % _sum(blank).encode(), 1)
    before = _plan_of(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)
        try:
            _write(folder / record.plan, plan)
            _write(folder / _RECORD, text)
        finally:
            # Where the record that was there cannot be read just now, nothing goes.
            if (now := _plan_of(folder)) or not before:
                with suppress(OSError):  # they are no harm
                    for path in _leftovers(folder, now):
                        path.unlink()
    except OSError as error:
        raise _refused(folder, "the engine cannot be written", error) from error
    return Engine(folder, record)


def unfit(
    record: Record, origin: Origin, precision: str, machine: Machine, strict: bool = True
) -> str | None:
    """Why an engine is not to be used for this model on this machine, in words; None where it is.

    A newer TensorRT of the same major version, and 11 after 10, takes a version compatible engine,
    any GPU from Ampere on a hardware compatible one, see
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html
    strict: no other versions of CUDA, the driver and this package either than it was built with. It
    would work, but another build may be better: so it is for the cache, where one is built at once.
    Not strict is for an engine that the user chose, maybe shipped to many machines.
    """
    return "; ".join(_reasons(record, origin, precision, machine, strict)) or None


def stale(record: Record, machine: Machine) -> str | None:
    """`unfit`, whatever the model: why an engine is not taken from the cache on this machine."""
    origin = replace(record.origin, package=__version__)
    return unfit(record, origin, record.recipe.precision, machine)


def find(root: Path, origin: Origin, precision: str, machine: Machine) -> tuple[Engine | None, str]:
    """The newest engine that fits and is whole; or None, and why the nearest one is not it.

    Before all others come those that were built on just this machine: a hardware compatible one may
    be slower. The reason is "" where none was ever built of a model of that name.
    """
    whys: list[tuple[str, list[str]]] = []
    found = engines(root)
    whole = [engine for engine in found if isinstance(engine, Engine)]
    for engine in sorted(whole, key=lambda engine: engine.record.machine != machine):
        reasons = _reasons(engine.record, origin, precision, machine, strict=True)
        if not reasons:
            try:
                engine.plan()
            except Damaged as error:
                reasons = [error.reason]
            else:
                return engine, ""
        if engine.record.origin.name == origin.name:
            whys.append((engine.folder.name, reasons))
    whys += [
        (error.folder.name, [error.reason])
        for error in found
        if isinstance(error, Damaged)
        and error.folder.name.startswith(f"{_safe(origin.name)}-{precision}-")
    ]
    name, reasons = min(whys, key=lambda why: len(why[1]), default=("", []))
    return None, f"{name}: {'; '.join(reasons)}" if reasons else ""


def last_seconds(root: Path, name: str, recipe: Recipe, machine: Machine) -> float | None:
    """What the last build of a model took on such a GPU, of that recipe if there was one."""
    past = [
        engine.record
        for engine in engines(root)
        if isinstance(engine, Engine)
        and (engine.record.origin.name, engine.record.machine.gpu) == (name, machine.gpu)
    ]
    past.sort(key=lambda record: record.recipe != recipe)  # stable: the newest first
    return past[0].seconds if past else None


def prune(
    root: Path, machine: Machine | None, everything: bool = False, dry_run: bool = False
) -> list[tuple[Path, str, int]]:
    """Removes what is of no use any more, and returns it with the reason and its bytes.

    That is what is damaged, what killed builds left behind, and engines for the GPU of `machine`
    that were built with another TensorRT, CUDA, driver or version of this package. None: of a GPU
    nothing is known. Engines for other GPUs stay, as a cache may be shared, and so does what is
    being built, and all that has not the name of an engine. everything: all that is not being
    built. dry_run: nothing is removed. Raises OutputError, after the rest, where something cannot
    be removed.
    """
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
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise OutputError(f"{root}: the cache cannot be read ({error.strerror})") from error


def _look(folder: Path) -> Engine | None:
    """The engine in a folder, None where there is none. Raises Damaged."""
    path = folder / _RECORD
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror})") from error
    found = _SUM.search(text)
    if found is None or found[1].decode("latin-1") != _sum(text):
        raise Damaged(path, "is damaged: its SHA-256 is not the one in it")
    try:
        return Engine(folder, _record(json.loads(text)))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Damaged(path, f"is of another version of sketchify-rt ({error})") from error


def _reasons(
    record: Record, origin: Origin, precision: str, machine: Machine, strict: bool
) -> list[str]:
    made, by, recipe = record.machine, record.origin, record.recipe
    reasons = []
    if by.sha256 != origin.sha256:
        other = f"the model {by.name}, not {origin.name}"
        same = f"other weights of {by.name}"
        reasons.append(f"built of {same if by.name == origin.name else other}")
    if recipe.precision != precision:
        reasons.append(f"built for {recipe.precision}, not {precision}")
    if made.tensorrt != machine.tensorrt and not _serves(recipe, made.tensorrt, machine.tensorrt):
        reasons.append(f"built with TensorRT {made.tensorrt}, this is {machine.tensorrt}")
    ampere = min(_numbers(made.capability), _numbers(machine.capability)) >= _AMPERE
    same_gpu = (made.gpu, made.capability) == (machine.gpu, machine.capability)
    if not same_gpu and not (recipe.hardware_compatible and ampere):
        reasons.append(f"built for {_card(made)}, this is {_card(machine)}")
    if strict:
        versions = (
            ("CUDA", made.cuda, machine.cuda),
            ("driver", made.driver, machine.driver),
            ("sketchify-rt", by.package, origin.package),
        )
        reasons += [
            f"built with {what} {then}, this is {now}"
            for what, then, now in versions
            if then != now
        ]
    return reasons


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
        if path.name.startswith(_NEW) or (_PLAN.fullmatch(path.name) and path.name != plan):
            yield path


def _record(fields: dict[str, Any]) -> Record:
    """Raises ValueError where a record of this version has other fields, types or values."""
    del fields["record_sha256"]
    record: Record = _typed(Record, fields, "it")
    if not re.fullmatch(r"[0-9a-f]{64}", record.plan_sha256):
        raise ValueError(f"plan_sha256 is {record.plan_sha256!r}")
    if record.plan != f"{record.plan_sha256[:16]}.plan":  # never a path out of the folder
        raise ValueError(f"plan is {record.plan!r}")
    return record


def _typed(kind: Any, value: Any, name: str) -> Any:
    """What JSON has for a type of the dataclasses above, as that type; name: for messages."""
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        if not isinstance(value, dict) or value.keys() != kinds.keys():
            raise ValueError(f"{name} has not the fields {', '.join(kinds)}")
        return kind(**{key: _typed(kinds[key], value[key], key) for key in kinds})
    if get_origin(kind) is tuple:
        if isinstance(value, list):
            return tuple(_typed(*each, name) for each in zip(get_args(kind), value, strict=True))
    elif get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
    elif kind is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif type(value) in (get_args(kind) or (kind,)):
        return value
    raise ValueError(f"{name} is {value!r}")


def _sum(text: bytes) -> str:
    """Of a record's file, as if it had none in it."""
    return hashlib.sha256(_SUM.sub(b'"record_sha256": ""', text, count=1)).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Replaces a file at once, and comes back when it is on the disk."""
    new = path.with_name(f"{_NEW}{uuid.uuid4().hex}")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Puts a folder's list of files on the disk; some network file systems refuse that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = (file for file in (path, *path.rglob("*")) if file.is_symlink() or not file.is_dir())
    return sum(file.lstat().st_size for file in files)


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


def _serves(recipe: Recipe, made: str, here: str) -> bool:
    """Whether a newer TensorRT takes a plan of an older one."""
    then, now = _numbers(made), _numbers(here)
    majors = then[:1] == now[:1] or (then[:1], now[:1]) == ((10,), (11,))
    return recipe.version_compatible and majors and then <= now


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _card(machine: Machine) -> str:
    return f"{machine.gpu} (compute capability {machine.capability})"


def _safe(name: str) -> str:
    """A model's name as a part of a file's."""
    return re.sub(r"[^\w.-]", "-", name)[:64]


def _rebuild(folder: Path) -> str:
    """The command that builds what is in a folder."""
    found = _NAME.fullmatch(folder.name)
    if found is None:
        return f"`sketchify-rt build-engine NAME --output {shlex.quote(str(folder))} --force`"
    how = "" if found["precision"] == Recipe.precision else f" --precision {found['precision']}"
    return f"`sketchify-rt build-engine {found['model']}{how} --force`"


def _refused(folder: Path, what: str, error: BaseException) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(
        f"{folder}: {what} ({reason}); SKETCHIFY_CACHE sets another folder for the cache, --output "
        "one for a new engine"
    )
