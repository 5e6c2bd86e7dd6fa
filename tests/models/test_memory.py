"""Memory that training keeps."""

import platform
import resource

import pytest
import torch

from pocketbert.models.cpu import keep_freed_memory


def faults_of_a_large_block() -> int:
    """Pages that the system had to provide for 64 MB, which are free again afterwards."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_freed_memory_is_used_again() -> None:
    keep_freed_memory()
    assert min(faults_of_a_large_block() for _ in range(5)) < 1000  # of 16,384 pages
