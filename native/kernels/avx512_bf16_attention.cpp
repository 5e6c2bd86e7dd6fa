// AVX-512 once more, with attention in bfloat16 for processors that have AVX-512 BF16 besides VNNI: twice the products of
// fp32, a quarter of the time to pack. Scores, the softmax and all sums stay in fp32.
#include <cpuid.h>

#include <algorithm>

#include "../training.h"
#include "avx512_bf16.h"

namespace pocketbert {
namespace {

constexpr int ROWS = Avx512::ROWS_F32;  // queries of a tile, by a panel of keys or of columns
constexpr int LANES = Avx512::LANES;
constexpr int VECTORS = PANEL / LANES;

INLINE __mmask16 first_lanes(int count) { return Avx512::first_lanes(count); }

// sum += a[0] * b[0] + a[1] * b[1] in every lane, which holds two bfloat16. As an instruction: see avx512.h.
INLINE void dot(__m512& sum, __m512i a, __m512i b) { __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }

// Keys [length, depth] as panels [length / PANEL][depth / 2][PANEL] of pairs along the depth.
void pack_keys(const std::uint16_t* keys, std::ptrdiff_t stride, int length, int depth, std::uint32_t* packed) {
    const int pairs = (depth + 1) / 2;
    for (int first = 0; first < length; first += PANEL, packed += std::ptrdiff_t(pairs) * PANEL)
        for (int key = 0; key < PANEL; key += LANES)
            for (int pair = 0; pair < pairs; pair += LANES) {
                const auto row = [&](int i) {
                    const int number = first + key + i;
                    return number < length ? Avx512Bf16::pairs_of(keys + number * stride + pair * 2, depth - pair * 2)
                                           : _mm512_setzero_si512();
                };
                Avx512Bf16::transpose(row, [&](int i, __m512i column) {
                    if (pair + i < pairs) _mm512_store_si512(packed + std::ptrdiff_t(pair + i) * PANEL + key, column);
                });
            }
}

// Values [length, depth] as panels [depth / PANEL][length / 2][PANEL] of pairs along the length.
void pack_values(const std::uint16_t* values, std::ptrdiff_t stride, int length, int depth, std::uint32_t* packed) {
    const auto load = [](const std::uint16_t* from, __mmask16 mask) {
        return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
    };
    for (int first = 0; first < depth; first += PANEL)
        for (int row = 0; row < length; row += 2, packed += PANEL)
            for (int v = 0; v < PANEL; v += LANES) {
                const std::uint16_t* from = values + row * stride + first + v;
                const __mmask16 mask = first_lanes(depth - first - v), second = row + 1 < length ? mask : __mmask16(0);
                const __m512i high = load(second ? from + stride : from, second);
                _mm512_store_si512(packed + v, _mm512_or_si512(load(from, mask), _mm512_slli_epi32(high, 16)));
            }
}

// out[M, V · 16] = x [M, pairs] · panel [pairs, PANEL]
template <int M, int V>
INLINE void tile(const std::uint32_t* x, std::ptrdiff_t x_stride, const std::uint32_t* panel, int pairs, float* out,
                 std::ptrdiff_t out_stride) {
    __m512 sums[M][V];
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = _mm512_setzero_ps();
    for (int i = 0; i < pairs; ++i, panel += PANEL) {
        __m512i w[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) w[v] = _mm512_load_si512(panel + v * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < M; ++r) {
            const __m512i a = _mm512_set1_epi32(static_cast<int>(x[r * x_stride + i]));
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dot(sums[r][v], w[v], a);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) _mm512_store_ps(out + r * out_stride + v * LANES, sums[r][v]);
}

struct Memory {  // parts of the scratch, each a whole number of cache lines
    Memory(int length, int depth)
        : length_pairs(round_up(length, PANEL) / 2), depth_pairs(round_up(depth, 2 * LANES) / 2),
          keys(std::size_t(round_up(length, PANEL)) * depth_pairs),
          values(std::size_t(length_pairs) * round_up(depth, PANEL)),
          scores(std::size_t(ROWS) * round_up(length, PANEL)), powers(std::size_t(ROWS) * length_pairs),
          queries(std::size_t(ROWS) * depth_pairs) {}
    int length_pairs, depth_pairs;
    std::size_t keys, values, scores, powers, queries;  // in numbers of 4 bytes
};

template <int M>
void tile_of_queries(const std::uint16_t* query, std::ptrdiff_t query_stride, int length, int depth,
                     const Memory& memory, std::uint32_t* scratch, float* out, std::ptrdiff_t out_stride) {
    const std::uint32_t *keys = scratch, *values = keys + memory.keys;
    float* scores = reinterpret_cast<float*>(scratch + memory.keys + memory.values);
    std::uint32_t* powers = scratch + memory.keys + memory.values + memory.scores;
    std::uint32_t* queries = powers + memory.powers;
    const int pairs = (depth + 1) / 2, stride = round_up(length, PANEL);
    for (int r = 0; r < M; ++r)
        for (int i = 0; i < depth; i += 2 * LANES)
            Avx512Bf16::store_pairs(query + r * query_stride + i, depth - i, queries + r * memory.depth_pairs + i / 2);
    for (int first = 0; first < length; first += PANEL)
        tile<M, VECTORS>(queries, memory.depth_pairs, keys + std::ptrdiff_t(first) * pairs, pairs, scores + first,
                         stride);
    float inverse[M];
    for (int r = 0; r < M; ++r)
        inverse[r] = Avx512Bf16::exponentials(scores + std::ptrdiff_t(r) * stride, 2 * LANES, length,
                                              powers + std::ptrdiff_t(r) * memory.length_pairs, LANES);
    alignas(64) float sums[M][PANEL];
    const int length_pairs = (length + 1) / 2;
    for (int first = 0; first < depth; first += PANEL) {
        const std::uint32_t* panel = values + std::ptrdiff_t(first) * length_pairs;
        const int columns = std::min(PANEL, depth - first);
        if (columns > 2 * LANES) tile<M, VECTORS>(powers, memory.length_pairs, panel, length_pairs, sums[0], PANEL);
        else tile<M, 2>(powers, memory.length_pairs, panel, length_pairs, sums[0], PANEL);  // a head of 32
        for (int r = 0; r < M; ++r)
            for (int i = 0; i < columns; i += LANES)
                _mm512_mask_storeu_ps(out + r * out_stride + first + i, first_lanes(columns - i),
                                      _mm512_mul_ps(_mm512_load_ps(sums[r] + i), _mm512_set1_ps(inverse[r])));
    }
}

std::size_t scratch_bytes(int length, int depth) {
    const Memory m(length, depth);
    return 4 * (m.keys + m.values + m.scores + m.powers + m.queries);
}

void attention(const std::uint16_t* query, std::ptrdiff_t query_stride, const std::uint16_t* key,
               std::ptrdiff_t key_stride, const std::uint16_t* value, std::ptrdiff_t value_stride, int length,
               int depth, float* out, std::ptrdiff_t out_stride, void* scratch) {
    const Memory memory(length, depth);
    auto* packed = static_cast<std::uint32_t*>(scratch);
    pack_keys(key, key_stride, length, depth, packed);
    pack_values(value, value_stride, length, depth, packed + memory.keys);
    for (int row = 0; row < length; row += ROWS)
        with_constant<ROWS>(length - row, [&](auto rows) {
            tile_of_queries<decltype(rows)::value>(query + row * query_stride, query_stride, length, depth, memory,
                                                   packed, out + row * out_stride, out_stride);
        });
}

std::int64_t peak_bf16(int rounds) {
    const __m512i a = _mm512_setzero_si512();
    return peak_loop(rounds, 2 * LANES, _mm512_setzero_ps(), [&](__m512& sum) { dot(sum, a, a); });
}

// Intel's processors begin a VDPBF16PS every second cycle only: attention in fp32 takes 0.6 to 0.8 of the time there.
bool is_preferred() {
    unsigned highest, maker[3];
    return !__get_cpuid(0, &highest, &maker[0], &maker[1], &maker[2]) || maker[0] != signature_INTEL_ebx;
}

constexpr Bf16Attention bf16_attention = {scratch_bytes, attention, Loops<Avx512>::round_to_bf16, 5e-3f};

constexpr Kernels table() {
    Kernels kernels = Loops<Avx512>::table("avx512bf16");
    kernels.bf16_attention = &bf16_attention;
    kernels.training = &training_on_vectors;
    kernels.peak_bf16 = peak_bf16;
    kernels.is_preferred = is_preferred;
    return kernels;
}

}  // namespace

constexpr Kernels avx512bf16_kernels = table();

}  // namespace pocketbert
