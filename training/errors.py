"""What the training package raises on purpose."""

from __future__ import annotations

from sketchify_rt.errors import SketchifyError


class TrainingError(SketchifyError):
    """The message names the file or option, what is wrong and what to do."""
