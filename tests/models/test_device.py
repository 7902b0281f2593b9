"""What is asked of the libraries of a CPU: exact fp32 products, and memory that is used again."""

import platform
import resource

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_memory_that_a_tensor_leaves_is_used_again() -> None:
    pick_device()
    faults = []
    for _ in range(16):  # it takes a few until there are gaps of the right size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(2**24).fill_(1.0)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    num_pages = 4 * 2**24 // resource.getpagesize()
    assert sum(faults[-4:]) < num_pages / 16
