// AMX: int8 products and attention in bfloat16 on tile registers, and all else as AVX-512 does it. Measured on an Emerald
// Rapids, a layer of SqueezeBERT in int8 takes 0.4 of the time that it takes with VNNI.
#ifdef _WIN32
#include <windows.h>
#else
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#endif

#include "../training.h"
#include "avx512_bf16.h"
#include "illegal_instructions.h"
#include "tile_attention.h"
#include "tile_loops.h"

namespace pocketbert {
namespace {

using Products = TileLoops<Avx512, AmxTiles>;

// Whether a product of ones by ones is what it should be. A virtual machine may claim instructions that it has not.
bool multiplies() {
    static bool right;
    right = false;
    return runs_legally([] {
               Tile ones;
               Sums sums{};
               std::memset(&ones, 1, sizeof ones);
               AmxTiles::configure();
               AmxTiles::zero<3>(), AmxTiles::load<4>(&ones), AmxTiles::load_once<5>(&ones);
               AmxTiles::dot_s8<3, 4, 5>();
               AmxTiles::store<3>(&sums);
               AmxTiles::release();
               std::int32_t last;
               std::memcpy(&last, sums.bytes[2 * TILE - 1] + 2 * TILE_BYTES - sizeof last, sizeof last);
               right = last == TILE_BYTES;
           }) &&
           right;
}

constexpr int TILE_DATA = 18;  // the number of the registers, for the system

// Asks for the tile registers, for the whole process; why not, or null.
#ifdef _WIN32
const char* ask_permission() {
    using Ask = BOOL(WINAPI*)(DWORD64 registers);  // not in systems before Windows 11
    const auto ask = reinterpret_cast<Ask>(reinterpret_cast<void*>(
        GetProcAddress(GetModuleHandleW(L"kernel32.dll"), "EnableProcessOptionalXStateFeatures")));
    return ask && ask(DWORD64(1) << TILE_DATA) ? nullptr : "the system does not permit AMX's tile registers";
}
#else
const char* ask_permission() {
    constexpr long REQUEST_PERMISSION = 0x1023;  // ARCH_REQ_XCOMP_PERM
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, long(TILE_DATA)) == 0) return nullptr;
    return errno == ENOSPC ? "a thread has a signal stack that is too small for AMX's tile registers"
                           : "the system does not permit AMX's tile registers";
}
#endif

const char* find_refusal() {
    if (const char* const reason = ask_permission()) return reason;
    return multiplies() ? nullptr : "the system permits AMX's instructions, but they do not work";
}

const char* refusal() {
    static const char* const reason = find_refusal();
    return reason;
}

constexpr Kernels table() {
    Kernels kernels = Products::table("avx512amx", "tdpbssd");
    kernels.bf16_attention = &TileAttention<Avx512, Avx512Bf16, AmxTiles>::table;
    kernels.training = &training_on_tiles;
    kernels.refusal = refusal;
    return kernels;
}

}  // namespace

constexpr Kernels avx512amx_kernels = table();

}  // namespace pocketbert
