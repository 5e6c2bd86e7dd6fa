// Twelve independent sums hide the latency of the instruction; in assembly, so that no compiler moves them to memory.
#include "limit.h"

#ifdef POCKETBERT_X86

#define TWICE(line) line line
#define TWELVE(register_, instruction) \
    instruction(register_, 0) instruction(register_, 1) instruction(register_, 2) instruction(register_, 3) \
    instruction(register_, 4) instruction(register_, 5) instruction(register_, 6) instruction(register_, 7) \
    instruction(register_, 8) instruction(register_, 9) instruction(register_, 10) instruction(register_, 11)

// Two steps of every sum a round. Factors are zeros: the time of an instruction does not depend on them.
#define LOOP(zero, body, rounds)                                                                                  \
    __asm__ volatile(zero "1:\n\t" TWICE(body) "dec %0\n\tjnz 1b\n\tvzeroupper\n\t"                                \
                     : "+r"(rounds)                                                                                \
                     :                                                                                             \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",      \
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

#define ZERO(register_, i) "vxorps %%" register_ #i ", %%" register_ #i ", %%" register_ #i "\n\t"
#define ZERO_ALL(register_) \
    TWELVE(register_, ZERO) ZERO(register_, 12) ZERO(register_, 13) ZERO(register_, 14) ZERO(register_, 15)
#define FMA(register_, i) "vfmadd231ps %%" register_ "12, %%" register_ "13, %%" register_ #i "\n\t"
#define DOT_BF16(register_, i) "vdpbf16ps %%" register_ "12, %%" register_ "13, %%" register_ #i "\n\t"
#define DOT_S8(register_, i) "vpdpbusd %%" register_ "12, %%" register_ "13, %%" register_ #i "\n\t"
#define DOT_S8_VEX(register_, i) "%{vex%} " DOT_S8(register_, i)
// Before VNNI: pairs of products in 16 bits, pairs of those in 32, and the addition.
#define PAIRS_S8(register_, i)                                                                  \
    "vpmaddubsw %%" register_ "12, %%" register_ "13, %%" register_ "14\n\t"                     \
    "vpmaddwd %%" register_ "12, %%" register_ "14, %%" register_ "15\n\t"                       \
    "vpaddd %%" register_ "15, %%" register_ #i ", %%" register_ #i "\n\t"

namespace pocketbert {
namespace {

constexpr std::int64_t INSTRUCTIONS = 2 * 12;  // a round

}  // namespace

// An instruction does a multiplication and an addition for each of its factors.

std::int64_t avx512_f32(int rounds) {
    const std::int64_t operations = 2 * 16 * INSTRUCTIONS * rounds;
    LOOP(ZERO_ALL("ymm"), TWELVE("zmm", FMA), rounds);
    return operations;
}

std::int64_t avx512_bf16(int rounds) {
    const std::int64_t operations = 2 * 32 * INSTRUCTIONS * rounds;
    LOOP(ZERO_ALL("ymm"), TWELVE("zmm", DOT_BF16), rounds);
    return operations;
}

std::int64_t avx512_s8(int rounds) {
    const std::int64_t operations = 2 * 64 * INSTRUCTIONS * rounds;
    LOOP(ZERO_ALL("ymm"), TWELVE("zmm", DOT_S8), rounds);
    return operations;
}

#ifdef POCKETBERT_AVXVNNI
std::int64_t avxvnni_s8(int rounds) {
    const std::int64_t operations = 2 * 32 * INSTRUCTIONS * rounds;
    LOOP(ZERO_ALL("ymm"), TWELVE("ymm", DOT_S8_VEX), rounds);
    return operations;
}
#endif

std::int64_t avx2_f32(int rounds) {
    const std::int64_t operations = 2 * 8 * INSTRUCTIONS * rounds;
    LOOP(ZERO_ALL("ymm"), TWELVE("ymm", FMA), rounds);
    return operations;
}

std::int64_t avx2_s8(int rounds) {
    const std::int64_t operations = 2 * 32 * INSTRUCTIONS * rounds;
    LOOP(ZERO_ALL("ymm"), TWELVE("ymm", PAIRS_S8), rounds);
    return operations;
}

}  // namespace pocketbert

#endif
