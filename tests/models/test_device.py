"""Products in fp32 stay fp32, whichever library multiplies."""

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
