"""Texts to token ids with the places they come from, the private-use stand-ins of special tokens spelled out."""

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from threading import Lock

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_ANCHOR = "\n"

Place = tuple[int, int]
"""The half-open range of characters a token stands for."""

Tokens = tuple[list[int], list[Place]]


class TextTokens:
    """Tokenise texts in which each special token is its sentinel; the ids of special tokens come from markup only.

    front    what the tokenizer puts in front of a text: BOS, or nothing
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sentinels: Mapping[str, str]) -> None:
        self._tokenizer = tokenizer
        self._lock = Lock()  # a call changes how the next ones read special tokens
        self._specials = {sentinel: special for special, sentinel in sentinels.items()}
        self._sentinel = re.compile(f"([{''.join(self._specials)}])")
        self._anchor_ids = self._call([_ANCHOR])[0][0]
        self.front = _ids_in_front(tokenizer)

    def has_special(self, text: str) -> bool:
        """Say whether a special token stands in the text as characters."""
        return self._sentinel.search(text) is not None

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts as `of` does, without the places, which take a third of the time."""
        plain = [text for text in texts if not self.has_special(text)]
        found = iter(self._ids(plain))
        return [self._in_pieces(text)[0] if self.has_special(text) else next(found) for text in texts]

    def of(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenise texts as they are: nothing in front, nothing behind."""
        results: list[Tokens] = [([], [])] * len(texts)
        plain = [i for i, text in enumerate(texts) if not self.has_special(text)]
        for i, tokens in zip(plain, self._call([texts[i] for i in plain]), strict=True):
            results[i] = tokens
        for i in set(range(len(texts))) - set(plain):
            results[i] = self._in_pieces(texts[i])
        return results

    def behind(self, text: str, *, spell_out: bool = False) -> Tokens:
        """Tokenise a text that follows other text; `spell_out` reads special tokens as plain characters.

        Sentencepiece models put a space in front of every text; behind a newline it is not in front.
        """
        if not spell_out and self.has_special(text):
            return self._in_pieces(text, follows=True)
        ids, places = self._call([_ANCHOR + text], spell_out=spell_out)[0]
        num_anchor = len(self._anchor_ids)
        if ids[:num_anchor] != self._anchor_ids:  # it has merged with the text
            return self._call([text], spell_out=spell_out)[0]
        return ids[num_anchor:], moved(places[num_anchor:], -len(_ANCHOR))

    def _in_pieces(self, text: str, *, follows: bool = False) -> Tokens:
        """Tokenise around the sentinels, and each special token as its characters."""
        ids: list[int] = []
        places: list[Place] = []
        position = 0
        for piece in filter(None, self._sentinel.split(text)):
            special = self._specials.get(piece)
            words, spell_out = special or piece, special is not None
            if ids or follows:
                new_ids, new_places = self.behind(words, spell_out=spell_out)
            else:
                new_ids, new_places = self._call([words], spell_out=spell_out)[0]
            ids += new_ids
            places += [(position, position + 1)] * len(new_ids) if special else moved(new_places, position)
            position += len(piece)
        return ids, places

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        tokenizer = self._tokenizer
        with self._lock:
            if not isinstance(tokenizer, PreTrainedTokenizerFast):
                batch = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
                return list(batch["input_ids"])
            # As transformers calls it, less the places: a third of the time.
            backend = tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            backend.encode_special_tokens = tokenizer.split_special_tokens
            return [tokens.ids for tokens in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _call(self, texts: list[str], *, spell_out: bool = False) -> list[Tokens]:
        if not texts:
            return []
        with self._lock:
            batch = self._tokenizer(
                texts,
                add_special_tokens=False,
                split_special_tokens=spell_out,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
        columns = zip(batch["input_ids"], batch["offset_mapping"], strict=True)
        return [(list(ids), _places(offsets)) for ids, offsets in columns]


def _places(offsets: Sequence[Place]) -> list[Place]:
    """Give each token the characters since the one before it; some tokenizers leave spaces out of their offsets."""
    covered = accumulate((end for _, end in offsets), max, initial=0)
    return [(begin if begin < before else before, end)
            for (begin, end), before in zip(offsets, covered, strict=False)]  # fmt: skip


def moved(places: Sequence[Place], distance: int) -> list[Place]:
    """Shift places by a number of characters."""
    return [(begin + distance, end + distance) for begin, end in places]


def _ids_in_front(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Find what stands before a text; what some tokenizers put behind it, EOS, has no place behind a prompt."""
    text, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    starts = [i for i in range(len(whole)) if whole[i : i + len(text)] == text]
    return list(whole[: starts[0]])
