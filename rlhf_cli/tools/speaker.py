"""A model that answers: loaded once, asked in the way it was trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rlhf_cli.config.sections import Source
from rlhf_cli.data.encode import EncodedPrompt, Encoder
from rlhf_cli.data.episode import Episode
from rlhf_cli.data.readers import read_prompts
from rlhf_cli.models.device import autocast_for, num_parameters
from rlhf_cli.models.load import LoadedModel, load_policy_for_sampling
from rlhf_cli.models.tokenizer import DEFAULT_TEMPLATE
from rlhf_cli.records import Prompt
from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.episodes import sample_episodes
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.run.chance import draw
from rlhf_cli.run.directory import RunDir
from rlhf_cli.tools.manner import Manner, TemplateMode

_MARK = "\x1f"


@dataclass(frozen=True)
class Speaker:
    """A loaded model with its encoder; `chat` says whether plain text becomes a user turn."""

    name: str
    loaded: LoadedModel
    chat: bool

    @classmethod
    def open(cls, path: str, template: TemplateMode = "auto") -> "Speaker":
        """Load a model; `auto` asks as its training rows did. Raises as the stages do."""
        loaded = load_policy_for_sampling(path)
        chat = template == "chat" or (template == "auto" and asks_in_turns(path, loaded.vocabulary.tokenizer))
        return cls(path, loaded, chat)

    def encode(self, record: Prompt, max_new_tokens: int) -> EncodedPrompt | None:
        """Encode a prompt; None where it leaves no room for an answer of one token."""
        vocabulary = self.loaded.vocabulary
        mode = "chat" if self.chat else "auto"
        encoder = Encoder(vocabulary.tokenizer, stop_ids=vocabulary.stop_ids, template=mode)
        limit = (vocabulary.max_positions or 2**31) - 1
        kept = encoder.prompts([record], max_prompt_length=limit)
        return kept[0] if kept else None

    def sampling(self, manner: Manner) -> Sampling:
        """Give the sampler's settings."""
        return Sampling(
            manner.temperature, manner.top_p, manner.max_new_tokens, self.loaded.vocabulary.stop_ids
        )

    def answer(
        self, records: Sequence[Prompt], manner: Manner, *, sample: int = 0
    ) -> Iterator[Episode | None]:
        """Yield an answer to each prompt, a batch at a time; None where there is no room for one."""
        vocabulary = self.loaded.vocabulary
        engine = TransformersEngine(
            self.loaded.model,
            vocabulary.pad_id,
            chunk_size=manner.batch_size,
            autocast=autocast_for("auto", self.loaded.device, num_parameters(self.loaded.model)),
            max_positions=vocabulary.max_positions,
        )
        for start in range(0, len(records), manner.batch_size):
            batch = [
                self.encode(it, manner.max_new_tokens) for it in records[start : start + manner.batch_size]
            ]
            seeds = [draw(manner.seed, "generate", start + i, sample) for i in range(len(batch))]
            asked = [(prompt, seed) for prompt, seed in zip(batch, seeds, strict=True) if prompt]
            prompts = [prompt for prompt, _ in asked]
            episodes = iter(
                sample_episodes(
                    engine,
                    vocabulary.tokenizer,
                    prompts,
                    self.sampling(manner),
                    [seed for _, seed in asked],
                )
            )
            yield from (next(episodes) if prompt else None for prompt in batch)


def asks_in_turns(path: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a model was trained on conversations: by the rows its run kept, else by its own template."""
    samples = RunDir(Path(path)).samples
    if not samples.is_file():
        return bool(tokenizer.chat_template != DEFAULT_TEMPLATE)
    turn = tokenizer.apply_chat_template([{"role": "user", "content": _MARK}], tokenize=False)
    lead = str(turn).partition(_MARK)[0].strip()
    return bool(lead) and lead.splitlines()[-1] in samples.read_text(encoding="utf-8")


def read_prompt_file(path: str, limit: int | None) -> list[Prompt]:
    """Read prompts out of rows of any format."""
    return read_prompts([Source(path=path, limit=limit)], on_bad_row="skip", deduplicate=True).records
