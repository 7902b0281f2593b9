"""Memory and generators: what a step must put back when it is undone, and how much memory it took."""

import resource
import sys
from collections.abc import Mapping

import torch
from torch import Tensor


def rng_tensors() -> dict[str, Tensor]:
    """Collect the generators that dropout draws from; all else has generators of its own."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def set_rng(tensors: Mapping[str, Tensor]) -> None:
    """Put generators back where they were."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def release_memory() -> None:
    """Give back what the allocator holds and nothing uses."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_in_words() -> str:
    """Say how much memory was taken at most so far: of the GPU, else by the process."""
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of the GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
