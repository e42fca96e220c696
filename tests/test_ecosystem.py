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
from sketchify_rt.options import Hint

PAGE = Path(__file__).parents[1] / "docs/ecosystem.md"


def examples(heading: str) -> list[str]:
    """The Python code below a heading of the page."""
    below = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", below, re.DOTALL)


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
    assert "(N, 1, H / 8, W / 8), 0 not known" in told["hint"]
    assert {"description", "hint_recipe", "output", "output_recipe"} <= set(told)


@pytest.mark.parametrize("hint", [0.6, "auto"])
def test_onnx_runtime_and_opencv_alone_give_the_sketch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hint: Hint
) -> None:
    monkeypatch.chdir(tmp_path)
    gray = picture(203, 318, 4)  # no multiples of the stride
    cv2.imwrite("page.png", gray)
    (tmp_path / "lite.onnx").symlink_to(models.load("lite").path)
    code, of_the_page = examples("The model alone")
    if hint == "auto":
        code = code.replace("(tones,) =", f"{of_the_page}(tones,) =")
    exec(code, {})
    sketch = cv2.imread("sketch.png", cv2.IMREAD_UNCHANGED)
    ours = Sketchifier(hint=hint, binary="threshold", precision="fp32", device="cpu")(gray)
    assert sketch.shape == gray.shape
    assert np.ptp(ours) > 100
    assert np.abs(sketch.astype(int) - ours).max() <= 1
