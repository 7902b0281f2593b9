"""From records to one string each: the chat template, and which characters are trained.

Special-token strings inside the contents of messages are data, not markup: each occurrence is swapped for a
private-use character before the template runs, and `encode` spells it out as ordinary tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rlhf_cli.errors import DataError
from rlhf_cli.records import Dialog, Message, Text

# A template computes: it can divide by zero, add text to a list, or repeat text beyond all memory.
_TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_FIRST_SENTINEL = 0x10F000  # private use, far from where icon fonts keep theirs


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row as a string: `text[:num_prompt_chars]` is what generation would see.

    `trained` holds the half-open character spans that carry loss. `templated` says whether BOS is already there.
    """

    text: str
    num_prompt_chars: int
    trained: tuple[tuple[int, int], ...]
    templated: bool


class Renderer:
    """Turn prompts and completions into strings with one tokenizer's template.

    `mode`: "auto" templates dialogs and leaves strings alone, "chat" makes strings into messages first, "plain"
    accepts strings only.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mode: str) -> None:
        self.tokenizer = tokenizer
        self.mode = mode
        specials = _special_tokens(tokenizer)
        self.sentinels: Mapping[str, str] = {s: chr(_FIRST_SENTINEL + i) for i, s in enumerate(specials)}
        self._special = re.compile("|".join(map(re.escape, specials)))
        self._apply = lru_cache(maxsize=16)(
            self._render
        )  # the turns of one row are asked for again and again

    def prompt(self, prompt: Text, origin: str) -> Rendered:
        """Render a prompt the way generation sees it."""
        prompt = self._as_mode(prompt, "user", origin)
        if isinstance(prompt, str):
            text = self._neutral(prompt)
            return Rendered(text, len(text), (), templated=False)
        text = self._apply(prompt, origin, add_generation_prompt=True)
        return Rendered(text, len(text), (), templated=True)

    def pair(self, prompt: Text, completion: Text, origin: str, *, loss_on: str = "completion") -> Rendered:
        """Render a prompt with its completion; `loss_on` is completion, assistant or all.

        An assistant turn that opens a conversation answers nothing and is not trained. Raises DataError when the
        template rewrites earlier turns, so that no prefix matches what the model will be asked.
        """
        prompt = self._as_mode(prompt, "user", origin)
        completion = self._as_mode(completion, "assistant", origin)
        if isinstance(prompt, str) and isinstance(completion, str):
            head, tail = self._neutral(prompt), self._neutral(self._without_eos(completion))
            start = 0 if loss_on == "all" else len(head)
            return Rendered(head + tail, len(head), ((start, len(head + tail)),), templated=False)
        dialog = _dialog(prompt, "user") + _dialog(completion, "assistant")
        num_prompt = len(_dialog(prompt, "user"))
        text = self._apply(dialog, origin, add_generation_prompt=False)
        num_prompt_chars = self._end_of(dialog[:num_prompt], text, origin, asking=True)
        if loss_on == "all":
            return Rendered(text, num_prompt_chars, ((0, len(text)),), templated=True)
        first = 1 if loss_on == "assistant" else max(num_prompt, 1)
        spans = [
            self._span(dialog, i, text, origin) for i in range(first, len(dialog)) if _is_ours(dialog[i])
        ]
        return Rendered(text, num_prompt_chars, tuple(spans), templated=True)

    def _span(self, dialog: Dialog, i: int, text: str, origin: str) -> tuple[int, int]:
        start = self._end_of(dialog[:i], text, origin, asking=True)
        is_last = i == len(dialog) - 1
        return start, len(text) if is_last else self._end_of(dialog[: i + 1], text, origin, asking=False)

    def _end_of(self, dialog: Dialog, text: str, origin: str, *, asking: bool) -> int:
        """Find where the opening turns end in `text`; `asking`: behind the header of the answer to them."""
        prefix = self._apply(dialog, origin, add_generation_prompt=asking)
        if not text.startswith(prefix):
            raise DataError(
                "the chat template renders this conversation differently once it goes on",
                where=origin,
                fix="give prompt and completion as text, or set model.chat_template to a template that only appends",
            )
        return len(prefix)

    def _render(self, dialog: Dialog, origin: str, *, add_generation_prompt: bool) -> str:
        if not dialog:
            return ""
        contents = [self._without_eos(m.content) if _is_ours(m) else m.content for m in dialog]
        messages = [
            {"role": m.role, "content": self._neutral(content)}
            for m, content in zip(dialog, contents, strict=True)
        ]
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except _TEMPLATE_ERRORS as error:
            raise DataError(
                f"the chat template refuses this conversation: {str(error) or 'it wants too much memory'}",
                where=origin,
                fix="change the row, or set model.chat_template to a template that accepts it",
            ) from error
        if not isinstance(rendered, str):
            raise DataError("the chat template did not render to text", where=origin)
        return rendered

    def _as_mode(self, text: Text, role: str, origin: str) -> Text:
        if self.mode == "chat" and isinstance(text, str):
            return _dialog(text, role)
        if self.mode == "plain" and not isinstance(text, str):
            raise DataError(
                "this row is a conversation and data.template is plain",
                where=origin,
                fix="set data.template: auto",
            )
        return text

    def _without_eos(self, answer: str) -> str:
        # People write the EOS string into their answers; the template or the encoder adds the token itself.
        eos = self.tokenizer.eos_token
        return answer.removesuffix(str(eos)) if eos else answer

    def _neutral(self, content: str) -> str:
        return self._special.sub(lambda match: self.sentinels[match[0]], content)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List every string the tokenizer would turn into a special token, longest first.

    `all_special_tokens` leaves out markers that have no role of their own, such as Llama 3's header tokens.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token))


def _dialog(text: Text, role: str) -> Dialog:
    if not isinstance(text, str):
        return text
    # No prompt is no turn; an empty answer is one.
    return (Message(role, text),) if text or role == "assistant" else ()


def _is_ours(message: Message) -> bool:
    return message.role == "assistant"
