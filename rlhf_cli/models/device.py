"""Where to compute and in which precision."""

import ctypes
import platform
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from rlhf_cli.config.sections import Loop

Autocast = Callable[[], AbstractContextManager[object]]

# Below this many parameters converting to bf16 costs a CPU more than its bf16 units save.
_LEAST_PARAMETERS_FOR_CPU_BF16 = 10_000_000
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MOST_BYTES = 2**31 - 1
_FP32_ERROR = 1e-5  # of the largest element; bf16 is off by a hundred times that


def pick_device() -> torch.device:
    """Choose the first GPU if there is one, else the CPU, with the faster of its libraries for fp32 products."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    _use_onednn_for_fp32()
    _keep_freed_memory()
    return torch.device("cpu")


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep what tensors leave for the next ones, instead of handing it back to the kernel each time.

    The kernel clears every page it hands out. The peak stays what it is; other C libraries do as they always do.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, _MOST_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _MOST_BYTES)


@cache
def _use_onednn_for_fp32() -> None:
    """Let oneDNN multiply fp32 matrices: on AMD's CPUs MKL leaves half of AVX-512 unused.

    PyTorch asks oneDNN only where it is allowed bf16 inside, which oneDNN takes up with AMX alone. Nothing changes
    where there is AMX, no AVX-512, or a product that comes out less exact than fp32.
    """
    flags = _cpu_flags()
    if "avx512f" not in flags or "amx_tile" in flags:
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    if float((left @ right - exact).abs().max() / exact.abs().max()) > _FP32_ERROR:
        torch.set_float32_matmul_precision(before)


def _cpu_flags() -> str:
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.read_text() if cpu_info.exists() else ""


def autocast_for(precision: str, device: torch.device, num_parameters: int) -> Autocast:
    """Give a context manager factory for the forward pass; weights stay as they are loaded.

    `auto` means bf16 where the hardware multiplies it natively: a GPU that supports it, or a CPU with AVX512-BF16
    or AMX and a model of 10M parameters or more.
    """
    if precision == "auto":
        precision = "bfloat16" if _has_fast_bf16(device, num_parameters) else "float32"
    if precision == "float32":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)


def _has_fast_bf16(device: torch.device, num_parameters: int) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    flags = _cpu_flags()
    return num_parameters >= _LEAST_PARAMETERS_FOR_CPU_BF16 and (
        "avx512_bf16" in flags or "amx_bf16" in flags
    )


def micro_tokens_for(setting: str | int, device: torch.device) -> int:
    """Resolve `train.micro_tokens`: tokens per micro-batch. More would make a CPU a few percent faster at best."""
    if isinstance(setting, int):
        return setting
    return 16384 if device.type == "cuda" else 640


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout to zero: with it, the first PPO ratio is not 1 and DPO compares two different models."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Many layers keep their rates as plain numbers and pass them on.
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                vars(module)[name] = 0.0


def num_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Count parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def set_up_training(model: PreTrainedModel, loop: Loop) -> None:
    """Switch on what trades time for memory, or start-up for speed; `auto` waits until memory runs out."""
    model.train()
    if loop.gradient_checkpointing is True:
        recompute_activations(model)
    if loop.compile:
        model.compile(dynamic=True)


def recompute_activations(model: PreTrainedModel) -> None:
    """Compute activations once more in the backward pass instead of keeping them; the gradient stays what it is."""
    with warnings.catch_warnings():  # the name that both older and newer transformers know is deprecated
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
