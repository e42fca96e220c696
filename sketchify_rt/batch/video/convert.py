"""The way of a video, readable top to bottom."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from sketchify_rt.batch.video import shots
from sketchify_rt.batch.video.reader import Reader, Stamp
from sketchify_rt.batch.video.writer import Writer, check
from sketchify_rt.errors import SketchifyError
from sketchify_rt.files import whole
from sketchify_rt.image import Gray
from sketchify_rt.inputs import Picture
from sketchify_rt.options import Options

# Of the decoder and of the encoder. Each holds some frames a thread; the engine needs the rest.
_MOST_THREADS = 8


class Stopped(SketchifyError):
    """The conversion was told to stop before its end; nothing of it stays."""


class Engine(Protocol):
    """What a video needs of a `Sketchifier`."""

    @property
    def options(self) -> Options:
        """`max_pixels` and `thread_count` hold for the video as well; for others see `shots`."""

    @property
    def takes_hint(self) -> bool:
        """Whether pages are told from pictures with tones, where `Options.binary` is "auto"."""

    def map(self, sources: Iterable[Gray | Picture], /) -> Iterator[Any]:
        """Sketches, uint8 (H, W), in order, taking a bounded number of frames ahead."""


def convert_video(
    engine: Engine,
    source: Path,
    output: Path,
    *,
    quality: int | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
    file: AbstractContextManager[BinaryIO] | None = None,
) -> int:
    """Convert a video, and return the number of its frames, at least 1.

    Frames keep their times, upright if the file says how it is to be turned, interlaced ones as
    they are stored. Sound, subtitles and attached fonts are copied bit for bit, with languages,
    titles and chapters; a warning names what is left out, such as covers and streams of data.
    output: ends in one of `ENDINGS`, which sets its container; it is written as `files.whole` does,
    or to `file`. quality: 1..100, see `writer.crf`; None for what looks lossless.
    progress: called with the frames done and about how many there are, None where nobody knows.
    stopped: asked before each frame; once it is true, what is in work is finished and Stopped
    raised.

    Memory holds the frames that the engine takes ahead and some thirty of the encoder, however long
    the video. One frame that is damaged, or an end that is missing, fails the whole video: a
    sketch of half of it would look like all of it. Damage that leaves a stream which can be decoded
    stays unnoticed, since compressed video has no checksums.

    Raises DecodeError, with the frame and its time, for what is no video, is damaged, cut short or
    encrypted, or has frames of more than `max_pixels`; InputError where the file cannot be read;
    OptionsError for the ending of `output` or `quality`; EncodeError where the container cannot
    hold the video or its sound; OutputError; Stopped; and what the engine raises.
    """
    check(output, quality)
    threads = min(engine.options.thread_count, _MOST_THREADS)
    done = 0
    with (
        Reader(source, engine.options.max_pixels, threads) as reader,
        file or whole(output) as target,
    ):
        writer = Writer(target, output, reader, quality, threads)
        stamps: deque[Stamp] = deque()  # of the frames in work

        def lumas() -> Iterator[Gray]:
            for luma, stamp in reader.frames(writer.copy):
                if stopped():
                    raise Stopped(f"{source}: stopped; nothing of it was written")
                stamps.append(stamp)
                yield luma

        by_shots = engine.takes_hint and engine.options.binary == "auto"
        images = shots.told(lumas()) if by_shots else lumas()
        sketches = cast("Generator[Gray]", engine.map(images))
        with contextlib.closing(sketches):
            for done, sketch in enumerate(sketches, 1):
                writer.write(sketch, stamps.popleft())
                progress(done, reader.total)
        writer.finish()
    return done


def frames(source: Path) -> int | None:
    """About how many frames a video has; None where its file does not tell.

    Raises DecodeError for what is no video, InputError where it cannot be read.
    """
    with Reader(source) as reader:
        return reader.total
