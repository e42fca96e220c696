"""A job: many files to sketches in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict, Unpack, cast

from sketchify_rt import models
from sketchify_rt.batch import budget
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.items import Items
from sketchify_rt.batch.journal import Journal
from sketchify_rt.batch.kinds import video_name
from sketchify_rt.batch.output import Output, Settling
from sketchify_rt.batch.reports import ReportFile
from sketchify_rt.batch.resume import Existing, Fail, Rules, Settings, Skip
from sketchify_rt.batch.runner import Care, Converter, Outcome, Report, explain, run
from sketchify_rt.batch.sources import Job, Sources
from sketchify_rt.batch.staging import Staging
from sketchify_rt.codec import formats
from sketchify_rt.errors import (
    InputError,
    OptionsError,
    OutputError,
    SketchifyError,
    escaped,
)
from sketchify_rt.options import Encoding, Options, check_encoding, check_hint_use

if TYPE_CHECKING:
    from sketchify_rt.batch.decoders import Decoders
    from sketchify_rt.sketchifier import Sketchifier

SETTLED = 2.0
"""Seconds for which a watched file must be unchanged: else it may be incomplete."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Progress of a video.

    Attributes:
        source: The video.
        done: Number of frames done.
        total: About how many it has; None if the file does not tell.
    """

    source: Path
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would become of one item.

    Attributes:
        source: The file, and the page in it.
        output: The result's file.
        verb: "convert", "skip" or "fail".
        reason: Why it would fail, or "".
    """

    source: Path
    output: Path | None
    verb: str
    reason: str = ""


Event = Outcome | Frames


class Cluster(Converter, Protocol):
    """Actors that convert images, such as `sketchify_rt.cluster.ActorPool`.

    Attributes:
        workers: Number of threads that keep all actors busy.
        local: Whether the actors use the memory of this machine alone.
    """

    workers: int
    local: bool

    def close(self) -> None:
        """Ends the actors."""


class JobSettings(TypedDict, total=False):
    """Settings of a job.

    Attributes:
        existing: What to do if a result exists. "refuse", the default, keeps what the journal knows
            to be done, converts again what changed, and fails for other files. "overwrite" converts
            all again. "skip" keeps all files.
        retry_failed: Try inputs again that were damaged in an earlier run. Default: False.
        resume: Keep a journal in the output folder, so that the next run knows what is done.
            Default: True.
        memory: Most memory for all images in progress, in MiB. Default, or None: half of the
            memory.
        isolate: Decode in separate processes, so that a file that makes a decoder crash or hang
            costs only itself. Linux only. Default: False.
        timeout: Most seconds to decode a file, with `isolate`. Default: 60.
        unpack: Write the pages of archives into folders, rather than into archives. Default: False.
        dpi: Resolution of PDF pages in pixels per inch. Default: 200.
        hints: Folder of hints: pictures by the names of results. Default: None.
        watch: Leave files that may still be written for the next run. Default: False.
        report: A .csv or .json file for a row for each image. Default: None.
        debug: Report unexpected errors with their traceback. Default: False.
        cluster: Opens the actors that convert the images. Default, or None: this process.
        on_event: Called in the calling thread when an image ends, and for each frame of a video.
    """

    existing: Existing
    retry_failed: bool
    resume: bool
    memory: int | None
    isolate: bool
    timeout: float
    unpack: bool
    dpi: int
    hints: str | os.PathLike[str] | None
    watch: bool
    report: str | os.PathLike[str] | None
    debug: bool
    cluster: Callable[[], Cluster] | None
    on_event: Callable[[Event], None]


def convert_folder(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options | None = None,
    encoding: Encoding | None = None,
    **settings: Unpack[JobSettings],
) -> Report:
    """Converts files, folders, archives and patterns to sketches in a folder.

    The same call again converts only what is new, has changed, or was interrupted. A bad file is
    listed in the report, and the others are converted.

    Args:
        inputs: Files, folders, which are searched with their subfolders, and patterns such as
            "scans/**/*.png".
        output: Folder for the results. It is created.
        options: How images are converted.
        encoding: Format of the results.
        settings: See `JobSettings`.

    Returns:
        Counts and failures.

    Raises:
        OptionsError: Options contradict each other.
        InputError: None of the inputs exists.
        OutputError: The output folder cannot be written, or another run converts into it.
        BackendUnavailable: The device or the runtime is not available.
        ModelError: The model cannot be read.
    """
    names = [inputs] if isinstance(inputs, (str, os.PathLike)) else [*inputs]
    chosen = options or Options(), encoding or Encoding()
    with FolderJob(names, Path(output), *chosen, **settings) as job:
        report = job.run()
    report.unwritten = job.report_error
    return report


@dataclass
class FolderJob:
    """A job for several runs, as `convert --watch` needs it. Use it in a `with`.

    It looks for the inputs at once, and writes nothing before `run`.

    Attributes:
        inputs: See `convert_folder`, as all up to `encoding`.
        existing: See `JobSettings`, as all that follow.

    Raises:
        OptionsError: Options contradict each other.
        InputError: None of the inputs exists.
        ModelError: The model cannot be read.
    """

    inputs: Sequence[str | os.PathLike[str]]
    output: Path
    options: Options = field(default_factory=Options)
    encoding: Encoding = field(default_factory=Encoding)
    existing: Existing = "refuse"
    retry_failed: bool = False
    resume: bool = True
    memory: int | None = None
    isolate: bool = False
    timeout: float = 60.0
    unpack: bool = False
    dpi: int = 200
    hints: str | os.PathLike[str] | None = None
    watch: bool = False
    report: str | os.PathLike[str] | None = None
    debug: bool = False
    cluster: Callable[[], Cluster] | None = None
    on_event: Callable[[Event], None] = lambda event: None

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._isolated: Decoders | None = None
        self._suspects: Decoders | None = None
        self._colours = self.options.whole_look.colours
        self._looks, self._waiting = 0, False
        self._failed: set[tuple[Path, str]] = set()
        self._bytes = self.memory * budget.MIB if self.memory else budget.total_memory() // 2
        self._hints = Path(self.hints) if self.hints else None
        self._rows = ReportFile(Path(self.report)) if self.report else None
        self._sources = Sources(map(os.fsdecode, self.inputs), self.output, self.encoding.format)
        self._check()
        limits = {
            "max_pixels": self.options.max_pixels,
            "timeout": self.timeout if self.isolate else None,
            "memory": self._bytes,
            "formats": formats.installed(),
        }
        self._output = Output(
            self.output,
            self.encoding.format,
            Journal(self.output if self.resume else None),
            Staging(self.output, exclusive=self.resume),
            Settings(self.options, self.encoding, self.dpi),
            Rules(self.existing, self.retry_failed, json.dumps(limits)),
            self._sources.holds,
            Settling(SETTLED if self.watch else 0),
        )

    def _check(self) -> None:
        """Raises OptionsError, InputError and ModelError."""
        check_encoding(self.encoding, self.options)
        sources, hints = self._sources, self._hints
        if not sources.exist:
            names = [f"{escaped(str(path))}: {reason}" for path, reason in sources.problems]
            raise InputError("\n".join(names))
        if self.report and sources.holds(Path(self.report)):
            raise OptionsError(
                f"report {self.report} would overwrite an input. Choose another file"
            )
        if hints is None:
            return
        if sources.holds(hints / "hint.png"):
            raise OptionsError(f"hint {hints} is in an input folder. Move the hints elsewhere")
        options = self.options
        takes_hint = options.mode == "sketch" and models.load(options.model).manifest.takes_hint
        check_hint_use(hints, options, takes_hint)

    def __enter__(self) -> FolderJob:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def plan(self) -> Iterator[Plan]:
        """Yields what `run` would do, and changes nothing. Raises OutputError."""
        self._output.journal.open(create=False)
        self._stack.callback(self._output.journal.close)
        for path, reason in self._sources.problems:
            yield Plan(path, None, "fail", reason)
        with closing(self._items(self._decoders() if self.isolate else None)) as items:
            for item in chain(items, self._videos(items)):
                try:
                    skipped = isinstance(self._output.decide(item), Skip)
                    verb = "skip" if skipped else "convert"
                    yield Plan(item.source, self.output / item.output, verb)
                except Exception as error:
                    yield Plan(item.source, None, "fail", explain(error, item.source))
                if item.book:
                    item.book[0].abort()  # else thousands of archives stay open

    def run(self) -> Report:
        """Converts what is to be converted. Later runs leave out what was reported before.

        Raises:
            OutputError: The output folder cannot be written, or another run converts into it.
            BackendUnavailable: The device or the runtime is not available.
            ModelError: The model cannot be read.
        """
        care = self._begin()
        converter = self._converter
        with closing(self._items(self._isolated or self._suspects)) as items:
            report = run(
                converter,
                items,
                self._output,
                self.encoding,
                workers=min(_workers(converter), items.max_workers),
                progress=self._note,
                care=care,
            )
            for outcome in items.unfinished():
                report.note(outcome)
                self._note(outcome)
        if videos := list(self._videos(items)):
            self._run_videos(videos, report)
        return self._reported(report)

    def _begin(self) -> Care:
        """Opens what runs need; for a later run, looks for new inputs."""
        if self._looks == 0:
            self._open()
        else:
            self._look_again()
        self._looks += 1
        # Ray's actors on other machines do not count, unless the user sets a limit.
        bounded = self.memory or getattr(self._converter, "local", True)
        return Care(
            budget.Budget(self._bytes, self.options.max_pixels, self._colours)
            if bounded
            else budget.Budget(),
            self._isolated.decode if self._isolated else None,
            self._suspects.decode if self._suspects else None,
            self.debug,
        )

    def _open(self) -> None:
        if self._rows:
            self._rows.open()
            self._stack.callback(self._rows.close)
        self._keep_threads_of_opencv()
        opened = self.cluster() if self.cluster else open_sketchifier(self.options)
        self._converter: Sketchifier | Cluster = opened
        self._stack.callback(opened.close)
        self._stack.callback(self._output.close)
        self._output.open()
        budget.return_large_blocks()
        if self.isolate:
            self._isolated = self._decoders()
        elif self._output.suspects and hasattr(os, "memfd_create"):
            self._suspects = self._decoders(1)

    def _keep_threads_of_opencv(self) -> None:
        """Restores at the end what `open_sketchifier` sets for the whole process."""
        import cv2

        self._stack.callback(cv2.setNumThreads, cv2.getNumThreads())

    def _look_again(self) -> None:
        output, rules = self._output, self._output.rules
        output.reopen()
        output.settling.look()
        self._sources = Sources(map(os.fsdecode, self.inputs), self.output, self.encoding.format)
        if self._looks > 1 or not self._waiting:  # else nothing is converted yet
            kept: Existing = "skip" if rules.existing == "skip" else "refuse"
            rules = Rules(kept, limits=rules.limits, repeat=False)
        self._output = replace(output, rules=rules, protected=self._sources.holds)

    def _decoders(self, processes: int | None = None) -> Decoders:
        from sketchify_rt.batch.decoders import Decoders

        count, pixels = processes or self.options.thread_count, self.options.max_pixels
        decoders = Decoders(
            count, self.timeout, pixels, encoding=self.encoding, colours=self._colours
        )
        return self._stack.enter_context(decoders)

    def _items(self, decoders: Decoders | None) -> Items:
        pixels = self.options.max_pixels
        return Items(
            self._sources,
            self._output,
            self.unpack,
            self.dpi,
            pixels,
            decoders,
            self._hints,
            self._colours,
        )

    def _videos(self, items: Items) -> Iterator[Item]:
        """Yields the videos, once all items were taken."""
        for index, job in items.videos:
            item = Item(index, job.source, video_name(job.stem))
            if why := self._refusal(job, items):
                item.decision = Fail(InputError(f"{job.source}: {why}"))
            yield item

    def _run_videos(self, videos: list[Item], report: Report) -> None:
        def fail(item: Item, error: Exception) -> None:
            outcome = Outcome(item.index, item.path, None, "failed", explain(error, item.path))
            report.note(outcome)
            self._note(outcome)

        for item in videos:
            if isinstance(item.decision, Fail):
                fail(item, item.decision.error)
        videos = [item for item in videos if item.decision is None]
        try:
            from sketchify_rt.batch.videos import run_videos

            run_videos(
                self._sketchifier(),
                videos,
                self._output,
                self.encoding.quality,
                report,
                progress=self._note,
                frames=lambda item, done, total: self.on_event(Frames(item.path, done, total)),
                debug=self.debug,
            )
        except SketchifyError as error:  # a GPU or a package is missing
            for item in videos:
                fail(item, error)

    def _sketchifier(self) -> Sketchifier:
        """The converter, unless that is a cluster."""
        if self.cluster:
            return self._stack.enter_context(open_sketchifier(self.options))
        return cast("Sketchifier", self._converter)

    def _refusal(self, job: Job, items: Items) -> str:
        """Returns why a video cannot be converted with these settings, or ""."""
        if self.isolate:
            return "--isolate does not support videos. Convert it without --isolate if you trust it"
        if self.encoding.alpha == "lines":
            return "--alpha lines does not support videos. Convert it without --alpha"
        if self._colours:
            return "--look color does not support videos. Convert it with another --look"
        return items.why_no_hints(job.source, job.stem)

    def _note(self, outcome: Outcome) -> None:
        """Reports an outcome, unless an earlier run did."""
        if outcome.status == "waiting" or self._is_known(outcome):
            return
        if self._rows:
            self._rows.note(outcome)
        self.on_event(outcome)

    def _is_known(self, outcome: Outcome) -> bool:
        known = outcome.status == "skipped" or (outcome.source, outcome.reason) in self._failed
        return self._looks > 1 and known

    def _reported(self, report: Report) -> Report:
        """The report with the inputs that gave nothing, without what earlier runs reported."""
        for path, reason in self._sources.problems:
            outcome = Outcome(-1, path, None, "failed", reason)
            report.note(outcome)
            self._note(outcome)
        report.failed = [outcome for outcome in report.failed if not self._is_known(outcome)]
        report.failed.sort(key=lambda outcome: outcome.index)
        if self._looks > 1:
            report.skipped = 0
        self._failed |= {(outcome.source, outcome.reason) for outcome in report.failed}
        self._waiting = report.waiting > 0
        return report

    @property
    def passed_over(self) -> dict[str, int]:
        """How many files were passed over in folders, by their endings."""
        return dict(self._sources.passed_over)

    @property
    def passed_over_lines(self) -> list[str]:
        """The same in words, and what would read them."""
        return self._sources.passed_over_lines()

    @property
    def report_error(self) -> OutputError | None:
        """Why the report file was not written, once the job is closed; None if it was."""
        return self._rows.error if self._rows else None


def _workers(converter: Sketchifier | Cluster) -> int:
    workers: int = getattr(converter, "backend", converter).workers  # type: ignore[union-attr]
    return max(1, workers)


def open_sketchifier(options: Options) -> Sketchifier:
    """Opens a model for the runner. Raises what `Sketchifier` does."""
    import cv2

    from sketchify_rt.sketchifier import Sketchifier

    cv2.setNumThreads(1)  # the threads of OpenCV would run beside those of the runner
    return Sketchifier(options)
