#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <stdexcept>

#include "program.h"

namespace pocketbert {
namespace {

constexpr int QUERIES = 48;  // rows of scores that are computed together
constexpr int MAX_TASKS = 1 << 30;

float widened(std::uint16_t bf16) {
    const std::uint32_t bits = std::uint32_t(bf16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace

void Program::check_batch(const Batch& batch) const {
    require(batch.starts[0] == 0 && batch.starts[batch.sequences] == batch.tokens,
            "starts must begin at 0 and end at the number of tokens");
    for (const std::int32_t row : batch.selected_rows)
        require(row >= 0 && row < batch.tokens, "a selected row is not a token of the batch");
    int longest = 0;
    for (int s = 0; s < batch.sequences; ++s) {
        require(batch.starts[s] < batch.starts[s + 1], "every sequence must have a token");
        longest = std::max(longest, batch.starts[s + 1] - batch.starts[s]);
    }
    for (const Stage& stage : stages_) {
        require(stage.kind != Stage::attention || std::int64_t(batch.sequences) * stage.heads <= MAX_TASKS,
                "too many sequences");
        for (const Step& step : stage.steps) {
            if (step.kind != Step::lookup) continue;
            if (step.index == Index::position) {
                require(longest <= step.entries - (step.uncounted >= 0),
                        "a sequence is longer than the table of positions");
                continue;
            }
            for (const std::int32_t id : step.index == Index::segment ? batch.segments : batch.ids)
                require(id >= 0 && id < step.entries, "an id is outside its table");
        }
    }
}

void Program::run(const std::int32_t* ids, const std::int32_t* segments, int tokens, const std::int32_t* starts,
                  int sequences, const std::int32_t* selected_rows, int selected_count) {
    Batch batch{{ids, ids + tokens},
                {segments, segments + tokens},
                {starts, starts + sequences + 1},
                tokens,
                sequences,
                {},
                {},
                {}};
    require(selects_ || !selected_rows, "this program gathers no selected rows");
    if (selected_rows) {
        batch.selected_rows.assign(selected_rows, selected_rows + selected_count);
    } else if (selects_) {
        batch.selected_rows.resize(static_cast<std::size_t>(tokens));
        std::iota(batch.selected_rows.begin(), batch.selected_rows.end(), 0);
    }
    check_batch(batch);
    batch.sequence_of.reserve(static_cast<std::size_t>(tokens));
    for (int s = 0; s < sequences; ++s)
        batch.sequence_of.insert(batch.sequence_of.end(), batch.starts[s + 1] - batch.starts[s], s);
    if (uncounted_ >= 0) {
        batch.counted.reserve(static_cast<std::size_t>(tokens));
        for (int s = 0; s < sequences; ++s)
            for (int row = batch.starts[s], count = 0; row < batch.starts[s + 1]; ++row)
                batch.counted.push_back(batch.ids[row] == uncounted_ ? 0 : ++count);
    }
    tokens_ = tokens, sequences_ = sequences, selected_ = static_cast<int>(batch.selected_rows.size());

    if (!is_laid_out_) lay_out();
    for (std::size_t b = 0; b < buffers_.size(); ++b) {
        const std::size_t size =
            std::size_t(count(buffers_[b].rows)) * buffers_[b].stride / (buffers_[b].is_bf16 ? 2 : 1);
        if (!buffers_[b].local && memory_[b].size() < size) memory_[b].resize(size);
    }
    make_scratch(batch);
    const Pool::ActiveScope active(*pool_);

    int rows = tokens;
    for (const Stage& stage : stages_) {
        if (stage.kind == Stage::rows) {
            // Blocks as even as they can be, and a whole number of them for every thread.
            const int threads = pool_->threads(), unit = kernels_.row_multiple, units = (rows + unit - 1) / unit;
            const int blocks =
                std::min(units, round_up(std::max(1, (rows + kernels_.row_block - 1) / kernels_.row_block), threads));
            pool_->run(blocks, [&](int block, int thread) {
                const KernelScope scope(kernels_);
                const int first = unit * static_cast<int>(std::int64_t(units) * block / blocks);
                const int last = std::min(rows, unit * static_cast<int>(std::int64_t(units) * (block + 1) / blocks));
                run_rows(stage, batch, first, last, scratch_[static_cast<std::size_t>(thread)]);
            });
        } else if (stage.kind == Stage::attention) {
            pool_->run(sequences * stage.heads, [&](int task, int thread) {
                const KernelScope scope(kernels_);
                run_attention(stage, batch, task / stage.heads, task % stage.heads,
                              scratch_[static_cast<std::size_t>(thread)]);
            });
        } else {
            const bool selected = stage.gathered == RowsOf::selected;
            const std::vector<std::int32_t>& sources = selected ? batch.selected_rows : batch.starts;
            rows = count(stage.gathered);
            for (int row = 0; row < rows; ++row)
                std::copy_n(at(stage.query, sources[row], 0, scratch_[0]), stage.query.width,
                            at(stage.target, row, 0, scratch_[0]));
        }
    }
    if (const char* const reason = kernels_.refusal ? kernels_.refusal() : nullptr) throw std::runtime_error(reason);
}

// All memory is allocated here, before the threads run, so that none of them can fail.
void Program::make_scratch(const Batch& batch) {
    std::size_t longest = 0, packed = 0, widest = 0, attention = 0, converted = 0, distances = 0;
    for (int s = 0; s < batch.sequences; ++s)
        longest = std::max(longest, static_cast<std::size_t>(batch.starts[s + 1] - batch.starts[s]));
    const std::size_t panels = (longest + PANEL - 1) / PANEL * PANEL;
    for (const Stage& stage : stages_) {
        if (stage.kind != Stage::attention) continue;
        const int depth = stage.target.width / stage.heads, depth_panels = round_up(depth, PANEL);
        if (stage.bfloat16) {
            attention = std::max(attention, kernels_.bf16_attention->scratch_bytes(static_cast<int>(longest), depth));
            for (const Columns c : {stage.query, stage.key, stage.value})
                if (!buffers_[static_cast<std::size_t>(c.buffer)].is_bf16)
                    converted = std::max(converted, 3 * longest * depth);
            continue;
        }
        packed = std::max(packed, panels * depth + longest * depth_panels);
        widest = std::max({widest, panels, static_cast<std::size_t>(depth_panels)});
        if (stage.bias_width) distances = 2 * longest;
    }
    const auto grow = [](auto& memory, std::size_t size) {
        if (memory.size() < size) memory.resize(size);
    };
    for (Scratch& scratch : scratch_) {
        grow(scratch.local, local_width_ * kernels_.row_block + 1);
        grow(scratch.q, quantized_bytes_);
        grow(scratch.scales, most_groups_ * kernels_.row_block);
        grow(scratch.sums, most_groups_ * kernels_.row_block);
        grow(scratch.biases, widest_outlier_step_ * kernels_.row_block);
        grow(scratch.row, widest_outlier_step_);
        grow(scratch.outliers, most_outliers_ * kernels_.row_block);
        grow(scratch.outlier_counts, kernels_.row_block);
        grow(scratch.packed, packed);
        grow(scratch.zeros, widest);
        grow(scratch.attention, attention);
        grow(scratch.converted, converted);
        grow(scratch.distances, distances);
        grow(scratch.scores, packed ? panels * QUERIES : 0);
    }
}

float* Program::at(Columns c, int row, int first_row, Scratch& scratch) {
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    if (buffer.local)
        return scratch.local.data() + buffer.offset * kernels_.row_block +
               std::ptrdiff_t(row - first_row) * buffer.stride + c.start;
    return memory_[static_cast<std::size_t>(c.buffer)].data() + std::ptrdiff_t(row) * buffer.stride + c.start;
}

std::uint16_t* Program::at_bf16(Columns c, int row) {
    auto* const numbers = reinterpret_cast<std::uint16_t*>(memory_[static_cast<std::size_t>(c.buffer)].data());
    return numbers + row * stride(c) + c.start;
}

void Program::run_rows(const Stage& stage, const Batch& batch, int first, int last, Scratch& scratch) {
    const Step* quantised = nullptr;  // the step whose source is in the scratch, quantised
    for (std::size_t i = 0; i < stage.steps.size(); ++i) {
        const Step& step = stage.steps[i];
        if (i + 1 < stage.steps.size() && stage.steps[i + 1].fused_with_previous) {
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
            case Index::position: entry = step.uncounted < 0 ? row - batch.starts[s] : batch.counted[row]; break;
            case Index::segment: entry = batch.segments[row]; break;
        }
        float* out = at(step.target, row, first, scratch);
        const int width = step.target.width;
        const std::ptrdiff_t offset = std::ptrdiff_t(std::max(entry, 0)) * width;
        if (entry < 0) {
            if (!step.add) std::fill_n(out, width, 0.0f);
        } else if (step.table_s8.owner) {
            if (!step.add) std::fill_n(out, width, 0.0f);
            kernels_.add_s8(step.table_s8.data + offset, step.table_scales.data[entry], width, out);
        } else if (step.add) {
            const float* values = step.table.data + offset;
            for (int i = 0; i < width; ++i) out[i] += values[i];
        } else {
            std::copy_n(step.table.data + offset, width, out);
        }
    }
}

void Program::quantize(const Step& step, Groups groups, int first, int last, Scratch& scratch) {
    const int k = step.source.width / step.groups, rows = last - first;
    const std::size_t group_bytes = kernels_.quantized_bytes(rows, k);
    for (int row = 0; row < rows; ++row) {
        const float* x = at(step.source, first + row, first, scratch);
        if (step.outliers) {
            std::int32_t* indices = scratch.outliers.data() + std::ptrdiff_t(row) * step.outliers;
            const int count = kernels_.find_outliers(x, k, step.outliers, indices);
            scratch.outlier_counts.data()[row] = count;
            if (count) {  // the rounded values are zero there
                x = std::copy_n(x, k, scratch.row.data()) - k;
                for (int i = 0; i < count; ++i) scratch.row.data()[indices[i]] = 0.0f;
            }
        }
        for (int g = 0; g < groups.count; ++g) {
            const std::ptrdiff_t index = std::ptrdiff_t(g) * rows + row;
            kernels_.quantize(x + shift(step.source, groups.first + g, k), k, row, scratch.q.data() + group_bytes * g,
                              scratch.scales.data() + index, scratch.sums.data() + index);
        }
    }
}

void Program::run_linear(const Step& step, Groups groups, int first, int last, Scratch& scratch) {
    const int rows = last - first;
    const int n = step.target.width / step.groups, k = step.source.width / step.groups;
    const bool to_bf16 = buffers_[static_cast<std::size_t>(step.target.buffer)].is_bf16;
    for (int g = groups.first; g < groups.first + groups.count; ++g) {
        const std::ptrdiff_t group = std::ptrdiff_t(g) * n, place = shift(step.target, g, n);
        Epilogue epilogue{step.bias.data() + group, 0, step.activation, nullptr, 0, nullptr};
        float* const out = to_bf16 ? nullptr : at(step.target, first, first, scratch) + place;
        if (to_bf16) epilogue.bf16_out = at_bf16(step.target, first) + place;
        if (step.has_residual) {
            epilogue.residual = at(step.residual, first, first, scratch) + group;
            epilogue.residual_stride = stride(step.residual);
            if (step.residual_scale.size()) epilogue.residual_scale = step.residual_scale.data() + group;
        }
        if (step.kind == Step::linear) {
            const std::size_t panel = static_cast<std::size_t>(round_up(n, PANEL)) * k;
            kernels_.linear_f32(at(step.source, first, first, scratch) + shift(step.source, g, k), stride(step.source),
                                rows, step.packed + panel * g, n, k, epilogue, out, stride(step.target));
        } else {
            const std::ptrdiff_t index = std::ptrdiff_t(g - groups.first) * rows;
            const std::int32_t* counts = scratch.outlier_counts.data();
            if (step.outliers && std::any_of(counts, counts + rows, [](int count) { return count > 0; })) {
                epilogue.bias = scratch.biases.data();
                epilogue.bias_stride = round_up(n, PANEL);
                for (int row = 0; row < rows; ++row)
                    kernels_.add_outliers(at(step.source, first + row, first, scratch),
                                          scratch.outliers.data() + std::ptrdiff_t(row) * step.outliers, counts[row],
                                          step.packed, step.bias.data(), n, k,
                                          scratch.biases.data() + row * epilogue.bias_stride);
            }
            kernels_.linear_s8(scratch.q.data() + kernels_.quantized_bytes(rows, k) * (g - groups.first),
                               scratch.scales.data() + index, scratch.sums.data() + index, rows,
                               step.packed_s8 + kernels_.packed_s8_bytes(n, k) * g, step.weight_scales.data() + group,
                               n, k, epilogue, out, stride(step.target));
        }
    }
}

// Rows of tokens in bfloat16: as they are, or rounded to `memory`.
Program::Bf16Rows Program::in_bf16(Columns c, int first, int length, std::uint16_t* memory) {
    if (buffers_[static_cast<std::size_t>(c.buffer)].is_bf16) return {at_bf16(c, first), stride(c)};
    for (int row = 0; row < length; ++row)
        kernels_.bf16_attention->round(at(c, first + row, 0, scratch_[0]), c.width,
                                       memory + std::ptrdiff_t(row) * c.width);
    return {memory, c.width};
}

void Program::run_attention(const Stage& stage, const Batch& batch, int sequence, int head, Scratch& scratch) {
    const int start = batch.starts[sequence], length = batch.starts[sequence + 1] - start;
    const int depth = stage.target.width / stage.heads;
    const auto part = [&](Columns c) { return Columns{c.buffer, c.start + head * depth, depth}; };
    if (stage.bfloat16) {
        std::uint16_t* const memory = scratch.converted.data();
        const std::size_t size = static_cast<std::size_t>(length) * depth;
        const Bf16Rows query = in_bf16(part(stage.query), start, length, memory),
                       key = in_bf16(part(stage.key), start, length, memory + size),
                       value = in_bf16(part(stage.value), start, length, memory + 2 * size);
        kernels_.bf16_attention->run(query.data, query.stride, key.data, key.stride, value.data, value.stride, length,
                                     depth, at(part(stage.target), start, 0, scratch), stride(stage.target),
                                     scratch.attention.data());
        return;
    }
    const std::size_t keys = static_cast<std::size_t>(round_up(length, PANEL)) * depth;
    const int score_stride = round_up(length, 16);
    pack_f32(at(part(stage.key), start, 0, scratch), stride(stage.key), 1, length, depth, scratch.packed.data());
    float* packed_values = scratch.packed.data() + keys;
    pack_f32(at(part(stage.value), start, 0, scratch), 1, stride(stage.value), depth, length, packed_values);
    const Epilogue plain{scratch.zeros.data(), 0, Activation::none, nullptr, 0, nullptr};
    Epilogue biased = plain;
    float* distances = scratch.distances.data();
    if (stage
            .bias_width) {  // the bias of each distance from 1 - length on: rows of scores read it, each one before the last
        const int reach = stage.bias_width / 2;
        const float* table = stage.bias.data() + std::ptrdiff_t(head) * stage.bias_width + reach;
        for (int d = 1 - length; d < length; ++d) distances[d + length - 1] = table[std::clamp(d, -reach, reach)];
        biased.residual_stride = -1;
    }
    for (int row = 0; row < length; row += QUERIES) {
        const int rows = std::min(QUERIES, length - row);
        float* scores = scratch.scores.data();
        if (stage.bias_width) biased.residual = distances + (length - 1 - row);
        kernels_.linear_f32(at(part(stage.query), start + row, 0, scratch), stride(stage.query), rows,
                            scratch.packed.data(), length, depth, biased, scores, score_stride);
        for (int i = 0; i < rows; ++i) kernels_.softmax(scores + std::ptrdiff_t(i) * score_stride, length);
        kernels_.linear_f32(scores, score_stride, rows, packed_values, depth, length, plain,
                            at(part(stage.target), start + row, 0, scratch), stride(stage.target));
    }
}

std::size_t Program::workspace_bytes() const {
    std::size_t bytes = 0;
    for (const Aligned<float>& memory : memory_) bytes += memory.bytes();
    for (const Scratch& s : scratch_) {
        for (const auto* memory :
             {&s.local, &s.scores, &s.packed, &s.zeros, &s.scales, &s.biases, &s.row, &s.distances})
            bytes += memory->bytes();
        for (const auto* memory : {&s.sums, &s.outliers, &s.outlier_counts}) bytes += memory->bytes();
        bytes += s.q.bytes() + s.attention.bytes() + s.converted.bytes();
    }
    return bytes;
}

Program::RowsOf Program::rows_of(Columns c) const {
    require(c.buffer >= 0 && c.buffer < static_cast<int>(buffers_.size()), "no such buffer");
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    require(c.width > 0 && c.start >= 0 && c.start <= buffer.width - c.width, "columns are beyond their buffer");
    const auto after = buffer.written.upper_bound(c.start);
    require(!buffer.local && after != buffer.written.begin() && std::prev(after)->second >= c.start + c.width,
            "an output must be a buffer that is written and not local");
    return buffer.rows;
}

// Of the last run.
int Program::count(RowsOf rows) const {
    return rows == RowsOf::tokens ? tokens_ : rows == RowsOf::selected ? selected_ : sequences_;
}

void Program::read(Columns c, float* out) const {
    const int count = rows(c);
    if (count == 0) return;
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    const float* from = memory_[static_cast<std::size_t>(c.buffer)].data() + c.start;
    const auto* from_bf16 = reinterpret_cast<const std::uint16_t*>(memory_[static_cast<std::size_t>(c.buffer)].data());
    for (int row = 0; row < count; ++row) {
        const std::ptrdiff_t at = std::ptrdiff_t(row) * buffer.stride;
        float* const to = out + std::ptrdiff_t(row) * c.width;
        if (buffer.is_bf16) std::transform(from_bf16 + at + c.start, from_bf16 + at + c.start + c.width, to, widened);
        else std::copy_n(from + at, c.width, to);
    }
}

}  // namespace pocketbert
