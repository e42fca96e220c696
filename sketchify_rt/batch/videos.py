"""Converts the videos of a run, one by one, since each uses all threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sketchify_rt.batch.item import Item
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.resume import Convert, Fail, FailedBefore, Skip
from sketchify_rt.batch.runner import Outcome, Report, Status, explain, is_full, is_lasting
from sketchify_rt.batch.sources import Job
from sketchify_rt.batch.video import Engine, convert_video, result_name
from sketchify_rt.errors import OutputError

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
    item = Item(index, job.source, result_name(job.stem))
    path = to.root / item.output

    def end(status: Status, reason: str = "", full: bool = False) -> Outcome:
        seconds = time.perf_counter() - begun
        return Outcome(index, job.source, path, status, reason, full, seconds)

    try:
        decision = to.decide(item)
        if isinstance(decision, Fail):
            raise decision.error
        if not isinstance(decision, Convert):
            return end("skipped" if isinstance(decision, Skip) else "waiting")
        convert_video(
            engine,
            job.source,
            path,
            quality=quality,
            progress=lambda done, total: frames(job, done, total),
            file=to.file(item),
        )
        return end("converted")
    except Exception as error:
        reason, full = explain(error, job.source, debug), is_full(error)
        if not isinstance(error, FailedBefore):
            try:
                to.fail(item, reason, is_lasting(error))
            except OutputError as worse:
                full |= is_full(worse)
        return end("failed", reason, full)
