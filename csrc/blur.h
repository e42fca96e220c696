// A separable blur of bytes with integer weights of sum 256, exact to the last bit, two rows at a
// time.
//
// Rows are filtered horizontally once, into a ring of row pairs that stays in the first-level
// cache, and vertically from there. Sums of a row reach 65280, so they are kept less 32768 in an
// int16, and two rows share an int32: what dot2 takes. Pairs are cut so that both of the rows made
// at a time use the same ones, with weights shifted by one row.
#pragma once

#include "isa.h"
#include "kernels.h"

namespace sketchify::SKETCHIFY_ISA {
namespace {

struct Replicate {
  static std::ptrdiff_t index(std::ptrdiff_t i, std::ptrdiff_t n) {
    return i < 0 ? 0 : i < n ? i : n - 1;
  }
};

struct Reflect101 {
  static std::ptrdiff_t index(std::ptrdiff_t i, std::ptrdiff_t n) {
    while (i < 0 || i >= n) {
      if (n == 1) return 0;
      i = i < 0 ? -i : 2 * (n - 1) - i;
    }
    return i;
  }
};

// Weights: `taps`, an odd number of int8. Border: index(i, n) brings i into 0..n-1.
// half_to_even: how halves are rounded; up otherwise.
template <class Weights, class Border, bool half_to_even>
class Blur {
 public:
  // An image is taken in strips of so many columns, for a ring of 20 KiB.
  static constexpr std::ptrdiff_t strip_width = 5120 / (sizeof Weights::taps / 2 + 1);
  using Line = std::uint8_t[strip_width + 2 * vector_bytes];  // a row, and room beside it

  // The columns [begin, end) of the image, at most strip_width, and rows from `row` on.
  Blur(const Gray& image, std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t row)
      : image_(image), begin_(begin), end_(end), next_(row - radius) {
    for (int i = 0; i <= radius; ++i) pairs_[i] = ring_[i];
    for (int i = 0; i < radius; ++i) filter_pair();
  }

  // Blurs the next two rows, the second of which may lie outside of the image.
  void next_two(Line (&rows)[2]) {
    filter_pair();
    I32 weights[radius + 1][2];
    for (int j = 0; j <= radius; ++j)
      for (int i = 0; i < 2; ++i) weights[j][i] = opaque(tap(2 * j - i) | tap(2 * j - i + 1) << 16);
    for (std::ptrdiff_t x = 0; x < end_ - begin_; x += vector_bytes) {
      I32 sums[2][4];
      for (int i = 0; i < 2; ++i)
        for (int p = 0; p < 4; ++p) sums[i][p] = splat(256 * 32768 + rounding);
      // Unrolled, GCC 12 stores all products to the stack before it adds them: 1.2 times the time.
#pragma GCC unroll 1
      for (int j = 0; j <= radius; ++j) {
        for (int p = 0; p < 4; ++p) {
          const I32 pair = load<I32>(pairs_[j] + x + p * lanes);
          for (int i = 0; i < 2; ++i) sums[i][p] = dot2(sums[i][p], pair, weights[j][i]);
        }
      }
      for (int i = 0; i < 2; ++i) {
        for (int p = 0; p < 4; ++p) {
          if (half_to_even) sums[i][p] += (sums[i][p] >> 16) & 1;
          sums[i][p] >>= 16;
        }
        store(rows[i] + x, interleave(sums[i]));
      }
    }
  }

 private:
  static constexpr int size = sizeof Weights::taps, radius = size / 2;
  static constexpr int rounding = half_to_even ? 32767 : 32768;
  static constexpr int words = (size + 3 + 3) / 4;  // that taps at any of 4 offsets touch
  static constexpr std::ptrdiff_t lanes = vector_bytes / 4;

  static constexpr int tap(int i) { return i < 0 || i >= size ? 0 : Weights::taps[i]; }

  void filter_pair() {
    pad(next_++, lines_[0]);
    pad(next_++, lines_[1]);
    std::int32_t* pair = pairs_[0];  // the oldest makes room
    for (int i = 0; i < radius; ++i) pairs_[i] = pairs_[i + 1];
    pairs_[radius] = pair;
    I32 weights[words][4];
    for (int w = 0; w < words; ++w)
      for (int p = 0, i = 4 * w; p < 4; ++p, --i)
        weights[w][p] = opaque(tap(i) | tap(i + 1) << 8 | tap(i + 2) << 16 | tap(i + 3) << 24);
    for (std::ptrdiff_t x = 0; x < end_ - begin_; x += vector_bytes) {
      I32 sums[2][4];
      for (int i = 0; i < 2; ++i) {
        for (int p = 0; p < 4; ++p) sums[i][p] = splat(32768);  // of 16 bits: -32768
        for (int w = 0; w < words; ++w) {
          const U8 bytes = load<U8>(lines_[i] + x + 4 * w);
          for (int p = 0; p < 4; ++p)
            if (4 * w - p < size) sums[i][p] = dot4(sums[i][p], bytes, weights[w][p]);
        }
      }
      for (int p = 0; p < 4; ++p)
        store(pair + x + p * lanes, (fold(sums[0][p]) & 0xffff) | fold(sums[1][p]) << 16);
    }
  }

  // Copies the columns and `radius` more on each side of a row, which may lie outside of the image.
  void pad(std::ptrdiff_t row, std::uint8_t* line) const {
    const std::uint8_t* from = image_.data + Border::index(row, image_.height) * image_.stride;
    std::ptrdiff_t x = begin_ - radius;
    for (; x < 0; ++x) *line++ = from[Border::index(x, image_.width)];
    const std::ptrdiff_t end = end_ + radius, inside = end < image_.width ? end : image_.width;
    __builtin_memcpy(line, from + x, static_cast<std::size_t>(inside - x));
    line += inside - x;
    for (x = inside; x < end; ++x) *line++ = from[Border::index(x, image_.width)];
  }

  const Gray& image_;
  std::ptrdiff_t begin_, end_, next_;
  std::int32_t* pairs_[radius + 1];
  alignas(64) std::int32_t ring_[radius + 1][strip_width];
  alignas(64) std::uint8_t lines_[2][strip_width + 4 * words + vector_bytes] = {};
};

}  // namespace
}  // namespace sketchify::SKETCHIFY_ISA
