#include "avx2.h"

constexpr pocketbert::Kernels pocketbert::avx2_kernels = Loops<Avx2>::table("avx2");
