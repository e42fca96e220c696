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

ROWS = tl.constexpr(_ROWS)
STEP = tl.constexpr(_STEP)
HALF = tl.constexpr(_STEP // 2)
MEDIAN_ROWS = tl.constexpr(_ROWS - 2)
BAND_ROW = tl.constexpr(_BAND_ROW)
COLUMNS = tl.constexpr(6)  # of the table of images
# Adding one of these rounds to whole levels, halves to even, and leaves them in the lowest bits.
LEVELS = tl.constexpr(1.5 * 2**23)
LEVELS_BITS = tl.constexpr(0x4B400000)
LEVELS_OVER_256 = tl.constexpr(1.5 * 2**15)


def binarize(images: Sequence[Tensor], *, out: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Draw black contours on white; see `reference.binarize`.

    Args:
        images: uint8 (H, W) each, 1 to 65,535 images on one device.
        out: uint8 (H, W) each to write to, the pixels of a row adjacent; None for new tensors.

    Returns:
        uint8 (H, W) each, 0 or 255: `out`, or views of one buffer.
    """
    bands = _bands(GAUSS_9, 8, images[0].device)
    return _launch(_binarize, images, out, _ROWS - 2, *bands, **_BINARIZE_OPTIONS)


def dodge(
    images: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Draw with a pencil by the colour dodge filter; see `reference.dodge`.

    Args:
        images: uint8 (H, W) each, 1 to 65,535 images on one device.
        strength: Factor of the ink, 0..4, in steps of 1/256.
        out: As in `binarize`.

    Returns:
        uint8 (H, W) each: `out`, or views of one buffer.
    """
    bands = _bands(GAUSS_21, 16, images[0].device)
    return _launch(_dodge, images, out, _ROWS, *bands, *_scaled(strength), **_DODGE_OPTIONS)


def compose(
    tones: Sequence[Tensor], strength: float = 1.0, *, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Convert tones of the U-Net to bytes; see `reference.compose`.

    Args:
        tones: float16 or float32 (H, W) each, 0 for ink and 1 for paper, 1 to 65,535 tensors of
            one type on one device.
        strength: Factor of the ink, 0..4, in steps of 1/256.
        out: As in `binarize`.

    Returns:
        uint8 (H, W) each: `out`, or views of one buffer.
    """
    dtype = tl.float16 if tones[0].dtype == torch.float16 else tl.float32
    return _launch(_compose, tones, out, _ROWS, *_scaled(strength), dtype, **_OPTIONS)


def _scaled(strength: float) -> tuple[int, bool]:
    """Return the factor of the ink in steps of 1/256, and whether it changes anything."""
    factor = round(strength * 256)
    return factor, factor != 256


def _launch(
    kernel: Any,
    images: Sequence[Tensor],
    out: Sequence[Tensor] | None,
    rows: int,
    *arguments: Any,
    **options: Any,
) -> list[Tensor]:
    """Run `kernel` in one launch on every strip of every image, `rows` rows of result each.

    Programs beyond the strips of their image do nothing.
    """
    sources, pages = ragged.prepare(images, out)
    sizes = [(-(-image.shape[0] // rows), -(-image.shape[1] // _STEP)) for image in images]
    all_steps = sum(down * across for down, across in sizes)
    steps = max(1, min(_LONGEST, all_steps // _ENOUGH))
    strips = max(down * -(-across // steps) for down, across in sizes)
    addresses = [
        (*source.shape, source.data_ptr(), source.stride(0), page.data_ptr(), page.stride(0))
        for source, page in zip(sources, pages, strict=True)
    ]
    with ragged.launching(images[0].device):
        table = ragged.upload(addresses, images[0].device)
        kernel[strips, len(images)](table, steps, *arguments, **options)
    return pages


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
    image, left, right = _strip(table, steps, MEDIAN_ROWS)
    height, width, top, _, _, _, _ = image
    if top >= height:
        return
    bands = _load_bands(band_down, band_across, tl.arange(0, 16))
    high_0, low_0 = _sums(bands, image, left - 16, True, False, HALF)
    high, low = _sums(bands, image, left + 16, True, False, HALF)
    paper = _paper(_blur(bands, high_0, low_0, high, low), image, left - 8, False)
    inner, fast = _inner(image, left, right, width - 112)
    high, low, paper = _binarize_steps(high, low, paper, bands, fast, left, inner, True)
    _binarize_steps(high, low, paper, bands, image, inner, right, False)


@triton.jit
def _binarize_steps(high, low, paper, bands, image, first, last, fast: tl.constexpr):
    """Write the strip from column `first` to `last`.

    high, low: sums of the columns from first + 16 on; paper: words of those from first - 8 on.
    """
    if fast:
        for column in range(first, last, STEP):
            blur_1, blur_2, high, low = _blurs(bands, image, high, low, column + 48, True)
            paper_1 = _paper(blur_1, image, column + 24, True)
            paper_2 = _paper(blur_2, image, column + 56, True)
            words = tl.join(_pair(paper, paper_1), _pair(paper_1, paper_2))
            _store(_median(words, image, column), image, MEDIAN_ROWS, column, True)
            paper = paper_2
    else:
        for column in range(first, last, HALF):
            high_1, low_1 = _sums(bands, image, column + 48, True, False, HALF)
            paper_1 = _paper(_blur(bands, high, low, high_1, low_1), image, column + 24, False)
            words = _pair(paper, paper_1)[:, None]
            _store(_median(words, image, column), image, MEDIAN_ROWS, column, False)
            high, low, paper = high_1, low_1, paper_1
    return high, low, paper


@triton.jit
def _paper(blur, image, column, fast: tl.constexpr):
    """int32 (ROWS,): of the HALF pixels from `column` on the n-th is bit n, set where it is paper.

    Rows begin above those of the result; pixels outside of the image have any value.
    """
    bits = tl.arange(0, HALF)
    gray = _load(image, tl.uint8, -1, column, HALF, fast).to(tl.int32)
    # gray - mean > -2, where both are whole numbers in the lowest bits of a float
    mean_less_2 = (blur + (LEVELS - 2)).to(tl.int32, bitcast=True)
    paper = mean_less_2 < (gray | LEVELS_BITS)
    return tl.sum(tl.where(paper, (1 << bits)[None, :], 0), axis=1)


@triton.jit
def _median(words, image, column):
    """uint8 (ROWS, n * HALF), from `column` on: 255 where at least 5 of 3 x 3 are paper.

    words: int64 (ROWS, n), each for HALF pixels, from the 8 before them to the 24 after.
    """
    height, width, top, _, _, _, _ = image
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
    at = tl.minimum(_border(rows, height, True) - (top - 1), ROWS - 1)
    return tl.gather(counts, tl.broadcast_to(at[:, None], counts.shape), 0)


@triton.jit(do_not_specialize=["steps", "factor"])
def _dodge(table, steps, band_down, band_across, factor, scale: tl.constexpr) -> None:
    image, left, right = _strip(table, steps, ROWS)
    height, width, top, _, _, _, _ = image
    if top >= height:
        return
    bands = _load_bands(band_down, band_across, tl.arange(0, HALF))
    high, low = _sums(bands, image, left - 16, False, False, HALF)
    inner, fast = _inner(image, left, right, width - 80)
    high, low = _dodge_steps(high, low, bands, fast, left, inner, factor, scale, True)
    _dodge_steps(high, low, bands, image, inner, right, factor, scale, False)


@triton.jit
def _dodge_steps(
    high, low, bands, image, first, last, factor, scale: tl.constexpr, fast: tl.constexpr
):
    """As `_binarize_steps`; high, low: sums of the columns from first - 16 on."""
    if fast:
        for column in range(first, last, STEP):
            blur_1, blur_2, high, low = _blurs(bands, image, high, low, column + 16, False)
            _divide(blur_1, image, column, factor, scale, True)
            _divide(blur_2, image, column + HALF, factor, scale, True)
    else:
        for column in range(first, last, HALF):
            high_1, low_1 = _sums(bands, image, column + 16, False, False, HALF)
            _divide(_blur(bands, high, low, high_1, low_1), image, column, factor, scale, False)
            high, low = high_1, low_1
    return high, low


@triton.jit
def _divide(blur, image, column, factor, scale: tl.constexpr, fast: tl.constexpr):
    """Write 256 times the image over its blur, rounded, as ink of a strength."""
    gray = _load(image, tl.uint8, 0, column, HALF, fast).to(tl.float32)
    rounded = tl.floor(blur + 0.5)
    # Fractions of 256 a / b + 1/2 are multiples of 1 / 2b. What is added to the root lifts them by
    # less than half of that, and by more than all roundings together: halves go up, and no other
    # quotient changes its whole number. In units of 256 levels; infinite where the blur is 0.
    root = tl.rsqrt(rounded)
    quotient = tl.fma(tl.fma(gray, root, 2.0**-14), root, LEVELS_OVER_256)
    capped = tl.minimum(quotient, LEVELS_OVER_256 + 255 / 256)
    levels = tl.where(rounded > 0, capped.to(tl.int32, bitcast=True) & 255, 0)
    _ink(levels, image, column, factor, scale, fast)


@triton.jit(do_not_specialize=["steps", "factor"])
def _compose(table, steps, factor, scale: tl.constexpr, dtype: tl.constexpr) -> None:
    image, left, right = _strip(table, steps, ROWS)
    height, width, top, _, _, _, _ = image
    if top >= height:
        return
    inner, fast = _inner(image, left, right, width - STEP)
    _compose_steps(fast, left, inner, factor, scale, dtype, True)
    _compose_steps(image, inner, right, factor, scale, dtype, False)


@triton.jit
def _compose_steps(
    image, first, last, factor, scale: tl.constexpr, dtype: tl.constexpr, fast: tl.constexpr
):
    for column in range(first, last, STEP):
        tones = _load(image, dtype, 0, column, STEP, fast).to(tl.float32)
        clipped = tl.where(tones > 0, tl.minimum(tones, 1.0), 0.0)  # NaN is not greater
        levels = (clipped * 255 + LEVELS).to(tl.int32, bitcast=True) & 255
        _ink(levels, image, column, factor, scale, fast)


@triton.jit
def _ink(levels, image, column, factor, scale: tl.constexpr, fast: tl.constexpr):
    """Write levels, their ink multiplied by `factor` / 256."""
    if scale:
        levels = 255 - tl.minimum(255, ((255 - levels) * factor + 128) >> 8)
    _store(levels.to(tl.uint8), image, ROWS, column, fast)


@triton.jit
def _strip(table, steps, size: tl.constexpr):
    """The program's image, and the first and the last column of its strip, `size` rows high.

    An image is its height, width, the first row of the strip, source, row stride, page, row stride.
    That row is beyond the height if there is no strip for this program.
    """
    entry = table + tl.program_id(1) * COLUMNS
    height = tl.load(entry).to(tl.int32)
    width = tl.load(entry + 1).to(tl.int32)
    length = steps * STEP
    across = tl.cdiv(width, length)
    top = tl.program_id(0) // across * size
    left = tl.program_id(0) % across * length
    source, source_stride = tl.load(entry + 2), tl.load(entry + 3)
    page, page_stride = tl.load(entry + 4), tl.load(entry + 5)
    image = height, width, top, source, source_stride, page, page_stride
    return image, left, tl.minimum(left + length, width)


@triton.jit
def _inner(image, left, right, limit):
    """The column up to which steps from `left` may be fast, and the image for these.

    They begin at `limit` at most. The addresses are the same numbers, but the compiler knows that
    they are multiples of 16.
    """
    height, width, top, source, source_stride, page, page_stride = image
    aligned = (source | source_stride | page | page_stride) % 16 == 0
    end = tl.minimum((limit + STEP) // STEP * STEP, right // STEP * STEP)
    fast = (
        height,
        width,
        top,
        tl.multiple_of(source // 16 * 16, 16),
        tl.multiple_of(source_stride // 16 * 16, 16),
        tl.multiple_of(page // 16 * 16, 16),
        tl.multiple_of(page_stride // 16 * 16, 16),
    )
    return tl.where(aligned, tl.maximum(end, left), left), fast


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
def _blurs(bands, image, high, low, column, replicate: tl.constexpr):
    """Two blurs (ROWS, HALF) side by side, and the sums to go on with.

    high, low: sums of the HALF columns before `column`.
    """
    high_12, low_12 = _sums(bands, image, column, replicate, True, STEP)
    high_1, high_2 = _halves(high_12)
    low_1, low_2 = _halves(low_12)
    blur_1 = _blur(bands, high, low, high_1, low_1)
    return blur_1, _blur(bands, high_1, low_1, high_2, low_2), high_2, low_2


@triton.jit
def _sums(bands, image, column, replicate: tl.constexpr, fast: tl.constexpr, size: tl.constexpr):
    """Columns from `column` on, each blurred along itself: two float16 (ROWS, size) to add up.

    replicate: repeat the border, as binarize does; dodge reflects.
    """
    height, width, top, source, stride, _, _ = image
    first = top - (9 if replicate else 16)
    near = _border(first + tl.arange(0, ROWS), height, replicate)
    far = _border(first + ROWS + tl.arange(0, 16 if replicate else 32), height, replicate)
    near_pixels = _pixels(source, stride, near, tl.uint8, fast)
    far_pixels = _pixels(source, stride, far, tl.uint8, fast)
    if fast:
        near_values = _words(near_pixels + column, size)
        far_values = _words(far_pixels + column, size)
    else:
        columns = _border(column + _even_first(tl.arange(0, size)), width, replicate)
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
def _pixels(address, stride, rows, dtype: tl.constexpr, fast: tl.constexpr):
    """Pointers to the first pixel of rows, (rows, 1)."""
    pixels = address.to(tl.pointer_type(dtype))
    if fast:
        pixels = tl.multiple_of(pixels, 16)
    return pixels + (rows.to(tl.int64) * stride)[:, None]


@triton.jit
def _load(
    image, dtype: tl.constexpr, shift: tl.constexpr, column, size: tl.constexpr, fast: tl.constexpr
):
    """Pixels (ROWS, size), from `shift` rows below the first of the strip and from `column` on.

    Pixels outside of the image have any value.
    """
    height, width, top, source, stride, _, _ = image
    rows = _border(top + shift + tl.arange(0, ROWS), height, True)
    columns = column + tl.arange(0, size)
    pixels = _pixels(source, stride, rows, dtype, fast) + columns[None, :]
    if fast:
        values = tl.load(pixels)
    else:
        inside = (columns >= 0) & (columns < width)
        values = tl.load(pixels, mask=inside[None, :], other=0)
    return values


@triton.jit
def _store(values, image, size: tl.constexpr, column, fast: tl.constexpr):
    """Write the first `size` rows, and what is inside of the image."""
    height, width, top, _, _, page, stride = image
    rows = top + tl.arange(0, ROWS)
    columns = column + tl.arange(0, values.shape[1])
    inside = (rows < tl.minimum(top + size, height))[:, None]
    if not fast:
        inside = inside & (columns < width)[None, :]
    tl.store(_pixels(page, stride, rows, tl.uint8, fast) + columns[None, :], values, mask=inside)


@triton.jit
def _border(index, length, replicate: tl.constexpr):
    """An index into the image for one that may be outside.

    The border is repeated, or else the image is mirrored at the middle of its first and last pixel,
    again and again.
    """
    if replicate:
        inside = tl.minimum(tl.maximum(index, 0), length - 1)
    else:
        period = tl.maximum(2 * (length - 1), 1)
        index = tl.abs(index) % period
        inside = tl.minimum(index, period - index)
    return inside
