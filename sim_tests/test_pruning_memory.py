"""Memory: what is freed is there for the next step."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from zeroskip.pruning.memory import keep_freed_memory

BLOCK = 5_000_000
PAGE = resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_freed_memory_is_not_fetched_from_the_system_again():
    keep_freed_memory()
    for _ in range(3):
        torch.ones(BLOCK)
    # Each time anew it would be all pages of the block, ten times; the system may take some back at any time.
    assert min(_faults_of_ten() for _ in range(8)) < BLOCK * 4 // PAGE


def _faults_of_ten() -> int:
    """Return how many pages the system hands out while ten blocks are asked for and given back."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
