"""Converts the videos of a run, one by one, since each uses all threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sketchify_rt.batch.item import Item
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.resume import Convert, FailedBefore, Skip
from sketchify_rt.batch.runner import Outcome, Report, Status, explain, is_full, is_lasting
from sketchify_rt.batch.video import Engine, convert_video
from sketchify_rt.errors import OutputError

Frames = Callable[[Item, int, int | None], None]


def run_videos(
    engine: Engine,
    items: Sequence[Item],
    to: Output,
    quality: int | None,
    report: Report,
    *,
    progress: Callable[[Outcome], None] = lambda outcome: None,
    frames: Frames = lambda item, done, total: None,
    debug: bool = False,
) -> None:
    """Converts videos, and notes in `report` what became of them.

    KeyboardInterrupt ends it at once. Then nothing stays of the video in work.

    Args:
        engine: Makes the sketches.
        items: The videos.
        to: The output folder.
        quality: See `convert_video`.
        report: Gets the outcomes.
        progress: Called with each outcome.
        frames: Called with the item, the number of its frames done, and about how many it has, or
            None.
        debug: Report unexpected errors with their traceback.
    """
    begun = time.perf_counter()
    for place, item in enumerate(items):
        if report.stopped:
            report.not_done += len(items) - place
            break
        try:
            outcome = _convert(engine, item, to, quality, frames, debug)
        except KeyboardInterrupt:
            report.stopped, report.interrupted = "interrupted", True
            report.not_done += 1
            continue
        report.note(outcome)
        progress(outcome)
    report.seconds += time.perf_counter() - begun


def _convert(
    engine: Engine,
    item: Item,
    to: Output,
    quality: int | None,
    frames: Frames,
    debug: bool,
) -> Outcome:
    begun = time.perf_counter()
    path = to.root / item.output

    def end(status: Status, reason: str = "", full: bool = False) -> Outcome:
        seconds = time.perf_counter() - begun
        return Outcome(item.index, item.path, path, status, reason, full, seconds)

    try:
        decision = to.decide(item)
        if not isinstance(decision, Convert):
            return end("skipped" if isinstance(decision, Skip) else "waiting")
        convert_video(
            engine,
            item.path,
            path,
            quality=quality,
            progress=lambda done, total: frames(item, done, total),
            file=to.file(item),
        )
        return end("converted")
    except Exception as error:
        reason, full = explain(error, item.path, debug), is_full(error)
        if not isinstance(error, FailedBefore):
            try:
                to.fail(item, reason, is_lasting(error))
            except OutputError as worse:
                full |= is_full(worse)
        return end("failed", reason, full)
