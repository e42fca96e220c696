"""The batch runner: what journal, report and budget cost, archives, many small files, video.

The ways of a part take turns, in at least three rounds. ratio is the median, over these rounds, of
the speed against the first way of the part in the same round. All in mode "sketch", to PNG.

pages: "plain" is `Sketchifier.map` and a loop that writes files; the others are what `convert` does
with a folder (journal, report, budget), the same with --isolate, and with the pages in one CBZ.
files: small pictures, all of other sizes; memory is resident, in the same process, when a tenth
of them is done and at the end.
video: "engine" has the frames in memory already and drops the results, so the other way decodes and
encodes the video besides. Memory as above.
"""

from __future__ import annotations

import gc
import operator
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from bench import harness
from bench.bench_kernels import page
from sketchify_rt import Encoding, Sketchifier
from sketchify_rt.batch.api import Event, convert_folder
from sketchify_rt.batch.runner import Outcome
from sketchify_rt.image import Gray
from sketchify_rt.inputs import Loaded


def main(argv: list[str]) -> None:
    """Measures and reports."""
    parser = harness.parser(__doc__)
    parser.add_argument("--pages", type=int, default=24, help="of 992 x 1401 (default: 24)")
    parser.add_argument("--files", type=int, default=500, help="small ones (default: 500)")
    parser.add_argument("--frames", type=int, default=50, help="of 1280 x 720 (default: 50)")
    options = parser.parse_args(argv)
    rows: list[harness.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for measure, count in (
            (measure_pages, options.pages),
            (measure_files, options.files),
            (measure_video, options.frames),
        ):
            if count:
                rows += measure(Path(folder), count, options.seconds)
    harness.report(rows, {}, options.json)


def measure_pages(folder: Path, count: int, seconds: float) -> list[harness.Row]:
    """A folder of JPEG pages, and an archive of the same."""
    pages = folder / "pages"
    draw_pages(pages, count)
    book = folder / "book.cbz"
    with zipfile.ZipFile(book, "w") as archive:
        for path in sorted(pages.iterdir()):
            archive.write(path, path.name)
    with Sketchifier(device="cpu") as engine:
        ways = {
            "plain": partial(plain, engine, pages, folder / "out"),
            "runner": partial(convert, engine, pages, folder / "out"),
            "runner, isolated": partial(convert, engine, pages, folder / "out", isolate=True),
            "runner, one CBZ": partial(convert, engine, book, folder / "out"),
        }
        times = take_turns(ways, seconds, lambda: shutil.rmtree(folder / "out"))
    return rows_of("pages", count, times)


def measure_files(folder: Path, count: int, seconds: float) -> list[harness.Row]:
    """Small files, once: whole processes as users start them cost the start besides."""
    small = folder / "small"
    small.mkdir()
    drawn, rng = page(1401, 992, None), np.random.default_rng(3)
    for number in range(count):
        height, width = rng.integers(96, 400, 2)
        top, left = rng.integers(0, [1401 - height, 992 - width])
        cut = drawn[top : top + height, left : left + width]
        cv2.imwrite(str(small / f"{number}.{('jpg', 'png', 'webp')[number % 3]}"), cut)
    with Sketchifier(device="cpu") as engine:
        memory = Memory(count)
        begun = time.perf_counter()
        convert(engine, small, folder / "many", progress=memory.note)
        rows = rows_of("files", count, {"runner": [time.perf_counter() - begun]}, memory)
    command = [sys.executable, "-m", "sketchify_rt", "convert", str(small), "-q", "-o"]
    whole = harness.wall_seconds(
        lambda: subprocess.run([*command, str(folder / "cold")], check=True)
    )
    return [*rows, *rows_of("files", count, {"sketchify-rt convert": [whole]})]


def measure_video(folder: Path, count: int, seconds: float) -> list[harness.Row]:
    """A video of a page that is moved along."""
    from sketchify_rt.batch.video import convert_video

    frames = [np.roll(page(720, 1280, None), 3 * number, 1) for number in range(count)]
    source = folder / "video.mp4"
    write_video(source, frames)
    memory = Memory(count)
    with Sketchifier(device="cpu") as engine:

        def whole() -> None:
            output = folder / "result.mp4"
            convert_video(engine, source, output, progress=lambda done, _: memory.note(done))

        def alone() -> None:
            for _ in engine.map(frames):
                pass

        return rows_of(
            "video", count, take_turns({"engine": alone, "video": whole}, seconds), memory
        )


def plain(engine: Sketchifier, pages: Path, out: Path) -> None:
    """What one writes who has no runner."""
    out.mkdir()
    paths = sorted(pages.iterdir())
    for path, data in zip(paths, engine.map(paths, encoding=Encoding()), strict=True):
        (out / f"{path.stem}.png").write_bytes(data)


class Open:
    """A `Sketchifier` that stays open after a job."""

    local = True

    def __init__(self, engine: Sketchifier) -> None:
        self.batch, self.workers = engine.batch, engine.backend.workers
        self.prepare, self._engine = engine.prepare, engine

    def encode_batch(
        self, images: Sequence[Loaded], encoding: Encoding, /
    ) -> Sequence[bytes | Exception]:
        """See `Sketchifier.encode_batch`."""
        return self._engine.encode_batch(images, encoding)

    def close(self) -> None:
        """Leaves it open."""


def convert(
    engine: Sketchifier,
    source: Path,
    out: Path,
    isolate: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """As the command `convert` does with a report; raises where an image failed."""
    done = 0

    def note(event: Event) -> None:
        nonlocal done
        done += isinstance(event, Outcome)
        progress(done)

    report = convert_folder(
        source,
        out,
        engine.options,
        isolate=isolate,
        report=out / "report.csv",
        cluster=lambda: Open(engine),
        on_event=note,
    )
    if report.failed:
        raise RuntimeError(f"{report.failed[0].source}: {report.failed[0].reason}")


def take_turns(
    ways: Mapping[str, Callable[[], object]],
    seconds: float,
    after: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each way in each round; `after` is called after each. See `harness.medians_ms`."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    next(iter(ways.values()))()  # opens the model
    after()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, way in ways.items():
            gc.collect()
            times[name].append(harness.wall_seconds(way))
            after()
    return times


def rows_of(
    part: str, count: int, times: Mapping[str, list[float]], memory: Memory | None = None
) -> list[harness.Row]:
    """A row for each way, against the first."""
    first = next(iter(times.values()))
    return [
        {
            "part": part,
            "way": way,
            "images": count,
            "rounds": len(ours),
            "images_s": count / statistics.median(ours),
            "ratio": statistics.median(map(operator.truediv, first, ours)),
            "mib_at_tenth": memory.early if memory else "",
            "mib_at_end": memory.late if memory else "",
        }
        for way, ours in times.items()
    ]


class Memory:
    """Resident MiB of this process. early: when a tenth was done, the first time; late: last."""

    def __init__(self, count: int) -> None:
        self._tenth, self._count = max(1, count // 10), count
        self.early = self.late = 0

    def note(self, done: int) -> None:
        """So many are done."""
        if done == self._tenth and not self.early:
            self.early = self._now()
        elif done == self._count:
            self.late = self._now()

    def _now(self) -> int:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def draw_pages(folder: Path, count: int) -> None:
    """JPEG files of one drawn page, turned, mirrored and moved, so that no two are the same."""
    folder.mkdir()
    drawn = page(1401, 992, None)
    for number in range(count):
        moved = np.roll(drawn[:: 1 - number % 2 * 2], 17 * number, (0, 1))
        cv2.imwrite(str(folder / f"{number:05}.jpg"), moved, [cv2.IMWRITE_JPEG_QUALITY, 90])


def write_video(path: Path, frames: list[Gray]) -> None:
    """H.264 of 25 frames a second, with a tone for sound."""
    import av

    with av.open(str(path), "w") as out:
        height, width = frames[0].shape
        stream = out.add_stream("libx264", rate=25, width=width, height=height, pix_fmt="yuv420p")
        voice = out.add_stream("aac", rate=48000)
        for number, luma in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(luma, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        for start in range(0, len(frames) * 1920, 960):
            turns = np.arange(start, start + 960, dtype=np.float32) * np.float32(440 / 48000)
            wave = 0.3 * np.sin(2 * np.pi * turns[None], dtype=np.float32)
            sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, start, Fraction(1, 48000)
            out.mux(voice.encode(sound))
        out.mux(stream.encode(None))
        out.mux(voice.encode(None))
