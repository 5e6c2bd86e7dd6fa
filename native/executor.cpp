#include "executor.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>

namespace pocketbert {
namespace {

constexpr int BLOCK = 96;          // rows that go through a row program together
constexpr int QUERIES = 48;        // rows of scores that are made together
constexpr int MAX_WIDTH = 1 << 24;
constexpr std::size_t MAX_BUFFERS = 1 << 16;
constexpr int MAX_DEPTH_S8 = 1 << 16;    // 127 · 255 · 2^16 < 2^31
constexpr int FEATURES_AN_OUTLIER = 32;  // at most one of so many is multiplied in fp32
constexpr int MAX_TASKS = 1 << 30;

void require(bool holds, const char* rule) {
    if (!holds) throw std::invalid_argument(rule);
}

bool overlap(Columns a, Columns b) {
    return a.buffer == b.buffer && a.start < b.start + b.width && b.start < a.start + a.width;
}

bool same(Columns a, Columns b) { return a.buffer == b.buffer && a.start == b.start && a.width == b.width; }

// A copy with zeros behind it: a kernel reads whole panels, and a group may start anywhere.
Aligned<float> padded(const View<float>& values) {
    Aligned<float> copy(static_cast<std::size_t>(values.width) + PANEL);
    std::copy_n(values.data, values.width, copy.data());
    return copy;
}

}  // namespace

Program::Program(const Kernels& kernels, std::shared_ptr<Pool> pool) : kernels_(kernels) { start(std::move(pool)); }

Program::~Program() {
    if (!pool_->is_of_this_process()) leave_behind();
}

void Program::start(std::shared_ptr<Pool> pool) {
    memory_.resize(buffers_.size());
    scratch_.resize(static_cast<std::size_t>(pool->threads()));
    mutex_ = std::make_unique<std::mutex>();
    pool_ = std::move(pool);
}

// Never freed: a thread of the parent's may have been at work there, and may have held the mutex.
void Program::leave_behind() {
    new std::vector<Scratch>(std::move(scratch_));
    new std::vector<Aligned<float>>(std::move(memory_));
    mutex_.release();
}

void Program::start_anew(std::shared_ptr<Pool> pool) {
    leave_behind();
    start(std::move(pool));
}

// ── building ──

int Program::buffer(int width, bool local) {
    require(width > 0 && width <= MAX_WIDTH, "a buffer needs a width");
    require(buffers_.size() < MAX_BUFFERS, "there are too many buffers");
    memory_.resize(buffers_.size() + 1);
    buffers_.push_back({width, local, RowsOf::tokens, local_width_, {}});
    if (local) local_width_ += static_cast<std::size_t>(round_up(width, 16));
    return static_cast<int>(buffers_.size()) - 1;
}

void Program::check(Columns c, bool reads, RowsOf rows) const {
    require(c.buffer >= 0 && c.buffer < static_cast<int>(buffers_.size()), "there is no such buffer");
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    require(c.width > 0 && c.start >= 0 && c.start <= buffer.width - c.width, "columns beyond their buffer");
    require(buffer.written.empty() || buffer.rows == rows, "rows of tokens and rows that were picked do not mix");
    if (!reads) return;
    const auto after = buffer.written.upper_bound(c.start);
    require(after != buffer.written.begin() && std::prev(after)->second >= c.start + c.width,
            "a buffer is read before it is written");
}

void Program::wrote(Columns c) {
    Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    int first = c.start, last = c.start + c.width;
    for (auto at = buffer.written.begin(); at != buffer.written.end();) {
        if (at->first > last || at->second < first) {
            ++at;
            continue;
        }
        first = std::min(first, at->first);
        last = std::max(last, at->second);
        at = buffer.written.erase(at);
    }
    buffer.written[first] = last;
    buffer.rows = rows_of_;
}

void Program::end_rows() {
    for (Buffer& buffer : buffers_)
        if (buffer.local) buffer.written.clear();
}

// Whether two grouped products may go group by group, so that what lies between them is still in the cache: no group of
// the second may write what a later group of the first reads, nor read what that writes.
bool Program::by_group(const Step& a, const Step& b) {
    const auto linear = [](const Step& s) { return s.kind == Step::linear || s.kind == Step::linear_s8; };
    return linear(a) && linear(b) && a.groups == b.groups && a.groups > 1 && same(a.target, b.source) &&
           (same(a.source, b.target) || !overlap(a.source, b.target)) &&
           (!a.has_residual || !overlap(a.residual, b.target)) && (!b.has_residual || !overlap(b.residual, a.target));
}

void Program::add_step(Step step) {
    if (stages_.empty() || stages_.back().kind != Stage::rows) {
        stages_.push_back({});
        stages_.back().kind = Stage::rows;
    }
    std::vector<Step>& before = stages_.back().steps;
    step.by_group = !before.empty() && !before.back().by_group && by_group(before.back(), step);
    stages_.back().steps.push_back(std::move(step));
    wrote(stages_.back().steps.back().target);
}

void Program::lookup(Columns target, View<float> table, Index index, bool add) {
    Step step{};
    step.table = std::move(table);
    const int entries = step.table.rows, width = step.table.width;
    add_lookup(std::move(step), target, entries, width, index, add);
}

void Program::lookup_s8(Columns target, View<std::int8_t> table, View<float> table_scales, Index index, bool add) {
    require(table_scales.width == table.rows, "there is a scale for every row of a table");
    Step step{};
    step.table_s8 = std::move(table);
    step.table_scales = std::move(table_scales);
    const int entries = step.table_s8.rows, width = step.table_s8.width;
    add_lookup(std::move(step), target, entries, width, index, add);
}

void Program::add_lookup(Step step, Columns target, int entries, int width, Index index, bool add) {
    check(target, add);
    require(entries > 0 && width == target.width, "a table is as wide as its target");
    require(rows_of_ == RowsOf::tokens, "there are no words after picking");
    step.kind = Step::lookup;
    step.source = step.target = target;
    step.entries = entries;
    step.index = index;
    step.add = add;
    add_step(std::move(step));
}

template <class T>
Program::Step Program::check_linear(Columns source, Columns target, const View<T>& weight, const View<float>& bias,
                                    int groups, Activation activation, const Columns* residual,
                                    const View<float>& residual_scale) const {
    check(source, true);
    check(target, false);
    require(groups > 0 && source.width % groups == 0 && target.width % groups == 0, "groups divide both widths");
    require(weight.rows == target.width && weight.width == source.width / groups, "a weight has the shape of its step");
    require(!overlap(source, target), "a product cannot replace its source");
    require(bias.width == target.width, "a bias is as wide as its target");
    require(!residual_scale.owner || (residual && residual_scale.width == target.width),
            "a scale is as wide as its residual");
    Step step{};
    step.source = source;
    step.target = target;
    step.groups = groups;
    step.activation = activation;
    step.bias = padded(bias);
    if (residual) {
        check(*residual, true);
        require(residual->width == target.width, "a residual is as wide as its target");
        require(!overlap(*residual, target) || residual->start == target.start,
                "a residual is its target, or stands apart from it");
        step.has_residual = true;
        step.residual = *residual;
        if (residual_scale.owner) step.residual_scale = padded(residual_scale);
    }
    return step;
}

void Program::linear(Columns source, Columns target, View<float> weight, View<float> bias, int groups,
                     Activation activation, const Columns* residual, View<float> residual_scale) {
    Step step = check_linear(source, target, weight, bias, groups, activation, residual, residual_scale);
    step.kind = Step::linear;
    const int n = target.width / groups, k = weight.width;
    const std::size_t panel = static_cast<std::size_t>(round_up(n, PANEL)) * k;
    step.packed = weights_.take<float>(panel * groups);
    for (int g = 0; g < groups; ++g)
        pack_f32(weight.data + std::ptrdiff_t(g) * n * k, k, 1, n, k, step.packed + panel * g);
    add_step(std::move(step));
}

void Program::linear_s8(Columns source, Columns target, View<std::int8_t> weight, View<float> weight_scales,
                        View<float> bias, int groups, Activation activation, const Columns* residual,
                        View<float> residual_scale, View<float> exact) {
    Step step = check_linear(source, target, weight, bias, groups, activation, residual, residual_scale);
    step.kind = Step::linear_s8;
    require(weight_scales.width == target.width, "there is a scale for every output channel");
    require(weight.width <= MAX_DEPTH_S8, "an int8 product sums too many numbers");
    const int n = target.width / groups, k = weight.width;
    if (exact.owner) {
        require(groups == 1, "exact weights are for a step of one group");
        require(exact.rows == weight.rows && exact.width == weight.width, "exact weights have the shape of the others");
        step.outliers = k / FEATURES_AN_OUTLIER;
        step.packed = weights_.take<float>(static_cast<std::size_t>(round_up(n, PANEL)) * k);
        pack_f32(exact.data, k, 1, n, k, step.packed);
        widest_exact_ = std::max(widest_exact_, static_cast<std::size_t>(round_up(std::max(n, k), PANEL)));
        most_outliers_ = std::max(most_outliers_, static_cast<std::size_t>(step.outliers));
    }
    const std::size_t panel = static_cast<std::size_t>(round_up(n, PANEL)) * round_up(k, 4);
    step.packed_s8 = weights_.take<std::uint8_t>(panel * groups);
    for (int g = 0; g < groups; ++g)
        pack_s8(weight.data + std::ptrdiff_t(g) * n * k, n, k, step.packed_s8 + panel * g);
    step.weight_scales = padded(weight_scales);
    widest_source_ = std::max(widest_source_, static_cast<std::size_t>(source.width + 4 * groups));
    most_groups_ = std::max(most_groups_, static_cast<std::size_t>(groups));
    add_step(std::move(step));
}

void Program::layer_norm(Columns source, Columns target, View<float> weight, View<float> bias, float eps) {
    check(source, true);
    check(target, false);
    require(source.width == target.width && weight.width == target.width && bias.width == target.width,
            "a norm keeps the width");
    require(!overlap(source, target) || source.start == target.start, "a norm replaces its source or leaves it");
    require(eps >= 0.0f, "eps is not negative");
    Step step{};
    step.kind = Step::layer_norm;
    step.source = source;
    step.target = target;
    step.packed = std::copy_n(weight.data, weight.width, weights_.take<float>(weight.width)) - weight.width;
    step.bias = padded(bias);
    step.eps = eps;
    add_step(std::move(step));
}

void Program::attention(Columns query, Columns key, Columns value, Columns target, int heads, bool bfloat16) {
    for (Columns c : {query, key, value}) check(c, true);
    check(target, false);
    require(rows_of_ == RowsOf::tokens, "there are no tokens after picking");
    for (Columns c : {query, key, value, target}) {
        require(c.width == target.width, "attention keeps the width");
        require(!buffers_[static_cast<std::size_t>(c.buffer)].local, "attention reads and writes no local buffer");
    }
    require(heads > 0 && target.width % heads == 0, "heads divide the width");
    for (Columns c : {query, key, value}) require(!overlap(c, target), "attention cannot replace its source");
    Stage stage{};
    stage.kind = Stage::attention;
    stage.query = query, stage.key = key, stage.value = value, stage.target = target, stage.heads = heads;
    stage.bfloat16 = bfloat16 && kernels_.bf16_attention;
    stages_.push_back(std::move(stage));
    wrote(target);
    end_rows();
}

void Program::pick(Columns source, Columns target, bool asked) {
    const RowsOf picked = asked ? RowsOf::asked : RowsOf::firsts;
    check(source, true, RowsOf::tokens);
    require(source.width == target.width && source.buffer != target.buffer, "picking keeps the width, elsewhere");
    check(target, false, picked);
    require(!buffers_[static_cast<std::size_t>(source.buffer)].local &&
                !buffers_[static_cast<std::size_t>(target.buffer)].local,
            "picking reads and writes no local buffer");
    require(buffers_[static_cast<std::size_t>(target.buffer)].written.empty(),
            "rows of tokens and rows that were picked do not mix");
    Stage stage{};
    stage.kind = Stage::pick;
    stage.query = source, stage.target = target, stage.picked = picked;
    stages_.push_back(std::move(stage));
    rows_of_ = picked, asks_ = asks_ || asked;
    wrote(target);
    end_rows();
}

// ── running ──

void Program::check_batch(const Batch& batch) const {
    require(batch.starts[0] == 0 && batch.starts[batch.sequences] == batch.tokens, "starts begin at 0 and end at the tokens");
    for (const std::int32_t token : batch.asked) require(token >= 0 && token < batch.tokens, "what is asked for is no token");
    int longest = 0;
    for (int s = 0; s < batch.sequences; ++s) {
        require(batch.starts[s] < batch.starts[s + 1], "every sequence has a token");
        longest = std::max(longest, batch.starts[s + 1] - batch.starts[s]);
    }
    for (const Stage& stage : stages_) {
        require(stage.kind != Stage::attention || std::int64_t(batch.sequences) * stage.heads <= MAX_TASKS,
                "there are too many sequences");
        for (const Step& step : stage.steps) {
            if (step.kind != Step::lookup) continue;
            if (step.index == Index::position) {
                require(longest <= step.entries, "a sequence is longer than the positions");
                continue;
            }
            for (const std::int32_t id : step.index == Index::segment ? batch.segments : batch.ids)
                require(id >= 0 && id < step.entries, "an id is outside its table");
        }
    }
}

void Program::run(const std::int32_t* ids, const std::int32_t* segments, int tokens, const std::int32_t* starts,
                  int sequences, const std::int32_t* asked, int asked_count) {
    Batch batch{{ids, ids + tokens}, {segments, segments + tokens}, {starts, starts + sequences + 1}, tokens, sequences, {}, {}};
    require(asks_ || !asked, "this program picks no rows that are asked for");
    if (asked) {
        batch.asked.assign(asked, asked + asked_count);
    } else if (asks_) {
        batch.asked.resize(static_cast<std::size_t>(tokens));
        std::iota(batch.asked.begin(), batch.asked.end(), 0);
    }
    check_batch(batch);
    batch.sequence_of.reserve(static_cast<std::size_t>(tokens));
    for (int s = 0; s < sequences; ++s)
        batch.sequence_of.insert(batch.sequence_of.end(), batch.starts[s + 1] - batch.starts[s], s);
    tokens_ = tokens, sequences_ = sequences, asked_ = static_cast<int>(batch.asked.size());

    for (std::size_t b = 0; b < buffers_.size(); ++b) {
        const std::size_t size = std::size_t(count(buffers_[b].rows)) * buffers_[b].width;
        if (!buffers_[b].local && memory_[b].size() < size) memory_[b].resize(size);
    }
    make_scratch(batch);
    const Pool::ActiveScope active(*pool_);

    int rows = tokens;
    for (const Stage& stage : stages_) {
        if (stage.kind == Stage::rows) {
            // Blocks as even as they can be, and a whole number of them for every thread.
            const int threads = pool_->threads();
            const int blocks = std::min(rows, round_up(std::max(1, (rows + BLOCK - 1) / BLOCK), threads));
            pool_->run(blocks, [&](int block, int thread) {
                const int first = static_cast<int>(std::int64_t(rows) * block / blocks);
                const int last = static_cast<int>(std::int64_t(rows) * (block + 1) / blocks);
                run_rows(stage, batch, first, last, scratch_[static_cast<std::size_t>(thread)]);
            });
        } else if (stage.kind == Stage::attention) {
            pool_->run(sequences * stage.heads, [&](int task, int thread) {
                run_attention(stage, batch, task / stage.heads, task % stage.heads,
                              scratch_[static_cast<std::size_t>(thread)]);
            });
        } else {
            const std::vector<std::int32_t>& picked = stage.picked == RowsOf::asked ? batch.asked : batch.starts;
            rows = count(stage.picked);
            for (int row = 0; row < rows; ++row)
                std::copy_n(at(stage.query, picked[row], 0, scratch_[0]), stage.query.width,
                            at(stage.target, row, 0, scratch_[0]));
        }
    }
}

// All memory is made here, before the threads run, so that none of them can fail.
void Program::make_scratch(const Batch& batch) {
    std::size_t longest = 0, packed = 0, widest = 0, attention = 0;
    for (int s = 0; s < batch.sequences; ++s)
        longest = std::max(longest, static_cast<std::size_t>(batch.starts[s + 1] - batch.starts[s]));
    const std::size_t panels = (longest + PANEL - 1) / PANEL * PANEL;
    for (const Stage& stage : stages_) {
        if (stage.kind != Stage::attention) continue;
        const int depth = stage.target.width / stage.heads, depth_panels = round_up(depth, PANEL);
        if (stage.bfloat16) {
            attention = std::max(attention, kernels_.bf16_attention->scratch_bytes(static_cast<int>(longest), depth));
            continue;
        }
        packed = std::max(packed, panels * depth + longest * depth_panels);
        widest = std::max({widest, panels, static_cast<std::size_t>(depth_panels)});
    }
    const auto grow = [](auto& memory, std::size_t size) {
        if (memory.size() < size) memory.resize(size);
    };
    for (Scratch& scratch : scratch_) {
        grow(scratch.local, local_width_ * BLOCK + 1);
        grow(scratch.q, widest_source_ * BLOCK);
        grow(scratch.scales, most_groups_ * BLOCK);
        grow(scratch.sums, most_groups_ * BLOCK);
        grow(scratch.biases, widest_exact_ * BLOCK);
        grow(scratch.row, widest_exact_);
        grow(scratch.outliers, most_outliers_ * BLOCK);
        grow(scratch.outlier_counts, BLOCK);
        grow(scratch.packed, packed);
        grow(scratch.zeros, widest);
        grow(scratch.attention, attention);
        grow(scratch.scores, packed ? panels * QUERIES : 0);
    }
}

float* Program::at(Columns c, int row, int first_row, Scratch& scratch) {
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    if (buffer.local)
        return scratch.local.data() + buffer.offset * BLOCK + std::ptrdiff_t(row - first_row) * buffer.width + c.start;
    return memory_[static_cast<std::size_t>(c.buffer)].data() + std::ptrdiff_t(row) * buffer.width + c.start;
}

void Program::run_rows(const Stage& stage, const Batch& batch, int first, int last, Scratch& scratch) {
    const Step* quantised = nullptr;  // the step whose source stands quantised in the scratch
    for (std::size_t i = 0; i < stage.steps.size(); ++i) {
        const Step& step = stage.steps[i];
        if (i + 1 < stage.steps.size() && stage.steps[i + 1].by_group) {
            const Step& next = stage.steps[++i];
            for (int g = 0; g < step.groups; ++g)
                for (const Step* each : {&step, &next}) {
                    if (each->kind == Step::linear_s8) quantize(*each, {g, 1}, first, last, scratch);
                    run_linear(*each, {g, 1}, first, last, scratch);
                }
            quantised = nullptr;
            continue;
        }
        switch (step.kind) {
            case Step::lookup: run_lookup(step, batch, first, last, scratch); break;
            case Step::linear: run_linear(step, {0, step.groups}, first, last, scratch); break;
            case Step::linear_s8:
                if (!quantised || quantised->groups != step.groups || !same(quantised->source, step.source) ||
                    quantised->outliers != step.outliers) {
                    quantize(step, {0, step.groups}, first, last, scratch);
                    quantised = &step;
                }
                run_linear(step, {0, step.groups}, first, last, scratch);
                break;
            case Step::layer_norm: {
                const int width = step.target.width;
                for (int row = first; row < last; ++row)
                    kernels_.layer_norm(at(step.source, row, first, scratch), width, step.packed, step.bias.data(),
                                        step.eps, at(step.target, row, first, scratch));
                break;
            }
        }
        if (quantised && overlap(quantised->source, step.target)) quantised = nullptr;
    }
}

void Program::run_lookup(const Step& step, const Batch& batch, int first, int last, Scratch& scratch) {
    for (int row = first; row < last; ++row) {
        const int s = batch.sequence_of[static_cast<std::size_t>(row)];
        int entry = -1;  // zeros
        switch (step.index) {
            case Index::word: entry = batch.ids[row]; break;
            case Index::next_word: entry = row + 1 < batch.starts[s + 1] ? batch.ids[row + 1] : -1; break;
            case Index::previous_word: entry = row > batch.starts[s] ? batch.ids[row - 1] : -1; break;
            case Index::position: entry = row - batch.starts[s]; break;
            case Index::segment: entry = batch.segments[row]; break;
        }
        float* out = at(step.target, row, first, scratch);
        const int width = step.target.width;
        const std::ptrdiff_t place = std::ptrdiff_t(std::max(entry, 0)) * width;
        if (entry < 0) {
            if (!step.add) std::fill_n(out, width, 0.0f);
        } else if (step.table_s8.owner) {
            if (!step.add) std::fill_n(out, width, 0.0f);
            kernels_.add_s8(step.table_s8.data + place, step.table_scales.data[entry], width, out);
        } else if (step.add) {
            const float* values = step.table.data + place;
            for (int i = 0; i < width; ++i) out[i] += values[i];
        } else {
            std::copy_n(step.table.data + place, width, out);
        }
    }
}

void Program::quantize(const Step& step, Groups groups, int first, int last, Scratch& scratch) {
    const int k = step.source.width / step.groups, rows = last - first, padded = round_up(k, 4);
    for (int row = 0; row < rows; ++row) {
        const float* x = at(step.source, first + row, first, scratch);
        if (step.outliers) {
            std::int32_t* which = scratch.outliers.data() + std::ptrdiff_t(row) * step.outliers;
            const int count = kernels_.find_outliers(x, k, step.outliers, which);
            scratch.outlier_counts.data()[row] = count;
            if (count) {  // they are zeros among what is rounded
                x = std::copy_n(x, k, scratch.row.data()) - k;
                for (int i = 0; i < count; ++i) scratch.row.data()[which[i]] = 0.0f;
            }
        }
        for (int g = 0; g < groups.count; ++g) {
            const std::ptrdiff_t place = std::ptrdiff_t(g) * rows + row;
            kernels_.quantize(x + std::ptrdiff_t(groups.first + g) * k, k, scratch.q.data() + place * padded,
                              scratch.scales.data() + place, scratch.sums.data() + place);
        }
    }
}

void Program::run_linear(const Step& step, Groups groups, int first, int last, Scratch& scratch) {
    const int rows = last - first;
    const int n = step.target.width / step.groups, k = step.source.width / step.groups, padded = round_up(k, 4);
    const auto stride = [&](Columns c) { return std::ptrdiff_t(buffers_[static_cast<std::size_t>(c.buffer)].width); };
    const std::ptrdiff_t target_stride = stride(step.target);
    float* out = at(step.target, first, first, scratch);
    for (int g = groups.first; g < groups.first + groups.count; ++g) {
        const std::ptrdiff_t shift = std::ptrdiff_t(g) * n;
        Epilogue epilogue{step.bias.data() + shift, 0, step.activation, nullptr, 0, nullptr};
        if (step.has_residual) {
            epilogue.residual = at(step.residual, first, first, scratch) + shift;
            epilogue.residual_stride = stride(step.residual);
            if (step.residual_scale.size()) epilogue.residual_scale = step.residual_scale.data() + shift;
        }
        if (step.kind == Step::linear) {
            const std::size_t panel = static_cast<std::size_t>(round_up(n, PANEL)) * k;
            kernels_.linear_f32(at(step.source, first, first, scratch) + std::ptrdiff_t(g) * k, stride(step.source), rows,
                                step.packed + panel * g, n, k, epilogue, out + shift, target_stride);
        } else {
            const std::size_t panel = static_cast<std::size_t>(round_up(n, PANEL)) * padded;
            const std::ptrdiff_t place = std::ptrdiff_t(g - groups.first) * rows;
            const std::int32_t* counts = scratch.outlier_counts.data();
            if (step.outliers && std::any_of(counts, counts + rows, [](int count) { return count > 0; })) {
                epilogue.bias = scratch.biases.data();
                epilogue.bias_stride = round_up(n, PANEL);
                for (int row = 0; row < rows; ++row)
                    kernels_.add_outliers(at(step.source, first + row, first, scratch),
                                          scratch.outliers.data() + std::ptrdiff_t(row) * step.outliers,
                                          counts[row], step.packed, step.bias.data(), n, k,
                                          scratch.biases.data() + row * epilogue.bias_stride);
            }
            kernels_.linear_s8(scratch.q.data() + place * padded, scratch.scales.data() + place,
                               scratch.sums.data() + place, rows, step.packed_s8 + panel * g,
                               step.weight_scales.data() + shift, n, k, epilogue, out + shift, target_stride);
        }
    }
}

void Program::run_attention(const Stage& stage, const Batch& batch, int sequence, int head, Scratch& scratch) {
    const int start = batch.starts[sequence], length = batch.starts[sequence + 1] - start;
    const int depth = stage.target.width / stage.heads;
    const auto part = [&](Columns c) { return Columns{c.buffer, c.start + head * depth, depth}; };
    const auto stride = [&](Columns c) { return std::ptrdiff_t(buffers_[static_cast<std::size_t>(c.buffer)].width); };
    if (stage.bfloat16) {
        kernels_.bf16_attention->run(at(part(stage.query), start, 0, scratch), stride(stage.query),
                                     at(part(stage.key), start, 0, scratch), stride(stage.key),
                                     at(part(stage.value), start, 0, scratch), stride(stage.value), length, depth,
                                     at(part(stage.target), start, 0, scratch), stride(stage.target),
                                     scratch.attention.data());
        return;
    }
    const std::size_t keys = static_cast<std::size_t>(round_up(length, PANEL)) * depth;
    const int score_stride = round_up(length, 16);
    pack_f32(at(part(stage.key), start, 0, scratch), stride(stage.key), 1, length, depth, scratch.packed.data());
    float* packed_values = scratch.packed.data() + keys;
    pack_f32(at(part(stage.value), start, 0, scratch), 1, stride(stage.value), depth, length, packed_values);
    const Epilogue plain{scratch.zeros.data(), 0, Activation::none, nullptr, 0, nullptr};
    for (int row = 0; row < length; row += QUERIES) {
        const int rows = std::min(QUERIES, length - row);
        float* scores = scratch.scores.data();
        kernels_.linear_f32(at(part(stage.query), start + row, 0, scratch), stride(stage.query), rows,
                            scratch.packed.data(), length, depth, plain, scores, score_stride);
        for (int i = 0; i < rows; ++i) kernels_.softmax(scores + std::ptrdiff_t(i) * score_stride, length);
        kernels_.linear_f32(scores, score_stride, rows, packed_values, depth, length, plain,
                            at(part(stage.target), start + row, 0, scratch), stride(stage.target));
    }
}

std::size_t Program::workspace_bytes() const {
    std::size_t bytes = 0;
    for (const Aligned<float>& memory : memory_) bytes += memory.bytes();
    for (const Scratch& s : scratch_) {
        for (const auto* memory : {&s.local, &s.scores, &s.packed, &s.zeros, &s.scales, &s.biases, &s.row})
            bytes += memory->bytes();
        for (const auto* memory : {&s.sums, &s.outliers, &s.outlier_counts}) bytes += memory->bytes();
        bytes += s.q.bytes() + s.attention.bytes();
    }
    return bytes;
}

int Program::rows(Columns c) const {
    require(c.buffer >= 0 && c.buffer < static_cast<int>(buffers_.size()), "there is no such buffer");
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    require(c.width > 0 && c.start >= 0 && c.start <= buffer.width - c.width, "columns beyond their buffer");
    const auto after = buffer.written.upper_bound(c.start);
    require(!buffer.local && after != buffer.written.begin() && std::prev(after)->second >= c.start + c.width,
            "an output is a buffer that is written and not local");
    return count(buffer.rows);
}

// Of the last run.
int Program::count(RowsOf rows) const {
    return rows == RowsOf::tokens ? tokens_ : rows == RowsOf::asked ? asked_ : sequences_;
}

void Program::read(Columns c, float* out) const {
    const int count = rows(c);
    if (count == 0) return;
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    const float* from = memory_[static_cast<std::size_t>(c.buffer)].data() + c.start;
    for (int row = 0; row < count; ++row) std::copy_n(from + std::ptrdiff_t(row) * buffer.width, c.width, out + std::ptrdiff_t(row) * c.width);
}

}  // namespace pocketbert
