"""Tokenizers made ready: PAD ends no answer, EOS is known, a template is there; and training one."""

from pathlib import Path

import pytest
from tiny_models import saved, tokenizer_of_bytes, without_pad
from transformers import GenerationConfig

from rlhf_cli.config.sections import FromScratch, Model
from rlhf_cli.errors import DataError
from rlhf_cli.models.load import load_vocabulary, make_vocabulary
from rlhf_cli.models.tokenizer import (
    DEFAULT_TEMPLATE,
    load_tokenizer,
    stop_ids_of,
    tokenizers_agree,
    train_tokenizer,
)

TEXTS = ["hello there", "the sky is blue"] * 4


def written(folder: Path, **roles: str | None) -> str:
    """Save a byte tokenizer with other roles for its tokens, and give its path."""
    tokenizer = tokenizer_of_bytes()
    for role, token in roles.items():
        setattr(tokenizer, role, token)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("roles", "stops", "pad", "size"),
    [
        ({}, [0], "<|pad|>", 258),
        ({"pad_token": "<|end|>"}, [0], "<|pad|>", 258),
        ({"pad_token": "<|end|>", "unk_token": "!"}, [0], "!", 258),
        ({"pad_token": None, "unk_token": "!"}, [0], "!", 258),
        ({"pad_token": "<|end|>", "unk_token": "<|end|>"}, [0], "<|pad|>", 258),
        ({"pad_token": "#"}, [0, 4], "<|pad|>", 258),
        ({"pad_token": "#", "unk_token": "!"}, [0, 2, 4], "<|pad|>", 258),
        ({"pad_token": "#"}, [0, 2], "#", 258),
    ],
)
def test_pad_ends_no_answer(
    tmp_path: Path, roles: dict[str, str | None], stops: list[int], pad: str, size: int
) -> None:
    config = GenerationConfig(eos_token_id=stops)
    tokenizer = load_tokenizer(written(tmp_path, **roles), generation_config=config)
    assert (tokenizer.pad_token, len(tokenizer)) == (pad, size)
    assert tokenizer.pad_token_id not in stop_ids_of(tokenizer, config)
    assert (tokenizer.eos_token_id, tokenizer.padding_side) == (0, "right")


def test_a_new_pad_where_there_is_none(tmp_path: Path) -> None:
    without_pad().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.eos_token_id, tokenizer.pad_token, tokenizer.pad_token_id) == (256, "<|pad|>", 257)


def test_no_eos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no EOS token"):
        load_tokenizer(written(tmp_path, eos_token=None))


def test_templates(tmp_path: Path) -> None:
    path = written(tmp_path / "none", chat_template=None)
    assert load_tokenizer(path).chat_template == DEFAULT_TEMPLATE
    own = written(tmp_path / "own", chat_template="{{ messages }}")
    assert load_tokenizer(own).chat_template == "{{ messages }}"
    (tmp_path / "mine.jinja").write_text("{{ mine }}")
    assert load_tokenizer(own, chat_template=str(tmp_path / "mine.jinja")).chat_template == "{{ mine }}"


@pytest.mark.parametrize(("listed", "stops"), [(None, (0,)), (7, (0, 7)), ([7, 0, 3], (0, 3, 7))])
def test_stop_ids(listed: int | list[int] | None, stops: tuple[int, ...]) -> None:
    assert stop_ids_of(tokenizer_of_bytes(), GenerationConfig(eos_token_id=listed)) == stops
    assert stop_ids_of(tokenizer_of_bytes(), None) == (0,)


def test_a_models_vocabulary(tmp_path: Path) -> None:
    path = saved(tmp_path)
    GenerationConfig(eos_token_id=[0, 5]).save_pretrained(path)
    vocabulary = load_vocabulary(Model(path=path))
    assert (vocabulary.stop_ids, vocabulary.pad_id, vocabulary.max_positions) == ((0, 5), 1, 64)
    (tmp_path / "generation_config.json").unlink()
    assert load_vocabulary(Model(path=path)).stop_ids == (0,)


def test_training_a_tokenizer_is_deterministic() -> None:
    one, other = (train_tokenizer(iter(TEXTS), 300) for _ in range(2))
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    assert tokenizers_agree(one, other)
    assert not tokenizers_agree(one, train_tokenizer(TEXTS[:1], 300))
    assert (one.eos_token_id, one.pad_token_id, one.bos_token_id) == (0, 1, None)
    assert len(one("hello there")["input_ids"]) < 11
    text = "hello, wörld 🙂\n  the sky"
    assert one.decode(one(text)["input_ids"]) == text


def test_a_vocabulary_from_scratch() -> None:
    vocabulary = make_vocabulary(FromScratch(vocab_size=280, max_positions=32), TEXTS)
    assert len(vocabulary.tokenizer) <= 280
    assert (vocabulary.stop_ids, vocabulary.pad_id, vocabulary.max_positions) == ((0,), 1, 32)
