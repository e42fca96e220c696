"""The U-Net in torch, in inference form, with the weights of an exported ONNX file.

Layout and rewrites are chosen for tensor cores; they equal the file in exact arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields

import onnx
import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from torch import Tensor, nn

from sketchify_rt.errors import ModelError
from sketchify_rt.kernels.reference import CELL
from sketchify_rt.models import Model
from sketchify_rt.runtime import onnx_files

# Tensor cores read and write FP16 channels 16 bytes at a time. With fewer channels cuDNN does not
# use them, so the first convolution's inputs and the last one's outputs are filled up with zeros.
_CHANNELS = 8


@dataclass(frozen=True)
class Architecture:
    """Shape of a U-Net; for the fields see `UNetConfig` in training/recipe.py."""

    width: int
    depth: int
    unshuffle: int
    hint: bool = False


def load(model: Model, dtype: torch.dtype) -> UNet:
    """The model on the CPU, its weights frozen, in `dtype`.

    Raises:
        ModelError: The file cannot be read, or it has other weights than the manifest's
            architecture needs.
    """
    weights = _Weights(model)
    network = UNet(_architecture(model), weights)
    weights.close()
    return network.to(dtype)


class _Weights:
    """Weights of an exported file, by name; collects what is wrong with them."""

    def __init__(self, model: Model) -> None:
        """Raises ModelError where the file cannot be read."""
        self._path = model.path
        self._wrong: list[str] = []
        data = onnx_files.read(model)
        try:
            initializers = onnx.load_model_from_string(data).graph.initializer
        except DecodeError as error:
            raise ModelError(f"{model.path}: not an ONNX file ({error})") from error
        arrays = {w.name.removesuffix(".fp16"): numpy_helper.to_array(w) for w in initializers}
        self._left = {
            name: torch.tensor(array).float()
            for name, array in arrays.items()
            if name.endswith((".weight", ".bias"))  # a model with a hint has also a Resize's scales
        }

    def take(self, layer: str, shape: tuple[int, ...], features: int) -> tuple[Tensor, Tensor]:
        """Kernel of that shape, and bias of that many features, in float32."""
        kernel, bias = f"{layer}.weight", f"{layer}.bias"
        if bias not in self._left:  # the exporter leaves out biases that are all zero
            self._left[bias] = torch.zeros(1).expand(features)
        return self._take(kernel, shape), self._take(bias, (features,))

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        weight = self._left.pop(name, None)
        if weight is not None and weight.shape == shape:
            return weight
        found = "missing" if weight is None else f"{tuple(weight.shape)}, expected {shape}"
        self._wrong.append(f"{name} is {found}")
        return torch.empty(shape, device="meta")

    def close(self) -> None:
        """Raises ModelError where what was taken is not just what is there."""
        wrong = [*self._wrong, *(f"{name} is not expected" for name in self._left)]
        if wrong:
            raise ModelError(
                f"{self._path}: its weights are not those of the manifest's architecture: "
                f"{'; '.join(wrong)}. `python -m training export` writes a model and its manifest"
            )


def _architecture(model: Model) -> Architecture:
    given = model.manifest.architecture
    known = {field.name: given[field.name] for field in fields(Architecture) if field.name in given}
    try:
        architecture = Architecture(**known)
        # `type`, because JSON's true is an int to Python.
        sides = (architecture.width, architecture.depth, architecture.unshuffle)
        right = all(type(side) is int and side >= 1 for side in sides)
    except TypeError:  # a field is missing
        right = False
    if not right:
        raise ModelError(
            f"{model.path}: the manifest's architecture is wrong: got {given}, expected width, "
            "depth and unshuffle, each at least 1; `python -m training export` writes it"
        )
    stride = model.manifest.stride
    if architecture.hint and (stride % CELL or CELL % architecture.unshuffle):
        raise ModelError(
            f"{model.path}: the manifest is wrong: got stride {stride} and unshuffle "
            f"{architecture.unshuffle}, but a model with a hint needs a stride that is a multiple "
            f"of {CELL} and an unshuffle that divides {CELL}"
        )
    return architecture


class UNet(nn.Module):
    """The U-Net of training/model.py, for bytes, with its weights as buffers."""

    def __init__(self, architecture: Architecture, weights: _Weights) -> None:
        super().__init__()
        self.architecture = architecture
        width, unit = architecture.width, architecture.unshuffle

        def conv(name: str, inputs: int, outputs: int, side: int = 3, relu: bool = True) -> _Conv:
            return _Conv(*weights.take(name, (outputs, inputs, side, side), outputs), relu)

        def block(name: str, inputs: int, outputs: int) -> nn.ModuleList:
            first, second = conv(f"{name}.0", inputs, outputs), conv(f"{name}.3", outputs, outputs)
            return nn.ModuleList([first, second])

        planes, side = 1 + architecture.hint, 3 * unit
        kernel, bias = weights.take("down.0.0", (width, planes, side, side), width)
        stem = _on_cells(kernel, unit)
        self.channels = stem.shape[1]
        entry = nn.ModuleList([_Conv(stem, bias), conv("down.0.3", width, width)])
        self.down, self.up, self.merge = nn.ModuleList([entry]), nn.ModuleList(), nn.ModuleList()
        for level in range(architecture.depth):
            features = width * 2**level
            self.down.append(block(f"down.{level + 1}", features, 2 * features))
            shape = (2 * features, features, 2, 2)
            self.up.append(_Up(*weights.take(f"up.{level}", shape, features)))
            self.merge.append(block(f"merge.{level}", 2 * features, features))
        self.head = conv("head.0", width, unit**2, side=1, relu=False)

    def forward(self, binary: Tensor, hint: Tensor | None = None) -> Tensor:
        """Paint tones.

        Args:
            binary: uint8 (N, H, W), 0 for ink and 255 for paper; H and W are multiples of the
                model's stride.
            hint: uint8 (N, H / 8, W / 8), see `kernels.reference.hint`; None if it is not known,
                or if the model takes none.

        Returns:
            (N, H, W), 0..1, of the dtype of the weights.
        """
        # Each value is freed before the next but one is made: `x` is the only name for it.
        x = self._cells(binary, hint)
        skips = []
        for level, block in enumerate(self.down):
            if level > 0:
                skips.append(x)
                x = F.max_pool2d(x, 2)
            for conv in block:  # type: ignore[attr-defined]
                x = conv(x)
        for level in reversed(range(self.architecture.depth)):
            x = self.up[level](x)
            x = torch.cat([x, skips.pop()], dim=1)
            for conv in self.merge[level]:  # type: ignore[attr-defined]
                x = conv(x)
        x = self.head(x)
        x = F.pixel_shuffle(x, self.architecture.unshuffle)
        return torch.sigmoid(x)[:, 0]

    def _cells(self, binary: Tensor, hint: Tensor | None) -> Tensor:
        """(N, C, H / unshuffle, W / unshuffle), channels last: pixels, hint, zeros."""
        unit = self.architecture.unshuffle
        count, height, width = binary.shape
        rows, columns = height // unit, width // unit
        dtype = self.head.bias.dtype
        cells = binary.new_zeros((count, rows, columns, self.channels), dtype=dtype)
        pixels = binary.reshape(count, rows, unit, columns, unit).transpose(2, 3)
        cells[..., : unit**2].view(count, rows, columns, unit, unit).copy_(pixels)
        if hint is not None:
            scale = float(CELL // unit)
            cells[..., unit**2] = F.interpolate(hint[:, None], scale_factor=scale)[:, 0]
        return cells.div_(255).permute(0, 3, 1, 2)


class _Conv(nn.Module):
    """A convolution of stride 1 that keeps height and width, its bias, and ReLU if asked for."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, rectify: bool = True) -> None:
        super().__init__()
        self.features, self.padding, self.rectify = len(weight), weight.shape[-1] // 2, rectify
        missing = -self.features % _CHANNELS
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing))
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", F.pad(bias, (0, missing)))

    def forward(self, x: Tensor) -> Tensor:
        sums = _finish(_convolve(x, self.weight, self.padding), self.bias, self.rectify)
        return sums[:, : self.features]


class _Up(nn.Module):
    """A transposed convolution with kernel and stride 2, and its bias.

    Each output pixel comes from one input pixel, so it is a matrix product and a reordering. cuDNN
    would run the gradient of a strided convolution.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        rows = weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
        self.register_buffer("weight", rows.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        cells = _convolve(x, self.weight, 0).permute(0, 2, 3, 1)
        count, height, width, channels = cells.shape
        depth = channels // 4
        pixels = cells.reshape(count, height, width, 2, 2, depth).transpose(2, 3)
        if torch.compiler.is_compiling():  # it fuses, and takes no `out` of an order of its own
            out = (pixels + self.bias).contiguous()
        else:  # one pass; without `out` the sum would keep the order of its input
            out = torch.add(pixels, self.bias, out=cells.new_empty(pixels.shape))
        return out.reshape(count, 2 * height, 2 * width, depth).permute(0, 3, 1, 2)


def _on_cells(weight: Tensor, unit: int) -> Tensor:
    """The first kernel for the cells of `UNet._cells` in place of pixels.

    Of (features, 1 or 2, 3 unit, 3 unit) it makes (features, C, 3, 3). The hint is one value for
    all pixels of a cell, so its taps there are added.
    """
    taps = weight.reshape(*weight.shape[:2], 3, unit, 3, unit).permute(0, 1, 3, 5, 2, 4)
    kernel = torch.cat([taps[:, 0].flatten(1, 2), taps[:, 1:].sum((2, 3))], dim=1)
    return F.pad(kernel, (0, 0, 0, 0, 0, -kernel.shape[1] % _CHANNELS))


def _convolve(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    strides, dilations, pads = [1, 1], [1, 1], [padding, padding]
    if x.is_meta or torch.compiler.is_compiling():
        # What is below takes no tensors without memory before torch 2.13; compiled it drops flags.
        return torch.convolution(x, weight, None, strides, pads, dilations, False, [0, 0], 1)
    # `conv2d` asks flags of the process whether float32 may be rounded to TF32, by default yes.
    # This is the call that it makes then: here the answer is an argument, so that no flag is
    # changed under other threads. FP16 must say yes, or cuDNN leaves the tensor cores alone.
    return torch._convolution(
        x,
        weight,
        None,
        strides,
        pads,
        dilations,
        False,
        [0, 0],
        1,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        True,
        x.dtype != torch.float32,
    )


def _finish(sums: Tensor, bias: Tensor, rectify: bool) -> Tensor:
    """Bias and ReLU, in place."""
    if sums.is_cuda and not torch.compiler.is_compiling():
        fits = sums.is_contiguous(memory_format=torch.channels_last)
        if fits and (fused := _fused()):
            fused(sums, bias, rectify)
            return sums
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
