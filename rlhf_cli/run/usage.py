"""How much memory this process holds by now, on the host and on its CUDA device."""

import os
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")


def memory_words() -> str:
    """Say what is held, such as `memory=1.25GB` or `memory=1.25GB gpu_memory=20.1GB`."""
    words = f"memory={resident_bytes() / 1e9:.3g}GB"
    held = cuda_bytes()
    return f"{words} gpu_memory={held / 1e9:.3g}GB" if held else words


def resident_bytes() -> int:
    """Return the memory held now; where the system does not tell that, the most that was ever held."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cuda_bytes() -> int:
    """Return what torch holds on the CUDA device, 0 without one or before torch is imported."""
    if "torch" not in sys.modules:
        return 0
    import torch

    return int(torch.cuda.memory_reserved()) if torch.cuda.is_available() else 0
