"""Carries images through read, convert and write on several threads; one bad file stops nothing.

Each thread takes a batch the whole way, one image on a CPU, so that reading, decoding, the model,
encoding and writing of different images overlap and memory holds no more batches than there are
threads.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

from sketchify_rt.batch.sinks import FULL, Folder, write
from sketchify_rt.batch.sources import Job
from sketchify_rt.errors import DecodeError, OutputError, SketchifyError
from sketchify_rt.options import Encoding

Status = Literal["converted", "skipped", "failed"]


class Engine(Protocol):
    """What the runner needs of a `Sketchifier`."""

    batch: int

    def prepare(self, workers: int) -> None:
        """Get ready for `workers` threads calling `convert_batch` at the same time."""

    def convert_batch(
        self, images: Sequence[Path], encoding: Encoding, /
    ) -> Sequence[bytes | Exception]:
        """Encoded sketches of up to `batch` images, an error in the place of one that failed."""


class Jobs(Protocol):
    """Jobs, counted, and taken one by one: a million of them need not be in memory."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Job]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job.

    index: its place among the jobs; reason: why it failed, else ""; full: whether it failed for
    want of room on the disk, as every job after it would.
    """

    index: int
    source: Path
    output: Path | None
    status: Status
    reason: str = ""
    full: bool = False


@dataclass(slots=True)
class Report:
    """What became of all jobs.

    failed: in the order of the jobs; not_done: jobs that were not begun; seconds: wall time of
    the conversions; stopped: why jobs were left, else "".
    """

    converted: int = 0
    skipped: int = 0
    failed: list[Outcome] = field(default_factory=list)
    not_done: int = 0
    seconds: float = 0.0
    stopped: str = ""
    interrupted: bool = False

    @property
    def images_per_second(self) -> float:
        """Converted images per second of wall time."""
        return self.converted / self.seconds if self.seconds else 0.0


def run(
    engine: Engine,
    jobs: Jobs,
    sink: Folder,
    encoding: Encoding,
    *,
    workers: int,
    progress: Callable[[Outcome], None] = lambda outcome: None,
    debug: bool = False,
) -> Report:
    """Convert all `jobs` on `workers` threads, at least 1 and at most as many as there are jobs.

    progress: called in this thread with each outcome as it comes, not in the order of the jobs.
    debug: give the reason of a failure that nobody foresaw with its traceback.
    A full disk stops the run, since every other job would fail as well; so does
    KeyboardInterrupt, once the images in work are done. The report tells of both.
    Raises what `engine.prepare` raises: BackendUnavailable, ModelError.
    """
    workers = max(1, min(workers, len(jobs)))
    engine.prepare(workers)
    report = Report(not_done=len(jobs))
    feed = enumerate(iter(jobs))
    pending: set[Future[list[Outcome]]] = set()

    def settle(future: Future[list[Outcome]]) -> None:
        pending.discard(future)
        for outcome in future.result():
            count(outcome)

    def count(outcome: Outcome) -> None:
        report.not_done -= 1
        if outcome.status == "failed":
            report.failed.append(outcome)
        elif outcome.status == "skipped":
            report.skipped += 1
        else:
            report.converted += 1
        if outcome.full:
            report.stopped = "the disk is full"
        progress(outcome)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers, thread_name_prefix="sketchify") as pool:
        try:
            while True:
                # One more than can be worked on, so that no thread waits for this one.
                while len(pending) <= workers and not report.stopped:
                    if not (batch := list(islice(feed, engine.batch))):
                        break
                    pending.add(pool.submit(_carry, engine, batch, sink, encoding, debug))
                if not pending:
                    break
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    settle(future)
        except KeyboardInterrupt:
            report.stopped, report.interrupted = "interrupted", True
            begun = {future for future in pending if not future.cancel()}
            for future in wait(begun).done:
                settle(future)
    report.seconds = time.perf_counter() - start
    report.failed.sort(key=lambda outcome: outcome.index)
    return report


def _carry(
    engine: Engine, batch: list[tuple[int, Job]], sink: Folder, encoding: Encoding, debug: bool
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    wanted: list[tuple[int, Job, Path]] = []

    def fail(index: int, job: Job, output: Path | None, error: Exception) -> None:
        full = isinstance(error, OutputError) and error.errno in FULL
        reason = explain(error, job.source, debug)
        outcomes.append(Outcome(index, job.source, output, "failed", reason, full))

    for index, job in batch:
        try:
            output = sink.place(job.stem)
            if sink.skips(output):
                outcomes.append(Outcome(index, job.source, output, "skipped"))
            else:
                wanted.append((index, job, output))
        except Exception as error:
            fail(index, job, None, error)
    results: Sequence[bytes | Exception] = ()
    if wanted:
        try:
            results = engine.convert_batch([job.source for _, job, _ in wanted], encoding)
        except Exception as error:
            results = [error] * len(wanted)
    for (index, job, output), result in zip(wanted, results, strict=True):
        try:
            if isinstance(result, Exception):
                raise result
            write(output, result)
            outcomes.append(Outcome(index, job.source, output, "converted"))
        except Exception as error:
            fail(index, job, output, error)
    return outcomes


def explain(error: Exception, source: Path, debug: bool = False) -> str:
    """Why `source` failed, in words that do not name it again."""
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
