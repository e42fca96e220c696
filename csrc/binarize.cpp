// Adaptive threshold and median in one pass over the page: blur, compare, 3x3 majority, all from
// rows that are still in the cache. Byte for byte OpenCV's adaptiveThreshold(gray, 255,
// ADAPTIVE_THRESH_GAUSSIAN_C, THRESH_BINARY, 9, 2) and medianBlur(., 3).
#include "blur.h"

namespace sketchify::SKETCHIFY_ISA {
namespace {

// OpenCV's float32 kernel of 9 is these numbers over 256, so that its sums are exact and ours
// equal.
struct Gauss9 {
  static constexpr std::int8_t taps[] = {4, 13, 30, 51, 60, 51, 30, 13, 4};
};

using Blur9 = Blur<Gauss9, Replicate, true>;
using Line = Blur9::Line;

// Of three rows of 0 or 255, from one pixel left of `out` on: 255 where at least 5 of 3x3 are set.
void median(const Line& above, const Line& row, const Line& below, std::uint8_t* out,
            std::ptrdiff_t width) {
  alignas(64) Line unset;  // in a column of three, as 253..256: 255 is -1
  for (std::ptrdiff_t x = 0; x < width + 2; x += vector_bytes)
    store(unset + x, load<U8>(above + x) + load<U8>(row + x) + load<U8>(below + x));
  for (std::ptrdiff_t x = 0; x < width; x += vector_bytes) {
    const U8 count =
        U8{} - (load<U8>(unset + x) + load<U8>(unset + x + 1) + load<U8>(unset + x + 2));
    store_part(out + x, (U8)(count >= 5), width - x);
  }
}

}  // namespace

void binarize(const Gray& gray, const Page& out, Rows rows) {
  constexpr std::ptrdiff_t step =
      Blur9::strip_width - 2;  // the median looks one pixel to each side
  const std::ptrdiff_t last_row = gray.height - 1;
  for (std::ptrdiff_t left = 0; left < gray.width; left += step) {
    const std::ptrdiff_t right = left + step < gray.width ? left + step : gray.width;
    const std::ptrdiff_t begin = left > 0 ? left - 1 : 0;
    const std::ptrdiff_t end = right < gray.width ? right + 1 : gray.width;
    const std::ptrdiff_t first = rows.begin > 0 ? rows.begin - 1 : 0;
    const std::ptrdiff_t last = rows.end < gray.height ? rows.end : last_row;

    alignas(64) Line means[2], ring[4];  // of thresholded rows; element 0 is column left - 1
    Blur9 blur(gray, begin, end, first);
    std::ptrdiff_t done = rows.begin;
    for (std::ptrdiff_t y = first; y <= last; y += 2) {
      blur.next_two(means);
      for (std::ptrdiff_t i = y; i < y + 2 && i <= last; ++i) {
        std::uint8_t* line = ring[i & 3];
        const std::uint8_t* pixels = gray.data + i * gray.stride + begin;
        for (std::ptrdiff_t x = 0; x < end - begin; x += vector_bytes) {
          const U8 value = load_part(pixels + x, end - begin - x);
          const U8 most = value - (U8)(value != 255);  // value + 1, or 255
          // gray - mean > -2
          store(line + begin - left + 1 + x, (U8)(load<U8>(means[i - y] + x) <= most));
        }
        if (left == 0) line[0] = line[1];
        if (right == gray.width) line[right - left + 1] = line[right - left];
      }
      for (; done < rows.end && (done <= y || y + 1 >= last); ++done)
        median(ring[(done > 0 ? done - 1 : 0) & 3], ring[done & 3],
               ring[(done < last_row ? done + 1 : last_row) & 3],
               out.data + done * out.stride + left, right - left);
    }
  }
}

}  // namespace sketchify::SKETCHIFY_ISA
