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

// blurred ? min(255, (512 gray + blurred) / (2 blurred)) : 0, in whole numbers.
// That is 256 gray / blurred rounded half up. The quarter added to 256 gray makes halves
// impossible, so that any rounding to nearest will do, and leaves 0.25 / 255 to either side of
// them: 16 times the error of the reciprocal for quotients up to 256. Adding 1.5 * 2^23 rounds,
// into the low bits.
[[gnu::always_inline]] inline I32 divide(I32 gray, I32 blurred) {
  constexpr float round = 12582912.0f;
  constexpr std::int32_t round_bits = 0x4b400000;
  const F32 scaled = __builtin_convertvector(gray, F32) * 256.0f + 0.25f;
  const F32 quotient = scaled * reciprocal(__builtin_convertvector(blurred, F32)) + round;
  return min((I32)quotient - round_bits, splat(255)) & (blurred != 0);
}

// 255 - min(255, ((255 - tone) * strength + 128) >> 8)
[[gnu::always_inline]] inline I32 scale_ink(I32 tone, int strength) {
  return 255 - min(dot2(splat(128), 255 - tone, strength) >> 8, splat(255));
}

}  // namespace

void dodge(const Gray& gray, const Page& out, int strength, Rows rows) {
  for (std::ptrdiff_t left = 0; left < gray.width; left += strip_width) {
    const std::ptrdiff_t right = left + strip_width < gray.width ? left + strip_width : gray.width;
    Blur<Gauss21, Reflect101> blur(gray, left, right, rows.begin);
    for (std::ptrdiff_t y = rows.begin; y < rows.end; y += 2) {
      blur.next_two<32768>([&](int i, std::ptrdiff_t x, const I32(&sums)[4]) {
        if (y + i >= rows.end) return;
        const std::ptrdiff_t n = right - left - x;
        const U8 pixels = load_part(gray.data + (y + i) * gray.stride + left + x, n);
        I32 tones[4];
        for (int p = 0; p < 4; ++p) {
          tones[p] = divide(phase(pixels, p), sums[p] >> 16);
          if (strength != 256) tones[p] = scale_ink(tones[p], strength);
        }
        store_part(out.data + (y + i) * out.stride + left + x, interleave(tones), n);
      });
    }
  }
}

}  // namespace sketchify::SKETCHIFY_ISA
