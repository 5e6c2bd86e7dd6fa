// The inner loops, written once for all instruction sets. `Simd` names the vector types of one and what its instructions
// do with them; avx2.h describes each name.
//
// All of it lies in an unnamed namespace: a function of the same name in two files, each compiled for a processor of its
// own, would be one function to the linker.
#pragma once

#include <limits>
#include <type_traits>

#include "kernels.h"
#include "peak_loop.h"
#include "row_ops.h"
#include "simd_math.h"

namespace pocketbert {
namespace {

// Calls body(std::integral_constant<int, N>) for N = min(n, MOST), at least 1: what is inside is compiled for each number.
template <int MOST, class Body>
INLINE void with_constant(int n, const Body& body) {
    if (n >= MOST) body(std::integral_constant<int, MOST>{});
    else if constexpr (MOST > 1) with_constant<MOST - 1>(n, body);
}

struct TileTarget {  // where the results of a tile go
    int row, column, columns;
    const Epilogue& epilogue;
    float* out;
    std::ptrdiff_t out_stride;
};

template <class Simd>
struct Loops {
    using Floats = typename Simd::Floats;
    using Ints = typename Simd::Ints;
    static constexpr int LANES = Simd::LANES;
    static constexpr int STRIP = Simd::STRIP, VECTORS = STRIP / LANES;  // columns of a tile: a panel or a part of it
    static constexpr int STEP = Simd::STEP;  // values of a row that a product of bytes takes together, in four bytes
    using Whole = std::integral_constant<int, LANES>;  // a vector of which nothing is beyond the end

    static INLINE Floats set(float x) { return Simd::set(x); }
    static INLINE Floats load(const float* p, int left) {  // zeros beyond the end
        return left >= LANES ? Simd::load(p) : Simd::load_partial(p, left, set(0.0f));
    }
    static INLINE void store(float* p, Floats x, int left) {
        if (left >= LANES) Simd::store(p, x);
        else Simd::store_partial(p, x, left);
    }
    static INLINE Floats first(Floats x, int left) { return left >= LANES ? x : Simd::first(x, left); }

    // body(i, left) for the first column i of every vector of a row, and how many columns are left from there.
    template <class Body>
    static INLINE void each_vector(int k, const Body& body) {
        int i = 0;
        for (; i + LANES <= k; i += LANES) body(i, Whole{});
        if (i < k) body(i, k - i);
    }

    // ── products ──

    template <Activation A>
    static INLINE Floats activate(Floats x) {
        switch (A) {
            case Activation::gelu: return Simd::gelu(x);
            case Activation::gelu_to_int8: return Math<Simd>::gelu_to_int8(x);
            case Activation::gelu_tanh: return Math<Simd>::gelu_by_tanh(x);
            case Activation::relu: return Simd::max(set(0.0f), x);
            case Activation::relu6: return Simd::min(set(6.0f), Simd::max(set(0.0f), x));
            case Activation::silu: return x * Math<Simd>::sigmoid(x);
            case Activation::tanh: return Math<Simd>::tanh(x);
            case Activation::none: break;
        }
        return x;
    }

    enum class Residual { none, plain, scaled };

    // With a constant activation, and no end inside the strip, this is a straight run of instructions.
    template <Activation A, Residual R, class Width>
    static INLINE void epilogue_of_rows(const float (*products)[STRIP], int m, Width columns, const TileTarget& to) {
        const Epilogue& e = to.epilogue;
        const float* bias = e.bias + to.row * e.bias_stride + to.column;
        const float* residual = R == Residual::none ? nullptr : e.residual + to.row * e.residual_stride + to.column;
        const float* const residual_scale = R == Residual::scaled ? e.residual_scale + to.column : nullptr;
        float* out = to.out + to.row * to.out_stride + to.column;
        const std::ptrdiff_t bias_stride = e.bias_stride, residual_stride = e.residual_stride,
                             out_stride = to.out_stride;
        for (int r = 0; r < m; ++r) {
            for (int i = 0; i < columns; i += LANES) {
                const int left = std::is_same_v<Width, int> ? columns - i : LANES;
                Floats y = activate<A>(Simd::load(products[r] + i) + Simd::load(bias + i));
                if constexpr (R == Residual::plain) y = y + load(residual + i, left);
                if constexpr (R == Residual::scaled)
                    y = Simd::add_product(y, load(residual + i, left), Simd::load(residual_scale + i));
                store(out + i, y, left);
            }
            bias += bias_stride;
            if constexpr (R != Residual::none) residual += residual_stride;
            out += out_stride;
        }
    }

    template <Activation A, class Width>
    static INLINE void epilogue_of_rows(const float (*products)[STRIP], int m, Width columns, const TileTarget& to) {
        if (!to.epilogue.residual) epilogue_of_rows<A, Residual::none>(products, m, columns, to);
        else if (!to.epilogue.residual_scale) epilogue_of_rows<A, Residual::plain>(products, m, columns, to);
        else epilogue_of_rows<A, Residual::scaled>(products, m, columns, to);
    }

    template <Activation A>
    static void apply_epilogue_as(const float (*products)[STRIP], int m, const TileTarget& to) {
        if (to.columns == STRIP) epilogue_of_rows<A>(products, m, std::integral_constant<int, STRIP>{}, to);
        else epilogue_of_rows<A>(products, m, to.columns, to);
    }

    static void round_to_bf16(const float* x, int k, std::uint16_t* out) {
        each_vector(k, [&](int i, auto left) { Simd::store_bf16(out + i, load(x + i, left), left); });
    }

    static void epilogue_to_bf16(const float (*products)[STRIP], int m, const TileTarget& to) {
        const float* bias = to.epilogue.bias + to.row * to.epilogue.bias_stride + to.column;
        std::uint16_t* out = to.epilogue.bf16_out + to.row * to.out_stride + to.column;
        for (int r = 0; r < m; ++r, bias += to.epilogue.bias_stride, out += to.out_stride)
            each_vector(to.columns, [&](int i, auto left) {
                Simd::store_bf16(out + i, Simd::load(products[r] + i) + Simd::load(bias + i), left);
            });
    }

    static NOINLINE void apply_epilogue(const float (*products)[STRIP], int m, const TileTarget& to) {
        if constexpr (Simd::STORES_BF16)
            if (to.epilogue.bf16_out) return epilogue_to_bf16(products, m, to);
        switch (to.epilogue.activation) {
            case Activation::none: return apply_epilogue_as<Activation::none>(products, m, to);
            case Activation::gelu: return apply_epilogue_as<Activation::gelu>(products, m, to);
            case Activation::gelu_to_int8: return apply_epilogue_as<Activation::gelu_to_int8>(products, m, to);
            case Activation::gelu_tanh: return apply_epilogue_as<Activation::gelu_tanh>(products, m, to);
            case Activation::relu: return apply_epilogue_as<Activation::relu>(products, m, to);
            case Activation::relu6: return apply_epilogue_as<Activation::relu6>(products, m, to);
            case Activation::silu: return apply_epilogue_as<Activation::silu>(products, m, to);
            case Activation::tanh: return apply_epilogue_as<Activation::tanh>(products, m, to);
        }
    }

    // Every loop over an array of accumulators is unrolled, so that the array is registers and never memory: with one
    // loop left, the compiler keeps all of it on the stack. They are stored once, at the end, for the epilogue. A tile is
    // a function of its own: inlined beside others, it would not get all registers.

    template <int M, int V>
    static NOINLINE void tile_f32(const float* x, std::ptrdiff_t x_stride, const float* strip, int k,
                                  const TileTarget& to) {
        Floats sums[M][V];
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[r][v] = set(0.0f);
        for (int i = 0; i < k; ++i, strip += PANEL) {
            Floats w[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) w[v] = Simd::load(strip + v * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < M; ++r) {
                const Floats a = set(x[r * x_stride + i]);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) sums[r][v] = Simd::fma(a, w[v], sums[r][v]);
            }
        }
        alignas(64) float products[M][STRIP];
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) Simd::store(products[r] + v * LANES, sums[r][v]);
        apply_epilogue(products, M, to);
    }

    template <int M>
    static NOINLINE void tile_s8(const std::int8_t* q, int steps, const float* scales, const std::int32_t* sums_of_q,
                                 const std::uint8_t* strip, const float* weight_scales, const TileTarget& to) {
        Ints sums[M][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = Simd::first_sums(sums_of_q[r]);
        for (int i = 0; i < steps; ++i, strip += PANEL * STEP) {
            typename Simd::Weights w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) w[v] = Simd::load_weights(strip + v * LANES * STEP);
#pragma GCC unroll 8
            for (int r = 0; r < M; ++r) {
                const typename Simd::Bytes4 a = Simd::load_bytes4(q + (std::ptrdiff_t(r) * steps + i) * 4);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) Simd::dot(sums[r][v], w[v], a);
            }
        }
        alignas(64) float products[M][STRIP];
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r) {
            const Floats scale = set(scales[r]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v)
                Simd::store(products[r] + v * LANES,
                            Simd::floats(sums[r][v]) * (scale * Simd::load(weight_scales + v * LANES)));
        }
        apply_epilogue(products, M, to);
    }

    // Strip by strip, so that its weights stay in the first cache while all rows go by.

    static void linear_f32(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                           const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
        for (int column = 0; column < n; column += STRIP) {
            const float* strip = packed + std::ptrdiff_t(column / PANEL) * k * PANEL + column % PANEL;
            const int columns = n - column < STRIP ? n - column : STRIP;
            // As many vectors as have columns: attention with heads of 32 multiplies by no 64 columns.
            with_constant<VECTORS>((columns + LANES - 1) / LANES, [&](auto vectors) {
                constexpr int V = decltype(vectors)::value;
                for (int row = 0; row < m; row += Simd::ROWS_F32)
                    with_constant<Simd::ROWS_F32>(m - row, [&](auto rows) {
                        tile_f32<decltype(rows)::value, V>(x + row * x_stride, x_stride, strip, k,
                                                           TileTarget{row, column, columns, epilogue, out, out_stride});
                    });
            });
        }
    }

    static void linear_s8(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m,
                          const std::uint8_t* packed, const float* weight_scales, int n, int k,
                          const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
        const int steps = (k + STEP - 1) / STEP;
        for (int column = 0; column < n; column += STRIP) {
            const std::uint8_t* strip =
                packed + (std::ptrdiff_t(column / PANEL) * steps * PANEL + column % PANEL) * STEP;
            const int columns = n - column < STRIP ? n - column : STRIP;
            for (int row = 0; row < m; row += Simd::ROWS_S8)
                with_constant<Simd::ROWS_S8>(m - row, [&](auto rows) {
                    tile_s8<decltype(rows)::value>(q + std::ptrdiff_t(row) * steps * 4, steps, scales + row, sums + row,
                                                   strip, weight_scales + column,
                                                   TileTarget{row, column, columns, epilogue, out, out_stride});
                });
        }
    }

    // ── rows ──

    static void quantize(const float* x, int k, int row, std::int8_t* q, float* scale, std::int32_t* sum) {
        const int padded = round_up(k, STEP);
        q += std::ptrdiff_t(row) * padded * (4 / STEP);
        quantize_to(x, k, padded, [&](int i) { return q + i * (4 / STEP); }, scale, sum);
    }

    // The row filled up with zeros to `padded` values. Value i is at place(i), and those of a vector are side by side.
    template <class Place>
    static INLINE void quantize_to(const float* x, int k, int padded, const Place& place, float* scale,
                                   std::int32_t* sum) {
        const auto fill_up = [&](int from) {
            for (int i = from; i < padded; i += STEP) __builtin_memset(place(i), 0, 4);
        };
        // The largest as whole numbers, among which infinity comes after all floats, and NaN after infinity.
        Ints largest = Simd::set_ints(0);
        each_vector(k, [&](int i, auto left) { largest = Simd::larger(largest, Simd::magnitude(load(x + i, left))); });
        const std::int32_t bits = Simd::largest(largest);
        float max;
        __builtin_memcpy(&max, &bits, sizeof max);
        if (!(max <= std::numeric_limits<float>::max())) {
            fill_up(0);
            *scale = std::numeric_limits<float>::quiet_NaN();
            *sum = 0;
            return;
        }
        const Floats inverse = set(max > TINY ? 127.0f / max : 0.0f);
        *scale = max / 127.0f;
        Ints total = Simd::set_ints(0);
        int begin = 0;
        if constexpr (Simd::ROUNDS_LINES)
            for (; begin + 4 * LANES <= k; begin += 4 * LANES) {
                const float* const from = x + begin;
                const Floats values[] = {Simd::load(from) * inverse, Simd::load(from + LANES) * inverse,
                                         Simd::load(from + 2 * LANES) * inverse,
                                         Simd::load(from + 3 * LANES) * inverse};
                total = Simd::store_rounded_line(place(begin), values, total);
            }
        each_vector(k - begin, [&](int i, auto left) {
            const Floats values = load(x + begin + i, left) * inverse;
            total = Simd::plus(total, Simd::store_rounded(place(begin + i), values, round_up(left, STEP)));
        });
        fill_up(round_up(k, STEP));
        *sum = Simd::sum(total);
    }

    static int find_outliers(const float* x, int k, int max_count, std::int32_t* indices) {  // as in row_ops.h
        Ints largest = Simd::set_ints(0);
        each_vector(k, [&](int i, auto left) { largest = Simd::larger(largest, Simd::magnitude(load(x + i, left))); });
        const std::int32_t bits = Simd::largest(largest);
        float threshold;
        __builtin_memcpy(&threshold, &bits, sizeof threshold);
        if (!(threshold > TINY && threshold <= std::numeric_limits<float>::max())) return 0;
        const auto above = [&](int i, Ints limit) {
            return Simd::mask_of_larger(Simd::magnitude(load(x + i, k - i)), limit);
        };
        Ints lowest = largest;
        bool any = false;
        for (int halvings = 0; halvings < 40; ++halvings) {
            const Ints half = Simd::magnitude(set(threshold *= 0.5f));
            int count = 0;
            for (int i = 0; i < k && count <= max_count; i += LANES) count += __builtin_popcount(above(i, half));
            if (count > max_count) break;
            lowest = half;
            any = true;
        }
        if (!any) return 0;
        int count = 0;
        for (int i = 0; i < k; i += LANES)
            for (unsigned mask = above(i, lowest); mask; mask &= mask - 1) indices[count++] = i + __builtin_ctz(mask);
        return count;
    }

    // The sum over the vectors of a row, add(sum, i, left) being a part of it with vector i added: four parts, so that no
    // addition waits for the one before it.
    template <class Add>
    static INLINE float sum_of_vectors(int k, const Add& add) {
        Floats parts[] = {set(0.0f), set(0.0f), set(0.0f), set(0.0f)};
        int begin = 0;
        for (; begin + 4 * LANES <= k; begin += 4 * LANES)
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) parts[v] = add(parts[v], begin + v * LANES, Whole{});
        each_vector(k - begin, [&](int i, auto left) { parts[0] = add(parts[0], begin + i, left); });
        return Simd::sum((parts[0] + parts[1]) + (parts[2] + parts[3]));
    }

    static void layer_norm(const float* x, int k, const float* weight, const float* bias, float eps, float* out) {
        const float count = static_cast<float>(k);
        const Floats mean =
            set(sum_of_vectors(k, [&](Floats sum, int i, auto left) { return sum + load(x + i, left); }) / count);
        const float squares = sum_of_vectors(k, [&](Floats sum, int i, auto left) {
            const Floats d = first(load(x + i, left) - mean, left);
            return Simd::fma(d, d, sum);
        });
        const Floats inverse = set(1.0f / __builtin_sqrtf(squares / count + eps));
        each_vector(k, [&](int i, auto left) {
            const Floats d = (load(x + i, left) - mean) * inverse;
            store(out + i, Simd::fma(d, load(weight + i, left), load(bias + i, left)), left);
        });
    }

    static void softmax(float* x, int k) {
        Floats largest = set(x[0]);
        each_vector(k, [&](int i, auto left) {
            largest = Simd::max(largest, left >= LANES ? Simd::load(x + i) : Simd::load_partial(x + i, left, largest));
        });
        const Floats max = set(Simd::largest(largest));
        Floats sum = set(0.0f);
        each_vector(k, [&](int i, auto left) {
            const Floats y = first(Math<Simd>::exp(load(x + i, left) - max), left);
            store(x + i, y, left);
            sum = sum + y;
        });
        const Floats inverse = set(1.0f / Simd::sum(sum));
        each_vector(k, [&](int i, auto left) { store(x + i, load(x + i, left) * inverse, left); });
    }

    // ── the most that the instructions can do ──

    static std::int64_t peak_f32(int rounds) {
        float factor = 0.5f;
        hide(factor);
        Floats a = set(factor);
        return peak_loop(rounds, LANES, set(0.0f), [&](Floats& sum) {
            hide_vector(a);
            sum = Simd::fma(a, a, sum);
        });
    }

    static std::int64_t peak_s8(int rounds) {
        struct {
            alignas(64) std::uint8_t weights[4 * LANES];
            std::int8_t q[4];
        } bytes = {};
        hide(bytes);
        const auto w = Simd::load_weights(bytes.weights);
        auto a = Simd::load_bytes4(bytes.q);
        return peak_loop(rounds, STEP * LANES, Simd::set_ints(0), [&](Ints& sums) {
            hide_vector(a);
            Simd::peak_dot(sums, w, a);
        });
    }

    static constexpr Kernels table(const char* name) {
        Kernels kernels = table_without_int8(name);
        kernels.packed_s8_bytes = panels_s8_bytes;
        kernels.pack_s8 = pack_panels_s8;
        kernels.quantized_bytes = dense_rows_bytes;
        kernels.quantize = quantize;
        kernels.linear_s8 = linear_s8;
        kernels.int8_dot = Simd::INT8_DOT;
        kernels.peak_s8 = peak_s8;
        return kernels;
    }

    static constexpr Kernels table_without_int8(const char* name) {  // products, that is
        Kernels kernels{};
        kernels.name = name;
        kernels.linear_f32 = linear_f32;
        kernels.add_s8 = add_s8;
        kernels.find_outliers = find_outliers;
        kernels.add_outliers = add_outliers;
        kernels.layer_norm = layer_norm;
        kernels.softmax = softmax;
        kernels.tolerance = 1e-5f;
        kernels.peak_f32 = peak_f32;
        kernels.row_multiple = 1;
        kernels.row_block = 96;
        return kernels;
    }
};

}  // namespace
}  // namespace pocketbert
