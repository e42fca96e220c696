from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sketchify_rt import ModelError, Sketchifier, models
from sketchify_rt.kernels import native
from sketchify_rt.metrics import measure
from sketchify_rt.models import Kind
from training.evaluate import blurred_binary
from training.model import UNet, flop_per_pixel
from training.recipe import UNetConfig


def copied(folder: Path) -> Path:
    shipped = models.load("lite").path
    for suffix in (".onnx", ".json", ".int8.onnx"):
        shutil.copy(shipped.with_suffix(suffix), folder)
    return folder / shipped.name


def test_the_shipped_model_is_what_its_manifest_says() -> None:
    assert models.available_models() == ("lite",)
    model = models.load("lite")
    manifest = model.manifest
    assert manifest.name == "lite"
    assert manifest.takes_hint
    for kind in get_args(Kind):
        assert len(model.read(kind)) == model.file(kind).stat().st_size
    config = UNetConfig(**manifest.architecture)
    assert (manifest.stride, manifest.halo) == (config.stride, config.halo)
    assert manifest.gflop_per_megapixel == pytest.approx(flop_per_pixel(config) / 1e3)
    assert manifest.parameters == sum(p.numel() for p in UNet(config).parameters())
    assert "David Revoy" in manifest.credit
    assert "CC BY 4.0" in manifest.credit
    card = model.path.with_suffix(".md").read_text(encoding="utf-8")
    for figures in manifest.metrics, manifest.int8_metrics:
        assert f"{figures['ssim']:.3f} [" in card
        assert f"{figures['dark_mae']:.1f} [" in card


def test_lite_is_light_and_good() -> None:
    manifest = models.load("lite").manifest
    assert manifest.gflop_per_megapixel <= 50
    assert manifest.metrics["ssim"] >= 0.82
    assert manifest.metrics["ink_f1"] >= 0.92
    assert manifest.metrics["dark_mae"] <= 44
    assert manifest.metrics["tone"] <= 5
    assert models.load("lite").path.stat().st_size < 4e6


def test_lite_suits_tensorrt() -> None:
    width = models.load("lite").manifest.architecture["width"]
    graph = onnx.load(models.load("lite").path).graph
    weights = sorted(tuple(i.dims[:2]) for i in graph.initializer if i.dims[-2:] == [3, 3])
    assert weights.count((width, 2 * width)) == 1  # the finest level's merge
    assert weights[-1] == (4 * width, 4 * width)  # the bottom
    assert all(_group(node) == 1 for node in graph.node if node.op_type == "Conv")


def _group(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def test_the_int8_form_of_lite_is_half_as_large_and_as_good() -> None:
    model = models.load("lite")
    manifest = model.manifest
    assert len(model.read("int8")) < 0.55 * len(model.read())
    assert manifest.int8_metrics["ssim"] >= manifest.metrics["ssim"] - 0.003
    assert manifest.int8_metrics["ink_f1"] >= manifest.metrics["ink_f1"] - 0.003


def test_the_int8_form_suits_tensorrt_as_well() -> None:
    # TensorRT knows int8 without a zero point alone; 128 in uint8 is that.
    model = onnx.load(models.load("lite").file("int8"))
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    quantized, kernels = {}, {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (weights[name] for name in node.input[1:])
            assert scale.shape == zero.shape == ()
            assert zero.dtype == np.uint8
            assert zero in (0, 128)
            quantized[node.output[0]] = scale, zero
        elif node.op_type == "DequantizeLinear" and node.input[0] in weights:
            values, scales, zeros = (weights[name] for name in node.input)
            (axis,) = (a.i for a in node.attribute if a.name == "axis")
            assert values.dtype == zeros.dtype == np.int8
            assert scales.shape == (values.shape[axis],)
            assert not zeros.any()
            kernels[node.output[0]] = axis
        elif node.op_type == "DequantizeLinear":
            assert (*(weights[name] for name in node.input[1:]),) == quantized[node.input[0]]
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(convolutions) == 13
    for node in convolutions:
        assert kernels.pop(node.input[1]) == (node.op_type == "ConvTranspose")  # of the outputs
    assert not kernels
    known = {"Concat", "DepthToSpace", "MaxPool", "Relu", "Resize", "Sigmoid"}
    others = {node.op_type for node in graph.node} - {n.op_type for n in convolutions}
    assert others == known | {"DequantizeLinear", "QuantizeLinear"}


def test_a_concatenation_joins_what_has_one_scale() -> None:
    # Other scales would be a pass over both of its inputs.
    graph = onnx.load(models.load("lite").file("int8")).graph
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    joined = [node for node in graph.node if node.op_type == "Concat"]
    assert len(joined) == 3
    for node in joined:
        scales = {float(weights[made[name].input[1]]) for name in node.input}
        assert len(scales) == 1


def test_a_model_without_an_int8_form_says_how_to_make_one(tmp_path: Path) -> None:
    path = copied(tmp_path)
    manifest = path.with_suffix(".json")
    fields = json.loads(manifest.read_text())
    before_int8 = {name: fields[name] for name in fields if not name.startswith("int8")}
    manifest.write_text(json.dumps(before_int8))
    model = models.load(str(path))
    assert model.read() == path.read_bytes()
    with pytest.raises(ModelError, match=r"lite\.onnx: has no INT8 form\. To make one: pyth"):
        model.read("int8")


def test_lite_beats_the_baseline_on_a_page_it_has_not_seen() -> None:
    page = cv2.imread(str(Path(__file__).parents[1] / "samples/lake.jpg"), 0)
    gray = np.asarray(page, np.uint8)
    target = native.dodge(gray)
    lite = measure(Sketchifier(precision="fp32")(gray), target)
    baseline = measure(blurred_binary(gray), target)
    assert lite.ssim > baseline.ssim + 0.05
    assert lite.mae < baseline.mae


def test_the_hint_tells_ink_from_paint() -> None:
    # Of a model without a hint the page in ink had a dark MAE of 81, and the painting 36.
    for name, most in (("pages/001.png", 50), ("still-life.jpg", 40)):
        page = cv2.imread(str(Path(__file__).parents[1] / "samples" / name), cv2.IMREAD_GRAYSCALE)
        gray = np.asarray(page, np.uint8)
        target = native.dodge(gray)
        for precision in ("fp32", "int8"):
            told, untold = (
                measure(Sketchifier(precision=precision, hint=hint)(gray), target)
                for hint in ("auto", "none")
            )
            assert told.dark_mae < min(most, untold.dark_mae - 5), (name, precision)
            assert told.ink_f1 > max(0.88, untold.ink_f1), (name, precision)


def test_pencils_draw_lines_of_one_tone_in_their_order() -> None:
    page = np.full((300, 400), 255, np.uint8)
    page[40:44, 20:380] = 0
    page[100:250, 100:300] = 0
    lines, areas = [], []
    for darkness in (0.15, 0.35, 0.6, 1.0):
        sketch = Sketchifier(hint=darkness, precision="fp32")(page)
        line = sketch[41:43, 40:360].min(axis=0).astype(int)
        assert line.max() - line.min() <= 45  # it does not fade away along its length
        lines.append(float(np.median(line)))
        area = sketch[130:220, 130:270]
        assert area.max() - area.min() <= 12
        areas.append(int(area.max()))
    assert lines == sorted(lines, reverse=True)
    assert lines[0] > lines[-1] + 150
    assert areas == sorted(areas, reverse=True)
    assert areas[1] <= 60


def test_a_model_anywhere_is_found_by_its_path(tmp_path: Path) -> None:
    path = copied(tmp_path)
    assert models.load(str(path)).read() == path.read_bytes()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"model must be one of .*lite.* got 'lighter'"):
        models.load("lighter")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=re.escape(f"{tmp_path}/none.onnx: there is no such model")
    ):
        models.load(f"{tmp_path}/none.onnx")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_changed_or_missing_file_is_found(tmp_path: Path, kind: Kind) -> None:
    model = models.load(str(copied(tmp_path)))
    path = model.file(kind)
    data = bytearray(path.read_bytes())
    assert model.read(kind) == data
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"{path}: .* SHA-256 differs"):
        model.read(kind)
    path.unlink()
    with pytest.raises(ModelError, match=rf"{path}: cannot be read"):
        model.read(kind)


def test_a_missing_or_broken_manifest_is_named(tmp_path: Path) -> None:
    path = copied(tmp_path)
    manifest = path.with_suffix(".json")
    fields = json.loads(manifest.read_text())
    for text in ("{", "[]", json.dumps(fields | {"colour": 3})):
        manifest.write_text(text)
        with pytest.raises(ModelError, match="is not a manifest"):
            models.load(str(path))
    manifest.unlink()
    with pytest.raises(ModelError, match=r"lite\.json: the manifest .* cannot be read"):
        models.load(str(path))


@pytest.fixture(scope="module")
def painted() -> tuple[Sketchifier, list[np.ndarray]]:
    """The shipped model, and grays of the project's own pictures."""
    paths = sorted(Path("samples").glob("*.*g")) + sorted(Path("samples/pages").iterdir())
    grays = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    return Sketchifier(device="cpu", precision="fp32"), [gray for gray in grays if gray is not None]


def test_lite_leaves_no_pattern_of_its_strides(
    painted: tuple[Sketchifier, list[np.ndarray]],
) -> None:
    # A checkerboard or a grid is an error that depends on where a pixel lies in its cell.
    sketchify, grays = painted
    stride = models.load("lite").manifest.stride
    errors = np.zeros((stride, stride))
    for gray in grays:
        error = sketchify(gray).astype(np.float64) - native.dodge(gray)
        rows, columns = (length // stride for length in gray.shape)
        cells = error[: rows * stride, : columns * stride].reshape(rows, stride, columns, stride)
        errors += cells.mean(axis=(0, 2)) / len(grays)
    assert errors.std() < 0.8  # levels; on paintings 0.2 to 0.3, on a page in ink 1.2


def test_lite_paints_no_halo_at_the_border_of_a_picture(
    painted: tuple[Sketchifier, list[np.ndarray]],
) -> None:
    # The same pixels, once 16 from the border and once inside.
    sketchify, grays = painted
    cut, whole = [], []
    for gray in grays:
        inner = slice(64, gray.shape[0] - 64), slice(64, gray.shape[1] - 64)
        piece = np.ascontiguousarray(gray[inner])
        rim = np.ones(piece.shape, bool)
        rim[16:-16, 16:-16] = False
        for sketch, target, errors in (
            (sketchify(piece), native.dodge(piece), cut),
            (sketchify(gray)[inner], native.dodge(gray)[inner], whole),
        ):
            errors.append(np.abs(sketch.astype(int) - target)[rim].mean())
    assert np.mean(cut) < 1.1 * np.mean(whole)
