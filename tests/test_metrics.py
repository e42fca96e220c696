from __future__ import annotations

import cv2
import numpy as np
import pytest

from sketchify_rt import metrics
from sketchify_rt.image import Gray
from sketchify_rt.metrics import Metrics


def page(height: int, width: int, seed: int) -> Gray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def test_metrics_of_cases_with_known_answers() -> None:
    white_page = np.full((40, 50), 255, np.uint8)
    line = white_page.copy()
    line[20] = 100
    same = metrics.measure(line, line)
    assert same == Metrics(0, float("inf"), pytest.approx(1), 1, 0, 0)  # type: ignore[arg-type]
    blank = metrics.measure(white_page, line)
    assert (blank.mae, blank.tone) == pytest.approx((155 / 40, 155 / 40))
    assert blank.dark_mae == 155
    assert blank.ink_f1 == 0
    assert blank.psnr == pytest.approx(10 * np.log10(255**2 / (155**2 / 40)), rel=1e-5)
    for shift, f1 in ((1, 1), (2, 0)):  # one pixel off is found, two are not
        assert metrics.measure(np.roll(line, shift, axis=0), line).ink_f1 == f1
    assert metrics.mean([same, blank]).mae == blank.mae / 2


def test_found_and_wanted_ink_count_apart() -> None:
    wanted = np.full((40, 50), 255, np.uint8)
    wanted[20] = 100
    found = wanted.copy()
    found[20, 25:] = 255  # half of the line
    found[5, 10:35] = 0  # as much elsewhere
    # Half of the ink found is wanted, and of the line 26 pixels have ink at most one away.
    precision, recall = 1 / 2, 26 / 50
    f1 = 2 * precision * recall / (precision + recall)
    assert metrics.measure(found, wanted).ink_f1 == pytest.approx(f1)


def test_pages_without_ink_or_dark_strokes() -> None:
    blank = np.full((30, 30), 255, np.uint8)
    pale = np.full((30, 30), 210, np.uint8)  # ink, none of it dark
    assert metrics.measure(blank, blank).ink_f1 == 1
    figures = metrics.measure(blank, pale)
    assert (figures.ink_f1, figures.dark_mae) == (0, 0)
    assert (figures.mae, figures.tone) == (45, 45)
    c = (0.01 * 255) ** 2  # of two flat images only the term of luminance is left
    assert figures.ssim == pytest.approx((2 * 255 * 210 + c) / (255**2 + 210**2 + c))


def test_tone_does_not_ask_where_a_stroke_lies() -> None:
    a = page(60, 80, 3)
    assert metrics.measure(a[::-1, ::-1], a).tone == 0
    assert metrics.measure(a // 2, a).tone == pytest.approx((a - (a // 2).astype(int)).mean())


def test_similarity_agrees_with_the_definition_pixel_by_pixel() -> None:
    a, b = page(30, 30, 1), page(30, 30, 2)
    positions = np.arange(-5, 6)
    kernel = np.exp(-(positions**2) / 4.5)
    window = np.outer(kernel, kernel) / kernel.sum() ** 2
    wide_a, wide_b = (np.pad(x.astype(float), 5, mode="reflect") for x in (a, b))
    values = np.empty((30, 30))
    for y in range(30):
        for x in range(30):
            p, q = wide_a[y : y + 11, x : x + 11], wide_b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            c = (window * (p - mp) * (q - mq)).sum()
            values[y, x] = (
                (2 * mp * mq + 6.5025)
                * (2 * c + 58.5225)
                / ((mp**2 + mq**2 + 6.5025) * (vp + vq + 58.5225))
            )
    np.testing.assert_allclose(metrics.ssim_map(a, b), values, atol=1e-6)
    assert metrics.measure(a, b).ssim == pytest.approx(values.mean(), abs=1e-6)


def test_bands_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = page(203, 60, 4), page(203, 60, 5)
    whole = metrics.measure(a, b)
    monkeypatch.setattr(metrics, "_BAND_PIXELS", 1)  # the least height: the last has 3 rows
    assert vars(metrics.measure(a, b)) == pytest.approx(vars(whole), rel=1e-12)
    assert whole.ssim == pytest.approx(metrics.ssim_map(a, b).mean(), rel=1e-12)


def test_figures_are_rounded_for_a_manifest() -> None:
    figures = Metrics(1.23456, 2, 0.123449, 0, 5.00007, 6)
    assert metrics.rounded(figures) == {
        "mae": 1.2346, "psnr": 2, "ssim": 0.1234, "ink_f1": 0, "dark_mae": 5.0001, "tone": 6,
    }  # fmt: skip
