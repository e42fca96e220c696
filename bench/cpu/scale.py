"""How much `python -m bench all` measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes and counts.

    seconds, rounds: of each comparison, at least. unet_seconds, rest: of each comparison of the
    U-Net, and before each run of it; a virtual machine with AMX took 40 ms for one run in INT8 and
    70 for the next, so that few rounds tell little. height, width: of a page. compiling: whether
    torch.compile takes part. paper: width and depth of the U-Net of the paper. pages: JPEG files of
    a job in mode sketch; dodge_pages: in mode dodge, where Python's start would be most of less.
    megapixels: sizes of one image. files: counts of small ones. batch: pages handed to
    `Sketchifier.map` at once. starts: how often a process is started for its median. rembg: Python
    interpreter of an environment that has rembg, else "".
    """

    seconds: float = 3.0
    rounds: int = 5
    unet_seconds: float = 60.0
    rest: float = 0.3
    height: int = 1401
    width: int = 992
    compiling: bool = True
    paper: tuple[int, int] = (64, 4)
    pages: int = 12
    dodge_pages: int = 120
    megapixels: tuple[float, ...] = (0.1, 1, 10, 100)
    files: tuple[int, ...] = (1, 10, 100, 1000, 10_000)
    batch: tuple[int, ...] = (1, 4, 16)
    starts: int = 9
    rembg: str = ""


QUICK = Scale(
    seconds=0.3,
    unet_seconds=3,
    rounds=3,
    compiling=False,
    pages=4,
    dodge_pages=12,
    megapixels=(0.1, 1, 10),
    files=(1, 10, 100),
    starts=3,
)
