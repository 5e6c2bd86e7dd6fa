// NEON with products of matrices of bytes (FEAT_I8MM): twice the products of the dot product. An instruction multiplies
// 2 rows of 8 numbers by 2 columns of 8; weights are packed and rows are quantised in such pairs.
#pragma once

#include "neon.h"

namespace pocketbert {
namespace {

struct I8mm {
    using Loops = pocketbert::Loops<Neon>;
    static constexpr int STRIP = Neon::STRIP, LANES = Neon::LANES;
    static constexpr int DEPTH = 8;  // numbers of a row in a vector
    static constexpr int PAIRS = 3;  // of rows in a tile
    static constexpr int COLUMN_PAIRS = STRIP / 2;  // 24 accumulators, and 8 of 32 registers for rows and weights

    using Weights = Int8Strips<DEPTH, DEPTH>;

    // See simd_loops.h for the shape of a tile.
    template <int P>
    static NOINLINE void tile(const std::int8_t* q, int chunks, const float* scales, int rows, const std::int8_t* strip,
                              const float* weight_scales, const TileTarget& to) {
        int32x4_t sums[P][COLUMN_PAIRS];
#pragma GCC unroll 3
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
            for (int c = 0; c < COLUMN_PAIRS; ++c) sums[p][c] = vdupq_n_s32(0);
        for (int i = 0; i < chunks; ++i, q += 2 * DEPTH, strip += STRIP * DEPTH) {
            int8x16_t a[P];
#pragma GCC unroll 3
            for (int p = 0; p < P; ++p) a[p] = vld1q_s8(q + std::ptrdiff_t(p) * chunks * 2 * DEPTH);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMN_PAIRS; c += 2) {  // two loads at once, and time until the second one is needed
                const int8x16_t left = vld1q_s8(strip + c * 2 * DEPTH), right = vld1q_s8(strip + (c + 1) * 2 * DEPTH);
#pragma GCC unroll 3
                for (int p = 0; p < P; ++p) sums[p][c] = vmmlaq_s32(sums[p][c], a[p], left);
#pragma GCC unroll 3
                for (int p = 0; p < P; ++p) sums[p][c + 1] = vmmlaq_s32(sums[p][c + 1], a[p], right);
            }
        }
        alignas(64) float products[2 * P][STRIP];
#pragma GCC unroll 3
        for (int p = 0; p < P; ++p) {
            const float32x4_t even = vdupq_n_f32(scales[2 * p]);
            const float32x4_t odd = vdupq_n_f32(2 * p + 1 < rows ? scales[2 * p + 1] : 0.0f);
#pragma GCC unroll 4
            for (int v = 0; v < STRIP / LANES; ++v) {
                const int64x2_t left = vreinterpretq_s64_s32(sums[p][2 * v]),
                                right = vreinterpretq_s64_s32(sums[p][2 * v + 1]);
                const float32x4_t weight_scale = vld1q_f32(weight_scales + v * LANES);
                vst1q_f32(products[2 * p] + v * LANES,
                          vcvtq_f32_s32(vreinterpretq_s32_s64(vuzp1q_s64(left, right))) * (even * weight_scale));
                vst1q_f32(products[2 * p + 1] + v * LANES,
                          vcvtq_f32_s32(vreinterpretq_s32_s64(vuzp2q_s64(left, right))) * (odd * weight_scale));
            }
        }
        Loops::apply_epilogue(products, rows, to);
    }

    static void linear_s8(const std::int8_t* q, const float* scales, const std::int32_t*, int m,
                          const std::uint8_t* packed, const float* weight_scales, int n, int k,
                          const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
        const int padded = Weights::padded(k);
        for (int column = 0; column < n; column += STRIP) {
            const auto* strip = reinterpret_cast<const std::int8_t*>(packed) + std::ptrdiff_t(column) * padded;
            const int columns = n - column < STRIP ? n - column : STRIP;
            for (int row = 0; row < m; row += 2 * PAIRS) {
                const int rows = m - row < 2 * PAIRS ? m - row : 2 * PAIRS;
                with_constant<PAIRS>((rows + 1) / 2, [&](auto pairs) {
                    tile<decltype(pairs)::value>(q + std::ptrdiff_t(row) * padded, padded / DEPTH, scales + row, rows,
                                                 strip, weight_scales + column,
                                                 TileTarget{row, column, columns, epilogue, out, out_stride});
                });
            }
        }
    }

    static std::size_t quantized_bytes(int rows, int k) {
        return std::size_t(round_up(rows, 2)) * std::size_t(Weights::padded(k));
    }

    // Rows in pairs: [rows / 2][k / DEPTH][2][DEPTH].
    static void quantize(const float* x, int k, int row, std::int8_t* q, float* scale, std::int32_t* sum) {
        const int padded = Weights::padded(k);
        q += std::ptrdiff_t(row / 2) * 2 * padded + row % 2 * DEPTH;
        Loops::quantize_to(x, k, padded, [&](int i) { return q + i / DEPTH * 2 * DEPTH + i % DEPTH; }, scale, sum);
    }

    static std::int64_t peak_s8(int rounds) {
        int8x16_t a = vdupq_n_s8(1);
        return peak_loop(rounds, 4 * DEPTH, vdupq_n_s32(0), [&](int32x4_t& sums) {
            hide_vector(a);
            sums = vmmlaq_s32(sums, a, a);
        });
    }

    static constexpr Kernels table(const char* name) {
        Kernels kernels = Loops::table_without_int8(name);
        kernels.packed_s8_bytes = Weights::bytes;
        kernels.pack_s8 = Weights::pack;
        kernels.quantized_bytes = quantized_bytes;
        kernels.quantize = quantize;
        kernels.linear_s8 = linear_s8;
        kernels.int8_dot = "smmla";
        kernels.peak_s8 = peak_s8;
        kernels.row_multiple = 2;
        return kernels;
    }
};

}  // namespace
}  // namespace pocketbert
