// Compares all kernels that this processor has with the portable ones, on random shapes and values: kernels [CASES
// [SEED]]. Whole numbers must be the same, and so must a row's bits in every batch; nothing may be written beside a
// result. `kernels speed` prints how fast the products are on one core, the sets of kernels alternating.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "../kernels/illegal_instructions.h"
#include "random_product.h"

using namespace pocketbert;

namespace {

constexpr float GUARD = 12345.678f;
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
            require(same_bits(plain.result(kernels_, 200, before), plain.result(portable_kernels, 200, before)),
                    "the sums of an int8 product are wrong");
        }
        const std::vector<float> result = p.result(kernels_, 200, before);
        const std::vector<float> expected = p.result(portable_kernels, 200, before);
        within(distance(result, expected), kernels_.tolerance, p.int8 ? s8_ : f32_, "a product is off");
        require(!p.int8 || !p.has_exact_epilogue() || distance(result, expected) == 0.0f,
                "an int8 product has other bits than the portable one");
        for (std::size_t i = 0; i < result.size(); ++i)
            require(static_cast<std::ptrdiff_t>(i) % p.out_stride < p.n || result[i] == GUARD,
                    "a product writes beside its columns");
        require(same_bits(result, p.result(kernels_, 1, before)) &&
                    same_bits(result, p.result(kernels_, random_.between(2, 40), before)),
                "a row's bits depend on the batch");
        if (kernels_.bf16_attention) rounded_product(std::move(p), before);
    }

    void rounded_product(Product p, const std::vector<float>& before) {
        constexpr std::uint16_t UNTOUCHED = 0x1234;
        p.residual.clear(), p.residual_scale.clear(), p.activation = Activation::none, p.in_place = false;
        std::vector<float> result = p.result(kernels_, 200, before);
        std::vector<std::uint16_t> expected(result.size()), found(result.size(), UNTOUCHED);
        kernels_.bf16_attention->round(result.data(), static_cast<int>(result.size()), expected.data());
        for (std::size_t i = 0; i < result.size(); ++i)
            if (static_cast<std::ptrdiff_t>(i) % p.out_stride >= p.n) expected[i] = UNTOUCHED;
        Product::Operands operands{p.packed_for(kernels_), {}, {}};
        if (p.int8) p.quantize(kernels_, 0, p.m, operands);
        p.run(kernels_, operands, 0, p.m, result, found.data());
        require(found == expected, "a product in bfloat16 is not the rounded product");
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
        const auto rounded = [&](const std::vector<float>& x) {
            std::vector<std::uint16_t> halves(x.size());
            attention.round(x.data(), static_cast<int>(x.size()), halves.data());
            for (std::size_t i = 0; i < x.size(); ++i) {
                const float expected = to_bf16(x[i]);
                std::uint32_t bits;
                std::memcpy(&bits, &expected, sizeof bits);
                require(halves[i] == bits >> 16, "a number is rounded to bfloat16 another way");
            }
            return halves;
        };
        const std::vector<std::uint16_t> q = rounded(query), k = rounded(key), v = rounded(value);
        attention.run(q.data(), stride, k.data(), stride, v.data(), stride, length, depth, out.data(), stride, scratch);
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

#if (defined(__linux__) || defined(_WIN32)) && defined(__x86_64__)
void check_illegal_instructions() {
    static volatile int runs;
    runs = 0;
    const bool sound = runs_legally([] { runs = runs + 1; }) && !runs_legally([] {
                           runs = runs + 1;
                           __builtin_trap();
                       }) &&
                       runs_legally([] { runs = runs + 1; });
    if (sound && runs == 3) return;
    std::fprintf(stderr, "an illegal instruction is not noticed\n");
    std::exit(1);
}
#else
void check_illegal_instructions() {}
#endif

}  // namespace

int main(int count, char** arguments) {
    const std::vector<const Kernels*> all = available_kernels();
    if (count > 1 && std::string(arguments[1]) == "speed") {
        speed(all);
        return 0;
    }
    check_illegal_instructions();
    const int cases = count > 1 ? std::atoi(arguments[1]) : 2000;
    const auto seed = static_cast<std::uint64_t>(count > 2 ? std::atoll(arguments[2]) : 0);
    for (const Kernels* kernels : all) {
        const KernelScope scope(*kernels);
        Check(*kernels, seed).run(cases);
    }
}
