// What NEON does, for simd_loops.h, but products of bytes; avx2.h describes the names.
#pragma once

#include <arm_neon.h>

#include "simd_loops.h"

namespace pocketbert {
namespace {

struct Neon {
    using Floats = float32x4_t;
    using Ints = int32x4_t;
    static constexpr int LANES = 4, STRIP = 16;
    static constexpr int STEP = 4;
    static constexpr bool ROUNDS_LINES = false;
    static constexpr int ROWS_F32 = 6;  // 24 accumulators of 32 registers

    static INLINE Floats set(float x) { return vdupq_n_f32(x); }
    static INLINE Ints set_ints(std::int32_t x) { return vdupq_n_s32(x); }
    static INLINE Floats load(const float* p) { return vld1q_f32(p); }
    static INLINE Floats load_partial(const float* p, int left, Floats beyond) {
        float lanes[LANES];
        vst1q_f32(lanes, beyond);
        for (int i = 0; i < left; ++i) lanes[i] = p[i];
        return vld1q_f32(lanes);
    }
    static INLINE void store(float* p, Floats x) { vst1q_f32(p, x); }
    static INLINE void store_partial(float* p, Floats x, int left) {
        float lanes[LANES];
        vst1q_f32(lanes, x);
        for (int i = 0; i < left; ++i) p[i] = lanes[i];
    }
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
    static constexpr bool STORES_BF16 = true;
    static INLINE void store_bf16(std::uint16_t* p, Floats x, int left) {
        const bfloat16x4_t words = vcvt_bf16_f32(x);
        __builtin_memcpy(p, &words, 2 * static_cast<std::size_t>(left < LANES ? left : LANES));
    }
#else
    static constexpr bool STORES_BF16 = false;
#endif
    static INLINE Floats first(Floats x, int left) {
        constexpr std::int32_t NUMBERS[LANES] = {0, 1, 2, 3};
        const uint32x4_t mask = vcltq_s32(vld1q_s32(NUMBERS), vdupq_n_s32(left));
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), mask));
    }

    static INLINE Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
    static INLINE Floats add_product(Floats sum, Floats a, Floats b) { return sum + a * b; }
    static INLINE Floats divide(Floats a, Floats b) { return a / b; }
    static INLINE Floats max(Floats limit, Floats x) { return vmaxq_f32(limit, x); }  // NaN when one of them is NaN
    static INLINE Floats min(Floats limit, Floats x) { return vminq_f32(limit, x); }
    static INLINE Floats abs(Floats x) { return vabsq_f32(x); }
    static INLINE Floats with_sign_of(Floats x, Floats magnitude) {
        return vbslq_f32(vdupq_n_u32(0x80000000u), x, magnitude);
    }
    static INLINE Floats round(Floats x) { return vrndnq_f32(x); }
    static INLINE Floats times_power_of_two(Floats x, Floats n) {
        return x * vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
    }
    static INLINE Floats gelu(Floats x) { return Math<Neon>::gelu_by_erf(x); }
    static INLINE float sum(Floats x) { return vaddvq_f32(x); }
    static INLINE float largest(Floats x) { return vmaxvq_f32(x); }

    static INLINE Ints magnitude(Floats x) { return vreinterpretq_s32_f32(abs(x)); }
    static INLINE Ints larger(Ints a, Ints b) { return vmaxq_s32(a, b); }
    static INLINE Ints plus(Ints a, Ints b) { return vaddq_s32(a, b); }
    static INLINE unsigned mask_of_larger(Ints a, Ints b) {
        constexpr std::uint32_t BITS[LANES] = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32(vcgtq_s32(a, b), vld1q_u32(BITS)));
    }
    static INLINE Floats floats(Ints x) { return vcvtq_f32_s32(x); }
    static INLINE std::int32_t largest(Ints x) { return vmaxvq_s32(x); }
    static INLINE std::int32_t sum(Ints x) { return vaddvq_s32(x); }
    static INLINE Ints store_rounded(std::int8_t* q, Floats x, int) {  // four of them are always left
        const Ints n = vcvtnq_s32_f32(x);
        const int16x4_t words = vmovn_s32(n);
        const std::int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
        __builtin_memcpy(q, &bytes, sizeof bytes);
        return n;
    }
};

// Int8 products with tiles of STRIP columns. Weights are packed as [n / STRIP][k / DEPTH][STRIP][DEPTH], filled up with
// zeros to whole panels and to a multiple of PADDING numbers: the weights of a tile lie one behind the other, and stay in
// the first cache of a small processor while rows go by.
template <int DEPTH, int PADDING>
struct Int8Strips {
    static int padded(int k) { return round_up(k, PADDING); }
    static std::size_t bytes(int n, int k) { return std::size_t(round_up(n, PANEL)) * std::size_t(padded(k)); }
    static void pack(const std::int8_t* weight, int n, int k, std::uint8_t* packed) {
        for (int first = 0; first < round_up(n, PANEL); first += Neon::STRIP)
            for (int chunk = 0; chunk < padded(k); chunk += DEPTH)
                for (int j = first; j < first + Neon::STRIP; ++j)
                    for (int i = chunk; i < chunk + DEPTH; ++i)
                        *packed++ = static_cast<std::uint8_t>(j < n && i < k ? weight[std::ptrdiff_t(j) * k + i] : 0);
    }
};

}  // namespace
}  // namespace pocketbert
