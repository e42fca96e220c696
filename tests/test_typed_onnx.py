"""Strongly typed ONNX, run by ONNX Runtime on the processor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from sketchify_rt import ModelError, models
from sketchify_rt.models.crops import crops
from sketchify_rt.tensorrt import record
from sketchify_rt.tensorrt.typed_onnx import typed

Precision = Literal["fp16", "fp32", "int8"]
FP16, FP32, INT8, UINT8 = (
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.INT8,
    TensorProto.UINT8,
)

# Operators and types from docs/operators.md of github.com/onnx/onnx-tensorrt, TensorRT 10.15, which
# takes opsets 9 to 24; with restrictions those are tested below. TensorRT 11 takes them up to 25
# (docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html).
SUPPORTED = {
    "Cast": {FP32, FP16, UINT8},  # uint8 as network input or output only
    "Clip": {FP32, FP16},
    "Concat": {FP32, FP16},
    "Conv": {FP32, FP16},
    "ConvTranspose": {FP32, FP16},
    "DepthToSpace": {FP32, FP16},
    "DequantizeLinear": {INT8},  # zero point 0
    "Div": {FP32, FP16},
    "MaxPool": {FP32, FP16},  # no dilations
    "QuantizeLinear": {FP32, FP16},  # zero point 0
    "Relu": {FP32, FP16},
    "Resize": {FP32, FP16},  # nearest with floor, asymmetric; its scales are FP32
    "Sigmoid": {FP32, FP16},
}


def read(precision: Precision) -> bytes:
    return models.load("lite").read("int8" if precision == "int8" else "float")


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    """Of a model or its path."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, binary: np.ndarray, **more: np.ndarray) -> np.ndarray:
    """Tones of float32 values 0..1 from a source model, which takes inputs of 0..1."""
    feeds = {"binary": binary, **more}
    (tones,) = session(model).run(None, {k: v / np.float32(255) for k, v in feeds.items()})
    return np.asarray(tones)


class Layers:
    """Each node in a session of its own, so that each value is rounded to its type.

    In one session ONNX Runtime computes FP16 in FP32 and leaves out the roundings between layers.
    """

    def __init__(self, data: bytes) -> None:
        model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data))
        graph = model.graph
        self.nodes = graph.node
        self.weights = {weight.name: weight for weight in graph.initializer}
        self.kinds = {weight.name: weight.data_type for weight in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self.kinds[value.name] = value.type.tensor_type.elem_type
        self.opsets = model.opset_import
        self.ir_version = model.ir_version

    def kind(self, output: str) -> int:
        """The type that the node which gives this value computes in."""
        node = next(node for node in self.nodes if output in node.output)
        return self.kinds[node.input[0]]

    def __call__(self, binary: np.ndarray, **more: np.ndarray) -> np.ndarray:
        values: dict[str, Any] = {"binary": binary, **more}
        for node in self.nodes:
            names = list(dict.fromkeys(filter(None, node.input)))
            feeds = {name: values[name] for name in names if name in values}
            graph = helper.make_graph(
                [node],
                "layer",
                [helper.make_tensor_value_info(n, self.kinds[n], None) for n in feeds],
                [helper.make_tensor_value_info(n, self.kinds[n], None) for n in node.output],
                [self.weights[n] for n in names if n in self.weights],
            )
            layer = helper.make_model(graph, opset_imports=self.opsets, ir_version=self.ir_version)
            values |= zip(
                node.output, session(layer.SerializeToString()).run(None, feeds), strict=True
            )
        return np.asarray(values["tones"])


def model(
    nodes: Sequence[NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    shape: Sequence[int | str] = ("n", 1, "h", "w"),
    kinds: tuple[int, int] = (FP32, FP32),
    opset: int = 20,
    names: tuple[str, str] = ("binary", "tones"),
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "made up",
        [helper.make_tensor_value_info(names[0], kinds[0], shape)],
        [helper.make_tensor_value_info(names[1], kinds[1], ["n", None, "h", "w"])],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return data


RNG = np.random.default_rng(4)
BINARY = np.where(RNG.random((3, 1, 24, 40)) < 0.4, 0, 255).astype(np.uint8)


def kernel(*shape: int, size: float = 0.3) -> np.ndarray:
    return RNG.normal(0, size, shape).astype(np.float32)


def conv(source: str, weight: str, output: str, **attributes: Any) -> NodeProto:
    return make_node("Conv", [source, weight], [output], pads=[1, 1, 1, 1], **attributes)


def levels(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.float32) - other.astype(np.float32)) * 255


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    binary = crops()[1:6, None]  # leaves, hatching, hair, sky, a page
    hint = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (5, 1, 64, 1))  # from left to right
    return {"binary": binary, "hint": hint}


@pytest.fixture(scope="module")
def original(pictures: dict[str, np.ndarray]) -> np.ndarray:
    return run(read("fp32"), **pictures)


# Largest and mean difference, in levels of 255. FP16 tones near white are 0.12 levels apart.
@pytest.mark.parametrize(
    ("precision", "largest", "mean"),
    [("fp32", 1e-3, 1e-4), ("fp16", 2.0, 0.05), ("int8", 160.0, 1.5)],
)
def test_lite_stays_what_it_is(
    precision: Precision,
    largest: float,
    mean: float,
    pictures: dict[str, np.ndarray],
    original: np.ndarray,
) -> None:
    tones = Layers(typed(read(precision), precision))(**pictures)
    assert tones.dtype == (np.float32 if precision == "fp32" else np.float16)
    assert tones.shape == pictures["binary"].shape
    off = levels(tones, original)
    assert off.max() <= largest
    assert off.mean() <= mean


@pytest.mark.parametrize("precision", ["fp16", "fp32", "int8"])
def test_tensorrt_supports_what_lite_becomes(precision: Precision) -> None:
    data = typed(read(precision), precision)
    graph = onnx.load_model_from_string(data)
    layers = Layers(data)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    for node in layers.nodes:
        assert layers.kinds[node.input[0]] in SUPPORTED[node.op_type], node.name
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert attributes.get("group", 1) == 1
        assert attributes.get("dilations", [1, 1]) == [1, 1]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            # A scale has the type of what is quantized, and decides that of what comes back.
            _, scale, zero = node.input
            real = node.input[0] if node.op_type == "QuantizeLinear" else node.output[0]
            assert layers.kinds[scale] == layers.kinds[real] == FP16
            assert (numpy_helper.to_array(layers.weights[scale]) > 0).all()
            assert layers.kinds[zero] == INT8
            assert not numpy_helper.to_array(layers.weights[zero]).any()
    inputs = ["binary", "hint"]
    assert [node.input[0] for node in layers.nodes if node.op_type == "Cast"] == inputs
    assert [name for name, kind in layers.kinds.items() if kind == UINT8] == inputs
    (resize,) = (node for node in layers.nodes if node.op_type == "Resize")
    assert layers.kinds[resize.input[0]] == layers.kinds["tones"]
    assert layers.kinds[resize.input[2]] == FP32
    assert numpy_helper.to_array(layers.weights[resize.input[2]]).tolist() == [1, 1, 8, 8]
    attributes = {a.name: helper.get_attribute_value(a) for a in resize.attribute}
    assert attributes["mode"] == b"nearest"
    assert attributes["nearest_mode"] == b"floor"
    assert attributes["coordinate_transformation_mode"] == b"asymmetric"
    assert layers.kinds["tones"] == (FP32 if precision == "fp32" else FP16)
    names = [node.name for node in layers.nodes]
    assert all(names)
    assert len(set(names)) == len(names)
    shapes = [value.type.tensor_type.shape.dim for value in graph.graph.input]
    assert [[dim.dim_param or dim.dim_value for dim in shape] for shape in shapes] == [
        ["batch", 1, "height", "width"],
        ["batch", 1, "rows", "columns"],
    ]
    assert [value.name for value in graph.graph.input] == inputs


def test_weights_are_not_changed_beyond_their_type() -> None:
    source = onnx.load_model_from_string(read("fp16")).graph
    weights = {w.name.removesuffix(".fp16"): w for w in source.initializer}
    (scales,) = (node.input[2] for node in source.node if node.op_type == "Resize")
    del weights[scales]
    for precision, dtype in (("fp16", np.float16), ("fp32", np.float32)):
        graph = onnx.load_model_from_string(typed(read("fp16"), precision)).graph
        made = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
        assert made.keys() - weights.keys() == {"binary.levels", "hint.levels", scales}
        for name, weight in weights.items():
            assert made[name].dtype == dtype
            np.testing.assert_array_equal(made[name], numpy_helper.to_array(weight))


KERNEL = RNG.integers(-100, 100, (1, 1, 3, 3), np.int8)
SHIFTED = KERNEL.astype(np.int16)
GRAY = RNG.integers(0, 256, (2, 1, 24, 40), np.uint8)


def quantized(zero: np.ndarray, scale: float, values: np.ndarray, zeros: np.ndarray) -> bytes:
    """A convolution of quantized pixels; its weights are of 0.01 times `values` less `zeros`."""
    weights = {
        "scale": np.array(scale, np.float32),
        "zero": np.array(zero),
        "values": values,
        "scales": np.array([0.01], np.float32),
        "zeros": zeros,
        "bias": np.array([0.05], np.float32),
    }
    nodes = [
        make_node("QuantizeLinear", ["binary", "scale", "zero"], ["q"]),
        make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        make_node("DequantizeLinear", ["values", "scales", "zeros"], ["kernel"], axis=0),
        make_node("Conv", ["x", "kernel", "bias"], ["tones"], pads=[1, 1, 1, 1]),
    ]
    return model(nodes, weights)


@pytest.mark.parametrize(
    ("zero", "scale", "growth", "clips"),
    [
        (np.int8(0), 1 / 127, 1, []),
        (np.uint8(128), 1 / 127, 1, []),
        (np.uint8(0), 1 / 255, 255 / 127, []),  # pixels are not below zero
        (np.int8(-128), 1 / 255, 255 / 127, []),
        (np.uint8(51), 1 / 204, 204 / 127, ["Clip"]),
    ],
)
def test_quantizers_become_symmetric(
    zero: np.ndarray, scale: float, growth: float, clips: list[str]
) -> None:
    source = quantized(zero, scale, KERNEL, np.zeros(1, np.int8))
    layers = Layers(typed(source, "int8"))
    by_type = [node.op_type for node in layers.nodes]
    assert by_type == ["Cast", "Div", *clips, "QuantizeLinear", *["DequantizeLinear"] * 2, "Conv"]
    for node in layers.nodes[-4:-2]:
        made = numpy_helper.to_array(layers.weights[node.input[1]])
        assert made == np.float16(np.float32(scale) * np.float32(growth))
        assert numpy_helper.to_array(layers.weights[node.input[2]]) == np.int8(0)
    kernel = layers.weights[layers.nodes[-2].input[0]]
    np.testing.assert_array_equal(numpy_helper.to_array(kernel), KERNEL)
    steps = scale * (growth + 1) / 2  # what both roundings may be apart
    most = 255 * np.abs(0.01 * SHIFTED).sum() * steps
    off = levels(layers(GRAY), run(source, GRAY))
    assert off.max() < most
    assert off.mean() < most / 4


@pytest.mark.parametrize(("zero", "exact"), [(128, True), (100, False)])
def test_weights_become_symmetric(zero: int, exact: bool) -> None:
    source = quantized(
        np.int8(0), 1 / 127, (SHIFTED + zero).astype(np.uint8), np.array([zero], np.uint8)
    )
    layers = Layers(typed(source, "int8"))
    values, scale, _ = (numpy_helper.to_array(layers.weights[n]) for n in layers.nodes[-2].input)
    wanted = 0.01 * SHIFTED
    if exact:
        np.testing.assert_array_equal(values, KERNEL)
    assert np.abs(values * scale.astype(np.float32) - wanted).max() < (1e-3 if exact else 0.007)


def test_scales_are_ones_that_fp16_can_hold() -> None:
    """Weights that are all small have a small scale."""
    source = onnx.load_model_from_string(
        quantized(np.int8(0), 1 / 127, KERNEL, np.zeros(1, np.int8))
    )
    (scales,) = (weight for weight in source.graph.initializer if weight.name == "scales")
    scales.CopyFrom(numpy_helper.from_array(np.array([1e-6], np.float32), "scales"))
    layers = Layers(typed(source.SerializeToString(), "int8"))
    values, scale, _ = (numpy_helper.to_array(layers.weights[n]) for n in layers.nodes[-2].input)
    np.testing.assert_array_equal(scale, np.float16([2**-14]))
    assert np.abs(values * 2.0**-14 - KERNEL * 1e-6).max() <= 2**-15


RELU = [make_node("Relu", ["binary"], ["tones"])]
QUANTIZERS = [
    make_node("QuantizeLinear", ["binary", "scale", "zero"], ["q"]),
    make_node("DequantizeLinear", ["q", "scale", "zero"], ["tones"]),
]
Q = {"scale": np.array(1, np.float32), "zero": np.array(0, np.int8)}


@pytest.mark.parametrize(
    ("data", "precision", "message"),
    [
        (b"no ONNX", "fp16", "not an ONNX file"),
        (b"", "fp16", "not valid ONNX"),
        (
            model([make_node("Relu", ["x"], ["y"])], names=("x", "y")),
            "fp16",
            r"got \['x'\] and \['y'\], expected 'binary', maybe 'hint', and 'tones'",
        ),
        (model(RELU, kinds=(FP32, FP16)), "fp16", "not valid ONNX"),
        (model([make_node("Sharpen", ["binary"], ["tones"])]), "fp16", "not valid ONNX .*Sharpen"),
        (
            model([make_node("Gelu", ["binary"], ["tones"], name="g", domain="com.microsoft")]),
            "fp16",
            r"operator Gelu \('g'\) is not one that .* `python -m training export` and `quantize`",
        ),
        (model(QUANTIZERS, Q), "fp16", r"operator QuantizeLinear \('q'\) is not one that"),
        (
            model(QUANTIZERS, {**Q, "zero": np.array(0, np.int16)}, opset=21),
            "int8",
            r"QuantizeLinear \('q'\) needs a constant scale and a zero point of int8 or uint8",
        ),
    ],
)
def test_what_is_no_u_net_is_refused(data: bytes, precision: Precision, message: str) -> None:
    with pytest.raises(ModelError, match=f"^my.onnx: .*{message}"):
        typed(data, precision, "my.onnx")


def described(data: bytes) -> str:
    """All of a graph that TensorRT sees, in words that stay the same in every version of onnx."""
    found = onnx.load_model_from_string(data)
    values = [
        (value.name, kind.elem_type, [dim.dim_param or dim.dim_value for dim in kind.shape.dim])
        for value in (*found.graph.input, *found.graph.output)
        for kind in [value.type.tensor_type]
    ]
    nodes = [
        (
            node.op_type,
            list(node.input),
            list(node.output),
            sorted((a.name, str(helper.get_attribute_value(a))) for a in node.attribute),
        )
        for node in found.graph.node
    ]
    weights = sorted(
        (weight.name, weight.data_type, numpy_helper.to_array(weight).tolist())
        for weight in found.graph.initializer
    )
    opsets = [(entry.domain, entry.version) for entry in found.opset_import]
    return json.dumps([values, nodes, weights, opsets])


def test_another_graph_needs_another_format() -> None:
    """If this fails, raise `record.FORMAT` and write the new pair here.

    Engines of the old graphs are then refused and built again.
    """
    ramp = np.linspace(-1, 1, 36, dtype=np.float32)
    weights = {"first": ramp.reshape(4, 1, 3, 3), "last": ramp.reshape(1, 4, 3, 3)}
    nodes = [
        conv("binary", "first", "x"),
        make_node("Relu", ["x"], ["y"]),
        conv("y", "last", "logits"),
        make_node("Sigmoid", ["logits"], ["tones"]),
    ]
    floats = model(nodes, weights)
    values = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    ints = quantized(np.uint8(51), 1 / 204, values, np.array([4], np.uint8))
    graphs = [typed(floats, "fp16"), typed(floats, "fp32"), typed(ints, "int8")]
    total = hashlib.sha256("".join(map(described, graphs)).encode()).hexdigest()
    assert (record.FORMAT, total[:16]) == (2, "71769782dd36473d")
