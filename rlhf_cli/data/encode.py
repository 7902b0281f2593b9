"""From rendered strings to token ids and loss masks: the one home of tokenisation, EOS and truncation.

A prompt always gets exactly the ids generation will see. The completion continues them: from the joint
tokenisation where the prompt's ids are its prefix, tokenised alone where a merge crosses the border.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.template import Rendered, Renderer
from rlhf_cli.data.tokens import Place, TextTokens, moved
from rlhf_cli.data.turns import in_turns
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Demonstration, Prompt, Text

ROWS_PER_CALL = 2048  # one call of the tokenizer's own threads
_SPELLED_OUT = "special tokens in the text, read as plain characters"


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one row: `loss_mask[t]` is True where token t carries loss. `input_ids[:num_prompt]` is the prompt.

    input_ids   [ <s> 2 + 2 =   4 </s> ]
    loss_mask   [  .  . . . .   T  T   ]     num_prompt = 5
    """

    input_ids: Sequence[int]
    loss_mask: Sequence[bool]
    num_prompt: int
    origin: str

    @staticmethod
    def compact(ids: Sequence[int], mask: Sequence[int], num_prompt: int, origin: str) -> "EncodedText":
        """Keep a row in five bytes a token; as lists it takes ten times as much."""
        return EncodedText(array("i", ids), array("b", mask), num_prompt, origin)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Two completions of one prompt; both rows start with the same prompt ids.

    `reference_logprobs` are those of (chosen, rejected) under the reference model, summed over the completion, in
    nats; only DPO fills them in.
    """

    chosen: EncodedText
    rejected: EncodedText
    p_chosen: float
    margin: float
    reference_logprobs: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt ready for sampling, with the record it came from."""

    input_ids: list[int]
    record: Prompt


@dataclass(frozen=True, slots=True)
class Block:
    """Rows encoded together, and in how many of their texts special tokens were spelled out."""

    rows: list[EncodedText]
    num_spelled_out: int


class RowCache(Protocol):
    """What keeps encoded rows for the next time."""

    def block(self, texts: object, origins: Sequence[str], encode: Callable[[], Block]) -> Block:
        """Give the block of these texts, from before or encoded now; repr(texts) tells them from others."""
        ...


@dataclass(slots=True)
class Tally:
    """What encoding did to the rows: counts by reason, and the lengths of those kept."""

    counts: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)


class Encoder:
    """Encode records with one tokenizer; `tally` counts what was dropped or cut, and why."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Sequence[int],
        template: str = "auto",
        max_length: int = 1024,
        over_length: str = "truncate",
        cache: "RowCache | None" = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.eos_id = int(tokenizer.eos_token_id)
        self.stop_ids = frozenset(stop_ids) | {self.eos_id}
        self.max_length = max_length
        self.over_length = over_length
        self.renderer = Renderer(tokenizer, template)
        self.tally = Tally()
        self._tokens = TextTokens(tokenizer, self.renderer.sentinels)
        self._cache = cache

    def demonstrations(
        self, records: Sequence[Demonstration], *, loss_on: str = "completion"
    ) -> list[EncodedText]:
        """Encode demonstrations; rows without one trained token are dropped and counted."""
        asked = ((r.prompt, r.completion, r.origin) for r in records)
        kept = []
        for row, reason in map(self._fit, self._encode(asked, loss_on=loss_on)):
            if reason:
                self.tally.counts[reason] += 1
            else:
                kept.append(row)
        self._count(kept)
        return kept

    def comparisons(self, records: Sequence[Comparison]) -> list[EncodedPair]:
        """Encode both sides of each pair; a pair is dropped, and counted once, when either side is."""
        sides = ((r.prompt, text, r.origin) for r in records for text in (r.chosen, r.rejected))
        fitted = map(self._fit, self._encode(sides))
        pairs = []
        for record, one, other in zip(records, fitted, fitted, strict=True):
            (chosen, reason), (rejected, other_reason) = one, other
            reason = reason or other_reason
            if not reason and chosen.input_ids == rejected.input_ids:
                reason = "dropped: both completions are the same tokens (after truncation)"
            if reason:
                self.tally.counts[reason] += 1
            else:
                pairs.append(EncodedPair(chosen, rejected, record.p_chosen, record.margin))
        self._count([side for pair in pairs for side in (pair.chosen, pair.rejected)])
        return pairs

    def prompts(self, records: Sequence[Prompt], *, max_prompt_length: int) -> list[EncodedPrompt]:
        """Encode prompts for sampling; those longer than `max_prompt_length` tokens are dropped and counted."""
        rendered = [self.renderer.prompt(r.prompt, r.origin) for r in records]
        kept = []
        for record, row, ids in zip(
            records, rendered, self._tokens.ids_of([r.text for r in rendered]), strict=True
        ):
            input_ids = self._front_of(row) + ids
            self.tally.counts[_SPELLED_OUT] += self._tokens.has_special(row.text)
            if not input_ids:
                self.tally.counts["dropped: empty prompt"] += 1
            elif len(input_ids) > max_prompt_length:
                self._may_be_over(record.origin, len(input_ids), max_prompt_length)
                self.tally.counts["dropped: prompt over the limit"] += 1
            else:
                kept.append(EncodedPrompt(input_ids, record))
        self.tally.lengths += [len(prompt.input_ids) for prompt in kept]
        return kept

    def _encode(
        self, asked: Iterable[tuple[Text, Text, str]], *, loss_on: str = "completion"
    ) -> Iterator[EncodedText]:
        """Encode prompts with their completions and origins, many at a time."""
        asked = iter(asked)
        chunks = iter(lambda: list(islice(asked, ROWS_PER_CALL)), [])
        for block in in_turns(partial(self._block, loss_on=loss_on), chunks):
            self.tally.counts[_SPELLED_OUT] += block.num_spelled_out
            yield from block.rows

    def _block(self, chunk: Sequence[tuple[Text, Text, str]], loss_on: str) -> Block:
        encode = partial(self._encode_chunk, chunk, loss_on)
        # Less than a whole chunk takes no time worth a file.
        if self._cache is None or len(chunk) < ROWS_PER_CALL:
            return encode()
        texts = (loss_on, [texts for *texts, _ in chunk])
        return self._cache.block(texts, [origin for *_, origin in chunk], encode)

    def _encode_chunk(self, chunk: Sequence[tuple[Text, Text, str]], loss_on: str) -> Block:
        rendered = [self.renderer.pair(*texts, loss_on=loss_on) for texts in chunk]
        rows = [
            self._close(row, *tokens, origin)
            for row, tokens, (*_, origin) in zip(rendered, self._tokenised(rendered), chunk, strict=True)
        ]
        return Block(rows, sum(self._tokens.has_special(row.text) for row in rendered))

    def _tokenised(self, rendered: Sequence[Rendered]) -> Iterator[tuple[list[int], list[Place] | None, int]]:
        """Give the ids of each row, their places where the loss mask needs them, and the size of its prompt."""
        prompts = [row.text[: row.num_prompt_chars] for row in rendered]
        distinct = list(dict.fromkeys(prompts))
        ids_of_prompt = dict(zip(distinct, self._tokens.ids_of(distinct), strict=True))
        simple = [row.text for row in rendered if _is_one_answer(row)]
        simple_ids = iter(self._tokens.ids_of(simple))
        with_places = iter(self._tokens.of([row.text for row in rendered if not _is_one_answer(row)]))
        for row, prompt in zip(rendered, prompts, strict=True):
            front = self._front_of(row)
            prompt_ids, answer = ids_of_prompt[prompt], row.text[row.num_prompt_chars :]
            num_prompt = len(front) + len(prompt_ids)
            if _is_one_answer(row):
                ids = next(simple_ids)
                if ids[: len(prompt_ids)] != prompt_ids:
                    ids = prompt_ids + self._tokens.behind(answer)[0]
                yield front + ids, None, num_prompt
            else:
                ids, places = next(with_places)
                if ids[: len(prompt_ids)] != prompt_ids:
                    tail, tail_places = self._tokens.behind(answer)
                    places = self._tokens.of([prompt])[0][1] + moved(tail_places, row.num_prompt_chars)
                    ids = prompt_ids + tail
                yield front + ids, [(0, 0)] * len(front) + places, num_prompt

    def _front_of(self, row: Rendered) -> list[int]:
        return [] if row.templated else self._tokens.front

    def _close(
        self, row: Rendered, ids: list[int], places: list[Place] | None, num_prompt: int, origin: str
    ) -> EncodedText:
        """Mask by character spans, end every trained span at its stop token, and end the row there as well.

        Without places, the one span is all that comes behind the prompt.
        """
        mask = [False] * len(ids)
        if not row.trained:
            return EncodedText.compact(ids, mask, num_prompt, origin)
        last = -1
        for begin, end in row.trained:
            # Nothing predicts the first token of a row, so it never carries loss; it may be a BOS that also stops.
            inside: Sequence[int] = range(
                max(num_prompt, 1) if begin == row.num_prompt_chars else 1, len(ids)
            )
            if places is not None:
                inside = [t for t in inside if places[t][0] < end and places[t][1] > begin]
            stop = next(
                (k for k in reversed(range(len(inside))) if ids[inside[k]] in self.stop_ids), len(inside)
            )
            keep = inside[: stop + 1]
            for t in keep:
                mask[t] = True
            last = keep[-1] if keep else last
        ids, mask = ids[: last + 1] if last >= 0 else ids, mask[: last + 1] if last >= 0 else mask
        if not ids or not mask[-1] or ids[-1] not in self.stop_ids:
            ids, mask = [*ids, self.eos_id], [*mask, bool(ids)]
        return EncodedText.compact(ids, mask, min(num_prompt, len(ids)), origin)

    def _fit(self, row: EncodedText) -> tuple[EncodedText, str | None]:
        """Apply the length limit; give the row, and why it is dropped if it is."""
        over = len(row.input_ids) > self.max_length
        if over:
            self._may_be_over(row.origin, len(row.input_ids), self.max_length)
            if self.over_length == "drop":
                return row, "dropped: over the limit"
            ids, mask = row.input_ids[: self.max_length], row.loss_mask[: self.max_length]
            row = EncodedText(ids, mask, min(row.num_prompt, self.max_length), row.origin)
        if not any(row.loss_mask):
            return (
                row,
                "dropped: the prompt fills the limit" if over else "dropped: nothing in it to train on",
            )
        self.tally.counts["cut to the limit"] += over
        return row, None

    def _may_be_over(self, origin: str, length: int, limit: int) -> None:
        if self.over_length == "error":
            raise DataError(
                f"{length} tokens, the limit is {limit}",
                where=origin,
                fix="raise data.max_length, or set data.over_length to truncate or drop",
            )

    def _count(self, rows: Sequence[EncodedText]) -> None:
        self.tally.lengths += [len(row.input_ids) for row in rows]
        self.tally.counts["trained tokens"] += sum(sum(row.loss_mask) for row in rows)
        self.tally.counts["rows that end in a trained EOS"] += sum(
            row.loss_mask[-1] and row.input_ids[-1] in self.stop_ids for row in rows
        )


def _is_one_answer(row: Rendered) -> bool:
    """Say whether all that comes behind the prompt carries loss, and nothing else."""
    return row.trained == ((row.num_prompt_chars, len(row.text)),)
