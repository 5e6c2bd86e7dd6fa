// What AVX2 with FMA does, for simd_loops.h; and with AVX-VNNI in a file that is compiled for it.
#pragma once

#include <immintrin.h>

#include "simd_loops.h"

namespace pocketbert {
namespace {

// At an offset of 8 - n: n lanes of ones, and zeros.
alignas(64) constexpr std::int32_t LANE_MASKS[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

INLINE __m256i first_lanes(int count) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(LANE_MASKS + 8 - count));
}

struct Avx2 {
    using Floats = __m256;
    using Ints = __m256i;
    using Bytes4 = __m256i;  // four bytes of a row, in every lane
    static constexpr int LANES = 8;
    static constexpr int STRIP = 16;    // columns of a tile
    static constexpr int STEP = 4;
    static constexpr bool ROUNDS_LINES = false;
    static constexpr int ROWS_F32 = 6;  // 12 accumulators, and 4 of 16 registers for weights and a broadcast

    // ── memory; `_partial` reads and writes `left` lanes, fewer than all ──

    static INLINE Floats set(float x) { return _mm256_set1_ps(x); }
    static INLINE Ints set_ints(std::int32_t x) { return _mm256_set1_epi32(x); }
    static INLINE Floats load(const float* p) { return _mm256_loadu_ps(p); }
    static INLINE Floats load_partial(const float* p, int left, Floats beyond) {  // and other lanes as in `beyond`
        const __m256i mask = first_lanes(left);
        return _mm256_blendv_ps(beyond, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
    }
    static INLINE void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
    static INLINE void store_partial(float* p, Floats x, int left) { _mm256_maskstore_ps(p, first_lanes(left), x); }
    static constexpr bool STORES_BF16 = true;
    static INLINE void store_bf16(std::uint16_t* p, Floats x, int left) {  // to nearest, ties to even; NaN stays NaN
        const __m256i bits = _mm256_castps_si256(x);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), set_ints(1));
        __m256i high = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, set_ints(0x7FFF))), 16);
        high = _mm256_blendv_epi8(high, set_ints(0x7FC0), _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
        __builtin_memcpy(p, &words, 2 * static_cast<std::size_t>(left < LANES ? left : LANES));
    }
    static INLINE Floats first(Floats x, int left) {  // zeros in other lanes
        return _mm256_and_ps(x, _mm256_castsi256_ps(first_lanes(left)));
    }

    // ── floats; +, - and * are operators ──

    static INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static INLINE Floats add_product(Floats sum, Floats a, Floats b) { return sum + a * b; }
    static INLINE Floats divide(Floats a, Floats b) { return a / b; }
    // min and max return the second operand when one is NaN, so NaN in x propagates.
    static INLINE Floats max(Floats limit, Floats x) { return _mm256_max_ps(limit, x); }
    static INLINE Floats min(Floats limit, Floats x) { return _mm256_min_ps(limit, x); }
    static INLINE Floats abs(Floats x) { return _mm256_andnot_ps(set(-0.0f), x); }
    static INLINE Floats with_sign_of(Floats x, Floats magnitude) {
        return _mm256_or_ps(_mm256_and_ps(x, set(-0.0f)), magnitude);
    }
    static INLINE Floats round(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static INLINE Floats times_power_of_two(Floats x, Floats n) {
        const Ints exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return x * _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
    static INLINE Floats gelu(Floats x) { return Math<Avx2>::gelu_by_erf(x); }
    static INLINE float sum(Floats x) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
    }
    static INLINE float largest(Floats x) {
        __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        s = _mm_max_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
    }

    // ── whole numbers ──

    static INLINE Ints magnitude(Floats x) { return _mm256_castps_si256(abs(x)); }  // the bits of |x|
    static INLINE Ints larger(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
    static INLINE Ints plus(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
    static INLINE unsigned mask_of_larger(Ints a, Ints b) {  // bit i is set where a is larger in lane i
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b))));
    }
    static INLINE Ints load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static INLINE void store_ints(void* p, Ints x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
    static INLINE Floats floats(Ints x) { return _mm256_cvtepi32_ps(x); }
    static INLINE std::int32_t largest(Ints x) {
        __m128i s = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        s = _mm_max_epi32(s, _mm_unpackhi_epi64(s, s));
        return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 1)));
    }
    static INLINE std::int32_t sum(Ints x) {
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
        return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
    }
    // Rounds to whole numbers, stores `left` of them (a multiple of 4) in 8 bits, and returns all of them in 32 bits.
    static INLINE Ints store_rounded(std::int8_t* q, Floats x, int left) {
        const Ints n = _mm256_cvtps_epi32(x);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
        const __m128i bytes = _mm_packs_epi16(words, words);
        if (left >= LANES) _mm_storel_epi64(reinterpret_cast<__m128i*>(q), bytes);
        else _mm_storeu_si32(q, bytes);
        return n;
    }

    // ── products of bytes: sums = first_sums(sum of the row), then dot(sums, weights, four bytes of the row). Signed weights
    // are those without 128 added. peak_dot has the instructions of dot that no program can do without ──

    static INLINE Bytes4 load_bytes4(const std::int8_t* q) {
        std::int32_t bytes;
        __builtin_memcpy(&bytes, q, sizeof bytes);
        return _mm256_set1_epi32(bytes);
    }

    // Instructions of each dot product are written down: around the intrinsics, GCC 12 moves every sum through memory.
#ifdef __AVXVNNI__
    static constexpr const char* INT8_DOT = "vpdpbusd";
    static constexpr int ROWS_S8 = 6;
    using Weights = __m256i;
    static INLINE Ints first_sums(std::int32_t sum_of_q) { return set_ints(-128 * sum_of_q); }  // see kernels.h on 128
    static INLINE Weights load_weights(const std::uint8_t* packed) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
    }
    static INLINE Weights load_signed_weights(const void* weights) {
        return _mm256_xor_si256(load_ints(weights), _mm256_set1_epi8(-128));
    }
    static INLINE void dot(Ints& sums, Weights w, Bytes4 q) {
        __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(w), "x"(q));
    }
    static INLINE void peak_dot(Ints& sums, Weights w, Bytes4 q) { dot(sums, w, q); }
#else
    static constexpr const char* INT8_DOT = "vpmaddubsw";
    static constexpr int ROWS_S8 = 4;  // 8 accumulators; the weights take 4 registers
    struct Weights {
        __m256i magnitudes, signs;
    };
    static INLINE Ints first_sums(std::int32_t) { return _mm256_setzero_si256(); }
    static INLINE Weights load_weights(const std::uint8_t* packed) {
        return weights_of(_mm256_xor_si256(load_ints(packed), _mm256_set1_epi8(-128)));
    }
    static INLINE Weights load_signed_weights(const void* weights) { return weights_of(load_ints(weights)); }
    // The instruction for u8 times s8 adds two products in 16 bits, and saturates. It never does if the weights leave
    // their signs to the other factor, as 2 · 128 · 127 < 2^15.
    static INLINE void dot(Ints& sums, Weights w, Bytes4 q) { add_products(sums, w, _mm256_sign_epi8(q, w.signs)); }
    static INLINE void peak_dot(Ints& sums, Weights w, Bytes4 q) { add_products(sums, w, q); }

private:
    static INLINE Weights weights_of(__m256i w) { return {_mm256_abs_epi8(w), w}; }
    static INLINE void add_products(Ints& sums, Weights w, Bytes4 q) {
        const __m256i pairs = _mm256_maddubs_epi16(w.magnitudes, q);
        __asm__("vpaddd %1, %0, %0" : "+x"(sums) : "x"(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
    }
#endif
};

#ifndef __AVXVNNI__
// Products of bytes as 16-bit numbers, two at a time: no signs have to be moved, so that the products alone take as long as
// the multiplications. Weights lie as signed bytes, [panel][k / 2][PANEL][2], rows as 16-bit numbers.
struct Avx2Pairs : Avx2 {
    using Weights = __m256i;
    static constexpr const char* INT8_DOT = "vpmaddwd";
    static constexpr int STEP = 2;
    static constexpr int ROWS_S8 = 6;

    static INLINE Ints store_rounded(std::int8_t* q, Floats x, int left) {  // `left` is a multiple of 2
        const Ints n = _mm256_cvtps_epi32(x);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
        if (left >= LANES) _mm_storeu_si128(reinterpret_cast<__m128i*>(q), words);
        else __builtin_memcpy(q, &words, 2 * static_cast<std::size_t>(left));
        return n;
    }
    static INLINE Weights load_weights(const std::uint8_t* packed) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
    }
    static INLINE void dot(Ints& sums, Weights w, Bytes4 q) {
        __asm__("vpaddd %1, %0, %0" : "+x"(sums) : "x"(_mm256_madd_epi16(w, q)));
    }
};
#endif

}  // namespace
}  // namespace pocketbert
