// Which sets of kernels this processor can run.
#include "kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace pocketbert {
namespace {

// Instruction sets whose names not every compiler's __builtin_cpu_supports knows; see CMakeLists.txt.

#if defined(__x86_64__) || defined(__i386__)
[[maybe_unused]] bool has_avxvnni() {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#elif defined(__aarch64__)
[[maybe_unused]] bool has_dotprod() {
#ifdef __linux__
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return true;  // every arm64 processor of Apple's has it
#endif
}
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> available;
#define KERNELS(name, is_supported) \
    if (is_supported) available.push_back(&name##_kernels);
#include "kernel_list.h"
#undef KERNELS
    return available;
}

}  // namespace pocketbert
