"""The ONNX that TensorRT gets: strongly typed, so that the graph itself says what is FP16.

Own code, because onnxconverter-common and onnxruntime clip weights to 1e-7..1e4 without a word,
take no graph that holds FP16 already, as ours do, and no scales; and ModelOpt's AutoCast wants data
to calibrate with. What remains is one pass over the nodes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sketchify_rt.errors import ModelError

Array = npt.NDArray[Any]

# The types of floats, as ONNX calls them.
_FLOATS: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.FLOAT: "float",
    TensorProto.DOUBLE: "double",
    TensorProto.BFLOAT16: "bfloat16",
}
_BYTES = (TensorProto.INT8, TensorProto.UINT8)

# What prepares weights in the files of exporters and quantizers.
_FOLDED = frozenset({"Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear"})

# Sums of many terms, squares and their inverses: in FP16 they overflow or lose what they are for.
_IN_FP32 = re.compile(
    ".*Normalization|Reduce.*|(Log)?Softmax|CumSum|Exp|GlobalAveragePool|LRN|Log|Pow|Reciprocal|"
    "Softplus|Sqrt"
)
_ROUNDING = 2**-10  # twice what rounding to FP16 changes a number in its range by, at most
_LEAST_NORMAL = 2**-14


def typed(
    model: bytes, precision: Literal["fp16", "fp32", "int8"], name: str = "the model"
) -> bytes:
    """The ONNX of a strongly typed network that computes the same.

    model: ONNX without external data; an input "binary" and an output "tones", floats of
    (N, 1, H, W), where N, H and W are dynamic; and if the model takes a hint a second input "hint",
    (N, 1, H / 8, W / 8). name: of the model, for errors.

    The result takes uint8, 0 to 255 for 0..1, and returns float16, or float32 for "fp32". "int8"
    takes a model with QuantizeLinear and DequantizeLinear nodes; they become symmetric as TensorRT
    demands, and what is around them FP16. What FP16 cannot hold stays FP32. No weight has a Cast.

    Raises ModelError where the file is no such ONNX, and where "int8" is asked for and there is
    nothing quantized, or the other way round.
    """
    try:
        source = _Source(onnx.load_model_from_string(model), name, precision == "int8")
        target = _Target(source, TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16)
        data: bytes = target.model().SerializeToString()
        return data
    except DecodeError as error:
        raise ModelError(f"{name}: not an ONNX file ({error})") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name}: not valid ONNX ({error})") from error


class _Source:
    """A model; what its weights alone decide is computed, and its quantizers are symmetric.

    inputs: "binary", and "hint" if there is one. nodes: those left. constants: weights by name.
    kinds: the type of each value's elements.
    """

    def __init__(self, model: onnx.ModelProto, name: str, int8: bool) -> None:
        self.name = name
        onnx.checker.check_model(model)
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self.kinds = {weight.name: weight.data_type for weight in graph.initializer}
        inputs = [value for value in graph.input if value.name not in self.kinds]
        for value in (*inputs, *graph.output, *graph.value_info):
            self.kinds[value.name] = value.type.tensor_type.elem_type
        self._check(inputs, graph.output)
        self.inputs = [value.name for value in inputs]
        versions = {entry.domain: entry.version for entry in model.opset_import}
        self.opset = versions.get("", versions.get("ai.onnx", 0))
        self.ir_version = model.ir_version
        self.nodes: list[NodeProto] = []
        self.constants = self._fold(graph, int8)
        self._quantizers(int8)

    def floats(self, name: str) -> bool:
        """Whether a value is of floats."""
        return self.kinds.get(name) in _FLOATS

    def fail(self, node: NodeProto, what: str) -> NoReturn:
        raise ModelError(
            f"{self.name}: operator {node.op_type} ({(node.name or node.output[0])!r}) {what}"
        )

    def _check(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> None:
        names = [value.name for value in inputs], [value.name for value in outputs]
        known = names[0] in (["binary"], ["binary", "hint"]) and names[1] == ["tones"]
        if not known or not all(map(self.floats, [*names[0], *names[1]])):
            raise ModelError(
                f"{self.name}: its inputs are {names[0]} and its outputs {names[1]}; it must have "
                "an input 'binary', maybe an input 'hint', and an output 'tones', all of floats"
            )
        for value in inputs:
            dims = value.type.tensor_type.shape.dim
            shape = [dim.dim_value if dim.HasField("dim_value") else "dynamic" for dim in dims]
            if shape != ["dynamic", 1, "dynamic", "dynamic"]:
                raise ModelError(
                    f"{self.name}: the shape of its input {value.name!r} is {shape}; it must be "
                    "(N, 1, H, W) with N, H and W dynamic; export it with dynamic axes"
                )

    def _fold(self, graph: onnx.GraphProto, int8: bool) -> dict[str, Array]:
        """Put aside the nodes that prepare weights; returns what they give, and other weights."""
        known = {weight.name for weight in graph.initializer}
        folded = []
        for node in graph.node:
            if node.domain not in ("", "ai.onnx"):
                self.fail(node, f"is not ONNX's own, but of {node.domain!r}")
            if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
                self.fail(node, "holds a graph; export the model without control flow")
            alone = node.op_type in _FOLDED and known.issuperset(filter(None, node.input))
            if alone and not (int8 and self._is_kernel(node)):
                folded.append(node)
                known.update(node.output)
            else:
                self.nodes.append(node)
        if not any("tones" in node.output for node in self.nodes):
            raise ModelError(f"{self.name}: its output does not depend on its input")
        used = {name for node in self.nodes for name in node.input}
        wanted = [node.output[0] for node in folded if node.output[0] in used]
        preparation = helper.make_graph(
            folded,
            "weights",
            [],
            [helper.make_empty_tensor_value_info(name) for name in wanted],
            graph.initializer,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        arrays = ReferenceEvaluator(helper.make_model(preparation, opset_imports=opsets)).run(
            None, {}
        )
        return {
            **{w.name: numpy_helper.to_array(w) for w in graph.initializer if w.name in used},
            **dict(zip(wanted, arrays, strict=True)),
        }

    def _is_kernel(self, node: NodeProto) -> bool:
        """Whether it dequantizes 8 bits; biases have 32, which TensorRT does not dequantize."""
        return node.op_type == "DequantizeLinear" and self.kinds[node.input[0]] in _BYTES

    def _quantizers(self, int8: bool) -> None:
        quantized = {n.output[0] for n in self.nodes if n.op_type == "QuantizeLinear"}
        if quantized and not int8:
            raise ModelError(
                f"{self.name}: it is quantized, and so must its engine be: with precision int8; "
                "for others take the model that it was made from"
            )
        if int8 and not quantized:
            raise ModelError(
                f"{self.name}: it has no quantize/dequantize nodes; `python -m training quantize` "
                "makes a model with them"
            )
        nodes, self.nodes = self.nodes, []
        positive = set(self.inputs)
        for node in nodes:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                self._symmetric(node, positive)
            elif quantized.intersection(node.input):
                self.fail(node, "reads quantized values; only DequantizeLinear may")
            elif node.op_type in ("Relu", "Sigmoid"):
                positive.update(node.output)
            self.nodes.append(node)

    def _symmetric(self, node: NodeProto, positive: set[str]) -> None:
        """Make it int8 without a zero point, its range at least the one that it had.

        Bytes from zero up keep half of their levels; signed ones, also where stored from 128 up,
        all of them. positive: values that are not below zero.
        """
        source, scale, zero = (*node.input, "")[:3]
        quantizes, name = node.op_type == "QuantizeLinear", node.output[0]
        scales = self.constants.get(scale)
        kind = self.kinds[name if quantizes else source]
        if kind not in _BYTES:
            self.fail(node, "is not of int8 or uint8, which TensorRT's INT8 is made from")
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        zeros = self.constants.get(zero) if zero else np.zeros((), dtype)
        if scales is None or zeros is None or scales.ndim > 1:
            self.fail(node, "needs a constant scale and zero point, or one for each channel")
        limits, offset = np.iinfo(dtype), zeros.astype(np.float32)
        least, most = limits.min - offset, limits.max - offset
        growth = np.maximum(least / -128, most / 127)
        if quantizes:
            if scales.size > 1:
                self.fail(node, "has a scale for each channel; TensorRT has that for weights only")
            wider = least / -128 < growth, most / 127 < growth
            # Quantizers leave out the ReLU before a range from zero up: what it cut stays cut.
            if wider[1] or (wider[0] and not (least == 0 and source in positive)):
                source = self._clipped(source, name, least * scales, most * scales)
        elif source in self.constants:
            old = self.constants[source].astype(np.float32)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % max(1, old.ndim)
            line = [-1 if i == axis else 1 for i in range(old.ndim)]  # the axis of the channels
            new = np.rint((old - offset.reshape(line)) / growth.reshape(line))
            source = self._constant(f"{name}.values", new.astype(np.int8))
        scales = scales.astype(np.float32) * growth
        scale = self._constant(f"{name}.scale", scales)
        zero = self._constant(f"{name}.zero", np.zeros(scales.shape, np.int8))
        node.input[:] = [source, scale, zero]
        kept = [attribute for attribute in node.attribute if attribute.name == "axis"]
        del node.attribute[:]
        node.attribute.extend(kept)

    def _clipped(self, source: str, output: str, least: Array, most: Array) -> str:
        name = f"{output}.clipped"
        self.kinds[name] = self.kinds[source]
        bounds = {f"{name}.least": least, f"{name}.most": most}
        for bound, array in bounds.items():
            self._constant(bound, array.astype(np.float32).reshape(()))
        self.nodes.append(helper.make_node("Clip", [source, *bounds], [name]))
        return name

    def _constant(self, name: str, array: Array) -> str:
        self.constants[name] = array
        self.kinds[name] = helper.np_dtype_to_tensor_dtype(array.dtype)
        return name


class _Target:
    """Writes the nodes of a source anew, their floats of type `kind` but where FP32 is needed.

    A value is called as in the source where it has that type; in another one that is its suffix.
    """

    def __init__(self, source: _Source, kind: int) -> None:
        self._source = source
        self._kind = kind
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, TensorProto] = {}
        self._made: defaultdict[str, list[int]] = defaultdict(list)  # types each value is there in
        self._same: dict[str, str] = {}  # values that are others, but for their type
        self._names: set[str] = set()

    def model(self) -> onnx.ModelProto:
        for name in self._source.inputs:
            self._scale(name)
        for node in self._source.nodes:
            self._write(node)
        tones = self._value("tones", self._kind)
        if tones != "tones":
            self._add(helper.make_node("Identity", [tones], ["tones"]))
        value = helper.make_tensor_value_info
        sides: dict[str, list[str | int | None]] = {
            "binary": ["batch", 1, "height", "width"],
            "hint": ["batch", 1, "rows", "columns"],
        }
        graph = helper.make_graph(
            self._nodes,
            "typed",
            [value(name, TensorProto.UINT8, sides[name]) for name in self._source.inputs],
            [value("tones", self._kind, sides["binary"])],
            list(self._weights.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self._source.opset)],
            ir_version=self._source.ir_version,
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _scale(self, name: str) -> None:
        """0..255 to 0..1; both ends are exact in FP16, too."""
        cast, levels, scaled = f"{name}.cast", f"{name}.levels", f"{name}.scaled"
        white = _rounded(np.array(255), self._kind)
        self._weights[levels] = numpy_helper.from_array(white, levels)
        self._add(helper.make_node("Cast", [name], [cast], to=self._kind))
        self._add(helper.make_node("Div", [cast, levels], [scaled]))
        self._same[name] = scaled
        self._made[scaled].append(self._kind)

    def _write(self, node: NodeProto) -> None:
        source, inputs, outputs = self._source, list(node.input), list(node.output)
        floats = [name for name in inputs if source.floats(name)]
        if node.op_type == "Cast" and floats and source.floats(outputs[0]):
            self._same[outputs[0]] = self._same.get(inputs[0], inputs[0])
            return
        schema = defs.get_schema(node.op_type, source.opset)
        kind = TensorProto.FLOAT if self._needs_fp32(node) else self._kind
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

        def kind_of(formals: Sequence[defs.OpSchema.FormalParameter], index: int) -> int:
            formal = formals[min(index, len(formals) - 1)].type_str
            fits = f"tensor({_FLOATS[kind]})" in allowed.get(formal, [formal])
            return kind if fits else TensorProto.FLOAT

        for index, name in enumerate(inputs):
            if source.floats(name):
                node.input[index] = self._value(name, kind_of(schema.inputs, index))
            elif name in source.constants:
                self._weights[name] = numpy_helper.from_array(source.constants[name], name)
        for index, name in enumerate(outputs):
            if source.floats(name):
                # What reads no floats says itself which it gives.
                made = kind_of(schema.outputs, index) if floats else source.kinds[name]
                node.output[index] = self._called(name, made)
                self._made[name].append(made)
        self._add(node)

    def _needs_fp32(self, node: NodeProto) -> bool:
        # Grouped convolutions: some GPUs have FP32 kernels for them only (TensorRT 4838).
        if _IN_FP32.fullmatch(node.op_type) or any(
            a.name == "group" and a.i != 1 for a in node.attribute
        ):
            return True
        scales = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        return any(
            not _fits(self._source.constants[name], each=scales)
            for name in node.input
            if name in self._source.constants and self._source.floats(name)
        )

    def _value(self, name: str, kind: int) -> str:
        """What the value is called in that type; it is made where it is not there yet."""
        name = self._same.get(name, name)
        called = self._called(name, kind)
        if name in self._source.constants:
            array = _rounded(self._source.constants[name], kind)
            self._weights[called] = numpy_helper.from_array(array, called)
        elif kind not in self._made[name]:
            first = self._called(name, self._made[name][0])
            self._add(helper.make_node("Cast", [first], [called], to=kind))
            self._made[name].append(kind)
        return called

    def _called(self, name: str, kind: int) -> str:
        return name if kind == self._kind else f"{name}.{_FLOATS[kind]}"

    def _add(self, node: NodeProto) -> None:
        """Add the node, under a name that is its own: the parser's errors tell names."""
        if not node.name or node.name in self._names:
            node.name = f"{node.op_type}:{node.output[0]}"
        self._names.add(node.name)
        self._nodes.append(node)


def _rounded(array: Array, kind: int) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(helper.tensor_dtype_to_np_dtype(kind))


def _fits(weights: Array, each: bool) -> bool:
    """Whether FP16 holds the weights: each of them as it should, or else all taken together.

    Together, because small ones among large ones may vanish, and weights of features that training
    has given up are all small. Scales are multiplied and divided by one at a time.
    """
    exact = weights.astype(np.float64)
    half = _rounded(exact, TensorProto.FLOAT16)
    if each:
        return bool(np.all(np.isfinite(half) & (half >= _LEAST_NORMAL)))
    off = np.linalg.norm(half.astype(np.float64) - exact)
    return bool(np.isfinite(half).all() and off <= _ROUNDING * np.linalg.norm(exact))
