"""Encoded rows kept on disk: what the same tokenizer has encoded in the same way once is read, not encoded again."""

import hashlib
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.encode import Block, EncodedText
from rlhf_cli.run.directory import write_atomic

_VERSION = 1  # another number for another way to encode


class TokenCache:
    """A folder with one file for each block of rows, named by the hash of all that decides its content.

    settings    what else than tokenizer and texts decides how rows are encoded
    """

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, settings: object) -> None:
        backend = tokenizer.backend_tokenizer.to_str()
        specials = sorted(tokenizer.special_tokens_map.items())
        told = (_VERSION, backend, tokenizer.chat_template, specials, settings)
        self._folder = folder
        self._identity = hashlib.sha256(repr(told).encode("utf-8", "surrogatepass")).digest()

    def block(self, texts: object, origins: Sequence[str], encode: Callable[[], Block]) -> Block:
        """Read the block of these texts, or encode and write it."""
        digest = hashlib.sha256(self._identity + repr(texts).encode("utf-8", "surrogatepass")).hexdigest()
        path = self._folder / f"tokens-{digest[:32]}.safetensors"
        if path.exists():
            return _read(path, origins)
        block = encode()
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, _bytes_of(block))
        return block


def _read(path: Path, origins: Sequence[str]) -> Block:
    columns = load_file(path)
    ids = array("i", columns["input_ids"].numpy().tobytes())
    mask = array("b", columns["loss_mask"].numpy().tobytes())
    borders = pairwise(accumulate(columns["sizes"].tolist(), initial=0))
    rows = [
        EncodedText.compact(ids[begin:end], mask[begin:end], num_prompt, origin)
        for (begin, end), num_prompt, origin in zip(
            borders, columns["num_prompt"].tolist(), origins, strict=True
        )
    ]
    return Block(rows, int(columns["num_spelled_out"]))


def _bytes_of(block: Block) -> bytes:
    rows = block.rows
    columns = {
        "sizes": torch.tensor([len(row.input_ids) for row in rows], dtype=torch.int32),
        "num_prompt": torch.tensor([row.num_prompt for row in rows], dtype=torch.int32),
        "input_ids": torch.from_numpy(np.concatenate([np.asarray(row.input_ids, np.int32) for row in rows])),
        "loss_mask": torch.from_numpy(np.concatenate([np.asarray(row.loss_mask, np.int8) for row in rows])),
        "num_spelled_out": torch.tensor(block.num_spelled_out),
    }
    return save(columns)
