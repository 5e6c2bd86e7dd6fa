// What amx.cpp runs, on emulated tiles: the same code but for the tile instructions, tested on processors without AMX.
#include "avx512_bf16.h"
#include "emulated_tiles.h"
#include "tile_attention.h"
#include "tile_loops.h"

namespace pocketbert {
namespace {

constexpr Kernels table() {
    Kernels kernels = TileLoops<Avx512, EmulatedTiles>::table("amx_emulated_avx512", "tdpbssd, emulated");
    kernels.bf16_attention = &TileAttention<Avx512, Avx512Bf16, EmulatedTiles>::table;
    kernels.is_preferred = [] { return false; };
    return kernels;
}

}  // namespace

constexpr Kernels amx_emulated_avx512_kernels = table();

}  // namespace pocketbert
