"""The crops that engines are verified on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sketchify_rt.models.crops import FILE, crops


def test_crops_are_binary_small_and_of_many_kinds() -> None:
    found = crops()
    assert found.shape == (8, 512, 512)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 255}
    ink = (found == 0).mean(axis=(1, 2))
    assert ink.min() < 0.05  # empty
    assert ink.max() > 0.35  # full
    assert FILE.stat().st_size < 120_000


def test_cutting_again_gives_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from samples.draw.crops import cut

    # Other versions of the decoders round some levels otherwise, and so a pixel may turn over.
    assert (cut() != crops()).mean() < 1e-3
