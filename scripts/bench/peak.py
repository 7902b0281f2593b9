"""Measure the machine's matrix-multiply peak: python -m scripts.bench.peak [--device cpu|gpu] prints JSON, FLOP/s."""

import argparse
import json
import time

import torch

from rlhf_cli.models.device import pick_device

SIZES = {"cpu": 2048, "gpu": 8192}
ROUNDS = 12


def main() -> None:
    """Print the peak in both precisions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=SIZES, default="cpu")
    device = parser.parse_args().device
    pick_device()  # the peak is that of the library which the stages use
    torch.backends.cuda.matmul.allow_tf32 = False
    peaks = {
        str(dtype).removeprefix("torch."): measure_peak(dtype, SIZES[device], device)
        for dtype in (torch.float32, torch.bfloat16)
    }
    print(json.dumps(peaks))


def measure_peak(dtype: torch.dtype, size: int, device: str) -> float:
    """Multiply two square matrices `ROUNDS` times and give the fastest, in FLOP/s."""
    where = "cuda" if device == "gpu" else "cpu"
    left, right = (torch.randn(size, size, device=where).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        torch.mm(left, right)
        if where == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
