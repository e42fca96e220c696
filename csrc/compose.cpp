// Tones to bytes with line strength, one pass. Written for the compiler to vectorise: it is bound
// by memory.
#include "isa.h"
#include "kernels.h"

namespace sketchify::SKETCHIFY_ISA {

void compose(const Tones& tones, const Page& out, int strength, Rows rows) {
  constexpr float round = 12582912.0f;       // 1.5 * 2^23: rounds half to even, into the low bits
  const std::ptrdiff_t width = tones.width;  // a copy: bytes written might be the original's
  for (std::ptrdiff_t y = rows.begin; y < rows.end; ++y) {
    const auto* in = reinterpret_cast<const float*>(reinterpret_cast<const char*>(tones.data) +
                                                    y * tones.stride);
    std::uint8_t* to = out.data + y * out.stride;
    for (std::ptrdiff_t x = 0; x < width; ++x) {
      float tone = in[x] > 0 ? in[x] : 0;  // a NaN fails the comparison, and shows as black
      tone = tone < 1 ? tone : 1;
      const int value = __builtin_bit_cast(std::int32_t, tone * 255 + round) & 255;
      const int ink = ((255 - value) * strength + 128) >> 8;
      to[x] = static_cast<std::uint8_t>(255 - (ink < 255 ? ink : 255));
    }
  }
}

}  // namespace sketchify::SKETCHIFY_ISA
