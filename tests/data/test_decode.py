"""An answer's text begins where its prompt ends, and holds no special token."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlhf_cli.data.decode import completion_text

TEXTS = ["The sky is blue.", "Is the sky blue? é ü 你好 no", "say  it   twice\n\n  indented"]


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    specials = ["</s>", "<pad>", "<|user|>"]
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        # As Llama's: the space that was put in front of the text is taken away again.
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = sorted(set("▁".join(TEXTS)))
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|user|>"],
    )


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("text", TEXTS)
def test_prompt_and_answer_join_to_the_text(kind: str, text: str):
    tokenizer = tokenizer_of(kind)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    eos = tokenizer.eos_token_id
    for cut in range(1, len(ids) + 1):
        prompt = tokenizer.decode(ids[:cut], clean_up_tokenization_spaces=False)
        answer = completion_text(tokenizer, ids[:cut], [*ids[cut:], eos], {eos})
        if "\N{REPLACEMENT CHARACTER}" not in prompt:
            assert prompt + answer == text


def test_alone_the_pieces_lose_a_space():
    tokenizer = tokenizer_of("pieces")
    ids = tokenizer("The sky is blue.", add_special_tokens=False)["input_ids"]
    cut = next(i for i in range(1, len(ids)) if tokenizer.convert_ids_to_tokens(ids[i]).startswith("▁"))
    alone = tokenizer.decode(ids[cut:])
    assert completion_text(tokenizer, ids[:cut], ids[cut:], set()) == f" {alone}"


def test_no_special_token_is_text():
    tokenizer = tokenizer_of("bytes")
    eos, user = tokenizer.convert_tokens_to_ids(["</s>", "<|user|>"])
    blue = tokenizer("blue")["input_ids"]
    prompt = [user, *tokenizer("The sky is ")["input_ids"]]
    assert completion_text(tokenizer, prompt, [*blue, eos], {eos}) == "blue"
    assert completion_text(tokenizer, prompt, [*blue, user, *blue], {eos}) == "blueblue"
    assert (
        completion_text(tokenizer, prompt, [*blue, blue[-1]], {blue[-1]}) == "blue"
    )  # a stop token can be any
    assert completion_text(tokenizer, prompt, [eos], {eos}) == ""
    assert completion_text(tokenizer, prompt, [], {eos}) == ""
