"""The processor of this machine, as the system describes it."""

from __future__ import annotations

import platform
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
