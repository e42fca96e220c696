from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from pictures import picture

from sketchify_rt import Sketchifier, models
from sketchify_rt.image import Gray
from sketchify_rt.models import Manifest
from sketchify_rt.options import ARITHMETICS
from sketchify_rt.runtime.openvino import OpenVinoRuntime
from training.cli import main
from training.export import halve_weights, inference_form, to_onnx, write
from training.model import UNet
from training.prepare import prepare
from training.quantize import unsign, widen_weights
from training.recipe import UNetConfig

pytestmark = pytest.mark.slow

TINY = UNetConfig(width=4, depth=1, unshuffle=2)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = (tmp_path_factory.mktemp(name) for name in ("pictures", "pages"))
    blocks = np.random.default_rng(0).integers(0, 256, (34, 40), np.uint8).repeat(8, 0).repeat(8, 1)
    cv2.imwrite(str(source / "0.png"), blocks)
    prepare(source, folder, val_share=0)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random U-Net and its manifest."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch
        graph = halve_weights(to_onnx(inference_form(UNet(TINY))))
    onnx.helper.set_model_props(graph, {"credit": "nobody"})
    onnx.save(graph, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = Manifest("tiny", sha256, TINY.stride, TINY.halo, 1, 1, {}, {}, "nobody", {})
    manifest.write(path.with_suffix(".json"))
    return path


def quantize(exported: Path, pages: Path, folder: Path) -> Path:
    """The path of a model in `folder`, quantized by the command."""
    for path in (exported, exported.with_suffix(".json")):
        shutil.copy(path, folder)
    path = folder / exported.name
    result = CliRunner().invoke(main, ["quantize", str(path), str(pages), "--crops", "4"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{path.with_suffix('.int8.onnx')}\n"
    return path


@pytest.fixture(scope="module")
def quantized(exported: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize(exported, pages, tmp_path_factory.mktemp("int8"))


def noise(*shape: int) -> Gray:
    return np.where(np.random.default_rng(1).random(shape) < 0.3, 0, 255).astype(np.uint8)


def test_the_same_pages_give_the_same_bytes(
    exported: Path, pages: Path, quantized: Path, tmp_path: Path
) -> None:
    again = models.load(str(quantize(exported, pages, tmp_path)))
    first = models.load(str(quantized))
    assert again.read("int8") == first.read("int8")
    assert again.manifest == first.manifest
    assert first.read() == exported.read_bytes()
    (told,) = onnx.load_model_from_string(first.read("int8")).metadata_props
    assert (told.key, told.value) == ("credit", "nobody")


def test_it_stays_near_the_floats(quantized: Path) -> None:
    model = models.load(str(quantized))
    page = noise(1, 64, 96)
    floats = OpenVinoRuntime(model, threads=2, precision="fp32")(page)
    levels = 255 * np.abs(OpenVinoRuntime(model, threads=2, precision="int8")(page) - floats)
    assert 0 < levels.mean() < 0.1 * 255 * floats.std()


def test_every_convolution_is_quantized_and_weights_have_seven_bits(quantized: Path) -> None:
    graph = onnx.load(quantized.with_suffix(".int8.onnx")).graph
    made = {node.output[0]: node for node in graph.node}
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type.startswith("Conv")]
    assert len(convolutions) == 8
    for node in convolutions:
        kernel = weights[made[node.input[1]].input[0]]
        assert kernel.dtype == np.int8
        assert 60 <= np.abs(kernel.astype(int)).max() <= 64
        source = made[node.input[0]]
        while source.op_type in ("Concat", "MaxPool"):
            source = made[source.input[0]]
        assert source.op_type == "DequantizeLinear"
    (entry,) = graph.input
    (exit_,) = graph.output
    for value in (entry, exit_):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        batch, channels, *sides = value.type.tensor_type.shape.dim
        assert channels.dim_value == 1
        assert all(dim.dim_param for dim in (batch, *sides))


def test_a_model_with_a_hint_stays_one(pages: Path, tmp_path: Path) -> None:
    config = UNetConfig(width=4, depth=1, norms=False, hint=True)
    torch.manual_seed(0)
    unet = UNet(config)
    unet.down[0][0].weight.data[:, -1].mul_(100)  # of the hint
    unet.head[0].weight.data.mul_(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch
        write(unet, tmp_path / "hinted.onnx", "nobody", {})
    (tmp_path / "int8").mkdir()
    path = str(quantize(tmp_path / "hinted.onnx", pages, tmp_path / "int8"))
    page = picture(531, 405)
    sketch = {
        (precision, hint): Sketchifier(path, device="cpu", precision=precision, hint=hint)(page)
        for precision in ARITHMETICS
        for hint in ("auto", "none", 0.6)
    }
    for (precision, hint), each in sketch.items():
        exact = sketch["fp32", hint].astype(int)
        assert np.abs(each - exact).mean() < 0.1 * exact.std()
        tiled = Sketchifier(path, device="cpu", precision=precision, hint=hint, tile=256)(page)
        np.testing.assert_array_equal(tiled, each)
    floats, int8 = (
        (sketch[precision, 0.6].astype(int) - sketch[precision, "none"]).ravel()
        for precision in ("fp32", "int8")
    )
    assert np.abs(floats).mean() > 1
    assert np.corrcoef(floats, int8)[0, 1] > 0.9  # 0.95


def test_bytes_without_a_sign_are_the_same_numbers() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        quantized (float[n] x) => (float[n] y)
        <float scale = {0.5}, int8 zero = {0}> {
            bytes = QuantizeLinear(x, scale, zero)
            y = DequantizeLinear(bytes, scale, zero)
        }""")
    x = np.array([-90, -64, -63.7, -0.3, 0, 0.26, 1, 63.5, 90], np.float32)
    (signed,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})
    unsign(model)
    onnx.checker.check_model(model, full_check=True)
    assert numpy_helper.to_array(model.graph.initializer[1]) == np.uint8(128)
    (unsigned,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(unsigned, signed)
    np.testing.assert_array_equal(signed, [-64, -64, -63.5, -0.5, 0, 0.5, 1, 63.5, 63.5])


def test_weights_are_widened_to_the_same_numbers(exported: Path) -> None:
    x = {"binary": noise(1, 1, 16, 24).astype(np.float32) / 255}
    model = onnx.load(exported)
    (before,) = onnx.reference.ReferenceEvaluator(model).run(None, x)
    wide = widen_weights(model)
    assert all(node.op_type != "Cast" for node in wide.graph.node)
    assert {w.data_type for w in wide.graph.initializer} == {onnx.TensorProto.FLOAT}
    (after,) = onnx.reference.ReferenceEvaluator(wide).run(None, x)
    np.testing.assert_array_equal(after, before)


def test_its_figures_are_recorded_beside_those_of_the_floats(
    quantized: Path, pages: Path, tmp_path: Path
) -> None:
    for path in quantized.parent.iterdir():
        shutil.copy(path, tmp_path)
    path = tmp_path / quantized.name
    before = models.load(str(path)).manifest
    words = ["evaluate", str(path), str(pages), "--int8", "--record"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    after = models.load(str(path)).manifest
    assert set(after.int8_metrics) >= {"ssim", "mae"}
    assert dataclasses.replace(after, int8_metrics={}) == before


def test_nothing_is_reported_and_nothing_written_to_the_home(
    exported: Path, pages: Path, tmp_path: Path
) -> None:
    home, folder = tmp_path / "home", tmp_path / "model"
    home.mkdir()
    folder.mkdir()
    for path in (exported, exported.with_suffix(".json")):
        shutil.copy(path, folder)
    code = """
import sys
def watch(event, arguments):
    if event.startswith("socket."):
        print(event, arguments)
sys.addaudithook(watch)
from training.cli import main
main(sys.argv[1:], standalone_mode=False)
assert "nncf" in sys.modules and "openvino_telemetry" not in sys.modules
"""
    # Python sees no sockets of C++, but ONNX Runtime's telemetry would leave files in the home.
    # Without CI, where NNCF keeps quiet by itself.
    done = subprocess.run(
        [sys.executable, "-c", code, "quantize", folder / exported.name, pages, "--crops", "1"],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == f"{folder / 'tiny.int8.onnx'}\n"
    assert list(home.rglob("*")) == []
