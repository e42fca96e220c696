"""Writes a video file of sketches and of packets of sound and subtitles."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.codec.context import Flags
from av.video.reformatter import ColorRange

from sketchify_rt.batch.kinds import VIDEO_ENDINGS, ending_of
from sketchify_rt.batch.video.reader import Reader, Stamp
from sketchify_rt.errors import BackendUnavailable, EncodeError, OptionsError
from sketchify_rt.image import Gray

log = logging.getLogger("sketchify_rt")

_MUXERS = {"m4v": "mp4", "mkv": "matroska", "mov": "mov", "mp4": "mp4", "webm": "webm"}
_COPIED = {"audio", "subtitle", "attachment"}
# Tags of the stream that is converted. Its other tags are about its bit rate and encoder.
_KEPT_TAGS = {"handler_name", "language", "timecode", "title"}

_BEST_CRF = 18  # of H.264, said to look lossless; the scale of VP9 ends at 63 rather than 51
_BT709 = 1  # number of its matrix, its primaries and its transfer function


def crf(quality: int | None) -> int:
    """Returns the constant rate factor of H.264, 1 to 51.

    Args:
        quality: 1 to 100; 12 more double the size, about. None is a factor of 18, a quality of 66.
    """
    return _BEST_CRF if quality is None else 51 - quality // 2


def check(output: Path, quality: int | None) -> None:
    """Raises OptionsError for an unknown ending or a quality out of range."""
    if ending_of(output.name) not in VIDEO_ENDINGS:
        raise OptionsError(f"{output}: videos are written as {', '.join(sorted(VIDEO_ENDINGS))}")
    if quality is not None and not (type(quality) is int and 1 <= quality <= 100):
        raise OptionsError(f"quality must be between 1 and 100, got {quality!r}")


class Writer:
    """Writes H.264, or VP9 in WebM. Not thread-safe."""

    def __init__(
        self, file: BinaryIO, output: Path, reader: Reader, quality: int | None, threads: int
    ) -> None:
        """Copies what is known before the first sketch.

        Args:
            file: To write to. It stays open.
            output: Its name.
            reader: The video that is converted.
            quality: See `crf`.
            threads: Of the encoder.

        Raises:
            EncodeError: The container cannot hold the sound.
        """
        self._output, self._reader = output, reader
        self._vp9 = ending_of(output.name) == "webm"
        self._waiting: list[Any] | None = []  # packets from before the first sketch
        with self._explained():
            # Without "bitexact" Matroska has random numbers, so that all files differ.
            self._container = av.open(
                file,
                "w",
                _MUXERS[ending_of(output.name)],
                container_options={"fflags": "+bitexact"},
                metadata_errors="surrogateescape",
            )
            source = reader.container
            tags = {k: v for k, v in source.metadata.items() if k.lower() != "encoder"}
            self._container.metadata.update(tags)
            self._container.set_chapters(source.chapters())
            self._streams = dict(self._copied_streams())
        self._video = self._streams[reader.video.index]
        self._video.codec_context.thread_count = threads
        self._video.options = self._options(crf(quality))

    def copy(self, packet: Any) -> None:
        """Copies a packet of another stream. Raises EncodeError or OSError."""
        if packet.stream.index not in self._streams:
            return
        packet.stream = self._streams[packet.stream.index]
        if packet.dts is None:
            packet.dts = packet.pts
        if self._waiting is None:
            self._mux([packet])
        else:
            self._waiting.append(packet)

    def write(self, sketch: Gray, stamp: Stamp) -> None:
        """Encodes a sketch.

        Args:
            sketch: uint8 (H, W), enlarged or reduced to the size of the first one.
            stamp: When it is shown.

        Raises:
            EncodeError: It cannot be encoded.
            OSError: The file cannot be written.
        """
        if self._waiting is not None:
            self._set_up(sketch, stamp)
            self._mux(self._waiting)
            self._waiting = None
        frame = av.VideoFrame.from_ndarray(sketch, format="gray").reformat(
            self._video.width,
            self._video.height,
            self._video.pix_fmt,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        frame.pts, frame.duration, frame.time_base = stamp.pts, stamp.duration, stamp.base
        self._encode(frame)

    def finish(self) -> None:
        """Writes what is still in the encoder, and the end. Raises EncodeError or OSError."""
        self._encode(None)
        # Only here, since closing writes to the file: after an error the file is discarded.
        with self._explained():
            self._container.close()

    def _copied_streams(self) -> Iterator[tuple[int, Any]]:
        """Yields the index of each stream that is kept, and the stream of the result."""
        for stream in self._reader.container.streams:
            try:
                copy = self._copied(stream)
            except (ValueError, av.FFmpegError) as error:
                if stream.type == "audio":
                    raise EncodeError(
                        f"{self._output}: cannot hold the sound of stream {stream.index} "
                        f"({error}); name the result .mkv"
                    ) from error
                log.warning(
                    "%s: stream %d is left out: %s", self._reader.source, stream.index, error
                )
            else:
                copy.disposition = stream.disposition
                yield stream.index, copy

    def _copied(self, stream: Any) -> Any:
        if stream is self._reader.video:
            tags = {k: v for k, v in stream.metadata.items() if k in _KEPT_TAGS}
            copy: Any = self._encoded(stream.average_rate)
        elif stream.type in _COPIED:
            tags = stream.metadata
            copy = self._container.add_stream_from_template(stream)
        else:
            raise ValueError(f"it is another {stream.type} stream")
        copy.metadata.update(tags)
        return copy

    def _encoded(self, rate: Fraction | None) -> av.VideoStream:
        try:
            return self._container.add_stream("libvpx-vp9" if self._vp9 else "libx264", rate)
        except av.codec.codec.UnknownCodecError as error:
            raise BackendUnavailable(
                f"this PyAV cannot encode {error}. To fix: pip install --force-reinstall av"
            ) from error

    def _options(self, factor: int) -> dict[str, str]:
        if self._vp9:
            return {"crf": f"{factor * 63 // 51}", "cpu-used": "5", "row-mt": "1"}
        return {"crf": f"{factor}", "preset": "veryfast"}

    def _set_up(self, sketch: Gray, stamp: Stamp) -> None:
        context = self._video.codec_context
        context.height, context.width = sketch.shape
        context.time_base = stamp.base
        context.flags |= Flags.frame_duration  # else the encoder guesses that of the last frame
        # With 4:2:0, H.264 needs even sides. So odd sides take 4:4:4, which costs nothing for gray,
        # although few players in hardware support it.
        odd = any(side % 2 for side in sketch.shape)
        context.pix_fmt = "yuv444p" if odd and not self._vp9 else "yuv420p"
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        if stamp.aspect:
            context.sample_aspect_ratio = stamp.aspect

    def _encode(self, frame: av.VideoFrame | None) -> None:
        with self._explained():
            packets = self._video.encode(frame)
        self._mux(packets)

    def _mux(self, packets: list[Any]) -> None:
        with self._explained():
            self._container.mux(packets)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise EncodeError(f"{self._output}: cannot be written: {error.strerror}") from error
