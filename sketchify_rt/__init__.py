"""Pencil sketches from illustrations and manga pages.

>>> from sketchify_rt import sketchify
>>> sketch = sketchify("page.jpg")  # NumPy uint8 (H, W)

Names are imported on first use, so that importing the package is quick and pulls in no backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sketchify_rt.batch.api import JobSettings, convert_folder
    from sketchify_rt.batch.runner import Outcome, Report
    from sketchify_rt.errors import (
        BackendUnavailable,
        DecodeError,
        DeviceMemoryError,
        EncodeError,
        EngineError,
        InputError,
        ModelError,
        OptionsError,
        OutputError,
        SketchifyError,
    )
    from sketchify_rt.integrations.transform import SketchTransform
    from sketchify_rt.models import available_models
    from sketchify_rt.options import Encoding, Options
    from sketchify_rt.sketchifier import Sketchifier, sketchify

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "DecodeError",
    "DeviceMemoryError",
    "EncodeError",
    "Encoding",
    "EngineError",
    "InputError",
    "JobSettings",
    "ModelError",
    "Options",
    "OptionsError",
    "Outcome",
    "OutputError",
    "Report",
    "SketchTransform",
    "Sketchifier",
    "SketchifyError",
    "__version__",
    "available_models",
    "convert_folder",
    "sketchify",
]

_HOME = {
    "Sketchifier": "sketchifier",
    "sketchify": "sketchifier",
    "available_models": "models",
    "convert_folder": "batch.api",
    "JobSettings": "batch.api",
    "Outcome": "batch.runner",
    "Report": "batch.runner",
    "SketchTransform": "integrations.transform",
    "Options": "options",
    "Encoding": "options",
}


if not TYPE_CHECKING:  # to mypy all other names would exist as well

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{_HOME.get(name, 'errors')}")
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
