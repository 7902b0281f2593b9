"""From rendered strings to token ids and loss masks: the one home of tokenisation, EOS and truncation.

A prompt always gets exactly the ids generation will see. The completion continues them: from the joint
tokenisation where the prompt's ids are its prefix, tokenised alone where a merge crosses the border.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from transformers import PreTrainedTokenizerBase

from rlhf_cli.data.template import Rendered, Renderer
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Demonstration, Prompt

_ROWS_PER_CALL = 2048  # one call of the tokenizer's own threads


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one row: `loss_mask[t]` is True where token t carries loss. `input_ids[:num_prompt]` is the prompt.

    input_ids   [ <s> 2 + 2 =   4 </s> ]
    loss_mask   [  .  . . . .   T  T   ]     num_prompt = 5
    """

    input_ids: list[int]
    loss_mask: list[bool]
    num_prompt: int
    origin: str


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
    ) -> None:
        self.tokenizer = tokenizer
        self.eos_id = int(tokenizer.eos_token_id)
        self.stop_ids = frozenset(stop_ids) | {self.eos_id}
        self.max_length = max_length
        self.over_length = over_length
        self.renderer = Renderer(tokenizer, template)
        self.tally = Tally()
        self._specials = {sentinel: special for special, sentinel in self.renderer.sentinels.items()}

    def demonstrations(
        self, records: Sequence[Demonstration], *, loss_on: str = "completion"
    ) -> list[EncodedText]:
        """Encode demonstrations; rows without one trained token are dropped and counted."""
        rendered = [self.renderer.pair(r.prompt, r.completion, r.origin, loss_on=loss_on) for r in records]
        rows = (self._fit(text) for text in self._encode(rendered, [r.origin for r in records]))
        kept = [row for row in rows if row is not None]
        self.tally.lengths += [len(row.input_ids) for row in kept]
        return kept

    def comparisons(self, records: Sequence[Comparison]) -> list[EncodedPair]:
        """Encode both sides of each pair; a pair is dropped when either side is."""
        sides = [(r.prompt, text, r.origin) for r in records for text in (r.chosen, r.rejected)]
        rendered = [self.renderer.pair(prompt, text, origin) for prompt, text, origin in sides]
        rows = [self._fit(text) for text in self._encode(rendered, [side[2] for side in sides])]
        pairs = []
        for record, chosen, rejected in zip(records, rows[::2], rows[1::2], strict=True):
            if chosen is None or rejected is None:
                continue
            if chosen.input_ids == rejected.input_ids:
                self.tally.counts["dropped: both completions are the same tokens (after truncation)"] += 1
                continue
            pairs.append(EncodedPair(chosen, rejected, record.p_chosen, record.margin))
        self.tally.lengths += [len(side.input_ids) for pair in pairs for side in (pair.chosen, pair.rejected)]
        return pairs

    def prompts(self, records: Sequence[Prompt], *, max_prompt_length: int) -> list[EncodedPrompt]:
        """Encode prompts for sampling; those longer than `max_prompt_length` tokens are dropped and counted."""
        rendered = [self.renderer.prompt(r.prompt, r.origin) for r in records]
        kept = []
        for record, input_ids in zip(records, self._prompt_ids(rendered), strict=True):
            if len(input_ids) > max_prompt_length:
                self._over_length(
                    record.origin, len(input_ids), max_prompt_length, "dropped: prompt over the limit"
                )
                continue
            if not input_ids:
                self.tally.counts["dropped: empty prompt"] += 1
                continue
            kept.append(EncodedPrompt(input_ids, record))
        self.tally.lengths += [len(prompt.input_ids) for prompt in kept]
        return kept

    def _encode(self, rendered: Sequence[Rendered], origins: Sequence[str]) -> Iterator[EncodedText]:
        pending = iter(zip(rendered, origins, strict=True))
        while chunk := list(islice(pending, _ROWS_PER_CALL)):
            texts = [r for r, _ in chunk]
            prompt_ids = self._prompt_ids(
                [Rendered(r.text[: r.num_prompt_chars], 0, (), r.templated) for r in texts]
            )
            full = self._tokenize([r.text for r in texts], [r.templated for r in texts])
            for (row, origin), prompt, (ids, starts) in zip(chunk, prompt_ids, full, strict=True):
                if ids[: len(prompt)] != prompt:
                    tail, tail_starts = self._tokenize([row.text[row.num_prompt_chars :]], [True])[0]
                    starts = [0] * len(prompt) + [s + row.num_prompt_chars for s in tail_starts]
                    ids = prompt + tail
                yield self._close(row, ids, starts, len(prompt), origin)

    def _prompt_ids(self, rendered: Sequence[Rendered]) -> list[list[int]]:
        encoded = self._tokenize([r.text for r in rendered], [r.templated for r in rendered])
        # Some tokenizers close every text with EOS; a prompt is not finished.
        return [ids[:-1] if ids and ids[-1] == self.eos_id and not r.templated else ids
                for (ids, _), r in zip(encoded, rendered, strict=True)]  # fmt: skip

    def _close(
        self, row: Rendered, ids: list[int], starts: list[int], num_prompt: int, origin: str
    ) -> EncodedText:
        """Mask by character spans, end every trained span at its stop token, and end the row there as well."""
        mask = [False] * len(ids)
        last = -1
        for begin, end in row.trained:
            inside = [t for t in range(len(ids)) if begin <= starts[t] < end]
            if begin == row.num_prompt_chars:  # zero-width tokens of the prompt share its last offset
                inside = [t for t in inside if t >= num_prompt]
            stops = [t for t in inside if ids[t] in self.stop_ids]
            keep = inside[: inside.index(stops[-1]) + 1] if stops else inside
            for t in keep:
                mask[t] = True
            last = keep[-1] if keep else last
        ids, mask = ids[: last + 1] if last >= 0 else ids, mask[: last + 1] if last >= 0 else mask
        if not ids or ids[-1] not in self.stop_ids:
            ids, mask = [*ids, self.eos_id], [*mask, True]
        return EncodedText(ids, mask, min(num_prompt, len(ids)), origin)

    def _fit(self, row: EncodedText) -> EncodedText | None:
        """Apply the length limit; count what happens."""
        if len(row.input_ids) > self.max_length:
            self._over_length(
                row.origin, len(row.input_ids), self.max_length, f"{self.over_length}: over the limit"
            )
            if self.over_length == "drop":
                return None
            ids, mask = row.input_ids[: self.max_length], row.loss_mask[: self.max_length]
            row = EncodedText(ids, mask, min(row.num_prompt, self.max_length), row.origin)
        if not any(row.loss_mask):
            self.tally.counts["dropped: no trained token left (the prompt fills the limit)"] += 1
            return None
        self.tally.counts["rows that end in a trained EOS"] += (
            row.loss_mask[-1] and row.input_ids[-1] in self.stop_ids
        )
        self.tally.counts["trained tokens"] += sum(row.loss_mask)
        return row

    def _over_length(self, origin: str, length: int, limit: int, reason: str) -> None:
        if self.over_length == "error":
            raise DataError(
                f"{length} tokens, the limit is {limit}",
                where=origin,
                fix="raise data.max_length, or set data.over_length to truncate or drop",
            )
        self.tally.counts[reason] += 1

    def _tokenize(self, texts: Sequence[str], templated: Sequence[bool]) -> list[tuple[list[int], list[int]]]:
        """Give ids and first-character positions for each text; BOS is added where the template did not."""
        results: list[tuple[list[int], list[int]]] = [([], [])] * len(texts)
        for flag in (False, True):
            chosen = [i for i, t in enumerate(templated) if t is flag]
            plain = [i for i in chosen if not self._has_sentinel(texts[i])]
            if plain:
                batch = self.tokenizer(
                    [texts[i] for i in plain], add_special_tokens=not flag, return_offsets_mapping=True, verbose=False
                )
                for i, ids, offsets in zip(plain, batch["input_ids"], batch["offset_mapping"], strict=True):
                    results[i] = (list(ids), [begin for begin, _ in offsets])
            for i in set(chosen) - set(plain):
                self.tally.counts["special tokens in the text, read as plain characters"] += 1
                results[i] = self._tokenize_pieces(texts[i], add_bos=not flag)
        return results

    def _has_sentinel(self, text: str) -> bool:
        return any(sentinel in text for sentinel in self._specials)

    def _tokenize_pieces(self, text: str, *, add_bos: bool) -> tuple[list[int], list[int]]:
        """Tokenise around the sentinels and spell each special token out in ordinary tokens."""
        ids: list[int] = []
        starts: list[int] = []
        piece_start = 0
        for position, character in enumerate([*text, ""]):
            if character and character not in self._specials:
                continue
            piece = text[piece_start:position]
            encoded = self.tokenizer(
                piece, add_special_tokens=add_bos and not ids, return_offsets_mapping=True
            )
            ids += encoded["input_ids"]
            starts += [piece_start + begin for begin, _ in encoded["offset_mapping"]]
            if character:
                spelled = self.tokenizer(
                    self._specials[character], add_special_tokens=False, split_special_tokens=True
                )["input_ids"]
                ids += spelled
                starts += [position] * len(spelled)
            piece_start = position + 1
        return ids, starts
