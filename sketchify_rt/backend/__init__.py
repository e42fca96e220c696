"""Backends: where the pixels live and which functions work on them there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sketchify_rt.errors import BackendUnavailable
from sketchify_rt.image import Gray
from sketchify_rt.models import Model
from sketchify_rt.options import Encoding, Precision

if TYPE_CHECKING:
    import PIL.Image

    from sketchify_rt.runtime.openvino import Tones


class Kernel(Protocol):
    """A filter from uint8 (H, W) to uint8 (H, W)."""

    def __call__(self, gray: Gray, *, threads: int) -> Gray: ...  # noqa: D102


class ToneKernel(Protocol):
    """A filter from uint8 (H, W) to pencil tones, uint8 (H, W), inked `strength` times."""

    def __call__(self, gray: Gray, *, strength: float, threads: int) -> Gray: ...  # noqa: D102


class Compose(Protocol):
    """Tones float32 (H, W), 0..1, into uint8 `out` of that size, inked `strength` times."""

    def __call__(  # noqa: D102
        self, tones: Tones, strength: float, *, threads: int, out: Gray
    ) -> Gray: ...


Runtime = Callable[[Gray], "Tones"]
"""The U-Net: uint8 (N, H, W), 0 or 255, multiples of its stride, to float32 (N, H, W) in 0..1."""


@dataclass(frozen=True)
class Backend:
    """One device's functions, one for each step of the way.

    Their shapes and values are those of ``codec``, ``kernels`` and ``runtime``.

    name: "cpu"; note: what `auto` fell back from and why, for the user to see, or None.
    """

    name: str
    decode: Callable[[bytes, str, int], Gray]
    from_pil: Callable[[PIL.Image.Image], Gray]
    binarize: Kernel
    dodge: ToneKernel
    open_runtime: Callable[[Model, int, int, Precision], Runtime]
    compose: Compose
    encode: Callable[[Gray, Encoding], bytes]
    note: str | None = None


@dataclass(frozen=True)
class BackendInfo:
    """Whether a backend can be used; detail: with what, or why not; remedy: what to do, or ""."""

    name: str
    available: bool
    detail: str
    remedy: str = ""


_CUDA_MISSING = "this version of sketchify-rt has no GPU backend"


def cpu(note: str | None = None) -> Backend:
    """C++ kernels, OpenCV and Pillow, OpenVINO.

    Raises BackendUnavailable where the installation is incomplete, or SKETCHIFY_ISA asks for what
    this processor has not.
    """
    try:
        from sketchify_rt.codec import cpu as codec
        from sketchify_rt.kernels import native
    except ImportError as error:
        raise BackendUnavailable(
            f"cpu: {error}; the installation is incomplete, `pip install --force-reinstall "
            "sketchify-rt` repairs it"
        ) from error
    native.isa()  # a wrong SKETCHIFY_ISA is told here, not for each image
    return Backend(
        name="cpu",
        decode=codec.decode,
        from_pil=codec.from_pil,
        binarize=native.binarize,
        dodge=native.dodge,
        open_runtime=_open_openvino,
        compose=native.compose,
        encode=codec.encode,
        note=note,
    )


def _open_openvino(model: Model, threads: int, workers: int, precision: Precision) -> Runtime:
    # Imported only when a U-Net is to run: the filters alone do without its third of a second.
    try:
        from sketchify_rt.runtime.openvino import OpenVinoRuntime
    except ImportError as error:
        raise BackendUnavailable(f"cpu: {error}; `pip install openvino` mends it") from error
    return OpenVinoRuntime(model, threads, workers, precision)


def select(device: str) -> Backend:
    """The backend for a validated `Options.device`.

    "auto" takes the best there is, and notes what it fell back from where an NVIDIA GPU is in the
    machine. Raises BackendUnavailable where a device asked for by name cannot be had.
    """
    if device.startswith("cuda"):
        raise BackendUnavailable(f"{device}: {_CUDA_MISSING}; use --device cpu or auto")
    gpu_present = device == "auto" and Path("/dev/nvidia0").exists()
    return cpu(
        f"an NVIDIA GPU is present, but {_CUDA_MISSING}: using the CPU" if gpu_present else None
    )


def available() -> list[BackendInfo]:
    """Every backend, whether it can be used here, and what would mend it. Opens none."""
    needed = ("cv2", "PIL", "isal", "openvino", "sketchify_rt._native")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        mend = "pip install --force-reinstall sketchify-rt"
        cpu_info = BackendInfo("cpu", False, f"not installed: {', '.join(missing)}", mend)
    else:
        cpu_info = BackendInfo("cpu", True, "C++ kernels, OpenCV, Pillow, OpenVINO")
    return [cpu_info, BackendInfo("cuda", False, _CUDA_MISSING)]
