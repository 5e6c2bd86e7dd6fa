#include "avx512.h"

constexpr pocketbert::Kernels pocketbert::avx512vnni_kernels = Loops<Avx512>::table("avx512vnni");
