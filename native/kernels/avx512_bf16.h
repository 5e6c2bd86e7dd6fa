// Vectors of bfloat16 in attention, for processors with AVX-512 BF16.
#pragma once

#include "avx512.h"

namespace pocketbert {
namespace {

struct Avx512Bf16 {
    static constexpr int LANES = 16;

    static INLINE __mmask16 first_lanes(int count) { return Avx512::first_lanes(count); }

    // 2^x. The polynomial is exact to 7.5e-5, 26 times as fine as the bfloat16 that comes of it. NaN stays NaN.
    static INLINE __m512 exp2(__m512 x) {
        const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
        __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.07802454f), r, _mm512_set1_ps(0.2260672f));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69583349f));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.99992523f));
        return _mm512_scalef_ps(p, x);
    }

    // The first `left` of 32 numbers, zeros behind them, as 16 pairs.
    static INLINE __m512i pairs_of(const std::uint16_t* x, int left) {
        if (left >= 2 * LANES) return _mm512_loadu_si512(x);
        return _mm512_maskz_loadu_epi16(left <= 0 ? __mmask32(0) : (__mmask32(1) << left) - 1, x);
    }
    static INLINE void store_pairs(const std::uint16_t* x, int left, void* out) {
        _mm512_storeu_si512(out, pairs_of(x, left));
    }

    // pairs(i): row i of 16; store(i, column): the pairs i of all rows.
    template <class Pairs, class Store>
    static INLINE void transpose(const Pairs& pairs, const Store& store) {
        __m512i x[LANES], y[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) x[i] = pairs(i);
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 2) {
            y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
            y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 16; i += 4) {
            x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
            x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
            x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
            x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {  // now x[4 j + i] holds columns i, i + 4, i + 8, i + 12 of rows 4 j to 4 j + 3
            const __m512i a = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88),
                          b = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
            const __m512i c = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xDD),
                          d = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xDD);
            y[i] = _mm512_shuffle_i32x4(a, b, 0x88);
            y[4 + i] = _mm512_shuffle_i32x4(c, d, 0x88);
            y[8 + i] = _mm512_shuffle_i32x4(a, b, 0xDD);
            y[12 + i] = _mm512_shuffle_i32x4(c, d, 0xDD);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) store(i, y[i]);
    }

    // ── for tile_attention.h: `rows` and `left` are those that exist, the rest is zeros ──

    // 16 rows of 32 as 16 lines of pairs, line i with pair i of all rows.
    static INLINE void store_transposed(const std::uint16_t* x, std::ptrdiff_t stride, int rows, int left,
                                        std::uint8_t* out) {
        transpose([&](int i) { return i < rows ? pairs_of(x + i * stride, left) : _mm512_setzero_si512(); },
                  [&](int i, __m512i column) { _mm512_storeu_si512(out + i * 64, column); });
    }

    // Two rows of 32 as pairs of one number from each: of columns 0 to 15, and of the others.
    static INLINE void store_two_rows(const std::uint16_t* x, std::ptrdiff_t stride, int rows, int left,
                                      std::uint8_t* first, std::uint8_t* second) {
        const __m512i a = rows > 0 ? pairs_of(x, left) : _mm512_setzero_si512();
        const __m512i b = rows > 1 ? pairs_of(x + stride, left) : _mm512_setzero_si512();
        const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);  // by quarters of 128 bits
        const __m512i order = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
        _mm512_storeu_si512(first, _mm512_permutex2var_epi64(low, order, high));
        _mm512_storeu_si512(second,
                            _mm512_permutex2var_epi64(low, _mm512_add_epi64(order, _mm512_set1_epi64(4)), high));
    }

    static INLINE void store_scaled(const float* x, float factor, int left, float* out) {
        const __m512 by = _mm512_set1_ps(factor);
        _mm512_mask_storeu_ps(out, first_lanes(left), _mm512_mul_ps(_mm512_loadu_ps(x), by));
        if (left > LANES)
            _mm512_mask_storeu_ps(out + LANES, first_lanes(left - LANES),
                                  _mm512_mul_ps(_mm512_loadu_ps(x + LANES), by));
    }

    // x = 2^((x - max) log2 e) in pairs of bfloat16, zeros behind, 16 pairs at a time; returns 1 / their sum, which is of
    // the fp32 values. 32 scores and 16 pairs lie together, `score_step` and `step` behind the ones before.
    static INLINE float exponentials(const float* scores, std::ptrdiff_t score_step, int length, std::uint32_t* out,
                                     std::ptrdiff_t step) {
        const __m512 least = _mm512_set1_ps(-3.0e38f);
        __m512 low_max = least, high_max = least;
        const int whole = length / (2 * LANES), left = length % (2 * LANES);
        const float* from = scores;
        for (int i = 0; i < whole; ++i, from += score_step) {
            low_max = _mm512_max_ps(low_max, _mm512_loadu_ps(from));
            high_max = _mm512_max_ps(high_max, _mm512_loadu_ps(from + LANES));
        }
        if (left) {
            low_max = _mm512_mask_max_ps(low_max, first_lanes(left), low_max, _mm512_loadu_ps(from));
            high_max = _mm512_mask_max_ps(high_max, first_lanes(left - LANES), high_max, _mm512_loadu_ps(from + LANES));
        }
        const __m512 scale = _mm512_set1_ps(1.44269504f);
        const __m512 shift = _mm512_set1_ps(-1.44269504f * _mm512_reduce_max_ps(_mm512_max_ps(low_max, high_max)));
        const auto power = [&](const float* at)
                               INLINE_LAMBDA { return exp2(_mm512_fmadd_ps(_mm512_loadu_ps(at), scale, shift)); };
        __m512 low_sum = _mm512_setzero_ps(), high_sum = low_sum;
        const auto add = [&](__m512 low, __m512 high) INLINE_LAMBDA {
            low_sum = _mm512_add_ps(low_sum, low), high_sum = _mm512_add_ps(high_sum, high);
            _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        };
        for (int i = 0; i < whole; ++i, scores += score_step, out += step) add(power(scores), power(scores + LANES));
        if (left)
            add(_mm512_maskz_mov_ps(first_lanes(left), power(scores)),
                _mm512_maskz_mov_ps(first_lanes(left - LANES), power(scores + LANES)));
        const __m512 sum = _mm512_add_ps(low_sum, high_sum);
        return 1.0f / _mm512_reduce_add_ps(sum);
    }
};

}  // namespace
}  // namespace pocketbert
