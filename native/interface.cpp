// The C interface: checks pointers and sizes, whose meaning Program checks, and turns exceptions into results.
#include "include/pocketbert.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>

#include "kernel_times.h"
#include "peak_flops.h"
#include "program.h"
#include "training.h"
#include "wordpiece.h"

using namespace pocketbert;

struct pb_program {
    Program program;
};

struct pb_wordpiece {
    WordPiece wordpiece;
};

namespace {

// ── results ──

// An array, which nothing destroys: threads may call while the process ends.
thread_local char message[1001] = "";

std::int32_t failure(std::int32_t status, const char* reason) {
    std::strncpy(message, reason, sizeof message - 1);
    return status;
}

template <class Body>
std::int32_t guarded(const Body& body) noexcept {
    try {
        body();
        return PB_OK;
    } catch (const std::invalid_argument& error) {
        return failure(PB_INVALID, error.what());
    } catch (const std::bad_alloc&) {
        return failure(PB_NO_MEMORY, "there is not enough memory");
    } catch (const std::length_error&) {  // of a vector
        return failure(PB_NO_MEMORY, "there is not enough memory");
    } catch (const std::exception& error) { return failure(PB_FAILED, error.what()); } catch (...) {
        return failure(PB_FAILED, "an unknown failure");
    }
}

// ── the process ──

// Guards what programs share, and the reset of a program in the child of a fork. A fork waits for it, so that in the child
// it is free and nothing is half reset.
Mutex process;

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int registered =
    pthread_atfork([] { process.lock(); }, [] { process.unlock(); }, [] { process.unlock(); });
#endif

// One pool per number of threads, shared by all programs. The child of a fork has no threads, so it gets new pools; the
// old ones, whose threads exist in the parent only, are never destroyed. To be called while `process` is held.
std::shared_ptr<Pool> shared_pool(int threads) {
    static auto& pools = *new std::map<std::pair<int, int>, std::shared_ptr<Pool>>;
    require(threads >= 1 && threads <= 1024, "threads must be from 1 to 1024");
    std::shared_ptr<Pool>& pool = pools[{process_id(), threads}];
    if (!pool) pool = std::make_shared<Pool>(threads);
    return pool;
}

// Some ask the system for permission when they are first looked for, one at a time.
const Kernels& named_kernels(const char* name) {
    require(name, "kernels need a name");
    const std::lock_guard<Mutex> turn(process);
    if (const Kernels* const kernels = find_kernels(name)) return *kernels;
    std::string names;
    for (const Kernels* kernels : available_kernels()) names += std::string(names.empty() ? "" : ", ") + kernels->name;
    throw std::invalid_argument(std::string("no kernels ") + name + " on this processor, which has " + names);
}

const Kernels& fastest_kernels() {
    const std::lock_guard<Mutex> turn(process);
    return *available_kernels().front();
}

// Held by a call: calls for the same program take turns.
std::unique_lock<Mutex> turn_of(pb_program* handle) {
    require(handle, "there is no program");
    Program& program = handle->program;
    Mutex* mutex;
    {
        const std::lock_guard<Mutex> turn(process);
        if (!program.pool()->is_of_this_process()) program.reset_after_fork(shared_pool(program.pool()->threads()));
        mutex = &program.mutex();
    }
    return std::unique_lock<Mutex>(*mutex);
}

// ── arguments ──

Columns columns(const pb_columns& c) { return {c.buffer, c.start, c.width}; }

int narrow(std::int64_t n) {
    require(n >= 0, "an array has a negative size");
    require(n <= std::numeric_limits<int>::max() / 8, "an array is too large");
    return static_cast<int>(n);
}

// The array where it is, or a copy if numbers of this type cannot be there: a file may have them at odd addresses.
template <class T>
View<T> view(const T* data, std::int64_t rows, std::int64_t width) {
    const int height = narrow(rows), across = narrow(width);
    const std::size_t count = static_cast<std::size_t>(height) * static_cast<std::size_t>(across);
    require(data || count == 0, "an array has no data");
    static const T nothing{};
    if (!data) data = &nothing;
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0) {
        // Not null, and owner of nothing: the caller keeps it.
        return {data, height, across, {std::shared_ptr<void>(), const_cast<T*>(data)}};
    }
    const auto copy = std::make_shared<std::vector<T>>(count);
    if (count) std::memcpy(copy->data(), static_cast<const void*>(data), count * sizeof(T));
    return {copy->data(), height, across, copy};
}

template <class Array>
auto matrix(const Array& array) {
    return view(array.data, array.rows, array.width);
}

template <class Array>
auto vector(const Array& array) {
    require(array.rows == 1, "a vector has one row");
    return matrix(array);
}

View<float> optional_matrix(const pb_floats& array) { return array.data ? matrix(array) : View<float>{}; }

View<float> optional_vector(const pb_floats& array) { return array.data ? vector(array) : View<float>{}; }

template <class T, std::size_t N>
T named(const std::pair<const char*, T> (&known)[N], const char* name, const char* kind) {
    for (const auto& [its_name, value] : known)
        if (std::strcmp(its_name, name ? name : "") == 0) return value;
    throw std::invalid_argument(std::string("unknown ") + kind + ": " + (name ? name : ""));
}

constexpr std::pair<const char*, Activation> ACTIVATIONS[] = {
    {"", Activation::none},
    {"gelu", Activation::gelu},
    {"gelu_to_int8", Activation::gelu_to_int8},
    {"gelu_new", Activation::gelu_tanh},
    {"gelu_fast", Activation::gelu_tanh},
    {"gelu_pytorch_tanh", Activation::gelu_tanh},
    {"relu", Activation::relu},
    {"relu6", Activation::relu6},
    {"silu", Activation::silu},
    {"swish", Activation::silu},
    {"tanh", Activation::tanh},
};

constexpr std::pair<const char*, Index> INDICES[] = {
    {"word", Index::word},         {"next word", Index::next_word}, {"previous word", Index::previous_word},
    {"position", Index::position}, {"segment", Index::segment},
};

constexpr std::pair<const char*, PeakLoop Kernels::*> PEAK_LOOPS[] = {
    {"fp32", &Kernels::peak_f32},
    {"bf16", &Kernels::peak_bf16},
    {"int8", &Kernels::peak_s8},
};

pb_kernels told(const Kernels& k) {
    const float attention_tolerance = k.bf16_attention ? k.bf16_attention->tolerance : k.tolerance;
    return {k.name, nullptr, k.int8_dot, k.bf16_attention != nullptr, k.tolerance, attention_tolerance};
}

// Copies as much as there is room for.
template <class T>
void fill(const std::vector<T>& values, T* out, std::int32_t capacity, std::int32_t* count) {
    require(count && (out || capacity <= 0), "there is no room for the result");
    *count = static_cast<std::int32_t>(values.size());
    for (std::int32_t i = 0; i < std::min(capacity, *count); ++i) out[i] = values[static_cast<std::size_t>(i)];
}

// A function that adds to a program, which is not running then.
template <class Step, class Add>
std::int32_t adding(pb_program* program, const Step* step, const Add& add) {
    return guarded([&] {
        require(step, "there is no step");
        const auto turn = turn_of(program);
        add(program->program, *step);
    });
}

std::int64_t rows_in(const pb_batch& batch, Program::RowsOf rows) {
    switch (rows) {
        case Program::RowsOf::tokens: return batch.tokens;
        case Program::RowsOf::firsts: return batch.sequences;
        case Program::RowsOf::selected: break;
    }
    return batch.selected ? batch.selected_count : batch.tokens;
}

void run(Program& program, const pb_batch& batch, const pb_output* outputs, std::int32_t count) {
    require(batch.sequences >= 0, "starts must have one entry more than there are sequences");
    narrow(batch.sequences);
    const auto ids = view(batch.ids, 1, batch.tokens), segments = view(batch.segments, 1, batch.tokens);
    const auto starts = view(batch.starts, 1, batch.sequences + 1);
    const auto selected = batch.selected ? view(batch.selected, 1, batch.selected_count) : View<std::int32_t>{};
    for (std::int32_t i = 0; i < count; ++i) {
        const pb_output& output = outputs[i];
        require(output.rows == rows_in(batch, program.rows_of(columns(output.columns))),
                "an output has another number of rows than the batch");
        require(output.rows == 0 || output.data, "an output has no data");
        require(reinterpret_cast<std::uintptr_t>(output.data) % alignof(float) == 0, "an output is at an odd address");
    }
    program.run(ids.data, segments.data, ids.width, starts.data, starts.width - 1, selected.data, selected.width);
    for (std::int32_t i = 0; i < count; ++i) program.read(columns(outputs[i].columns), outputs[i].data);
}

}  // namespace

std::int32_t pb_version() { return PB_VERSION; }

const char* pb_message() { return message; }

std::int32_t pb_list_kernels(pb_kernels* sets, std::int32_t capacity, std::int32_t* count) {
    return guarded([&] {
        const std::lock_guard<Mutex> turn(process);
        std::vector<pb_kernels> all;
        for (const Kernels* kernels : available_kernels()) all.push_back(told(*kernels));
        for (const Refusal& each : refused_kernels()) all.push_back({each.kernels, each.reason, nullptr, 0, 0, 0});
        fill(all, sets, capacity, count);
    });
}

std::int32_t pb_find_kernels(const char* name, pb_kernels* set) {
    return guarded([&] {
        require(set, "there is no room for the result");
        *set = told(named_kernels(name));
    });
}

std::int32_t pb_measure_peak(const char* name, const char* arithmetic, std::int32_t threads, double* rate) {
    return guarded([&] {
        require(rate, "there is no room for the result");
        const Kernels& kernels = named_kernels(name);
        const PeakLoop loop = kernels.*named(PEAK_LOOPS, arithmetic, "arithmetic");
        std::shared_ptr<Pool> pool;
        {
            const std::lock_guard<Mutex> turn(process);
            pool = shared_pool(threads);
        }
        *rate = loop ? operations_per_second(*pool, kernels, loop) : 0;
    });
}

std::int32_t pb_create(const char* name, std::int32_t threads, std::int32_t is_timed, pb_program** program) {
    return guarded([&] {
        require(program, "there is no room for the result");
        require(!is_timed || threads == 1, "a timed program has one thread");
        const Kernels& kernels = name ? named_kernels(name) : fastest_kernels();
        const std::lock_guard<Mutex> turn(process);
        const std::shared_ptr<Pool> pool = shared_pool(threads);
        *program = new pb_program{{is_timed ? timed(kernels) : kernels, pool}};
    });
}

void pb_free(pb_program* program) { delete program; }

std::int32_t pb_describe(pb_program* program, pb_description* description) {
    return guarded([&] {
        require(description, "there is no room for the result");
        const auto turn = turn_of(program);
        const Program& its = program->program;
        *description = {its.kernels(), its.pool()->threads(), static_cast<std::int64_t>(its.workspace_bytes())};
    });
}

std::int32_t pb_add_buffer(pb_program* program, std::int32_t width, std::int32_t local, std::int32_t* number) {
    return guarded([&] {
        require(number, "there is no room for the result");
        const auto turn = turn_of(program);
        *number = program->program.buffer(width, local != 0);
    });
}

std::int32_t pb_add_lookup(pb_program* program, const pb_lookup* step) {
    return adding(program, step, [](Program& p, const pb_lookup& s) {
        const Index index = named(INDICES, s.index, "index");
        require(!s.uncounted || *s.uncounted >= 0, "a word has no negative id");
        const int uncounted = s.uncounted ? *s.uncounted : -1;
        require(!s.table.data || !s.table_s8.data, "a lookup has one table");
        if (s.table_s8.data)
            p.lookup_s8(columns(s.target), matrix(s.table_s8), vector(s.scales), index, s.add != 0, uncounted);
        else p.lookup(columns(s.target), matrix(s.table), index, s.add != 0, uncounted);
    });
}

std::int32_t pb_add_linear(pb_program* program, const pb_linear* step) {
    return adding(program, step, [](Program& p, const pb_linear& s) {
        const Columns residual = s.residual ? columns(*s.residual) : Columns{};
        const Columns* const added = s.residual ? &residual : nullptr;
        const Activation activation = named(ACTIVATIONS, s.activation, "activation");
        require(!s.weight.data || !s.weight_s8.data, "a product has one weight");
        if (s.weight_s8.data)
            p.linear_s8(columns(s.source), columns(s.target), matrix(s.weight_s8), vector(s.scales), vector(s.bias),
                        s.groups, activation, added, optional_vector(s.residual_scale),
                        optional_matrix(s.outlier_weight));
        else
            p.linear(columns(s.source), columns(s.target), matrix(s.weight), vector(s.bias), s.groups, activation,
                     added, optional_vector(s.residual_scale));
    });
}

std::int32_t pb_add_layer_norm(pb_program* program, const pb_layer_norm* step) {
    return adding(program, step, [](Program& p, const pb_layer_norm& s) {
        p.layer_norm(columns(s.source), columns(s.target), vector(s.weight), vector(s.bias), s.eps);
    });
}

std::int32_t pb_add_attention(pb_program* program, const pb_attention* step) {
    return adding(program, step, [](Program& p, const pb_attention& s) {
        p.attention(columns(s.query), columns(s.key), columns(s.value), columns(s.target), s.heads, s.bfloat16 != 0,
                    optional_matrix(s.bias));
    });
}

std::int32_t pb_add_gather(pb_program* program, const pb_gather* step) {
    return adding(program, step, [](Program& p, const pb_gather& s) {
        p.gather(columns(s.source), columns(s.target), s.selected != 0);
    });
}

std::int32_t pb_rows_of(pb_program* program, const pb_columns* which, std::int32_t* rows_of) {
    return guarded([&] {
        require(which && rows_of, "there are no columns, or no room for the result");
        const auto turn = turn_of(program);
        const Program::RowsOf rows = program->program.rows_of(columns(*which));
        *rows_of = rows == Program::RowsOf::tokens   ? PB_TOKENS
                   : rows == Program::RowsOf::firsts ? PB_SEQUENCES
                                                     : PB_SELECTED;
    });
}

std::int32_t pb_run(pb_program* program, const pb_batch* batch, const pb_output* outputs, std::int32_t output_count) {
    return guarded([&] {
        require(batch, "there is no batch");
        require(output_count == 0 || (output_count > 0 && outputs), "there are no outputs");
        const auto turn = turn_of(program);
        run(program->program, *batch, outputs, output_count);
    });
}

std::int32_t pb_create_wordpiece(const pb_vocabulary* vocabulary, pb_wordpiece** wordpiece) {
    return guarded([&] {
        require(vocabulary && wordpiece, "there is no vocabulary, or no room for the result");
        const pb_vocabulary& v = *vocabulary;
        require(v.tokens && v.bytes > 0, "a vocabulary has no tokens");
        require(v.unknown && v.prefix, "a vocabulary needs a token for unknown words, and a prefix");
        *wordpiece = new pb_wordpiece{{v.tokens,
                                       static_cast<std::size_t>(v.bytes),
                                       {v.unknown, v.prefix, v.longest_word, v.clean_text != 0,
                                        v.handle_chinese_chars != 0, v.strip_accents != 0, v.lowercase != 0}}};
    });
}

void pb_free_wordpiece(pb_wordpiece* wordpiece) { delete wordpiece; }

std::int32_t pb_add_token(pb_wordpiece* wordpiece, const pb_added_token* token) {
    return guarded([&] {
        require(wordpiece && token && token->content, "there is no tokeniser, or no token");
        require(token->id >= 0, "an id is not negative");
        wordpiece->wordpiece.add(
            {token->content, token->id, token->normalized != 0, token->takes_left != 0, token->takes_right != 0});
    });
}

std::int32_t pb_tokenize(const pb_wordpiece* wordpiece, const std::uint16_t* text, std::int32_t length,
                         pb_token* tokens, std::int32_t capacity, std::int32_t* count) {
    return guarded([&] {
        require(wordpiece, "there is no tokeniser");
        const auto units = view(text, 1, length);
        std::vector<pb_token> found;
        for (const WordPiece::Token& t : wordpiece->wordpiece.tokenize(units.data, units.width))
            found.push_back({t.id, t.start, t.end});
        fill(found, tokens, capacity, count);
    });
}

std::int32_t pb_take_times(pb_time* times, std::int32_t capacity, std::int32_t* count) {
    return guarded([&] {
        require(count && (times || capacity <= 0), "there is no room for the result");
        *count = 0;
        for (const auto& [name, seconds] : take_kernel_times()) {
            if (*count < capacity) times[*count] = {name, seconds};
            ++*count;
        }
    });
}

// ── training ──

namespace {

void check_rows(std::int64_t rows, std::int64_t width) {
    require(rows >= 0 && width >= 1, "there are rows of at least one number");
    require(rows <= std::numeric_limits<int>::max() / width, "an array is too large");
}

void check_dropped(std::int32_t dropped) {
    require(dropped >= 0 && dropped < 65536, "dropout leaves out 0 to 65535 of 65536");
}

void check(const pb_norm_pass& p, bool derivative) {
    check_rows(p.rows, p.width), check_dropped(p.dropped);
    require(p.x && p.weight && p.shift && p.sum && (p.stats || !p.centres), "an array of the norm is missing");
    if (derivative)
        require(p.grad_out && p.grad_x && p.grad_weight && p.grad_shift, "a gradient of the norm is missing");
    else require(p.out, "an array of the norm is missing");
}

void check(const pb_activation_pass& p, bool derivative) {
    check_rows(p.rows, p.width);
    require(p.x && p.bias, "an array of the activation is missing");
    require(derivative ? p.grad_out && p.grad_x && p.grad_bias : p.out != nullptr,
            "an array of the activation is missing");
}

void check(const pb_attention_pass& p, bool derivative) {
    check_dropped(p.dropped);
    require(p.examples >= 0 && p.starts && p.keys, "attention needs examples");
    require(p.heads >= 1 && p.depth >= 1 && p.depth <= 4096 && p.heads <= 65536, "attention needs heads");
    require(p.group_heads >= 1 && p.heads % p.group_heads == 0, "heads are divided among groups");
    require(p.stride >= 0 && p.stride <= std::numeric_limits<int>::max(), "an array is too large");
    const std::int64_t groups = p.heads / p.group_heads, of_group = std::int64_t(p.group_heads) * p.depth;
    require(p.group_stride >= (groups > 1 ? of_group : 0) && p.group_stride <= p.stride &&
                (groups - 1) * p.group_stride + of_group <= p.stride,
            "a row has room for all heads");
    for (std::int64_t e = 0; e < p.examples; ++e) {
        const std::int64_t length = std::int64_t(p.starts[e + 1]) - p.starts[e];
        require(p.starts[e] >= 0 && length >= 1 && length <= 65536,
                "examples have 1 to 65536 rows and follow each other");
        require(p.keys[e] >= 1 && p.keys[e] <= length, "an example has from one key to as many as rows");
    }
    if (p.examples) check_rows(p.starts[p.examples], p.stride);
    require(p.query && p.key && p.value && p.scales, "an array of attention is missing");
    require(derivative ? p.grad_out && p.grad_query && p.grad_key && p.grad_value : p.out != nullptr,
            "an array of attention is missing");
}

void check(const pb_difference_pass& p, bool) {
    check_rows(p.rows, p.width);
    require(p.own && p.other && p.loss, "an array of the difference is missing");
}

void check(const pb_adamw_pass& p, bool moves) {
    require(p.count >= 0 && (p.count == 0 || (p.sizes && p.gradients)), "there are no tensors");
    require(!moves || p.count == 0 || (p.weights && p.means && p.squares), "there are no weights");
    for (std::int32_t i = 0; i < p.count; ++i)
        require(p.sizes[i] >= 0 && p.gradients[i] && (!moves || (p.weights[i] && p.means[i] && p.squares[i])),
                "a tensor is missing");
}

template <class Pass, class Body>
std::int32_t training(const pb_team* team, const Pass* pass, bool second, const Body& body) {
    return guarded([&] {
        require(team && pass, "there is no team, or nothing to do");
        require(team->threads >= 1 && team->threads <= 1024, "threads must be from 1 to 1024");
        require(team->training, "there is no training");
        check(*pass, second);
        body(*reinterpret_cast<const TrainingLoops*>(team->training));
    });
}

}  // namespace

std::int32_t pb_find_training(const char* kernels, const pb_training** training) {
    return guarded([&] {
        require(training, "there is no room for the result");
        const TrainingLoops* const loops = named_kernels(kernels).training;
        require(loops, "these kernels have no training");
        *training = reinterpret_cast<const pb_training*>(loops);
    });
}

std::int32_t pb_train_norm(const pb_team* team, const pb_norm_pass* pass) {
    return training(team, pass, false, [&](const TrainingLoops& loops) { loops.norm(*team, *pass); });
}

std::int32_t pb_train_norm_gradient(const pb_team* team, const pb_norm_pass* pass) {
    return training(team, pass, true, [&](const TrainingLoops& loops) { loops.norm_gradient(*team, *pass); });
}

std::int32_t pb_train_activation(const pb_team* team, const pb_activation_pass* pass) {
    return training(team, pass, false, [&](const TrainingLoops& loops) { loops.activation(*team, *pass); });
}

std::int32_t pb_train_activation_gradient(const pb_team* team, const pb_activation_pass* pass) {
    return training(team, pass, true, [&](const TrainingLoops& loops) { loops.activation_gradient(*team, *pass); });
}

std::int32_t pb_train_attention(const pb_team* team, const pb_attention_pass* pass) {
    return training(team, pass, false, [&](const TrainingLoops& loops) { loops.attention(*team, *pass); });
}

std::int32_t pb_train_attention_gradient(const pb_team* team, const pb_attention_pass* pass) {
    return training(team, pass, true, [&](const TrainingLoops& loops) { loops.attention_gradient(*team, *pass); });
}

std::int32_t pb_train_difference(const pb_team* team, const pb_difference_pass* pass) {
    return training(team, pass, false, [&](const TrainingLoops& loops) { loops.difference(*team, *pass); });
}

std::int32_t pb_train_adamw(const pb_team* team, const pb_adamw_pass* pass) {
    return training(team, pass, true, [&](const TrainingLoops& loops) { loops.adamw(*team, *pass); });
}

std::int32_t pb_train_square_sum(const pb_team* team, const pb_adamw_pass* pass, double* sum) {
    return training(team, pass, false, [&](const TrainingLoops& loops) {
        require(sum, "there is no room for the result");
        *sum = loops.square_sum(*team, *pass);
    });
}
