// The tile registers of AMX, and the instructions on them that the kernels use. Numbers of tiles are part of an instruction,
// so they are template arguments. All tiles have 16 rows of 64 bytes, the one configuration that the kernels need.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd_math.h"

namespace pocketbert {
namespace {

constexpr int TILE = 16;  // rows of a tile, columns of 32 bits
constexpr int TILE_BYTES = 64;  // of a row

struct Tile {  // in memory
    std::uint8_t bytes[TILE][TILE_BYTES];
};

struct Sums {  // of 2 x 2 tiles, side by side: a row has 32 numbers of 32 bits
    std::uint8_t bytes[2 * TILE][2 * TILE_BYTES];
};

// As assembly with operands in memory, so that the compiler knows what is read and written: of the intrinsics, it does not.
struct AmxTiles {
    // Tiles exist, in the thread that calls this, until they are released.
    static INLINE void configure() {
        struct alignas(64) {
            std::uint8_t palette, start, reserved[14];
            std::uint16_t row_bytes[16];
            std::uint8_t rows[16];
        } configuration{};
        configuration.palette = 1;
        for (int tile = 0; tile < 8; ++tile) {
            configuration.row_bytes[tile] = TILE_BYTES;
            configuration.rows[tile] = TILE;
        }
        __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
    }
    static INLINE void release() { __asm__ volatile("tilerelease"); }

    template <int T>
    static INLINE void zero() {
        __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
    }
    template <int T>
    static INLINE void load(const Tile* from) {
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                         :
                         : "r"(from), "r"(std::ptrdiff_t(TILE_BYTES)), "i"(T), "m"(*from));
    }
    // The same, but the first cache need not keep it: it is for what is read again later.
    template <int T>
    static INLINE void load_once(const Tile* from) {
        __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
                         :
                         : "r"(from), "r"(std::ptrdiff_t(TILE_BYTES)), "i"(T), "m"(*from));
    }
    // Tile T of 0 to 3, which are the sums.
    template <int T>
    static INLINE void store(Sums* to) {
        __asm__ volatile("tilestored %%tmm%c3, (%1,%2,1)"
                         : "+m"(*to)
                         : "r"(&to->bytes[T / 2 * TILE][T % 2 * TILE_BYTES]), "r"(std::ptrdiff_t(2 * TILE_BYTES)),
                           "i"(T));
    }
    // C[m][n] += sum over k and i of A[m][4 k + i] * B[k][4 n + i]: signed bytes to 32 bits.
    template <int C, int A, int B>
    static INLINE void dot_s8() {
        __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
    }
    // C[m][n] += sum over k and i of A[m][2 k + i] * B[k][2 n + i]: bfloat16 to fp32.
    template <int C, int A, int B>
    static INLINE void dot_bf16() {
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
    }
};

}  // namespace
}  // namespace pocketbert
