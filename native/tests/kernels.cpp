// Compares all kernels that this processor has with the portable ones, on random shapes and values: kernels [CASES
// [SEED]]. Whole numbers must be the same, and so must a row's bits in every batch; nothing may be written beside a
// result. `kernels speed` prints how fast the products are on one core, the sets of kernels alternating.
#include "../kernels/kernels.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

using namespace pocketbert;

namespace {

constexpr float GUARD = 12345.678f;
constexpr Activation ACTIVATIONS[] = {Activation::none,  Activation::gelu, Activation::gelu_tanh, Activation::relu,
                                      Activation::relu6, Activation::silu, Activation::tanh};

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

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// The largest difference of two results, relative to the largest value, or to 1 if that is more. NaN must be in both.
float distance(const std::vector<float>& a, const std::vector<float>& b) {
    float scale = 1.0f, largest = 0.0f;
    for (const float x : b)
        if (std::isfinite(x)) scale = std::max(scale, std::fabs(x));
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (std::isnan(a[i]) || std::isnan(b[i])) {
            if (std::isnan(a[i]) != std::isnan(b[i])) return std::numeric_limits<float>::infinity();
        } else {
            largest = std::max(largest, std::fabs(a[i] - b[i]) / scale);
        }
    }
    return largest;
}

float to_bf16(float x) {  // to nearest, ties to even
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// A product, in fp32 or in int8, with a random epilogue.
struct Product {
    int m, n, k;
    bool int8, in_place;
    std::ptrdiff_t x_stride, out_stride, residual_stride, bias_stride;
    Activation activation;
    std::vector<float> x, packed, bias, weight_scales, residual, residual_scale, scales;
    std::vector<std::int8_t> weight_s8;

    Product(Random& random, bool whole)
        : m(random.one_in(20) ? 0 : random.between(1, 20)), n(random.size()), k(random.size()), int8(whole) {
        const std::size_t columns = static_cast<std::size_t>(round_up(n, PANEL));
        x_stride = k + random.between(0, 3), out_stride = n + random.between(0, 3),
        residual_stride = n + random.between(0, 3);
        activation = ACTIVATIONS[random.between(0, 6)];
        bias_stride = random.one_in(4) ? columns : 0;  // a bias for every row
        bias = random.floats(bias_stride ? m * columns : columns);
        in_place = random.one_in(3);
        if (!in_place && random.one_in(2)) residual = random.floats(static_cast<std::size_t>(m * residual_stride));
        if ((in_place || !residual.empty()) && random.one_in(2)) residual_scale = random.floats(columns);
        if (int8) draw_s8(random, columns);
        else draw_f32(random, columns);
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

    // Rows `first` to `last` in `out`, whose old values are the residual where it is in place.
    void run(const Kernels& kernels, const Operands& operands, int first, int last, std::vector<float>& out) const {
        float* const to = out.data() + first * out_stride;
        Epilogue epilogue{bias.data() + first * bias_stride,
                          bias_stride,
                          activation,
                          nullptr,
                          0,
                          residual_scale.empty() ? nullptr : residual_scale.data()};
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

class Check {
public:
    Check(const Kernels& kernels, std::uint64_t seed) : kernels_(kernels), random_(seed) {}

    void run(int cases) {
        for (int i = 0; i < cases; ++i) {
            case_ = i;
            product(false);
            product(true);
            rounding();
            whole_rows();
            outliers();
            norm();
            softmax();
            if (kernels_.bf16_attention) attention(*kernels_.bf16_attention);
        }
        std::printf(
            "%-11s (int8 by %s) %d cases of each; the largest difference is %.1e in fp32 products, %.1e in int8 "
            "ones, %.1e in those of outliers, %.1e in norms, %.1e in softmax",
            kernels_.name, kernels_.int8_dot, cases, f32_, s8_, outliers_, norm_, softmax_);
        if (kernels_.bf16_attention) std::printf(", %.1e in attention in bfloat16", attention_);
        std::printf("\n");
    }

private:
    void require(bool holds, const char* rule) {
        if (holds) return;
        std::fprintf(stderr, "%s, case %d: %s\n", kernels_.name, case_, rule);
        std::exit(1);
    }

    void within(float difference, float limit, float& largest, const char* rule) {
        if (difference > limit) std::fprintf(stderr, "a difference of %g: ", difference);
        require(difference <= limit, rule);
        largest = std::max(largest, difference);
    }

    void product(bool int8) {
        Product p(random_, int8);
        std::vector<float> before = random_.floats(p.m ? static_cast<std::size_t>((p.m - 1) * p.out_stride + p.n) : 0);
        for (std::size_t i = 0; i < before.size(); ++i)
            if (static_cast<std::ptrdiff_t>(i) % p.out_stride >= p.n) before[i] = GUARD;
        if (p.int8) {
            Product plain = p;
            plain.make_plain();
            require(same_bits(plain.result(kernels_, 100, before), plain.result(portable_kernels, 100, before)),
                    "the sums of an int8 product are wrong");
        }
        const std::vector<float> result = p.result(kernels_, 100, before);
        within(distance(result, p.result(portable_kernels, 100, before)), kernels_.tolerance, p.int8 ? s8_ : f32_,
               "a product is off");
        for (std::size_t i = 0; i < result.size(); ++i)
            require(static_cast<std::ptrdiff_t>(i) % p.out_stride < p.n || result[i] == GUARD,
                    "a product writes beside its columns");
        require(same_bits(result, p.result(kernels_, 1, before)) &&
                    same_bits(result, p.result(kernels_, random_.between(2, 7), before)),
                "a row's bits depend on the batch");
    }

    void rounding() {
        const int k = random_.size(), row = random_.between(0, 17);
        std::vector<float> x = random_.floats(k, std::exp2(static_cast<float>(random_.between(-30, 30))));
        if (random_.one_in(10)) std::fill(x.begin(), x.end(), 0.0f);
        if (random_.one_in(4)) {
            constexpr float SPECIAL[] = {NAN, INFINITY, -INFINITY, 3.4e38f, 1e-45f, 2e-38f, 1e-35f, -0.0f};
            x[random_.between(0, k - 1)] = SPECIAL[random_.between(0, 7)];
        }
        const auto rounded = [&](const Kernels& kernels, float& scale, std::int32_t& sum) {
            std::vector<std::int8_t> q(kernels.quantized_bytes(row + 1, k));
            kernels.quantize(x.data(), k, row, q.data(), &scale, &sum);
            return row_of(kernels, q, sum, row, k);
        };
        float scale, expected_scale;
        std::int32_t sum, expected_sum;
        const std::vector<float> found = rounded(kernels_, scale, sum);
        require(same_bits(found, rounded(portable_kernels, expected_scale, expected_sum)) && sum == expected_sum,
                "a row is rounded to other numbers");
        require(scale == expected_scale || (std::isnan(scale) && std::isnan(expected_scale)), "a scale is wrong");
    }

    // The numbers of a quantised row, whatever its layout: its products with the rows of the unit matrix.
    static std::vector<float> row_of(const Kernels& kernels, const std::vector<std::int8_t>& q, std::int32_t sum,
                                     int row, int k) {
        std::vector<std::int8_t> unit(std::size_t(k) * k);
        for (int i = 0; i < k; ++i) unit[std::size_t(i) * k + i] = 1;
        std::vector<std::uint8_t> packed(kernels.packed_s8_bytes(k, k));
        kernels.pack_s8(unit.data(), k, k, packed.data());
        const std::vector<float> ones(round_up(k, PANEL), 1.0f), scales(row + 1, 1.0f);
        const std::vector<float> zeros(round_up(k, PANEL));
        std::vector<std::int32_t> sums(row + 1, sum);
        std::vector<float> out(std::size_t(row + 1) * k);
        const Epilogue plain{zeros.data(), 0, Activation::none, nullptr, 0, nullptr};
        kernels.linear_s8(q.data(), scales.data(), sums.data(), row + 1, packed.data(), ones.data(), k, k, plain,
                          out.data(), k);
        return {out.end() - k, out.end()};
    }

    void whole_rows() {
        const int k = random_.size();
        std::vector<std::int8_t> row(k);
        for (std::int8_t& x : row) x = static_cast<std::int8_t>(random_.between(-128, 127));
        std::vector<float> sums = random_.floats(k), expected = sums;
        kernels_.add_s8(row.data(), 0.01f, k, sums.data());
        portable_kernels.add_s8(row.data(), 0.01f, k, expected.data());
        require(distance(sums, expected) < 1e-6f, "a row is added wrongly");
    }

    void outliers() {
        const int n = random_.size(), k = random_.size(), max_count = random_.between(1, 1 + k / 8);
        std::vector<float> x = random_.floats(k);
        for (int i = 0; i < max_count; ++i)
            x[random_.between(0, k - 1)] *= std::exp2(static_cast<float>(random_.between(0, 12)));
        if (random_.one_in(10)) x[random_.between(0, k - 1)] = random_.one_in(2) ? NAN : INFINITY;
        std::vector<std::int32_t> indices(max_count, -1), expected(max_count, -1);
        const int count = kernels_.find_outliers(x.data(), k, max_count, indices.data());
        require(count == portable_kernels.find_outliers(x.data(), k, max_count, expected.data()) && indices == expected,
                "other features are outliers");
        const std::size_t columns = static_cast<std::size_t>(round_up(n, PANEL));
        const std::vector<float> packed = random_.floats(columns * k), bias = random_.floats(columns);
        std::vector<float> sums(columns), expected_sums(columns);
        kernels_.add_outliers(x.data(), indices.data(), count, packed.data(), bias.data(), n, k, sums.data());
        portable_kernels.add_outliers(x.data(), indices.data(), count, packed.data(), bias.data(), n, k,
                                      expected_sums.data());
        within(distance(sums, expected_sums), kernels_.tolerance, outliers_, "the product of outliers is off");
    }

    void norm() {
        const int k = random_.size();
        const std::vector<float> weight = random_.floats(k), bias = random_.floats(k);
        std::vector<float> x = random_.floats(k), expected(k), result(k);
        const float eps = random_.one_in(2) ? 1e-12f : 1e-2f;
        if (k < 4) x[0] += 3.0f;  // a norm of values that are almost the same makes a rounding arbitrarily large
        portable_kernels.layer_norm(x.data(), k, weight.data(), bias.data(), k == 1 ? 1e-2f : eps, expected.data());
        kernels_.layer_norm(x.data(), k, weight.data(), bias.data(), k == 1 ? 1e-2f : eps, result.data());
        within(distance(result, expected), kernels_.tolerance, norm_, "a norm is off");
        kernels_.layer_norm(x.data(), k, weight.data(), bias.data(), k == 1 ? 1e-2f : eps, x.data());
        require(same_bits(x, result), "a norm in place differs");
    }

    void softmax() {
        const int k = random_.size();
        std::vector<float> x = random_.floats(k, random_.one_in(2) ? 1.0f : 30.0f), expected = x;
        kernels_.softmax(x.data(), k);
        portable_kernels.softmax(expected.data(), k);
        within(distance(x, expected), kernels_.tolerance, softmax_, "a softmax is off");
    }

    void attention(const Bf16Attention& attention) {
        const int length = random_.between(1, 150), depth = random_.between(1, 140);
        const std::ptrdiff_t stride = depth + random_.between(0, 3);
        const std::size_t size = static_cast<std::size_t>((length - 1) * stride + depth);
        const std::vector<float> key = random_.floats(size), value = random_.floats(size);
        const std::vector<float> query = random_.floats(size, 1.0f / std::sqrt(static_cast<float>(depth)));
        std::vector<float> out(size, GUARD), expected(size, GUARD);
        std::vector<std::uint8_t> memory(attention.scratch_bytes(length, depth) + 64);
        void* const scratch = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
        attention.run(query.data(), stride, key.data(), stride, value.data(), stride, length, depth, out.data(), stride,
                      scratch);
        std::vector<double> scores(length);
        for (int row = 0; row < length; ++row) {
            double largest = -INFINITY, sum = 0;
            for (int i = 0; i < length; ++i) {
                scores[i] = 0;
                for (int j = 0; j < depth; ++j)
                    scores[i] += double(to_bf16(query[row * stride + j])) * to_bf16(key[i * stride + j]);
                largest = std::max(largest, scores[i]);
            }
            for (double& score : scores) sum += score = std::exp(score - largest);
            for (int j = 0; j < depth; ++j) {
                double total = 0;
                for (int i = 0; i < length; ++i)
                    total += double(to_bf16(static_cast<float>(scores[i]))) * to_bf16(value[i * stride + j]);
                expected[row * stride + j] = static_cast<float>(total / sum);
            }
        }
        for (std::size_t i = 0; i < size; ++i)
            require(static_cast<std::ptrdiff_t>(i) % stride < depth || out[i] == GUARD,
                    "attention writes beside its columns");
        std::replace(out.begin(), out.end(), GUARD, 0.0f), std::replace(expected.begin(), expected.end(), GUARD, 0.0f);
        within(distance(out, expected), attention.tolerance, attention_, "attention in bfloat16 is off");
    }

    const Kernels& kernels_;
    Random random_;
    int case_ = 0;
    float f32_ = 0.0f, s8_ = 0.0f, outliers_ = 0.0f, norm_ = 0.0f, softmax_ = 0.0f, attention_ = 0.0f;
};

// Billions of operations per second in products of this shape, the best of some rounds, and the peak of the instructions.
void speed(const std::vector<const Kernels*>& all) {
    constexpr int SHAPES[][3] = {{96, 192, 192}, {96, 192, 768}, {96, 768, 192}, {96, 768, 768}, {96, 512, 128}};
    Random random(0);
    std::printf("%-16s", "m n k");
    for (const Kernels* kernels : all)
        std::printf(" %11s:%-4s %11s:%-4s", kernels->name, "fp32", kernels->name, "int8");
    std::printf("\n");
    for (const auto& shape : SHAPES) {
        std::vector<Product> products;
        for (const bool int8 : {false, true}) {
            Product p(random, int8);
            p.m = shape[0], p.n = shape[1], p.k = shape[2], p.x_stride = p.k, p.out_stride = p.n;
            p.bias_stride = 0, p.bias.resize(round_up(p.n, PANEL));
            int8 ? p.draw_s8(random, p.bias.size()) : p.draw_f32(random, p.bias.size());
            p.residual.clear(), p.residual_scale.clear(), p.in_place = false, p.activation = Activation::none;
            products.push_back(std::move(p));
        }
        std::vector<float> out(std::size_t(shape[0]) * shape[1]);
        std::vector<double> best(all.size() * 2, 1e9);
        std::vector<Product::Operands> operands;
        for (const Kernels* kernels : all) {
            operands.push_back({products[1].packed_for(*kernels), {}, {}});
            products[1].quantize(*kernels, 0, shape[0], operands.back());
        }
        for (int round = 0; round < 60; ++round)
            for (std::size_t i = 0; i < best.size(); ++i) {
                if (round > 2 && all[i / 2] == &portable_kernels) continue;
                const KernelScope scope(*all[i / 2]);
                const auto start = std::chrono::steady_clock::now();
                for (int repeat = 0; repeat < 4; ++repeat)
                    products[i % 2].run(*all[i / 2], operands[i / 2], 0, shape[0], out);
                const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
                best[i] = std::min(best[i], elapsed.count() / 4);
            }
        std::printf("%-4d %-4d %-6d", shape[0], shape[1], shape[2]);
        for (const double seconds : best) std::printf(" %16.0f", 2e-9 * shape[0] * shape[1] * shape[2] / seconds);
        std::printf("\n");
    }
    std::printf("%-16s", "peak");
    for (const Kernels* kernels : all) {
        const KernelScope scope(*kernels);
        for (const PeakLoop loop : {kernels->peak_f32, kernels->peak_s8}) {
            double best = 0.0;
            for (int round = 0; round < 60; ++round) {
                const auto start = std::chrono::steady_clock::now();
                const auto operations = static_cast<double>(loop(2000));
                const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
                best = std::max(best, 1e-9 * operations / elapsed.count());
            }
            std::printf(" %16.0f", best);
        }
    }
    std::printf("\n");
}

}  // namespace

int main(int count, char** arguments) {
    const std::vector<const Kernels*> all = available_kernels();
    if (count > 1 && std::string(arguments[1]) == "speed") {
        speed(all);
        return 0;
    }
    const int cases = count > 1 ? std::atoi(arguments[1]) : 2000;
    const auto seed = static_cast<std::uint64_t>(count > 2 ? std::atoll(arguments[2]) : 0);
    for (const Kernels* kernels : all) {
        const KernelScope scope(*kernels);
        Check(*kernels, seed).run(cases);
    }
}
