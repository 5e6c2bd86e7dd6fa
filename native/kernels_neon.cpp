// NEON with the dot product of bytes (an option of ARMv8.2, and in every processor since ARMv8.4).
#include <arm_neon.h>

#include "kernels_short.h"

namespace pocketbert {
namespace {

struct Neon {
    using Floats = float32x4_t;
    using Ints = int32x4_t;
    using Weights = int8x16_t;
    using Four = int8x8_t;  // bytes, and zeros
    static constexpr int LANES = 4;
    static constexpr int ROWS_F32 = 6, ROWS_S8 = 6;  // 24 accumulators of 32 registers

    static INLINE Floats set(float x) { return vdupq_n_f32(x); }
    static INLINE Floats load(const float* p) { return vld1q_f32(p); }
    static INLINE Floats load(const float* p, int left) {  // zeros behind what is left
        if (left >= LANES) return vld1q_f32(p);
        float some[LANES] = {};
        for (int i = 0; i < left; ++i) some[i] = p[i];
        return vld1q_f32(some);
    }
    static INLINE void store(float* p, Floats x) { vst1q_f32(p, x); }
    static INLINE void store(float* p, Floats x, int left) {
        if (left >= LANES) return vst1q_f32(p, x);
        float some[LANES];
        vst1q_f32(some, x);
        for (int i = 0; i < left; ++i) p[i] = some[i];
    }
    static INLINE Floats first(Floats x, int left) {
        constexpr std::int32_t PLACES[LANES] = {0, 1, 2, 3};
        const uint32x4_t kept = vcltq_s32(vld1q_s32(PLACES), vdupq_n_s32(left));
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), kept));
    }

    static INLINE Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
    static INLINE Floats at_least(Floats limit, Floats x) { return vmaxq_f32(limit, x); }  // NaN where x is NaN
    static INLINE Floats at_most(Floats limit, Floats x) { return vminq_f32(limit, x); }
    static INLINE Floats abs(Floats x) { return vabsq_f32(x); }
    static INLINE Floats with_sign_of(Floats x, Floats magnitude) {
        return vbslq_f32(vdupq_n_u32(0x80000000u), x, magnitude);
    }
    static INLINE Floats round(Floats x) { return vrndnq_f32(x); }
    static INLINE Floats power_of_two(Floats n) {
        return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
    }
    static INLINE float sum(Floats x) { return vaddvq_f32(x); }

    static INLINE Ints magnitude(Floats x) { return vreinterpretq_s32_f32(abs(x)); }
    static INLINE Ints larger(Ints a, Ints b) { return vmaxq_s32(a, b); }
    static INLINE Ints plus(Ints a, Ints b) { return vaddq_s32(a, b); }
    static INLINE Floats floats(Ints x) { return vcvtq_f32_s32(x); }
    static INLINE std::int32_t largest(Ints x) { return vmaxvq_s32(x); }
    static INLINE std::int32_t sum(Ints x) { return vaddvq_s32(x); }
    // Whole numbers of 8 bits, four of which are always left; and the same in 32 bits.
    static INLINE Ints store_rounded(std::int8_t* q, Floats x, int) {
        const Ints n = vcvtnq_s32_f32(x);
        const int16x4_t words = vmovn_s32(n);
        const std::int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
        __builtin_memcpy(q, &four, sizeof four);
        return n;
    }

    static INLINE Ints before_dots(std::int32_t) { return vdupq_n_s32(0); }
    static INLINE Weights weights(const std::uint8_t* packed) {  // without the 128 that was added for other processors
        return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(packed), vdupq_n_u8(128)));
    }
    static INLINE Four four_bytes(const std::int8_t* q) {
        std::uint32_t four;
        __builtin_memcpy(&four, q, sizeof four);
        return vcreate_s8(four);
    }
    static INLINE void dot(Ints& sums, Weights w, Four q) { sums = vdotq_lane_s32(sums, w, q, 0); }
};

}  // namespace

const Kernels neon_kernels = Loops<Neon>::named("neon");

}  // namespace pocketbert
