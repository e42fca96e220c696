from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from sketchify_rt.image import Gray
from training import scenes as scenes_module
from training.scenes import KINDS, scene
from training.screentone import screentone

SEEDS = range(24)


@functools.cache
def scenes(kind: str) -> list[Gray]:
    return [scene(np.random.default_rng(seed), 256, kind) for seed in SEEDS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [32, 97, 256])
def test_a_scene_has_the_side_asked_for_and_depends_on_the_generator_alone(
    kind: str, side: int
) -> None:
    for seed in range(4):
        first, again = (scene(np.random.default_rng(seed), side, kind) for _ in range(2))
        assert first.dtype == np.uint8
        assert first.shape == (side, side)
        assert np.array_equal(first, again)
    assert not np.array_equal(first, scene(np.random.default_rng(99), side, kind))


def test_kinds_are_drawn_by_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def note(kind: str) -> Callable[[Gray, np.random.Generator], None]:
        return lambda page, rng: drawn.append(kind)

    monkeypatch.setattr(scenes_module, "_DRAW", {kind: note(kind) for kind in KINDS})
    generator = np.random.default_rng(0)
    for _ in range(2000):
        scene(generator, 32)
    for kind, share in KINDS.items():
        assert drawn.count(kind) / 2000 == pytest.approx(share, abs=0.03)


def test_scenes_differ() -> None:
    generator = np.random.default_rng(0)
    assert len({scene(generator, 64).tobytes() for _ in range(200)}) > 195


def paper(gray: Gray) -> float:
    """The share of the page within a paper's shading of its lightest tone."""
    return float((gray > int(gray.max()) - 25).mean())


def black(gray: Gray) -> float:
    """The share that lies in areas of one dark tone, more than 7 pixels across."""
    return float((cv2.dilate(gray, np.ones((7, 7), np.uint8)) < 110).mean())


def between(gray: Gray) -> float:
    """The share of areas, more than 5 pixels across, that are neither paper nor ink."""
    ring = np.ones((5, 5), np.uint8)
    return float(((cv2.erode(gray, ring) > 70) & (cv2.dilate(gray, ring) < 230)).mean())


def test_line_art_is_mostly_paper() -> None:
    shares = [paper(gray) for gray in scenes("line art")]
    assert np.median(shares) > 0.7
    assert min(shares) > 0.3
    assert max(shares) < 1  # something is drawn


def test_night_is_mostly_black() -> None:
    assert np.median([black(gray) for gray in scenes("night")]) > 0.3


def test_solid_blacks_have_black_areas() -> None:
    solid = [black(gray) for gray in scenes("solid blacks")]
    assert np.mean(solid) > 0.1
    assert np.mean(solid) > 3 * np.mean([black(gray) for gray in scenes("line art")])


@pytest.mark.parametrize("kind", ["wash", "flat tones"])
def test_washes_and_flat_tones_are_gray(kind: str) -> None:
    assert np.mean([between(gray) for gray in scenes(kind)]) > 0.25
    assert np.mean([between(gray) for gray in scenes("line art")]) < 0.1


def steps(gray: Gray) -> float:
    """Crossings of mid-gray along the rows, per pixel."""
    dark = gray < 128
    return float((dark[:, 1:] != dark[:, :-1]).mean())


def test_screentone_scenes_are_dotted() -> None:
    line_art = np.mean([steps(gray) for gray in scenes("line art")])
    assert np.mean([steps(gray) for gray in scenes("screentone")]) > 1.6 * line_art


def test_panels_have_long_straight_frames() -> None:
    def frames(gray: Gray) -> bool:
        dark = gray < 110
        return bool(max(dark.mean(0).max(), dark.mean(1).max()) > 0.35)

    assert np.mean([frames(gray) for gray in scenes("panels")]) > 0.8


@pytest.mark.parametrize("level", [40, 90, 128, 180, 220])
def test_a_screentone_keeps_the_mean(level: int) -> None:
    flat = np.full((200, 173), level, np.uint8)
    for seed in range(30):
        tone = screentone(flat, np.random.default_rng(seed))
        assert tone.shape == flat.shape
        assert tone.dtype == np.uint8
        assert abs(float(tone.mean()) - level) < 5
        assert tone.std() > 0.4 * np.sqrt(level * (255 - level))  # dots, not a gray


def test_a_screentone_leaves_paper_and_ink() -> None:
    gray = np.repeat(np.array([[0, 5, 251, 255]], np.uint8), 40, 0).repeat(10, 1)
    for seed in range(30):
        tone = screentone(gray, np.random.default_rng(seed))
        assert (tone[:, :20] == 0).all()
        assert (tone[:, 20:] == 255).all()


def test_screentones_differ_and_repeat() -> None:
    flat = np.full((64, 64), 128, np.uint8)
    tones = [screentone(flat, np.random.default_rng(seed)).tobytes() for seed in range(20)]
    assert len(set(tones)) == 20
    assert screentone(flat, np.random.default_rng(3)).tobytes() == tones[3]
