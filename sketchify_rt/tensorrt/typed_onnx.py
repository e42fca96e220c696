"""The ONNX file that TensorRT gets: strongly typed, so the graph itself says what is FP16.

TensorRT 11 has no flag for FP16 any more. onnxconverter-common and onnxruntime clip weights to
1e-7..1e4 in silence and take no graph with FP16 weights, as ours have; ModelOpt's AutoCast needs
data to calibrate with. Our models are U-Nets of a dozen operators, so one pass over the nodes does.
"""

from __future__ import annotations

from typing import NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sketchify_rt.errors import ModelError
from sketchify_rt.tensorrt.record import EnginePrecision

Array: TypeAlias = npt.NDArray[np.generic]

_SHAPES: dict[str, list[str | int]] = {
    "binary": ["batch", 1, "height", "width"],
    "hint": ["batch", 1, "rows", "columns"],
    "tones": ["batch", 1, "height", "width"],
}
# All of these compute in the type of their input. `Resize` has scales beside it, always FP32.
_OPERATORS = {"Concat", "Conv", "ConvTranspose", "DepthToSpace", "MaxPool", "Relu", "Resize"}
_OPERATORS |= {"Sigmoid"}
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_LEAST_NORMAL = 2**-14  # of FP16


def typed(model: bytes, precision: EnginePrecision, name: str = "the model") -> bytes:
    """Turn a model into the ONNX of a strongly typed network that computes the same.

    Args:
        model: ONNX of a U-Net as `python -m training export` writes it, or `quantize` for "int8":
            inputs "binary" (N, 1, H, W) and maybe "hint" (N, 1, H / 8, W / 8), output "tones"
            (N, 1, H, W), all floats, 0 to 1.
        precision: Type that the network computes in. "int8" is FP16 around the quantizers, which
            become symmetric, as TensorRT requires.
        name: The model's, for messages.

    Returns:
        ONNX that takes uint8, 0 to 255, and gives float16, or float32 for "fp32". No weight has a
        Cast.

    Raises:
        ModelError: The model is not such a U-Net.
    """
    try:
        source = onnx.load_model_from_string(model)
        onnx.checker.check_model(source, full_check=True)
        network = _Network(source, precision, name).model()
        onnx.checker.check_model(network, full_check=True)
    except DecodeError as error:
        raise ModelError(f"{name}: not an ONNX file ({error})") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name}: not valid ONNX ({error})") from error
    data: bytes = network.SerializeToString()
    return data


class _Network:
    """The typed network of a model, written node by node."""

    def __init__(self, source: onnx.ModelProto, precision: EnginePrecision, name: str) -> None:
        self._source = source
        self._name = name
        self._kind = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
        self._operators = _OPERATORS | (_QUANTIZERS if precision == "int8" else set())
        self._constants = {w.name: numpy_helper.to_array(w) for w in source.graph.initializer}
        self._inputs = [value.name for value in source.graph.input]
        # Values that are never below zero.
        self._positive = {f"{name}.scaled" for name in self._inputs}
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        outputs = [value.name for value in self._source.graph.output]
        if self._inputs not in (["binary"], ["binary", "hint"]) or outputs != ["tones"]:
            raise ModelError(
                f"{self._name}: wrong inputs or outputs: got {self._inputs} and {outputs}, "
                "expected 'binary', maybe 'hint', and 'tones'"
            )
        for name in self._inputs:
            self._scale(name)
        for node in self._source.graph.node:
            self._convert(node)
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            "typed",
            [value(name, TensorProto.UINT8, _SHAPES[name]) for name in self._inputs],
            [value("tones", self._kind, _SHAPES["tones"])],
            list(self._weights.values()),
        )
        opsets, version = self._source.opset_import, self._source.ir_version
        return helper.make_model(graph, opset_imports=opsets, ir_version=version)

    def _scale(self, name: str) -> None:
        """Turn an input of 0..255 into 0..1. Both ends are exact in FP16, too."""
        cast, scaled = f"{name}.cast", f"{name}.scaled"
        white = self._constant(f"{name}.levels", np.array(255, np.float32))
        self._append(helper.make_node("Cast", [name], [cast], f"Cast:{cast}", to=self._kind))
        self._append(helper.make_node("Div", [cast, white], [scaled], f"Div:{scaled}"))

    def _convert(self, node: NodeProto) -> None:
        if node.op_type == "Cast" and node.input[0] in self._constants:  # of a stored FP16 weight
            self._constants[node.output[0]] = self._constants[node.input[0]]
            return
        if node.op_type not in self._operators:
            self._fail(node, "is not one that this precision's U-Nets have")
        node.input[:] = [f"{n}.scaled" if n in self._inputs else n for n in node.input]
        if node.op_type in _QUANTIZERS:
            self._make_symmetric(node)
        elif node.op_type in ("Relu", "Sigmoid"):
            self._positive.update(node.output)
        self._append(node)

    def _make_symmetric(self, node: NodeProto) -> None:
        """Make a quantizer int8 without a zero point, of at least the range that it had.

        Bytes from zero up keep half of their levels; signed ones, also if they are stored from 128
        up, keep all of them.
        """
        source, output = node.input[0], node.output[0]
        scales, zeros = [self._constants.get(name) for name in [*node.input[1:], ""]][:2]
        if scales is None or zeros is None or zeros.dtype not in (np.int8, np.uint8):
            self._fail(node, "needs a constant scale and a zero point of int8 or uint8")
        limits, offset = np.iinfo(zeros.dtype), zeros.astype(np.float32)
        least, most = limits.min - offset, limits.max - offset
        # FP16 must hold the new scale.
        growth = np.maximum.reduce([least / -128, most / 127, _LEAST_NORMAL / scales])
        if node.op_type == "QuantizeLinear":
            # Quantizers leave out the ReLU before a range from zero up: what it cut stays cut.
            cut = least != 0 or source not in self._positive
            if np.any(most / 127 < growth) or np.any((least / -128 < growth) & cut):
                clipped = f"{output}.clipped"
                lower = self._constant(f"{clipped}.least", least * scales)
                upper = self._constant(f"{clipped}.most", most * scales)
                bounded = [source, lower, upper]
                self._append(helper.make_node("Clip", bounded, [clipped], f"Clip:{clipped}"))
                source = clipped
        elif source in self._constants:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            old = np.moveaxis(self._constants[source], axis, -1).astype(np.float32)
            new = np.rint((old - offset) / growth).astype(np.int8)
            source = self._constant(f"{output}.values", np.moveaxis(new, -1, axis))
        scale = self._constant(f"{output}.scale", scales * growth.astype(np.float32))
        zero = self._constant(f"{output}.zero", np.zeros(scales.shape, np.int8))
        node.input[:] = [source, scale, zero]

    def _constant(self, name: str, array: Array) -> str:
        self._constants[name] = array
        return name

    def _append(self, node: NodeProto) -> None:
        """Add a node and its weights; floats get the network's type, but for a Resize's scales."""
        for name in node.input:
            array = self._constants.get(name)
            if array is None:
                continue
            if node.op_type != "Resize" and np.issubdtype(array.dtype, np.floating):
                with np.errstate(over="ignore"):  # `verify` refuses an engine that gives NaN
                    array = array.astype(helper.tensor_dtype_to_np_dtype(self._kind))
            self._weights[name] = numpy_helper.from_array(array, name)
        self._nodes.append(node)

    def _fail(self, node: NodeProto, what: str) -> NoReturn:
        raise ModelError(
            f"{self._name}: operator {node.op_type} ({(node.name or node.output[0])!r}) {what}. "
            "`python -m training export` and `quantize` write models that TensorRT takes"
        )
