// Attention in bfloat16 on tile registers. `Vectors` does all else (avx512_bf16.h, plain_bf16.h); `Simd` and `Tiles` as
// in tile_loops.h. Scores, the softmax and all sums are fp32. 32 queries go through it at a time: their scores of all
// keys, the exponentials of these as tiles of rows, and the sums of the values.
#pragma once

#include <algorithm>

#include "simd_loops.h"
#include "tiles.h"

namespace pocketbert {
namespace {

template <class Simd, class Vectors, class Tiles>
struct TileAttention {
    static constexpr int SIDE = 2 * TILE;  // queries, keys or columns of a block of sums
    static constexpr int WIDTH = TILE_BYTES / 2;  // numbers of a row of a tile

    // Parts of the scratch. Tiles of one row of blocks lie together, so that a product walks through memory.
    struct Memory {
        int blocks, depth_tiles;  // of 32 tokens; of 32 columns
        Tile *keys, *values;  // [length / 16][depth / 32], [depth / 16][length / 32]
        Tile *queries, *powers;  // of 32 queries: [2][depth / 32], [2][length / 32]
        Sums *scores, *sums;  // [length / 32], [depth / 32]

        Memory(int length, int depth, void* scratch)
            : blocks(round_up(length, SIDE) / SIDE), depth_tiles(round_up(depth, WIDTH) / WIDTH) {
            keys = static_cast<Tile*>(scratch);
            values = keys + 2 * blocks * depth_tiles;
            queries = values + 2 * blocks * depth_tiles;
            powers = queries + 2 * depth_tiles;
            scores = reinterpret_cast<Sums*>(powers + 2 * blocks);
            sums = scores + blocks;
        }
        static std::size_t bytes(int length, int depth) {
            const auto blocks = static_cast<std::size_t>(round_up(length, SIDE) / SIDE);
            const auto depth_tiles = static_cast<std::size_t>(round_up(depth, WIDTH) / WIDTH);
            return sizeof(Tile) * (4 * blocks * depth_tiles + 2 * depth_tiles + 2 * blocks) +
                   sizeof(Sums) * (blocks + depth_tiles);
        }
    };

    static void pack_keys(const std::uint16_t* keys, std::ptrdiff_t stride, int length, int depth, const Memory& m) {
        for (int first = 0; first < SIDE * m.blocks; first += TILE)
            for (int d = 0; d < m.depth_tiles; ++d)
                Vectors::store_transposed(keys + first * stride + d * WIDTH, stride, length - first, depth - d * WIDTH,
                                          m.keys[first / TILE * m.depth_tiles + d].bytes[0]);
    }

    static void pack_values(const std::uint16_t* values, std::ptrdiff_t stride, int length, int depth,
                            const Memory& m) {
        for (int row = 0; row < SIDE * m.blocks; row += 2)
            for (int d = 0; d < m.depth_tiles; ++d) {
                Tile* const to = m.values + 2 * d * m.blocks + row / SIDE;
                Vectors::store_two_rows(values + row * stride + d * WIDTH, stride, length - row, depth - d * WIDTH,
                                        to->bytes[row % SIDE / 2], to[m.blocks].bytes[row % SIDE / 2]);
            }
    }

    // Blocks of HEIGHT x 2 tiles of sums: rows a [HEIGHT][count] by columns b [blocks][2][count]. The sums of a block are
    // stored where the next one begins with their tile, as in tile_loops.h.
    template <int HEIGHT>
    static INLINE void multiply(const Tile* a, const Tile* b, int count, Sums* to, int blocks) {
        for (int block = 0; block < blocks; ++block, ++to, b += 2 * count) {
            const bool stores = block > 0;
            for (int i = 0; i < count; ++i) {
                const bool begins = i == 0;
                Tiles::template load<6>(b + i), Tiles::template load<4>(a + i);
                if (begins) begin<0>(stores, to - 1);
                Tiles::template dot_bf16<0, 4, 6>();
                Tiles::template load<7>(b + count + i);
                if (begins) begin<1>(stores, to - 1);
                Tiles::template dot_bf16<1, 4, 7>();
                if constexpr (HEIGHT == 2) {
                    Tiles::template load<5>(a + count + i);
                    if (begins) begin<2>(stores, to - 1);
                    Tiles::template dot_bf16<2, 5, 6>();
                    if (begins) begin<3>(stores, to - 1);
                    Tiles::template dot_bf16<3, 5, 7>();
                }
            }
        }
        Tiles::template store<0>(to - 1), Tiles::template store<1>(to - 1);
        if constexpr (HEIGHT == 2) Tiles::template store<2>(to - 1), Tiles::template store<3>(to - 1);
    }

    template <int T>
    static INLINE void begin(bool stores, Sums* last) {
        if (stores) Tiles::template store<T>(last);
        Tiles::template zero<T>();
    }

    template <int HEIGHT>
    static void run_queries(const std::uint16_t* query, std::ptrdiff_t query_stride, int rows, int length, int depth,
                            const Memory& m, float* out, std::ptrdiff_t out_stride) {
        for (int r = 0; r < rows; ++r)
            for (int d = 0; d < m.depth_tiles; ++d)
                Vectors::store_pairs(query + r * query_stride + d * WIDTH, depth - d * WIDTH,
                                     m.queries[r / TILE * m.depth_tiles + d].bytes[r % TILE]);
        multiply<HEIGHT>(m.queries, m.keys, m.depth_tiles, m.scores, m.blocks);
        float inverse[SIDE];
        for (int r = 0; r < rows; ++r)
            inverse[r] = Vectors::exponentials(
                reinterpret_cast<const float*>(m.scores[0].bytes[r]), sizeof(Sums) / sizeof(float), length,
                reinterpret_cast<std::uint32_t*>(m.powers[r / TILE * m.blocks].bytes[r % TILE]),
                sizeof(Tile) / sizeof(std::uint32_t));
        multiply<HEIGHT>(m.powers, m.values, m.blocks, m.sums, m.depth_tiles);
        for (int r = 0; r < rows; ++r)
            for (int d = 0; d < m.depth_tiles; ++d)
                Vectors::store_scaled(reinterpret_cast<const float*>(m.sums[d].bytes[r]), inverse[r], depth - d * WIDTH,
                                      out + r * out_stride + d * WIDTH);
    }

    static void run(const std::uint16_t* query, std::ptrdiff_t query_stride, const std::uint16_t* key,
                    std::ptrdiff_t key_stride, const std::uint16_t* value, std::ptrdiff_t value_stride, int length,
                    int depth, float* out, std::ptrdiff_t out_stride, void* scratch) {
        const Memory m(length, depth, scratch);
        pack_keys(key, key_stride, length, depth, m);
        pack_values(value, value_stride, length, depth, m);
        for (int first = 0; first < length; first += SIDE) {
            const int rows = std::min(SIDE, length - first);
            const auto run = rows > TILE ? run_queries<2> : run_queries<1>;
            run(query + first * query_stride, query_stride, rows, length, depth, m, out + first * out_stride,
                out_stride);
        }
    }

    static constexpr Bf16Attention table = {Memory::bytes, run, Loops<Simd>::round_to_bf16, 5e-3f};
};

}  // namespace
}  // namespace pocketbert
