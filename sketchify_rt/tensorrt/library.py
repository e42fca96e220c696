"""NVIDIA's library, as `trt`, and its log.

Importing this module raises BackendUnavailable where TensorRT is not installed. The lean runtime
will do for engines that were built with `--version-compatible`; it cannot build.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from sketchify_rt.errors import BackendUnavailable

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["LOG", "Log", "checked", "trt"]

T = TypeVar("T")

log = logging.getLogger("sketchify_rt")

# The last is the package of bindings alone, which the one before it wraps.
_LIBRARIES = ("tensorrt", "tensorrt_lean", "tensorrt_lean_bindings")
_KEPT = 64  # errors
_TOLD = 4  # TensorRT tells the cause first, and then once more at each level of calls


def _library() -> ModuleType:
    reason: Exception | None = None
    for name in _LIBRARIES:
        try:
            module = importlib.import_module(name)
            if hasattr(module, "IProgressMonitor"):
                return module
            raise ImportError(f"{name} is not TensorRT, or older than 10")
        except (ImportError, OSError) as error:  # OSError: its shared libraries cannot be loaded
            reason = reason or error
    raise BackendUnavailable(
        f"TensorRT is not installed ({reason}). To fix: `pip install tensorrt-cu13 "
        "--extra-index-url https://pypi.nvidia.com`; see docs/engines.md"
    ) from reason


if not TYPE_CHECKING:
    trt = _library()

# All others are INFO. An error matters only if TensorRT's call fails; then our message has it.
_LEVELS = {trt.ILogger.WARNING: logging.WARNING, trt.ILogger.VERBOSE: logging.DEBUG}


class Log(trt.ILogger):  # type: ignore[misc]  # its types are not always there
    """Passes TensorRT's messages on to logging, and keeps its last errors. Thread-safe."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._errors: deque[tuple[int, str]] = deque(maxlen=_KEPT)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Take a message from TensorRT."""
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self._errors.append((get_ident(), msg))
        log.log(_LEVELS.get(severity, logging.INFO), "TensorRT: %s", msg)

    def words(self, of_all: bool = False) -> str:
        """Return the last errors since the last call, in TensorRT's words; "" if there are none.

        Args:
            of_all: Those of all threads, since a builder has threads of its own; else of this one.
        """
        here, words = get_ident(), []
        for error in list(self._errors):
            thread, message = error
            if of_all or thread == here:
                words.append(message)
                with suppress(ValueError):  # another thread took it
                    self._errors.remove(error)
        return "; ".join(words[-_TOLD:])


# TensorRT keeps the first logger that it is given, for all that is made while it is in use, and
# forever: so there is one, which is never freed.
LOG = Log()
ctypes.pythonapi.Py_IncRef(ctypes.py_object(LOG))


def checked(make: Callable[[], T]) -> T:
    """Return what `make` returns, if it works.

    Without a driver TensorRT 11.4 tells that in its log only. The object that it returns ends the
    process with a segmentation fault when it is used, and even when it is freed: so it never is.

    Args:
        make: Makes a Runtime or a Builder that writes to `LOG`.

    Raises:
        BackendUnavailable: It does not work.
    """
    LOG.words()
    try:
        made = make()
    except TypeError as error:  # pybind11, of a null pointer
        words = LOG.words() or str(error)
    else:
        words = LOG.words()
        if not words:
            return made
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    raise BackendUnavailable(
        f"TensorRT {trt.__version__} does not work here: {words}. `nvidia-smi` shows driver and "
        "GPU, and docs/engines.md which driver TensorRT needs"
    )
