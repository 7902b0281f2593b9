"""From records to one string each: the chat template, and which characters are trained.

Special-token strings inside the contents of messages are data, not markup: each occurrence is swapped for a
private-use character before the template runs, and `encode` spells it out as ordinary tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlhf_cli.errors import DataError
from rlhf_cli.records import Dialog, Message, Text

_FIRST_SENTINEL = 0xF0000  # Unicode plane 15: private use, in nobody's text


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
        specials = sorted(set(tokenizer.all_special_tokens), key=lambda token: -len(token))
        self.sentinels: Mapping[str, str] = {s: chr(_FIRST_SENTINEL + i) for i, s in enumerate(specials)}

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

        Raises DataError when the template rewrites earlier turns, so that no prefix matches what it will be asked.
        """
        prompt = self._as_mode(prompt, "user", origin)
        completion = self._as_mode(completion, "assistant", origin)
        if isinstance(prompt, str) and isinstance(completion, str):
            head, tail = self._neutral(prompt), self._neutral(_without_eos(completion, self.tokenizer))
            start = 0 if loss_on == "all" else len(head)
            return Rendered(head + tail, len(head), ((start, len(head + tail)),), templated=False)
        dialog = _dialog(prompt, "user") + _dialog(completion, "assistant")
        num_prompt = len(_dialog(prompt, "user"))
        text = self._apply(dialog, origin, add_generation_prompt=False)
        num_prompt_chars = len(self._prefix(dialog[:num_prompt], text, origin)) if num_prompt else 0
        if loss_on == "all":
            return Rendered(text, num_prompt_chars, ((0, len(text)),), templated=True)
        first = 0 if loss_on == "assistant" else num_prompt
        spans = [
            self._span(dialog, i, text, origin) for i in range(first, len(dialog)) if _is_ours(dialog[i])
        ]
        return Rendered(text, num_prompt_chars, tuple(spans), templated=True)

    def _span(self, dialog: Dialog, i: int, text: str, origin: str) -> tuple[int, int]:
        start = len(self._prefix(dialog[:i], text, origin))
        end = len(text) if i == len(dialog) - 1 else len(self._apply(dialog[: i + 1], origin))
        return start, end

    def _prefix(self, dialog: Dialog, text: str, origin: str) -> str:
        prefix = self._apply(dialog, origin, add_generation_prompt=True)
        if not text.startswith(prefix):
            raise DataError(
                "the chat template renders this conversation differently once it goes on",
                where=origin,
                fix="give prompt and completion as text, or set model.chat_template to a template that only appends",
            )
        return prefix

    def _apply(self, dialog: Dialog, origin: str, *, add_generation_prompt: bool = False) -> str:
        messages = [{"role": m.role, "content": self._neutral(m.content)} for m in dialog]
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        if not isinstance(rendered, str):
            raise DataError("the chat template did not render to text", where=origin)
        return rendered

    def _as_mode(self, text: Text, role: str, origin: str) -> Text:
        if self.mode == "chat" and isinstance(text, str):
            return (Message(role, text),) if text else ()
        if self.mode == "plain" and not isinstance(text, str):
            raise DataError(
                "this row is a conversation and data.template is plain",
                where=origin,
                fix="set data.template: auto",
            )
        return text

    def _neutral(self, content: str) -> str:
        for special, sentinel in self.sentinels.items():
            content = content.replace(special, sentinel)
        return content


def _dialog(text: Text, role: str) -> Dialog:
    if isinstance(text, str):
        return (Message(role, text),) if text else ()
    return text


def _is_ours(message: Message) -> bool:
    return message.role == "assistant"


def _without_eos(completion: str, tokenizer: PreTrainedTokenizerBase) -> str:
    # People write the EOS string into their completions; encoding adds the token itself.
    return completion.removesuffix(str(tokenizer.eos_token)) if tokenizer.eos_token else completion
