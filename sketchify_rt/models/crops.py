"""Crops of binary pictures, on which an engine is compared with the model it was built from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

FILE = Path(__file__).with_suffix(".npz")  # `python -m samples.draw.crops` writes it


def crops() -> npt.NDArray[np.uint8]:
    """Line art, hatching, hair, leaves, screentone and empty sky: uint8 (8, 512, 512), 0 or 255."""
    with np.load(FILE) as file:
        return np.unpackbits(file["bits"], axis=-1) * np.uint8(255)
