// As limit_x86.cpp, for NEON with the dot product (ARMv8.2).
#include "limit.h"

#ifdef POCKETBERT_NEON

#define TWELVE(instruction)                                                                            \
    instruction(0) instruction(1) instruction(2) instruction(3) instruction(4) instruction(5)          \
    instruction(6) instruction(7) instruction(16) instruction(17) instruction(18) instruction(19)

#define LOOP(body, rounds)                                                                               \
    __asm__ volatile(".arch armv8.2-a+dotprod\n\t" TWELVE(ZERO) "movi v20.4s, #0\n\tmovi v21.4s, #0\n\t"  \
                     "1:\n\t" body body "subs %w0, %w0, #1\n\tb.ne 1b\n\t"                               \
                     : "+r"(rounds)                                                                      \
                     :                                                                                   \
                     : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19",  \
                       "v20", "v21")

#define ZERO(i) "movi v" #i ".4s, #0\n\t"
#define FMA(i) "fmla v" #i ".4s, v20.4s, v21.4s\n\t"
#define DOT_S8(i) "sdot v" #i ".4s, v20.16b, v21.16b\n\t"

namespace pocketbert {

std::int64_t neon_f32(int rounds) {
    const std::int64_t operations = std::int64_t(2) * 4 * 2 * 12 * rounds;
    LOOP(TWELVE(FMA), rounds);
    return operations;
}

std::int64_t neon_s8(int rounds) {
    const std::int64_t operations = std::int64_t(2) * 16 * 2 * 12 * rounds;
    LOOP(TWELVE(DOT_S8), rounds);
    return operations;
}

}  // namespace pocketbert

#endif
