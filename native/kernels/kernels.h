// The inner loops: one table of functions per instruction set.
//
// A weight matrix [N, K] is packed once: fp32 into panels of PANEL output channels, [panel][k][PANEL], of which the last
// is filled up with zeros; int8 in whatever layout a set of kernels reads fastest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pocketbert {

constexpr int PANEL = 64;
constexpr float TINY = 1e-35f;  // 127 / TINY is finite

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// gelu_to_int8 is GELU where only rounding to int8 follows, to 2e-4, and far better near 0.
enum class Activation { none, gelu, gelu_to_int8, gelu_tanh, relu, relu6, silu, tanh };

// Of gelu_to_int8: h + |h| a P(a²), h being x / 2 and a being |h| cut at 2, where a P(a²) = 1 makes it x or 0, and does
// so beyond: exactly, because products with 4 are exact. P has the least largest error that this form has.
constexpr float GELU_TO_INT8_TERMS[] = {3.700851812e-4f, -6.507835817e-3f, 4.891021922e-2f, -2.079200000e-1f,
                                        5.608762503e-1f, -1.032870650f,    1.591481686f};
constexpr float GELU_TO_INT8_LIMIT = 2.0f;

// How results follow from products: out = activation(product + bias) + residual * residual_scale.
struct Epilogue {
    const float* bias;  // [panels * PANEL], zeros beyond the width; of the tile's first row
    std::ptrdiff_t bias_stride;  // 0 where all rows have the same
    Activation activation;
    const float* residual;  // of the tile's first row and column, or null
    std::ptrdiff_t residual_stride;
    const float* residual_scale;  // [panels * PANEL], or null for ones
    // Or null: where results go instead of `out`, rounded to bfloat16, with the stride of `out`. Only of kernels with
    // attention in bfloat16, without an activation or a residual.
    std::uint16_t* bf16_out = nullptr;
};

// Attention of one head of one sequence, query, key, value and out [length, depth], the first three in bfloat16.
struct Bf16Attention {
    std::size_t (*scratch_bytes)(int length, int depth);
    // `scratch` starts on a cache line.
    void (*run)(const std::uint16_t* query, std::ptrdiff_t query_stride, const std::uint16_t* key,
                std::ptrdiff_t key_stride, const std::uint16_t* value, std::ptrdiff_t value_stride, int length,
                int depth, float* out, std::ptrdiff_t out_stride, void* scratch);
    void (*round)(const float* x, int k, std::uint16_t* out);  // to bfloat16: to nearest, ties to even
    float tolerance;  // largest difference from the same attention summed exactly, relative to the largest value
};

// Runs `rounds` rounds of multiply-adds in registers and returns how many operations they were, where a multiplication
// and an addition are two.
using PeakLoop = std::int64_t (*)(int rounds);

struct TrainingLoops;  // of training.h

// A set of kernels: functions for one instruction set, and what the engine, tests and benchmarks need to know of them.
// Nothing else depends on which set it is, so nobody compares names.
struct Kernels {
    const char* name;  // in POCKETBERT_KERNEL and in reports
    // out[m, n] = epilogue(sum_k x[m, k] * w[n, k]) for m rows and n columns; x and out have strides in floats.
    void (*linear_f32)(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                       const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride);
    // Weights in int8, packed for `linear_s8`, and how many bytes that makes: a multiple of a cache line.
    std::size_t (*packed_s8_bytes)(int n, int k);
    void (*pack_s8)(const std::int8_t* weight, int n, int k, std::uint8_t* packed);
    // The memory of so many rows that `quantize` writes one by one for `linear_s8`.
    std::size_t (*quantized_bytes)(int rows, int k);
    // Row `row` of q: round(x / scale), scale = max |x| / 127, sum = sum of the rounded row. A value that is not finite
    // makes the scale NaN, and with it every product; a largest value below TINY makes the whole row zero.
    void (*quantize)(const float* x, int k, int row, std::int8_t* q, float* scale, std::int32_t* sum);
    // The same as `linear_f32` of rows 0 to m - 1 of q; scales and sums [m].
    void (*linear_s8)(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m,
                      const std::uint8_t* packed, const float* weight_scales, int n, int k, const Epilogue& epilogue,
                      float* out, std::ptrdiff_t out_stride);
    // See row_ops.h.
    void (*add_s8)(const std::int8_t* x, float scale, int k, float* out);
    int (*find_outliers)(const float* x, int k, int max_count, std::int32_t* indices);
    void (*add_outliers)(const float* x, const std::int32_t* indices, int count, const float* packed, const float* bias,
                         int n, int k, float* out);
    void (*layer_norm)(const float* x, int k, const float* weight, const float* bias, float eps, float* out);
    // In place: x = exp(x - max) / sum.
    void (*softmax)(float* x, int k);

    const Bf16Attention* bf16_attention;  // or null: attention is computed in fp32
    const TrainingLoops* training;  // or null
    float tolerance;  // largest difference from the portable kernels in fp32, relative to the largest value
    const char* int8_dot;  // the instruction that multiplies bytes, for reports
    PeakLoop peak_f32, peak_bf16, peak_s8;  // null where no instruction multiplies such numbers
    int row_multiple;  // `linear_s8` is fastest with a multiple of so many rows; a divisor of `row_block`
    int row_block;  // the rows that go through several steps together: more read weights less often, and need more cache
    void (*enter_thread)();  // or null: called in every thread before each of its tasks; must be cheap
    void (*leave_thread)();  // or null: called after the task
    // Of a processor that has the instructions:
    bool (*is_preferred)();  // or null for yes: false keeps the set from being chosen where nobody names it
    // Or null. Asks the system, on the first call, for what the kernels need beside instructions; returns the reason why
    // they cannot run, in words for users, or null. Is called again after every run, whose results a reason forbids: it
    // must be cheap.
    const char* (*refusal)();
};

// In a thread that runs kernels, around each of its tasks.
class KernelScope {
public:
    explicit KernelScope(const Kernels& kernels) : kernels_(kernels) {
        if (kernels_.enter_thread) kernels_.enter_thread();
    }
    ~KernelScope() {
        if (kernels_.leave_thread) kernels_.leave_thread();
    }
    KernelScope(const KernelScope&) = delete;
    KernelScope& operator=(const KernelScope&) = delete;

private:
    const Kernels& kernels_;
};

struct CompiledKernels {
    const Kernels* kernels;
    bool (*has_instructions)();  // whether this processor does
};

// The sets that were compiled, the fastest first.
const std::vector<CompiledKernels>& compiled_kernels();

// Of these, what the processor can run, in the same order; behind them what it can run and is not preferred.
std::vector<const Kernels*> available_kernels(const std::vector<CompiledKernels>& compiled = compiled_kernels());

// The set of this name if the processor can run it, or null. No other set asks the system for anything.
const Kernels* find_kernels(const std::string& name, const std::vector<CompiledKernels>& compiled = compiled_kernels());

struct Refusal {
    const char *kernels, *reason;
};
// The sets that were refused though the processor has their instructions.
std::vector<Refusal> refused_kernels(const std::vector<CompiledKernels>& compiled = compiled_kernels());

// Every set that was compiled, NAME_kernels; CMakeLists.txt lists them.
#define KERNELS(name, is_supported) extern const Kernels name##_kernels;
#include "kernel_list.h"
#undef KERNELS

// Packing in fp32, as described above.
void pack_f32(const float* weight, std::ptrdiff_t stride_n, std::ptrdiff_t stride_k, int n, int k, float* packed);

// What most sets of kernels read: weights as [panel][k / 4][PANEL][4] with 128 added, since many processors multiply
// unsigned by signed bytes; rows filled up with zeros to a multiple of 4, one behind the other.
std::size_t panels_s8_bytes(int n, int k);
void pack_panels_s8(const std::int8_t* weight, int n, int k, std::uint8_t* packed);
std::size_t dense_rows_bytes(int rows, int k);
// For processors that multiply 16-bit numbers instead: signed weights as [panel][k / 2][PANEL][2], rows in 16 bits.
std::size_t pair_panels_s8_bytes(int n, int k);
void pack_pair_panels_s8(const std::int8_t* weight, int n, int k, std::uint8_t* packed);
std::size_t word_rows_bytes(int rows, int k);

}  // namespace pocketbert
