"""The kernels of `triton` themselves: what runs on the GPU.

A blur is two products with a band matrix, down the columns and across the rows, on the tensor
cores. Summing 19 taps twice on the scalar units would take about 60 instructions a pixel (an
estimate), which limits the filter to an eighth of the memory bandwidth. The products are exact:

- The bits of a pixel p, taken as a float16, are the subnormal number p / 2**24. No conversion is
  needed.
- The weights are integers. Those for the columns are multiplied by 256, so that a blur comes out in
  levels. It is a multiple of 2**-16 below 256, as is every partial sum on the way. FP32 has the 24
  bits for it, and tensor cores align their addends to at least as many.
- A sum down a column does not fit into one float16. It is split into two, the upper 11 bits and the
  rest.

A program works on a strip of 64 rows from left to right, 64 columns a step, so that every sum down
a column is computed once. Fast steps take 21 instructions a pixel for dodge and 26 for binarize
(counted in the SASS for sm_90). Steps are fast where rows begin at multiples of 16 bytes and the
border is not near; other steps take two to three times as many.

Arguments that occur everywhere:

- `image`: height and width, the first row of the strip, the address and the row stride of the
  source, and those of the result. Strides are in elements.
- `bands`: the weights, see `_load_bands`.
- `high`, `low`: sums down the columns, two float16 to be added.
- `fast`: whether the step is a fast one.
"""

# Triton has no types for what is inside of a kernel.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

ROWS = tl.constexpr(64)  # of a strip
# The strips of binarize overlap, since its median reads one more row on each side.
MEDIAN_ROWS = tl.constexpr(62)
STEP = tl.constexpr(64)  # columns
HALF = tl.constexpr(32)  # of a step
BAND_ROW = tl.constexpr(128)  # weights in a row of a band matrix
COLUMNS = tl.constexpr(6)  # of the table of images
# Adding one of these rounds to whole levels, halves to even, and leaves them in the lowest bits.
LEVELS = tl.constexpr(1.5 * 2**23)
LEVELS_BITS = tl.constexpr(0x4B400000)
LEVELS_OVER_256 = tl.constexpr(1.5 * 2**15)


@triton.jit(do_not_specialize=["steps"])
def binarize(table, steps, band_down, band_across) -> None:
    """Binarize one strip of one image.

    Args:
        table: int64 (images, COLUMNS): height, width, address and row stride of the source, and of
            the result.
        steps: Length of a strip.
        band_down: Weights for sums down the columns, float16 (ROWS, BAND_ROW).
        band_across: Weights for sums across the rows, float16 (ROWS, BAND_ROW).
    """
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
    """Return the threshold of HALF pixels from `column` on: int32 (ROWS,), bit n is pixel n.

    A set bit is paper. The rows begin one above the strip. Pixels outside of the image have any
    value.
    """
    bits = tl.arange(0, HALF)
    gray = _load(image, tl.uint8, -1, column, HALF, fast).to(tl.int32)
    # gray - mean > -2; both are integers in the lowest bits of a float.
    mean_less_2 = (blur + (LEVELS - 2)).to(tl.int32, bitcast=True)
    paper = mean_less_2 < (gray | LEVELS_BITS)
    return tl.sum(tl.where(paper, (1 << bits)[None, :], 0), axis=1)


@triton.jit
def _median(words, image, column):
    """Return uint8 (ROWS, n * HALF) from `column` on: 255 where 5 of 3 x 3 or more are paper.

    words: int64 (ROWS, n). Each is for HALF pixels and holds 8 pixels before and 24 after them.
    """
    height, width, top, _, _, _, _ = image
    starts = (column + tl.arange(0, words.shape[1]) * HALF)[None, :]
    # Outside of the image the threshold repeats its border. Column -1 is bit 7 of the first word.
    words = tl.where(starts == 0, words & ~128 | words >> 1 & 128, words)
    outside = width - starts + 8
    within = (outside >= 8) & (outside < 64)
    bit = tl.where(within, 1, 0).to(tl.int64) << tl.where(within, outside, 0).to(tl.int64)
    words = words & ~bit | words << 1 & bit
    # For each pixel count the three in its row, in two bits, and then all nine.
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
    """Add three bits; return the lower and the upper bit of the sum."""
    return a ^ b ^ c, a & b | c & (a | b)


@triton.jit
def _row_of(counts, rows, height, top):
    """Return rows of the threshold by their number in the image; it begins one above the strip."""
    at = tl.minimum(_border(rows, height, True) - (top - 1), ROWS - 1)
    return tl.gather(counts, tl.broadcast_to(at[:, None], counts.shape), 0)


@triton.jit(do_not_specialize=["steps", "factor"])
def dodge(table, steps, band_down, band_across, factor, scale: tl.constexpr) -> None:
    """Apply the colour dodge filter to one strip of one image.

    Args:
        table: As in `binarize`.
        steps: Length of a strip.
        band_down: As in `binarize`.
        band_across: As in `binarize`.
        factor: Of the ink, times 256.
        scale: Whether the factor is not 1.
    """
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
    """See `_binarize_steps`; high, low: sums of the columns from first - 16 on."""
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
    """Divide 256 times the image by its blur, round, and write it."""
    gray = _load(image, tl.uint8, 0, column, HALF, fast).to(tl.float32)
    rounded = tl.floor(blur + 0.5)
    # The fractions of 256 a / b + 1/2 are multiples of 1 / 2b. The 2**-14 lifts them by less than
    # half of that, and by more than the sum of all rounding errors: halves go up, and no other
    # quotient changes its integer part. The unit is 256 levels. The root of a blur of 0 is
    # infinite.
    root = tl.rsqrt(rounded)
    quotient = tl.fma(tl.fma(gray, root, 2.0**-14), root, LEVELS_OVER_256)
    capped = tl.minimum(quotient, LEVELS_OVER_256 + 255 / 256)
    levels = tl.where(rounded > 0, capped.to(tl.int32, bitcast=True) & 255, 0)
    _ink(levels, image, column, factor, scale, fast)


@triton.jit(do_not_specialize=["steps", "factor"])
def compose(table, steps, factor, scale: tl.constexpr, dtype: tl.constexpr) -> None:
    """Convert one strip of tones of one image to bytes.

    Args:
        table: As in `binarize`.
        steps: Length of a strip.
        factor: Of the ink, times 256.
        scale: Whether the factor is not 1.
        dtype: Of the tones.
    """
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
    """Write levels, with their ink multiplied by `factor` / 256."""
    if scale:
        levels = 255 - tl.minimum(255, ((255 - levels) * factor + 128) >> 8)
    _store(levels.to(tl.uint8), image, ROWS, column, fast)


@triton.jit
def _strip(table, steps, size: tl.constexpr):
    """Return the program's image, and the first column and the end of its strip of `size` rows.

    The first row of the strip is not below the height if there is no strip for this program.
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
    """Return the column at which fast steps from `left` end, and the image for these steps.

    The last one begins at `limit` or before. The compiler knows of the addresses and strides of
    that image that they are multiples of 16.
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
    """Load the weights of ROWS rows, of the rows `far` after them, and of twice HALF columns."""
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
    """Return the blurs of two times HALF columns, and the sums for the next step.

    high, low: sums of the HALF columns before `column`.
    """
    high_12, low_12 = _sums(bands, image, column, replicate, True, STEP)
    high_1, high_2 = _halves(high_12)
    low_1, low_2 = _halves(low_12)
    blur_1 = _blur(bands, high, low, high_1, low_1)
    return blur_1, _blur(bands, high_1, low_1, high_2, low_2), high_2, low_2


@triton.jit
def _sums(bands, image, column, replicate: tl.constexpr, fast: tl.constexpr, size: tl.constexpr):
    """Return `high` and `low`, float16 (ROWS, size), of the columns from `column` on.

    replicate: Repeat the border, for binarize; else reflect it, for dodge.
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
    """Load `size` pixels from each pointer on, four in a word, in the order of `_even_first`.

    In this order two masks separate the bytes of a word. The natural order would take three times
    as many instructions.
    """
    words = tl.load(pixels.to(tl.pointer_type(tl.uint32)) + tl.arange(0, size // 4)[None, :])
    even = words & 0x00FF00FF
    odd = words >> 8 & 0x00FF00FF
    lower = tl.join(_subnormal(even), _subnormal(odd))
    upper = tl.join(_subnormal(even >> 16), _subnormal(odd >> 16))
    return tl.reshape(tl.join(lower, upper), (words.shape[0], size))


@triton.jit
def _even_first(columns):
    """Return columns in the order 0 2 1 3, 4 6 5 7, ..."""
    return columns & ~3 | (columns & 1) << 1 | columns >> 1 & 1


@triton.jit
def _subnormal(bits):
    return bits.to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def _halves(sums):
    """Split the columns into the left and the right HALF."""
    return tl.split(tl.permute(tl.reshape(sums, (ROWS, 2, HALF)), (0, 2, 1)))


@triton.jit
def _blur(bands, high_left, low_left, high_right, low_right):
    """Sum across the rows; return float32 (ROWS, HALF) in levels, exact."""
    blur = tl.dot(high_left, bands[2])
    blur = tl.dot(high_right, bands[3], blur)
    blur = tl.dot(low_left, bands[2], blur)
    return tl.dot(low_right, bands[3], blur)


@triton.jit
def _pixels(address, stride, rows, dtype: tl.constexpr, fast: tl.constexpr):
    """Return pointers to the first pixel of rows, (rows, 1)."""
    pixels = address.to(tl.pointer_type(dtype))
    if fast:
        pixels = tl.multiple_of(pixels, 16)
    return pixels + (rows.to(tl.int64) * stride)[:, None]


@triton.jit
def _load(
    image, dtype: tl.constexpr, shift: tl.constexpr, column, size: tl.constexpr, fast: tl.constexpr
):
    """Load pixels (ROWS, size), from `shift` rows below the first and from `column` on.

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
    """Write the first `size` rows of values, as far as they are inside of the image."""
    height, width, top, _, _, page, stride = image
    rows = top + tl.arange(0, ROWS)
    columns = column + tl.arange(0, values.shape[1])
    inside = (rows < tl.minimum(top + size, height))[:, None]
    if not fast:
        inside = inside & (columns < width)[None, :]
    tl.store(_pixels(page, stride, rows, tl.uint8, fast) + columns[None, :], values, mask=inside)


@triton.jit
def _border(index, length, replicate: tl.constexpr):
    """Return an index into the image for one that may be outside.

    The border is repeated (`replicate`), or the image is mirrored at the centres of its first and
    last pixel, as often as needed.
    """
    if replicate:
        inside = tl.minimum(tl.maximum(index, 0), length - 1)
    else:
        period = tl.maximum(2 * (length - 1), 1)
        index = tl.abs(index) % period
        inside = tl.minimum(index, period - index)
    return inside
