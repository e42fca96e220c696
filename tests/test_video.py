from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import logging
import os
import random
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
import pytest

from sketchify_rt import Options, Sketchifier
from sketchify_rt.batch.video import convert_video, result_name
from sketchify_rt.batch.video.reader import Reader
from sketchify_rt.errors import (
    BackendUnavailable,
    DecodeError,
    EncodeError,
    InputError,
    OptionsError,
    OutputError,
)
from sketchify_rt.image import Gray, orient

pytestmark = pytest.mark.slow

MS = Fraction(1, 1000)
SOUND = 48000


class Mirror:
    """An engine that gives the negative, so that each sketch is known from its frame."""

    takes_hint = False

    def __init__(self, **options: Any) -> None:
        self.options = Options(threads=2, **options)
        self.seen: list[Gray] = []

    def map(self, sources: Iterable[Gray]) -> Iterator[Gray]:
        for luma in sources:
            assert luma.dtype == np.uint8
            assert luma.flags.c_contiguous
            self.seen.append(luma)
            yield 255 - luma


def ramp(number: int, size: tuple[int, int] = (96, 64)) -> Gray:
    """A smooth picture, another for each number, which survives a codec nearly unharmed."""
    y, x = np.mgrid[: size[1], : size[0]]
    return (40 + (x + y + 5 * number) % 160).astype(np.uint8)


def clip(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = 30,
    size: tuple[int, int] = (96, 64),
    form: str = "yuv420p",
    sound: str | None = "aac",
    base: Fraction = Fraction(1, 12800),
    times: list[int] | None = None,
    draw: Callable[[int, tuple[int, int]], Gray] = ramp,
    full: bool = False,
    options: dict[str, str] | None = None,
    dress: Callable[[Any, Any], None] = lambda container, stream: None,
) -> Path:
    """A video of 25 frames a second with a sine of 440 Hz. dress: adds to it before it begins."""
    with av.open(str(path), "w", container_options=options or {}) as out:
        stream = out.add_stream(codec, rate=25, width=size[0], height=size[1], pix_fmt=form)
        context = stream.codec_context
        context.time_base, context.color_range = base, 2 if full else 1
        if codec == "libx264":
            stream.options = {"crf": "5", "preset": "ultrafast", "bf": "2"}
        voice = out.add_stream(sound, rate=SOUND) if sound else None
        dress(out, stream)
        if voice:
            out.mux(sine(voice, count * SOUND // 25))
        for number in range(count):
            gray = av.VideoFrame.from_ndarray(draw(number, size), format="gray")
            frame = gray.reformat(format=form, dst_color_range=2 if full else 1)
            frame.pts = times[number] if times else round(number / 25 / base)
            frame.time_base = base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def sine(stream: Any, samples: int) -> Iterator[Any]:
    wave = np.sin(np.arange(samples) * 440 * 2 * np.pi / SOUND) * 0.3
    planar = stream.codec_context.format.is_planar
    for start in range(0, samples, 960):
        part = np.stack([wave[start : start + 960]] * 2).astype(np.float32)
        data = part if planar else part.T.reshape(1, -1)
        if stream.codec_context.format.name.startswith("s16"):
            data = (data * 32767).astype(np.int16)
        form = stream.codec_context.format.name
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format=form)
        frame.sample_rate, frame.pts, frame.time_base = SOUND, start, Fraction(1, SOUND)
        yield from stream.encode(frame)
    yield from stream.encode(None)


class Seen(NamedTuple):
    """What is in a file: luma of its frames, their times, packets of its other streams."""

    frames: list[Gray]
    times: list[Fraction]
    others: dict[int, list[tuple[Fraction, bytes]]]
    streams: list[Any]
    container: Any


@contextlib.contextmanager
def look(path: Path) -> Iterator[Seen]:
    with av.open(str(path)) as container:
        seen = Seen([], [], {}, list(container.streams), container)
        for packet in container.demux():
            if packet.stream is container.streams.video[0]:
                for frame in packet.decode():
                    gray = frame.reformat(format="gray", dst_color_range=2, threads=1)
                    seen.frames.append(gray.to_ndarray().copy())
                    seen.times.append(frame.pts * frame.time_base)
            elif packet.size:
                time = packet.pts * packet.time_base
                seen.others.setdefault(packet.stream.index, []).append((time, bytes(packet)))
        yield seen


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def close(ours: Gray, theirs: Gray) -> bool:
    """Equal but for what a codec loses."""
    return ours.shape == theirs.shape and float(abs(ours.astype(int) - theirs).mean()) < 2


CONTAINERS = [
    ("a.mp4", "libx264", "aac", Fraction(1, 12800)),
    ("a.MOV", "libx264", "pcm_s16le", Fraction(1, 600)),
    ("a.m4v", "mpeg4", "aac", Fraction(1, 25)),
    ("a.mkv", "libx264", "aac", MS),
    ("a.webm", "libvpx-vp9", "libopus", MS),
]


@pytest.mark.parametrize(("name", "codec", "sound", "base"), CONTAINERS)
def test_frames_sound_and_times_are_kept(
    tmp_path: Path, name: str, codec: str, sound: str, base: Fraction
) -> None:
    source = clip(tmp_path / name, codec, sound=sound, base=base)
    output, told = tmp_path / "out" / name, []
    engine = Mirror()
    done = convert_video(
        engine, source, output, quality=90, progress=lambda *count: told.append(count)
    )
    assert done == 30
    assert [count for count, _ in told] == list(range(1, 31))
    assert all(abs(total - 30) <= 1 for _, total in told)
    with look(source) as before, look(output) as after:
        assert after.times == before.times
        assert after.others == before.others  # to the bit
        assert len(after.others[1]) > 20
        assert abs(after.container.duration - before.container.duration) <= 40_000
        assert after.streams[0].average_rate == before.streams[0].average_rate
        assert after.container.format.name == before.container.format.name
        assert after.streams[0].codec_context.name == ("vp9" if "webm" in name else "h264")
        for ours, theirs in zip(after.frames, before.frames, strict=True):
            assert close(ours, 255 - theirs)


def test_a_sketch_is_that_of_the_engine(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4")
    with Sketchifier(mode="dodge", threads=2) as engine:
        convert_video(engine, source, tmp_path / "b.mp4", quality=100)
        with look(source) as before, look(tmp_path / "b.mp4") as after:
            for ours, luma in zip(after.frames, before.frames, strict=True):
                assert abs(ours.astype(int) - engine(luma)).max() <= 8


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name, codec, sound, base in CONTAINERS[::3] + CONTAINERS[4:]:
        source = clip(tmp_path / name, codec, sound=sound, base=base)
        outputs = [tmp_path / f"{number}{name}" for number in range(2)]
        for output in outputs:
            convert_video(Mirror(), source, output)
        assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rate(tmp_path: Path, name: str) -> None:
    times = list(itertools.accumulate([0, 40, 13, 100, 7, 500, 33, 33, 1, 900, 20, 20]))
    source = clip(tmp_path / name, base=MS, times=times, count=len(times))
    convert_video(Mirror(), source, tmp_path / f"b{name}")
    with look(source) as before, look(tmp_path / f"b{name}") as after:
        assert before.times == [time * MS for time in times]
        assert after.times == before.times
        assert abs(after.container.duration - before.container.duration) <= 1000


@pytest.mark.parametrize(
    ("form", "full"),
    [
        ("yuv420p", False),
        ("yuv420p", True),
        ("yuv444p", False),
        ("yuv420p10le", False),
        ("gray", False),
        ("gray", True),
    ],
)
def test_limited_range_is_stretched_and_full_range_stays(
    tmp_path: Path, form: str, full: bool
) -> None:
    """Lossless, with every stored value: 16 is black and 235 white, or 0 and 255."""

    def every_value(number: int, size: tuple[int, int]) -> Gray:
        return np.tile(np.arange(256, dtype=np.uint8), (16, 1))

    def draw_stored(path: Path) -> None:
        with av.open(str(path), "w") as out:
            stream = out.add_stream("ffv1", rate=25, width=256, height=16, pix_fmt=form)
            stream.codec_context.color_range = 2 if full else 1
            frame = av.VideoFrame(256, 16, form)
            deep = "10" in form
            stored = every_value(0, (256, 16)).astype(np.uint16 if deep else np.uint8)
            plane = frame.planes[0]
            row = np.zeros((16, plane.line_size), np.uint8)
            row[:, : 512 if deep else 256] = (stored << 2 if deep else stored).view(np.uint8)
            plane.update(row.tobytes())
            frame.pts, frame.color_range = 0, 2 if full else 1
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))

    draw_stored(tmp_path / "a.mkv")
    with Reader(tmp_path / "a.mkv") as reader:
        [(luma, _)] = reader.frames(lambda packet: None)
    values = np.arange(256)
    expected = values if full else np.clip(np.rint((values - 16) * 255 / 219), 0, 255)
    assert abs(luma - expected).max() <= ("10" in form)


def test_colours_are_luma_and_transparency_is_white(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mov"), "w") as out:
        stream = out.add_stream("png", rate=25, width=64, height=64, pix_fmt="rgba")
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[:32] = (255, 0, 0, 255)
        pixels[32:, 32:] = (0, 0, 0, 128)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        out.mux(stream.encode(None))
    engine = Mirror()
    convert_video(engine, tmp_path / "a.mov", tmp_path / "b.mov")
    luma = engine.seen[0]
    assert (luma[:32] == 76).all()
    assert (luma[32:, :32] == 255).all()
    assert (luma[32:, 32:] == 127).all()


@pytest.mark.parametrize(
    ("name", "size"), [("a.mp4", (33, 57)), ("a.mp4", (34, 57)), ("a.webm", (33, 57))]
)
def test_odd_sizes_are_kept(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    webm = name.endswith("webm")
    codec, sound = ("libvpx-vp9", "libopus") if webm else ("libx264", "aac")
    source = clip(tmp_path / name, codec, sound=sound, size=size, form="yuv444p", base=MS)
    convert_video(Mirror(), source, tmp_path / f"b{name}", quality=90)
    with look(source) as before, look(tmp_path / f"b{name}") as after:
        assert after.frames[0].shape == size[::-1]
        assert all(close(a, 255 - b) for a, b in zip(after.frames, before.frames, strict=True))


def test_even_sizes_are_what_every_player_knows(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", form="yuv444p")
    convert_video(Mirror(), source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == "yuv420p"
        assert frame.color_range == 1
        assert frame.colorspace == frame.color_primaries == frame.color_trc == 1
        chroma = [np.frombuffer(plane, np.uint8)[:48] for plane in frame.planes[1:]]
        assert np.unique(chroma).tolist() == [128]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_are_turned_once(tmp_path: Path, orientation: int) -> None:
    turn = {1: 0, 2: 0, 3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}[orientation]
    mirrored = orientation in (2, 4, 5, 7)

    def dress(container: Any, stream: Any) -> None:
        stream.set_display_rotation(turn, hflip=mirrored)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source = clip(tmp_path / "a.mp4", dress=dress, count=3)
    engine = Mirror()
    convert_video(engine, source, tmp_path / "b.mp4", quality=90)
    with look(source) as before, look(tmp_path / "b.mp4") as after:
        upright = orient(before.frames[0], orientation)
        np.testing.assert_array_equal(engine.seen[0], upright)
        assert close(after.frames[0], 255 - upright)
        aspect = Fraction(3, 4) if orientation > 4 else Fraction(4, 3)
        assert after.streams[0].sample_aspect_ratio == aspect
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


@pytest.mark.parametrize(
    ("options", "shape"), [({"max_side": 48}, (32, 48)), ({"detail": 64}, (64, 96))]
)
def test_an_engine_that_resizes(
    tmp_path: Path, options: dict[str, Any], shape: tuple[int, int]
) -> None:
    source = clip(tmp_path / "a.mp4", count=3)
    with Sketchifier(mode="dodge", **options) as engine:
        convert_video(engine, source, tmp_path / "b.mp4")
    with look(tmp_path / "b.mp4") as after:
        assert {frame.shape for frame in after.frames} == {shape}


def test_subtitles_fonts_chapters_and_tags_are_kept(tmp_path: Path) -> None:
    def dress(container: Any, stream: Any) -> None:
        container.metadata.update(title="Größe", artist="é")
        stream.metadata["language"] = "jpn"
        chapters = [(0, 500, "one"), (500, 1200, "two")]
        container.set_chapters(
            [
                {"id": n, "start": a, "end": b, "time_base": MS, "metadata": {"title": title}}
                for n, (a, b, title) in enumerate(chapters, 1)
            ]
        )
        container.add_attachment("font.ttf", "font/ttf", b"a font")
        words = container.add_mux_stream("subrip")
        words.metadata["language"] = "ger"
        for start, text in ((100, b"one"), (600, "zwei Sätze".encode())):
            packet = av.Packet(text)
            packet.stream, packet.time_base = words, MS
            packet.pts = packet.dts = start
            packet.duration = 400
            texts.append(packet)

    texts: list[Any] = []
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=96, height=64, pix_fmt="yuv420p")
        stream.codec_context.time_base = MS
        dress(out, stream)
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(ramp(number), format="gray")
            frame.pts, frame.time_base = number * 40, MS
            out.mux(stream.encode(frame))
        out.mux(texts)
        out.mux(stream.encode(None))

    convert_video(Mirror(), source, tmp_path / "b.mkv")
    with look(source) as before, look(tmp_path / "b.mkv") as after:
        assert [stream.type for stream in after.streams] == ["video", "subtitle", "attachment"]
        assert after.others == before.others
        assert [text for _, text in after.others[1]] == [b"one", "zwei Sätze".encode()]
        assert after.container.chapters() == before.container.chapters()
        assert [c["metadata"]["title"] for c in after.container.chapters()] == ["one", "two"]
        assert after.container.metadata["title"] == "Größe"
        assert after.streams[0].language == "jpn"
        assert after.streams[1].language == "ger"
        assert after.streams[2].data == b"a font"
        assert after.streams[2].name == "font.ttf"


def test_two_sounds_and_their_marks_are_kept_in_their_order(tmp_path: Path) -> None:
    def dress(container: Any, stream: Any) -> None:
        other = container.add_stream("aac", rate=SOUND)
        other.metadata["language"] = "fra"
        other.disposition = av.stream.Disposition.comment
        more.append(other)

    more: list[Any] = []
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as out:
        voice = out.add_stream("aac", rate=SOUND)
        stream = out.add_stream("libx264", rate=25, width=96, height=64)
        dress(out, stream)
        out.mux(sine(voice, SOUND // 5))
        out.mux(sine(more[0], SOUND // 5))
        for number in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(number), format="gray")))
        out.mux(stream.encode(None))
    convert_video(Mirror(), source, tmp_path / "b.mp4")
    with look(source) as before, look(tmp_path / "b.mp4") as after:
        assert [stream.type for stream in after.streams] == ["audio", "video", "audio"]
        assert after.others == before.others
        assert after.streams[2].language == "fra"
        assert after.streams[2].disposition == before.streams[2].disposition


def test_a_second_picture_is_left_out_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def dress(container: Any, stream: Any) -> None:
        other = container.add_stream("mjpeg", rate=25, width=32, height=32, pix_fmt="yuvj420p")
        frame = av.VideoFrame.from_ndarray(ramp(0, (32, 32)), format="gray")
        packets.extend(other.encode(frame.reformat(format="yuvj420p")))

    packets: list[Any] = []
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=96, height=64)
        dress(out, stream)
        out.mux(packets)
        for number in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(number), format="gray")))
        out.mux(stream.encode(None))
    with caplog.at_level(logging.WARNING, "sketchify_rt"):
        convert_video(Mirror(), source, tmp_path / "b.mkv")
    assert "a.mkv: stream 1 is left out: it is another video stream" in caplog.text
    with look(tmp_path / "b.mkv") as after:
        assert len(after.streams) == 1
        assert len(after.frames) == 5


def test_sound_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", base=MS)
    with pytest.raises(EncodeError, match=r"b\.webm: cannot hold the sound of stream 1 .*\.mkv"):
        convert_video(Mirror(), source, tmp_path / "b.webm")
    assert everything(tmp_path) == ["a.mkv"]


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mpg", "mpeg2video")])
def test_what_is_not_written_becomes_matroska(tmp_path: Path, name: str, codec: str) -> None:
    source = clip(tmp_path / name, codec, sound="mp2", base=Fraction(1, 25))
    assert result_name(name) == f"{name}.mkv"
    output = tmp_path / result_name(name)
    assert convert_video(Mirror(), source, output) == 30
    with look(source) as before, look(output) as after:
        data = [[data for _, data in packets] for packets in before.others.values()]
        assert [[data for _, data in packets] for packets in after.others.values()] == data
        assert all(close(a, 255 - b) for a, b in zip(after.frames, before.frames, strict=True))
        begin = before.container.start_time * MS / 1000
        begin = begin if name == "a.mpg" else 0  # where time begins anywhere
        pairs = zip(after.times, before.times, strict=True)
        assert all(abs(a - (b - begin)) <= MS for a, b in pairs)
        assert abs(after.container.duration - before.container.duration) <= 40_000


def test_names_and_qualities() -> None:
    from sketchify_rt.batch.video.writer import crf

    for name in ("x.mp4", "x.MKV", "x.y.mov", "x.webm", "x.m4v"):
        assert result_name(name) == name
    assert result_name("x.wmv") == "x.wmv.mkv"
    assert crf(None) == crf(66) == 18
    assert (crf(1), crf(100)) == (51, 1)


def test_more_quality_is_a_larger_file_and_a_closer_one(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)

    def noise(number: int, size: tuple[int, int]) -> Gray:
        return chance.integers(60, 200, size[::-1], np.uint8)

    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")):
        base = MS if codec != "libx264" else Fraction(1, 12800)
        source = clip(tmp_path / name, codec, sound=None, draw=noise, count=8, base=base)
        sizes, losses = [], []
        for quality in (20, 66, 95):
            engine, output = Mirror(), tmp_path / f"{quality}{name}"
            convert_video(engine, source, output, quality=quality)
            sizes.append(output.stat().st_size)
            with look(output) as after:
                pairs = zip(after.frames, engine.seen, strict=True)
                losses.append(np.mean([abs(a.astype(int) - (255 - b)).mean() for a, b in pairs]))
        assert sizes == sorted(sizes)
        assert losses == sorted(losses, reverse=True)
        assert sizes[0] * 2 < sizes[2]
        convert_video(Mirror(), source, tmp_path / f"none{name}")
        assert (tmp_path / f"none{name}").stat().st_size == sizes[1]


@pytest.mark.parametrize("quality", [0, 101, True, "high", 50.0])
def test_qualities_that_there_are_not(tmp_path: Path, quality: Any) -> None:
    with pytest.raises(OptionsError, match="quality must be between 1 and 100, got "):
        convert_video(Mirror(), tmp_path / "a.mp4", tmp_path / "b.mp4", quality=quality)


def test_endings_that_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"b\.avi: videos are written as m4v, mkv, mov, mp4"):
        convert_video(Mirror(), tmp_path / "a.avi", tmp_path / "b.avi")


def test_how_many_frames_there_are_is_known_before(tmp_path: Path) -> None:
    for source in clip(tmp_path / "a.mp4"), clip(tmp_path / "a.mkv", base=MS):
        with Reader(source) as reader:
            assert abs((reader.total or 0) - 30) <= (source.suffix == ".mkv")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"hello" * 99, "is no video, or its beginning is damaged or missing"),
        ("image.mp4", b"P5 9 9 255 " + bytes(81), "is no video"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n", "is no video"),
        ("concat.mp4", b"ffconcat version 1.0\nfile a.mp4\n", "is no video"),
    ],
)
def test_what_is_no_video(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    clip(tmp_path / "a.mp4")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DecodeError) as caught:
        convert_video(Mirror(), tmp_path / name, tmp_path / "b.mp4")
    assert caught.value.source == str(tmp_path / name)
    assert caught.value.reason.startswith(reason)
    assert everything(tmp_path) == ["a.mp4", name]


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        out.mux(sine(out.add_stream("aac", rate=SOUND), SOUND))
    with pytest.raises(DecodeError, match=r"a\.mp4: has no video in it"):
        convert_video(Mirror(), tmp_path / "a.mp4", tmp_path / "b.mp4")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for name, why in (
        ("no.mp4", "No such file"),
        ("", "Is a directory"),
        ("a\0b.mp4", "null byte"),
    ):
        with pytest.raises(InputError, match=rf"cannot be read \(.*{why}"):
            convert_video(Mirror(), tmp_path / name, tmp_path / "b.mp4")
    assert everything(tmp_path) == []


def test_names_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mp4", count=2)
    for raw in (b"-x \xff\xfe.mp4", b"http:a.mp4", b"concat:b|c.mp4", "🙂%d.mp4".encode()):
        name = Path(os.fsdecode(raw))
        (tmp_path / "a.mp4").rename(name)
        assert convert_video(Mirror(), name, Path("out") / name) == 2
        assert (Path("out") / name).exists()
        name.rename(tmp_path / "a.mp4")


def test_an_encrypted_video(tmp_path: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "1" * 32}
    source = clip(tmp_path / "a.mp4", options=key | {"encryption_kid": "2" * 32})
    with pytest.raises(DecodeError, match=r"a\.mp4: is encrypted; decrypt it first"):
        convert_video(Mirror(), source, tmp_path / "b.mp4")
    assert everything(tmp_path) == ["a.mp4"]


def test_frames_over_the_limit_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4")
    told = "has frames of 96 x 64 = 6144 pixels, over the limit of 6143; raise max_pixels"
    with pytest.raises(DecodeError, match=told):
        convert_video(Mirror(max_pixels=6143), source, tmp_path / "b.mp4")
    assert convert_video(Mirror(max_pixels=6144), source, tmp_path / "b.mp4") == 30


@pytest.mark.parametrize(
    ("name", "codec", "base", "options"),
    [
        ("a.mp4", "libx264", Fraction(1, 12800), {}),
        ("front.mp4", "libx264", Fraction(1, 12800), {"movflags": "+faststart"}),
        ("a.mkv", "libx264", MS, {}),
        ("a.webm", "libvpx-vp9", MS, {}),
        ("a.avi", "mpeg4", Fraction(1, 25), {}),
    ],
)
def test_a_video_cut_off_is_an_error_and_leaves_nothing(
    tmp_path: Path, name: str, codec: str, base: Fraction, options: dict[str, str]
) -> None:
    """But for the last third of a second, where containers themselves are not exact."""
    sound = {"a.webm": "libopus", "a.avi": "mp2"}.get(name, "aac")
    source = clip(tmp_path / name, codec, sound=sound, base=base, options=options, count=75)
    whole = source.read_bytes()
    (tmp_path / "out").mkdir()
    for part in range(2, 86, 7):
        source.write_bytes(whole[: len(whole) * part // 100])
        with pytest.raises(DecodeError) as caught:
            convert_video(Mirror(), source, tmp_path / "out" / result_name(name))
        assert str(caught.value).startswith(f"{source}: ")
        assert everything(tmp_path / "out") == []


def test_damage_is_named_by_frame_and_time_and_leaves_nothing(tmp_path: Path) -> None:
    """One in ten of them is still MPEG-4 as it may be; which ones depends on FFmpeg's threads."""
    source = clip(tmp_path / "a.avi", "mpeg4", sound=None, base=Fraction(1, 25), size=(320, 240))
    whole, chance = source.read_bytes(), random.Random(4)
    named = 0
    for _ in range(20):
        data = bytearray(whole)
        place = chance.randrange(len(data) // 4, len(data) * 8 // 10)
        data[place : place + 8] = chance.randbytes(8)
        source.write_bytes(data)
        try:
            convert_video(Mirror(), source, tmp_path / "b.mkv")
        except DecodeError as error:
            named += 1
            assert re.search(r"frame \d+, after \d\.\d\d seconds, cannot", str(error))
            assert error.reason.endswith("get a whole copy")
            assert everything(tmp_path) == ["a.avi"]
        else:
            with look(tmp_path / "b.mkv") as seen:
                assert len(seen.frames) >= 29  # what says "as before" now makes no frame
            (tmp_path / "b.mkv").unlink()
    assert named >= 15


def test_interrupted_in_the_middle_nothing_stays(tmp_path: Path) -> None:
    source, output = clip(tmp_path / "a.mp4"), tmp_path / "out" / "b.mp4"
    output.parent.mkdir()
    output.write_bytes(b"old")

    def progress(count: int, total: int | None) -> None:
        if count == 10:
            raise KeyboardInterrupt

    with Sketchifier(mode="dodge", threads=2) as engine:
        before = threading.active_count()
        with pytest.raises(KeyboardInterrupt):
            convert_video(engine, source, output, progress=progress)
        assert threading.active_count() == before
    assert everything(output.parent) == ["b.mp4"]
    assert output.read_bytes() == b"old"


def test_an_error_of_the_engine_passes_and_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Mirror):
        def map(self, sources: Iterable[Gray]) -> Iterator[Gray]:
            yield from itertools.islice(super().map(sources), 5)
            raise MemoryError

    source = clip(tmp_path / "a.mp4")
    with pytest.raises(MemoryError):
        convert_video(Broken(), source, tmp_path / "b.mp4")
    assert everything(tmp_path) == ["a.mp4"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", size=(320, 240))
    for limit in (10, 1000, 4000):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OutputError, match=r"b\.mp4: cannot be written: File too") as caught:
                convert_video(Mirror(), source, tmp_path / "b.mp4", quality=95)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.EFBIG
        assert everything(tmp_path) == ["a.mp4"]


def test_a_file_of_the_caller_is_written_and_ended(tmp_path: Path) -> None:
    source, output = clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    convert_video(Mirror(), source, output)

    @contextlib.contextmanager
    def elsewhere(error: OutputError | None = None) -> Iterator[BinaryIO]:
        with (tmp_path / "c").open("w+b") as file:
            yield file
        if error:
            raise error

    convert_video(Mirror(), source, tmp_path / "d.mp4", file=elsewhere())
    assert (tmp_path / "c").read_bytes() == output.read_bytes()
    with pytest.raises(OutputError, match="no"):
        convert_video(Mirror(), source, tmp_path / "d.mp4", file=elsewhere(OutputError("no")))
    assert everything(tmp_path) == ["a.mp4", "b.mp4", "c"]


def test_the_decoder_does_not_run_ahead(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", count=75)
    taken = 0
    ahead: list[int] = []

    class Counting(Sketchifier):
        def map(self, sources: Any, **options: Any) -> Iterator[Any]:
            def counted() -> Iterator[Gray]:
                nonlocal taken
                for luma in sources:
                    taken += 1
                    yield luma

            return super().map(counted(), **options)

    with Counting(mode="dodge", threads=2) as engine:
        convert_video(
            engine, source, tmp_path / "b.mp4", progress=lambda n, _: ahead.append(taken - n)
        )
    assert max(ahead) <= 4  # two a worker


def test_memory_is_flat_over_300_frames_of_720p(tmp_path: Path) -> None:
    """In a process of its own: at frame 300 what it was at frame 60, within 8 MiB."""
    source, output = clip(tmp_path / "a.mp4", count=300, size=(1280, 720)), tmp_path / "b.mp4"
    code = f"""
from pathlib import Path
from sketchify_rt import Sketchifier
from sketchify_rt.batch.video import convert_video, result_name

def resident(count, total):
    if count in (60, 300):
        print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)

with Sketchifier(mode="dodge", threads=2) as engine:
    convert_video(engine, Path({str(source)!r}), Path({str(output)!r}), progress=resident)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early, late = map(int, run.stdout.split())
    assert late - early < 8 * 2**20
    with look(source) as before, look(output) as after:
        assert len(after.frames) == 300
        assert after.others == before.others
        assert abs(after.container.duration - before.container.duration) <= 40_000


def test_without_the_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sketchify_rt.batch.video")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'sketchify-rt\[video\]'"):
        importlib.import_module("sketchify_rt.batch.video")
