// Fuzzes the C interface, without Python: bytes become a program and its runs, a tokeniser and its texts, or a pass of a training
// step, most of whose arguments make sense. Under the sanitizers nothing may happen but refusals, each with a reason, and
// two equal calls must give the same bits. libFuzzer calls LLVMFuzzerTestOneInput; without it main draws the bytes:
// fuzz_interface [INPUTS [FIRST [THREADS]]].
#include <string>
#include <thread>

#include "fuzz_training.h"
#include "fuzz_wordpiece.h"

namespace {

bool times = true;  // whether there are timed programs, which may run in one thread only

constexpr std::int32_t MOST = 160;  // columns, entries and tokens that make sense
constexpr const char* ACTIVATIONS[] = {"",      "gelu", "gelu_new", "gelu_fast", "gelu_to_int8", "relu",
                                       "relu6", "silu", "swish",    "tanh",      "letter",       nullptr};
constexpr const char* INDICES[] = {"word", "next word", "previous word", "position", "segment", "letter", nullptr};

class ProgramCase {
public:
    explicit ProgramCase(Input in) : in_(in) {}

    void play() {
        pb_kernels sets[32];
        std::int32_t count = 0;
        require(pb_list_kernels(sets, 32, &count) == PB_OK && count > 0 && count <= 32, "kernels are not listed");
        const pb_kernels& set = sets[in_.byte() % static_cast<unsigned>(count)];
        pb_program* program = nullptr;
        if (!took(pb_create(set.name, in_.number(1, 3), times && in_.one_in(16), &program))) return;
        program_.reset(program);
        for (unsigned buffers = 2 + in_.byte() % 4; buffers > 0; --buffers) add_buffer();
        add_lookup();
        for (int step = 0; step < 24 && !in_.is_empty(); ++step) {
            switch (in_.byte() % 12) {
                case 0: add_buffer(); break;
                case 1:
                case 2: add_lookup(); break;
                case 3:
                case 4:
                case 5: add_linear(); break;
                case 6: add_layer_norm(); break;
                case 7:
                case 8: add_attention(); break;
                case 9: add_gather(); break;
                default: run();
            }
        }
        run();
    }

private:
    struct Free {
        void operator()(pb_program* program) const { pb_free(program); }
    };

    std::int32_t pick_width() { return widths_.empty() ? 8 : widths_[in_.byte() % widths_.size()]; }

    pb_columns place(std::int32_t width) {
        const std::int32_t buffer = widths_.empty() ? 0 : static_cast<std::int32_t>(in_.byte() % widths_.size());
        if (in_.byte() < 4) return {in_.number(0, 8), in_.number(0, MOST), in_.number(1, MOST)};
        const std::int32_t most = widths_.empty() ? 8 : widths_[static_cast<std::size_t>(buffer)];
        return {buffer, width > 0 && most > width && in_.one_in(4) ? most - width : 0, width};
    }

    // With as much memory as is claimed, if that makes sense.
    template <class Array, class T>
    Array array(std::int32_t rows, std::int32_t width) {
        if (in_.byte() < 3) rows = in_.number(0, MOST), width = in_.number(0, MOST);
        const std::int64_t count = std::int64_t(std::max(rows, 0)) * std::max(width, 0);
        if (in_.byte() < 2 || count > std::int64_t(MOST) * MOST) return {nullptr, rows, width};
        return {arrays_.of<T>(static_cast<std::size_t>(count), in_.byte() == 255), rows, width};
    }
    pb_floats floats(std::int32_t rows, std::int32_t width) { return array<pb_floats, float>(rows, width); }
    pb_bytes bytes(std::int32_t rows, std::int32_t width) { return array<pb_bytes, std::int8_t>(rows, width); }

    void add_buffer() {
        std::int32_t number = -1;
        const std::int32_t width = in_.one_in(2) ? 8 * (1 + in_.byte() % 6) : in_.number(1, MOST);
        if (!took(pb_add_buffer(program_.get(), width, in_.one_in(5), &number))) return;
        require(number == static_cast<std::int32_t>(widths_.size()), "buffers are not numbered in order");
        widths_.push_back(width);
        is_huge_ = is_huge_ || width > MOST * 8;
    }

    void add_lookup() {
        pb_lookup step{};
        step.target = place(pick_width());
        const std::int32_t rows = in_.number(1, 40);
        if (in_.one_in(2)) step.table = floats(rows, step.target.width);
        else step.table_s8 = bytes(rows, step.target.width), step.scales = floats(1, rows);
        step.index = INDICES[in_.byte() < 200 ? 0 : in_.byte() % std::size(INDICES)];
        step.add = in_.one_in(2);
        const std::int32_t uncounted = in_.number(0, 4);
        if (in_.one_in(8)) step.uncounted = &uncounted;
        took(pb_add_lookup(program_.get(), &step));
    }

    void add_linear() {
        pb_linear step{};
        step.source = place(pick_width()), step.target = place(pick_width());
        step.groups = in_.one_in(3) ? in_.number(1, 4) : 1;
        const std::int32_t n = step.target.width, k = step.groups > 0 ? step.source.width / step.groups : 1;
        if (in_.one_in(2)) {
            step.weight = floats(n, k);
        } else {
            step.weight_s8 = bytes(n, k), step.scales = floats(1, n);
            if (in_.one_in(3)) step.outlier_weight = floats(n, k);
        }
        step.bias = floats(1, n);
        const pb_columns residual = place(n);
        if (in_.one_in(2)) step.residual = &residual;
        if (step.residual && in_.one_in(2)) step.residual_scale = floats(1, n);
        step.activation = ACTIVATIONS[in_.byte() % std::size(ACTIVATIONS)];
        took(pb_add_linear(program_.get(), &step));
    }

    void add_layer_norm() {
        const std::int32_t width = pick_width();
        pb_layer_norm step{};
        step.source = place(width), step.target = in_.one_in(2) ? step.source : place(width);
        step.weight = floats(1, width), step.bias = floats(1, width), step.eps = in_.byte() < 3 ? -1.0f : 1e-5f;
        took(pb_add_layer_norm(program_.get(), &step));
    }

    void add_attention() {
        const std::int32_t width = pick_width();
        pb_attention step{};
        step.query = place(width), step.key = in_.one_in(2) ? step.query : place(width), step.value = place(width);
        step.target = place(width), step.heads = in_.one_in(2) ? 1 : in_.number(1, 8), step.bfloat16 = in_.one_in(2);
        if (in_.one_in(4)) step.bias = floats(step.heads, 1 + 2 * (in_.byte() % 20));
        took(pb_add_attention(program_.get(), &step));
    }

    void add_gather() {
        const std::int32_t width = pick_width();
        const pb_gather step{place(width), place(width), in_.one_in(2)};
        took(pb_add_gather(program_.get(), &step));
    }

    void run() {
        std::vector<std::int32_t> ids, segments, starts{0}, selected;
        for (unsigned sequences = in_.byte() % 4; sequences > 0; --sequences) {
            for (unsigned length = 1 + in_.byte() % 70; length > 0; --length) {
                ids.push_back(static_cast<std::int32_t>(ids.size() % 5));
                segments.push_back(static_cast<std::int32_t>(ids.size() % 2));
            }
            starts.push_back(static_cast<std::int32_t>(ids.size()));
        }
        const auto tokens = static_cast<std::int32_t>(ids.size());
        for (std::vector<std::int32_t>* each : {&ids, &segments, &starts}) {
            each->shrink_to_fit();  // so that the address sanitizer sees where it ends
            if (!each->empty() && in_.byte() < 10) (*each)[in_.byte() % each->size()] = in_.number(0, 50);
        }
        pb_batch batch{ids.data(), segments.data(), tokens, starts.data(), std::int64_t(starts.size()) - 1, nullptr, 0};
        if (in_.one_in(3)) {
            for (unsigned count = in_.byte() % 5; count > 0; --count) selected.push_back(in_.number(0, 30));
            selected.reserve(1), batch.selected = selected.data(), batch.selected_count = std::int64_t(selected.size());
        }
        std::vector<pb_output> outputs;
        std::vector<std::vector<float>> data;
        for (unsigned count = in_.byte() % 4; count > 0; --count) {
            pb_output output{place(pick_width()), 0, nullptr};
            std::int32_t rows_of = -1;
            if (!took(pb_rows_of(program_.get(), &output.columns, &rows_of))) continue;
            output.rows = rows_of == PB_SEQUENCES                    ? batch.sequences
                          : rows_of == PB_SELECTED && batch.selected ? batch.selected_count
                                                                     : batch.tokens;
            data.emplace_back(static_cast<std::size_t>(output.rows * output.columns.width) + 1);
            output.data = data.back().data();
            outputs.push_back(output);
        }
        if (!outputs.empty() && in_.byte() < 3)
            outputs[0].rows += 1;  // the memory for it is not there, so it is refused
        if (is_huge_) return;  // there is not the memory, or the time, for its rows
        const auto count = static_cast<std::int32_t>(outputs.size());
        if (!took(pb_run(program_.get(), &batch, outputs.data(), count))) return;
        const std::vector<std::vector<float>> first = data;
        ++runs;
        require(pb_run(program_.get(), &batch, outputs.data(), count) == PB_OK, "a run is refused the second time");
        for (std::size_t i = 0; i < data.size(); ++i)
            require(std::memcmp(first[i].data(), data[i].data(), data[i].size() * sizeof(float)) == 0,
                    "a second run gives other bits");
    }

    Input in_;
    Arrays arrays_;  // before the program, which reads tables where they are
    std::unique_ptr<pb_program, Free> program_;
    std::vector<std::int32_t> widths_;
    bool is_huge_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input in(data, size);
    switch (in.byte() % 8) {
        case 0: WordPieceCase(in).play(); break;
        case 1: TrainingCase(in).play(); break;
        default: ProgramCase(in).play();
    }
    return 0;
}

#ifndef POCKETBERT_LIBFUZZER
int main(int argc, char** argv) {
    const auto argument = [&](int i, unsigned otherwise) {
        return i < argc ? static_cast<unsigned>(std::stoul(argv[i])) : otherwise;
    };
    const unsigned inputs = argument(1, 1000), first = argument(2, 0), threads = argument(3, 1);
    times = threads == 1;
    std::vector<std::thread> all;
    for (unsigned thread = 0; thread < threads; ++thread)
        all.emplace_back([=] {
            for (unsigned number = first + thread; number < first + inputs; number += threads) {
                std::mt19937 random(number);
                std::vector<std::uint8_t> bytes(random() % 1500);
                for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
                LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
            }
        });
    for (std::thread& thread : all) thread.join();
    std::printf("%u inputs from number %u on: %u calls refused, %u runs right\n", inputs, first, refused.load(),
                runs.load());
}
#endif
