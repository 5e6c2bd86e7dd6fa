"""What the description of a processor says."""

import pytest

from pocketbert.machine import bf16_units


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("avx512f avx512_bf16 avx512_vnni", "avx512_bf16"),
        ("avx512_bf16 amx_bf16 avx512_fp16 amx_tile", "avx512_bf16"),
        ("amx_tile amx_bf16", "amx_bf16"),
        ("avx2 avx512f avx512bw", None),
        ("avx_ne_convert bf16 xavx512_bf16", None),
        ("", None),
    ],
)
def test_units_for_bf16(flags: str, units: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketbert.machine.processor_description", lambda: f"flags\t\t: fpu {flags}\nstepping : 1\n")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert bf16_units() == units
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core_amx")
    assert bf16_units() == units
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert bf16_units() is None
