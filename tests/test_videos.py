from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from jobs import output

from sketchify_rt import Options, convert_folder
from sketchify_rt.batch.api import FolderJob
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.journal import HIDDEN
from sketchify_rt.batch.kinds import video_name
from sketchify_rt.batch.runner import Outcome, Report
from sketchify_rt.batch.sources import Sources
from sketchify_rt.batch.videos import run_videos
from sketchify_rt.image import Gray

pytestmark = pytest.mark.slow


def clip(path: Path, frames: int = 5) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            pixels = np.full((48, 64), 40 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class Engine:
    """Gives frames back; stops as Ctrl-C does at the frame it is told."""

    options = Options(threads=1)
    takes_hint = False

    def __init__(self, interrupt: int = -1) -> None:
        self.interrupt = interrupt
        self.frames = 0

    def map(self, sources: Iterable[Gray], /) -> Iterator[Gray]:
        for frame in sources:
            if self.frames == self.interrupt:
                raise KeyboardInterrupt
            self.frames += 1
            yield frame


def convert(engine: Engine, root: Path, *names: str, retry: bool = False) -> Report:
    sources, to = Sources(names, root), output(root, retry=retry)
    report, told = Report(), list[Outcome]()
    seen: list[tuple[Item, int, int | None]] = []
    to.open()
    with closing(to):
        run_videos(
            engine,
            [Item(i, job.source, video_name(job.stem)) for i, job in enumerate(sources)],
            to,
            None,
            report,
            progress=told.append,
            frames=lambda *step: seen.append(step),
        )
    assert len(told) == report.converted + report.skipped + len(report.failed)
    assert [done for item, done, _ in seen if item.path.name == "a.mp4"] in ([], [1, 2, 3, 4, 5])
    return report


def test_videos_are_converted_once_and_bad_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip(Path("in/a.mp4"))
    Path("in/b.mp4").write_bytes(b"no video at all")
    out = Path("out")
    report = convert(Engine(), out, "in/*.mp4")
    assert (report.converted, report.not_done, report.stopped) == (1, 0, "")
    assert [str(outcome.source) for outcome in report.failed] == ["in/b.mp4"]
    assert sorted(path.name for path in out.iterdir()) == [HIDDEN, "a.mp4"]
    with av.open(str(out / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
    again = Engine()
    report = convert(again, out, "in/*.mp4")
    assert (report.skipped, again.frames) == (1, 0)
    assert "--retry-failed" in report.failed[0].reason
    report = convert(again, out, "in/*.mp4", retry=True)
    assert (report.skipped, again.frames) == (1, 0)
    assert "--retry-failed" not in report.failed[0].reason


def test_an_interruption_leaves_nothing_of_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        clip(Path(f"in/{name}.mp4"))
    out = Path("out")
    report = convert(Engine(interrupt=7), out, "in/*.mp4")
    assert (report.converted, report.not_done, report.interrupted) == (1, 2, True)
    assert [path.name for path in (out / HIDDEN).iterdir()] == ["journal.sqlite3"]
    assert sorted(path.name for path in out.iterdir()) == [HIDDEN, "a.mp4"]
    report = convert(Engine(), out, "in/*.mp4")
    assert (report.converted, report.skipped) == (2, 1)


def test_a_rehearsal_knows_which_videos_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        clip(Path(f"in/{name}.mp4"))
    options, out = Options(mode="dodge", device="cpu"), Path("out")
    convert_folder("in/a.mp4", out, options)
    with FolderJob(["in/*.mp4"], out, options) as job:
        assert [(plan.source.name, plan.verb) for plan in job.plan()] == [
            ("a.mp4", "skip"),
            ("b.mp4", "convert"),
        ]
    with FolderJob(["in/*.mp4"], out, options, isolate=True) as job:
        assert [plan.verb for plan in job.plan()] == ["fail", "fail"]
