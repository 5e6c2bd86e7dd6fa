// Runs whole programs from several threads at once on one pool, for the thread sanitizer: batches of all shapes, which
// must give the same bits as alone; a set of kernels that is entered in every thread; and the choice among sets.
#include "../program.h"

#include <cstdio>
#include <cstdlib>
#include <random>

using namespace pocketbert;

namespace {

constexpr int WIDTH = 48, WORDS = 23, LONGEST = 150;

std::shared_ptr<std::vector<float>> floats(std::mt19937& random, std::size_t size) {
    std::normal_distribution<float> normal(0.0f, 0.3f);
    auto values = std::make_shared<std::vector<float>>(size);
    for (float& value : *values) value = normal(random);
    return values;
}

View<float> matrix(std::mt19937& random, int rows, int width) {
    auto values = floats(random, std::size_t(rows) * width);
    return {values->data(), rows, width, values};
}

View<std::int8_t> matrix_s8(std::mt19937& random, int rows, int width) {
    auto values = std::make_shared<std::vector<std::int8_t>>(std::size_t(rows) * width);
    for (std::int8_t& value : *values) value = static_cast<std::int8_t>(random() % 255 - 127);
    return {values->data(), rows, width, values};
}

// Every kind of step; the output is in buffer 0.
std::unique_ptr<Program> program(const Kernels& kernels, std::shared_ptr<Pool> pool) {
    std::mt19937 random(7);
    auto made = std::make_unique<Program>(kernels, std::move(pool));
    made->buffer(WIDTH, false);
    made->buffer(WIDTH, false);
    made->buffer(4 * WIDTH, true);
    const Columns x{0, 0, WIDTH}, context{1, 0, WIDTH}, wide{2, 0, 4 * WIDTH};
    made->lookup_s8(x, matrix_s8(random, WORDS, WIDTH), matrix(random, 1, WORDS), Index::word, false);
    made->lookup(x, matrix(random, LONGEST, WIDTH), Index::position, true);
    made->lookup(x, matrix(random, 2, WIDTH), Index::segment, true);
    for (int layer = 0; layer < 2; ++layer) {
        made->layer_norm(x, x, matrix(random, 1, WIDTH), matrix(random, 1, WIDTH), 1e-5f);
        made->attention(x, x, x, context, 3, layer == 0);
        made->linear_s8(context, x, matrix_s8(random, WIDTH, WIDTH), matrix(random, 1, WIDTH), matrix(random, 1, WIDTH),
                        1, Activation::tanh, &x, {}, matrix(random, WIDTH, WIDTH));
        made->linear(x, wide, matrix(random, 4 * WIDTH, WIDTH / 4), matrix(random, 1, 4 * WIDTH), 4, Activation::gelu,
                     nullptr, {});
        made->linear(wide, x, matrix(random, WIDTH, WIDTH), matrix(random, 1, WIDTH), 4, Activation::tanh, &x, {});
    }
    return made;
}

std::vector<float> output_of(Program& made, const std::vector<std::int32_t>& ids,
                             const std::vector<std::int32_t>& starts) {
    const std::vector<std::int32_t> segments(ids.size(), 1);
    std::vector<float> out(ids.size() * WIDTH);
    const std::lock_guard<std::mutex> turn(made.mutex());
    made.run(ids.data(), segments.data(), static_cast<int>(ids.size()), starts.data(),
             static_cast<int>(starts.size()) - 1);
    made.read({0, 0, WIDTH}, out.data());
    return out;
}

void compare(Program& made, Program& alone, unsigned seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 20; ++round) {
        std::vector<std::int32_t> ids, starts{0};
        for (int sequences = 1 + static_cast<int>(random() % 4); sequences > 0; --sequences) {
            for (int length = 1 + static_cast<int>(random() % LONGEST); length > 0; --length)
                ids.push_back(static_cast<std::int32_t>(random() % WORDS));
            starts.push_back(static_cast<std::int32_t>(ids.size()));
        }
        if (output_of(made, ids, starts) == output_of(alone, ids, starts)) continue;
        std::puts("an output depends on the threads");
        std::exit(1);
    }
}

// Portable kernels that need an entered thread, as those of a coprocessor would, and leave it after every task.
thread_local bool entered = false;

void require_entered(bool expected) {
    if (entered == expected) return;
    std::puts(expected ? "a kernel runs in a thread that was not entered" : "a thread is entered twice");
    std::exit(1);
}

void enter_thread() {
    require_entered(false);
    entered = true;
}

void leave_thread() {
    require_entered(true);
    entered = false;
}

void layer_norm(const float* x, int k, const float* weight, const float* bias, float eps, float* out) {
    require_entered(true);
    portable_kernels.layer_norm(x, k, weight, bias, eps, out);
}

void check_entered_threads() {
    Kernels kernels = portable_kernels;
    kernels.enter_thread = enter_thread;
    kernels.leave_thread = leave_thread;
    kernels.layer_norm = layer_norm;
    const auto made = program(kernels, std::make_shared<Pool>(3)),
               alone = program(portable_kernels, std::make_shared<Pool>(1));
    compare(*made, *alone, 0);
    std::puts("every thread is entered before it runs kernels, and left after every task");
}

// Portable kernels that are sound until a run has begun.
bool is_sound = true;

void check_late_refusal() {
    Kernels kernels = portable_kernels;
    kernels.refusal = [] { return is_sound ? nullptr : "the sums are wrong"; };
    const auto made = program(kernels, std::make_shared<Pool>(1));
    output_of(*made, {1, 2, 3}, {0, 3});
    is_sound = false;
    std::string reason;
    try {
        output_of(*made, {1, 2, 3}, {0, 3});
    } catch (const std::runtime_error& error) { reason = error.what(); }
    if (reason != "the sums are wrong") {
        std::puts("a run has results though its kernels are refused");
        std::exit(1);
    }
    std::puts("a run of kernels that are refused after it has no results");
}

// Made-up sets: one that the processor lacks, one that the system refuses, one that is not preferred, and one for all.
int questions = 0;  // to the system

void check_choice() {
    Kernels lacking = portable_kernels, refused = portable_kernels, slow = portable_kernels;
    lacking.name = "lacking", refused.name = "refused", slow.name = "slow";
    lacking.refusal = refused.refusal = [] {
        ++questions;
        return "the system says no";
    };
    slow.is_preferred = [] { return false; };
    const auto yes = [] { return true; };
    const std::vector<CompiledKernels> all = {
        {&lacking, [] { return false; }}, {&refused, yes}, {&slow, yes}, {&portable_kernels, yes}};
    bool right = find_kernels("slow", all) == &slow && !find_kernels("lacking", all) && !find_kernels("none", all);
    right = right && questions == 0 && !find_kernels("refused", all) && questions == 1;
    right = right && available_kernels(all) == std::vector<const Kernels*>{&portable_kernels, &slow};
    const std::vector<Refusal> refusals = refused_kernels(all);
    right = right && refusals.size() == 1 && refusals[0].kernels == std::string("refused") &&
            refusals[0].reason == std::string("the system says no");
    std::puts(right ? "kernels that cannot run or are slow are not chosen" : "kernels are chosen wrongly");
    if (!right) std::exit(1);
}

}  // namespace

int main() {
    check_choice();
    check_entered_threads();
    check_late_refusal();
    for (const Kernels* each : available_kernels()) {
        const Kernels& kernels = *each;
        const auto pool = std::make_shared<Pool>(3);
        const auto first = program(kernels, pool), second = program(kernels, pool);
        std::vector<std::thread> callers;
        for (unsigned caller = 0; caller < 4; ++caller)
            callers.emplace_back([&, caller] {
                const auto alone = program(kernels, std::make_shared<Pool>(1));
                compare(caller % 2 ? *first : *second, *alone, caller);
            });
        for (std::thread& caller : callers) caller.join();
        std::printf("%s: programs from several threads are sound\n", kernels.name);
    }
}
