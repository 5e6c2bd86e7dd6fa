// NEON with the dot product of bytes: an option of ARMv8.2, and in every processor since ARMv8.4.
#include "neon.h"

namespace pocketbert {
namespace {

constexpr int STRIP = Neon::STRIP, VECTORS = STRIP / Neon::LANES;
constexpr int ROWS = 6;   // 24 accumulators, and 8 of 32 registers for rows and weights
constexpr int QUAD = 4;   // numbers of a row that an instruction multiplies
constexpr int CHUNK = 16;  // and those that one load brings
using Weights = Int8Strips<QUAD, CHUNK>;

// sums += the products of one quad of all rows, the weights of which start at `strip`. See simd_loops.h for the loops.
template <int M, int LANE>
INLINE void add_quad(int32x4_t (&sums)[M][VECTORS], const int8x16_t (&a)[M], const std::int8_t* strip) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
        const int8x16_t w = vld1q_s8(strip + (LANE * VECTORS + v) * 16);
#pragma GCC unroll 6
        for (int r = 0; r < M; ++r) sums[r][v] = vdotq_laneq_s32(sums[r][v], w, a[r], LANE);
    }
}

template <int M>
NOINLINE void tile(const std::int8_t* q, int padded, const float* scales, const std::int8_t* strip,
                   const float* weight_scales, const TileTarget& to) {
    int32x4_t sums[M][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sums[r][v] = vdupq_n_s32(0);
    for (int i = 0; i < padded; i += CHUNK, strip += STRIP * CHUNK) {
        int8x16_t a[M];
#pragma GCC unroll 6
        for (int r = 0; r < M; ++r) a[r] = vld1q_s8(q + std::ptrdiff_t(r) * padded + i);
        add_quad<M, 0>(sums, a, strip);
        add_quad<M, 1>(sums, a, strip);
        add_quad<M, 2>(sums, a, strip);
        add_quad<M, 3>(sums, a, strip);
    }
    alignas(64) float products[M][STRIP];
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v)
            vst1q_f32(
                products[r] + v * Neon::LANES,
                vcvtq_f32_s32(sums[r][v]) * (vdupq_n_f32(scales[r]) * vld1q_f32(weight_scales + v * Neon::LANES)));
    Loops<Neon>::apply_epilogue(products, M, to);
}

void linear_s8(const std::int8_t* q, const float* scales, const std::int32_t*, int m, const std::uint8_t* packed,
               const float* weight_scales, int n, int k, const Epilogue& epilogue, float* out,
               std::ptrdiff_t out_stride) {
    const int padded = Weights::padded(k);
    for (int column = 0; column < n; column += STRIP) {
        const auto* strip = reinterpret_cast<const std::int8_t*>(packed) + std::ptrdiff_t(column) * padded;
        const int columns = n - column < STRIP ? n - column : STRIP;
        for (int row = 0; row < m; row += ROWS)
            with_constant<ROWS>(m - row, [&](auto rows) {
                tile<decltype(rows)::value>(q + std::ptrdiff_t(row) * padded, padded, scales + row, strip,
                                            weight_scales + column,
                                            TileTarget{row, column, columns, epilogue, out, out_stride});
            });
    }
}

std::size_t quantized_bytes(int rows, int k) { return std::size_t(rows) * std::size_t(Weights::padded(k)); }

void quantize(const float* x, int k, int row, std::int8_t* q, float* scale, std::int32_t* sum) {
    const int padded = Weights::padded(k);
    q += std::ptrdiff_t(row) * padded;
    Loops<Neon>::quantize_to(x, k, padded, [&](int i) { return q + i; }, scale, sum);
}

std::int64_t peak_s8(int rounds) {
    int8x16_t a = vdupq_n_s8(1);
    return peak_loop(rounds, 4 * QUAD, vdupq_n_s32(0), [&](int32x4_t& sums) {
        hide_vector(a);
        sums = vdotq_laneq_s32(sums, a, a, 0);
    });
}

constexpr Kernels table() {
    Kernels kernels = Loops<Neon>::table_without_int8("neon");
    kernels.packed_s8_bytes = Weights::bytes;
    kernels.pack_s8 = Weights::pack;
    kernels.quantized_bytes = quantized_bytes;
    kernels.quantize = quantize;
    kernels.linear_s8 = linear_s8;
    kernels.int8_dot = "sdot";
    kernels.peak_s8 = peak_s8;
    return kernels;
}

}  // namespace

constexpr Kernels neon_kernels = table();

}  // namespace pocketbert
