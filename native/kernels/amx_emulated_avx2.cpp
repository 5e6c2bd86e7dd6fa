// Emulated tiles once more, with vectors that every x86-64 processor of the last ten years has.
#include "avx2.h"
#include "emulated_tiles.h"
#include "plain_bf16.h"
#include "tile_attention.h"
#include "tile_loops.h"

namespace pocketbert {
namespace {

constexpr Kernels table() {
    Kernels kernels = TileLoops<Avx2, EmulatedTiles>::table("amx_emulated_avx2", "tdpbssd, emulated");
    kernels.bf16_attention = &TileAttention<Avx2, PlainBf16, EmulatedTiles>::table;
    kernels.is_preferred = [] { return false; };
    return kernels;
}

}  // namespace

constexpr Kernels amx_emulated_avx2_kernels = table();

}  // namespace pocketbert
