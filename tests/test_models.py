from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from sketchify_rt import ModelError, Sketchifier, models
from sketchify_rt.kernels import native
from training.evaluate import blurred_binary
from training.metrics import measure
from training.model import UNet, UNetConfig, flop_per_pixel


def copied(folder: Path) -> Path:
    shipped = models.load("lite").path
    for path in (shipped, shipped.with_suffix(".json")):
        shutil.copy(path, folder)
    return folder / shipped.name


def test_every_shipped_model_is_what_its_manifest_says() -> None:
    assert "lite" in models.names()
    for name in models.names():
        model = models.load(name)
        assert model.manifest.name == name
        assert len(model.read()) == model.path.stat().st_size
        assert model.manifest.halo > 0
        assert model.manifest.stride > 0


def test_lite_is_light_good_and_credited() -> None:
    manifest = models.load("lite").manifest
    assert manifest.gflop_per_megapixel <= 50
    assert manifest.metrics["ssim"] >= 0.80
    assert manifest.metrics["ink_f1"] >= 0.84
    assert "David Revoy" in manifest.credit
    assert "CC BY 4.0" in manifest.credit
    assert models.load("lite").path.stat().st_size < 4e6


def test_the_manifest_says_what_the_model_is() -> None:
    manifest = models.load("lite").manifest
    config = UNetConfig(**manifest.architecture)
    assert (manifest.stride, manifest.halo) == (config.stride, config.halo)
    assert manifest.gflop_per_megapixel == pytest.approx(flop_per_pixel(config) / 1e3)
    assert manifest.parameters == sum(p.numel() for p in UNet(config).parameters())
    graph = onnx.load(models.load("lite").path).graph
    weights = sorted(tuple(i.dims[:2]) for i in graph.initializer if i.dims[-2:] == [3, 3])
    w = config.width
    assert weights.count((w, 2 * w)) == 1  # the finest level's merge
    assert weights[-1] == (4 * w, 4 * w)  # the bottom
    assert all(_group(node) == 1 for node in graph.node if node.op_type == "Conv")


def _group(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def test_lite_beats_the_baseline_on_a_page_it_has_not_seen() -> None:
    page = cv2.imread(str(Path(__file__).parents[1] / "samples/lake.jpg"), 0)
    gray = np.asarray(page, np.uint8)
    target = native.dodge(gray)
    lite = measure(Sketchifier(precision="fp32")(gray), target)
    baseline = measure(blurred_binary(gray), target)
    assert lite.ssim > baseline.ssim + 0.05
    assert lite.mae < baseline.mae


def test_a_model_anywhere_is_found_by_its_path(tmp_path: Path) -> None:
    path = copied(tmp_path)
    assert models.load(str(path)).read() == path.read_bytes()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no model 'lighter'; shipped are: .*lite"):
        models.load("lighter")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path}/none.onnx: no such model file")):
        models.load(f"{tmp_path}/none.onnx")


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    path = copied(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        models.load(str(path)).read()


def test_a_missing_or_broken_manifest_is_named(tmp_path: Path) -> None:
    path = copied(tmp_path)
    manifest = path.with_suffix(".json")
    fields = json.loads(manifest.read_text())
    for text in ("{", "[]", json.dumps(fields | {"colour": 3})):
        manifest.write_text(text)
        with pytest.raises(ModelError, match="not a manifest"):
            models.load(str(path))
    manifest.unlink()
    with pytest.raises(ModelError, match=r"lite\.json: the manifest .* cannot be read"):
        models.load(str(path))
