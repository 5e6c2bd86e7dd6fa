// Relaxed SIMD of WebAssembly: one instruction that multiplies and adds floats, and one for bytes. Of the latter, engines
// differ where the second factor has more than 7 bits: on some it is unsigned, on others signed, and on a third kind two
// products are added in 16 bits, and saturate. Weights are stored for one of the first two; the third computes the product
// of 16-bit numbers faster, and is refused. Which it is, a product with known sums tells: at first, and after every run,
// because an engine may compile the kernels again at any time, and one of its compilers may be wrong.
#include "wasm.h"

namespace pocketbert {
namespace {

// Was added to the weights: 128 where the instruction takes them for unsigned numbers, 0 where it takes them for signed.
std::int32_t offset = 128;

struct WasmRelaxed : Wasm {
    static constexpr int STEP = 4;

    static constexpr const char* INT8_DOT = "i32x4.relaxed_dot_i8x16_i7x16_add_s";
    static INLINE Ints store_rounded(std::int8_t* q, Floats x, int) {  // four of them are always left
        const Ints n = rounded(x);
        const v128_t words = wasm_i16x8_narrow_i32x4(n, n);
        wasm_v128_store32_lane(q, wasm_i8x16_narrow_i16x8(words, words), 0);
        return n;
    }
    static INLINE Ints first_sums(std::int32_t sum_of_q) { return set_ints(-offset * sum_of_q); }
    static INLINE Weights load_weights(const std::uint8_t* packed) { return wasm_v128_load(packed); }
    static INLINE void dot(Ints& sums, Weights w, Bytes4 q) {
        sums = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(q, w, sums);
    }
    static INLINE void peak_dot(Ints& sums, Weights w, Bytes4) { dot(sums, w, sums); }
};

void pack(const std::int8_t* weight, int n, int k, std::uint8_t* packed) {
    pack_panels_s8(weight, n, k, packed);
    if (offset) return;
    for (std::size_t i = 0; i < panels_s8_bytes(n, k); ++i) packed[i] ^= 128;
}

// Whether the kernels themselves, with each number of rows that a tile has, find the sums of products that would saturate
// 16 bits, or come out otherwise where a byte is taken for signed or for unsigned.
bool sums_are_right() {
    constexpr int N = Wasm::STRIP, K = 16, ROWS = Wasm::ROWS_S8;
    std::int8_t q[ROWS][K], weight[N][K];
    for (int row = 0; row < ROWS; ++row)
        for (int i = 0; i < K; ++i)
            q[row][i] = static_cast<std::int8_t>(i < 8 ? 127 - row : (row * 61 + i * 37) % 255 - 127);
    for (int column = 0; column < N; ++column)
        for (int i = 0; i < K; ++i)
            weight[column][i] = static_cast<std::int8_t>(i < 4   ? 127
                                                         : i < 8 ? -127
                                                                 : (column * 89 + i * 53) % 255 - 127);
    alignas(64) std::uint8_t packed[K * PANEL];
    pack(weight[0], N, K, packed);
    std::int32_t sums[ROWS] = {};
    for (int row = 0; row < ROWS; ++row)
        for (const std::int8_t each : q[row]) sums[row] += each;
    float ones[PANEL], zeros[PANEL] = {}, out[ROWS][N];
    for (float& one : ones) one = 1.0f;
    const Epilogue epilogue{zeros, 0, Activation::none, nullptr, 0, nullptr};
    for (int rows = 1; rows <= ROWS; ++rows) {
        Loops<WasmRelaxed>::linear_s8(q[0], ones, sums, rows, packed, ones, N, K, epilogue, out[0], N);
        for (int row = 0; row < rows; ++row)
            for (int column = 0; column < N; ++column) {
                std::int32_t sum = 0;
                for (int i = 0; i < K; ++i) sum += q[row][i] * weight[column][i];
                if (out[row][column] != static_cast<float>(sum)) return false;
            }
    }
    return true;
}

const char* refusal() {
    static bool is_chosen = false;
    if (!is_chosen && !sums_are_right()) offset = 0;
    is_chosen = true;
    return sums_are_right() ? nullptr : "the engine multiplies bytes in a way that these kernels cannot use";
}

constexpr Kernels table() {
    Kernels kernels = Loops<WasmRelaxed>::table("wasmrelaxed");
    kernels.pack_s8 = pack;
    kernels.refusal = refusal;
    return kernels;
}

}  // namespace

constexpr Kernels wasmrelaxed_kernels = table();

}  // namespace pocketbert
