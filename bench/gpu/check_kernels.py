"""One call of a GPU kernel, compared with the NumPy reference.

A `Case` describes a call in a few words, from which its images are drawn again. So a case that
fails can be made smaller, and the smallest one can be repeated from the file of results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.bench_kernels import page
from sketchify_rt.image import Gray
from sketchify_rt.kernels import reference

Size = tuple[int, int]

# The simplest kernel with a blur comes first: where it is wrong, binarize most likely is as well.
KERNELS = ("dodge", "binarize", "compose")
STRENGTHS = (1.0, 0.0, 1.6, 4.0)

# A strip of the Triton kernels has 64 or 62 rows, and a step 64 columns.
SIZES = ((1, 1), (1, 7), (5, 3), (9, 70), (70, 2), (65, 67), (63, 130), (67, 336), (2, 193))
LARGE = ((3, 40_000), (2000, 1999))
MANY = tuple((1 + i % 131, 1 + i * 7 % 167) for i in range(300))

# "noise" and "faint" differ in contrast: a faint image often ties with its mean. "levels", of tones
# alone, holds every rounding tie, its two neighbours, and special numbers. Simple ones come first.
CONTENTS = ("black", "gray", "edges", "faint", "noise", "page", "levels")
# "plain" is a tensor of its own, "pitched" has rows at multiples of 16 bytes, and "view" is a crop
# of a larger image, written to a crop of a larger page.
LAYOUTS = ("plain", "pitched", "view")
DTYPES = {"uint8": np.uint8, "float32": np.float32, "float16": np.float16}

_SPECIAL = (np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45, 1e38, -1e38, 1.0000001)
_UNTOUCHED = 77  # what pages of "view" are filled with


@dataclass(frozen=True)
class Case:
    """One call of a kernel on a batch.

    Attributes:
        kernel: One of `KERNELS`.
        sizes: Height and width of each image in pixels.
        content: What is drawn, one of `CONTENTS`.
        dtype: Of the images, a key of `DTYPES`: uint8, or for compose a float.
        strength: Line strength, 0..4. binarize has none.
        layout: How the images lie in memory, one of `LAYOUTS`.
    """

    kernel: str
    sizes: tuple[Size, ...]
    content: str = "noise"
    dtype: str = "uint8"
    strength: float = 1.0
    layout: str = "plain"

    @property
    def row(self) -> dict[str, object]:
        """The case as a row of a table; a long list of sizes is cut."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes)
        return vars(self) | {"sizes": sizes if len(sizes) < 120 else f"{sizes[:120]}..."}


@dataclass(frozen=True)
class Difference:
    """How a result differs from the reference.

    Attributes:
        wrong: Number of wrong pixels.
        outside: Number of pixels that were written outside of the pages.
        first: The first wrong pixel, and what it is and should be; "" if there is none.
    """

    wrong: int
    outside: int
    first: str


def cases(kernel: str, page_size: Size) -> Iterator[Case]:
    """The calls to check for one kernel, small ones first."""
    floats = ("float32", "float16")
    for dtype in floats if kernel == "compose" else ("uint8",):
        base = Case(kernel, SIZES, dtype=dtype)
        yield base
        yield from (replace(base, content=content) for content in CONTENTS[:4])
        yield from (replace(base, layout=layout) for layout in LAYOUTS[1:])
        strengths = () if kernel == "binarize" else STRENGTHS[1:]
        yield from (replace(base, strength=strength) for strength in strengths)
        if kernel == "compose":
            yield from (replace(base, content="levels", strength=each) for each in STRENGTHS)
        whole = Case(kernel, (page_size,), "page", dtype, layout="pitched")
        yield from (replace(whole, layout=layout) for layout in LAYOUTS)
        yield Case(kernel, LARGE, "edges", dtype, layout="pitched")
        yield Case(kernel, MANY, dtype=dtype)


def difference(module: Any, case: Case, device: torch.device) -> Difference | None:
    """Runs one case.

    Args:
        module: Module or object with the functions `dodge`, `binarize` and `compose`.
        case: What to run.
        device: Where to run it.

    Returns:
        How the result differs from the reference; None if all is equal.
    """
    arrays = [draw(case, size) for size in case.sizes]
    images = [_placed(array, case.layout, device) for array in arrays]
    strength = () if case.kernel == "binarize" else (case.strength,)
    sheets, out = _pages(case, device)
    results: Sequence[Tensor] = getattr(module, case.kernel)(images, *strength, out=out)
    expected = getattr(reference, case.kernel)
    wrong, first = 0, ""
    for index, (result, array) in enumerate(zip(results, arrays, strict=True)):
        source = array if array.dtype == np.uint8 else array.astype(np.float32)
        count, told = _compared(result.cpu().numpy(), expected(source, *strength))
        wrong += count
        if told and not first:
            first = f"image {index}, {told}"
    outside = _outside(sheets, out or ())
    return Difference(wrong, outside, first) if wrong or outside else None


def draw(case: Case, size: Size) -> NDArray[Any]:
    """One image of the case, of its dtype, (H, W)."""
    if case.content == "levels":
        ties = np.arange(511, dtype=np.float32) / np.float32(2 * 255)
        nearby = np.concatenate([ties, np.nextafter(ties, 2), np.nextafter(ties, -1), _SPECIAL])
        with np.errstate(over="ignore"):
            return np.resize(nearby, size).astype(DTYPES[case.dtype])
    gray = _DRAWN[case.content](*size)
    if case.dtype == "uint8":
        return gray
    # Some tones are below 0 and some above 1.
    return (gray / np.float32(230) - np.float32(0.05)).astype(DTYPES[case.dtype])


def _edges(height: int, width: int) -> Gray:
    gray = np.zeros((height, width), np.uint8)
    gray[height // 2 :, : width // 2] = 255
    gray[5 % height, width - 1 - 5 % width] = 255
    gray[0, 0] = 9
    return gray


def _noise(height: int, width: int) -> Gray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width), np.uint8)


_DRAWN: dict[str, Callable[[int, int], Gray]] = {
    "black": lambda height, width: np.zeros((height, width), np.uint8),
    "gray": lambda height, width: np.full((height, width), 128, np.uint8),
    "edges": _edges,
    "faint": lambda height, width: _noise(height, width) % np.uint8(7) + np.uint8(120),
    "noise": _noise,
    "page": lambda height, width: page(height, width, None),
}


def _placed(array: NDArray[Any], layout: str, device: torch.device) -> Tensor:
    height, width = array.shape
    image = torch.from_numpy(array).to(device)
    if layout == "plain":
        return image
    if layout == "pitched":
        target = image.new_zeros(height, -(-width // 16) * 16)[:, :width]
    else:
        target = image.new_zeros(height + 3, width + 6)[2 : 2 + height, 5 : 5 + width]
    return target.copy_(image)


def _pages(case: Case, device: torch.device) -> tuple[list[Tensor], list[Tensor] | None]:
    """Sheets of `_UNTOUCHED` and the pages cut from them, for the layout "view" alone."""
    if case.layout != "view":
        return [], None
    sheets = [
        torch.full((height + 4, width + 9), _UNTOUCHED, dtype=torch.uint8, device=device)
        for height, width in case.sizes
    ]
    return sheets, [sheet[1:-3, 3:-6] for sheet in sheets]


def _compared(result: Gray, expected: Gray) -> tuple[int, str]:
    """The number of wrong pixels, and the first one in words."""
    if result.dtype != np.uint8 or result.shape != expected.shape:
        return expected.size, f"got {result.dtype} {result.shape}, expected uint8 {expected.shape}"
    wrong = np.argwhere(result != expected)
    if not len(wrong):
        return 0, ""
    row, column = (int(place) for place in wrong[0])
    got, right = int(result[row, column]), int(expected[row, column])
    return len(wrong), f"row {row}, column {column}: got {got}, expected {right}"


def _outside(sheets: Sequence[Tensor], pages: Sequence[Tensor]) -> int:
    for target in pages:
        target.fill_(_UNTOUCHED)
    return sum(int((sheet != _UNTOUCHED).sum()) for sheet in sheets)
