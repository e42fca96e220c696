"""Pack a folder of pages into two files that training reads without decoding."""

from __future__ import annotations

import json
from pathlib import Path

from tqdm import tqdm

from sketchify_rt.codec import cpu as codec
from sketchify_rt.options import MAX_PIXELS
from training.pages import INDEX, PIXELS


def prepare(source: Path, output: Path) -> int:
    """Decode every file below `source` to luma and pack it into `output`; returns their number.

    Raises FileNotFoundError where `source` holds no file, DecodeError where one is no image.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"{source}: no files there")
    output.mkdir(parents=True, exist_ok=True)
    index = []
    with (output / PIXELS).open("wb") as pixels:
        for path in tqdm(files, unit="page"):
            gray = codec.decode(path.read_bytes(), str(path), MAX_PIXELS)
            pixels.write(gray.tobytes())
            name = path.relative_to(source).as_posix()
            index.append({"name": name, "height": gray.shape[0], "width": gray.shape[1]})
    (output / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return len(index)
