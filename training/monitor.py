"""What a run tells while it goes: a log, TensorBoard, a sheet of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from torch.utils.tensorboard import SummaryWriter

from sketchify_rt.files import write
from sketchify_rt.image import Gray

LOG = "log.jsonl"


class Monitor:
    """Writes into the folder of a run. Steps after `first` of an earlier start are forgotten."""

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._board = SummaryWriter(str(folder), purge_step=first + 1)
        path = folder / LOG
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
        kept = [line for line in lines if 0 <= _step(line) <= first]
        write(path, "".join(kept).encode())
        self._log = path.open("a", encoding="utf-8")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        self._board.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """A line of the log, and a point of each curve."""
        self._log.write(json.dumps({"step": step, **values}) + "\n")
        self._log.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, strip: Gray) -> None:
        """A sheet of crops, uint8 (H, W); the latest lies in the folder as well."""
        self._board.add_image("crops", strip, step, dataformats="HW")
        _, data = cv2.imencode(".png", np.ascontiguousarray(strip))
        (self._folder / "crops.png").write_bytes(data.tobytes())


def _step(line: str) -> int:
    """The step that a line of the log tells of, -1 where it tells of none, being cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1
