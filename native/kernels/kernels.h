// The inner loops: one table of functions per instruction set.
//
// A weight matrix [N, K] is packed once into panels of PANEL output channels: fp32 as [panel][k][PANEL], int8 as
// [panel][k / 4][PANEL][4] with 128 added, since the processor multiplies unsigned by signed bytes. The last panel is
// filled up with zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pocketbert {

constexpr int PANEL = 64;
constexpr float TINY = 1e-35f;  // 127 / TINY is finite

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

enum class Activation { none, gelu, gelu_tanh, relu, relu6, silu, tanh };

// How results follow from products: out = activation(product + bias) + residual * residual_scale.
struct Epilogue {
    const float* bias;            // [panels * PANEL], zeros beyond the width; of the tile's first row
    std::ptrdiff_t bias_stride;   // 0 where all rows have the same
    Activation activation;
    const float* residual;        // of the tile's first row and column, or null
    std::ptrdiff_t residual_stride;
    const float* residual_scale;  // [panels * PANEL], or null for ones
};

// Attention of one head of one sequence, query, key, value and out [length, depth], all rounded to bfloat16 on the way in.
struct Bf16Attention {
    std::size_t (*scratch_bytes)(int length, int depth);
    // `scratch` starts on a cache line.
    void (*run)(const float* query, std::ptrdiff_t query_stride, const float* key, std::ptrdiff_t key_stride,
                const float* value, std::ptrdiff_t value_stride, int length, int depth, float* out,
                std::ptrdiff_t out_stride, void* scratch);
    float tolerance;  // largest difference from the same attention summed exactly, relative to the largest value
};

// Runs `rounds` rounds of multiply-adds in registers and returns how many operations they were, where a multiplication
// and an addition are two.
using PeakLoop = std::int64_t (*)(int rounds);

// A set of kernels: functions for one instruction set, and what the engine, tests and benchmarks need to know of them.
// Nothing else depends on which set it is, so nobody compares names.
struct Kernels {
    const char* name;  // in POCKETBERT_KERNEL and in reports
    // out[m, n] = epilogue(sum_k x[m, k] * w[n, k]) for m rows and n columns; x and out have strides in floats.
    void (*linear_f32)(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                       const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride);
    // The same from rows quantised by `quantize`: q [m, round_up(k, 4)], scales and sums [m].
    void (*linear_s8)(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m,
                      const std::uint8_t* packed, const float* weight_scales, int n, int k, const Epilogue& epilogue,
                      float* out, std::ptrdiff_t out_stride);
    // q = round(x / scale), scale = max |x| / 127, sum = sum of q; q is filled up with zeros to a multiple of 4. A value
    // that is not finite makes the scale NaN, and with it every product; a largest value below TINY makes all q zero.
    void (*quantize)(const float* x, int k, std::int8_t* q, float* scale, std::int32_t* sum);
    // See row_ops.h.
    void (*add_s8)(const std::int8_t* x, float scale, int k, float* out);
    int (*find_outliers)(const float* x, int k, int max_count, std::int32_t* indices);
    void (*add_outliers)(const float* x, const std::int32_t* indices, int count, const float* packed, const float* bias,
                         int n, int k, float* out);
    void (*layer_norm)(const float* x, int k, const float* weight, const float* bias, float eps, float* out);
    // In place: x = exp(x - max) / sum.
    void (*softmax)(float* x, int k);

    const Bf16Attention* bf16_attention;  // or null: attention is computed in fp32
    float tolerance;  // largest difference from the portable kernels in fp32, relative to the largest value
    const char* int8_dot;  // the instruction that multiplies bytes, for reports
    PeakLoop peak_f32, peak_bf16, peak_s8;  // null where no instruction multiplies such numbers
    void (*enter_thread)();  // or null: called in every thread before its tasks, as often as these come; must be cheap
};

// The sets that this processor can run, the fastest first, and the portable one last.
std::vector<const Kernels*> available_kernels();

// Every set that was compiled, NAME_kernels; CMakeLists.txt lists them.
#define KERNELS(name, is_supported) extern const Kernels name##_kernels;
#include "kernel_list.h"
#undef KERNELS

// Packing, as described above.
void pack_f32(const float* weight, std::ptrdiff_t stride_n, std::ptrdiff_t stride_k, int n, int k, float* packed);
void pack_s8(const std::int8_t* weight, int n, int k, std::uint8_t* packed);

}  // namespace pocketbert
