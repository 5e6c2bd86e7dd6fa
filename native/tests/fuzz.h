// What the fuzzers of the C interface share: bytes that become numbers, arrays that end where they are said to end, and the
// rule that a call either does what it should or says why not.
#pragma once

#include <pocketbert.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

inline std::atomic<unsigned> refused{0}, runs{0};

constexpr std::int32_t HOSTILE[] = {-1,      0,       std::numeric_limits<std::int32_t>::min(),
                                    1 << 24, 1 << 30, std::numeric_limits<std::int32_t>::max()};

inline void require(bool holds, const char* rule) {
    if (holds) return;
    std::fprintf(stderr, "%s (the last message: %s)\n", rule, pb_message());
    std::abort();
}

// Whether the call did what it should; otherwise it must have said why not.
inline bool took(std::int32_t status) {
    if (status == PB_OK) return true;
    require(status == PB_INVALID || status == PB_NO_MEMORY, "a call failed otherwise than by its arguments");
    require(*pb_message(), "a refusal has no reason");
    ++refused;
    return false;
}

class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
    bool is_empty() const { return size_ == 0; }
    unsigned byte() {
        if (size_ == 0) return 0;
        --size_;
        return *data_++;
    }
    bool one_in(unsigned n) { return byte() % n == 0; }
    std::int32_t between(std::int32_t least, std::int32_t most) {
        const unsigned low = byte(), high = byte();
        return least + static_cast<std::int32_t>(low | high << 8) % (most - least + 1);
    }
    // At most `most`, and rarely something else.
    std::int32_t number(std::int32_t least, std::int32_t most) {
        return byte() < 3 ? HOSTILE[byte() % std::size(HOSTILE)] : between(least, most);
    }

private:
    const std::uint8_t* data_;
    std::size_t size_;
};

// Random numbers, of which a few floats are not finite.
template <class T>
T drawn(std::mt19937& random) {
    if constexpr (std::is_same_v<T, float>) {
        constexpr float INF = std::numeric_limits<float>::infinity(), NAN_ = std::numeric_limits<float>::quiet_NaN();
        constexpr float SPECIAL[] = {INF, -INF, NAN_, 3e38f, 1e-42f, -0.0f};
        if (random() % 4000 == 0) return SPECIAL[random() % std::size(SPECIAL)];
        return static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31f;
    } else if constexpr (std::is_same_v<T, std::uint16_t>) {  // bfloat16
        const float value = drawn<float>(random);
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return static_cast<std::uint16_t>(bits >> 16);
    } else {
        return static_cast<T>(random());
    }
}

// Arrays of such numbers. Each is an allocation of its own, so that the address sanitizer sees what is read or written
// beside it.
class Arrays {
public:
    // `offset` bytes behind an aligned address.
    template <class T>
    T* of(std::size_t count, std::size_t offset = 0) {
        static constexpr std::size_t NUMBERS = 10007;
        static const std::vector<T>& pool = *new std::vector<T>([] {
            std::mt19937 random(1);
            std::vector<T> numbers(NUMBERS);
            for (T& number : numbers) number = drawn<T>(random);
            return numbers;
        }());
        all_.emplace_back(std::max<std::size_t>(1, count * sizeof(T) + offset));  // so that an empty one has an address
        char* const start = all_.back().data() + offset;
        std::size_t from = all_.size() * 1000 % NUMBERS;
        for (std::size_t i = 0; i < count; from = 0) {
            const std::size_t some = std::min(count - i, NUMBERS - from);
            std::memcpy(start + i * sizeof(T), pool.data() + from, some * sizeof(T));
            i += some;
        }
        return reinterpret_cast<T*>(start);
    }

    using Contents = std::vector<std::vector<char>>;
    const Contents& contents() const { return all_; }
    void restore(const Contents& before) {
        for (std::size_t i = 0; i < all_.size(); ++i) std::copy(before[i].begin(), before[i].end(), all_[i].begin());
    }

private:
    Contents all_;
};
