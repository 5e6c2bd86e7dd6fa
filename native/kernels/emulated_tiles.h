// The tile instructions in plain C++, for processors without AMX: slow, and there to test the kernels that are built on
// them. Like the processor, it ends a process that uses tiles which were not configured.
#pragma once

#include <cstdlib>
#include <cstring>

#include "tiles.h"

namespace pocketbert {
namespace {

struct EmulatedTiles {
    static void configure() {
        configured = true;
        std::memset(tiles, 0, sizeof tiles);
    }
    static void release() { configured = false; }

    template <int T>
    static void zero() {
        std::memset(&tile<T>(), 0, sizeof(Tile));
    }
    template <int T>
    static void load(const Tile* from) {
        std::memcpy(&tile<T>(), from, sizeof(Tile));
    }
    template <int T>
    static void load_once(const Tile* from) {
        load<T>(from);
    }
    template <int T>
    static void store(Sums* to) {
        for (int row = 0; row < TILE; ++row)
            std::memcpy(to->bytes[T / 2 * TILE + row] + T % 2 * TILE_BYTES, tile<T>().bytes[row], TILE_BYTES);
    }

    template <int C, int A, int B>
    static void dot_s8() {
        std::uint32_t sums[TILE][TILE];  // which wrap
        std::memcpy(sums, &tile<C>(), sizeof sums);
        for (int k = 0; k < TILE; ++k) {
            std::uint32_t b[4][TILE];
            for (int n = 0; n < TILE; ++n)
                for (int i = 0; i < 4; ++i) b[i][n] = extended(tile<B>().bytes[k][4 * n + i]);
            for (int m = 0; m < TILE; ++m)
                for (int i = 0; i < 4; ++i) {
                    const std::uint32_t a = extended(tile<A>().bytes[m][4 * k + i]);
                    for (int n = 0; n < TILE; ++n) sums[m][n] += a * b[i][n];
                }
        }
        std::memcpy(&tile<C>(), sums, sizeof sums);
    }

    template <int C, int A, int B>
    static void dot_bf16() {
        float sums[TILE][TILE];
        std::memcpy(sums, &tile<C>(), sizeof sums);
        for (int k = 0; k < TILE; ++k) {
            float b[2][TILE];
            for (int n = 0; n < TILE; ++n)
                for (int i = 0; i < 2; ++i) b[i][n] = widened(tile<B>().bytes[k] + 2 * (2 * n + i));
            for (int m = 0; m < TILE; ++m)
                for (int i = 0; i < 2; ++i) {
                    const float a = widened(tile<A>().bytes[m] + 2 * (2 * k + i));
                    for (int n = 0; n < TILE; ++n) sums[m][n] += a * b[i][n];
                }
        }
        std::memcpy(&tile<C>(), sums, sizeof sums);
    }

private:
    inline static thread_local Tile tiles[8];  // not aligned further: not every loader does it for what threads have
    inline static thread_local bool configured = false;

    template <int T>
    static Tile& tile() {
        if (!configured) std::abort();
        return tiles[T];
    }
    static std::uint32_t extended(std::uint8_t byte) {  // the sign with it
        return static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<std::int8_t>(byte)));
    }
    static float widened(const std::uint8_t* bf16) {
        std::uint16_t high;
        std::memcpy(&high, bf16, sizeof high);
        const std::uint32_t bits = std::uint32_t(high) << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }
};

}  // namespace
}  // namespace pocketbert
