// What AVX-512 with VNNI does, for simd_loops.h; avx2.h describes the names.
#pragma once

#include <immintrin.h>

#include "simd_loops.h"

namespace pocketbert {
namespace {

struct Avx512 {
    using Floats = __m512;
    using Ints = __m512i;
    using Weights = __m512i;
    using Bytes4 = __m512i;
    static constexpr int LANES = 16, STRIP = PANEL;
    static constexpr int STEP = 4;
    static constexpr bool ROUNDS_LINES = true;  // has store_rounded_line
    static constexpr int ROWS_F32 = 6,
                         ROWS_S8 = 6;  // 24 accumulators, and 8 of 32 registers for weights and a broadcast
    static constexpr const char* INT8_DOT = "vpdpbusd";

    static INLINE __mmask16 first_lanes(int count) {
        return count >= LANES ? __mmask16(0xFFFF) : count <= 0 ? __mmask16(0) : __mmask16((1u << count) - 1);
    }

    static INLINE Floats set(float x) { return _mm512_set1_ps(x); }
    static INLINE Ints set_ints(std::int32_t x) { return _mm512_set1_epi32(x); }
    static INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
    static INLINE Floats load_partial(const float* p, int left, Floats beyond) {
        return _mm512_mask_loadu_ps(beyond, first_lanes(left), p);
    }
    static INLINE void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
    static INLINE void store_partial(float* p, Floats x, int left) { _mm512_mask_storeu_ps(p, first_lanes(left), x); }
#ifdef __AVX512BF16__
    static constexpr bool STORES_BF16 = true;
    static INLINE void store_bf16(std::uint16_t* p, Floats x, int left) {
        _mm256_mask_storeu_epi16(p, first_lanes(left), (__m256i)_mm512_cvtneps_pbh(x));
    }
#else
    static constexpr bool STORES_BF16 = false;
#endif
    static INLINE Floats first(Floats x, int left) { return _mm512_maskz_mov_ps(first_lanes(left), x); }

    static INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static INLINE Floats add_product(Floats sum, Floats a, Floats b) { return fma(a, b, sum); }
    static INLINE Floats divide(Floats a, Floats b) {  // a times a reciprocal after one Newton step
        Floats y = _mm512_rcp14_ps(b);
        y = y * _mm512_fnmadd_ps(b, y, set(2.0f));
        return a * y;
    }
    // min and max return the second operand when one is NaN, so NaN in x propagates.
    static INLINE Floats max(Floats limit, Floats x) { return _mm512_max_ps(limit, x); }
    static INLINE Floats min(Floats limit, Floats x) { return _mm512_min_ps(limit, x); }
    static INLINE Floats abs(Floats x) { return _mm512_abs_ps(x); }
    static INLINE Floats round(Floats x) { return _mm512_roundscale_ps(x, 0); }
    static INLINE Floats times_power_of_two(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }
    static INLINE Floats gelu(Floats x) { return Math<Avx512>::gelu_by_polynomial(x); }
    static INLINE float sum(Floats x) { return _mm512_reduce_add_ps(x); }
    static INLINE float largest(Floats x) { return _mm512_reduce_max_ps(x); }

    static INLINE Ints magnitude(Floats x) { return _mm512_castps_si512(_mm512_abs_ps(x)); }
    static INLINE Ints larger(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
    static INLINE Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
    // As an instruction: GCC 12 may store the mask in 16 bits of the stack and read 32.
    static INLINE unsigned mask_of_larger(Ints a, Ints b) {
        unsigned bits;
        __asm__("kmovw %1, %0" : "=r"(bits) : "k"(_mm512_cmpgt_epi32_mask(a, b)));
        return bits;
    }
    static INLINE Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
    static INLINE void store_ints(void* p, Ints x) { _mm512_storeu_si512(p, x); }
    static INLINE Floats floats(Ints x) { return _mm512_cvtepi32_ps(x); }
    static INLINE std::int32_t largest(Ints x) { return _mm512_reduce_max_epi32(x); }
    static INLINE std::int32_t sum(Ints x) { return _mm512_reduce_add_epi32(x); }
    static INLINE Ints store_rounded(std::int8_t* q, Floats x, int left) {
        const Ints n = _mm512_cvtps_epi32(x);
        if (left >= LANES) _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(n));
        else _mm_mask_storeu_epi8(q, first_lanes(left), _mm512_cvtepi32_epi8(n));
        return n;
    }

    // 64 values of four vectors, rounded, as one line of bytes, which are added to `sums` by fours: half the instructions of
    // store_rounded.
    static INLINE Ints store_rounded_line(std::int8_t* q, const Floats (&x)[4], Ints sums) {
        const Ints low = _mm512_packs_epi32(_mm512_cvtps_epi32(x[0]), _mm512_cvtps_epi32(x[1]));
        const Ints high = _mm512_packs_epi32(_mm512_cvtps_epi32(x[2]), _mm512_cvtps_epi32(x[3]));
        const Ints order =
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // packs go by quarters
        const Ints line = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
        _mm512_storeu_si512(q, line);
        dot(sums, _mm512_set1_epi8(1), line);
        return sums;
    }

    static INLINE Ints first_sums(std::int32_t sum_of_q) { return set_ints(-128 * sum_of_q); }
    static INLINE Weights load_weights(const std::uint8_t* packed) { return _mm512_loadu_si512(packed); }
    static INLINE Weights load_signed_weights(const void* weights) {
        return _mm512_xor_si512(_mm512_loadu_si512(weights), _mm512_set1_epi8(-128));
    }
    static INLINE Bytes4 load_bytes4(const std::int8_t* q) {
        std::int32_t bytes;
        __builtin_memcpy(&bytes, q, sizeof bytes);
        return set_ints(bytes);
    }
    // GCC 12 moves every accumulator through memory around the intrinsic; as one instruction with a register operand it
    // stays where it is, at 2.4 times the speed.
    static INLINE void dot(Ints& sums, Weights w, Bytes4 q) {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(q));
    }
    static INLINE void peak_dot(Ints& sums, Weights w, Bytes4 q) { dot(sums, w, q); }
};

}  // namespace
}  // namespace pocketbert
