"""The kernels in C++: the same bytes as `reference`, at the speed of the processor.

The functions run without the GIL and may be called from any number of threads. They use the
fastest instruction set of this processor; the environment variable SKETCHIFY_ISA (baseline, avx2
or avx512) selects another one.

Types and shapes are those of `reference`. Arrays may have any strides, and `threads` is the
largest number of processor threads, at least 1. An array `out` must be writable, the pixels of a
row adjacent, and share no memory with the source. The C++ code raises TypeError or ValueError for
an array that it cannot use.
"""

from __future__ import annotations

import functools
import os
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sketchify_rt import _native
from sketchify_rt.errors import BackendUnavailable
from sketchify_rt.image import CELL, Gray

T = TypeVar("T", bound=np.generic)


def binarize(gray: Gray, *, threads: int = 1, out: Gray | None = None) -> Gray:
    """Draw black contours on white; see `reference.binarize`.

    Args:
        gray: uint8 (H, W).
        threads: Processor threads.
        out: uint8 (H, W) to write to; None for a new array.

    Returns:
        uint8 (H, W), 0 or 255; `out` if given.
    """
    out = _result(gray) if out is None else out
    _native.binarize(_rows(gray), out, threads, isa())
    return out


def dodge(gray: Gray, strength: float = 1.0, *, threads: int = 1, out: Gray | None = None) -> Gray:
    """Draw with a pencil by the colour dodge filter; see `reference.dodge`.

    Args:
        gray: uint8 (H, W).
        strength: Factor of the ink, 0..4, in steps of 1/256.
        threads: Processor threads.
        out: uint8 (H, W) to write to; None for a new array.

    Returns:
        uint8 (H, W); `out` if given.
    """
    out = _result(gray) if out is None else out
    _native.dodge(_rows(gray), out, round(strength * 256), threads, isa())
    return out


def compose(
    tones: NDArray[np.float32],
    strength: float = 1.0,
    *,
    threads: int = 1,
    out: Gray | None = None,
) -> Gray:
    """Convert tones of the U-Net to bytes; see `reference.compose`.

    Args:
        tones: float32 (H, W), 0 for ink and 1 for paper. Other values are clipped; NaN is ink.
        strength: Factor of the ink, 0..4, in steps of 1/256.
        threads: Processor threads.
        out: uint8 (H, W) to write to; None for a new array.

    Returns:
        uint8 (H, W); `out` if given.
    """
    out = _result(tones) if out is None else out
    _native.compose(_rows(tones), out, round(strength * 256), threads, isa())
    return out


def hint(binary: Gray, tones: Gray, *, threads: int = 1) -> Gray:
    """Measure how dark the strokes are in each cell of 8 x 8 pixels; see `reference.hint`.

    Args:
        binary: uint8 (H, W) from `binarize`, 0 where a stroke is.
        tones: uint8 (H, W), the same image after `dodge`.
        threads: Processor threads.

    Returns:
        uint8 (ceil(H / 8), ceil(W / 8)).
    """
    cells = np.empty([-(-side // CELL) for side in binary.shape], np.uint8)
    _native.hint(_rows(binary), _rows(tones), cells, threads, isa())
    return cells


def look(
    sketch: Gray, gray: Gray, black: int, shade: Gray, table: Gray, *, threads: int = 1
) -> Gray:
    """Give a sketch a look, in place; see `reference.look`.

    Args:
        sketch: uint8 (H, W), the pixels of a row adjacent. Overwritten.
        gray: uint8 (H, W).
        black: Level up to which the picture is black, 0..255.
        shade: uint8 (48,).
        table: uint8 (256,).
        threads: Processor threads.

    Returns:
        `sketch`.
    """
    tables = np.concatenate([shade, table])
    _native.look(_rows(gray), sketch, black, tables, threads, isa())
    return sketch


def isas() -> tuple[str, ...]:
    """Return the instruction sets that this processor can run, the fastest last."""
    return tuple(_native.isas())


@functools.cache
def isa() -> str:
    """Return the instruction set in use: SKETCHIFY_ISA if set, else the fastest of `isas()`.

    Raises:
        BackendUnavailable: This processor does not have the one that SKETCHIFY_ISA names.
    """
    selected = os.environ.get("SKETCHIFY_ISA") or isas()[-1]
    if selected not in isas():
        raise BackendUnavailable(
            f"SKETCHIFY_ISA is not an instruction set of this processor: got {selected!r}, "
            f"expected {', '.join(isas())}. To fix: set one of these, or unset it"
        )
    return selected


def vnni() -> bool:
    """Return whether the processor has dot products of 8-bit integers (AVX-512 VNNI or AVX-VNNI).

    The result does not depend on `isa()`. It is False on ARM: there OpenVINO is slower in INT8 than
    in float32 if convolutions have few channels (ARM-software/ComputeLibrary, issue 1225).
    """
    return _native.vnni()


def _result(source: NDArray[np.generic]) -> Gray:
    return np.empty(source.shape, np.uint8)


def _rows(array: NDArray[T]) -> NDArray[T]:
    """Return the array, copied unless the pixels of each row are adjacent and aligned."""
    adjacent = array.strides[1] == array.itemsize and array.flags.aligned
    # Not ascontiguousarray, for which a single column is contiguous whatever its stride.
    return array if adjacent else array.copy(order="C")
