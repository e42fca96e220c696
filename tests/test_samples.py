"""The sample pictures are what their code draws, and cover the formats they are there for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "samples"
_ORIENTATION = 0x0112


@pytest.mark.parametrize(
    ("name", "kind", "mode", "size", "orientation"),
    [
        ("portrait.webp", "WEBP", "RGB", (880, 1200), 1),
        ("lake.jpg", "JPEG", "RGB", (1200, 800), 1),
        ("still-life.jpg", "JPEG", "RGB", (1000, 760), 6),
        ("island.png", "PNG", "RGBA", (720, 960), 1),
        ("pages/001.png", "PNG", "L", (900, 1280), 1),
    ],
)
def test_files_are_of_the_kinds_they_stand_for(
    name: str, kind: str, mode: str, size: tuple[int, int], orientation: int
) -> None:
    with Image.open(SAMPLES / name) as image:
        image.load()
        assert (image.format, image.mode, image.size) == (kind, mode, size)
        assert image.getexif().get(_ORIENTATION, 1) == orientation


def test_files_stay_small() -> None:
    pictures = [p for p in SAMPLES.rglob("*") if p.suffix in {".png", ".jpg", ".webp"}]
    assert len(pictures) == 5
    assert sum(p.stat().st_size for p in pictures) < 1.2e6


def test_drawing_again_gives_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the island alone, the quickest to draw. Its levels are even, so a rounding shows as 2."""
    monkeypatch.syspath_prepend(str(SAMPLES.parent))
    from samples.draw import __main__ as draw

    drawn = np.asarray(draw.SAMPLES["island.png"].image(), np.int16)
    with Image.open(SAMPLES / "island.png") as image:
        off = np.abs(drawn - np.asarray(image, np.int16))
    assert drawn[..., 3].min() == 0
    assert drawn[..., 3].max() == 255
    # exact with the same libraries; other versions and processors round some samples otherwise
    assert (off > 2).mean() < 1e-3
    assert off.mean() < 0.05
