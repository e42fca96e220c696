"""Pages that are black and white already."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import picture

from sketchify_rt import bilevel
from sketchify_rt.image import Gray, resize
from sketchify_rt.kernels import reference

SAMPLES = Path(__file__).parents[1] / "samples"


def drawing(paper: int = 255, ink: int = 0) -> Gray:
    """Lettering, hatching, dots of a screentone and a solid black, at twice the size of a page."""
    page = np.full((800, 600), 255, np.uint8)
    cv2.putText(page, "KA-POW!", (40, 140), cv2.FONT_HERSHEY_COMPLEX, 3.5, 0, 9, cv2.LINE_AA)
    for x in range(40, 560, 12):
        cv2.line(page, (x, 200), (x + 30, 330), 0, 3, cv2.LINE_AA)
    for y in range(360, 520, 14):
        for x in range(40, 560, 14):
            cv2.circle(page, (x, y), 4, 0, -1, cv2.LINE_AA)
    cv2.rectangle(page, (60, 560), (540, 760), 0, -1)
    return np.asarray(np.rint(ink + page / 255 * (paper - ink)), np.uint8)


def scanned(page: Gray, quality: int) -> Gray:
    """Reduced to half its size, and saved as JPEG: antialiasing and ringing."""
    half = resize(page, page.shape[0] // 2, page.shape[1] // 2)
    data = cv2.imencode(".jpg", half, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (230, 20), (205, 50)])
@pytest.mark.parametrize("quality", [60, 95])
def test_scans_of_black_and_white_pages_are_found(paper: int, ink: int, quality: int) -> None:
    page = scanned(drawing(paper, ink), quality)
    assert len(np.unique(page)) > 60
    level = bilevel.level(page)
    assert level is not None
    assert abs(level - (paper + ink) / 2) <= 4
    result = bilevel.binarize(page, level)
    assert set(np.unique(result)) == {0, 255}
    half = resize(drawing(), 400, 300)
    assert ((half < 128) != (result == 0)).mean() < 0.02
    assert (result[300:370, 40:260] == 0).all()  # where the threshold leaves an outline alone


def test_a_page_of_1_bit_is_its_own_binary() -> None:
    page = np.where(drawing() < 128, 0, 255).astype(np.uint8)
    level = bilevel.level(page)
    assert level is not None
    assert np.array_equal(bilevel.binarize(page, level), page)


def pictures_with_tones() -> dict[str, Gray]:
    read = {
        path.stem: np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        for path in sorted(SAMPLES.glob("*.*"))
        if path.suffix in (".jpg", ".png", ".webp")
    }
    ramp = np.tile(np.arange(256, dtype=np.uint8), (200, 1))
    washed = drawing()
    washed[600:700, 100:500] = 128  # a flat gray within the black
    return {
        **read,
        "ramp": ramp,
        "wash": washed,
        "blobs": picture(300, 300),
        "pencil": reference.dodge(picture(300, 300)),
        "white": np.full((90, 90), 255, np.uint8),
        "black": np.zeros((90, 90), np.uint8),
        "one pixel": np.zeros((1, 1), np.uint8),
        "gray": np.full((90, 90), 128, np.uint8),
    }


@pytest.mark.parametrize(("name", "gray"), pictures_with_tones().items())
def test_pictures_with_tones_are_left_alone(name: str, gray: Gray) -> None:
    assert bilevel.level(gray) is None


@pytest.mark.parametrize("level", [1, 128, 255])
def test_what_is_below_the_level_is_black(level: int) -> None:
    gray = np.arange(256, dtype=np.uint8)[None]
    assert np.array_equal(bilevel.binarize(gray, level), np.where(gray < level, 0, 255))


def test_any_picture_is_divided_as_opencv_divides_it() -> None:
    for seed in range(5):
        gray = picture(90, 120, seed)
        expected = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
        level = bilevel.otsu(bilevel.histogram(gray))
        np.testing.assert_array_equal(bilevel.binarize(gray, level), expected)
    for flat in (0, 7, 255):
        assert 1 <= bilevel.otsu(bilevel.histogram(np.full((3, 4), flat, np.uint8))) <= 255
