"""The peak is a rate of the right order for every set of kernels of the processor; kernels measure themselves."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pocketbert.bench.roofline import ARITHMETIC, peaks, roofline
from pocketbert.bench.subjects import with_random_weights
from pocketbert.configs import SqueezeBertConfig
from pocketbert.runtime.engine import Engine, NativeRunner, native_core

pytestmark = pytest.mark.skipif(native_core() is None, reason="the native core was not built")


@pytest.mark.slow
def test_the_peaks_of_every_set_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketbert.runtime.core import available_kernels, capabilities

    measured = peaks(all_kernels=True)
    assert list(measured) == available_kernels()
    for kernels, rates in measured.items():
        assert rates.keys() >= set(ARITHMETIC) - {"bf16"}
        assert "bf16" in rates or not capabilities(kernels).bf16_attention
        assert all(1e6 < rate < 1e16 for rate in rates.values())
    fastest, slowest = available_kernels()[0], available_kernels()[-1]
    monkeypatch.setenv("POCKETBERT_KERNEL", slowest)
    assert list(peaks()) == list(dict.fromkeys((slowest, fastest)))


def test_the_roofline_is_the_highest_peak() -> None:
    measured = {"new": {"int8": 5.0, "bf16": 7.0}, "old": {"int8": 3.0, "fp32": 2.0}}
    assert roofline(measured) == {"int8": 5.0, "bf16": 7.0, "fp32": 2.0}
    assert roofline({}) == {}


def test_errors() -> None:
    from pocketbert.runtime.core import peak_flops

    with pytest.raises(ValueError, match="arithmetic"):
        peak_flops("int4", 1, "portable")
    with pytest.raises(ValueError, match="threads"):
        peak_flops("int8", 0, "portable")
    with pytest.raises(ValueError, match="no kernels mmx"):
        peak_flops("int8", 1, "mmx")


def test_timed_kernels_compute_the_same_and_count_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketbert.runtime.core import available_kernels, take_kernel_times, timed_program

    config = SqueezeBertConfig(
        vocab_size=50, hidden_size=64, embedding_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64,
    )  # fmt: skip
    subject = with_random_weights("tiny", config)
    rng = np.random.default_rng()
    starts = np.array([0, 7, 40])
    inputs: Any = rng.integers(0, 50, 40), rng.integers(0, 2, 40), starts
    available = available_kernels()
    for kernels in (available[0], available[-1]):
        monkeypatch.setenv("POCKETBERT_KERNEL", kernels)
        for plan, product, other in ((subject.int8_plan, "linear_s8", "quantize"), (subject.plan, "linear_f32", "")):
            timed = NativeRunner(replace(plan), timed_program(kernels))
            take_kernel_times()
            outputs, wanted = timed(*inputs), Engine(plan, 1).run(*inputs)
            for name, array in wanted.items():
                np.testing.assert_array_equal(outputs[name], array)
            times = dict(take_kernel_times())
            assert times[product] > 0
            assert times["layer_norm"] > 0
            assert other == "" or times[other] > 0
            assert other != "" or times["quantize"] == times["linear_s8"] == 0
    assert not any(seconds for _, seconds in take_kernel_times())
