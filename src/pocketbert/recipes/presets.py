"""Published hyperparameters: option → value. Options that the papers do not mention keep our defaults."""

from __future__ import annotations

from collections.abc import Mapping

PRESETS: Mapping[str, Mapping[str, float]] = {
    # The example command of SqueezeBERT's model card. The paper's distillation uses soft targets alone, as the defaults
    # of `distill` do; their weight and temperature were never published.
    "squeezebert": {"epochs": 10.0, "batch_size": 16, "learning_rate": 3e-5},
    # MobileBERT needs larger rates and more epochs than BERT (Sun et al. 2020, section 4.4): the paper searches batches
    # of 16, 32 or 48, rates from 1e-5 to 1e-4 and 2 to 10 epochs, of which these are the upper end.
    "mobilebert": {"epochs": 10.0, "batch_size": 32, "learning_rate": 1e-4, "warmup": 0.1},
}
