// NEON with products of matrices of bytes, and attention in bfloat16 (FEAT_BF16): an instruction multiplies 2 rows of 4
// numbers by 2 columns of 4, four times the products of fp32. Scores, the softmax and all sums stay in fp32.
#include "neon_i8mm.h"

namespace pocketbert {
namespace {

constexpr int LANES = Neon::LANES;
constexpr int STRIP = Neon::STRIP;  // keys, or columns of the values, of a tile
constexpr int PAIRS = 3;  // of queries in a tile
constexpr int ROWS = 2 * PAIRS;
constexpr int DEPTH = 4;  // numbers of a row in a vector

// 2^x. The polynomial is exact to 7.5e-5, 26 times as fine as the bfloat16 that comes of it. NaN stays NaN.
INLINE float32x4_t exp2(float32x4_t x) {
    x = vmaxq_f32(x, vdupq_n_f32(-127.0f));
    const float32x4_t n = vrndmq_f32(x), r = x - n;
    float32x4_t p = vfmaq_f32(vdupq_n_f32(0.2260672f), vdupq_n_f32(0.07802454f), r);
    p = vfmaq_f32(vdupq_n_f32(0.69583349f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.99992523f), p, r);
    return Neon::times_power_of_two(p, n);
}

INLINE uint16x4_t load(const std::uint16_t* p, int left) {  // zeros beyond the end
    if (left >= LANES) return vld1_u16(p);
    std::uint16_t lanes[LANES] = {};
    for (int i = 0; i < left; ++i) lanes[i] = p[i];
    return vld1_u16(lanes);
}

INLINE void store(bfloat16_t* p, uint16x4_t x) { vst1_bf16(p, vreinterpret_bf16_u16(x)); }

// Rows [length, depth] as strips [length / STRIP][depth / DEPTH][STRIP][DEPTH], with zeros behind both ends.
void pack_keys(const std::uint16_t* keys, std::ptrdiff_t stride, int length, int depth, bfloat16_t* packed) {
    for (int first = 0; first < length; first += STRIP)
        for (int i = 0; i < depth; i += DEPTH)
            for (int key = first; key < first + STRIP; ++key, packed += DEPTH)
                store(packed, key < length ? load(keys + key * stride + i, depth - i) : vdup_n_u16(0));
}

// Rows [length, depth] as strips [depth / STRIP][length / DEPTH][STRIP][DEPTH] of their columns.
void pack_values(const std::uint16_t* values, std::ptrdiff_t stride, int length, int depth, bfloat16_t* packed) {
    for (int first = 0; first < depth; first += STRIP)
        for (int row = 0; row < length; row += DEPTH)
            for (int i = first; i < first + STRIP; i += LANES, packed += LANES * DEPTH) {
                uint16x4_t rows[DEPTH];
#pragma GCC unroll 4
                for (int r = 0; r < DEPTH; ++r)
                    rows[r] = row + r < length && i < depth ? load(values + (row + r) * stride + i, depth - i)
                                                            : vdup_n_u16(0);
                const uint16x4x2_t a = vzip_u16(rows[0], rows[1]), b = vzip_u16(rows[2], rows[3]);
                const auto store_columns = [&](int column, uint16x4_t x, uint16x4_t y) {
                    const uint32x2x2_t columns = vzip_u32(vreinterpret_u32_u16(x), vreinterpret_u32_u16(y));
                    vst1q_u16(reinterpret_cast<std::uint16_t*>(packed + column * DEPTH),
                              vreinterpretq_u16_u32(vcombine_u32(columns.val[0], columns.val[1])));
                };
                store_columns(0, a.val[0], b.val[0]);
                store_columns(2, a.val[1], b.val[1]);
            }
}

// out [2 P, STRIP] = x [P pairs of rows, chunks of DEPTH] · strip.
template <int P>
NOINLINE void tile(const bfloat16_t* x, int chunks, const bfloat16_t* strip, float* out, std::ptrdiff_t out_stride) {
    float32x4_t sums[P][STRIP / 2];
#pragma GCC unroll 3
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
        for (int c = 0; c < STRIP / 2; ++c) sums[p][c] = vdupq_n_f32(0.0f);
    for (int i = 0; i < chunks; ++i, x += 2 * DEPTH, strip += STRIP * DEPTH) {
        bfloat16x8_t a[P];
#pragma GCC unroll 3
        for (int p = 0; p < P; ++p) a[p] = vld1q_bf16(x + std::ptrdiff_t(p) * chunks * 2 * DEPTH);
#pragma GCC unroll 4
        for (int c = 0; c < STRIP / 2; c += 2) {
            const bfloat16x8_t left = vld1q_bf16(strip + c * 2 * DEPTH),
                               right = vld1q_bf16(strip + (c + 1) * 2 * DEPTH);
#pragma GCC unroll 3
            for (int p = 0; p < P; ++p) sums[p][c] = vbfmmlaq_f32(sums[p][c], a[p], left);
#pragma GCC unroll 3
            for (int p = 0; p < P; ++p) sums[p][c + 1] = vbfmmlaq_f32(sums[p][c + 1], a[p], right);
        }
    }
#pragma GCC unroll 3
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < STRIP / LANES; ++v) {
            const float64x2_t left = vreinterpretq_f64_f32(sums[p][2 * v]),
                              right = vreinterpretq_f64_f32(sums[p][2 * v + 1]);
            float* const even = out + 2 * p * out_stride + v * LANES;
            vst1q_f32(even, vreinterpretq_f32_f64(vuzp1q_f64(left, right)));
            vst1q_f32(even + out_stride, vreinterpretq_f32_f64(vuzp2q_f64(left, right)));
        }
}

// A row of pairs: its first number in vectors that belong to two rows.
INLINE bfloat16_t* row_of_pairs(bfloat16_t* pairs, int row, int chunks) {
    return pairs + std::ptrdiff_t(row / 2) * chunks * 2 * DEPTH + row % 2 * DEPTH;
}

// x = 2^((x - max) log2 e) as a row of pairs, zeros behind; returns 1 / their sum, which is of the fp32 values. Reads and
// changes the scores to a multiple of LANES.
INLINE float exponentials(float* scores, int length, bfloat16_t* out) {
    const int padded = round_up(length, LANES);
    for (int i = length; i < padded; ++i) scores[i] = -3.0e38f;
    float32x4_t largest = vld1q_f32(scores);
    for (int i = LANES; i < padded; i += LANES) largest = vmaxq_f32(largest, vld1q_f32(scores + i));
    const float32x4_t scale = vdupq_n_f32(1.44269504f), shift = vdupq_n_f32(-1.44269504f * vmaxvq_f32(largest));
    float32x4_t sum = vdupq_n_f32(0.0f);
    for (int i = 0; i < padded; i += LANES, out += 2 * DEPTH) {
        const float32x4_t y = exp2(vfmaq_f32(shift, vld1q_f32(scores + i), scale));
        sum = sum + y;
        vst1_bf16(out, vcvt_bf16_f32(y));
    }
    return 1.0f / vaddvq_f32(sum);
}

struct Memory {  // parts of the scratch, each a whole number of cache lines
    Memory(int length, int depth)
        : length_chunks(round_up(length, DEPTH) / DEPTH), depth_chunks(round_up(depth, DEPTH) / DEPTH),
          score_stride(round_up(length, STRIP)),
          keys(std::size_t(score_stride) * depth_chunks * DEPTH * sizeof(bfloat16_t)),
          values(std::size_t(round_up(depth, STRIP)) * length_chunks * DEPTH * sizeof(bfloat16_t)),
          scores(std::size_t(ROWS) * score_stride * sizeof(float)),
          powers(lines(std::size_t(ROWS) * length_chunks * DEPTH * sizeof(bfloat16_t))),
          queries(lines(std::size_t(ROWS) * depth_chunks * DEPTH * sizeof(bfloat16_t))) {}
    static std::size_t lines(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
    int length_chunks, depth_chunks, score_stride;
    std::size_t keys, values, scores, powers, queries;  // bytes
};

template <int P>
void tile_of_queries(const std::uint16_t* query, std::ptrdiff_t query_stride, int rows, int length, int depth,
                     const Memory& memory, std::uint8_t* scratch, float* out, std::ptrdiff_t out_stride) {
    const auto* keys = reinterpret_cast<const bfloat16_t*>(scratch);
    const auto* values = reinterpret_cast<const bfloat16_t*>(scratch + memory.keys);
    auto* scores = reinterpret_cast<float*>(scratch + memory.keys + memory.values);
    auto* powers = reinterpret_cast<bfloat16_t*>(scratch + memory.keys + memory.values + memory.scores);
    auto* queries =
        reinterpret_cast<bfloat16_t*>(scratch + memory.keys + memory.values + memory.scores + memory.powers);
    for (int r = 0; r < rows; ++r) {
        bfloat16_t* to = row_of_pairs(queries, r, memory.depth_chunks);
        for (int i = 0; i < depth; i += DEPTH, to += 2 * DEPTH)
            store(to, load(query + r * query_stride + i, depth - i));
    }
    for (int first = 0; first < length; first += STRIP)
        tile<P>(queries, memory.depth_chunks, keys + std::ptrdiff_t(first) * memory.depth_chunks * DEPTH,
                scores + first, memory.score_stride);
    float inverse[2 * P];
    for (int r = 0; r < rows; ++r)
        inverse[r] = exponentials(scores + std::ptrdiff_t(r) * memory.score_stride, length,
                                  row_of_pairs(powers, r, memory.length_chunks));
    for (int first = 0; first < depth; first += STRIP) {
        alignas(64) float products[2 * P][STRIP];
        tile<P>(powers, memory.length_chunks, values + std::ptrdiff_t(first) * memory.length_chunks * DEPTH,
                products[0], STRIP);
        for (int r = 0; r < rows; ++r)
            for (int i = 0; i < STRIP && first + i < depth; i += LANES)
                Loops<Neon>::store(out + r * out_stride + first + i,
                                   vld1q_f32(products[r] + i) * vdupq_n_f32(inverse[r]), depth - first - i);
    }
}

std::size_t scratch_bytes(int length, int depth) {
    const Memory memory(length, depth);
    return memory.keys + memory.values + memory.scores + memory.powers + memory.queries;
}

void attention(const std::uint16_t* query, std::ptrdiff_t query_stride, const std::uint16_t* key,
               std::ptrdiff_t key_stride, const std::uint16_t* value, std::ptrdiff_t value_stride, int length,
               int depth, float* out, std::ptrdiff_t out_stride, void* scratch) {
    const Memory memory(length, depth);
    auto* const bytes = static_cast<std::uint8_t*>(scratch);
    pack_keys(key, key_stride, length, depth, reinterpret_cast<bfloat16_t*>(bytes));
    pack_values(value, value_stride, length, depth, reinterpret_cast<bfloat16_t*>(bytes + memory.keys));
    for (int row = 0; row < length; row += ROWS) {
        const int rows = length - row < ROWS ? length - row : ROWS;
        with_constant<PAIRS>((rows + 1) / 2, [&](auto pairs) {
            tile_of_queries<decltype(pairs)::value>(query + row * query_stride, query_stride, rows, length, depth,
                                                    memory, bytes, out + row * out_stride, out_stride);
        });
    }
}

std::int64_t peak_bf16(int rounds) {
    bfloat16x8_t a = vreinterpretq_bf16_u16(vdupq_n_u16(0));
    return peak_loop(rounds, 4 * DEPTH, vdupq_n_f32(0.0f), [&](float32x4_t& sums) {
        hide_vector(a);
        sums = vbfmmlaq_f32(sums, a, a);
    });
}

constexpr Bf16Attention bf16_attention = {scratch_bytes, attention, Loops<Neon>::round_to_bf16, 5e-3f};

constexpr Kernels table() {
    Kernels kernels = I8mm::table("neonbf16");
    kernels.bf16_attention = &bf16_attention;
    kernels.peak_bf16 = peak_bf16;
    return kernels;
}

}  // namespace

constexpr Kernels neonbf16_kernels = table();

}  // namespace pocketbert
