"""The machine's peak is a rate of the right order, for every set of kernels that the processor has."""

import pytest

from pocketbert.bench.roofline import ARITHMETIC, peaks, roofline
from pocketbert.runtime.engine import native_core

pytestmark = pytest.mark.skipif(native_core() is None, reason="the native core was not built")


@pytest.mark.slow
def test_the_peaks_of_every_set_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketbert._core import available_kernels, capabilities

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
    from pocketbert._core import peak_flops

    with pytest.raises(ValueError, match="arithmetic"):
        peak_flops("int4", 1, "portable")
    with pytest.raises(ValueError, match="threads"):
        peak_flops("int8", 0, "portable")
    with pytest.raises(ValueError, match="no kernels mmx"):
        peak_flops("int8", 1, "mmx")
