// AVX2 once more, for processors that have the dot product of bytes as one instruction but no AVX-512.
#include "kernels_avx2.cpp"
