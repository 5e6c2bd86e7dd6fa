// Which sets of kernels this processor can run.
#include "kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(_WIN32)
#include <windows.h>
#endif

namespace pocketbert {
namespace {

// The instruction sets that CMakeLists.txt names, asked of the processor itself: not every compiler's __builtin_cpu_supports
// knows all of them, and that of zig denies all of them without a word.

#if defined(__x86_64__) || defined(__i386__)
struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers r;
    if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
    return r;
}

constexpr unsigned AVX_REGISTERS = 0x06, AVX512_REGISTERS = 0xE6;

// Whether the system saves these registers when it changes threads.
bool saves(unsigned registers) {
    constexpr unsigned XGETBV = 1u << 27;
    if (!(cpuid(1, 0).ecx & XGETBV)) return false;
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
#ifdef __APPLE__
    registers &= AVX_REGISTERS;  // the others from their first use on
#endif
    return (low & registers) == registers;
}

bool has_avx_and(unsigned bits, unsigned bit) { return saves(AVX_REGISTERS) && (bits & 1u << bit); }
bool has_avx512_and(unsigned bits, unsigned bit) { return saves(AVX512_REGISTERS) && (bits & 1u << bit); }

[[maybe_unused]] bool has_fma() { return has_avx_and(cpuid(1, 0).ecx, 12); }
[[maybe_unused]] bool has_avx2() { return has_avx_and(cpuid(7, 0).ebx, 5); }
[[maybe_unused]] bool has_avxvnni() { return has_avx_and(cpuid(7, 1).eax, 4); }
[[maybe_unused]] bool has_avx512f() { return has_avx512_and(cpuid(7, 0).ebx, 16); }
[[maybe_unused]] bool has_avx512dq() { return has_avx512_and(cpuid(7, 0).ebx, 17); }
[[maybe_unused]] bool has_avx512bw() { return has_avx512_and(cpuid(7, 0).ebx, 30); }
[[maybe_unused]] bool has_avx512vl() { return has_avx512_and(cpuid(7, 0).ebx, 31); }
[[maybe_unused]] bool has_avx512vnni() { return has_avx512_and(cpuid(7, 0).ecx, 11); }
[[maybe_unused]] bool has_avx512bf16() { return has_avx512_and(cpuid(7, 1).eax, 5); }

[[maybe_unused]] bool has_amx() {  // tiles, their products of bytes and of bfloat16
    constexpr unsigned ALL = 1u << 24 | 1u << 25 | 1u << 22;
    return (cpuid(7, 0).edx & ALL) == ALL;
}
#elif defined(__aarch64__)
// By number: headers of older systems do not name all of them.
#if defined(__linux__)
[[maybe_unused]] bool has_dotprod() { return getauxval(AT_HWCAP) & 1ul << 20; }
[[maybe_unused]] bool has_i8mm() { return getauxval(AT_HWCAP2) & 1ul << 13; }
[[maybe_unused]] bool has_bf16() { return getauxval(AT_HWCAP2) & 1ul << 14; }
#elif defined(_WIN32)
[[maybe_unused]] bool has_dotprod() { return IsProcessorFeaturePresent(43); }
[[maybe_unused]] bool has_i8mm() { return IsProcessorFeaturePresent(66); }
[[maybe_unused]] bool has_bf16() { return IsProcessorFeaturePresent(68); }
#elif defined(__APPLE__)
bool has_feature(const char* name) {
    int value = 0;
    std::size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
[[maybe_unused]] bool has_dotprod() { return true; }  // of every Mac; older systems do not tell
[[maybe_unused]] bool has_i8mm() { return has_feature("hw.optional.arm.FEAT_I8MM"); }
[[maybe_unused]] bool has_bf16() { return has_feature("hw.optional.arm.FEAT_BF16"); }
#else
[[maybe_unused]] bool has_dotprod() { return false; }
[[maybe_unused]] bool has_i8mm() { return false; }
[[maybe_unused]] bool has_bf16() { return false; }
#endif
#elif defined(__wasm__)
// Other engines refuse the whole module.
[[maybe_unused]] bool has_simd128() { return true; }
[[maybe_unused]] bool has_relaxed() { return true; }
#endif

const char* refusal_of(const CompiledKernels& each) {
    return each.kernels->refusal ? each.kernels->refusal() : nullptr;
}

bool can_run(const CompiledKernels& each) { return each.has_instructions() && !refusal_of(each); }

}  // namespace

const std::vector<CompiledKernels>& compiled_kernels() {
    // Never destroyed: threads may look for kernels while the process ends.
    static const auto& compiled = *new std::vector<CompiledKernels>{
#define KERNELS(name, is_supported) {&name##_kernels, [] { return is_supported; }},
#include "kernel_list.h"
#undef KERNELS
    };
    return compiled;
}

std::vector<const Kernels*> available_kernels(const std::vector<CompiledKernels>& compiled) {
    std::vector<const Kernels*> available, others;
    for (const CompiledKernels& each : compiled) {
        if (!can_run(each)) continue;
        const bool preferred = !each.kernels->is_preferred || each.kernels->is_preferred();
        (preferred ? available : others).push_back(each.kernels);
    }
    available.insert(available.end(), others.begin(), others.end());
    return available;
}

const Kernels* find_kernels(const std::string& name, const std::vector<CompiledKernels>& compiled) {
    for (const CompiledKernels& each : compiled)
        if (name == each.kernels->name) return can_run(each) ? each.kernels : nullptr;
    return nullptr;
}

std::vector<Refusal> refused_kernels(const std::vector<CompiledKernels>& compiled) {
    std::vector<Refusal> refused;
    for (const CompiledKernels& each : compiled) {
        if (!each.has_instructions()) continue;
        if (const char* const reason = refusal_of(each)) refused.push_back({each.kernels->name, reason});
    }
    return refused;
}

}  // namespace pocketbert
