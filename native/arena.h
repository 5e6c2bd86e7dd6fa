// Memory for packed weights, which are read from end to end in every pass: side by side, in the order of the steps, and
// in large pages where the system gives them, so that the processor fetches ahead across step and page.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace pocketbert {

class Arena {
public:
    // Memory for so many values that starts on a cache line and lives as long as the arena.
    template <class T>
    T* take(std::size_t values) {
        const std::size_t bytes = (values * sizeof(T) + 63) / 64 * 64;
        if (bytes > left_) add_chunk(bytes);
        left_ -= bytes;
        void* const start = next_;
        next_ += bytes;
        return static_cast<T*>(start);
    }

private:
#ifdef __wasm__  // where all memory is in use
    static constexpr std::size_t PAGE = 64, CHUNK = std::size_t(1) << 20;
#else
    static constexpr std::size_t PAGE = std::size_t(2) << 20, CHUNK = 16 * PAGE;
#endif

    struct Free {
        void operator()(void* chunk) const { ::operator delete(chunk, std::align_val_t(PAGE)); }
    };
    using Chunk = std::unique_ptr<void, Free>;

    void add_chunk(std::size_t bytes) {
        const std::size_t size = bytes > CHUNK ? (bytes + PAGE - 1) / PAGE * PAGE : CHUNK;
        Chunk chunk(::operator new(size, std::align_val_t(PAGE), std::nothrow));
        if (!chunk) throw std::bad_alloc();
#ifdef __linux__
        madvise(chunk.get(), size, MADV_HUGEPAGE);  // pages that nothing touches stay unused
#endif
        next_ = static_cast<std::uint8_t*>(chunk.get());
        left_ = size;
        chunks_.push_back(std::move(chunk));
    }

    std::vector<Chunk> chunks_;
    std::uint8_t* next_ = nullptr;
    std::size_t left_ = 0;
};

}  // namespace pocketbert
