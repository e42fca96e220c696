// The contracts of the kernels. Each is compiled once per instruction set (see CMakeLists.txt), and
// every version writes the same bytes. Nothing here has code of its own: a function shared by
// objects built with different flags could be linked from the wrong one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sketchify {

// Rows of `width` adjacent values; `stride` is the distance of rows in bytes, of any size and sign.
template <class T>
struct Image {
  T* data;
  std::ptrdiff_t stride, height, width;
};

using Gray = Image<const std::uint8_t>;
using Tones = Image<const float>;
using Page = Image<std::uint8_t>;  // a result: the size of its source, no memory in common with it

struct Rows {
  std::ptrdiff_t begin, end;
};

// Each function computes the given rows of the page; calls for other rows may run at the same time.
// strength: line strength in 1/256, 0..1024; ink (255 - value) is multiplied by it.
//
// A look changes the page: it becomes table[min(page, shade[min(max(gray - black, 0), 47)])].
// tables: 48 bytes of shade, then 256 of table.
//
// The hint takes two steps. `hint_cells` sums cells of 8 x 8 pixels, one int32 each, row after row:
// the darkness (255 - tone) of the black pixels, and in the upper 16 bits how many there are.
// `hint_blur` makes the plane from all the cells; it may read, and ignores, 64 bytes after them.
// mean: darkness of all black pixels of the page by their number, in 1/256, rounded.
#define SKETCHIFY_KERNELS(isa)                                                                    \
  namespace isa {                                                                                 \
  void binarize(const Gray& gray, const Page& out, Rows rows);                                    \
  void dodge(const Gray& gray, const Page& out, int strength, Rows rows);                         \
  void compose(const Tones& tones, const Page& out, int strength, Rows rows);                     \
  void look(const Gray& gray, const Page& out, int black, const std::uint8_t* tables, Rows rows); \
  void hint_cells(const Gray& binary, const Gray& tones, std::int32_t* cells, Rows rows);         \
  void hint_blur(const std::int32_t* cells, std::int32_t mean, const Page& out, Rows rows);       \
  }

SKETCHIFY_KERNELS(baseline)
SKETCHIFY_KERNELS(avx2)
SKETCHIFY_KERNELS(avx512)

#undef SKETCHIFY_KERNELS

}  // namespace sketchify
