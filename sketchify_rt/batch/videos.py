"""Converts the videos of a run, one by one, since each uses all threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sketchify_rt.batch.journal import Origin
from sketchify_rt.batch.output import FailedBefore, Output, Unsettled, origin
from sketchify_rt.batch.runner import Outcome, Report, Status, explain
from sketchify_rt.batch.sinks import FULL
from sketchify_rt.batch.sources import Job
from sketchify_rt.batch.video import Engine, convert_video, result_name
from sketchify_rt.errors import DecodeError, OutputError

Frames = Callable[[Job, int, int | None], None]


def run_videos(
    engine: Engine,
    jobs: Sequence[tuple[int, Job]],
    to: Output,
    quality: int | None,
    report: Report,
    *,
    progress: Callable[[Outcome], None] = lambda outcome: None,
    frames: Frames = lambda job, done, total: None,
    debug: bool = False,
) -> None:
    """Convert videos, and note in `report` what became of them.

    jobs: with their places among all jobs; quality: see `convert_video`; progress: called with each
    outcome; frames: called with the job, its frames done, and about how many it has, None where
    nobody knows. KeyboardInterrupt ends it at once, and nothing stays of the video in work.
    """
    begun = time.perf_counter()
    for place, (index, job) in enumerate(jobs):
        if report.stopped:
            report.not_done += len(jobs) - place
            break
        try:
            outcome = _convert(engine, index, job, to, quality, frames, debug)
        except KeyboardInterrupt:
            report.stopped, report.interrupted = "interrupted", True
            report.not_done += 1
            continue
        report.note(outcome)
        progress(outcome)
    report.seconds += time.perf_counter() - begun


def _convert(
    engine: Engine,
    index: int,
    job: Job,
    to: Output,
    quality: int | None,
    frames: Frames,
    debug: bool,
) -> Outcome:
    begun = time.perf_counter()
    made: Origin | None = None
    output: Path | None = None

    def seconds() -> float:
        return time.perf_counter() - begun

    def end(status: Status, reason: str = "", full: bool = False) -> Outcome:
        return Outcome(index, job.source, output, status, reason, full, seconds())

    try:
        made = known = origin(job.source)
        output = path = to.folder.place(result_name(job.stem))
        if not to.wants(made, path):
            return end("skipped")
        convert_video(
            engine,
            job.source,
            path,
            quality=quality,
            progress=lambda done, total: frames(job, done, total),
            seal=lambda status: to.converted(known, path, status, seconds()),
        )
        return end("converted")
    except Unsettled:
        return end("waiting")
    except Exception as error:
        reason = explain(error, job.source, debug)
        full = isinstance(error, OutputError) and error.errno in FULL
        if made is not None and not isinstance(error, FailedBefore):
            try:
                to.journal.failed(made, reason, isinstance(error, DecodeError), seconds())
            except OutputError as worse:
                full |= worse.errno in FULL
        return end("failed", reason, full)
