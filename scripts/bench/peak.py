"""Measure the machine's matrix-multiply peak: python -m scripts.bench.peak [PRECISION ...] prints JSON, FLOP/s."""

import argparse
import json
import time

import torch

from rlhf_cli.models.device import pick_device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = {"cpu": 2048, "gpu": 8192}
ROUNDS = 12


def main() -> None:
    """Print the peak in each precision that is asked for; one the processor lacks takes minutes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("precision", nargs="+", choices=DTYPES)
    parser.add_argument("--device", choices=SIZES, default="cpu")
    arguments = parser.parse_args()
    device = arguments.device
    pick_device()  # the peak is that of the library which the stages use
    torch.backends.cuda.matmul.allow_tf32 = False
    peaks = {
        precision: measure_peak(DTYPES[precision], SIZES[device], device) for precision in arguments.precision
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
