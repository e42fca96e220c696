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
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol

from sketchify_rt.batch.budget import Budget
from sketchify_rt.batch.interruption import deferred
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.resume import Convert, FailedBefore, Skip
from sketchify_rt.errors import (
    ContainerError,
    DecodeError,
    DecoderKilled,
    OutputError,
    OverMemory,
    SketchifyError,
    bare,
)
from sketchify_rt.files import FULL
from sketchify_rt.options import Encoding

if TYPE_CHECKING:
    from sketchify_rt.batch.output import Output
    from sketchify_rt.inputs import Loaded

FULL_DISK = "the disk is full"

Status = Literal["converted", "skipped", "waiting", "failed"]  # waiting: see `resume.Wait`


class Converter(Protocol):
    """What the runner needs of a `Sketchifier`."""

    batch: int

    def prepare(self, workers: int) -> None:
        """Get ready for `workers` threads calling `encode_batch` at the same time."""

    def encode_batch(
        self, images: Sequence[Loaded], encoding: Encoding, /
    ) -> Sequence[bytes | Exception]:
        """Encoded sketches of up to `batch` images, an error in the place of one that failed."""


class Items(Protocol):
    """Items, taken one by one, so that a million need not be in memory. `len` counts known ones."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Item]: ...


@dataclass(frozen=True, slots=True)
class Care:
    """Other settings of the runner.

    Attributes:
        budget: Memory of the images in progress.
        decode: Decodes each image before the converter gets it, in a separate process; None for the
            converter itself.
        decode_suspect: The same for images that were in work when two runs crashed.
        debug: Show unexpected errors with their traceback.
    """

    budget: Budget = field(default_factory=Budget)  # without a bound
    decode: Callable[[Loaded], Loaded] | None = None
    decode_suspect: Callable[[Loaded], Loaded] | None = None
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one item.

    Attributes:
        index: Number of its input.
        source: The file, and the page in it.
        output: The result's file, if known.
        status: "waiting" is explained at `resume.Wait`.
        reason: Why it failed, or "".
        full: Whether it failed because the disk is full.
        seconds: Time it took.
        total: Number of items known so far. It grows when a file of pages is opened.
        animated: Whether the file has more frames or pages, which are left out.
    """

    index: int
    source: Path
    output: Path | None
    status: Status
    reason: str = ""
    full: bool = False
    seconds: float = 0.0
    total: int = 0
    animated: bool = False


@dataclass(slots=True)
class Report:
    """The results of all items.

    Attributes:
        converted: Number of converted images.
        animated: Number of those that have more frames or pages, which are left out.
        skipped: Number of skipped images.
        waiting: Number of inputs of a watch that are left for the next look.
        failed: Failures, in the order of the inputs.
        not_done: Number of images that were not started.
        seconds: Wall time of the conversions.
        stopped: Why images were not started, or "".
        interrupted: Whether Ctrl-C stopped the run.
        unwritten: Why the report file was not written; None if it was.
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
    unwritten: OutputError | None = None

    def note(self, outcome: Outcome) -> None:
        """Counts one more outcome."""
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
        """Adds the results of a run after this one."""
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
    converter: Converter,
    items: Items,
    output: Output,
    encoding: Encoding,
    *,
    workers: int,
    progress: Callable[[Outcome], None] = lambda outcome: None,
    care: Care = Care(),
) -> Report:
    """Converts images.

    A full disk stops the run, since every other item would fail as well. So does Ctrl-C, after the
    images in progress are finished. The report contains the reason. A second Ctrl-C raises
    KeyboardInterrupt at once, while threads still convert.

    Args:
        converter: Converts batches.
        items: The images.
        output: Where results go.
        encoding: Format of the sketches.
        workers: Number of threads, at least 1.
        progress: Called in this thread with each outcome, in the order in which items finish.
        care: Other settings.

    Returns:
        The results.

    Raises:
        BackendUnavailable, ModelError: Raised by `converter.prepare`.
    """
    workers = max(1, workers)
    converter.prepare(workers)
    report, settled = Report(), 0

    def carry(batch: list[Item]) -> list[Outcome]:
        return _Carrier(converter, items, output, encoding, care, batch).carry()

    def settle(outcomes: list[Outcome]) -> bool:
        nonlocal settled
        for outcome in outcomes:
            settled += 1
            report.note(outcome)
            progress(outcome)
        return not report.stopped

    start = time.perf_counter()
    feed = iter(items)
    batches = iter(lambda: list(islice(feed, converter.batch)), [])
    if not _in_threads(carry, batches, settle, workers):
        report.stopped, report.interrupted = "interrupted", True
    report.not_done = len(items) - settled
    report.seconds = time.perf_counter() - start
    report.failed.sort(key=lambda outcome: outcome.index)
    return report


def _in_threads(
    carry: Callable[[list[Item]], list[Outcome]],
    batches: Iterator[list[Item]],
    settle: Callable[[list[Outcome]], bool],
    workers: int,
) -> bool:
    """Carries batches on threads, taking few ahead.

    Args:
        carry: Called in the threads.
        batches: Taken in this thread.
        settle: Called in this thread with what `carry` returned. Returns whether to go on.
        workers: Number of threads.

    Returns:
        False after Ctrl-C, when the batches in progress are finished.

    Raises:
        KeyboardInterrupt: A second Ctrl-C. Threads may still carry.
    """
    pending: set[Future[list[Outcome]]] = set()
    finished: SimpleQueue[Future[list[Outcome]] | None] = SimpleQueue()  # None: an interruption
    go_on = patient = True
    pool = ThreadPoolExecutor(workers, thread_name_prefix="sketchify")
    with deferred(lambda: finished.put(None)):
        try:
            while True:
                # One more than can be worked on, so that no thread waits for this one.
                while go_on and len(pending) <= workers and (batch := next(batches, [])):
                    future = pool.submit(carry, batch)
                    pending.add(future)
                    future.add_done_callback(finished.put)
                if not pending:
                    return True
                # A signal that comes just before Python waits would be seen only after it.
                with suppress(Empty):
                    if (first := finished.get(timeout=0.5)) is None:
                        raise KeyboardInterrupt
                    pending.discard(first)
                    go_on &= settle(first.result())
        except KeyboardInterrupt:
            patient = False  # with what is left to do here, should there be another
            begun = {future for future in pending if not future.cancel()}
            while begun:
                done, begun = wait(begun, timeout=0.5)
                for future in done:
                    settle(future.result())
            return False
        finally:
            pool.shutdown(wait=patient)


class _Carrier:
    """Carries one batch all the way."""

    def __init__(
        self,
        converter: Converter,
        items: Items,
        output: Output,
        encoding: Encoding,
        care: Care,
        batch: list[Item],
    ) -> None:
        self._converter, self._items, self._output = converter, items, output
        self._encoding, self._care, self._batch = encoding, care, batch
        self._begun = time.perf_counter()
        self._outcomes: list[Outcome] = []

    def carry(self) -> list[Outcome]:
        """Returns the outcome of each item."""
        wanted: list[Item] = []
        size, known = 0, True
        for item in self._batch:
            try:
                if (need := self._begin(item)) is not None:
                    size += need[0]
                    known &= need[1]
                    wanted.append(item)
            except Exception as error:
                self._end(item, "failed", error)
        items: list[Item] = []
        images: list[Loaded] = []
        with self._care.budget.hold(size, lambda: self._read(wanted, items, images), known):
            for item, result in zip(items, self._convert(items, images), strict=True):
                try:
                    if isinstance(result, Exception):
                        raise result
                    if item.book:
                        book, page = item.book
                        book.put(page, result)
                    else:
                        self._output.write(item, result)
                    self._end(item, "converted")
                except Exception as error:
                    self._end(item, "failed", error)
        return self._outcomes

    def _begin(self, item: Item) -> tuple[int, bool] | None:
        """Decides about an item.

        Returns:
            The bytes of memory to reserve, and whether these are all that it needs; None if it is
            not to be converted.
        """
        decision = self._output.decide(item)
        if not isinstance(decision, Convert):
            self._end(item, "skipped" if isinstance(decision, Skip) else "waiting")
            return None
        need = item.need(self._encoding, self._care.budget.colours)
        checked = self._care.budget.check(item.source, item.size() if need is None else need)
        if item.book:
            item.suspect = item.book[0].whole.suspect
        else:
            self._output.begin(item)
        return checked, need is not None

    def _read(self, wanted: list[Item], items: list[Item], images: list[Loaded]) -> int:
        """Appends the images that can be read. Returns the bytes of memory that they need."""
        budget, total = self._care.budget, 0
        for item in wanted:
            try:
                image = item.read()
                total += budget.check(item.source, budget.needed(image, self._encoding))
            except Exception as error:
                self._end(item, "failed", error)
            else:
                items.append(item)
                images.append(image)
        return total

    def _convert(self, items: list[Item], images: list[Loaded]) -> Sequence[bytes | Exception]:
        results: list[bytes | Exception | None] = [None] * len(images)
        for place, item in enumerate(items):
            decode = self._care.decode or (self._care.decode_suspect if item.suspect else None)
            if decode is not None:
                try:
                    images[place] = decode(images[place])
                except Exception as error:
                    results[place] = bare(error)
        good = [place for place, result in enumerate(results) if result is None]
        if good:
            try:
                done = self._converter.encode_batch([images[p] for p in good], self._encoding)
            except Exception as error:
                done = [error] * len(good)
            for place, result in zip(good, done, strict=True):
                results[place] = result
        return [result for result in results if result is not None]

    def _end(self, item: Item, status: Status, error: Exception | None = None) -> None:
        """Notes the outcome of an item."""
        output = self._output
        seconds = (time.perf_counter() - self._begun) / len(self._batch)
        reason = explain(error, item.source, self._care.debug) if error else ""
        full = is_full(error)
        try:
            if error and not isinstance(error, FailedBefore):
                self._fail(item, reason, is_lasting(error))
        except Exception as worse:  # the archive may be gone meanwhile, too
            full |= is_full(worse)
        finally:
            output.end(item)
        path, total = output.root / item.output, len(self._items)
        self._outcomes.append(
            Outcome(
                item.index,
                item.source,
                path,
                status,
                reason,
                full,
                seconds,
                total,
                status == "converted" and item.animated,
            )
        )

    def _fail(self, item: Item, reason: str, lasting: bool) -> None:
        if item.book:
            book, page = item.book
            book.put(page, None, reason, lasting)
        else:
            self._output.fail(item, reason, lasting)


def is_full(error: Exception | None) -> bool:
    """Whether the error says that the disk is full."""
    return isinstance(error, OutputError) and error.errno in FULL


def is_lasting(error: Exception) -> bool:
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
