"""Tokenizers: loading one with PAD, EOS and template settled, and training one from scratch."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.run.reading import Reading

DEFAULT_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Used when a tokenizer brings no template. The role markers are plain text, so no embedding is added."""

_PAD = "<|pad|>"
_EOS = "<|end|>"


def load_tokenizer(
    name: str,
    *,
    revision: str | None = None,
    chat_template: str | None = None,
    trust_remote_code: bool = False,
    generation_config: GenerationConfig | None = None,
) -> PreTrainedTokenizerBase:
    """Load a tokenizer and settle what training needs: EOS exists, PAD ends no answer, a template is there.

    Reward models find the end of a row by its last token that is not PAD. Where PAD is missing, EOS, or a stop id of
    `generation_config`, it falls to UNK, else to a new `<|pad|>` (the model's embedding then grows if it must).
    `chat_template` is a Jinja file; without it the tokenizer's own, else DEFAULT_TEMPLATE.
    Raises DataError when there is no EOS.
    """
    with Reading(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code
        )
    if not tokenizer.is_fast:
        raise DataError(
            "the tokenizer cannot say which characters a token stands for (it is a slow one)",
            where=name,
            fix="convert it: AutoTokenizer with `tokenizers` installed writes a tokenizer.json",
        )
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no EOS token, so no answer can end", where=name)
    not_for_pad = {None, *stop_ids_of(tokenizer, generation_config)}
    if tokenizer.pad_token_id in not_for_pad:
        if tokenizer.unk_token_id not in not_for_pad:
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": _PAD})
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    tokenizer.padding_side = "right"
    return tokenizer


def _read_template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        message = f"the chat template {path} cannot be read: {error.strerror}"
        raise MissingInputError(message, where="model.chat_template", fix="correct the path") from error
    except UnicodeDecodeError as error:
        message = f"the chat template {path} is not UTF-8 at byte {error.start}"
        raise DataError(message, where="model.chat_template", fix="save it as UTF-8") from error


def stop_ids_of(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None
) -> tuple[int, ...]:
    """Collect the ids that end an answer: the tokenizer's EOS and those of the generation config."""
    listed = generation_config.eos_token_id if generation_config is not None else None
    extra = listed if isinstance(listed, list) else [] if listed is None else [listed]
    if odd := [number for number in extra if not isinstance(number, int)]:
        raise DataError(
            f"generation_config.json has {odd[0]!r} as an eos_token_id",
            where=str(tokenizer.name_or_path),
            fix="write token ids there, which are whole numbers",
        )
    return tuple(sorted({int(tokenizer.eos_token_id), *extra}))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE on texts, with `<|end|>` as EOS, `<|pad|>` as PAD and the default template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_EOS, _PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_EOS, pad_token=_PAD)
    fast.chat_template = DEFAULT_TEMPLATE
    return fast


def tokenizers_agree(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Say whether two tokenizers give the same ids, so that rows may pass between their models."""
    return one.get_vocab() == other.get_vocab() and one.eos_token_id == other.eos_token_id
