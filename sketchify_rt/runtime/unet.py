"""The U-Net in torch for inference, with the weights of an exported ONNX file.

The layout and the order of the operators suit tensor cores. In exact arithmetic the result equals
that of the file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

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
# use them, so the inputs of the first convolution and the outputs of the last one are padded.
_CHANNELS = 8


def load(model: Model, dtype: torch.dtype) -> UNet:
    """Load a model on the CPU, without gradients.

    Args:
        model: The model.
        dtype: Of the weights and of the result.

    Raises:
        ModelError: The file cannot be read, or it is not a U-Net of this project.
    """
    try:
        file = onnx.load_model_from_string(onnx_files.read(model))
    except DecodeError as error:
        raise ModelError(f"{model.path}: not an ONNX file ({error})") from error
    weights = {
        weight.name.removesuffix(".fp16"): torch.tensor(numpy_helper.to_array(weight)).float()
        for weight in file.graph.initializer
        if "weight" in weight.name or "bias" in weight.name  # not the scales of a Resize
    }
    try:
        network = UNet(weights)
    except KeyError as error:
        wrong = f"{error} is missing"
    else:
        if not weights:
            return network.to(dtype)
        wrong = f"got also {', '.join(weights)}"
    raise ModelError(
        f"{model.path}: not a U-Net of this project: {wrong}. To fix: export the model with "
        "`python -m training export`"
    )


class UNet(nn.Module):
    """The U-Net of training/model.py, for bytes, with its weights as buffers."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of all layers, and arrange them for inference.

        Args:
            weights: By their names in the exported file, in float32. Those that are used are
                removed. A bias that is all zero may be absent, as the exporter omits it.

        Raises:
            KeyError: A weight is missing.
        """
        super().__init__()
        depth = sum(name.startswith("up.") and name.endswith(".weight") for name in weights)

        def conv(name: str, rectify: bool = True) -> _Conv:
            return _Conv(weights.pop(f"{name}.weight"), weights.pop(f"{name}.bias", None), rectify)

        def block(name: str) -> nn.ModuleList:
            return nn.ModuleList([conv(f"{name}.0"), conv(f"{name}.3")])

        self.unshuffle = math.isqrt(len(weights["head.0.weight"]))
        stem = _on_cells(weights["down.0.0.weight"], self.unshuffle)
        self.channels = stem.shape[1]
        weights["down.0.0.weight"] = stem
        self.down = nn.ModuleList(block(f"down.{level}") for level in range(depth + 1))
        self.up = nn.ModuleList(
            _Up(weights.pop(f"up.{level}.weight"), weights.pop(f"up.{level}.bias", None))
            for level in range(depth)
        )
        self.merge = nn.ModuleList(block(f"merge.{level}") for level in range(depth))
        self.head = conv("head.0", rectify=False)

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
        # `x` is the only name of each value, so that it is freed before the next but one is made.
        x = self._cells(binary, hint)
        skips = []
        for level, block in enumerate(self.down):
            if level > 0:
                skips.append(x)
                x = F.max_pool2d(x, 2)
            for conv in block:  # type: ignore[attr-defined]
                x = conv(x)
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = up(x)
            x = torch.cat([x, skips.pop()], dim=1)
            for conv in merge:  # type: ignore[attr-defined]
                x = conv(x)
        x = self.head(x)
        x = F.pixel_shuffle(x, self.unshuffle)
        return torch.sigmoid(x)[:, 0]

    def _cells(self, binary: Tensor, hint: Tensor | None) -> Tensor:
        """Return pixels, hint and zeros, (N, C, H / unshuffle, W / unshuffle), channels last."""
        unit = self.unshuffle
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
    """A convolution of stride 1 that keeps height and width, its bias, and ReLU unless disabled."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, rectify: bool) -> None:
        super().__init__()
        self.features, self.padding, self.rectify = len(weight), weight.shape[-1] // 2, rectify
        missing = -self.features % _CHANNELS
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing))
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        bias = torch.zeros(self.features) if bias is None else bias
        self.register_buffer("bias", F.pad(bias, (0, missing)))

    def forward(self, x: Tensor) -> Tensor:
        sums = _finish(_convolve(x, self.weight, self.padding), self.bias, self.rectify)
        return sums[:, : self.features]


class _Up(nn.Module):
    """A transposed convolution with kernel and stride 2, and its bias.

    Each output pixel comes from one input pixel, so the layer is a matrix product and a reordering.
    cuDNN would run the gradient of a strided convolution.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        rows = weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
        self.register_buffer("weight", rows.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", torch.zeros(weight.shape[1]) if bias is None else bias)

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
    """Rearrange the first kernel for the cells of `UNet._cells` in place of pixels.

    The kernel changes from (features, 1 or 2, 3 unit, 3 unit) to (features, C, 3, 3). The hint is
    one value for all pixels of a cell, so its taps in a cell are added.
    """
    taps = weight.reshape(*weight.shape[:2], 3, unit, 3, unit).permute(0, 1, 3, 5, 2, 4)
    kernel = torch.cat([taps[:, 0].flatten(1, 2), taps[:, 1:].sum((2, 3))], dim=1)
    return F.pad(kernel, (0, 0, 0, 0, 0, -kernel.shape[1] % _CHANNELS))


def _convolve(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    # Bias, stride, padding, dilation, transposed, output padding, groups.
    options = (None, [1, 1], [padding, padding], [1, 1], False, [0, 0], 1)
    if torch.compiler.is_compiling():  # which drops the flags below
        return torch.convolution(x, weight, *options)
    # This is the call that `conv2d` makes. Flags of the process tell `conv2d` whether float32 may
    # be rounded to TF32, by default yes. Here an argument tells it, so other threads notice
    # nothing. It must be True for FP16, or cuDNN does not use the tensor cores.
    cudnn, tf32 = torch.backends.cudnn, x.dtype != torch.float32
    return torch._convolution(x, weight, *options, cudnn.benchmark, cudnn.deterministic, True, tf32)


def _finish(sums: Tensor, bias: Tensor, rectify: bool) -> Tensor:
    """Add the bias and apply ReLU, in place."""
    dense = sums.is_contiguous(memory_format=torch.channels_last)
    if sums.is_cuda and dense and not torch.compiler.is_compiling() and (fused := _fused()):
        fused(sums, bias, rectify)
        return sums
    sums.add_(bias[:, None, None])
    return sums.relu_() if rectify else sums


@functools.cache
def _fused() -> Callable[[Tensor, Tensor, bool], None] | None:
    """Return the Triton kernel for bias and ReLU, or None if Triton does not work.

    The kernel is run once, since Triton calls a C compiler to compile it.
    """
    try:
        from sketchify_rt.runtime.epilogue import finish

        finish(torch.zeros(1, 1, 1, 1, device="cuda"), torch.zeros(1, device="cuda"), False)
    except Exception:  # of any kind; torch's own operators are slower, but do the same
        return None
    return finish
