// AVX2 once more, for processors that have the dot product of bytes as one instruction but no AVX-512.
#include "avx2.h"

constexpr pocketbert::Kernels pocketbert::avxvnni_kernels = Loops<Avx2>::table("avxvnni");
