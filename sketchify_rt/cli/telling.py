"""The output of `convert`: progress, failures, a summary, JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sketchify_rt.batch.api import Event, FolderJob, Frames
from sketchify_rt.batch.runner import Outcome, Report
from sketchify_rt.cli import INTERRUPTED, printable
from sketchify_rt.errors import escaped

if TYPE_CHECKING:
    from tqdm import tqdm


class Teller:
    """Shows the results of a job, also of one that runs again and again."""

    def __init__(self, output: Path, as_json: bool, quiet: bool) -> None:
        """Prepares the output.

        Args:
            output: The output folder.
            as_json: Print a JSON document at the end, and nothing else.
            quiet: Show only failures.
        """
        self._output, self._json, self._quiet = output, as_json, quiet
        self._total = Report()
        self._outcomes: list[Outcome] = []
        self._bar: tqdm[Any] | None = None
        self._unit = ""
        self._failed = 0
        self._unreported = False

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    @property
    def status(self) -> int:
        """The exit code."""
        if self._total.interrupted:
            return INTERRUPTED
        return 1 if self._total.failed or self._total.not_done or self._unreported else 0

    def event(self, event: Event) -> None:
        """Shows progress, with a bar if stderr is a terminal."""
        if isinstance(event, Frames):
            if (bar := self._open_bar(" frames")) is not None:
                if event.done == 1:
                    bar.reset(event.total)
                    bar.set_description(show(event.source), refresh=False)
                bar.update(event.done - bar.n)
            return
        if self._json and event.index >= 0:
            self._outcomes.append(event)
        self._failed += event.status == "failed"
        if event.total and (bar := self._open_bar(" images")) is not None:
            bar.total = event.total
            if self._failed:
                bar.set_postfix(failed=self._failed, refresh=False)
            bar.update()

    def _open_bar(self, unit: str) -> tqdm[Any] | None:
        if self._quiet or sys.stderr is None or not sys.stderr.isatty():
            return None
        if self._bar is None or unit != self._unit:
            from tqdm import tqdm

            self._close_bar()
            self._bar, self._unit = tqdm(unit=unit, dynamic_ncols=True), unit
        return self._bar

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def tell(self, report: Report) -> None:
        """Shows the failures of a run."""
        self._close_bar()
        self._total.add(report)
        if self._json:
            return
        for outcome in report.failed:
            click.echo(f"{show(outcome.source)}: {printable(outcome.reason)}", err=True)
        if report.stopped:
            click.echo(
                f"{report.stopped}: {report.not_done} images left; run the same command again to "
                "continue",
                err=True,
            )

    def sum_up(self, job: FolderJob) -> None:
        """Shows the summary, or the JSON document."""
        total = self._total
        if error := job.report_error:
            self._unreported = True
            click.echo(f"the report cannot be written: {printable(str(error))}", err=True)
        if self._json:
            click.echo(json.dumps(self._document() | {"passed_over": job.passed_over}))
        elif not self._quiet:
            click.echo(
                f"converted {total.converted}, skipped {total.skipped}, failed {len(total.failed)} "
                f"in {total.seconds:.1f} s ({total.images_per_second:.1f} images/s)"
            )
            if total.animated:
                click.echo(f"{total.animated} with several frames or pages: the first only")
            click.echo(f"results in {show(self._output)}")
            for line in job.passed_over_lines:
                click.echo(line)

    def _document(self) -> dict[str, Any]:
        """`files` has every image that was started, in the order of the input."""
        total = self._total
        return {
            "converted": total.converted,
            "animated": total.animated,
            "skipped": total.skipped,
            "failed": len(total.failed),
            "not_done": total.not_done,
            "stopped": total.stopped or None,
            "seconds": round(total.seconds, 3),
            "images_per_second": round(total.images_per_second, 3),
            "failures": [
                {"source": str(outcome.source), "reason": outcome.reason}
                for outcome in total.failed
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


def rehearse(job: FolderJob) -> int:
    """Shows what a job would do. Returns the exit code."""
    counts = {"convert": 0, "skip": 0, "fail": 0}
    for plan in job.plan():
        counts[plan.verb] += 1
        result = f" -> {show(plan.output)}" if plan.output else ""
        reason = f": {printable(plan.reason)}" if plan.reason else ""
        click.echo(f"{plan.verb:<8} {show(plan.source)}{result}{reason}")
    click.echo("would " + ", ".join(f"{verb} {count}" for verb, count in counts.items()))
    for line in job.passed_over_lines:
        click.echo(line)
    return 1 if counts["fail"] else 0


def show(path: Path) -> str:
    """Formats a path for the terminal. Any bytes are allowed; control characters are escaped."""
    return escaped(click.format_filename(path))
