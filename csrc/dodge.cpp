// Colour dodge of the page by its own blur, in one pass. Byte for byte OpenCV's
// divide(gray, GaussianBlur(gray, (21, 21), 0), scale=256), then line strength.
#include "blur.h"

namespace sketchify::SKETCHIFY_ISA {
namespace {

// OpenCV's kernel of 21 for bytes, over 256; the weight at each end is 0 and left out.
struct Gauss21 {
  static constexpr std::int8_t taps[] = {2,  2,  4,  6,  11, 15, 20, 25, 28, 30,
                                         28, 25, 20, 15, 11, 6,  4,  2,  2};
};

using Blur21 = Blur<Gauss21, Reflect101, false>;

// min(255, (512 gray + blurred) / (2 blurred)) in whole numbers, for blurred > 0; any of 0..255 for
// 0. That is 256 gray / blurred rounded half up. The quarter added to 256 gray makes halves
// impossible, so that any rounding to nearest will do, and leaves 0.25 / 255 to either side of
// them: 7 times the error of the reciprocal for quotients up to 256. Adding 1.5 * 2^23 rounds,
// into the low bits.
I32 divide(I32 gray, I32 blurred) {
  constexpr float round = 12582912.0f;
  constexpr std::uint32_t round_bits = 0x4b400000;
  const F32 scaled = __builtin_convertvector(gray << 8, F32) + 0.25f;
  const F32 quotient = scaled * reciprocal(__builtin_convertvector(blurred, F32)) + round;
  const U32 bits = (U32)quotient - round_bits;  // an infinity or a NaN, of any sign, is large
  return (I32)(bits < 255 ? bits : U32{} + 255);
}

// 255 - min(255, ((255 - tone) * strength + 128) >> 8)
I32 scale_ink(I32 tone, int strength) {
  return 255 - min(dot2(splat(128), 255 - tone, splat(strength)) >> 8, splat(255));
}

}  // namespace

void dodge(const Gray& gray, const Page& out, int strength, Rows rows) {
  constexpr std::ptrdiff_t step = Blur21::strip_width;
  for (std::ptrdiff_t left = 0; left < gray.width; left += step) {
    const std::ptrdiff_t right = left + step < gray.width ? left + step : gray.width;
    Blur21 blur(gray, left, right, rows.begin);
    for (std::ptrdiff_t y = rows.begin; y < rows.end; y += 2) {
      alignas(64) Blur21::Line blurred[2];
      blur.next_two(blurred);
      for (std::ptrdiff_t i = y; i < y + 2 && i < rows.end; ++i) {
        const std::uint8_t* from = gray.data + i * gray.stride + left;
        std::uint8_t* to = out.data + i * out.stride + left;
        for (std::ptrdiff_t x = 0; x < right - left; x += vector_bytes) {
          const U8 pixels = load_part(from + x, right - left - x);
          const U8 divisors = load<U8>(blurred[i - y] + x);
          I32 tones[4];
          for (int p = 0; p < 4; ++p) tones[p] = divide(phase(pixels, p), phase(divisors, p));
          U8 result = interleave(tones) & (U8)(divisors != 0);
          if (strength != 256) {
            for (int p = 0; p < 4; ++p) tones[p] = scale_ink(phase(result, p), strength);
            result = interleave(tones);
          }
          store_part(to + x, result, right - left - x);
        }
      }
    }
  }
}

}  // namespace sketchify::SKETCHIFY_ISA
