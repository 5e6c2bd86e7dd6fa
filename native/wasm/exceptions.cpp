// What the runtime of exceptions needs beside its own sources.
#include <__verbose_abort>
#include <cstdlib>
#include <new>

// The tag of C++'s exceptions, by which WebAssembly tells them from others.
__asm__(
    ".globl __cpp_exception\n"
    ".tagtype __cpp_exception i32\n"
    "__cpp_exception:\n");

// What the C++ library calls where it can go on no longer. Its own functions would first write to a standard error, which a
// page does not have.
extern "C" [[noreturn]] void __abort_message(const char*, ...) { __builtin_trap(); }

_LIBCPP_BEGIN_NAMESPACE_STD
[[noreturn]] void __libcpp_verbose_abort(const char*, ...) noexcept { __builtin_trap(); }
_LIBCPP_END_NAMESPACE_STD

// Where there is no memory, these throw; those of the C++ library would end the program.
void* operator new(std::size_t bytes) {
    if (void* const place = std::malloc(bytes ? bytes : 1)) return place;
    throw std::bad_alloc();
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    const auto unit = static_cast<std::size_t>(alignment);
    if (void* const place = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit)) return place;
    throw std::bad_alloc();
}
