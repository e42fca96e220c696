"""Reads, converts and writes images on several threads. A bad file does not stop the others.

Each thread takes one batch through all steps; on a CPU a batch is one image. So the steps of
different images overlap, and there are at most as many batches in memory as threads.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol

from sketchify_rt.batch.budget import Budget
from sketchify_rt.batch.interruption import deferred
from sketchify_rt.batch.output import FailedBefore, Unsettled
from sketchify_rt.batch.sinks import FULL
from sketchify_rt.batch.tasks import Task
from sketchify_rt.errors import (
    ContainerError,
    DecodeError,
    DecoderKilled,
    OutputError,
    OverMemory,
    SketchifyError,
    bare,
)
from sketchify_rt.options import Encoding

if TYPE_CHECKING:
    from sketchify_rt.inputs import Loaded

FULL_DISK = "the disk is full"

Status = Literal["converted", "skipped", "waiting", "failed"]  # waiting: see `Unsettled`


class Engine(Protocol):
    """What the runner needs of a `Sketchifier`."""

    batch: int

    def prepare(self, workers: int) -> None:
        """Get ready for `workers` threads calling `encode_batch` at the same time."""

    def encode_batch(
        self, images: Sequence[Loaded], encoding: Encoding, /
    ) -> Sequence[bytes | Exception]:
        """Encoded sketches of up to `batch` images, an error in the place of one that failed."""


class Work(Protocol):
    """Tasks, taken one by one, so that a million need not be in memory. `len` counts known ones."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Task]: ...


@dataclass(frozen=True, slots=True)
class Care:
    """Other settings of the runner.

    Attributes:
        budget: Memory of the images in progress.
        decode: Decodes an image before the engine gets it, in a separate process; None for the
            engine itself.
        debug: Show unexpected errors with their traceback.
    """

    budget: Budget = field(default_factory=Budget)  # without a bound
    decode: Callable[[Loaded], Loaded] | None = None
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one task.

    Attributes:
        index: Number of its job.
        source: The input.
        output: The result's file, if known.
        status: "waiting" is explained at `Unsettled`.
        reason: Why it failed, or "".
        full: Whether it failed because the disk is full.
        seconds: Time it took.
        animated: Whether the file has more frames or pages, which are left out.
    """

    index: int
    source: Path
    output: Path | None
    status: Status
    reason: str = ""
    full: bool = False
    seconds: float = 0.0
    animated: bool = False


@dataclass(slots=True)
class Report:
    """The results of all tasks.

    Attributes:
        converted: Number of converted images.
        animated: Number of those that have more frames or pages, which are left out.
        skipped: Number of skipped images.
        waiting: Number of inputs of a watch that are left for the next look.
        failed: Failures, in the order of the jobs.
        not_done: Number of images that were not started.
        seconds: Wall time of the conversions.
        stopped: Why images were not started, or "".
        interrupted: Whether Ctrl-C stopped the run.
    """

    converted: int = 0
    animated: int = 0
    skipped: int = 0
    waiting: int = 0
    failed: list[Outcome] = field(default_factory=list)
    not_done: int = 0
    seconds: float = 0.0
    stopped: str = ""
    interrupted: bool = False

    def note(self, outcome: Outcome) -> None:
        """One more."""
        if outcome.status == "failed":
            self.failed.append(outcome)
        elif outcome.status == "skipped":
            self.skipped += 1
        elif outcome.status == "waiting":
            self.waiting += 1
        else:
            self.converted += 1
            self.animated += outcome.animated
        if outcome.full:
            self.stopped = FULL_DISK

    def add(self, later: Report) -> None:
        """Those of a run after this one."""
        self.converted += later.converted
        self.animated += later.animated
        self.skipped += later.skipped
        self.waiting = later.waiting
        self.failed += later.failed
        self.not_done = later.not_done
        self.seconds += later.seconds
        self.stopped, self.interrupted = later.stopped, later.interrupted

    @property
    def images_per_second(self) -> float:
        """Converted images per second of wall time."""
        return self.converted / self.seconds if self.seconds else 0.0


def run(
    engine: Engine,
    work: Work,
    encoding: Encoding,
    *,
    workers: int,
    progress: Callable[[Outcome], None] = lambda outcome: None,
    care: Care = Care(),
) -> Report:
    """Converts images.

    A full disk stops the run, since every other task would fail as well. So does Ctrl-C, after the
    images in progress are finished. The report contains the reason. A second Ctrl-C raises
    KeyboardInterrupt at once, while threads still convert.

    Args:
        engine: Converts batches.
        work: The tasks.
        encoding: Format of the sketches.
        workers: Number of threads, at least 1.
        progress: Called in this thread with each outcome, in the order in which tasks finish.
        care: Other settings.

    Returns:
        The results.

    Raises:
        BackendUnavailable, ModelError: Raised by `engine.prepare`.
    """
    workers = max(1, workers)
    engine.prepare(workers)
    report = Report()
    feed = iter(work)
    pending: set[Future[list[Outcome]]] = set()
    finished: SimpleQueue[Future[list[Outcome]] | None] = SimpleQueue()  # None: an interruption
    settled = 0

    def settle(future: Future[list[Outcome]]) -> None:
        nonlocal settled
        pending.discard(future)
        for outcome in future.result():
            settled += 1
            report.note(outcome)
            progress(outcome)

    start = time.perf_counter()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="sketchify")
    patient = True
    with deferred(lambda: finished.put(None)):
        try:
            while True:
                # One more than can be worked on, so that no thread waits for this one.
                while len(pending) <= workers and not report.stopped:
                    if not (batch := list(islice(feed, engine.batch))):
                        break
                    future = pool.submit(_carry, engine, batch, encoding, care)
                    pending.add(future)
                    future.add_done_callback(finished.put)
                if not pending:
                    break
                # A signal that comes just before Python waits would be seen only after it.
                with suppress(Empty):
                    if (first := finished.get(timeout=0.5)) is None:
                        raise KeyboardInterrupt
                    settle(first)
        except KeyboardInterrupt:
            patient = False  # with what is left to do here, should there be another
            report.stopped, report.interrupted = "interrupted", True
            begun = {future for future in pending if not future.cancel()}
            while begun:
                done, begun = wait(begun, timeout=0.5)
                for future in done:
                    settle(future)
        finally:
            pool.shutdown(wait=patient)
    report.not_done = len(work) - settled
    report.seconds = time.perf_counter() - start
    report.failed.sort(key=lambda outcome: outcome.index)
    return report


def _carry(engine: Engine, batch: list[Task], encoding: Encoding, care: Care) -> list[Outcome]:
    """A batch the whole way, and what became of each of its tasks."""
    begun = time.perf_counter()
    outcomes: list[Outcome] = []

    def end(
        task: Task, status: Status, error: Exception | None = None, animated: bool = False
    ) -> None:
        seconds = (time.perf_counter() - begun) / len(batch)
        reason = explain(error, task.source, care.debug) if error else ""
        full = isinstance(error, OutputError) and error.errno in FULL
        if error and not isinstance(error, FailedBefore):
            try:
                task.fail(reason, _is_lasting(error), seconds)
            except Exception as worse:  # an archive may be gone meanwhile, too
                full |= isinstance(worse, OutputError) and worse.errno in FULL
        outcome = Outcome(task.index, task.source, task.output, status, reason, full, seconds)
        outcomes.append(replace(outcome, animated=animated))

    wanted: list[Task] = []
    size, known = 0, True
    for task in batch:
        try:
            if not task.wanted():
                end(task, "skipped")
                continue
            need = task.need(encoding)
            known &= need is not None
            size += care.budget.check(task.source, task.size() if need is None else need)
            wanted.append(task)
        except Unsettled:
            end(task, "waiting")
        except Exception as error:
            end(task, "failed", error)

    tasks: list[Task] = []
    images: list[Loaded] = []
    animated: list[bool] = []

    def read() -> int:
        need = 0
        for task in wanted:
            try:
                image = task.read()
                need += care.budget.check(task.source, care.budget.needed(image, encoding))
            except Exception as error:
                end(task, "failed", error)
            else:
                tasks.append(task)
                images.append(image)
                header = getattr(image, "header", None)  # of a file
                animated.append(header is not None and header.animated)
        return need

    with care.budget.hold(size, read, known):
        results = _convert(engine, images, encoding, care)
        for task, result, more in zip(tasks, results, animated, strict=True):
            try:
                if isinstance(result, Exception):
                    raise result
                task.write(result, (time.perf_counter() - begun) / len(batch))
                end(task, "converted", animated=more)
            except Exception as error:
                end(task, "failed", error)
    return outcomes


def _convert(
    engine: Engine, images: list[Loaded], encoding: Encoding, care: Care
) -> Sequence[bytes | Exception]:
    if not images:
        return ()
    results: list[bytes | Exception | None] = [None] * len(images)
    if care.decode:
        for place, image in enumerate(images):
            try:
                images[place] = care.decode(image)
            except Exception as error:
                results[place] = bare(error)
    good = [place for place, result in enumerate(results) if result is None]
    try:
        done = engine.encode_batch([images[place] for place in good], encoding)
    except Exception as error:
        done = [error] * len(good)
    for place, result in zip(good, done, strict=True):
        results[place] = result
    return [result for result in results if result is not None]


def _is_lasting(error: Exception) -> bool:
    """Whether the input is to blame, within the limits that the journal notes."""
    lasting = (ContainerError, DecodeError, OverMemory)
    return isinstance(error, lasting) and not isinstance(error, DecoderKilled)


def explain(error: Exception, source: Path, debug: bool = False) -> str:
    """Returns the reason why `source` failed, without its name."""
    if isinstance(error, DecodeError):
        return error.reason
    if isinstance(error, SketchifyError):
        return str(error).removeprefix(f"{source}: ")
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, MemoryError):
        return "not enough memory; give fewer --threads, a smaller --tile or a --max-side"
    reason = f"{type(error).__name__}: {error}"
    return reason + "\n" + "".join(traceback.format_exception(error)) if debug else reason
