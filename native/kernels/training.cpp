// The training loops with AVX-512 BF16, attention also with AMX. Sums are fp32. What is summed over rows or columns is
// summed in parts that do not depend on the number of threads, so results do not either.
#include "../training.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "avx512_bf16.h"
#include "tile_attention.h"

namespace pocketbert {
namespace {

// ── threads ──

// body(part, worker) for every part from 0 to parts - 1, in any order.
template <class Body>
void for_parts(const pb_team& team, std::int64_t parts, const Body& body) {
    struct Shared {
        const Body& body;
        std::int64_t parts;
        std::atomic<std::int64_t> next{0};
        std::atomic<int> workers{0};
    } shared{body, parts};
    const auto work = [](void* data) {
        Shared& all = *static_cast<Shared*>(data);
        const int worker = all.workers++;
        for (std::int64_t part; (part = all.next++) < all.parts;) all.body(part, worker);
    };
    const int threads = static_cast<int>(std::min<std::int64_t>(team.threads, parts));
    if (threads > 1 && team.run) team.run(work, &shared, static_cast<unsigned>(threads), 0);
    else work(&shared);
}

// ── vectors of 16 ──

constexpr int LANES = 16, BLOCK = 32;  // BLOCK numbers share a vector of random bits

INLINE __mmask16 lanes(std::int64_t left) {
    return Avx512::first_lanes(static_cast<int>(std::min<std::int64_t>(left, LANES)));
}

// Which lanes of a vector belong to a row: all, or a mask of the first ones. Lanes beyond are loaded as zeros.
struct All {};

INLINE __m512 load(const float* p, All) { return _mm512_loadu_ps(p); }
INLINE __m512 load(const float* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
INLINE __m512 widened(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE __m512 load(const std::uint16_t* p, All) {
    return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
INLINE __m512 load(const std::uint16_t* p, __mmask16 m) { return widened(_mm256_maskz_loadu_epi16(m, p)); }
INLINE void store(float* p, All, __m512 x) { _mm512_storeu_ps(p, x); }
INLINE void store(float* p, __mmask16 m, __m512 x) { _mm512_mask_storeu_ps(p, m, x); }
INLINE void store(std::uint16_t* p, All, __m512 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
}
INLINE void store(std::uint16_t* p, __mmask16 m, __m512 x) {
    _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(x));
}
INLINE __m512 only(All, __m512 x) { return x; }
INLINE __m512 only(__mmask16 m, __m512 x) { return _mm512_maskz_mov_ps(m, x); }
template <class Lanes>
INLINE void add_to(float* p, Lanes m, __m512 x) {
    store(p, m, _mm512_add_ps(load(p, m), x));
}

// body(column, lanes) for a row, 16 columns at a time.
template <class Body>
INLINE void for_vectors(std::int64_t width, const Body& body) {
    std::int64_t column = 0;
    for (; column + LANES <= width; column += LANES) body(column, All());
    if (column < width) body(column, lanes(width - column));
}

// ── dropout ──

// Which of 32 numbers remain: 16 random bits each, a function of the seed and of the block's number, so that the
// derivative draws them again. The mixing steps are those of a 32-bit finaliser with the multipliers that Wellons found.
struct Dropout {
    std::uint32_t dropped;  // of 2^16
    std::uint64_t seed;
    float scale;

    Dropout(std::int32_t of_65536, std::uint64_t seed_)
        : dropped(static_cast<std::uint32_t>(of_65536)), seed(seed_),
          scale(65536.0f / static_cast<float>(65536 - of_65536)) {}

    INLINE __mmask32 kept(std::uint64_t block) const {
        const std::uint64_t first = block * LANES;
        const auto low =
            static_cast<std::int32_t>(static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(seed));
        const auto high = static_cast<std::int32_t>(static_cast<std::uint32_t>(seed >> 32) ^
                                                    static_cast<std::uint32_t>(first >> 32) * 0x9E3779B9u);
        __m512i x = _mm512_add_epi32(_mm512_set1_epi32(low),
                                     _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
        x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x7FEB352D));
        x = _mm512_xor_si512(_mm512_xor_si512(x, _mm512_srli_epi32(x, 15)), _mm512_set1_epi32(high));
        x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<std::int32_t>(0x846CA68Bu)));
        x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
        return _mm512_cmpge_epu16_mask(x, _mm512_set1_epi16(static_cast<std::int16_t>(dropped)));
    }
};

// body(column, lanes, which of them remain) for a row, 16 columns at a time.
template <bool DROPS, class Body>
INLINE void for_columns(std::int64_t row, std::int64_t width, const Dropout& dropout, const Body& body) {
    const std::int64_t blocks = (width + BLOCK - 1) / BLOCK;
    for (std::int64_t block = 0; block < blocks; ++block) {
        const __mmask32 kept = DROPS ? dropout.kept(static_cast<std::uint64_t>(row * blocks + block)) : ~__mmask32(0);
        const std::int64_t column = block * BLOCK, left = width - column;
        const auto low = static_cast<__mmask16>(kept), high = static_cast<__mmask16>(kept >> LANES);
        if (left >= BLOCK) body(column, All(), low), body(column + LANES, All(), high);
        else body(column, lanes(left), low), body(column + LANES, lanes(left - LANES), high);
    }
}

// ── rows in parts, with sums over all rows ──

constexpr std::int64_t MOST_PARTS = 32, FEWEST_ROWS = 16;

// body(row, sums) for every row, where sums [COUNT * width] are of its part; then the totals go to outputs that are not null.
template <int COUNT, class Body>
void for_rows(const pb_team& team, std::int64_t rows, std::int64_t width, float* const (&outputs)[COUNT],
              const Body& body) {
    const std::int64_t rows_of_part = std::max(FEWEST_ROWS, (rows + MOST_PARTS - 1) / MOST_PARTS);
    const std::int64_t parts = (rows + rows_of_part - 1) / rows_of_part, size = COUNT * width;
    std::vector<float> sums(static_cast<std::size_t>(parts * size));
    for_parts(team, parts, [&](std::int64_t part, int) {
        const std::int64_t end = std::min(rows, (part + 1) * rows_of_part);
        for (std::int64_t row = part * rows_of_part; row < end; ++row) body(row, sums.data() + part * size);
    });
    for (int i = 0; i < COUNT; ++i) {
        if (!outputs[i]) continue;
        for_vectors(width, [&](std::int64_t column, auto m) INLINE_LAMBDA {
            __m512 total = _mm512_setzero_ps();
            for (std::int64_t part = 0; part < parts; ++part)
                total = _mm512_add_ps(total, load(sums.data() + part * size + i * width + column, m));
            store(outputs[i] + column, m, total);
        });
    }
}

// ── out = norm(dropout(x + bias) + residual) ──

template <class Number, bool DROPS>
void norm(const pb_team& team, const pb_norm_pass& p) {
    const Dropout dropout(p.dropped, p.seed);
    const std::int64_t width = p.width;
    std::vector<float> scratch(static_cast<std::size_t>(std::max(team.threads, 1) * (width + LANES)));
    constexpr std::int64_t ROWS = 16;
    for_parts(team, (p.rows + ROWS - 1) / ROWS, [&](std::int64_t part, int worker) {
        float* const sums = scratch.data() + worker * (width + LANES);
        for (std::int64_t row = part * ROWS; row < std::min(p.rows, (part + 1) * ROWS); ++row) {
            const std::uint16_t* const x = p.x + row * width;
            const Number* const residual = static_cast<const Number*>(p.residual) + (p.residual ? row * width : 0);
            __m512 total = _mm512_setzero_ps();
            for_columns<DROPS>(row, width, dropout, [&](std::int64_t j, auto m, __mmask16 kept) INLINE_LAMBDA {
                __m512 s = load(x + j, m);
                if (p.bias) s = _mm512_add_ps(s, load(p.bias + j, m));
                if (DROPS) s = _mm512_maskz_mul_ps(kept, s, _mm512_set1_ps(dropout.scale));
                if (p.residual) s = _mm512_add_ps(s, load(residual + j, m));
                store(sums + j, m, s);
                store(p.sum + row * width + j, m, s);
                total = _mm512_add_ps(total, s);
            });
            float mean = 0.0f, inverse = 1.0f;
            if (p.centres) {
                mean = _mm512_reduce_add_ps(total) / static_cast<float>(width);
                __m512 squares = _mm512_setzero_ps();
                for_vectors(width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
                    const __m512 d = only(m, _mm512_sub_ps(load(sums + j, m), _mm512_set1_ps(mean)));
                    squares = _mm512_fmadd_ps(d, d, squares);
                });
                inverse = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(width) + p.eps);
                p.stats[2 * row] = mean, p.stats[2 * row + 1] = inverse;
            }
            Number* const out = static_cast<Number*>(p.out) + row * width;
            for_vectors(width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
                const __m512 normal =
                    _mm512_mul_ps(_mm512_sub_ps(load(sums + j, m), _mm512_set1_ps(mean)), _mm512_set1_ps(inverse));
                store(out + j, m, _mm512_fmadd_ps(normal, load(p.weight + j, m), load(p.shift + j, m)));
            });
        }
    });
}

template <class Number, bool DROPS>
void norm_gradient(const pb_team& team, const pb_norm_pass& p) {
    const Dropout dropout(p.dropped, p.seed);
    const std::int64_t width = p.width;
    float* const outputs[] = {p.grad_weight, p.grad_shift, p.grad_bias};
    for_rows(team, p.rows, width, outputs, [&](std::int64_t row, float* sums) {
        const Number* const grad = static_cast<const Number*>(p.grad_out) + row * width;
        const std::uint16_t* const sum = p.sum + row * width;
        const __m512 mean = _mm512_set1_ps(p.centres ? p.stats[2 * row] : 0.0f);
        const __m512 inverse = _mm512_set1_ps(p.centres ? p.stats[2 * row + 1] : 1.0f);
        const auto normal = [&](std::int64_t j, auto m) INLINE_LAMBDA {
            return only(m, _mm512_mul_ps(_mm512_sub_ps(load(sum + j, m), mean), inverse));
        };
        __m512 first = _mm512_setzero_ps(), second = first;
        for_vectors(width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
            const __m512 g = load(grad + j, m), n = normal(j, m), product = _mm512_mul_ps(g, n);
            add_to(sums + j, m, product), add_to(sums + width + j, m, g);
            const __m512 weight = load(p.weight + j, m);
            first = _mm512_fmadd_ps(g, weight, first), second = _mm512_fmadd_ps(product, weight, second);
        });
        const float of_mean = p.centres ? _mm512_reduce_add_ps(first) / static_cast<float>(width) : 0.0f;
        const float of_deviation = p.centres ? _mm512_reduce_add_ps(second) / static_cast<float>(width) : 0.0f;
        Number* const grad_residual = static_cast<Number*>(p.grad_residual) + (p.grad_residual ? row * width : 0);
        for_columns<DROPS>(row, width, dropout, [&](std::int64_t j, auto m, __mmask16 kept) INLINE_LAMBDA {
            __m512 g = _mm512_fmsub_ps(load(grad + j, m), load(p.weight + j, m), _mm512_set1_ps(of_mean));
            g = only(m, _mm512_mul_ps(_mm512_fnmadd_ps(normal(j, m), _mm512_set1_ps(of_deviation), g), inverse));
            if (p.grad_residual) store(grad_residual + j, m, g);
            if (DROPS) g = _mm512_maskz_mul_ps(kept, g, _mm512_set1_ps(dropout.scale));
            store(p.grad_x + row * width + j, m, g);
            if (p.grad_bias) add_to(sums + 2 * width + j, m, g);
        });
    });
}

template <template <class, bool> class Loop>
void choose(const pb_team& team, const pb_norm_pass& p) {
    if (p.wide) p.dropped ? Loop<float, true>::run(team, p) : Loop<float, false>::run(team, p);
    else p.dropped ? Loop<std::uint16_t, true>::run(team, p) : Loop<std::uint16_t, false>::run(team, p);
}
template <class Number, bool DROPS>
struct Norm {
    static void run(const pb_team& team, const pb_norm_pass& p) { norm<Number, DROPS>(team, p); }
};
template <class Number, bool DROPS>
struct NormGradient {
    static void run(const pb_team& team, const pb_norm_pass& p) { norm_gradient<Number, DROPS>(team, p); }
};

// ── out = activation(x + bias) ──

// 1/2 + x P(x²), |x| cut at 5, which is how simd_math.h has Φ; with fewer terms, as bfloat16 follows.
template <int COUNT>
INLINE __m512 by_polynomial(__m512 x, const float (&terms)[COUNT]) {
    const __m512 a = Avx512::min(_mm512_set1_ps(5.0f), Avx512::max(_mm512_set1_ps(-5.0f), x));
    const __m512 t = _mm512_fmadd_ps(_mm512_mul_ps(a, a), _mm512_set1_ps(0.08f), _mm512_set1_ps(-1.0f));
    __m512 p = _mm512_set1_ps(terms[0]);
#pragma GCC unroll 10
    for (int i = 1; i < COUNT; ++i) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(terms[i]));
    return _mm512_fmadd_ps(a, p, _mm512_set1_ps(0.5f));
}

INLINE __m512 gelu(__m512 x) {  // x Φ(x), and Φ to 5e-6
    constexpr float TERMS[] = {2.741057669e-03f, -6.718744569e-03f, 6.173884672e-03f, -7.534479619e-03f,
                               1.605357978e-02f, -2.468026820e-02f, 3.163433279e-02f, -4.022204175e-02f,
                               5.149458349e-02f, -7.030573343e-02f, 1.413642793e-01f};
    return _mm512_mul_ps(x, by_polynomial(x, TERMS));
}

INLINE __m512 gelu_slope(__m512 x) {  // its derivative Φ(x) + x φ(x), to 7e-5
    constexpr float TERMS[] = {3.614497278e-02f, -7.952768969e-02f, 4.456041102e-02f, -2.181640623e-02f,
                               7.697214813e-02f, -1.034929102e-01f, 8.276076223e-02f, -6.870736969e-02f,
                               6.621850410e-02f, -7.524429447e-02f, 1.421407093e-01f};
    return by_polynomial(x, TERMS);
}

template <bool IS_GELU>
void activation(const pb_team& team, const pb_activation_pass& p) {
    constexpr std::int64_t ROWS = 16;
    for_parts(team, (p.rows + ROWS - 1) / ROWS, [&](std::int64_t part, int) {
        for (std::int64_t row = part * ROWS; row < std::min(p.rows, (part + 1) * ROWS); ++row)
            for_vectors(p.width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
                const __m512 x = _mm512_add_ps(load(p.x + row * p.width + j, m), load(p.bias + j, m));
                store(p.out + row * p.width + j, m, IS_GELU ? gelu(x) : Avx512::max(_mm512_setzero_ps(), x));
            });
    });
}

template <bool IS_GELU>
void activation_gradient(const pb_team& team, const pb_activation_pass& p) {
    float* const outputs[] = {p.grad_bias};
    for_rows(team, p.rows, p.width, outputs, [&](std::int64_t row, float* sums) {
        for_vectors(p.width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
            const __m512 x = _mm512_add_ps(load(p.x + row * p.width + j, m), load(p.bias + j, m));
            __m512 g = load(p.grad_out + row * p.width + j, m);
            if (IS_GELU) g = _mm512_mul_ps(g, gelu_slope(x));
            else g = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), g);
            store(p.grad_x + row * p.width + j, m, g);
            add_to(sums + j, m, g);
        });
    });
}

// ── attention ──

// Products of matrices of tiles, as TileAttention has them: rows a [2][count] by columns b [blocks][2][count].
#ifdef PB_HAS_TILES
struct OnTiles {
    static void enter() { AmxTiles::configure(); }
    static void leave() { AmxTiles::release(); }
    static void multiply(const Tile* a, const Tile* b, int count, Sums* to, int blocks) {
        TileAttention<Avx512, Avx512Bf16, AmxTiles>::multiply<2>(a, b, count, to, blocks);
    }
};
#endif

struct OnVectors {
    static void enter() {}
    static void leave() {}
    static void multiply(const Tile* a, const Tile* b, int count, Sums* to, int blocks) {
        for (int block = 0; block < blocks; ++block, b += 2 * count)
            for (int half = 0; half < 4; ++half) {
                const Tile *rows = a + half / 2 * count, *columns = b + half % 2 * count;
                __m512 sums[TILE];
#pragma GCC unroll 16
                for (int r = 0; r < TILE; ++r) sums[r] = _mm512_setzero_ps();
                for (int i = 0; i < count; ++i)
                    for (int pair = 0; pair < TILE; ++pair) {
                        const auto line = (__m512bh)_mm512_loadu_si512(columns[i].bytes[pair]);
#pragma GCC unroll 16
                        for (int r = 0; r < TILE; ++r) {
                            std::int32_t both;
                            std::memcpy(&both, rows[i].bytes[r] + 4 * pair, sizeof both);
                            sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)_mm512_set1_epi32(both), line);
                        }
                    }
#pragma GCC unroll 16
                for (int r = 0; r < TILE; ++r)
                    _mm512_storeu_ps(to[block].bytes[half / 2 * TILE + r] + half % 2 * TILE_BYTES, sums[r]);
            }
    }
};

// Numbers [length, depth] of a head among all of them, with the stride of a token.
struct HeadRows {
    const std::uint16_t* first;
    std::ptrdiff_t stride;
    int length, depth, blocks, depth_tiles;  // of 32

    // As rows of a product: [length / 16][depth / 32].
    void rows(Tile* to) const {
        for (int row = 0; row < blocks * BLOCK; ++row)
            for (int d = 0; d < depth_tiles; ++d)
                Avx512Bf16::store_pairs(first + row * stride + d * BLOCK, row < length ? depth - d * BLOCK : 0,
                                        to[row / TILE * depth_tiles + d].bytes[row % TILE]);
    }
    // As columns, transposed: [length / 16][depth / 32].
    void transposed(Tile* to) const {
        for (int row = 0; row < blocks * BLOCK; row += TILE)
            for (int d = 0; d < depth_tiles; ++d)
                Avx512Bf16::store_transposed(first + row * stride + d * BLOCK, stride, length - row, depth - d * BLOCK,
                                             to[row / TILE * depth_tiles + d].bytes[0]);
    }
    // As columns: [depth / 16][length / 32].
    void columns(Tile* to) const {
        for (int row = 0; row < blocks * BLOCK; row += 2)
            for (int d = 0; d < depth_tiles; ++d) {
                Tile* const tile = to + 2 * d * blocks + row / BLOCK;
                Avx512Bf16::store_two_rows(first + row * stride + d * BLOCK, stride, length - row, depth - d * BLOCK,
                                           tile->bytes[row % BLOCK / 2], tile[blocks].bytes[row % BLOCK / 2]);
            }
    }
    // As rows, transposed: [depth / 16][length / 32].
    void transposed_rows(Tile* to) const {
        columns(to);
        for (int tile = 0; tile < 2 * depth_tiles * blocks; ++tile)
            Avx512Bf16::transpose([&](int i) { return _mm512_loadu_si512(to[tile].bytes[i]); },
                                  [&](int i, __m512i column) { _mm512_storeu_si512(to[tile].bytes[i], column); });
    }
};

INLINE float* numbers(Sums& sums, int row) { return reinterpret_cast<float*>(sums.bytes[row]); }

// One head of one example.
struct Head {
    const pb_attention_pass& p;
    int head;
    std::int64_t first, longest_blocks;  // token; of the longest example
    int length, keys, blocks, depth_tiles;
    Dropout dropout;

    Head(const pb_attention_pass& pass, std::int64_t example, int head_, std::int64_t longest)
        : p(pass), head(head_), first(pass.starts[example]), longest_blocks((longest + BLOCK - 1) / BLOCK),
          length(static_cast<int>(pass.starts[example + 1] - pass.starts[example])), keys(pass.keys[example]),
          blocks((length + BLOCK - 1) / BLOCK), depth_tiles((pass.depth + BLOCK - 1) / BLOCK),
          dropout(pass.dropped, pass.seed) {}

    // Where the head begins among the queries, keys or values, and their gradients; and in what attention returns.
    std::int64_t place() const {
        return first * p.stride + head / p.group_heads * p.group_stride + std::int64_t(head % p.group_heads) * p.depth;
    }
    std::int64_t width() const { return std::int64_t(p.heads) * p.depth; }
    std::int64_t place_out() const { return first * width() + std::int64_t(head) * p.depth; }
    HeadRows rows_of(const std::uint16_t* all) const {
        return {all + place(), p.stride, length, p.depth, blocks, depth_tiles};
    }
    HeadRows rows_of_out(const std::uint16_t* all) const {
        return {all + place_out(), width(), length, p.depth, blocks, depth_tiles};
    }
    float factor() const { return 1.44269504f / std::sqrt(static_cast<float>(p.depth)); }  // of scores as powers of 2
    float& scale_of(int row) const { return p.scales[(first + row) * p.heads + head]; }
    __mmask32 kept(int row, int block) const {
        const std::int64_t number = ((first + row) * p.heads + head) * longest_blocks + block;
        return dropout.kept(static_cast<std::uint64_t>(number));
    }
    // Rows `row` and the following of sums of `depth`, as bfloat16.
    void store_rows(Sums* sums, int row, const float* factors, std::uint16_t* first_row, std::ptrdiff_t stride) const {
        std::uint16_t* const to = first_row + row * stride;
        for (int r = 0; r < std::min(BLOCK, length - row); ++r)
            for (int d = 0; d < p.depth; d += LANES)
                store(to + r * stride + d, lanes(p.depth - d),
                      _mm512_mul_ps(_mm512_loadu_ps(numbers(sums[d / BLOCK], r) + d % BLOCK),
                                    _mm512_set1_ps(factors[r])));
    }
    // The same of sums [depth, tokens], one block of 32 of each.
    void store_columns(Sums& sums, int row, int column, std::uint16_t* all) const {
        std::uint16_t* const to = all + place() + row * p.stride + column;
        for (int r = 0; r < BLOCK; r += TILE)
            for (int d = 0; d < BLOCK && column + d < p.depth; d += TILE)
                Avx512Bf16::transpose(
                    [&](int i) { return _mm512_loadu_si512(sums.bytes[d + i] + r / TILE * TILE_BYTES); },
                    [&](int i, __m512i line) {
                        if (row + r + i < length)
                            store(to + (r + i) * p.stride + d, lanes(p.depth - column - d), _mm512_castsi512_ps(line));
                    });
    }
};

// Places in the scratch of a worker, in tiles.
struct Places {
    Tile* next;
    Tile* take(int tiles) { return next += tiles, next - tiles; }
    Sums* take_sums(int count) { return reinterpret_cast<Sums*>(take(4 * count)); }
};

template <class Products>
void attend(const Head& h, Tile* scratch) {
    const int blocks = h.blocks, depth = h.depth_tiles;
    Places places{scratch};
    Tile* const queries = places.take(2 * blocks * depth);
    Tile* const keys = places.take(2 * blocks * depth);
    Tile* const values = places.take(2 * blocks * depth);
    Tile* const powers = places.take(2 * blocks);
    Sums *const scores = places.take_sums(blocks), *const sums = places.take_sums(depth);
    h.rows_of(h.p.query).rows(queries);
    h.rows_of(h.p.key).transposed(keys);
    h.rows_of(h.p.value).columns(values);
    const __m512 factor = _mm512_set1_ps(h.factor());
    for (int block = 0; block < blocks; ++block) {
        const int row = block * BLOCK, rows = std::min(BLOCK, h.length - row);
        Products::multiply(queries + 2 * block * depth, keys, depth, scores, blocks);
        float factors[BLOCK];
        for (int r = 0; r < rows; ++r) {
            __m512 largest = _mm512_set1_ps(-3.0e38f);
            for (int j = 0; j < h.keys; j += LANES)
                largest = _mm512_mask_max_ps(largest, lanes(h.keys - j), largest,
                                             _mm512_loadu_ps(numbers(scores[j / BLOCK], r) + j % BLOCK));
            const float top = _mm512_reduce_max_ps(largest) * h.factor();
            __m512 total = _mm512_setzero_ps();
            for (int b = 0; b < blocks; ++b) {
                const __mmask32 kept = h.p.dropped ? h.kept(row + r, b) : ~__mmask32(0);
                __m512 parts[2];
                for (int half = 0; half < 2; ++half) {
                    const __m512 s = _mm512_loadu_ps(numbers(scores[b], r) + half * LANES);
                    const __m512 power =
                        _mm512_maskz_mov_ps(lanes(h.keys - b * BLOCK - half * LANES),
                                            Avx512Bf16::exp2(_mm512_fmsub_ps(s, factor, _mm512_set1_ps(top))));
                    total = _mm512_add_ps(total, power);
                    parts[half] = _mm512_maskz_mov_ps(static_cast<__mmask16>(kept >> half * LANES), power);
                }
                _mm512_storeu_si512(powers[r / TILE * blocks + b].bytes[r % TILE],
                                    (__m512i)_mm512_cvtne2ps_pbh(parts[1], parts[0]));
            }
            const float sum = _mm512_reduce_add_ps(total);
            h.scale_of(row + r) = top + std::log2(sum);
            factors[r] = h.dropout.scale / sum;
        }
        Products::multiply(powers, values, blocks, sums, depth);
        h.store_rows(sums, row, factors, h.p.out + h.place_out(), h.width());
    }
}

template <class Products>
void attend_gradient(const Head& h, Tile* scratch) {
    const int blocks = h.blocks, depth = h.depth_tiles, tiles = 2 * blocks * depth;
    Places places{scratch};
    Tile *const queries = places.take(tiles), *const grads = places.take(tiles);
    Tile *const keys = places.take(tiles), *const values = places.take(tiles), *const key_columns = places.take(tiles);
    Tile *const query_columns = places.take(tiles), *const grad_columns = places.take(tiles);
    // Of all queries: what remains of the probabilities, and the gradient of the scores, as columns [key / 16][query / 32].
    Tile *const weights = places.take(2 * blocks * blocks), *const slopes = places.take(2 * blocks * blocks);
    Tile* const slope_rows = places.take(2 * blocks);
    Sums *const scores = places.take_sums(blocks), *const of_weights = places.take_sums(blocks);
    Sums* const sums = places.take_sums(depth);
    const HeadRows query = h.rows_of(h.p.query), key = h.rows_of(h.p.key), grad = h.rows_of_out(h.p.grad_out);
    query.rows(queries), query.transposed_rows(query_columns);
    grad.rows(grads), grad.transposed_rows(grad_columns);
    key.transposed(keys), key.columns(key_columns);
    h.rows_of(h.p.value).transposed(values);
    const __m512 factor = _mm512_set1_ps(h.factor()),
                 scale = _mm512_set1_ps(1.0f / std::sqrt(static_cast<float>(h.p.depth)));
    float ones[BLOCK];
    std::fill(ones, ones + BLOCK, 1.0f);
    for (int block = 0; block < blocks; ++block) {
        const int row = block * BLOCK;
        Products::multiply(queries + 2 * block * depth, keys, depth, scores, blocks);
        Products::multiply(grads + 2 * block * depth, values, depth, of_weights, blocks);
        alignas(64) std::uint16_t pair_of_weights[2 * BLOCK];
        for (int r = 0; r < BLOCK; ++r) {
            const bool exists = row + r < h.length;
            const __m512 shift = _mm512_set1_ps(exists ? h.scale_of(row + r) : 0.0f);
            __m512 total = _mm512_setzero_ps();
            for (int b = 0; b < blocks; ++b) {
                const __mmask32 kept = h.p.dropped && exists ? h.kept(row + r, b) : ~__mmask32(0);
                for (int half = 0; half < 2; ++half) {
                    float* const at = numbers(scores[b], r) + half * LANES;
                    float* const of = numbers(of_weights[b], r) + half * LANES;
                    const __mmask16 real = exists ? lanes(h.keys - b * BLOCK - half * LANES) : __mmask16(0);
                    const __m512 p = _mm512_maskz_mov_ps(
                        real, Avx512Bf16::exp2(_mm512_fmsub_ps(_mm512_loadu_ps(at), factor, shift)));
                    const __m512 g = _mm512_maskz_mul_ps(static_cast<__mmask16>(kept >> half * LANES) & real,
                                                         _mm512_loadu_ps(of), _mm512_set1_ps(h.dropout.scale));
                    total = _mm512_fmadd_ps(p, g, total);
                    _mm512_storeu_ps(at, p), _mm512_storeu_ps(of, g);
                }
            }
            const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total));
            for (int b = 0; b < blocks; ++b) {
                const __mmask32 kept = h.p.dropped && exists ? h.kept(row + r, b) : ~__mmask32(0);
                __m512 remaining[2], slope[2];
                for (int half = 0; half < 2; ++half) {
                    const __m512 p = _mm512_loadu_ps(numbers(scores[b], r) + half * LANES);
                    const __m512 g = _mm512_loadu_ps(numbers(of_weights[b], r) + half * LANES);
                    remaining[half] = _mm512_maskz_mul_ps(static_cast<__mmask16>(kept >> half * LANES), p,
                                                          _mm512_set1_ps(h.dropout.scale));
                    slope[half] = _mm512_mul_ps(_mm512_mul_ps(p, scale), _mm512_sub_ps(g, mean));
                }
                const auto w = (__m512i)_mm512_cvtne2ps_pbh(remaining[1], remaining[0]);
                const auto s = (__m512i)_mm512_cvtne2ps_pbh(slope[1], slope[0]);
                std::uint8_t* const rows = slope_rows[r / TILE * blocks + b].bytes[r % TILE];
                _mm512_storeu_si512(rows, s);
                // The first of two rows waits, in the place of its scores, for the second.
                _mm512_storeu_si512(numbers(scores[b], r), w);
                if (r % 2 == 0) continue;
                std::memcpy(pair_of_weights, numbers(scores[b], r - 1), TILE_BYTES);
                std::memcpy(pair_of_weights + BLOCK, numbers(scores[b], r), TILE_BYTES);
                const auto columns = [&](Tile* of_all, const std::uint16_t* first, std::ptrdiff_t stride) {
                    Tile* const to = of_all + 2 * b * blocks + block;
                    Avx512Bf16::store_two_rows(first, stride, 2, BLOCK, to->bytes[r / 2], to[blocks].bytes[r / 2]);
                };
                columns(weights, pair_of_weights, BLOCK);
                columns(slopes, reinterpret_cast<const std::uint16_t*>(rows - TILE_BYTES), BLOCK);
            }
        }
        Products::multiply(slope_rows, key_columns, blocks, sums, depth);
        h.store_rows(sums, row, ones, h.p.grad_query + h.place(), h.p.stride);
    }
    for (int d = 0; d < depth; ++d) {
        Products::multiply(grad_columns + 2 * d * blocks, weights, blocks, scores, blocks);
        Products::multiply(query_columns + 2 * d * blocks, slopes, blocks, of_weights, blocks);
        for (int block = 0; block < blocks; ++block) {
            h.store_columns(scores[block], block * BLOCK, d * BLOCK, h.p.grad_value);
            h.store_columns(of_weights[block], block * BLOCK, d * BLOCK, h.p.grad_key);
        }
    }
}

template <class Products>
void for_heads(const pb_team& team, const pb_attention_pass& p, void (*run)(const Head&, Tile*)) {
    std::int64_t longest = 0;
    for (std::int64_t e = 0; e < p.examples; ++e)
        longest = std::max<std::int64_t>(longest, p.starts[e + 1] - p.starts[e]);
    const auto blocks = static_cast<std::size_t>((longest + BLOCK - 1) / BLOCK),
               depth = static_cast<std::size_t>((p.depth + BLOCK - 1) / BLOCK);
    const std::size_t tiles = 14 * blocks * depth + 4 * blocks * blocks + 10 * blocks + 4 * depth;
    struct alignas(TILE_BYTES) Aligned : Tile {};
    std::vector<Aligned> scratch(tiles * static_cast<std::size_t>(std::max(team.threads, 1)));
    for_parts(team, p.examples * p.heads, [&](std::int64_t part, int worker) {
        Products::enter();
        run(Head(p, part / p.heads, static_cast<int>(part % p.heads), longest),
            scratch.data() + tiles * static_cast<std::size_t>(worker));
        Products::leave();
    });
}

// ── differences ──

// The mean of a row, and 1 / deviation.
template <class Number>
INLINE std::pair<float, float> moments(const Number* x, std::int64_t width, float eps) {
    __m512 total = _mm512_setzero_ps(), squares = total;
    for_vectors(width, [&](std::int64_t j, auto m) INLINE_LAMBDA { total = _mm512_add_ps(total, load(x + j, m)); });
    const float mean = _mm512_reduce_add_ps(total) / static_cast<float>(width);
    for_vectors(width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
        const __m512 d = only(m, _mm512_sub_ps(load(x + j, m), _mm512_set1_ps(mean)));
        squares = _mm512_fmadd_ps(d, d, squares);
    });
    return {mean, 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(width) + eps)};
}

template <class Number>
void difference(const pb_team& team, const pb_difference_pass& p) {
    constexpr std::int64_t ROWS = 64;
    const std::int64_t width = p.width, parts = (p.rows + ROWS - 1) / ROWS;
    std::vector<double> losses(static_cast<std::size_t>(parts));
    for_parts(team, parts, [&](std::int64_t part, int) {
        double loss = 0.0;
        for (std::int64_t row = part * ROWS; row < std::min(p.rows, (part + 1) * ROWS); ++row) {
            const Number* const own = static_cast<const Number*>(p.own) + row * width;
            const float* const other = p.other + row * width;
            const auto [mean, inverse] = moments(own, width, p.eps);
            const auto [other_mean, other_inverse] = moments(other, width, p.eps);
            const __m512 scale = _mm512_set1_ps(inverse), shift = _mm512_set1_ps(-mean * inverse);
            const __m512 other_scale = _mm512_set1_ps(other_inverse),
                         other_shift = _mm512_set1_ps(-other_mean * other_inverse);
            const auto normal = [&](std::int64_t j, auto m)
                                    INLINE_LAMBDA { return only(m, _mm512_fmadd_ps(load(own + j, m), scale, shift)); };
            const auto off = [&](std::int64_t j, auto m) INLINE_LAMBDA {
                return _mm512_sub_ps(normal(j, m),
                                     only(m, _mm512_fmadd_ps(load(other + j, m), other_scale, other_shift)));
            };
            __m512 squares = _mm512_setzero_ps(), sum = squares, product = squares;
            for_vectors(width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
                const __m512 d = off(j, m);
                squares = _mm512_fmadd_ps(d, d, squares), sum = _mm512_add_ps(sum, d);
                product = _mm512_fmadd_ps(d, normal(j, m), product);
            });
            loss += static_cast<double>(_mm512_reduce_add_ps(squares)) / static_cast<double>(width);
            if (!p.gradient) continue;
            Number* const gradient = static_cast<Number*>(p.gradient) + row * width;
            const __m512 mean_sum = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(width));
            const __m512 mean_product = _mm512_set1_ps(_mm512_reduce_add_ps(product) / static_cast<float>(width));
            const __m512 factor = _mm512_set1_ps(2.0f * inverse / static_cast<float>(width));
            for_vectors(width, [&](std::int64_t j, auto m) INLINE_LAMBDA {
                const __m512 g = _mm512_fnmadd_ps(normal(j, m), mean_product, _mm512_sub_ps(off(j, m), mean_sum));
                store(gradient + j, m, _mm512_mul_ps(g, factor));
            });
        }
        losses[static_cast<std::size_t>(part)] = loss;
    });
    *p.loss = 0.0;
    for (const double loss : losses) *p.loss += loss;
}

// ── AdamW ──

constexpr std::int64_t CHUNK = 1 << 15;

// body(tensor, first number, count) for chunks of all tensors.
template <class Body>
std::int64_t for_chunks(const pb_team& team, const pb_adamw_pass& p, const Body& body) {
    struct Chunk {
        int tensor;
        std::int64_t first;
    };
    std::vector<Chunk> chunks;
    for (int i = 0; i < p.count; ++i)
        for (std::int64_t first = 0; first < p.sizes[i]; first += CHUNK) chunks.push_back({i, first});
    for_parts(team, static_cast<std::int64_t>(chunks.size()), [&](std::int64_t number, int) {
        const Chunk& c = chunks[static_cast<std::size_t>(number)];
        body(number, c.tensor, c.first, std::min(CHUNK, p.sizes[c.tensor] - c.first));
    });
    return static_cast<std::int64_t>(chunks.size());
}

double square_sum(const pb_team& team, const pb_adamw_pass& p) {
    std::int64_t most = p.count;
    for (int i = 0; i < p.count; ++i) most += p.sizes[i] / CHUNK;
    std::vector<double> sums(static_cast<std::size_t>(most));
    for_chunks(team, p, [&](std::int64_t number, int tensor, std::int64_t first, std::int64_t count) {
        const float* const g = p.gradients[tensor] + first;
        __m512 a = _mm512_setzero_ps(), b = a;
        for (std::int64_t i = 0; i < count; i += 2 * LANES) {
            const __m512 x = load(g + i, lanes(count - i)), y = load(g + i + LANES, lanes(count - i - LANES));
            a = _mm512_fmadd_ps(x, x, a), b = _mm512_fmadd_ps(y, y, b);
        }
        sums[static_cast<std::size_t>(number)] = _mm512_reduce_add_ps(_mm512_add_ps(a, b));
    });
    double total = 0.0;
    for (const double sum : sums) total += sum;
    return total;
}

void adamw(const pb_team& team, const pb_adamw_pass& p) {
    const auto all = [](double x) { return _mm512_set1_ps(static_cast<float>(x)); };
    const __m512 keep1 = all(1.0 - p.beta1), beta2 = all(p.beta2), keep2 = all(1.0 - p.beta2), eps = all(p.eps);
    const __m512 scale = all(p.scale), shrink = all(1.0 - p.rate * p.decay);
    const __m512 rate = all(-p.rate / p.correction1), root = all(1.0 / std::sqrt(p.correction2));
    for_chunks(team, p, [&](std::int64_t, int tensor, std::int64_t first, std::int64_t count) {
        float *const w = p.weights[tensor] + first, *const m = p.means[tensor] + first,
                     *const v = p.squares[tensor] + first;
        const float* const g = p.gradients[tensor] + first;
        std::uint16_t* const copy = p.copies && p.copies[tensor] ? p.copies[tensor] + first : nullptr;
        for_vectors(count, [&](std::int64_t i, auto k) INLINE_LAMBDA {
            const __m512 gradient = _mm512_mul_ps(load(g + i, k), scale);
            __m512 mean = load(m + i, k);
            mean = _mm512_fmadd_ps(_mm512_sub_ps(gradient, mean), keep1, mean);
            const __m512 square =
                _mm512_fmadd_ps(_mm512_mul_ps(gradient, gradient), keep2, _mm512_mul_ps(load(v + i, k), beta2));
            const __m512 divisor = _mm512_fmadd_ps(_mm512_sqrt_ps(square), root, eps);
            const __m512 weight =
                _mm512_fmadd_ps(_mm512_div_ps(mean, divisor), rate, _mm512_mul_ps(load(w + i, k), shrink));
            store(m + i, k, mean), store(v + i, k, square), store(w + i, k, weight);
            if (copy) store(copy + i, k, weight);
        });
    });
}

template <class Products>
constexpr TrainingLoops table() {
    TrainingLoops loops{};
    loops.norm = choose<Norm>;
    loops.norm_gradient = choose<NormGradient>;
    loops.activation = [](const pb_team& team, const pb_activation_pass& p) {
        (p.is_gelu ? activation<true> : activation<false>)(team, p);
    };
    loops.activation_gradient = [](const pb_team& team, const pb_activation_pass& p) {
        (p.is_gelu ? activation_gradient<true> : activation_gradient<false>)(team, p);
    };
    loops.attention = [](const pb_team& team, const pb_attention_pass& p) {
        for_heads<Products>(team, p, attend<Products>);
    };
    loops.attention_gradient = [](const pb_team& team, const pb_attention_pass& p) {
        for_heads<Products>(team, p, attend_gradient<Products>);
    };
    loops.difference = [](const pb_team& team, const pb_difference_pass& p) {
        (p.wide ? difference<float> : difference<std::uint16_t>)(team, p);
    };
    loops.square_sum = square_sum;
    loops.adamw = adamw;
    return loops;
}

}  // namespace

#ifdef PB_HAS_TILES
constexpr TrainingLoops training_on_tiles = table<OnTiles>();
#endif
constexpr TrainingLoops training_on_vectors = table<OnVectors>();

}  // namespace pocketbert
