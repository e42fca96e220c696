"""What `convert` tells: progress, failures, a summary, JSON, a report file."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from sketchify_rt.batch.runner import Outcome, Report, explain
from sketchify_rt.batch.sinks import whole
from sketchify_rt.batch.sources import Job, Sources
from sketchify_rt.batch.tasks import PageTask
from sketchify_rt.batch.work import Work
from sketchify_rt.errors import OptionsError, SketchifyError

Row = dict[str, Any]
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_COLUMNS = ("source", "output", "status", "reason", "seconds")


class Teller:
    """Tells of one run, or of several one after the other. total: of all of them."""

    def __init__(self, report: Path | None, as_json: bool, quiet: bool) -> None:
        """`report`: file for a row per image. Raises OptionsError where its ending is unknown."""
        self.total = Report()
        self._json, self._quiet = as_json, quiet
        self._stack = contextlib.ExitStack()
        self._rows = _rows(report) if report else None
        self._write: Callable[[Row], None] = lambda row: None
        self._outcomes: list[Outcome] = []
        self._failures: dict[tuple[Path, str], None] = {}  # in the order they were told in
        self._again = False  # a later run of a watch: what it skips or fails at again is known
        self._unreported = False

    def __enter__(self) -> Teller:
        if self._rows:
            self._write = self._stack.enter_context(self._rows)
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever ended the run, the rows up to there are worth having.
        try:
            self._stack.close()
        except (SketchifyError, OSError) as failure:
            self._give_up_report(failure)

    @property
    def failed(self) -> bool:
        """Whether anything was left undone, or not reported."""
        return bool(self._failures or self.total.not_done or self._unreported)

    @contextlib.contextmanager
    def progress(self, work: Work) -> Iterator[Callable[[Outcome], None]]:
        """What is to be told of each outcome; a bar on stderr, when that is a terminal."""
        if self._quiet or sys.stderr is None or not sys.stderr.isatty() or not len(work):
            yield self._note
            return
        from tqdm import tqdm

        failed = 0

        def advance(outcome: Outcome) -> None:
            nonlocal failed
            self._note(outcome)
            if outcome.status == "failed":
                failed += 1
                bar.set_postfix(failed=failed, refresh=False)
            bar.total = len(work)  # grows with the pages of archives
            bar.update()

        with tqdm(total=len(work), unit=" images", dynamic_ncols=True) as bar:
            yield advance

    @contextlib.contextmanager
    def frames(
        self,
    ) -> Iterator[tuple[Callable[[Outcome], None], Callable[[Job, int, int | None], None]]]:
        """What is to be told of each video, and of each frame of it; a bar, as for images."""
        if self._quiet or sys.stderr is None or not sys.stderr.isatty():
            yield self._note, lambda job, done, total: None
            return
        from tqdm import tqdm

        with tqdm(unit=" frames", dynamic_ncols=True) as bar:

            def advance(job: Job, done: int, total: int | None) -> None:
                if done == 1:
                    bar.reset(total)
                    bar.set_description(show(job.source), refresh=False)
                bar.update(done - bar.n)

            yield self._note, advance

    def _note(self, outcome: Outcome) -> None:
        if outcome.status == "waiting":
            return
        if self._again and (
            outcome.status == "skipped" or (outcome.source, outcome.reason) in self._failures
        ):
            return
        if self._json:
            self._outcomes.append(outcome)
        self._report(
            {
                "source": str(outcome.source),
                "output": str(outcome.output) if outcome.output else None,
                "status": outcome.status,
                "reason": outcome.reason or None,
                "seconds": round(outcome.seconds, 4),
            }
        )

    def _report(self, row: Row) -> None:
        try:
            self._write(row)
        except OSError as error:
            self._give_up_report(error)

    def _give_up_report(self, error: Exception) -> None:
        if not self._unreported:
            self._unreported = True
            self._write = lambda row: None
            why = error.strerror if isinstance(error, OSError) else error
            click.echo(f"the report is not written: {why}", err=True)

    def tell(self, report: Report, sources: Sources) -> None:
        """Of a run that ended: each failure that was not told before."""
        known = dataclasses.replace(report, skipped=0, failed=[]) if self._again else report
        self.total.add(known)
        self._again = True
        for problem in sources.problems:
            self._fail(problem.source, problem.reason, new=True)
        for outcome in report.failed:
            self._fail(outcome.source, outcome.reason)
        if report.stopped and not self._json:
            click.echo(
                f"stopped: {report.stopped}; {report.not_done} images not begun; the same command "
                "goes on from here",
                err=True,
            )

    def _fail(self, source: Path, reason: str, new: bool = False) -> None:
        if (source, reason) in self._failures:
            return
        self._failures[source, reason] = None
        if new:
            self._report({"source": str(source), "status": "failed", "reason": reason})
        if not self._json:
            click.echo(f"{show(source)}: {reason}", err=True)

    def sum_up(self) -> None:
        """The last line, or the JSON document."""
        total, failed = self.total, len(self._failures)
        if self._json:
            click.echo(json.dumps(self._document()))
        elif not self._quiet:
            click.echo(
                f"converted {total.converted}, skipped {total.skipped}, failed {failed} "
                f"in {total.seconds:.1f} s ({total.images_per_second:.1f} images/s)"
            )

    def _document(self) -> dict[str, Any]:
        """`files` has every image that was begun, in the order of the input."""
        total = self.total
        return {
            "converted": total.converted,
            "skipped": total.skipped,
            "failed": len(self._failures),
            "not_done": total.not_done,
            "stopped": total.stopped or None,
            "seconds": round(total.seconds, 3),
            "images_per_second": round(total.images_per_second, 3),
            "failures": [
                {"source": str(source), "reason": reason} for source, reason in self._failures
            ],
            "files": [
                {
                    "source": str(outcome.source),
                    "output": str(outcome.output) if outcome.output else None,
                    "status": outcome.status,
                }
                for outcome in sorted(self._outcomes, key=lambda outcome: outcome.index)
            ],
        }


def _rows(path: Path) -> contextlib.AbstractContextManager[Callable[[Row], None]]:
    """Writes rows to a file that is there once it is whole. Raises OptionsError."""
    forms = {".csv": _csv, ".json": _json}
    if path.suffix.lower() not in forms:
        raise OptionsError(f"report is {path}; it may end in .csv or .json")
    return forms[path.suffix.lower()](path)


@contextlib.contextmanager
def _csv(path: Path) -> Iterator[Callable[[Row], None]]:
    with _text(path) as file:
        table = csv.DictWriter(file, _COLUMNS)
        table.writeheader()
        yield table.writerow


@contextlib.contextmanager
def _json(path: Path) -> Iterator[Callable[[Row], None]]:
    with _text(path) as file:
        before = "["

        def write(row: Row) -> None:
            nonlocal before
            full = {column: row.get(column) for column in _COLUMNS}
            file.write(f"{before}\n{json.dumps(full)}")
            before = ","

        yield write
        file.write("[]\n" if before == "[" else "\n]\n")


@contextlib.contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    with whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        try:
            yield text
            text.flush()
        finally:
            text.detach()


def rehearse(work: Work, sources: Sources) -> None:
    """Tell what would be done, and do nothing."""
    counts = {"convert": 0, "skip": 0, "fail": 0}
    for line in problems(sources):
        counts["fail"] += 1
        click.echo(f"fail     {line}")
    for task in work:  # but for videos
        try:
            verb = "convert" if task.wanted() else "skip"
            detail = f" -> {show(task.output)}" if task.output else ""
        except Exception as error:
            verb, detail = "fail", f": {explain(error, task.source)}"
        counts[verb] += 1
        click.echo(f"{verb:<8} {show(task.source)}{detail}")
        if isinstance(task, PageTask):
            task.book.abort()  # else thousands of archives would be open
    for _, job in work.videos:
        counts["convert"] += 1
        click.echo(f"convert  {show(job.source)}, unless it is done already")
    click.echo("would " + ", ".join(f"{verb} {count}" for verb, count in counts.items()))


def problems(sources: Sources) -> list[str]:
    """Lines on inputs that gave nothing."""
    return [f"{show(problem.source)}: {problem.reason}" for problem in sources.problems]


def show(path: Path) -> str:
    """Its name, whatever bytes it has; control characters, which move a cursor, are escaped."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], click.format_filename(path))
