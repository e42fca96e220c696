// The vectors of the instruction set that this object is compiled for, and the operations on them
// that GCC's and Clang's vector extensions lack. Everything is in an anonymous namespace, so that
// objects compiled with other flags have their own.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace sketchify::SKETCHIFY_ISA {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the phases below are taken by shifts");

#if defined(__AVX512VNNI__)
constexpr std::ptrdiff_t vector_bytes = 64;
#elif defined(__AVX2__)
constexpr std::ptrdiff_t vector_bytes = 32;
#else
constexpr std::ptrdiff_t vector_bytes = 16;
#endif

using U8 [[gnu::vector_size(vector_bytes)]] = std::uint8_t;
using I32 [[gnu::vector_size(vector_bytes)]] = std::int32_t;
using U32 [[gnu::vector_size(vector_bytes)]] = std::uint32_t;
using F32 [[gnu::vector_size(vector_bytes)]] = float;

template <class Vector>
[[gnu::always_inline]] inline Vector load(const void* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class Vector>
[[gnu::always_inline]] inline void store(void* to, Vector v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// The first `n` bytes alone exist, where n is less than a vector.
[[gnu::always_inline]] inline U8 load_part(const std::uint8_t* from, std::ptrdiff_t n) {
  if (n >= vector_bytes) return load<U8>(from);
  U8 v{};
  __builtin_memcpy(&v, from, static_cast<std::size_t>(n));
  return v;
}

[[gnu::always_inline]] inline void store_part(std::uint8_t* to, U8 v, std::ptrdiff_t n) {
  if (n >= vector_bytes) return store(to, v);
  __builtin_memcpy(to, &v, static_cast<std::size_t>(n));
}

[[gnu::always_inline]] inline I32 splat(std::int32_t value) { return I32{} + value; }

[[gnu::always_inline]] inline I32 min(I32 a, I32 b) { return a < b ? a : b; }

// The same in all lanes, for constants used in a loop: hidden from the compiler, which would
// otherwise build each one anew in every pass, at twice the cost of the multiplication it is for.
[[gnu::always_inline]] inline I32 opaque(std::int32_t value) {
  asm("" : "+r"(value));
  return splat(value);
}

// sum + low * low + high * high of the two int16 in each lane.
[[gnu::always_inline]] inline I32 dot2(I32 sum, I32 a, I32 b) {
#if defined(__AVX512VNNI__)
  return (I32)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sum + (I32)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return sum + (I32)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return sum + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// The dot product of the four uint8 in each lane with four int8, none of them negative, added to a
// sum of which `fold` gives the low 16 bits.
[[gnu::always_inline]] inline I32 dot4(I32 sum, U8 bytes, I32 weights) {
#if defined(__AVX512VNNI__)
  return (I32)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, (__m512i)weights);
#elif defined(__AVX2__)
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)bytes, (__m256i)weights);
  sum = (I32)_mm256_add_epi16((__m256i)sum, pairs);  // two sums, each in 16 bits
  asm("" : "+x"(sum));
  return sum;
#else
  constexpr std::int32_t even = 0x00ff00ff;
  sum = dot2(sum, (I32)bytes & even, weights & even);
  return dot2(sum, ((I32)bytes >> 8) & even, (weights >> 8) & even);
#endif
}

[[gnu::always_inline]] inline I32 fold(I32 sum) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
  return (I32)((U32)sum + (U32)(sum >> 16));  // the high bits, which do not count, may overflow
#else
  return sum;
#endif
}

#if defined(__AVX2__)
// Each byte of `index` in the 16 bytes of the same lane of `table`; 0 where its upper bit is set.
[[gnu::always_inline]] inline U8 shuffle(U8 table, U8 index) {
#if defined(__AVX512VNNI__)
  return (U8)_mm512_shuffle_epi8((__m512i)table, (__m512i)index);
#else
  return (U8)_mm256_shuffle_epi8((__m256i)table, (__m256i)index);
#endif
}

[[gnu::always_inline]] inline U8 add_saturated(U8 a, U8 b) {
#if defined(__AVX512VNNI__)
  return (U8)_mm512_adds_epu8((__m512i)a, (__m512i)b);
#else
  return (U8)_mm256_adds_epu8((__m256i)a, (__m256i)b);
#endif
}

[[gnu::always_inline]] inline U8 subtract_saturated(U8 a, U8 b) {
#if defined(__AVX512VNNI__)
  return (U8)_mm512_subs_epu8((__m512i)a, (__m512i)b);
#else
  return (U8)_mm256_subs_epu8((__m256i)a, (__m256i)b);
#endif
}
#endif

// 1 / x within 2^-21, for x in 1..255; whatever for 0.
[[gnu::always_inline]] inline F32 reciprocal(F32 x) {
#if defined(__AVX512VNNI__)
  const F32 r = (F32)_mm512_rcp14_ps((__m512)x);
  return r * (F32)_mm512_fnmadd_ps((__m512)x, (__m512)r, _mm512_set1_ps(2));
#elif defined(__AVX2__)
  const F32 r = (F32)_mm256_rcp_ps((__m256)x);  // within 1.5 * 2^-12: one Newton step is enough
  return r * (F32)_mm256_fnmadd_ps((__m256)x, (__m256)r, _mm256_set1_ps(2));
#else
  return 1.0f / x;
#endif
}

// Lane i of phase p is pixel 4 i + p of a row: taking phases apart and putting them together again
// needs shifts alone, and a horizontal filter of bytes gives them for nothing (dot4 at 4 weights).
[[gnu::always_inline]] inline I32 phase(U8 pixels, int p) { return ((I32)pixels >> 8 * p) & 255; }

// Four phases of values 0..255 to pixels in their order.
[[gnu::always_inline]] inline U8 interleave(const I32 (&phases)[4]) {
  return (U8)(phases[0] | phases[1] << 8 | phases[2] << 16 | phases[3] << 24);
}

}  // namespace
}  // namespace sketchify::SKETCHIFY_ISA
