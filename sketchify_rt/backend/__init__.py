"""Backends: where the pixels live, and the functions that work on them there."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from sketchify_rt import packages
from sketchify_rt.codec.header import File
from sketchify_rt.errors import BackendUnavailable, DecodeError, EncodeError
from sketchify_rt.models import Model
from sketchify_rt.options import Encoding, Look, Options, Precision
from sketchify_rt.painter import Image, Images, Painter

INSTALL = "pip install 'sketchify-rt[gpu]'"

_DEV = Path("/dev")


class Backend(Protocol):
    """One device: a function for each step of the way, each for several images at once.

    `threads` are processor threads. Values are those of ``codec``, ``kernels`` and ``runtime``.

    Attributes:
        name: For messages.
        note: What `auto` fell back from, or what is done without; for the user to see.
        batch: Images that one worker carries together.
        pixels: Of the images that one worker carries together, unless one alone has more; None for
            any.
        workers: Batches carried at the same time, unless told otherwise.
        most_workers: Batches that can be carried at the same time.
        splits_threads: Whether the calls of a painter share processor threads. Then fewer calls
            need another painter to use all threads.
    """

    name: str
    note: str | None
    batch: int
    pixels: int | None
    workers: int
    most_workers: int
    splits_threads: bool

    def precision(self, model: Model) -> Precision:
        """Returns what the option is for the model: "auto" only if an engine decides."""

    def lane(self, beside: bool) -> AbstractContextManager[None]:
        """Queues the work of one batch: beside that of other workers, or after the caller's."""

    def place(self, pixels: Sequence[Image]) -> list[Image | Exception]:
        """Returns images of this device; an InputError in the place of each that cannot be one.

        Args:
            pixels: Luma on the host, uint8 (H, W), or tensors that speak DLPack, of the shapes and
                channels of `image.to_luma`, which are not copied through the host.
        """

    def give(self, images: Images, on_device: bool) -> Images:
        """Returns results for the caller: tensors of this device, or else arrays of the host."""

    def decode(
        self, files: Sequence[File], max_pixels: int, threads: int
    ) -> Sequence[Image | DecodeError]:
        """Returns the luma of image files; an error in the place of each that cannot be read."""

    def resize(self, image: Image, height: int, width: int) -> Image:
        """Returns the image at another size, within 1 level of `kernels.reference.resize`."""

    def enlarge(self, image: Image, height: int, width: int) -> Image:
        """Returns a sketch at a larger size, within 1 level of `image.enlarge`."""

    def binarize(self, images: Images, threads: int) -> Images:
        """Returns the black contours of each image."""

    def page(self, image: Image, whole: Image, always: bool) -> Image | None:
        """Returns an image as its own binary, see `bilevel.page`."""

    def dodge(self, images: Images, strength: float, threads: int) -> Images:
        """Returns the pencil drawing of each image by the classic filter."""

    def hint(self, images: Images, binaries: Images, threads: int) -> Images:
        """Returns how dark strokes are in each cell of each image, see `kernels.reference.hint`."""

    def look(self, sketch: Image, gray: Image, look: Look) -> Image:
        """Gives a sketch a look, see `looks.tables`. Overwrites the sketch."""

    def open_painter(self, model: Model, threads: int, workers: int) -> Painter:
        """Opens the U-Net for `workers` calls at the same time that share `threads`."""

    def encode(
        self, images: Images, encoding: Encoding, threads: int
    ) -> Sequence[bytes | EncodeError]:
        """Returns files of images; an error in the place of each that the format cannot hold."""

    def exhausted(self, error: BaseException) -> bool:
        """Whether the error says that the device's memory is full. Changes nothing."""

    def release(self, *, close: bool = False) -> None:
        """Frees memory that is kept for later, as before a retry. close: and ends threads."""


@dataclass(frozen=True)
class BackendInfo:
    """Whether a backend can be used.

    Attributes:
        name: "cpu" or "cuda".
        available: Whether it can be used.
        detail: With what, or why not.
        remedy: What to do, or "".
    """

    name: str
    available: bool
    detail: str
    remedy: str = ""


def _cpu(options: Options, note: str | None = None) -> Backend:
    """C++ kernels, OpenCV and Pillow, OpenVINO.

    Raises BackendUnavailable where the installation is incomplete, or SKETCHIFY_ISA asks for what
    this processor has not.
    """
    try:
        from sketchify_rt.backend.cpu import CpuBackend
    except ImportError as error:
        raise BackendUnavailable(f"cpu: {error}. {_why_incomplete()}") from error
    return CpuBackend(options, note)


def _why_incomplete(package: Path = Path(__file__).parent.parent) -> str:
    """Returns why a package lacks a part of itself, and the remedy."""
    checkout = package.parent
    if (checkout / "csrc").is_dir():
        # Python looks into the current folder first.
        return (
            f"The source code in {checkout} was imported, whose C++ kernels are not compiled, "
            "rather than an installed sketchify-rt. To fix: run Python in another folder, or "
            f"`pip install -e {checkout}`"
        )
    return "The installation is incomplete. To fix: pip install --force-reinstall sketchify-rt"


def _cuda(options: Options, index: int = 0) -> Backend:
    """Triton or numba kernels, DALI and nvImageCodec, torch, on the NVIDIA GPU of that number.

    Raises BackendUnavailable where there is no such GPU, or what it needs is not installed.
    """
    return _cuda_module().open_cuda(options, index)  # type: ignore[no-any-return]


def _cuda_module() -> ModuleType:
    try:
        return importlib.import_module("sketchify_rt.backend.cuda")
    except ImportError as error:
        seen = "" if _gpu_present() else ", but no NVIDIA GPU is seen here"
        raise BackendUnavailable(f"{error}; `{INSTALL}` installs what it needs{seen}") from error
    except OSError as error:
        raise BackendUnavailable(f"a library cannot be loaded: {error}") from error


def select(options: Options) -> Backend:
    """The backend for validated options.

    "auto" takes the best there is, and notes what it fell back from where an NVIDIA GPU is in the
    machine. Raises BackendUnavailable where a device asked for by name cannot be had.
    """
    device, _, index = options.device.partition(":")
    if device == "cuda":
        try:
            return _cuda(options, int(index or 0))
        except BackendUnavailable as error:
            raise BackendUnavailable(
                f"{options.device}: {error}; or use --device cpu or auto"
            ) from error
    note = None
    if options.of_gpu:
        try:
            return _cuda(options)
        except BackendUnavailable as error:
            what = f"runtime {options.runtime}" if options.engine is None else "engine"
            raise BackendUnavailable(f"{what}: {error}") from error
    if device == "auto" and options.runtime == "auto" and _gpu_present():
        try:
            return _cuda(options)
        except BackendUnavailable as error:
            note = f"an NVIDIA GPU is present, but cannot be used: {error}; using the CPU"
    return _cpu(options, note)


def cuda_device(name: str) -> Any:  # torch.device
    """The torch device "cuda" or "cuda:N", which can be used. Raises BackendUnavailable."""
    return _cuda_module().cuda_device(int(name.partition(":")[2] or 0))


def _gpu_present() -> bool:
    # Importing torch to ask would take two seconds on machines without a GPU, so look for the
    # driver's device files. A container sees only the GPUs that it was given, so there may be no
    # number 0. WSL has dxg.
    return any(any(_DEV.glob(name)) for name in ("nvidiactl", "nvidia[0-9]*", "dxg"))


def available() -> list[BackendInfo]:
    """Every backend, whether it can be used here, and what would mend it.

    Opens a GPU only where a driver is.
    """
    return [_cpu_info(), _cuda_info()]


def _cpu_info() -> BackendInfo:
    needed = ("cv2", "PIL", "isal", "openvino", "sketchify_rt._native")
    missing = [name for name in needed if not packages.installed(name)]
    if missing:
        mend = "pip install --force-reinstall sketchify-rt"
        return BackendInfo("cpu", False, f"not installed: {', '.join(missing)}", mend)
    return BackendInfo("cpu", True, "C++ kernels, OpenCV, Pillow, OpenVINO")


def _cuda_info() -> BackendInfo:
    needed = ("torch", "onnx", "triton", "nvidia.dali", "nvidia.nvimgcodec")
    missing = [name for name in needed if not packages.installed(name)]
    remedy = INSTALL if missing else ""
    if not _gpu_present():
        lacks = f"; not installed: {', '.join(missing)}" if missing else ""
        return BackendInfo("cuda", False, f"no NVIDIA GPU, or no driver for it{lacks}", remedy)
    try:
        return BackendInfo("cuda", True, _cuda_module().describe(), remedy)
    except BackendUnavailable as error:
        return BackendInfo("cuda", False, str(error), remedy)
