// The parts of a training step in bfloat16 that are not products of weights, each in one pass over its rows.
#pragma once

#include "include/pocketbert.h"

namespace pocketbert {

struct TrainingLoops {
    void (*norm)(const pb_team&, const pb_norm_pass&);
    void (*norm_gradient)(const pb_team&, const pb_norm_pass&);
    void (*activation)(const pb_team&, const pb_activation_pass&);
    void (*activation_gradient)(const pb_team&, const pb_activation_pass&);
    void (*attention)(const pb_team&, const pb_attention_pass&);
    void (*attention_gradient)(const pb_team&, const pb_attention_pass&);
    void (*difference)(const pb_team&, const pb_difference_pass&);
    double (*square_sum)(const pb_team&, const pb_adamw_pass&);
    void (*adamw)(const pb_team&, const pb_adamw_pass&);
};

// On tile registers, and on vectors with instructions for bfloat16.
extern const TrainingLoops training_on_tiles, training_on_vectors;

}  // namespace pocketbert
