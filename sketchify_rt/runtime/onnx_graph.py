"""Read an ONNX file of this project as a torch module.

Known are the operators that `training/export.py` writes. Layout and rewrites are chosen for tensor
cores, and equal the file in exact arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import onnx
import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from sketchify_rt.errors import ModelError
from sketchify_rt.models import Model

# Tensor cores read and write FP16 channels 16 bytes at a time; with fewer, cuDNN leaves them alone.
# The first convolution has one channel of input, the last as many of output as a cell has pixels:
# channels of zeros fill them up.
_CHANNELS = 8


def read(model: Model, dtype: torch.dtype) -> fx.GraphModule:
    """The model as a module on the CPU, its weights frozen, in `dtype`, channels last.

    It takes uint8 (N, H, W), 0 for ink and 255 for paper, and returns tones, `dtype` (N, H, W);
    values in between are freed after their last use. Raises ModelError where the file cannot be
    read, or has an operator or an attribute that is not known here.
    """
    data = model.read()
    try:
        graph = onnx.load_model_from_string(data).graph
    except DecodeError as error:
        raise ModelError(f"{model.path}: not an ONNX file ({error})") from error
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ModelError(f"{model.path}: it must have one input and one output")
    return _Reader(str(model.path), dtype, graph).module()


class _Node:
    """An ONNX node whose attributes are taken one by one, so that none is overlooked."""

    def __init__(self, path: str, proto: NodeProto) -> None:
        self.path = path
        self.kind = proto.op_type
        self.inputs = list(proto.input)
        self.output = proto.output[0]
        self._attributes: dict[str, AttributeProto] = {a.name: a for a in proto.attribute}
        if proto.domain not in ("", "ai.onnx") or len(proto.output) != 1:
            self.fail("not known")

    def take(self, name: str, default: Any) -> Any:
        attribute = self._attributes.pop(name, None)
        return default if attribute is None else helper.get_attribute_value(attribute)

    def expect(self, **values: object) -> None:
        """Each attribute, where it is given, has this value: the default of the standard."""
        for name, value in values.items():
            found = self.take(name, value)
            if found != value:
                self.fail(f"{name} is {found!r}; known is {value!r}")

    def padding(self) -> list[int]:
        """Rows and columns of padding, the same at either end."""
        self.expect(auto_pad=b"NOTSET")
        pads = list(self.take("pads", [0, 0, 0, 0]))
        if len(pads) != 4 or pads[:2] != pads[2:]:
            self.fail(f"pads are {pads}; they must be the same at either end of two axes")
        return pads[:2]

    def close(self) -> None:
        if self._attributes:
            self.fail(f"unknown attributes {', '.join(self._attributes)}")

    def fail(self, what: str) -> NoReturn:
        raise ModelError(
            f"{self.path}: operator {self.kind} (of {self.output!r}): {what}; "
            "the torch runtime reads what `python -m training export` writes"
        )


class _Reader:
    """Writes a torch.fx graph, ONNX operator by operator."""

    def __init__(self, path: str, dtype: torch.dtype, graph: onnx.GraphProto) -> None:
        self._path = path
        self._dtype = dtype
        self._onnx = graph
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._values: dict[str, fx.Node | Tensor] = {}  # a Tensor is a weight

    def module(self) -> fx.GraphModule:
        binary = self._graph.placeholder("binary")
        self._values[self._onnx.input[0].name] = self._call(_scale, binary, self._dtype)
        for weight in self._onnx.initializer:
            self._values[weight.name] = torch.from_numpy(numpy_helper.to_array(weight).copy())
        for proto in self._onnx.node:
            node = _Node(self._path, proto)
            if node.kind not in _OPERATORS:
                node.fail(f"not known; known are {', '.join(_OPERATORS)}")
            self._values[node.output] = _OPERATORS[node.kind](self, node)
            node.close()
        tones = self._values.get(self._onnx.output[0].name)
        if not isinstance(tones, fx.Node):
            raise ModelError(f"{self._path}: its output does not depend on its input")
        self._graph.output(self._call(torch.select, tones, 1, 0))
        self._fuse()
        return fx.GraphModule(self._root, self._graph)

    def _fuse(self) -> None:
        """Rectify in place, together with the bias, what nothing else reads."""
        for relu in self._graph.find_nodes(op="call_function", target=torch.relu):
            (sums,) = relu.args
            if sums.target is _finish and len(sums.users) == 1:
                sums.args = (*sums.args[:2], True)
                relu.replace_all_uses_with(sums)
                self._graph.erase_node(relu)

    def conv(self, node: _Node) -> fx.Node:
        source, weight, *biases = node.inputs
        x, kernel = self._value(node, source), self._weight(node, weight)
        strides, padding = node.take("strides", [1, 1]), node.padding()
        node.expect(group=1, dilations=[1, 1], kernel_shape=list(kernel.shape[2:]))
        stem = _stem(kernel, strides, padding)
        if stem is not None:
            kernel, padding = stem, [pad // strides[0] for pad in padding]
            x = self._call(_unshuffle, x, strides[0], kernel.shape[1])
            strides = [1, 1]
        features = len(kernel)
        missing = -features % _CHANNELS
        kernel = F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, missing))
        sums = self._call(_convolve, x, self._buffer(kernel), strides, padding)
        y = self._call(_finish, sums, self._bias(node, biases, missing), False)
        return self._call(torch.narrow, y, 1, 0, features) if missing else y

    def conv_transpose(self, node: _Node) -> fx.Node:
        # A kernel as large as its stride makes each output pixel from one input pixel: a matrix
        # product and a reordering. cuDNN would run the gradient of a strided convolution.
        source, weight, *biases = node.inputs
        kernel = self._weight(node, weight)
        inputs, outputs, *side = kernel.shape
        factor = side[0]
        node.expect(
            group=1,
            dilations=[1, 1],
            output_padding=[0, 0],
            kernel_shape=[factor, factor],
            strides=[factor, factor],
        )
        if node.padding() != [0, 0]:
            node.fail("pads are not zero")
        rows = kernel.permute(2, 3, 1, 0).reshape(factor * factor * outputs, inputs, 1, 1)
        x = self._value(node, source)
        cells = self._call(_convolve, x, self._buffer(rows), [1, 1], [0, 0])
        return self._call(_shuffle, cells, factor, self._bias(node, biases))

    def relu(self, node: _Node) -> fx.Node:
        return self._call(torch.relu, self._value(node, node.inputs[0]))

    def max_pool(self, node: _Node) -> fx.Node:
        x = self._value(node, node.inputs[0])
        node.expect(dilations=[1, 1], ceil_mode=0, storage_order=0)
        side, strides = node.take("kernel_shape", []), node.take("strides", [1, 1])
        return self._call(F.max_pool2d, x, side, strides, node.padding())

    def concat(self, node: _Node) -> fx.Node:
        node.expect(axis=1)
        return self._call(torch.cat, [self._value(node, name) for name in node.inputs], 1)

    def depth_to_space(self, node: _Node) -> fx.Node:
        if node.take("mode", b"DCR") != b"CRD":
            node.fail("mode is DCR; known is CRD")
        x = self._value(node, node.inputs[0])
        return self._call(F.pixel_shuffle, x, node.take("blocksize", 1))

    def sigmoid(self, node: _Node) -> fx.Node:
        return self._call(torch.sigmoid, self._value(node, node.inputs[0]))

    def cast(self, node: _Node) -> fx.Node | Tensor:
        # The type to compute in is ours to choose.
        if node.take("to", TensorProto.FLOAT) not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            node.fail("known are casts to float and to float16")
        node.take("saturate", 1)
        return self.identity(node)

    def identity(self, node: _Node) -> fx.Node | Tensor:
        if node.inputs[0] not in self._values:
            node.fail(f"its input {node.inputs[0]!r} is nowhere computed")
        return self._values[node.inputs[0]]

    def _value(self, node: _Node, name: str) -> fx.Node:
        value = self._values.get(name)
        if not isinstance(value, fx.Node):
            node.fail(f"its input {name!r} must be computed from the binary image")
        return value

    def _weight(self, node: _Node, name: str) -> Tensor:
        value = self._values.get(name)
        if not isinstance(value, Tensor) or value.dim() not in (1, 4):
            node.fail(f"its input {name!r} must be a weight of one or four axes")
        return value

    def _bias(self, node: _Node, names: Sequence[str], missing: int = 0) -> fx.Node | None:
        if not names or not names[0]:
            return None
        return self._buffer(F.pad(self._weight(node, names[0]), (0, missing)))

    def _buffer(self, weight: Tensor) -> fx.Node:
        name = f"weight_{len(dict(self._root.named_buffers()))}"
        layout = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
        self._root.register_buffer(
            name, weight.to(self._dtype).contiguous(memory_format=layout), persistent=False
        )
        return self._graph.get_attr(name)

    def _call(self, function: Callable[..., object], *arguments: Any) -> fx.Node:
        return self._graph.call_function(function, arguments)


_OPERATORS: dict[str, Callable[[_Reader, _Node], fx.Node | Tensor]] = {
    "Cast": _Reader.cast,
    "Concat": _Reader.concat,
    "Conv": _Reader.conv,
    "ConvTranspose": _Reader.conv_transpose,
    "DepthToSpace": _Reader.depth_to_space,
    "Identity": _Reader.identity,
    "MaxPool": _Reader.max_pool,
    "Relu": _Reader.relu,
    "Sigmoid": _Reader.sigmoid,
}


def _scale(binary: Tensor, dtype: torch.dtype) -> Tensor:
    return (binary.to(dtype) / 255)[:, None]


def _stem(kernel: Tensor, strides: Sequence[int], padding: Sequence[int]) -> Tensor | None:
    """The kernel of a convolution of one channel for the cells of `_unshuffle`, or None.

    A stride of u and a kernel of u times t a side are, on cells of u by u pixels, a stride of 1, a
    kernel of t, and u * u channels, filled up.
    """
    features, inputs, rows, columns = kernel.shape
    unit = strides[0]
    multiples = (*strides, rows, columns, *padding)
    if inputs != 1 or rows != columns or strides[1] != unit or any(n % unit for n in multiples):
        return None
    taps = rows // unit
    cells = kernel.reshape(features, taps, unit, taps, unit).permute(0, 2, 4, 1, 3)
    cells = cells.reshape(features, unit * unit, taps, taps)
    return F.pad(cells, (0, 0, 0, 0, 0, -unit * unit % _CHANNELS))


def _unshuffle(pixels: Tensor, unit: int, channels: int) -> Tensor:
    """Cells of (N, 1, H, W) as (N, channels, H / unit, W / unit), channels last, the rest zero."""
    count, _, height, width = pixels.shape
    cells = pixels.reshape(count, height // unit, unit, width // unit, unit).transpose(2, 3)
    return F.pad(cells.flatten(3), (0, channels - unit * unit)).permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    if x.is_meta or torch.compiler.is_compiling():
        # What is below takes no tensors without memory before torch 2.13; compiled it drops flags.
        return torch.convolution(x, weight, None, stride, padding, [1, 1], False, [0, 0], 1)
    # `conv2d` asks flags of the process whether float32 may be rounded to TF32, by default yes.
    # This is the call that it makes then: here the answer is an argument, so that no flag is
    # changed under other threads. FP16 must say yes, or cuDNN leaves the tensor cores alone.
    return torch._convolution(
        x,
        weight,
        None,
        stride,
        padding,
        [1, 1],
        False,
        [0, 0],
        1,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        True,
        x.dtype != torch.float32,
    )


def _finish(sums: Tensor, bias: Tensor | None, rectify: bool) -> Tensor:
    """Bias and ReLU, in place."""
    if bias is not None and sums.is_cuda and not torch.compiler.is_compiling():
        fits = sums.is_contiguous(memory_format=torch.channels_last)
        if fits and (fused := _fused()):
            fused(sums, bias, rectify)
            return sums
    if bias is not None:
        sums.add_(bias[:, None, None])
    return sums.relu_() if rectify else sums


@functools.cache
def _fused() -> Callable[[Tensor, Tensor, bool], None] | None:
    """Bias and ReLU as one kernel of Triton; None where there is no Triton that works.

    To import it is not enough: it compiles, for which it calls a C compiler.
    """
    try:
        from sketchify_rt.runtime.epilogue import finish

        finish(torch.zeros(1, 1, 1, 1, device="cuda"), torch.zeros(1, device="cuda"), False)
    except Exception:  # of all kinds; torch's own operators do as well, if slower
        return None
    return finish


def _shuffle(cells: Tensor, factor: int, bias: Tensor | None) -> Tensor:
    """Cells (N, factor * factor * C, H, W) as (N, C, factor * H, factor * W), and the bias added.

    Channels last; the channel of a cell is its last, fastest axis.
    """
    count, channels, height, width = cells.shape
    depth = channels // factor**2
    pixels = cells.permute(0, 2, 3, 1).reshape(count, height, width, factor, factor, depth)
    pixels = pixels.transpose(2, 3)
    shift = 0 if bias is None else bias
    if torch.compiler.is_compiling():  # it fuses, and takes no `out` of an order of its own
        out = (pixels + shift).contiguous()
    else:  # one pass; without `out` the sum would keep the order of its input
        out = torch.add(pixels, shift, out=cells.new_empty(pixels.shape))
    return out.reshape(count, factor * height, factor * width, depth).permute(0, 3, 1, 2)
