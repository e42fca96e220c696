"""Reads a video file: luma of its frames, and packets of its other streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.video.reformatter import ColorRange

from sketchify_rt.errors import DecodeError, InputError
from sketchify_rt.image import Gray, orient, to_luma
from sketchify_rt.options import MAX_PIXELS

# Containers and protocols of FFmpeg. Others take pictures and any text for videos, or read more
# files and addresses that an untrusted file names, as playlists do.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,ogg,asf"
_SAFE = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
# Their duration is guessed from the bit rate, and their time does not begin at 0.
_BROADCAST = {"mpeg", "mpegvideo", "mpegts"}
# Seconds by which sound may begin before pictures or end after them, and containers round.
_SLACK = Fraction(1, 4)

_FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)

# EXIF orientations by display matrices: what becomes of right (x, y) and of down (x, y).
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


class Stamp(NamedTuple):
    """When a frame is shown.

    Attributes:
        pts: Its beginning, in units of `base`.
        duration: In units of `base`, 0 if unknown.
        base: The unit, in seconds.
        aspect: Width / height of a pixel, None if unknown.
    """

    pts: int
    duration: int
    base: Fraction
    aspect: Fraction | None


class Reader:
    """An open video. Not thread-safe.

    Attributes:
        source: The file.
        container: PyAV's container.
        video: The stream that is converted: the first one that is no cover.
        total: Approximate number of frames, None if unknown.
    """

    def __init__(self, source: Path, max_pixels: int = MAX_PIXELS, threads: int = 1) -> None:
        """Opens the file.

        Args:
            source: The file.
            max_pixels: Largest number of pixels of a frame.
            threads: Of the decoder.

        Raises:
            DecodeError: It is no video that can be read.
            InputError: The file cannot be read.
        """
        self.source = source
        self._max_pixels = max_pixels
        try:
            with source.open("rb") as file:
                empty = not file.read(1)
            # "file:" keeps names such as "concat:a.mp4" from being taken for an address.
            self.container = av.open(
                f"file:{source}", options=_SAFE, metadata_errors="surrogateescape"
            )
        except av.FFmpegError as error:
            why = "is empty" if empty else "is no video, or its beginning is damaged or missing"
            raise DecodeError(str(source), why) from error
        except (OSError, ValueError) as error:  # ValueError: no file can have this name
            why = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{source}: cannot be read ({why})") from error
        try:
            self.video = self._find_video()
        except BaseException:
            self.container.close()
            raise
        self.video.codec_context.thread_count = threads
        self.video.codec_context.thread_type = "AUTO"
        self.video.codec_context.options = {"err_detect": "explode"}  # else damage is hidden
        self._rate = self.video.average_rate or self.video.guessed_rate or Fraction(25)
        self._start = Fraction(self.container.start_time or 0, av.time_base)
        self._broadcast = self.container.format.name in _BROADCAST
        self.total = self.video.frames or round(self._length * self._rate) or None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def frames(self, other: Callable[[Any], None]) -> Iterator[tuple[Gray, Stamp]]:
        """Yields the frames in the order in which they are shown.

        Args:
            other: Called with each packet of another stream.

        Yields:
            Luma, uint8 (H, W), upright and on white, and when it is shown. The limited range of 16
            to 235 becomes 0 to 255. The brightness of HDR video is taken as it is stored.

        Raises:
            DecodeError: The video is damaged, truncated or encrypted.
        """
        count, end, shown, orientation = 0, Fraction(0), Fraction(0), 1
        last: Stamp | None = None
        try:
            for packet in self.container.demux():
                if packet.is_corrupt:
                    raise self._damaged(count, shown, "it is damaged or cut short")
                if packet.pts is not None:
                    self._shift(packet)
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream is not self.video:
                    if packet.size:  # empty packets end a stream
                        other(packet)
                    continue
                if packet.has_sidedata("encryption_info"):
                    raise DecodeError(str(self.source), "is encrypted; decrypt it first")
                for frame in self.video.decode(packet):
                    if frame.is_corrupt:
                        raise self._damaged(count, shown, "it is damaged")
                    self._check_size(frame.width, frame.height)
                    if last is None:
                        orientation = _orientation(frame)
                    last = self._stamp(frame, last, orientation)
                    shown = last.pts * last.base
                    count += 1
                    yield orient(_luma(frame), orientation), last
        except av.FFmpegError as error:
            raise self._damaged(count, shown, str(error.strerror)) from error
        if not count:
            raise DecodeError(str(self.source), "has no frames")
        if not self._broadcast and end - self._start < self._length - _SLACK - 1 / self._rate:
            told = f"ends after {float(end - self._start):.2f} of {float(self._length):.2f} seconds"
            raise DecodeError(str(self.source), f"{told}; get a whole copy")

    def _find_video(self) -> av.VideoStream:
        covers = av.stream.Disposition.attached_pic
        for stream in self.container.streams.video:
            if stream.codec_context is not None and not stream.disposition & covers:
                self._check_size(stream.codec_context.width, stream.codec_context.height)
                return stream
        if any(not stream.disposition & covers for stream in self.container.streams.video):
            raise DecodeError(str(self.source), "its video has a codec that this PyAV cannot read")
        raise DecodeError(str(self.source), "has no video in it")

    @property
    def _length(self) -> Fraction:
        """Length in seconds, 0 if the file does not tell."""
        length = Fraction(self.container.duration or 0, av.time_base)
        if self.container.format.name == "avi":  # of a truncated file FFmpeg tells what is left
            length = max(length, self.video.frames / self._rate)
        return length

    def _shift(self, packet: Any) -> None:
        """Lets the time of a broadcast begin at 0, as in other files."""
        if self._broadcast:
            by = round(self._start / packet.time_base)
            packet.pts -= by
            packet.dts = packet.pts if packet.dts is None else packet.dts - by

    def _stamp(self, frame: av.VideoFrame, last: Stamp | None, orientation: int) -> Stamp:
        """Returns when a frame is shown: after the last frame, even if its time is missing."""
        aspect = self.video.sample_aspect_ratio or None
        if aspect and orientation >= 5:
            aspect = 1 / aspect
        pts = frame.pts
        if last is not None and (pts is None or pts <= last.pts):
            pts = last.pts + (last.duration or 1 if pts is None else 1)
        pts, duration = pts or 0, frame.duration
        if self.video.duration:
            # MP4 tells the time to the next frame that is stored, which may be shown earlier.
            end = (self.video.start_time or 0) + self.video.duration
            duration = max(0, min(duration, end - pts))
        return Stamp(pts, duration, frame.time_base or Fraction(1, 25), aspect)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            told = f"has frames of {width} x {height} = {width * height} pixels, over the limit of "
            raise DecodeError(
                str(self.source), f"{told}{self._max_pixels}; raise max_pixels to read it"
            )

    def _damaged(self, frame: int, after: Fraction, why: str) -> DecodeError:
        where = f"frame {frame}, after {float(after):.2f} seconds, cannot be decoded"
        return DecodeError(str(self.source), f"{where}: {why}; get a whole copy")


def _luma(frame: av.VideoFrame) -> Gray:
    if any(component.is_alpha for component in frame.format.components):
        luma = to_luma(frame.to_ndarray(format="rgba", threads=1))
    else:
        # Exact for 8 bits. 1280 x 720 takes 0.6 ms; with threads, 26 ms on a busy machine.
        gray = frame.reformat(format="gray", dst_color_range=ColorRange.JPEG, threads=1)
        luma = cast("Gray", gray.to_ndarray())
        if frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG:
            luma = _FULL_RANGE[luma]  # which FFmpeg does not do for gray
    return luma


def _orientation(frame: av.VideoFrame) -> int:
    """Returns the EXIF orientation of a frame; 1 if it is not turned by a multiple of 90 degrees.

    Called for one frame only: reading side data ties a frame into a cycle, which stays in memory
    until the garbage collector runs.
    """
    side_data: Mapping[str, bytes] = cast("Any", frame.side_data)  # PyAV's type lacks most of it
    if (data := side_data.get("DISPLAYMATRIX")) is None:
        return 1
    matrix = np.rint(np.frombuffer(data, np.int32)[[0, 1, 3, 4]] / 2**16).astype(int)
    return _ORIENTATIONS.get(tuple(matrix.tolist()), 1)
