"""The kernels in C++: the same bytes as `reference`, at the speed of the processor.

They run without the GIL and may be called from any number of threads. `SKETCHIFY_ISA` (baseline,
avx2 or avx512) forces an instruction set; otherwise the best one this processor has is used.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchify_rt import _native
from sketchify_rt.errors import BackendUnavailable, InputError, OptionsError
from sketchify_rt.image import Gray
from sketchify_rt.kernels.reference import CELL
from sketchify_rt.options import MAX_THREADS


def binarize(
    gray: Gray, *, threads: int = 1, out: Gray | None = None, _isa: str | None = None
) -> Gray:
    """Black contours on white: an adaptive threshold, then a 3x3 median.

    gray: uint8 (H, W), any strides. threads: used at most, at least 1. out: uint8 (H, W) to
    write to, pixels of a row adjacent, apart from `gray` in memory. Returns uint8 (H, W), 0 or 255;
    `out` if given. Raises InputError, OptionsError.
    """
    source = _source(gray, np.uint8, "gray")
    page = _page(out, source)
    _native.binarize(source, page, _threads(threads), _isa or isa())
    return page


def dodge(
    gray: Gray,
    strength: float = 1.0,
    *,
    threads: int = 1,
    out: Gray | None = None,
    _isa: str | None = None,
) -> Gray:
    """A pencil drawing: the image divided by its blur (colour dodge), then line strength.

    strength: see `compose`. The rest is as in `binarize`.
    """
    source = _source(gray, np.uint8, "gray")
    page = _page(out, source)
    _native.dodge(source, page, _steps(strength), _threads(threads), _isa or isa())
    return page


def compose(
    tones: NDArray[np.float32],
    strength: float = 1.0,
    *,
    threads: int = 1,
    out: Gray | None = None,
    _isa: str | None = None,
) -> Gray:
    """Tones of the U-Net to a page of bytes.

    tones: float32 (H, W), any strides, 0 is ink and 1 is paper; beyond is clipped, NaN is ink.
    strength: line strength, 0..4, in steps of 1/256: ink is multiplied by it. 1 changes nothing.
    The rest is as in `binarize`.
    """
    source = _source(tones, np.float32, "tones")
    page = _page(out, source)
    _native.compose(source, page, _steps(strength), _threads(threads), _isa or isa())
    return page


def hint(binary: Gray, tones: Gray, *, threads: int = 1, _isa: str | None = None) -> Gray:
    """How dark strokes are around each cell of 8 x 8 pixels: what the binary does not tell.

    Args:
        binary: uint8 (H, W), any strides, 0 where a stroke is, from `binarize`.
        tones: uint8 (H, W), any strides, the same image after `dodge`.
        threads: Used at most, at least 1.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)): 1 where strokes are white to 255 where they are black; 0
        everywhere if the page has no black pixel. See `reference.hint` for its sigma of 4.

    Raises:
        InputError: An array has another type or no pixels, or their shapes differ.
        OptionsError: `threads` is out of range.
    """
    binary, tones = _source(binary, np.uint8, "binary"), _source(tones, np.uint8, "tones")
    if tones.shape != binary.shape:
        raise InputError(f"tones must have the shape of binary, {binary.shape}, got {tones.shape}")
    cells = np.empty([-(-side // CELL) for side in binary.shape], np.uint8)
    _native.hint(binary, tones, cells, _threads(threads), _isa or isa())
    return cells


def isas() -> tuple[str, ...]:
    """The instruction sets this processor can run, the fastest last."""
    return tuple(_native.isas())


@functools.cache
def isa() -> str:
    """The instruction set in use: `SKETCHIFY_ISA` if set, or the fastest of `isas()`.

    Raises BackendUnavailable where `SKETCHIFY_ISA` names one that this processor does not have.
    """
    forced = os.environ.get("SKETCHIFY_ISA")
    if not forced:
        return isas()[-1]
    if forced not in isas():
        raise BackendUnavailable(
            f"SKETCHIFY_ISA is {forced!r}; this processor has {', '.join(isas())}: "
            "set one of these, or unset it"
        )
    return forced


def vnni() -> bool:
    """Whether this processor has dot products of 8-bit integers: AVX-512 VNNI or AVX-VNNI.

    Whatever `isa()` is. False on ARM, whose own ones OpenVINO makes little of: convolutions of few
    channels are slower in INT8 than in float32 there (ARM-software/ComputeLibrary, issue 1225).
    """
    return _native.vnni()


def _source(array: NDArray[Any], dtype: type[np.generic], name: str) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 2:
        got = (
            f"{array.dtype} {array.shape}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        raise InputError(f"{name} must be a {np.dtype(dtype)} array of shape (H, W), not {got}")
    if array.size == 0:
        raise InputError(f"{name} is empty: its shape is {array.shape}")
    rows_adjacent = array.strides[1] == array.itemsize and array.flags.aligned
    # Not ascontiguousarray, for which a single column is contiguous whatever its stride.
    return array if rows_adjacent else array.copy(order="C")


def _page(out: Gray | None, source: NDArray[Any]) -> Gray:
    if out is None:
        return np.empty(source.shape, np.uint8)
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != source.shape:
        raise InputError(f"out must be a uint8 array of shape {source.shape}, like the source")
    if out.strides[1] != 1 or not out.flags.writeable:
        raise InputError("out must be writable, the pixels of a row adjacent")
    if np.may_share_memory(out, source):
        raise InputError("out and the source share memory; give out memory of its own")
    return out


def _threads(threads: int) -> int:
    if not 1 <= threads <= MAX_THREADS:
        raise OptionsError(f"threads is {threads}; it may be 1 to {MAX_THREADS}")
    return threads


def _steps(strength: float) -> int:
    if not 0 <= strength <= 4:
        raise OptionsError(f"strength is {strength}; it may be 0 to 4")
    return round(strength * 256)
