"""The machine's limit: it is a rate, of the right order, for every set of kernels that the processor has."""

import pytest

from pocketbert.runtime.engine import native_core, usable_threads

pytestmark = pytest.mark.skipif(native_core() is None, reason="the native core was not built")


def test_the_limit_is_measured() -> None:
    from pocketbert._core import limit

    core = native_core()
    assert core is not None
    best = core(1).kernels
    for kernels in {"portable", best}:
        for arithmetic in ("fp32", "int8"):
            rate = limit(arithmetic, usable_threads(), kernels)
            assert rate is not None
            assert 1e8 < rate < 1e16
    assert limit("bf16", 1, "portable") is None
    assert limit("fp32", 1, "of another processor") is None


def test_what_is_refused() -> None:
    from pocketbert._core import limit

    with pytest.raises(ValueError, match="arithmetic"):
        limit("int4", 1, "portable")
    with pytest.raises(ValueError, match="threads"):
        limit("int8", 0, "portable")
