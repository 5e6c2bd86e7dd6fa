"""The machine's peak is a rate of the right order, for every set of kernels that the processor has."""

import pytest

from pocketbert.bench.roofline import ARITHMETIC, machine_peak
from pocketbert.runtime.engine import native_core

pytestmark = pytest.mark.skipif(native_core() is None, reason="the native core was not built")


def test_the_peak_of_every_set_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from pocketbert._core import available_kernels, capabilities

    for kernels in available_kernels():
        monkeypatch.setenv("POCKETBERT_KERNEL", kernels)
        peak = machine_peak()
        assert peak.keys() == set(ARITHMETIC) - (set() if capabilities(kernels).bf16_attention else {"bf16"})
        assert all(1e8 < rate < 1e16 for rate in peak.values())


def test_errors() -> None:
    from pocketbert._core import peak_flops

    with pytest.raises(ValueError, match="arithmetic"):
        peak_flops("int4", 1, "portable")
    with pytest.raises(ValueError, match="threads"):
        peak_flops("int8", 0, "portable")
    with pytest.raises(ValueError, match="no kernels mmx"):
        peak_flops("int8", 1, "mmx")
