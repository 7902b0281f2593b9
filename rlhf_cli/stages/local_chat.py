"""A chat model in this process, for judges and critics: texts from the sampling engine, labels from exact logits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Self

import torch
from torch import Tensor

from rlhf_cli.config import judge_sections
from rlhf_cli.data.decode import completion_text
from rlhf_cli.data.encode import Encoder
from rlhf_cli.errors import Preempted
from rlhf_cli.models.device import autocast_for, num_parameters
from rlhf_cli.models.load import LoadedModel, load_policy_for_sampling
from rlhf_cli.preference.judge.chat import ChatFailure, ChatReply, ChatRequest
from rlhf_cli.preference.judge.wire import spelled
from rlhf_cli.records import Prompt
from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.transformers_engine import TransformersEngine

_BATCHES_AT_ONCE = 8  # sorted by length together
_NO_LIMIT = 2**31

Answered = tuple[ChatRequest, ChatReply | ChatFailure]


class LocalChat:
    """Answers with a loaded model. `should_stop` is asked before every token."""

    def __init__(self, loaded: LoadedModel, *, batch_size: int, should_stop: Callable[[], bool]) -> None:
        self.name = loaded.path
        self.identity = f"{loaded.path} {loaded.digest}"
        self._loaded = loaded
        self._batch_size = batch_size
        self._should_stop = should_stop
        self._autocast = autocast_for("auto", loaded.device, num_parameters(loaded.model))
        vocabulary = loaded.vocabulary
        self._engine = TransformersEngine(
            loaded.model,
            vocabulary.pad_id,
            chunk_size=batch_size,
            autocast=self._autocast,
            max_positions=vocabulary.max_positions,
            should_stop=should_stop,
        )
        self._label_ids: dict[tuple[str, ...], list[Tensor]] = {}

    @classmethod
    def open(cls, section: judge_sections.LocalChat, *, should_stop: Callable[[], bool]) -> Self:
        loaded = load_policy_for_sampling(section.path, section.revision)
        return cls(loaded, batch_size=section.batch_size, should_stop=should_stop)

    def replies(self, requests: Iterable[ChatRequest]) -> Iterator[Answered]:
        """Yield each request with its reply, a batch at a time; ends early when asked to stop."""
        waiting = iter(dict.fromkeys(requests))
        while some := list(islice(waiting, self._batch_size * _BATCHES_AT_ONCE)):
            for _, alike in groupby(sorted(some, key=_manner), key=_manner):
                prompts = dict(self._encoded(list(alike)))
                yield from ((r, self._too_long(r)) for r in prompts if not prompts[r])
                ready = sorted((r for r in prompts if prompts[r]), key=lambda r: -len(prompts[r]))
                for start in range(0, len(ready), self._batch_size):
                    if self._should_stop():
                        return
                    batch = ready[start : start + self._batch_size]
                    try:
                        replies = self._answer(batch, [prompts[request] for request in batch])
                    except Preempted:
                        return
                    yield from zip(batch, replies, strict=True)

    def _encoded(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[ChatRequest, list[int]]]:
        """Yield the token ids of each request, none for one that leaves no room to answer."""
        vocabulary = self._loaded.vocabulary
        limit = vocabulary.max_positions or _NO_LIMIT
        encoder = Encoder(vocabulary.tokenizer, stop_ids=vocabulary.stop_ids, over_length="drop")
        for request in requests:
            record = Prompt(request.messages, "a question to a chat model")
            kept = encoder.prompts([record], max_prompt_length=limit - request.max_tokens)
            yield request, kept[0].input_ids if kept else []

    def _too_long(self, request: ChatRequest) -> ChatFailure:
        limit = self._loaded.vocabulary.max_positions
        return ChatFailure(f"the question and {request.max_tokens} tokens to answer exceed {limit} tokens")

    def _answer(self, requests: Sequence[ChatRequest], prompts: list[list[int]]) -> list[ChatReply]:
        """Answer requests of one manner."""
        if requests[0].labels and not requests[0].label_prefix:
            return self._label(requests, prompts)
        request, vocabulary = requests[0], self._loaded.vocabulary
        sampling = Sampling(request.temperature, request.top_p, request.max_tokens, vocabulary.stop_ids)
        completions = self._engine.generate(prompts, sampling, [r.seed for r in requests])
        texts = [
            completion_text(vocabulary.tokenizer, prompt, completion.token_ids, vocabulary.stop_ids)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        labels = self._labels_behind(request, prompts, texts)
        return [
            ChatReply(text, completion.finished, told, len(prompt), len(completion.token_ids))
            for text, completion, told, prompt in zip(texts, completions, labels, prompts, strict=True)
        ]

    def _label(self, requests: Sequence[ChatRequest], prompts: list[list[int]]) -> list[ChatReply]:
        """Read the label off the first token's distribution; nothing needs to be sampled."""
        distribution = self._next_token(prompts)
        words = self._loaded.vocabulary.tokenizer.batch_decode(distribution.argmax(-1, keepdim=True).tolist())
        told = self._label_probabilities(requests[0].labels, distribution)
        return [
            ChatReply(word, True, probabilities, len(prompt), 1)
            for word, probabilities, prompt in zip(words, told, prompts, strict=True)
        ]

    def _labels_behind(
        self, request: ChatRequest, prompts: list[list[int]], texts: list[str]
    ) -> list[dict[str, float] | None]:
        """Return the label probabilities right behind the last prefix of each text, None where it has none."""
        told: list[dict[str, float] | None] = [None] * len(texts)
        rows = [i for i, text in enumerate(texts) if request.labels and request.label_prefix in text]
        if not rows:
            return told
        tokenizer = self._loaded.vocabulary.tokenizer
        ids = []
        for i in rows:
            end = texts[i].rindex(request.label_prefix) + len(request.label_prefix)
            ids.append(prompts[i] + tokenizer.encode(texts[i][:end], add_special_tokens=False))
        limit = self._loaded.vocabulary.max_positions or _NO_LIMIT
        # Encoded anew, a text may take more tokens than it was sampled as.
        probabilities = self._label_probabilities(
            request.labels, self._next_token([row[:limit] for row in ids])
        )
        for i, row, found in zip(rows, ids, probabilities, strict=True):
            told[i] = found if len(row) <= limit else None
        return told

    @torch.no_grad()
    def _next_token(self, rows: list[list[int]]) -> Tensor:
        """Return the probabilities [R, V] of what follows each row, left-padded."""
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), self._loaded.vocabulary.pad_id)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            input_ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
        device = self._loaded.device
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        with self._autocast():
            logits = self._loaded.model(
                input_ids=input_ids.to(device),
                attention_mask=mask.to(device),
                position_ids=position_ids.to(device),
                logits_to_keep=1,
            ).logits[:, -1]
        probabilities: Tensor = logits.float().softmax(-1)
        return probabilities.cpu()

    def _label_probabilities(self, labels: tuple[str, ...], distribution: Tensor) -> list[dict[str, float]]:
        if labels not in self._label_ids:
            self._label_ids[labels] = _spellings(self._loaded, labels, distribution.shape[1])
        columns = [distribution[:, ids].sum(-1).tolist() for ids in self._label_ids[labels]]
        return [dict(zip(labels, row, strict=True)) for row in zip(*columns, strict=True)]


def _manner(request: ChatRequest) -> tuple[float, float, int, tuple[str, ...], str]:
    return request.temperature, request.top_p, request.max_tokens, request.labels, request.label_prefix


def _spellings(loaded: LoadedModel, labels: tuple[str, ...], num_tokens: int) -> list[Tensor]:
    """Return for each label the ids of all tokens that spell it, or begin it and no other."""
    tokenizer = loaded.vocabulary.tokenizer
    words = tokenizer.batch_decode([[i] for i in range(min(num_tokens, len(tokenizer)))])
    found = [spelled(word, labels) for word in words]
    return [
        torch.tensor([i for i, it in enumerate(found) if it == label], dtype=torch.long) for label in labels
    ]
