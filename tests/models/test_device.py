"""What is asked of the libraries of a CPU: exact fp32 products, and memory that is used again."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from rlhf_cli.models.device import pick_device


def test_fp32_products_are_as_exact_as_fp32() -> None:
    pick_device()
    generator = torch.Generator().manual_seed(1)
    for num_rows, depth, num_columns in ((64, 512, 1376), (1024, 64, 64), (1, 512, 512), (7, 33, 5)):
        left = torch.randn(num_rows, depth, generator=generator)
        right = torch.randn(depth, num_columns, generator=generator)
        exact = left.double() @ right.double()
        assert float((left @ right - exact).abs().max() / exact.abs().max()) < 1e-5


FAULTS_OF_ROUNDS = """
import resource
import torch
from rlhf_cli.models.device import pick_device

pick_device()
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(1.0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_memory_that_a_tensor_leaves_is_used_again() -> None:
    """In a process of its own, whose heap nobody else has shaped; it takes a few rounds until a gap has the size."""
    printed = subprocess.run([sys.executable, "-c", FAULTS_OF_ROUNDS], capture_output=True, check=True).stdout
    faults = [int(line) for line in printed.split()]
    num_pages = 4 * 2**24 // resource.getpagesize()
    assert sum(faults[-4:]) < num_pages / 16
