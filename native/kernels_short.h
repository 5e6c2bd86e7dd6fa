// The inner loops, written once for the instruction sets with short vectors (AVX2, NEON). `Simd` names their types and
// what the processor does with them; see kernels_avx2.cpp.
//
// All of it lies in an unnamed namespace: a function of the same name in two files, each compiled for a processor of its
// own, would be one function to the linker.
#pragma once

#include <limits>

#include "kernels.h"
#include "rows.h"

#define INLINE inline __attribute__((always_inline))

namespace pocketbert {
namespace {

constexpr int STRIP = 16;  // columns of a tile: a part of a panel

struct Place {  // of a tile's first product
    int row, column, columns;
    const Epilogue& epilogue;
    float* out;
    std::ptrdiff_t out_stride;
};

template <class Simd>
struct Loops {
    using Floats = typename Simd::Floats;
    using Ints = typename Simd::Ints;
    static constexpr int LANES = Simd::LANES, VECTORS = STRIP / LANES;

    static INLINE Floats set(float x) { return Simd::set(x); }

    // ── functions of one vector; what is not a number stays so ──

    // e^x to 1 ulp or so: 2^n times a polynomial on [-ln2/2, ln2/2].
    static INLINE Floats exp(Floats x) {
        x = Simd::at_least(set(-87.3f), Simd::at_most(set(88.0f), x));
        const Floats n = Simd::round(x * set(1.44269504f));
        Floats r = Simd::fma(n, set(-0.693359375f), x);
        r = Simd::fma(n, set(2.12194440e-4f), r);
        Floats p = Simd::fma(set(1.3981999507e-3f), r, set(8.3334519073e-3f));
        p = Simd::fma(p, r, set(4.1665795894e-2f));
        p = Simd::fma(p, r, set(1.6666665459e-1f));
        p = Simd::fma(p, r, set(5.0000001201e-1f));
        return Simd::fma(p * r, r, r + set(1.0f)) * Simd::power_of_two(n);
    }

    // The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
    static INLINE Floats erf(Floats x) {
        const Floats a = Simd::abs(x), one = set(1.0f);
        const Floats t = one / Simd::fma(a, set(0.3275911f), one);
        Floats p = Simd::fma(set(1.061405429f), t, set(-1.453152027f));
        p = Simd::fma(p, t, set(1.421413741f));
        p = Simd::fma(p, t, set(-0.284496736f));
        p = Simd::fma(p, t, set(0.254829592f));
        return Simd::with_sign_of(x, one - p * t * exp(set(0.0f) - a * a));
    }

    static INLINE Floats sigmoid(Floats x) { return set(1.0f) / (set(1.0f) + exp(set(0.0f) - x)); }

    static INLINE Floats tanh(Floats x) {
        const Floats s = sigmoid(x + x);
        return s + s - set(1.0f);
    }

    template <Activation A>
    static INLINE Floats activate(Floats x) {
        switch (A) {
            case Activation::gelu: {
                const Floats half = x * set(0.5f);
                return Simd::fma(half, erf(x * set(0.70710678f)), half);
            }
            case Activation::gelu_tanh: {
                const Floats half = x * set(0.5f), inner = Simd::fma(x * x * x, set(0.044715f), x);
                return Simd::fma(half, tanh(inner * set(0.79788456f)), half);
            }
            case Activation::relu: return Simd::at_least(set(0.0f), x);
            case Activation::relu6: return Simd::at_most(set(6.0f), Simd::at_least(set(0.0f), x));
            case Activation::silu: return x * sigmoid(x);
            case Activation::tanh: return tanh(x);
            case Activation::none: break;
        }
        return x;
    }

    // ── products ──

    template <Activation A>
    static void finish_as(const float (*products)[STRIP], int m, const Place& to) {
        const Epilogue& e = to.epilogue;
        for (int r = 0; r < m; ++r) {
            const float* bias = e.bias + (to.row + r) * e.bias_stride;
            for (int i = 0; i < to.columns; i += LANES) {
                const int left = to.columns - i, column = to.column + i;
                Floats y = activate<A>(Simd::load(products[r] + i) + Simd::load(bias + column));
                if (e.residual) {
                    const Floats x = Simd::load(e.residual + (to.row + r) * e.residual_stride + column, left);
                    y = y + (e.residual_scale ? x * Simd::load(e.residual_scale + column) : x);
                }
                Simd::store(to.out + (to.row + r) * to.out_stride + column, y, left);
            }
        }
    }

    static void finish(const float (*products)[STRIP], int m, const Place& to) {
        switch (to.epilogue.activation) {
            case Activation::none: return finish_as<Activation::none>(products, m, to);
            case Activation::gelu: return finish_as<Activation::gelu>(products, m, to);
            case Activation::gelu_tanh: return finish_as<Activation::gelu_tanh>(products, m, to);
            case Activation::relu: return finish_as<Activation::relu>(products, m, to);
            case Activation::relu6: return finish_as<Activation::relu6>(products, m, to);
            case Activation::silu: return finish_as<Activation::silu>(products, m, to);
            case Activation::tanh: return finish_as<Activation::tanh>(products, m, to);
        }
    }

    // Every loop over an array of accumulators is unrolled, so that the array is registers and never memory. They are
    // stored once, at the end, for the epilogue to loop over.

    template <int M>
    static void tile_f32(const float* x, std::ptrdiff_t x_stride, const float* strip, int k, const Place& to) {
        Floats sums[M][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = set(0.0f);
        for (int i = 0; i < k; ++i, strip += PANEL) {
            Floats w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) w[v] = Simd::load(strip + v * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < M; ++r) {
                const Floats a = set(x[r * x_stride + i]);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) sums[r][v] = Simd::fma(a, w[v], sums[r][v]);
            }
        }
        alignas(64) float products[M][STRIP];
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) Simd::store(products[r] + v * LANES, sums[r][v]);
        finish(products, M, to);
    }

    template <int M>
    static void tile_s8(const std::int8_t* q, int quads, const float* scales, const std::int32_t* sums_of_q,
                        const std::uint8_t* strip, const float* weight_scales, const Place& to) {
        Ints sums[M][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = Simd::before_dots(sums_of_q[r]);
        for (int i = 0; i < quads; ++i, strip += PANEL * 4) {
            typename Simd::Weights w[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) w[v] = Simd::weights(strip + v * LANES * 4);
#pragma GCC unroll 8
            for (int r = 0; r < M; ++r) {
                const typename Simd::Four a = Simd::four_bytes(q + (std::ptrdiff_t(r) * quads + i) * 4);
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
        finish(products, M, to);
    }

    template <int M>
    struct Rows {  // the tile for M rows, found by recursion over the possible numbers
        template <class... Args>
        static void f32(int m, const Args&... args) {
            if (m >= M) tile_f32<M>(args...);
            else if constexpr (M > 1) Rows<M - 1>::f32(m, args...);
        }
        template <class... Args>
        static void s8(int m, const Args&... args) {
            if (m >= M) tile_s8<M>(args...);
            else if constexpr (M > 1) Rows<M - 1>::s8(m, args...);
        }
    };

    // Strip by strip, so that its weights stay in the first cache while all rows go by.

    static void linear_f32(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                           const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
        for (int column = 0; column < n; column += STRIP) {
            const float* strip = packed + std::ptrdiff_t(column / PANEL) * k * PANEL + column % PANEL;
            const int columns = n - column < STRIP ? n - column : STRIP;
            for (int row = 0; row < m; row += Simd::ROWS_F32)
                Rows<Simd::ROWS_F32>::f32(m - row, x + row * x_stride, x_stride, strip, k,
                                          Place{row, column, columns, epilogue, out, out_stride});
        }
    }

    static void linear_s8(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m,
                          const std::uint8_t* packed, const float* weight_scales, int n, int k, const Epilogue& epilogue,
                          float* out, std::ptrdiff_t out_stride) {
        const int padded = round_up(k, 4);
        for (int column = 0; column < n; column += STRIP) {
            const std::uint8_t* strip = packed + std::ptrdiff_t(column / PANEL) * padded * PANEL + column % PANEL * 4;
            const int columns = n - column < STRIP ? n - column : STRIP;
            for (int row = 0; row < m; row += Simd::ROWS_S8)
                Rows<Simd::ROWS_S8>::s8(m - row, q + std::ptrdiff_t(row) * padded, padded / 4, scales + row, sums + row,
                                        strip, weight_scales + column,
                                        Place{row, column, columns, epilogue, out, out_stride});
        }
    }

    // ── rows ──

    static void quantize(const float* x, int k, std::int8_t* q, float* scale, std::int32_t* sum) {
        const int padded = round_up(k, 4);
        // The largest as whole numbers, among which infinity comes after all floats, and NaN after infinity.
        Ints largest = Simd::magnitude(set(0.0f));
        for (int i = 0; i < k; i += LANES)
            largest = Simd::larger(largest, Simd::magnitude(Simd::load(x + i, k - i)));
        const std::int32_t bits = Simd::largest(largest);
        float most;
        __builtin_memcpy(&most, &bits, sizeof most);
        if (!(most <= std::numeric_limits<float>::max())) {
            for (int i = 0; i < padded; ++i) q[i] = 0;
            *scale = std::numeric_limits<float>::quiet_NaN();
            *sum = 0;
            return;
        }
        const Floats inverse = set(most > TINY ? 127.0f / most : 0.0f);
        *scale = most / 127.0f;
        Ints total = Simd::magnitude(set(0.0f));
        for (int i = 0; i < padded; i += LANES)
            total = Simd::plus(total, Simd::store_rounded(q + i, Simd::load(x + i, k - i) * inverse, padded - i));
        *sum = Simd::sum(total);
    }

    static void layer_norm(const float* x, int k, const float* weight, const float* bias, float eps, float* out) {
        Floats sum = set(0.0f), squares = set(0.0f);
        for (int i = 0; i < k; i += LANES) sum = sum + Simd::load(x + i, k - i);
        const Floats mean = set(Simd::sum(sum) / static_cast<float>(k));
        for (int i = 0; i < k; i += LANES) {
            const Floats d = Simd::first(Simd::load(x + i, k - i) - mean, k - i);
            squares = Simd::fma(d, d, squares);
        }
        const Floats inverse = set(1.0f / __builtin_sqrtf(Simd::sum(squares) / static_cast<float>(k) + eps));
        for (int i = 0; i < k; i += LANES) {
            const Floats d = (Simd::load(x + i, k - i) - mean) * inverse;
            Simd::store(out + i, Simd::fma(d, Simd::load(weight + i, k - i), Simd::load(bias + i, k - i)), k - i);
        }
    }

    static void softmax(float* x, int k) {
        float most = x[0];
        for (int i = 1; i < k; ++i) most = most < x[i] ? x[i] : most;
        Floats sum = set(0.0f);
        for (int i = 0; i < k; i += LANES) {
            const Floats y = Simd::first(exp(Simd::load(x + i, k - i) - set(most)), k - i);
            Simd::store(x + i, y, k - i);
            sum = sum + y;
        }
        const Floats inverse = set(1.0f / Simd::sum(sum));
        for (int i = 0; i < k; i += LANES) Simd::store(x + i, Simd::load(x + i, k - i) * inverse, k - i);
    }

    static constexpr Kernels named(const char* name) {
        Kernels kernels{};
        kernels.name = name;
        kernels.linear_f32 = linear_f32;
        kernels.linear_s8 = linear_s8;
        kernels.quantize = quantize;
        kernels.add_s8 = add_s8;
        kernels.find_outliers = find_outliers;
        kernels.add_outliers = add_outliers;
        kernels.layer_norm = layer_norm;
        kernels.softmax = softmax;
        return kernels;
    }
};

}  // namespace
}  // namespace pocketbert
