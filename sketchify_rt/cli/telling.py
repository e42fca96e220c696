"""The output of `convert`: progress, failures, a summary, JSON, a report file."""

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
    """Shows the results of a run, or of several runs of a watch.

    Attributes:
        total: Counts of all runs together.
    """

    def __init__(self, report: Path | None, as_json: bool, quiet: bool) -> None:
        """Prepares the output.

        Args:
            report: File for a row per image; None for none.
            as_json: Print a JSON document at the end, and nothing else.
            quiet: Show only failures.

        Raises:
            OptionsError: The ending of `report` is unknown.
        """
        self.total = Report()
        self._json, self._quiet = as_json, quiet
        self._stack = contextlib.ExitStack()
        self._rows = _rows(report) if report else None
        self._write: Callable[[Row], None] = lambda row: None
        self._outcomes: list[Outcome] = []
        self._failures: dict[tuple[Path, str], None] = {}  # in the order in which they were shown
        self._again = False  # in a later run of a watch, repeated skips and failures are not shown
        self._unreported = False
        self._passed_over: list[str] = []

    def __enter__(self) -> Teller:
        if self._rows:
            self._write = self._stack.enter_context(self._rows)
        return self

    def __exit__(self, *_: object) -> None:
        # The rows are kept whatever ended the run.
        try:
            self._stack.close()
        except (SketchifyError, OSError) as failure:
            self._give_up_report(failure)

    @property
    def failed(self) -> bool:
        """Whether an image failed or was not converted, or the report was not written."""
        return bool(self._failures or self.total.not_done or self._unreported)

    @contextlib.contextmanager
    def progress(self, work: Work) -> Iterator[Callable[[Outcome], None]]:
        """Shows the progress of images, with a bar if stderr is a terminal.

        Args:
            work: The images.

        Yields:
            A function to be called with each outcome.
        """
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
        """Shows the progress of videos, as `progress` does.

        Yields:
            A function to be called with each outcome, and one to be called for each frame with the
            job, the number of frames done, and their total or None.
        """
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
            click.echo(f"the report cannot be written: {why}", err=True)

    def tell(self, report: Report, sources: Sources) -> None:
        """Shows each failure of a run that was not shown before.

        Args:
            report: Results of the run.
            sources: Its inputs.
        """
        known = dataclasses.replace(report, skipped=0, failed=[]) if self._again else report
        self.total.add(known)
        self._again = True
        for problem in sources.problems:
            self._fail(problem.source, problem.reason, new=True)
        for outcome in report.failed:
            self._fail(outcome.source, outcome.reason)
        self._passed_over = sources.passed_over_lines()
        if report.stopped and not self._json:
            click.echo(
                f"{report.stopped}: {report.not_done} images left; run the same command again to "
                "continue",
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
        """Shows the summary, or the JSON document."""
        total, failed = self.total, len(self._failures)
        if self._json:
            click.echo(json.dumps(self._document()))
        elif not self._quiet:
            click.echo(
                f"converted {total.converted}, skipped {total.skipped}, failed {failed} "
                f"in {total.seconds:.1f} s ({total.images_per_second:.1f} images/s)"
            )
            for line in self._passed_over:
                click.echo(line)

    def _document(self) -> dict[str, Any]:
        """`files` has every image that was started, in the order of the input."""
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
    """Opens a report, which is written atomically. Raises OptionsError for an unknown ending."""
    forms = {".csv": _csv, ".json": _json}
    if path.suffix.lower() not in forms:
        raise OptionsError(f"report must end in .csv or .json, got {path}")
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
    """Shows what would be done.

    Args:
        work: The images and videos.
        sources: The inputs.
    """
    counts = {"convert": 0, "skip": 0, "fail": 0}
    for line in problems(sources):
        counts["fail"] += 1
        click.echo(f"fail     {line}")
    for task in work:  # all except videos
        try:
            verb = "convert" if task.wanted() else "skip"
            detail = f" -> {show(task.output)}" if task.output else ""
        except Exception as error:
            verb, detail = "fail", f": {explain(error, task.source)}"
        counts[verb] += 1
        click.echo(f"{verb:<8} {show(task.source)}{detail}")
        if isinstance(task, PageTask):
            task.book.abort()  # else thousands of archives stay open
    for _, job in work.videos:
        counts["convert"] += 1
        click.echo(f"convert  {show(job.source)}, unless it is done")
    click.echo("would " + ", ".join(f"{verb} {count}" for verb, count in counts.items()))
    for line in sources.passed_over_lines():
        click.echo(line)


def problems(sources: Sources) -> list[str]:
    """Describes inputs that cannot be read.

    Args:
        sources: The inputs.

    Returns:
        A line for each of them.
    """
    return [f"{show(problem.source)}: {problem.reason}" for problem in sources.problems]


def show(path: Path) -> str:
    """Formats a path for the terminal. Any bytes are allowed; control characters are escaped."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], click.format_filename(path))
