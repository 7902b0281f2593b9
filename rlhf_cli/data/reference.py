"""Reference log-probs of preference pairs: computed once, kept on disk, attached to the pairs."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from rlhf_cli.data.encode import EncodedPair
from rlhf_cli.run.directory import write_atomic
from rlhf_cli.run.ranks import Ranks

_PAIRS_PER_FILE = 1024  # what an interruption can lose


def with_reference(
    pairs: Sequence[EncodedPair],
    compute: Callable[[Sequence[EncodedPair]], Tensor],
    *,
    folder: Path,
    model_digest: str,
    ranks: Ranks | None = None,
) -> list[EncodedPair]:
    """Attach reference log-probs to pairs; `compute` gives them as [N, 2] (chosen, rejected), in order.

    They are read from `folder` when the same model has scored the same tokens there before. A thousand pairs at a
    time are computed and kept, so that an interrupted run goes on where it was.
    """
    attached: list[EncodedPair] = []
    for start in range(0, len(pairs), _PAIRS_PER_FILE):
        block = pairs[start : start + _PAIRS_PER_FILE]
        path = folder / f"reference-{_key(block, model_digest)}.safetensors"
        logprobs = _logprobs(block, compute, path, ranks or Ranks())
        attached += [
            dataclasses.replace(pair, reference_logprobs=(chosen, rejected))
            for pair, (chosen, rejected) in zip(block, logprobs.tolist(), strict=True)
        ]
    return attached


def _logprobs(
    pairs: Sequence[EncodedPair],
    compute: Callable[[Sequence[EncodedPair]], Tensor],
    path: Path,
    ranks: Ranks,
) -> Tensor:
    known = ranks.lead(lambda: load_file(path)["logprobs"].tolist() if path.exists() else None)
    if known is not None:
        return torch.tensor(known)
    logprobs = compute(pairs)

    def keep() -> None:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, save({"logprobs": logprobs}))

    ranks.lead(keep)
    return logprobs


def _key(pairs: Sequence[EncodedPair], model_digest: str) -> str:
    digest = hashlib.sha256(model_digest.encode())
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            digest.update(len(side.input_ids).to_bytes(8, "little"))
            digest.update(np.asarray(side.input_ids, dtype=np.int64).tobytes())
            digest.update(np.asarray(side.loss_mask, dtype=np.bool_).tobytes())
    return digest.hexdigest()[:16]
