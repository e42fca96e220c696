"""Shots of a video: whether their frames are pages is decided for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import picture
from test_bilevel import drawing
from test_video import clip

from sketchify_rt import Sketchifier
from sketchify_rt.batch.video import convert_video, shots
from sketchify_rt.batch.video.reader import Reader
from sketchify_rt.batch.video.writer import Writer
from sketchify_rt.image import Gray
from sketchify_rt.inputs import Picture

pytestmark = pytest.mark.slow

SIZE = (160, 120)
PAGE: Gray = cv2.resize(drawing(), SIZE, interpolation=cv2.INTER_AREA)
WASHED = np.where(np.arange(SIZE[0]) // 8 == 4, np.uint8(128), PAGE)  # a page with a flat gray
PAINTING = picture(SIZE[1], SIZE[0])


def binaries(*frames: Gray) -> list[str | None]:
    return [image.binary for image in shots.told(frames)]


def test_frames_are_pages_up_to_the_first_that_has_tones() -> None:
    assert binaries(PAGE, PAGE) == ["page", "page"]
    assert binaries(PAGE, WASHED, PAGE, PAGE) == ["page", "threshold", "threshold", "threshold"]
    assert binaries(WASHED, PAGE) == ["threshold", "threshold"]


def test_a_cut_decides_anew() -> None:
    told = binaries(PAINTING, PAGE, PAGE, PAINTING, PAINTING, PAGE)
    assert told == ["threshold", "page", "page", "threshold", "threshold", "page"]
    assert binaries(WASHED, PAGE[:64], PAGE) == ["threshold", "page", "page"]  # other sizes


def test_no_cut_is_seen_in_noise_or_in_what_fades_or_moves_slowly() -> None:
    wide = picture(120, 240)
    rng = np.random.default_rng(0)
    for frames in (
        [np.clip(WASHED + rng.normal(0, 10, WASHED.shape), 0, 255) for _ in range(6)],
        [WASHED * (1 - number / 25) for number in range(25)],
        [wide[:, 2 * number : 2 * number + 160] for number in range(40)],
    ):
        small = [
            cv2.resize(frame.astype(np.uint8), (64, 48), interpolation=cv2.INTER_AREA)
            for frame in frames
        ]
        assert not any(map(shots._cut, small[:-1], small[1:]))


def test_a_page_is_told_from_the_frame_as_it_is_and_resized_by_the_engine() -> None:
    lines = np.where(np.add.outer(np.arange(120), np.arange(160)) // 2 % 2, 255, 0).astype(np.uint8)
    (image,) = shots.told([lines])
    assert image.binary == "page"
    np.testing.assert_array_equal(image.luma, lines)


def sketches(source: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Gray]:
    """What is handed to the encoder."""
    given: list[Gray] = []
    write = Writer.write

    def noted(self: Writer, sketch: Gray, stamp: Any) -> None:
        given.append(sketch.copy())
        write(self, sketch, stamp)

    with monkeypatch.context() as patch, Sketchifier(device="cpu", **options) as engine:
        patch.setattr(Writer, "write", noted)
        convert_video(engine, source, source.with_suffix(".out.mkv"))
    return given


def test_sketches_hang_on_their_shot_and_not_on_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A page with a gray that comes and goes, and a cut to a picture.
    shown = [PAGE, WASHED, PAGE, WASHED, PAGE, PAINTING, PAINTING]
    source = clip(
        tmp_path / "a.mkv",
        count=len(shown),
        size=SIZE,
        sound=None,
        draw=lambda number, size: shown[number],
    )
    made = sketches(source, monkeypatch, threads=2)
    for again in sketches(source, monkeypatch, threads=1), sketches(source, monkeypatch, batch=4):
        np.testing.assert_array_equal(again, made)
    with Reader(source) as reader:
        lumas = [luma for luma, _ in reader.frames(lambda packet: None)]
    alone = Sketchifier(device="cpu", threads=2)
    for number, (luma, sketch) in enumerate(zip(lumas, made, strict=True)):
        binary = "threshold" if number else "page"
        np.testing.assert_array_equal(sketch, alone(Picture("", luma, binary=binary)))
    np.testing.assert_array_equal(made[-1], alone(lumas[-1]))
    assert abs(made[2].astype(int) - alone(lumas[2])).mean() > 1  # that one would be a page


@pytest.mark.parametrize("binary", ["page", "threshold"])
def test_what_is_told_holds_for_all_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binary: Any
) -> None:
    source = clip(
        tmp_path / "a.mkv", count=2, size=SIZE, sound=None, draw=lambda number, size: WASHED
    )
    with Reader(source) as reader:
        lumas = [luma for luma, _ in reader.frames(lambda packet: None)]
    made = sketches(source, monkeypatch, binary=binary)
    alone = Sketchifier(device="cpu", binary=binary)
    np.testing.assert_array_equal(made, [alone(luma) for luma in lumas])
