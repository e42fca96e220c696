"""Places what the shipped models paint beside the dodge filter, for the README and their cards.

python -m docs.models OUT.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from docs.figure import figure
from sketchify_rt import Sketchifier

# Left, top, right, bottom in pixels.
_CROPS = {
    "samples/pages/001.png": (225, 330, 745, 680),
    "samples/lake.jpg": (340, 200, 860, 550),
}
_WAYS = {
    "dodge filter": Sketchifier(mode="dodge"),
    "lite": Sketchifier(),
    "full": Sketchifier(model="full"),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    rows = [
        [Image.fromarray(way(path)).crop(box) for way in _WAYS.values()]
        for path, box in _CROPS.items()
    ]
    figure(rows, list(_WAYS), 1200).convert("L").save(parser.parse_args().out, optimize=True)
