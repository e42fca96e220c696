// Looks: the darker of a sketch and the black areas of its picture, through a table of levels.
#include "isa.h"
#include "kernels.h"

namespace sketchify::SKETCHIFY_ISA {
namespace {

constexpr int shades = 48;

#if defined(__AVX2__)
// Each byte in a table of 16 n, by a shuffle for each 16 of them. A shuffle gives 0 for a byte
// whose upper bit is set: those that are not in its 16. `table` has each 16 in all lanes of a
// vector.
template <int n>
[[gnu::always_inline]] inline U8 lookup(const U8 (&table)[n], U8 x) {
  U8 found{};
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i)
    found |= shuffle(table[i], add_saturated(x ^ static_cast<std::uint8_t>(16 * i), U8{} + 0x70));
  return found;
}

template <int n>
void spread(const std::uint8_t* from, U8 (&table)[n]) {
  for (int i = 0; i < n; ++i)
    for (std::ptrdiff_t lane = 0; lane < vector_bytes; ++lane)
      table[i][lane] = from[16 * i + lane % 16];
}
#endif

}  // namespace

void look(const Gray& gray, const Page& out, int black, const std::uint8_t* tables, Rows rows) {
#if defined(__AVX2__)
  U8 shade[shades / 16], levels[16];
  spread(tables, shade);
  spread(tables + shades, levels);
  const U8 first = U8{} + static_cast<std::uint8_t>(black);
#endif
  for (std::ptrdiff_t y = rows.begin; y < rows.end; ++y) {
    const std::uint8_t* from = gray.data + y * gray.stride;
    std::uint8_t* to = out.data + y * out.stride;
#if defined(__AVX2__)
    for (std::ptrdiff_t x = 0; x < out.width; x += vector_bytes) {
      const std::ptrdiff_t n = out.width - x;
      const U8 over = subtract_saturated(load_part(from + x, n), first);
      const U8 area = lookup(shade, over < shades - 1 ? over : U8{} + (shades - 1));
      const U8 drawn = load_part(to + x, n);
      store_part(to + x, lookup(levels, drawn < area ? drawn : area), n);
    }
#else
    for (std::ptrdiff_t x = 0; x < out.width; ++x) {
      const int over = from[x] - black < 0 ? 0 : from[x] - black;
      const std::uint8_t area = tables[over < shades - 1 ? over : shades - 1];
      to[x] = tables[shades + (to[x] < area ? to[x] : area)];
    }
#endif
  }
}

}  // namespace sketchify::SKETCHIFY_ISA
