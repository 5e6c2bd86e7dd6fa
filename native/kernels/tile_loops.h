// Int8 products on tile registers. `Simd` does all else, as in simd_loops.h; `Tiles` are those of the processor (tiles.h)
// or emulated ones.
//
// A block of 32 x 32 sums takes two tiles of rows, two of weights and four of sums. What costs time is not the products
// but what surrounds them, so the sums of a block are stored one tile at a time, each where the next block begins with
// that tile, and its epilogue is spread over the products of that block, a few rows after each. Everything on the way
// must be inlined: a call between two products saves all vector registers.
#pragma once

#include <algorithm>
#include <cstring>

#include "simd_loops.h"
#include "tiles.h"

namespace pocketbert {
namespace {

template <class Simd, class Tiles>
struct TileLoops {
    using Base = Loops<Simd>;
    using Floats = typename Simd::Floats;
    using Ints = typename Simd::Ints;
    using Residual = typename Base::Residual;
    static constexpr int LANES = Simd::LANES;
    static constexpr int SIDE = 2 * TILE;  // rows and columns of a block of sums
    static constexpr int VECTORS = SIDE / LANES;
    // With so few rows a product by vectors is done before tiles are: both wait for the weights, and tiles take 16 rows.
    static constexpr int FEW_ROWS = 3;

    // ── layouts: all tiles are dense ──

    // Weights as [n / 32][k / 64][2][16][16][4], of two tiles side by side, four bytes of a column together.
    static std::size_t packed_bytes(int n, int k) {
        return static_cast<std::size_t>(round_up(n, SIDE)) * static_cast<std::size_t>(round_up(k, TILE_BYTES));
    }

    static void pack(const std::int8_t* weight, int n, int k, std::uint8_t* packed) {
        for (int first = 0; first < n; first += SIDE)
            for (int depth = 0; depth < k; depth += TILE_BYTES)
                for (int column = first; column < first + SIDE; column += TILE)
                    for (int quad = depth; quad < depth + TILE_BYTES; quad += 4)
                        for (int j = column; j < column + TILE; ++j)
                            for (int i = quad; i < quad + 4; ++i) {
                                const bool inside = j < n && i < k;
                                *packed++ = static_cast<std::uint8_t>(inside ? weight[std::ptrdiff_t(j) * k + i] : 0);
                            }
    }

    // Rows as [rows / 16][k / 64][16][64].
    static std::size_t quantized_bytes(int rows, int k) {
        return static_cast<std::size_t>(round_up(rows, TILE)) * static_cast<std::size_t>(round_up(k, TILE_BYTES));
    }

    static void quantize(const float* x, int k, int row, std::int8_t* q, float* scale, std::int32_t* sum) {
        const int padded = round_up(k, TILE_BYTES);
        q += std::ptrdiff_t(row / TILE) * TILE * padded + row % TILE * TILE_BYTES;
        const auto place = [&](int i) { return q + i / TILE_BYTES * std::ptrdiff_t(sizeof(Tile)) + i % TILE_BYTES; };
        Base::quantize_to(x, k, padded, place, scale, sum);
    }

    // ── products ──

    struct Job {
        const std::int8_t* q;
        const float* scales;
        const std::int32_t* sums;
        int rows;
        const std::uint8_t* packed;
        const float* weight_scales;
        int columns, steps;  // steps of 64 along the depth
        const Epilogue& epilogue;
        float* out;
        std::ptrdiff_t out_stride;

        const Tile* weights(int column) const {
            return reinterpret_cast<const Tile*>(packed) + std::ptrdiff_t(column / TILE) * steps;
        }
        const Tile* row_tiles(int row) const {
            return reinterpret_cast<const Tile*>(q) + std::ptrdiff_t(row / TILE) * steps;
        }
    };

    // A block whose sums are complete, and whose rows are written one by one.
    template <Activation A, Residual R, bool TO_BF16>
    struct Due {
        const Sums* sums;
        const float *scales, *weight_scales, *bias, *residual, *residual_scale;
        float* out;
        std::uint16_t* bf16_out;
        std::ptrdiff_t bias_stride, residual_stride, out_stride;
        int next = 0, rows = 0;

        INLINE void start(const Job& job, const Sums* from, int row, int column) {
            const Epilogue& e = job.epilogue;
            sums = from;
            scales = job.scales + row;
            weight_scales = job.weight_scales + column;
            bias_stride = e.bias_stride;
            bias = e.bias + row * bias_stride + column;
            if constexpr (R != Residual::none) {
                residual_stride = e.residual_stride;
                residual = e.residual + row * residual_stride + column;
            }
            if constexpr (R == Residual::scaled) residual_scale = e.residual_scale + column;
            out_stride = job.out_stride;
            if constexpr (TO_BF16) bf16_out = e.bf16_out + row * out_stride + column;
            else out = job.out + row * out_stride + column;
            next = 0;
            rows = std::min(SIDE, job.rows - row);
        }

        INLINE void one_row() {  // with the operations of tile_s8 and epilogue_of_rows in simd_loops.h
            const Floats scale = Simd::set(scales[next]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) {
                const int i = v * LANES;
                const Floats product =
                    Simd::floats(Simd::load_ints(sums->bytes[next] + 4 * i)) * (scale * Simd::load(weight_scales + i));
                Floats y = Base::template activate<A>(product + Simd::load(bias + i));
                if constexpr (R == Residual::plain) y = y + Simd::load(residual + i);
                if constexpr (R == Residual::scaled)
                    y = Simd::add_product(y, Simd::load(residual + i), Simd::load(residual_scale + i));
                if constexpr (TO_BF16) Simd::store_bf16(bf16_out + i, y, LANES);
                else Simd::store(out + i, y);
            }
            bias += bias_stride;
            if constexpr (R != Residual::none) residual += residual_stride;
            if constexpr (TO_BF16) bf16_out += out_stride;
            else out += out_stride;
            ++next;
        }

        INLINE void some_rows(int count) {
            const int last = std::min(next + count, rows);
#pragma GCC unroll 1
            while (next < last) one_row();
        }
        INLINE void remaining_rows() {
            while (next < rows) one_row();
        }
    };

    // All blocks of 32 whole columns.
    template <Activation A, Residual R, bool TO_BF16 = false>
    static NOINLINE void run_blocks(const Job& job) {
        Sums sums[2];
        Due<A, R, TO_BF16> due;
        int number = 0, last_row = 0, last_column = 0;  // of the block before
        // After each product but the first: so many rows of the 32 that are due, and lines of the next columns' weights. The
        // lower 16 rows of a block are not in memory before the fourth product of the next one.
        const int products = 4 * job.steps - 1, some = std::min(TILE / 2, (SIDE + products - 1) / products);
        const int lines_ahead = (8 * SIDE + job.rows - 1) / job.rows;
        for (int column = 0; column < job.columns; column += SIDE) {
            const Tile* ahead = job.weights(column + SIDE);
            int line = 0;
            const auto meanwhile = [&]() INLINE_LAMBDA {
                due.some_rows(some);
#pragma GCC unroll 1
                for (int i = 0; i < lines_ahead; ++i, ++line)
                    __builtin_prefetch(reinterpret_cast<const char*>(ahead) + 64 * line, 0, 2);
            };
            for (int row = 0; row < job.rows; row += SIDE, ++number) {
                const Tile *a = job.row_tiles(row), *b = job.weights(column);
                const Tile* const end = a + job.steps;  // where the second tiles of rows begin
                Sums* const to = &sums[number & 1];
                const bool is_tall = job.rows - row > TILE;
                bool begins = true, stores = number > 0;  // in the first step, the sums of the block before
                for (; a < end; ++a, b += 2, begins = stores = false) {
                    Tiles::template load<6>(b), Tiles::template load_once<4>(a);
                    if (stores) Tiles::template store<0>(to);
                    if (begins) Tiles::template zero<0>();
                    Tiles::template dot_s8<0, 4, 6>();
                    meanwhile();
                    Tiles::template load<7>(b + 1);
                    if (stores) Tiles::template store<1>(to);
                    if (begins) Tiles::template zero<1>();
                    Tiles::template dot_s8<1, 4, 7>();
                    if (stores) due.start(job, to, last_row, last_column);
                    meanwhile();
                    if (is_tall) {
                        Tiles::template load_once<5>(a + job.steps);
                        if (stores) Tiles::template store<2>(to);
                        if (begins) Tiles::template zero<2>();
                        Tiles::template dot_s8<2, 5, 6>();
                        meanwhile();
                        if (stores) Tiles::template store<3>(to);
                        if (begins) Tiles::template zero<3>();
                        Tiles::template dot_s8<3, 5, 7>();
                        meanwhile();
                    } else if (stores && due.rows > TILE) {
                        Tiles::template store<2>(to), Tiles::template store<3>(to);
                    }
                }
                due.remaining_rows();
                last_row = row, last_column = column;
            }
        }
        store_all(&sums[number & 1]);
        due.start(job, &sums[number & 1], last_row, last_column);
        due.remaining_rows();
    }

    static INLINE void store_all(Sums* to) {
        Tiles::template store<0>(to), Tiles::template store<1>(to);
        Tiles::template store<2>(to), Tiles::template store<3>(to);
    }

    // Sums of rows `row` to row + 31 and of 32 columns, with their scales, and the epilogue as the other kernels do it: for
    // what is rare.
    static NOINLINE void run_block_plainly(const Job& job, int row, int column, int last_column) {
        const Tile *a = job.row_tiles(row), *b = job.weights(column);
        const std::ptrdiff_t second = job.rows - row > TILE ? job.steps : 0;
        Tiles::template zero<0>(), Tiles::template zero<1>(), Tiles::template zero<2>(), Tiles::template zero<3>();
        for (int step = 0; step < job.steps; ++step, ++a, b += 2) {
            Tiles::template load<6>(b), Tiles::template load_once<4>(a);
            Tiles::template dot_s8<0, 4, 6>();
            Tiles::template load<7>(b + 1);
            Tiles::template dot_s8<1, 4, 7>();
            Tiles::template load_once<5>(a + second);
            Tiles::template dot_s8<2, 5, 6>(), Tiles::template dot_s8<3, 5, 7>();
        }
        Sums sums;
        store_all(&sums);
        write_rows(job, row, std::min(SIDE, job.rows - row), column, last_column,
                   [&](int r, int i) { return Simd::load_ints(sums.bytes[r] + 4 * i); });
    }

    // sum(r, i): the sums of row `row` + r and of the columns from `column` + i on.
    template <class Sum>
    static INLINE void write_rows(const Job& job, int row, int rows, int column, int last_column, const Sum& sum) {
        constexpr int STRIP = Simd::STRIP, WIDTH = std::min(STRIP, SIDE);
        for (int first = 0; first < SIDE && column + first < last_column; first += WIDTH) {
            alignas(64) float products[SIDE][STRIP];
            for (int r = 0; r < rows; ++r) {
                const Floats scale = Simd::set(job.scales[row + r]);
                for (int i = 0; i < WIDTH; i += LANES)
                    Simd::store(products[r] + i, Simd::floats(sum(r, first + i)) *
                                                     (scale * Simd::load(job.weight_scales + column + first + i)));
            }
            Base::apply_epilogue(products, rows,
                                 TileTarget{row, column + first, std::min(WIDTH, last_column - column - first),
                                            job.epilogue, job.out, job.out_stride});
        }
    }

    // M rows without tiles, from the same memory.
    template <int M>
    static NOINLINE void run_few_rows(const Job& job) {
        constexpr int PARTS = M == 1 ? 4 : 2;  // sums of each number, so that no product waits for the one before it
        for (int column = 0; column < job.columns; column += SIDE) {
            Ints sums[M][VECTORS][PARTS];
#pragma GCC unroll 4
            for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v)
#pragma GCC unroll 4
                    for (int part = 0; part < PARTS; ++part)
                        sums[r][v][part] = part ? Simd::set_ints(0) : Simd::first_sums(job.sums[r]);
            const Tile *a = job.row_tiles(0), *b = job.weights(column);
            for (int step = 0; step < job.steps; ++step, ++a, b += 2)
                for (int quad = 0; quad < TILE; quad += PARTS)
#pragma GCC unroll 4
                    for (int part = 0; part < PARTS; ++part)
#pragma GCC unroll 4
                        for (int v = 0; v < VECTORS; ++v) {
                            const int i = v * LANES;
                            const auto w = Simd::load_signed_weights(b[i / TILE].bytes[quad + part] + i % TILE * 4);
#pragma GCC unroll 4
                            for (int r = 0; r < M; ++r)
                                Simd::dot(sums[r][v][part], w,
                                          Simd::load_bytes4(reinterpret_cast<const std::int8_t*>(a->bytes[r]) +
                                                            4 * (quad + part)));
                        }
            alignas(64) std::int32_t totals[M][SIDE];
#pragma GCC unroll 4
            for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) {
                    Ints total = sums[r][v][0];
#pragma GCC unroll 4
                    for (int part = 1; part < PARTS; ++part) total = Simd::plus(total, sums[r][v][part]);
                    Simd::store_ints(totals[r] + v * LANES, total);
                }
            write_rows(job, 0, M, column, job.columns, [&](int r, int i) { return Simd::load_ints(totals[r] + i); });
        }
    }

    static void linear_s8(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m,
                          const std::uint8_t* packed, const float* weight_scales, int n, int k,
                          const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
        Job job{q,        scales, sums,      m, packed, weight_scales, n, round_up(k, TILE_BYTES) / TILE_BYTES,
                epilogue, out,    out_stride};
        if (m <= 0) return;
        if (m <= FEW_ROWS)
            return with_constant<FEW_ROWS>(m, [&](auto rows) { run_few_rows<decltype(rows)::value>(job); });
        const int whole = n / SIDE * SIDE;
        int done = 0;  // columns
        if (const auto run = blocks_for(epilogue); run && whole) {
            job.columns = done = whole;
            run(job);
        }
        for (; done < n; done += SIDE)
            for (int row = 0; row < m; row += SIDE) run_block_plainly(job, row, done, n);
    }

    // The function for a frequent epilogue, or null.
    static void (*blocks_for(const Epilogue& e))(const Job&) {
        if (e.bf16_out) return run_blocks<Activation::none, Residual::none, true>;
        if (!e.residual) {
            if (e.activation == Activation::none) return run_blocks<Activation::none, Residual::none>;
            if (e.activation == Activation::gelu_to_int8) return run_blocks<Activation::gelu_to_int8, Residual::none>;
            if (e.activation == Activation::relu) return run_blocks<Activation::relu, Residual::none>;
        } else if (e.activation == Activation::none) {
            return e.residual_scale ? run_blocks<Activation::none, Residual::scaled>
                                    : run_blocks<Activation::none, Residual::plain>;
        }
        return nullptr;
    }

    // ── the most that the instructions can do ──

    template <class Products>
    static INLINE std::int64_t peak(int rounds, int products, const Products& four_products) {
        Tiles::template zero<0>(), Tiles::template zero<1>(), Tiles::template zero<2>(), Tiles::template zero<3>();
        Tiles::template zero<4>(), Tiles::template zero<5>(), Tiles::template zero<6>(), Tiles::template zero<7>();
        for (int round = 0; round < rounds; ++round) four_products();
        return std::int64_t(2) * 4 * TILE * TILE * products * rounds;
    }

    static std::int64_t peak_s8(int rounds) {
        return peak(rounds, TILE_BYTES, [] {
            Tiles::template dot_s8<0, 4, 6>(), Tiles::template dot_s8<1, 4, 7>();
            Tiles::template dot_s8<2, 5, 6>(), Tiles::template dot_s8<3, 5, 7>();
        });
    }

    static std::int64_t peak_bf16(int rounds) {
        return peak(rounds, TILE_BYTES / 2, [] {
            Tiles::template dot_bf16<0, 4, 6>(), Tiles::template dot_bf16<1, 4, 7>();
            Tiles::template dot_bf16<2, 5, 6>(), Tiles::template dot_bf16<3, 5, 7>();
        });
    }

    static void configure() { Tiles::configure(); }
    static void release() { Tiles::release(); }

    static constexpr Kernels table(const char* name, const char* int8_dot) {
        Kernels kernels = Base::table(name);
        kernels.packed_s8_bytes = packed_bytes;
        kernels.pack_s8 = pack;
        kernels.quantized_bytes = quantized_bytes;
        kernels.quantize = quantize;
        kernels.linear_s8 = linear_s8;
        kernels.int8_dot = int8_dot;
        kernels.peak_s8 = peak_s8;
        kernels.peak_bf16 = peak_bf16;
        kernels.row_multiple = TILE;
        kernels.row_block = 192;
        kernels.enter_thread = configure;
        kernels.leave_thread = release;
        return kernels;
    }
};

}  // namespace
}  // namespace pocketbert
