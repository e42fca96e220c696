"""Limits fall where memory was short, and rise again where it is not."""

from __future__ import annotations

import logging

import pytest

from sketchify_rt.limits import Limits


def succeed(limits: Limits, times: int) -> int | None:
    for _ in range(times):
        limits.batch_succeeded()
    return limits.pixels


def test_pixels_fall_by_half_and_rise_again() -> None:
    limits = Limits("gpu", 1000, 640)
    assert succeed(limits, 100) == 1000
    limits.batch_failed(900)
    assert limits.pixels == 450
    limits.batch_failed(900)  # of another thread, begun before
    assert limits.pixels == 450
    assert succeed(limits, 15) == 450
    assert succeed(limits, 1) == 900
    assert succeed(limits, 16) == 1000  # no more than there was


def test_each_failure_doubles_the_patience_and_warns_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits("gpu", None, 640)
    with caplog.at_level(logging.WARNING):
        limits.batch_failed(4_000_000)
        limits.batch_failed(1_000_000)
    assert caplog.messages == ["gpu is out of memory: going on with 2 megapixels at a time"]
    assert succeed(limits, 31) == 500_000
    assert succeed(limits, 1) == 1_000_000


def test_one_image_is_always_tried() -> None:
    limits = Limits("gpu", None, 640)
    limits.batch_failed(0)
    assert limits.pixels == 1


def test_tiles_fall_by_half_down_to_the_models_least() -> None:
    limits = Limits("gpu", None, 1000)
    assert limits.tile_failed(1000, 400)
    assert limits.tile == 500
    assert limits.tile_failed(1000, 400)  # another thread has
    assert limits.tile == 500
    assert limits.tile_failed(500, 400)
    assert limits.tile == 400
    assert not limits.tile_failed(400, 400)
