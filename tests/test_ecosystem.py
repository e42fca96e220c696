"""docs/ecosystem.md: the model and the package within other tools."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from pictures import picture

from sketchify_rt import Sketchifier, models
from sketchify_rt.models import Kind

PAGE = Path(__file__).parents[1] / "docs/ecosystem.md"


def example(heading: str) -> str:
    """The first Python code below a heading of the page."""
    below = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1]
    found = re.search(r"```python\n(.*?)```", below, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_shipped_model_tells_how_it_is_used(kind: Kind) -> None:
    model = models.load("lite")
    told = {entry.key: entry.value for entry in onnx.load(model.file(kind)).metadata_props}
    manifest = model.manifest
    assert told["credit"] == manifest.credit
    assert (told["stride"], told["halo"]) == (str(manifest.stride), str(manifest.halo))
    assert told["model_license"] == "Apache-2.0"
    assert f"H, W multiples of {manifest.stride}" in told["input"]
    assert "ADAPTIVE_THRESH_GAUSSIAN_C, THRESH_BINARY, 9, 2), 3)" in told["input_recipe"]
    assert {"description", "output", "output_recipe"} <= set(told)


def test_onnx_runtime_and_opencv_alone_give_the_sketch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gray = picture(203, 318, 4)  # no multiples of the stride
    cv2.imwrite("page.png", gray)
    (tmp_path / "lite.onnx").symlink_to(models.load("lite").path)
    exec(example("The model alone"), {})
    sketch = cv2.imread("sketch.png", cv2.IMREAD_UNCHANGED)
    ours = Sketchifier(precision="fp32", device="cpu")(gray)
    assert sketch.shape == gray.shape
    assert np.ptp(ours) > 100
    assert np.abs(sketch.astype(int) - ours).max() <= 1
