"""The kernels in Triton: the same bytes as `reference`, on an NVIDIA GPU from sm_80 on.

A batch is a sequence of device images, uint8 (H, W), of any sizes; one launch works on all of them,
on torch's current stream. Where TRITON_INTERPRET=1 was set before the import, on the processor.

A blur is two products with a band matrix, down the columns and across the rows, on the tensor
cores: summing 19 taps twice on the scalar units takes some 60 instructions a pixel, by estimate,
and would hold the filter to an eighth of the speed of the memory. The products are exact:
- A pixel p, put into the low bits of a float16, is the subnormal number p / 2**24: no conversion.
- The weights are whole numbers, down the columns 256 times as large, so that a blur comes out in
  levels. It is a multiple of 2**-16 below 256, as is every partial sum on the way: FP32 has the 24
  bits for it, and tensor cores align what they add to at least as many.
- Sums down the columns are too long for a float16 but not for two, the upper 11 bits and the rest.

A program walks along a strip of 64 rows from left to right, 64 columns a step, so that every sum
down a column is computed once. Its step takes 21 instructions a pixel for dodge and 26 for
binarize, where rows start at multiples of 16 bytes and the border is not near, and two to three
times as many elsewhere (counted in the SASS for sm_90). `tensors.empty` makes images of such rows.
"""

# Triton has no types for what is inside of a kernel.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sketchify_rt.kernels import ragged
from sketchify_rt.kernels.reference import GAUSS_9, GAUSS_21

_ROWS = 64  # of a strip; those of binarize overlap, for its median sees a row more on each side
_STEP = 64  # columns
_LONGEST = 8  # steps of a strip, which begins with half a step of work in vain
_ENOUGH = 1024  # programs to keep the largest card busy: strips are shortened to have as many
# A product and a sum are fused where a kernel says so alone: it rounds once instead of twice.
_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
# Registers are limited so that four programs fit on a multiprocessor, or three of binarize, and
# some compute while others wait. What is spilled is spilled where borders are near.
_BINARIZE_OPTIONS = _OPTIONS | {"maxnreg": 168}
_DODGE_OPTIONS = _OPTIONS | {"maxnreg": 128}
_BAND_ROW = 128
_PAPER = 256  # strength in steps of 1/256: nothing changes

ROWS = tl.constexpr(_ROWS)
STEP = tl.constexpr(_STEP)
HALF = tl.constexpr(_STEP // 2)
MEDIAN_ROWS = tl.constexpr(_ROWS - 2)
BAND_ROW = tl.constexpr(_BAND_ROW)
COLUMNS = tl.constexpr(ragged.COLUMNS)
# Adding one of these rounds to whole levels, halves to even, and leaves them in the lowest bits.
LEVELS = tl.constexpr(1.5 * 2**23)
LEVELS_BITS = tl.constexpr(0x4B400000)
LEVELS_OVER_256 = tl.constexpr(1.5 * 2**15)


def binarize(images: Sequence[Tensor], *, out: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Black contours on white: an adaptive threshold, then a 3x3 median.

    images: uint8 (H, W) each, on one device, at most 65,535. out: uint8 (H, W) each, the pixels of
    a row adjacent, apart from the images in memory. Returns uint8 (H, W) each, 0 or 255; `out` if
    given, or else views of one buffer. Raises InputError.
    """
    if len(images) == 0:
        return []
    images, pages = ragged.sources(images, torch.uint8), ragged.pages(images, out)
    bands = _bands(GAUSS_9, 8, images[0].device)
    _launch(_binarize, images, pages, _ROWS - 2, *bands, **_BINARIZE_OPTIONS)
    return pages


def dodge(
    images: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """A pencil drawing: the image divided by its blur (colour dodge), then line strength.

    strength: see `compose`. The rest is as in `binarize`.
    """
    factor = ragged.steps(strength)
    if len(images) == 0:
        return []
    images, pages = ragged.sources(images, torch.uint8), ragged.pages(images, out)
    bands = _bands(GAUSS_21, 16, images[0].device)
    _launch(
        _dodge,
        images,
        pages,
        _ROWS,
        *bands,
        factor,
        scale=factor != _PAPER,
        **_DODGE_OPTIONS,
    )
    return pages


def compose(
    tones: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Tones of the U-Net to pages of bytes.

    tones: float16 or float32 (H, W) each, 0 is ink and 1 is paper; beyond is clipped, NaN is ink.
    strength: line strength, 0..4, in steps of 1/256: ink is multiplied by it. 1 changes nothing.
    The rest is as in `binarize`. Raises InputError, OptionsError.
    """
    factor = ragged.steps(strength)
    if len(tones) == 0:
        return []
    tones, pages = ragged.sources(tones, torch.float16, torch.float32), ragged.pages(tones, out)
    dtype = tl.float16 if tones[0].dtype == torch.float16 else tl.float32
    scale = factor != _PAPER
    _launch(_compose, tones, pages, _ROWS, factor, dtype=dtype, scale=scale, **_OPTIONS)
    return pages


def _launch(
    kernel: Any,
    images: Sequence[Tensor],
    pages: Sequence[Tensor],
    rows: int,
    *arguments: Any,
    **options: Any,
) -> None:
    """Runs `kernel` on every strip of every image, `rows` of result each, in one launch.

    Programs beyond the strips of their image do nothing.
    """
    sizes = [(-(-image.shape[0] // rows), -(-image.shape[1] // _STEP)) for image in images]
    all_steps = sum(down * across for down, across in sizes)
    steps = max(1, min(_LONGEST, all_steps // _ENOUGH))
    strips = max(down * -(-across // steps) for down, across in sizes)
    with ragged.launching(images[0].device):
        table = ragged.table(images, pages)
        kernel[strips, len(images)](table, steps, *arguments, **options)


@functools.cache
def _bands(taps: tuple[int, ...], center: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two float16 (_ROWS, _BAND_ROW): row i weighs what the i-th of a tile is the blur of.

    `center` is where the 0-th lies among what is weighed. The first is for rows, 256 times as
    large; the second for columns, which are in the order of `_even_first`.
    """
    weights = torch.tensor([tap for tap in taps if tap], dtype=torch.float16)
    band = torch.zeros(_ROWS, _BAND_ROW, dtype=torch.float16)
    for i in range(_ROWS):
        band[i, center + i - len(weights) // 2 :][: len(weights)] = weights
    swapped = band.view(_ROWS, -1, 2, 2).transpose(2, 3).reshape(band.shape)
    return (band * 256).to(device), swapped.to(device)


@triton.jit(do_not_specialize=["steps"])
def _binarize(table, steps, band_down, band_across) -> None:
    height, width, addresses = _image(table)
    top, left, right = _strip(height, width, MEDIAN_ROWS, steps)
    if top >= height:
        return
    bands = _load_bands(band_down, band_across, tl.arange(0, 16))
    image = height, width, top
    high_0, low_0 = _sums(bands, image, addresses, 8, 16, left - 16, True, False, HALF)
    high, low = _sums(bands, image, addresses, 8, 16, left + 16, True, False, HALF)
    paper = _paper(_blur(bands, high_0, low_0, high, low), image, addresses, left - 8, False)
    inner = _inner(left, right, width - 112, addresses)
    fast = _multiples_of_16(addresses)
    high, low, paper = _binarize_steps(high, low, paper, bands, image, fast, left, inner, True)
    _binarize_steps(high, low, paper, bands, image, addresses, inner, right, False)


@triton.jit
def _binarize_steps(high, low, paper, bands, image, addresses, first, last, fast: tl.constexpr):
    """The strip from column `first` to `last`.

    high, low: sums of the columns from first + 16 on; paper: words of those from first - 8 on.
    """
    if fast:
        for column in range(first, last, STEP):
            high_12, low_12 = _sums(bands, image, addresses, 8, 16, column + 48, True, True, STEP)
            high_1, high_2 = _halves(high_12)
            low_1, low_2 = _halves(low_12)
            blur_1 = _blur(bands, high, low, high_1, low_1)
            blur_2 = _blur(bands, high_1, low_1, high_2, low_2)
            paper_1 = _paper(blur_1, image, addresses, column + 24, True)
            paper_2 = _paper(blur_2, image, addresses, column + 56, True)
            words = tl.join(_pair(paper, paper_1), _pair(paper_1, paper_2))
            result = _median(words, image, column)
            _store(result, image, addresses, MEDIAN_ROWS, column, True)
            high = high_2
            low = low_2
            paper = paper_2
    else:
        for column in range(first, last, HALF):
            high_1, low_1 = _sums(bands, image, addresses, 8, 16, column + 48, True, False, HALF)
            blur_1 = _blur(bands, high, low, high_1, low_1)
            paper_1 = _paper(blur_1, image, addresses, column + 24, False)
            result = _median(_pair(paper, paper_1)[:, None], image, column)
            _store(result, image, addresses, MEDIAN_ROWS, column, False)
            high = high_1
            low = low_1
            paper = paper_1
    return high, low, paper


@triton.jit
def _paper(blur, image, addresses, column, fast: tl.constexpr):
    """int32 (ROWS,): of the HALF pixels from `column` on the n-th is bit n, set where it is paper.

    Rows begin above those of the result; pixels outside of the image have any value.
    """
    height, width, top = image
    bits = tl.arange(0, HALF)
    rows = _replicate(top - 1 + tl.arange(0, ROWS), height)
    pixels = _pixels(addresses[0], addresses[1], rows, fast) + (column + bits)[None, :]
    if fast:
        gray = tl.load(pixels).to(tl.int32)
    else:
        inside = (column + bits >= 0) & (column + bits < width)
        gray = tl.load(pixels, mask=inside[None, :], other=0).to(tl.int32)
    # gray - mean > -2, where both are whole numbers in the lowest bits of a float
    mean_less_2 = (blur + (LEVELS - 2)).to(tl.int32, bitcast=True)
    paper = mean_less_2 < (gray | LEVELS_BITS)
    return tl.sum(tl.where(paper, (1 << bits)[None, :], 0), axis=1)


@triton.jit
def _median(words, image, column):
    """uint8 (ROWS, n * HALF), from `column` on: 255 where at least 5 of 3 x 3 are paper.

    words: int64 (ROWS, n), each for HALF pixels, from the 8 before them to the 24 after.
    """
    height, width, top = image
    starts = (column + tl.arange(0, words.shape[1]) * HALF)[None, :]
    # Outside of the image the threshold repeats its border: column -1 is bit 7 of the first word.
    words = tl.where(starts == 0, words & ~128 | words >> 1 & 128, words)
    outside = width - starts + 8
    within = (outside >= 8) & (outside < 64)
    bit = tl.where(within, 1, 0).to(tl.int64) << tl.where(within, outside, 0).to(tl.int64)
    words = words & ~bit | words << 1 & bit
    # Two bits of a count for each pixel: of the three in its row, and then of the nine.
    ones, twos = _count(
        (words >> 7).to(tl.int32), (words >> 8).to(tl.int32), (words >> 9).to(tl.int32)
    )
    counts = _pair(ones, twos)
    rows = top + tl.arange(0, ROWS)
    above = _row_of(counts, rows - 1, height, top)
    here = _row_of(counts, rows, height, top)
    below = _row_of(counts, rows + 1, height, top)
    one, two = _count(above.to(tl.int32), here.to(tl.int32), below.to(tl.int32))
    more, four = _count(
        (above >> 32).to(tl.int32), (here >> 32).to(tl.int32), (below >> 32).to(tl.int32)
    )
    # one + 2 two + 2 more + 4 four >= 5
    five = four & (more | two) | one & (four | more & two)
    bits = tl.arange(0, HALF)[None, None, :]
    paper = tl.reshape(five[:, :, None] >> bits & 1, (ROWS, words.shape[1] * HALF))
    return tl.where(paper != 0, 255, 0).to(tl.uint8)


@triton.jit
def _pair(low, high):
    return high.to(tl.int64) << 32 | low.to(tl.int64) & 0xFFFFFFFF


@triton.jit
def _count(a, b, c):
    """The sum of three bits, in two."""
    return a ^ b ^ c, a & b | c & (a | b)


@triton.jit
def _row_of(counts, rows, height, top):
    """Rows of the image out of those of the threshold, which begin one above the strip."""
    at = tl.minimum(_replicate(rows, height) - (top - 1), ROWS - 1)
    return tl.gather(counts, tl.broadcast_to(at[:, None], counts.shape), 0)


@triton.jit(do_not_specialize=["steps", "factor"])
def _dodge(table, steps, band_down, band_across, factor, scale: tl.constexpr) -> None:
    height, width, addresses = _image(table)
    top, left, right = _strip(height, width, ROWS, steps)
    if top >= height:
        return
    bands = _load_bands(band_down, band_across, tl.arange(0, HALF))
    image = height, width, top
    high, low = _sums(bands, image, addresses, 16, HALF, left - 16, False, False, HALF)
    inner = _inner(left, right, width - 80, addresses)
    fast = _multiples_of_16(addresses)
    high, low = _dodge_steps(high, low, bands, image, fast, left, inner, factor, scale, True)
    _dodge_steps(high, low, bands, image, addresses, inner, right, factor, scale, False)


@triton.jit
def _dodge_steps(
    high, low, bands, image, addresses, first, last, factor, scale: tl.constexpr, fast: tl.constexpr
):
    """As `_binarize_steps`; high, low: sums of the columns from first - 16 on."""
    if fast:
        for column in range(first, last, STEP):
            high_12, low_12 = _sums(
                bands, image, addresses, 16, HALF, column + 16, False, True, STEP
            )
            high_1, high_2 = _halves(high_12)
            low_1, low_2 = _halves(low_12)
            blur_1 = _blur(bands, high, low, high_1, low_1)
            _divide(blur_1, image, addresses, column, factor, scale, True)
            blur_2 = _blur(bands, high_1, low_1, high_2, low_2)
            _divide(blur_2, image, addresses, column + HALF, factor, scale, True)
            high = high_2
            low = low_2
    else:
        for column in range(first, last, HALF):
            high_1, low_1 = _sums(
                bands, image, addresses, 16, HALF, column + 16, False, False, HALF
            )
            blur_1 = _blur(bands, high, low, high_1, low_1)
            _divide(blur_1, image, addresses, column, factor, scale, False)
            high = high_1
            low = low_1
    return high, low


@triton.jit
def _divide(blur, image, addresses, column, factor, scale: tl.constexpr, fast: tl.constexpr):
    """Writes 256 times the image over its blur, rounded, as ink of a strength."""
    height, width, top = image
    rows = _replicate(top + tl.arange(0, ROWS), height)
    columns = column + tl.arange(0, HALF)
    pixels = _pixels(addresses[0], addresses[1], rows, fast) + columns[None, :]
    if fast:
        gray = tl.load(pixels).to(tl.float32)
    else:
        gray = tl.load(pixels, mask=(columns < width)[None, :], other=0).to(tl.float32)
    rounded = tl.floor(blur + 0.5)
    # Fractions of 256 a / b + 1/2 are multiples of 1 / 2b. What is added to the root lifts them by
    # less than half of that, and by more than all roundings together: halves go up, and no other
    # quotient changes its whole number. In units of 256 levels; infinite where the blur is 0.
    root = tl.rsqrt(rounded)
    quotient = tl.fma(tl.fma(gray, root, 2.0**-14), root, LEVELS_OVER_256)
    capped = tl.minimum(quotient, LEVELS_OVER_256 + 255 / 256)
    levels = tl.where(rounded > 0, capped.to(tl.int32, bitcast=True) & 255, 0)
    if scale:
        levels = _scale_ink(levels, factor)
    _store(levels.to(tl.uint8), image, addresses, ROWS, column, fast)


@triton.jit(do_not_specialize=["steps", "factor"])
def _compose(table, steps, factor, dtype: tl.constexpr, scale: tl.constexpr) -> None:
    height, width, addresses = _image(table)
    top, left, right = _strip(height, width, ROWS, steps)
    if top >= height:
        return
    image = height, width, top
    inner = _inner(left, right, width - STEP, addresses)
    _compose_steps(image, _multiples_of_16(addresses), left, inner, factor, dtype, scale, True)
    _compose_steps(image, addresses, inner, right, factor, dtype, scale, False)


@triton.jit
def _compose_steps(
    image,
    addresses,
    first,
    last,
    factor,
    dtype: tl.constexpr,
    scale: tl.constexpr,
    fast: tl.constexpr,
):
    height, width, top = image
    rows = _replicate(top + tl.arange(0, ROWS), height).to(tl.int64)
    source = addresses[0].to(tl.pointer_type(dtype))
    if fast:
        source = tl.multiple_of(source, 16)
    source += (rows * addresses[1])[:, None]
    for column in range(first, last, STEP):
        columns = column + tl.arange(0, STEP)[None, :]
        if fast:
            tones = tl.load(source + columns).to(tl.float32)
        else:
            tones = tl.load(source + columns, mask=columns < width, other=0).to(tl.float32)
        clipped = tl.where(tones > 0, tl.minimum(tones, 1.0), 0.0)  # NaN is not greater
        levels = (clipped * 255 + LEVELS).to(tl.int32, bitcast=True) & 255
        if scale:
            levels = _scale_ink(levels, factor)
        _store(levels.to(tl.uint8), image, addresses, ROWS, column, fast)


@triton.jit
def _scale_ink(levels, factor):
    return 255 - tl.minimum(255, ((255 - levels) * factor + 128) >> 8)


@triton.jit
def _image(table):
    """Height and width of the program's image, and (source, row stride, page, row stride)."""
    entry = table + tl.program_id(1) * COLUMNS
    height = tl.load(entry + 2).to(tl.int32)
    width = tl.load(entry + 3).to(tl.int32)
    return (
        height,
        width,
        (
            tl.load(entry),
            tl.load(entry + 4),
            tl.load(entry + 1),
            tl.load(entry + 5),
        ),
    )


@triton.jit
def _multiples_of_16(addresses):
    """The same numbers where they are multiples, and the compiler knows it."""
    source, source_stride, page, page_stride = addresses
    return (
        tl.multiple_of(source // 16 * 16, 16),
        tl.multiple_of(source_stride // 16 * 16, 16),
        tl.multiple_of(page // 16 * 16, 16),
        tl.multiple_of(page_stride // 16 * 16, 16),
    )


@triton.jit
def _inner(left, right, limit, addresses):
    """Steps from `left` to this column may be fast: they begin at `limit` at most."""
    source, source_stride, page, page_stride = addresses
    aligned = (source | source_stride | page | page_stride) % 16 == 0
    end = tl.minimum((limit + STEP) // STEP * STEP, right // STEP * STEP)
    return tl.where(aligned, tl.maximum(end, left), left)


@triton.jit
def _strip(height, width, size: tl.constexpr, steps):
    """First row, first and last column of the program's strip; beyond `height` if there is none."""
    length = steps * STEP
    across = tl.cdiv(width, length)
    left = tl.program_id(0) % across * length
    return tl.program_id(0) // across * size, left, tl.minimum(left + length, width)


@triton.jit
def _load_bands(band_down, band_across, far):
    """Weights of the ROWS rows and of those `far` after them, of HALF columns and of the next."""
    rows = (tl.arange(0, ROWS) * BAND_ROW)[:, None]
    half = tl.arange(0, HALF)
    across = band_across + (half * BAND_ROW)[:, None] + half[None, :]
    return (
        tl.load(band_down + rows + tl.arange(0, ROWS)[None, :]),
        tl.load(band_down + rows + ROWS + far[None, :]),
        tl.trans(tl.load(across)),
        tl.trans(tl.load(across + HALF)),
    )


@triton.jit
def _sums(
    bands,
    image,
    addresses,
    before: tl.constexpr,
    far_rows: tl.constexpr,
    column,
    replicate: tl.constexpr,
    fast: tl.constexpr,
    size: tl.constexpr,
):
    """Columns from `column` on, each blurred along itself: two float16 (ROWS, size) to add up."""
    height, width, top = image
    first = top - before - (1 if replicate else 0)
    near = first + tl.arange(0, ROWS)
    far = first + ROWS + tl.arange(0, far_rows)
    if replicate:
        near = _replicate(near, height)
        far = _replicate(far, height)
    else:
        near = _reflect(near, height)
        far = _reflect(far, height)
    near_pixels = _pixels(addresses[0], addresses[1], near, fast)
    far_pixels = _pixels(addresses[0], addresses[1], far, fast)
    if fast:
        near_values = _words(near_pixels + column, size)
        far_values = _words(far_pixels + column, size)
    else:
        columns = column + _even_first(tl.arange(0, size))
        columns = _replicate(columns, width) if replicate else _reflect(columns, width)
        near_values = _subnormal(tl.load(near_pixels + columns[None, :]))
        far_values = _subnormal(tl.load(far_pixels + columns[None, :]))
    sums = tl.dot(bands[1], far_values, tl.dot(bands[0], near_values))
    upper = (sums.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return upper.to(tl.float16), (sums - upper).to(tl.float16)


@triton.jit
def _words(pixels, size: tl.constexpr):
    """`size` pixels from each pointer on, four a word, in the order of `_even_first`.

    So that two masks spread the bytes of a word: its own order would take three times as many
    instructions.
    """
    words = tl.load(pixels.to(tl.pointer_type(tl.uint32)) + tl.arange(0, size // 4)[None, :])
    even = words & 0x00FF00FF
    odd = words >> 8 & 0x00FF00FF
    lower = tl.join(_subnormal(even), _subnormal(odd))
    upper = tl.join(_subnormal(even >> 16), _subnormal(odd >> 16))
    return tl.reshape(tl.join(lower, upper), (words.shape[0], size))


@triton.jit
def _even_first(columns):
    """Columns 0 2 1 3, 4 6 5 7, ..."""
    return columns & ~3 | (columns & 1) << 1 | columns >> 1 & 1


@triton.jit
def _subnormal(bits):
    return bits.to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def _halves(sums):
    """The left and the right HALF of the columns."""
    return tl.split(tl.permute(tl.reshape(sums, (ROWS, 2, HALF)), (0, 2, 1)))


@triton.jit
def _blur(bands, high_left, low_left, high_right, low_right):
    """float32 (ROWS, HALF), in levels, exact."""
    blur = tl.dot(high_left, bands[2])
    blur = tl.dot(high_right, bands[3], blur)
    blur = tl.dot(low_left, bands[2], blur)
    return tl.dot(low_right, bands[3], blur)


@triton.jit
def _pixels(address, stride, rows, fast: tl.constexpr):
    pixels = address.to(tl.pointer_type(tl.uint8))
    if fast:
        pixels = tl.multiple_of(pixels, 16)
    return pixels + (rows.to(tl.int64) * stride)[:, None]


@triton.jit
def _store(values, image, addresses, size: tl.constexpr, column, fast: tl.constexpr):
    """Writes the first `size` rows, and what is inside of the image."""
    height, width, top = image
    rows = top + tl.arange(0, ROWS)
    columns = column + tl.arange(0, values.shape[1])
    inside = (rows < tl.minimum(top + size, height))[:, None]
    if not fast:
        inside = inside & (columns < width)[None, :]
    tl.store(
        _pixels(addresses[2], addresses[3], rows, fast) + columns[None, :], values, mask=inside
    )


@triton.jit
def _replicate(index, length):
    return tl.minimum(tl.maximum(index, 0), length - 1)


@triton.jit
def _reflect(index, length):
    """Mirrored at the middle of the first and the last pixel, again and again."""
    period = tl.maximum(2 * (length - 1), 1)
    index = tl.abs(index) % period
    return tl.minimum(index, period - index)
