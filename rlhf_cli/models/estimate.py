"""How much memory training will take, from the configuration alone: no weights are read.

Weights, gradients and moments are exact. Activations are a rule of thumb: 48 bytes per token, layer and unit of width
at 16 bit, twice that at 32. It is fitted to one Llama (8 layers, width 512, 3,900 tokens in fp32 on a CPU); other
families may be half as large again. Python and its libraries take about 0.4 GiB more.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_cli.config.sections import Loop, Model
from rlhf_cli.models.device import micro_tokens_for, num_parameters, pick_device
from rlhf_cli.models.load import Vocabulary, model_without_weights

_BYTES_PER_UNIT = 48
_GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes, by what takes them."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations


def estimate(
    section: Model, loop: Loop, vocabulary: Vocabulary, *, num_trained: int = 1, num_frozen: int = 0
) -> Memory:
    """Estimate the memory of `num_trained` models that learn and `num_frozen` beside them, all of one size.

    With LoRA they share one base.
    """
    model = model_without_weights(section, vocabulary)
    total, trainable = num_parameters(model), num_parameters(model, trainable_only=True)
    on_gpu = pick_device().type == "cuda"
    half = section.dtype == "bfloat16" or (section.dtype == "auto" and section.lora is not None and on_gpu)
    num_bases = 1 if section.lora else num_trained + num_frozen
    shared, own = (total - trainable, trainable) if section.lora else (total, 0)
    config = model.config.get_text_config()
    tokens = micro_tokens_for(loop.micro_tokens, pick_device())
    num_kept = 1 if loop.gradient_checkpointing is True else int(config.num_hidden_layers)
    per_token = _BYTES_PER_UNIT * int(config.hidden_size) * num_kept + 2 * int(config.vocab_size)
    width = 1 if loop.precision == "bfloat16" or (loop.precision == "auto" and on_gpu) else 2
    return Memory(
        weights=num_bases * shared * (2 if half else 4) + num_trained * own * 4,
        gradients=num_trained * trainable * 4,
        moments=num_trained * trainable * 8,
        activations=num_trained * tokens * per_token * width,
    )


def memory_in_words(
    section: Model, loop: Loop, vocabulary: Vocabulary, *, num_trained: int = 1, num_frozen: int = 0
) -> str:
    """Say how much memory training will take, of how much there is, and what to change where that is too much."""
    needed = estimate(section, loop, vocabulary, num_trained=num_trained, num_frozen=num_frozen)
    parts = {
        "weights": needed.weights,
        "gradients": needed.gradients,
        "AdamW": needed.moments,
        "activations, roughly": needed.activations,
    }
    words = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in parts.items())
    line = f"memory: about {needed.total / _GIB:.2f} GiB ({words})"
    free = free_memory()
    if free is None:
        return line
    line += f"; {free / _GIB:.1f} GiB are free"
    if needed.total > free:
        line += "\nwarning: that is more than is free: lower train.micro_tokens, set train.gradient_checkpointing: true"
        line += " or train.precision: bfloat16, or train a LoRA (model.lora)"
    return line


def free_memory() -> int | None:
    """Return the free bytes of the GPU, else of the machine; None where the system does not say."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    rows = dict(line.split(":") for line in table.read_text().splitlines() if ":" in line)
    return int(rows["MemAvailable"].split()[0]) * 1024
