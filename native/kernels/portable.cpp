// Plain C++: what every processor runs, and what the other kernels are compared with.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels.h"
#include "row_ops.h"

namespace pocketbert {
namespace {

float gelu_to_int8(float x) {
    const float half = x * 0.5f, magnitude = std::fabs(half), a = std::min(magnitude, GELU_TO_INT8_LIMIT);
    float p = 0.0f;
    for (const float term : GELU_TO_INT8_TERMS) p = p * (a * a) + term;
    return half + magnitude * (a * p);
}

float activate(float x, Activation activation) {
    switch (activation) {
        case Activation::gelu_to_int8: return gelu_to_int8(x);
        case Activation::gelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
        case Activation::gelu_tanh: return 0.5f * x * (1.0f + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
        case Activation::relu: return std::max(x, 0.0f);
        case Activation::relu6: return std::min(std::max(x, 0.0f), 6.0f);
        case Activation::silu: return x / (1.0f + std::exp(-x));
        case Activation::tanh: return std::tanh(x);
        case Activation::none: break;
    }
    return x;
}

void apply_epilogue(const float* products, int row, int first, int columns, const Epilogue& e, float* out) {
    for (int j = 0; j < columns; ++j) {
        float y = activate(products[j] + e.bias[row * e.bias_stride + first + j], e.activation);
        if (e.residual) {
            const float r = e.residual[row * e.residual_stride + first + j];
            y += e.residual_scale ? r * e.residual_scale[first + j] : r;
        }
        out[j] = y;
    }
}

void linear_f32(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
    for (int first = 0; first < n; first += PANEL, packed += std::ptrdiff_t(k) * PANEL)
        for (int row = 0; row < m; ++row) {
            float sums[PANEL] = {};
            for (int i = 0; i < k; ++i)
                for (int j = 0; j < PANEL; ++j)
                    sums[j] += x[row * x_stride + i] * packed[std::ptrdiff_t(i) * PANEL + j];
            apply_epilogue(sums, row, first, std::min(PANEL, n - first), epilogue, out + row * out_stride + first);
        }
}

void linear_s8(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m, const std::uint8_t* packed,
               const float* weight_scales, int n, int k, const Epilogue& epilogue, float* out,
               std::ptrdiff_t out_stride) {
    const int padded = round_up(k, 4);
    for (int first = 0; first < n; first += PANEL, packed += std::ptrdiff_t(padded) * PANEL)
        for (int row = 0; row < m; ++row) {
            std::int32_t dots[PANEL] = {};
            for (int i = 0; i < padded; i += 4) {  // four products in one term: so the compiler makes vectors of it
                const std::int8_t* x = q + std::ptrdiff_t(row) * padded + i;
                const std::uint8_t* w = packed + std::ptrdiff_t(i) * PANEL;
                for (int j = 0; j < PANEL; ++j)
                    dots[j] += x[0] * w[4 * j] + x[1] * w[4 * j + 1] + x[2] * w[4 * j + 2] + x[3] * w[4 * j + 3];
            }
            float products[PANEL];
            for (int j = 0; j < PANEL; ++j)
                products[j] = static_cast<float>(dots[j] - 128 * sums[row]) * (scales[row] * weight_scales[first + j]);
            apply_epilogue(products, row, first, std::min(PANEL, n - first), epilogue, out + row * out_stride + first);
        }
}

void quantize(const float* x, int k, int row, std::int8_t* q, float* scale, std::int32_t* sum) {
    q += dense_rows_bytes(row, k);
    float largest = 0.0f;
    bool finite = true;
    for (int i = 0; i < k; ++i) {
        largest = std::max(largest, std::fabs(x[i]));
        finite = finite && std::isfinite(x[i]);
    }
    const float inverse = largest > TINY ? 127.0f / largest : 0.0f;
    *scale = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
    *sum = 0;
    for (int i = 0; i < round_up(k, 4); ++i) {
        q[i] = finite && i < k ? static_cast<std::int8_t>(std::nearbyint(x[i] * inverse)) : std::int8_t(0);
        *sum += q[i];
    }
}

void layer_norm(const float* x, int k, const float* weight, const float* bias, float eps, float* out) {
    float sum = 0.0f, squares = 0.0f;
    for (int i = 0; i < k; ++i) sum += x[i];
    const float mean = sum / static_cast<float>(k);
    for (int i = 0; i < k; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(k) + eps);
    for (int i = 0; i < k; ++i) out[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

void softmax(float* x, int k) {
    const float largest = *std::max_element(x, x + k);
    float sum = 0.0f;
    for (int i = 0; i < k; ++i) sum += x[i] = std::exp(x[i] - largest);
    for (int i = 0; i < k; ++i) x[i] /= sum;
}

// Sums that depend on their last value cannot be folded, so floats need no memory; bytes come from short arrays, one of
// which changes.
std::int64_t peak_f32(int rounds) {
    constexpr int SUMS = 64;
    volatile float unknown = 0.5f;
    const float a = unknown;
    float sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = static_cast<float>(i);
    for (int round = 0; round < rounds; ++round)
        for (int i = 0; i < SUMS; ++i) sums[i] = sums[i] * a + a;
    for (const float sum : sums) unknown = sum;
    return std::int64_t(2) * SUMS * rounds;
}

std::int64_t peak_s8(int rounds) {
    constexpr int BYTES = 1024;
    std::int8_t a[BYTES], b[BYTES];
    for (int i = 0; i < BYTES; ++i) a[i] = b[i] = static_cast<std::int8_t>(i);
    [[maybe_unused]] volatile std::int32_t last = 0;
    for (int round = 0; round < rounds; ++round) {
        std::int32_t sum = 0;
        for (int i = 0; i < BYTES; ++i) sum += std::int32_t(a[i]) * std::int32_t(b[i]);
        a[round % BYTES] = static_cast<std::int8_t>(sum);
        last = sum;
    }
    return std::int64_t(2) * BYTES * rounds;
}

constexpr Kernels table() {
    Kernels kernels{};
    kernels.name = "portable";
    kernels.linear_f32 = linear_f32;
    kernels.packed_s8_bytes = panels_s8_bytes;
    kernels.pack_s8 = pack_panels_s8;
    kernels.quantized_bytes = dense_rows_bytes;
    kernels.linear_s8 = linear_s8;
    kernels.quantize = quantize;
    kernels.add_s8 = add_s8;
    kernels.find_outliers = find_outliers;
    kernels.add_outliers = add_outliers;
    kernels.layer_norm = layer_norm;
    kernels.softmax = softmax;
    kernels.tolerance = 1e-5f;  // from NumPy
    kernels.int8_dot = "plain C++";
    kernels.peak_f32 = peak_f32;
    kernels.peak_s8 = peak_s8;
    kernels.row_multiple = 1;
    kernels.row_block = 96;
    return kernels;
}

}  // namespace

constexpr Kernels portable_kernels = table();

}  // namespace pocketbert
