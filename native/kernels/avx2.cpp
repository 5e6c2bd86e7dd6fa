#include "avx2.h"

namespace pocketbert {
namespace {

constexpr Kernels table() {
    Kernels kernels = Loops<Avx2>::table("avx2");
    using Int8 = Loops<Avx2Pairs>;
    kernels.packed_s8_bytes = pair_panels_s8_bytes;
    kernels.pack_s8 = pack_pair_panels_s8;
    kernels.quantized_bytes = word_rows_bytes;
    kernels.quantize = Int8::quantize;
    kernels.linear_s8 = Int8::linear_s8;
    kernels.int8_dot = Avx2Pairs::INT8_DOT;
    return kernels;
}

}  // namespace

constexpr Kernels avx2_kernels = table();

}  // namespace pocketbert
