"""Reference log-probs of preference pairs: computed once, kept on disk, attached to the pairs."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from rlhf_cli.data.encode import EncodedPair
from rlhf_cli.run.directory import write_atomic


def with_reference(
    pairs: Sequence[EncodedPair],
    compute: Callable[[Sequence[EncodedPair]], Tensor],
    *,
    folder: Path,
    model_digest: str,
) -> list[EncodedPair]:
    """Attach reference log-probs to pairs; `compute` gives them as [N, 2] (chosen, rejected), in order.

    They are read from `folder` when the same model has scored the same tokens there before.
    """
    path = folder / f"reference-{_key(pairs, model_digest)}.safetensors"
    if path.exists():
        logprobs = load_file(path)["logprobs"]
    else:
        logprobs = compute(pairs)
        folder.mkdir(exist_ok=True)
        write_atomic(path, save({"logprobs": logprobs}))
    return [
        dataclasses.replace(pair, reference_logprobs=(chosen, rejected))
        for pair, (chosen, rejected) in zip(pairs, logprobs.tolist(), strict=True)
    ]


def _key(pairs: Sequence[EncodedPair], model_digest: str) -> str:
    digest = hashlib.sha256(model_digest.encode())
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            digest.update(torch.tensor([*side.input_ids, -1, *side.loss_mask]).numpy().tobytes())
    return digest.hexdigest()[:16]
