// Random products for the tests of kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../kernels/kernels.h"

namespace pocketbert {

inline constexpr Activation ACTIVATIONS[] = {Activation::none,      Activation::gelu, Activation::gelu_to_int8,
                                             Activation::gelu_tanh, Activation::relu, Activation::relu6,
                                             Activation::silu,      Activation::tanh};

class Random {  // splitmix64: the same everywhere
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    int between(int first, int last) {
        return first + static_cast<int>(next() % static_cast<unsigned>(last - first + 1));
    }
    bool one_in(int n) { return between(1, n) == 1; }
    float normal() {
        float sum = -6.0f;
        for (int i = 0; i < 12; ++i) sum += static_cast<float>(next() >> 40) * 0x1p-24f;
        return sum;
    }
    std::vector<float> floats(std::size_t size, float scale = 1.0f) {
        std::vector<float> values(size);
        for (float& x : values) x = normal() * scale;
        return values;
    }
    int size() {  // mostly a few vectors, often about a whole number of panels, sometimes long
        return one_in(8)   ? between(1, 700)
               : one_in(4) ? std::max(1, 64 * between(0, 3) + between(-2, 2))
                           : between(1, 70);
    }

private:
    std::uint64_t state_;
};

// A product, in fp32 or in int8, with a random epilogue.
struct Product {
    int m, n, k;
    bool int8, in_place;
    std::ptrdiff_t x_stride, out_stride, residual_stride, bias_stride;
    Activation activation;
    std::vector<float> x, packed, bias, weight_scales, residual, residual_scale, scales;
    std::vector<std::int8_t> weight_s8;

    Product(Random& random, bool whole) : m(rows(random)), n(random.size()), k(random.size()), int8(whole) {
        const std::size_t columns = static_cast<std::size_t>(round_up(n, PANEL));
        x_stride = k + random.between(0, 3), out_stride = n + random.between(0, 3),
        residual_stride = n + random.between(0, 3);
        activation = ACTIVATIONS[random.between(0, 7)];
        bias_stride = random.one_in(4) ? columns : 0;  // a bias for every row
        bias = random.floats(bias_stride ? m * columns : columns);
        in_place = random.one_in(3);
        if (!in_place && random.one_in(2)) residual = random.floats(static_cast<std::size_t>(m * residual_stride));
        if ((in_place || !residual.empty()) && random.one_in(2)) residual_scale = random.floats(columns);
        if (int8) draw_s8(random, columns);
        else draw_f32(random, columns);
    }

    // Mostly few; at times about a whole number of tiles, or none.
    static int rows(Random& random) {
        return random.one_in(20)  ? 0
               : random.one_in(4) ? std::max(1, 16 * random.between(0, 8) + random.between(-1, 1))
                                  : random.between(1, 20);
    }

    // Whether every set of kernels does the same operations after the product, so that results have the same bits.
    bool has_exact_epilogue() const {
        return residual_scale.empty() &&
               (activation == Activation::none || activation == Activation::relu || activation == Activation::relu6);
    }

    void draw_f32(Random& random, std::size_t columns) {
        const std::vector<float> weight = random.floats(std::size_t(n) * k, 1.0f / std::sqrt(static_cast<float>(k)));
        x = random.floats(m ? static_cast<std::size_t>((m - 1) * x_stride + k) : 0, random.one_in(5) ? 10.0f : 1.0f);
        packed.resize(columns * k);
        pack_f32(weight.data(), k, 1, n, k, packed.data());
    }

    void draw_s8(Random& random, std::size_t columns) {
        const int edge = random.between(0, 3);  // at times, only numbers at the ends of the range
        weight_s8.resize(std::size_t(n) * k);
        for (std::int8_t& w : weight_s8)
            w = static_cast<std::int8_t>(edge ? random.between(-128, 127) : random.one_in(2) ? -128 : 127);
        x_stride = k;
        x.resize(std::size_t(m) * k);  // whole numbers up to 127, one of them in every row: so rounding keeps them
        for (float& a : x) a = static_cast<float>(edge > 1 ? random.between(-127, 127) : random.one_in(2) ? -127 : 127);
        for (int row = 0; row < m; ++row) x[std::size_t(row) * k + random.between(0, k - 1)] = 127.0f;
        scales = random.floats(m, 0.01f);
        weight_scales = random.floats(columns, 0.01f);
        if (m && random.one_in(10)) scales[0] = std::numeric_limits<float>::quiet_NaN();
    }

    // Only the sums of products, which are whole numbers.
    void make_plain() {
        std::fill(bias.begin(), bias.end(), 0.0f);
        std::fill(scales.begin(), scales.end(), 1.0f);
        std::fill(weight_scales.begin(), weight_scales.end(), 1.0f);
        residual.clear(), residual_scale.clear(), activation = Activation::none, in_place = false;
    }

    // What an int8 product reads in the layout of these kernels, in memory of the exact size.
    struct Operands {
        std::vector<std::uint8_t> packed;
        std::vector<std::int8_t> q;
        std::vector<std::int32_t> sums;
    };

    std::vector<std::uint8_t> packed_for(const Kernels& kernels) const {
        std::vector<std::uint8_t> bytes(int8 ? kernels.packed_s8_bytes(n, k) : 0);
        if (int8) kernels.pack_s8(weight_s8.data(), n, k, bytes.data());
        return bytes;
    }

    void quantize(const Kernels& kernels, int first, int last, Operands& operands) const {
        operands.q.assign(kernels.quantized_bytes(last - first, k), 99);  // what is beyond the rows does not matter
        operands.sums.assign(last - first, 0);
        for (int row = first; row < last; ++row) {
            float scale;
            kernels.quantize(x.data() + row * x_stride, k, row - first, operands.q.data(), &scale,
                             &operands.sums[row - first]);
        }
    }

    // Rows `first` to `last` in `out`, whose old values are the residual where it is in place; or, rounded, in `bf16_out`.
    void run(const Kernels& kernels, const Operands& operands, int first, int last, std::vector<float>& out,
             std::uint16_t* bf16_out = nullptr) const {
        float* const to = out.data() + first * out_stride;
        Epilogue epilogue{bias.data() + first * bias_stride,
                          bias_stride,
                          activation,
                          nullptr,
                          0,
                          residual_scale.empty() ? nullptr : residual_scale.data()};
        if (bf16_out) epilogue.bf16_out = bf16_out + first * out_stride;
        if (in_place) epilogue.residual = to, epilogue.residual_stride = out_stride;
        else if (!residual.empty())
            epilogue.residual = residual.data() + first * residual_stride, epilogue.residual_stride = residual_stride;
        if (int8)
            kernels.linear_s8(operands.q.data(), scales.data() + first, operands.sums.data(), last - first,
                              operands.packed.data(), weight_scales.data(), n, k, epilogue, to, out_stride);
        else
            kernels.linear_f32(x.data() + first * x_stride, x_stride, last - first, packed.data(), n, k, epilogue, to,
                               out_stride);
    }

    // `block` rows at a time, into memory of the exact size.
    std::vector<float> result(const Kernels& kernels, int block, const std::vector<float>& before) const {
        std::vector<float> out = before;
        Operands operands{packed_for(kernels), {}, {}};
        for (int row = 0; row < m; row += block) {
            const int last = std::min(m, row + block);
            if (int8) quantize(kernels, row, last, operands);
            run(kernels, operands, row, last, out);
        }
        return out;
    }
};

}  // namespace pocketbert
