"""The processor of this machine, as the system describes it."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path


@cache
def processor_description() -> str:
    """All that the system reports about the processor: on Linux the contents of /proc/cpuinfo."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()


def processor_name() -> str:
    """The model name of the processor, or else its architecture."""
    lines = processor_description().splitlines()
    names = (" ".join(line.partition(":")[2].split()) for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def bf16_units() -> str | None:
    """The instructions that multiply bf16 with twice the speed of fp32 or more: AMX or AVX512-BF16; None without any.

    By rule and not by measuring: all processors that have them gain, and one machine always answers the same. Only
    Linux reports instructions. None as well where ONEDNN_MAX_CPU_ISA keeps PyTorch from using them.
    """
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not any(name in most for name in ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")):
        return None
    found = re.search(r"\b(amx_bf16|avx512_bf16)\b", processor_description())
    return found[0] if found else None
