"""What encoded rows are, in one number: the same for the same tokens, labels and order."""

import hashlib
import json
from collections.abc import Iterable

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.encode import EncodedPair, EncodedPrompt, EncodedText

Row = EncodedText | EncodedPair | EncodedPrompt


def fingerprint(rows: Iterable[Row]) -> str:
    """Return the SHA-256 of rows in their order: everything of them that training, or a reward function, can see."""
    digest = hashlib.sha256()
    for row in rows:
        for part in _parts(row):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of a vocabulary with its ids."""
    return _of_text(json.dumps(tokenizer.get_vocab(), sort_keys=True))


def template_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of a chat template."""
    return _of_text(str(tokenizer.chat_template))


def _parts(row: Row) -> Iterable[bytes]:
    if isinstance(row, EncodedText):
        yield np.asarray(row.input_ids, dtype=np.int64).tobytes()
        yield np.asarray(row.loss_mask, dtype=np.bool_).tobytes()
        yield row.num_prompt.to_bytes(8, "little")
    elif isinstance(row, EncodedPair):
        yield from _parts(row.chosen)
        yield from _parts(row.rejected)
        yield np.asarray([row.p_chosen, row.margin], dtype=np.float64).tobytes()
    else:
        yield np.asarray(row.input_ids, dtype=np.int64).tobytes()
        yield json.dumps(dict(row.record.extra), sort_keys=True, default=str).encode()


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
