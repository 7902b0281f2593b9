"""`rlhf chat`: talk with one model, or with several at once, each in a conversation of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TextStreamer

from rlhf_cli.preference.inert import inert
from rlhf_cli.records import Dialog, Message, Prompt
from rlhf_cli.run.chance import draw
from rlhf_cli.tools.manner import Manner
from rlhf_cli.tools.speaker import Speaker

HELP = """\
/reset            forget the conversation
/undo             take back the last turn
/temperature 0.7  sample anew from the next answer on; 0 always takes the likeliest token
/help, /quit
A line that ends in \\ goes on in the next one."""

Write = Callable[[str], None]


class _Stream(TextStreamer):
    """Hands over finished words, made harmless, and keeps the whole text."""

    def __init__(self, speaker: Speaker, write: Write) -> None:
        super().__init__(speaker.loaded.vocabulary.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write
        self.text = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Take the next words."""
        self.text += text
        self._write(inert(text))


@dataclass
class Talk:
    """The conversations with every model, and what they are answered with."""

    speakers: Sequence[Speaker]
    manner: Manner
    write: Write
    histories: list[Dialog] = field(default_factory=list)
    num_turns: int = 0

    def __post_init__(self) -> None:
        self.histories = [() for _ in self.speakers]

    def take(self, line: str) -> bool:
        """Answer a line, or do what it commands; say False when the talk is over."""
        if line.startswith("/"):
            return self._command(line)
        if line.strip():
            self._ask(line)
        return True

    def _command(self, line: str) -> bool:
        word, _, value = line[1:].partition(" ")
        match word:
            case "quit" | "exit" | "q":
                return False
            case "reset":
                self.histories = [() for _ in self.speakers]
            case "undo":
                self.histories = [history[:-2] for history in self.histories]
            case "temperature" if _is_number(value):
                self.manner = self.manner.model_copy(update={"temperature": float(value)})
            case _:
                self.write(HELP + "\n")
        return True

    def _ask(self, line: str) -> None:
        self.num_turns += 1
        for i, speaker in enumerate(self.speakers):
            if len(self.speakers) > 1:
                self.write(f"[{speaker.name}]\n")
            turn = (Message("user", line),)
            history = self.histories[i] + turn if speaker.chat else turn
            prompt = Prompt(history, "this conversation") if speaker.chat else Prompt(line, "this line")
            text = self._stream(speaker, prompt)
            if text is not None and speaker.chat:
                self.histories[i] = (*history, Message("assistant", text))
            self.write("\n")

    def _stream(self, speaker: Speaker, prompt: Prompt) -> str | None:
        """Sample an answer and write it as it comes; Ctrl-C ends it. None where there is no room left."""
        encoded = speaker.encode(prompt, self.manner.max_new_tokens)
        if encoded is None:
            self.write("(the conversation is longer than the model reads: /reset, or /undo)")
            return None
        stream = _Stream(speaker, self.write)
        torch.manual_seed(draw(self.manner.seed, "chat", self.num_turns))
        input_ids = torch.tensor([encoded.input_ids], device=speaker.loaded.device)
        try:
            with torch.no_grad():
                speaker.loaded.model.generate(  # type: ignore[operator]
                    input_ids,
                    attention_mask=torch.ones_like(input_ids),
                    streamer=stream,
                    **_sampling(speaker, self.manner, len(encoded.input_ids)),
                )
        except KeyboardInterrupt:
            self.write(" …")
        return stream.text


def _sampling(speaker: Speaker, manner: Manner, num_prompt: int) -> dict[str, Any]:
    vocabulary = speaker.loaded.vocabulary
    room = (vocabulary.max_positions or num_prompt + manner.max_new_tokens) - num_prompt
    settings: dict[str, Any] = {
        "max_new_tokens": min(room, manner.max_new_tokens),
        "eos_token_id": list(vocabulary.stop_ids),
        "pad_token_id": vocabulary.pad_id,
        "do_sample": manner.temperature > 0,
    }
    if manner.temperature > 0:
        settings |= {"temperature": manner.temperature, "top_p": manner.top_p, "top_k": 0}
    return settings


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False
