// The inner loops, behind one table of functions an instruction set.
//
// A weight matrix [N, K] is packed once into panels of PANEL output channels: fp32 as [panel][k][PANEL], int8 as
// [panel][k / 4][PANEL][4] with 128 added, since the processor multiplies unsigned by signed bytes. The last panel is
// filled up with zeros.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketbert {

constexpr int PANEL = 64;
constexpr float TINY = 1e-35f;  // 127 / TINY is finite

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

enum class Activation { none, gelu, gelu_tanh, relu, relu6, silu, tanh };

// What happens to a tile of products on its way out: out = activation(product + bias) + residual * residual_scale.
struct Epilogue {
    const float* bias;            // [panels * PANEL], zeros beyond the width
    Activation activation;
    const float* residual;        // of the tile's first row and column, or null
    std::ptrdiff_t residual_stride;
    const float* residual_scale;  // [panels * PANEL], or null for ones
};

struct Kernels {
    const char* name;
    // out[m, n] = epilogue(sum_k x[m, k] * w[n, k]) for m rows and n columns; x and out have strides in floats.
    void (*linear_f32)(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                       const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride);
    // The same from rows quantised by `quantize`: q [m, round_up(k, 4)], scales and sums [m].
    void (*linear_s8)(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m,
                      const std::uint8_t* packed, const float* weight_scales, int n, int k, const Epilogue& epilogue,
                      float* out, std::ptrdiff_t out_stride);
    // q = round(x / scale), scale = max |x| / 127, sum = sum of q; q is filled up with zeros to a multiple of 4. What
    // is not finite makes the scale NaN, and with it every product; what is below TINY is zero.
    void (*quantize)(const float* x, int k, std::int8_t* q, float* scale, std::int32_t* sum);
    void (*layer_norm)(const float* x, int k, const float* weight, const float* bias, float eps, float* out);
    // In place: x = exp(x - max) / sum.
    void (*softmax)(float* x, int k);
};

// `name` as "avx512vnni" or "portable", or null for the best that this processor has; null if there is none such.
const Kernels* find_kernels(const char* name);
extern const Kernels portable_kernels;
#ifdef POCKETBERT_AVX512
extern const Kernels avx512vnni_kernels;
#endif

void pack_f32(const float* weight, std::ptrdiff_t stride_n, std::ptrdiff_t stride_k, int n, int k, float* packed);
void pack_s8(const std::int8_t* weight, int n, int k, std::uint8_t* packed);

}  // namespace pocketbert
