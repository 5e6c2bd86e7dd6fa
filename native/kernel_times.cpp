#include "kernel_times.h"

#include <algorithm>
#include <array>
#include <chrono>

namespace pocketbert {
namespace {

using Clock = std::chrono::steady_clock;

enum Part { linear_f32, linear_s8, rounding, outliers, layer_norm, softmax, attention, lookup, PARTS };
constexpr std::array<const char*, PARTS> NAMES = {"linear_f32", "linear_s8", "quantize",       "outliers",
                                                  "layer_norm", "softmax",   "bf16_attention", "lookup"};

const Kernels* inner;
Kernels outer;
Bf16Attention outer_attention;
std::array<double, PARTS> seconds;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What an empty measurement shows, which every other contains as well.
double least_measurement() {
    static const double least = [] {
        double least = 1;
        for (int i = 0; i < 1000; ++i) least = std::min(least, since(Clock::now()));
        return least;
    }();
    return least;
}

template <class Call>
auto measured(Part part, Call call) {
    struct Watch {
        Part part;
        Clock::time_point start = Clock::now();
        ~Watch() { seconds[part] += since(start) - least_measurement(); }
    } const watch{part};
    return call();
}

void timed_linear_f32(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                      const Epilogue& after, float* out, std::ptrdiff_t out_stride) {
    measured(linear_f32, [&] { inner->linear_f32(x, x_stride, m, packed, n, k, after, out, out_stride); });
}

void timed_quantize(const float* x, int k, int row, std::int8_t* q, float* scale, std::int32_t* sum) {
    measured(rounding, [&] { inner->quantize(x, k, row, q, scale, sum); });
}

void timed_linear_s8(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m,
                     const std::uint8_t* packed, const float* weight_scales, int n, int k, const Epilogue& after,
                     float* out, std::ptrdiff_t out_stride) {
    measured(linear_s8,
             [&] { inner->linear_s8(q, scales, sums, m, packed, weight_scales, n, k, after, out, out_stride); });
}

void timed_add_s8(const std::int8_t* x, float scale, int k, float* out) {
    measured(lookup, [&] { inner->add_s8(x, scale, k, out); });
}

int timed_find_outliers(const float* x, int k, int max_count, std::int32_t* indices) {
    return measured(outliers, [&] { return inner->find_outliers(x, k, max_count, indices); });
}

void timed_add_outliers(const float* x, const std::int32_t* indices, int count, const float* packed, const float* bias,
                        int n, int k, float* out) {
    measured(outliers, [&] { inner->add_outliers(x, indices, count, packed, bias, n, k, out); });
}

void timed_layer_norm(const float* x, int k, const float* weight, const float* bias, float eps, float* out) {
    measured(layer_norm, [&] { inner->layer_norm(x, k, weight, bias, eps, out); });
}

void timed_softmax(float* x, int k) {
    measured(softmax, [&] { inner->softmax(x, k); });
}

void timed_attention(const std::uint16_t* query, std::ptrdiff_t query_stride, const std::uint16_t* key,
                     std::ptrdiff_t key_stride, const std::uint16_t* value, std::ptrdiff_t value_stride, int length,
                     int depth, float* out, std::ptrdiff_t out_stride, void* scratch) {
    measured(attention, [&] {
        inner->bf16_attention->run(query, query_stride, key, key_stride, value, value_stride, length, depth, out,
                                   out_stride, scratch);
    });
}

}  // namespace

const Kernels& timed(const Kernels& kernels) {
    inner = &kernels;
    outer = kernels;
    outer.linear_f32 = timed_linear_f32;
    outer.quantize = timed_quantize;
    outer.linear_s8 = timed_linear_s8;
    outer.add_s8 = timed_add_s8;
    outer.find_outliers = timed_find_outliers;
    outer.add_outliers = timed_add_outliers;
    outer.layer_norm = timed_layer_norm;
    outer.softmax = timed_softmax;
    if (kernels.bf16_attention) {
        outer_attention = *kernels.bf16_attention;
        outer_attention.run = timed_attention;
        outer.bf16_attention = &outer_attention;
    }
    least_measurement();
    seconds.fill(0);
    return outer;
}

std::vector<std::pair<const char*, double>> take_kernel_times() {
    std::vector<std::pair<const char*, double>> times;
    for (std::size_t part = 0; part < PARTS; ++part) times.emplace_back(NAMES[part], seconds[part]);
    seconds.fill(0);
    return times;
}

}  // namespace pocketbert
