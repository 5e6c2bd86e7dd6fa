#include "wasm.h"

constexpr pocketbert::Kernels pocketbert::wasm_kernels = wasm_table("wasm");
