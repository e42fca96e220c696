"""The way of a video, from top to bottom."""

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
from sketchify_rt.errors import OptionsError
from sketchify_rt.files import whole
from sketchify_rt.image import Gray
from sketchify_rt.inputs import Picture
from sketchify_rt.options import Options

# Of the decoder and of the encoder. Each holds some frames per thread.
_MAX_THREADS = 8


class Engine(Protocol):
    """What a video needs of a `Sketchifier`."""

    @property
    def options(self) -> Options:
        """`max_pixels` and `thread_count` are limits for the video, too."""

    @property
    def takes_hint(self) -> bool:
        """Whether the model takes a hint. Then `Options.binary` matters, see `shots`."""

    def map(self, sources: Iterable[Gray | Picture], /) -> Iterator[Any]:
        """Yields sketches, uint8 (H, W), in order. Takes a limited number of frames ahead."""


def convert_video(
    engine: Engine,
    source: Path,
    output: Path,
    *,
    quality: int | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    file: AbstractContextManager[BinaryIO] | None = None,
) -> int:
    """Converts a video.

    Frames keep their times. They are upright if the file tells how to turn it. Interlaced frames
    stay as they are. Sound, subtitles and attached fonts are copied bit for bit, with languages,
    titles and chapters. A warning names what is left out, such as covers and streams of data.

    Memory does not grow with the length of the video: it holds the frames that the engine takes
    ahead, and some thirty of the encoder. If one frame is damaged or the end is missing, the whole
    video fails, since half a video would look like a whole one. Compressed video has no checksums,
    so damage that can be decoded is not detected.

    Args:
        engine: Makes the sketches.
        source: The video.
        output: The result. Its ending, one of `VIDEO_ENDINGS`, sets the container.
        quality: 1 to 100, see `writer.crf`; None looks lossless.
        progress: Called with the number of frames done, and their approximate total or None.
        file: To write to. None for `files.whole` of `output`.

    Returns:
        The number of frames, at least 1.

    Raises:
        DecodeError: It is no video, is damaged, truncated or encrypted, or has frames of more than
            `max_pixels`. The message has the frame and its time.
        InputError: It cannot be read.
        OptionsError: `output` has another ending, `quality` is out of range, or the look is color.
        EncodeError: The container cannot hold the video or its sound.
        OutputError: The result cannot be written.
        SketchifyError: What the engine raises.
    """
    check(output, quality)
    if engine.options.whole_look.colours:
        raise OptionsError("look color does not support videos. Choose another look")
    threads = min(engine.options.thread_count, _MAX_THREADS)
    done = 0
    with (
        Reader(source, engine.options.max_pixels, threads) as reader,
        file or whole(output) as target,
    ):
        writer = Writer(target, output, reader, quality, threads)
        stamps: deque[Stamp] = deque()  # of the frames in progress

        def lumas() -> Iterator[Gray]:
            for luma, stamp in reader.frames(writer.copy):
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
