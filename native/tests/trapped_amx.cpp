// The AMX kernels as they are compiled, on a processor that has their AVX-512 instructions and no tiles: each tile
// instruction is illegal there, and a handler of that signal does what it should have done. Products must have the bits
// of AVX-512 with VNNI. It shows what emulated tiles cannot: operands, strides and the configuration of the instructions.
#include <signal.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../kernels/emulated_tiles.h"
#include "random_product.h"

using namespace pocketbert;

namespace {

Tile tiles[8];
bool configured = false;

void require(bool holds, const char* rule) {
    if (holds) return;
    std::fprintf(stderr, "trapped AMX: %s\n", rule);
    std::_Exit(1);
}

// All tile instructions have three bytes of VEX prefix, an opcode, and operands in the usual form.
struct Instruction {
    int prefix, opcode, modrm, first, second, third;  // numbers of tiles
    std::uint8_t *base = nullptr, *next;
    std::ptrdiff_t stride = 0;

    Instruction(const greg_t* registers) {
        constexpr int ORDER[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
        const auto* at = reinterpret_cast<std::uint8_t*>(registers[REG_RIP]);
        require(at[0] == 0xC4 && (at[1] & 31) == 2, "an instruction is illegal that is not of tiles");
        const int index_bit = at[1] & 0x40 ? 0 : 8, base_bit = at[1] & 0x20 ? 0 : 8;
        prefix = at[2] & 3, third = (~at[2] >> 3) & 15, opcode = at[3], modrm = at[4];
        first = modrm >> 3 & 7, second = modrm & 7;
        at += 5;
        if (const int mode = modrm >> 6; mode != 3) {
            int base_number = second | base_bit;
            if (second == 4) {
                const int sib = *at++, index = (sib >> 3 & 7) | index_bit;
                base_number = (sib & 7) | base_bit;
                if (index != 4) stride = static_cast<std::ptrdiff_t>(registers[ORDER[index]]) << (sib >> 6);
            }
            require(mode != 0 || (base_number & 7) != 5, "an address has a form that no kernel uses");
            std::int32_t displacement = 0;
            if (mode == 1) displacement = static_cast<std::int8_t>(*at++);
            if (mode == 2) std::memcpy(&displacement, at, sizeof displacement), at += sizeof displacement;
            base = reinterpret_cast<std::uint8_t*>(registers[ORDER[base_number]]) + displacement;
        }
        next = const_cast<std::uint8_t*>(at);
    }
};

void configure(const std::uint8_t* bytes) {
    std::uint8_t expected[64] = {1};
    for (int tile = 0; tile < 8; ++tile) expected[16 + 2 * tile] = TILE_BYTES, expected[48 + tile] = TILE;
    require(std::memcmp(bytes, expected, sizeof expected) == 0, "the configuration of tiles is wrong");
    std::memset(tiles, 0, sizeof tiles);
    configured = true;
}

// By emulated tiles 0, 1 and 2.
template <class Dot>
void multiply(const Instruction& i, const Dot& dot) {
    using Emulated = EmulatedTiles;
    Sums sums;
    Emulated::configure();
    Emulated::load<0>(&tiles[i.first]), Emulated::load<1>(&tiles[i.second]), Emulated::load<2>(&tiles[i.third]);
    dot();
    Emulated::store<0>(&sums);
    Emulated::release();
    for (int row = 0; row < TILE; ++row) std::memcpy(tiles[i.first].bytes[row], sums.bytes[row], TILE_BYTES);
}

void handle(int, siginfo_t*, void* context) {
    greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const Instruction i(registers);
    enum { NONE, H66, HF3, HF2 };
    const bool in_memory = i.base != nullptr, configures = i.opcode == 0x49 && i.prefix == NONE;
    require(configured || configures, "a tile is used before it is configured");
    if (configures && in_memory) {
        configure(i.base);
    } else if (configures) {
        configured = false;
    } else if (i.opcode == 0x49 && i.prefix == HF2) {
        std::memset(&tiles[i.first], 0, sizeof(Tile));
    } else if (i.opcode == 0x4B && in_memory) {
        for (int row = 0; row < TILE; ++row) {
            std::uint8_t *const tile = tiles[i.first].bytes[row], *const memory = i.base + row * i.stride;
            if (i.prefix == HF3) std::memcpy(memory, tile, TILE_BYTES);
            else std::memcpy(tile, memory, TILE_BYTES);
        }
    } else if (i.opcode == 0x5E && i.prefix == HF2) {
        multiply(i, EmulatedTiles::dot_s8<0, 1, 2>);
    } else if (i.opcode == 0x5C && i.prefix == HF3) {
        multiply(i, EmulatedTiles::dot_bf16<0, 1, 2>);
    } else {
        require(false, "a tile instruction is unknown");
    }
    registers[REG_RIP] = reinterpret_cast<greg_t>(i.next);
}

void compare_products(Random& random, int cases) {
    for (int i = 0; i < cases; ++i) {
        const Product p(random, true);
        const std::vector<float> before =
            random.floats(p.m ? static_cast<std::size_t>((p.m - 1) * p.out_stride + p.n) : 0);
        const std::vector<float> got = p.result(avx512amx_kernels, 200, before),
                                 expected = p.result(avx512vnni_kernels, 200, before);
        for (std::size_t j = 0; j < got.size(); ++j)
            require(got[j] == expected[j] || (std::isnan(got[j]) && std::isnan(expected[j])), "a product is wrong");
    }
}

void compare_attention(Random& random, int cases) {
    for (int i = 0; i < cases; ++i) {
        const int length = random.between(1, 150), depth = random.between(1, 140);
        const std::size_t size = static_cast<std::size_t>(length) * static_cast<std::size_t>(depth);
        const auto rounded = [&](const std::vector<float>& x) {
            std::vector<std::uint16_t> halves(size);
            avx512bf16_kernels.bf16_attention->round(x.data(), static_cast<int>(size), halves.data());
            return halves;
        };
        const std::vector<std::uint16_t> query = rounded(random.floats(size, 0.2f)), key = rounded(random.floats(size)),
                                         value = rounded(random.floats(size));
        const auto run = [&](const Bf16Attention& attention) {
            std::vector<float> out(size);
            std::vector<std::uint8_t> memory(attention.scratch_bytes(length, depth) + 64);
            void* const scratch = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
            attention.run(query.data(), depth, key.data(), depth, value.data(), depth, length, depth, out.data(), depth,
                          scratch);
            return out;
        };
        const std::vector<float> got = run(*avx512amx_kernels.bf16_attention),
                                 expected = run(*avx512bf16_kernels.bf16_attention);
        for (std::size_t j = 0; j < size; ++j) require(std::fabs(got[j] - expected[j]) < 1e-2f, "attention is wrong");
    }
}

}  // namespace

int main() {
    if (!find_kernels(avx512bf16_kernels.name) || find_kernels(avx512amx_kernels.name)) {
        std::puts("trapped AMX: needs a processor with AVX-512 BF16 and without AMX");
        return 0;
    }
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);
    Random random(0);
    {
        const KernelScope scope(avx512amx_kernels);
        compare_products(random, 600);
        compare_attention(random, 60);
    }
    require(!configured, "tiles are not released");
    std::puts("trapped AMX: 600 products have the bits of AVX-512, and 60 results of attention are right");
}
