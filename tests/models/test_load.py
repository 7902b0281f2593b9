"""Loading, growing, counting and saving models, and what plain transformers reads back."""

from pathlib import Path

import pytest
import torch
from tiny_models import build, saved, stir, vocabulary, without_pad
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    GenerationConfig,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from rlhf_cli.config.sections import FromScratch, Lora, Model
from rlhf_cli.errors import DataError
from rlhf_cli.models.device import disable_dropout, num_parameters
from rlhf_cli.models.load import (
    Vocabulary,
    count_parameters,
    load_policy,
    load_policy_for_sampling,
    load_reference,
    load_vocabulary,
    open_policy,
)
from rlhf_cli.models.save import save_model
from rlhf_cli.models.tokenizer import train_tokenizer

IDS = torch.randint(2, 250, (2, 9), generator=torch.Generator().manual_seed(5))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(input_ids=IDS).logits
    return output


def opened(section: Model, seed: int = 0) -> PreTrainedModel:
    return open_policy(section, load_vocabulary(section), seed).model


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    loaded = load_policy(Model(path=saved(tmp_path)), vocabulary())
    assert loaded.model is loaded.core
    torch.testing.assert_close(logits(loaded.model.eval()), logits(build()), rtol=0, atol=0)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.model.parameters())


def test_a_model_to_sample_from_is_frozen(tmp_path: Path) -> None:
    model = load_policy_for_sampling(saved(tmp_path)).model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_dtype(tmp_path: Path) -> None:
    model = opened(Model(path=saved(tmp_path), dtype="bfloat16", lora=Lora(rank=4)))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["llama", "tied llama", "gpt2"])
def test_a_new_pad_grows_the_embedding(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name, without_pad(), vocab_size=257, pad_token_id=None, eos_token_id=256)
    one, other = (opened(Model(path=path), seed) for seed in (1, 2))
    assert one.get_input_embeddings().weight.shape[0] == one.config.vocab_size == 258
    assert one.config.pad_token_id == 257
    assert logits(one).shape[-1] == 258
    torch.testing.assert_close(logits(one.eval()), logits(other.eval()), rtol=0, atol=0)
    before = build(name, vocab_size=257, pad_token_id=None, eos_token_id=256)
    torch.testing.assert_close(logits(one)[..., :257], logits(before), rtol=0, atol=1e-6)


def test_a_spare_row_needs_no_growth(tmp_path: Path) -> None:
    path = saved(tmp_path, "llama", without_pad(), vocab_size=300, eos_token_id=256)
    model = opened(Model(path=path))
    assert model.get_input_embeddings().weight.shape[0] == 300


def test_growing_leaves_the_random_state_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, "llama", without_pad(), vocab_size=257, pad_token_id=None, eos_token_id=256)
    section = Model(path=path, lora=Lora(rank=4))
    one, other = opened(section, 1), opened(section, 1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_adapters_follow_the_seed(tmp_path: Path) -> None:
    section = Model(path=saved(tmp_path), lora=Lora(rank=4))
    weights = [
        torch.cat([p.detach().flatten() for p in opened(section, seed).parameters() if p.requires_grad])
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_model_from_scratch_follows_the_seed() -> None:
    section = Model(from_scratch=FromScratch(hidden_size=32, num_layers=1, num_heads=2, max_positions=16))
    one, same, other = (open_policy(section, vocabulary(), seed).model.eval() for seed in (0, 0, 1))
    assert torch.equal(logits(one), logits(same))
    assert not torch.equal(logits(one), logits(other))


def test_a_reference_reads_the_same_ids(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert load_reference(path, load_vocabulary(Model(path=path))).path == path
    stranger = Vocabulary(train_tokenizer(["hello there"] * 3, 262), (0,), None)
    with pytest.raises(DataError, match="another tokenizer"):
        load_reference(path, stranger)


@pytest.mark.parametrize("name", ["llama", "tied llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "lora"])
def test_parameters_are_counted_without_weights(tmp_path: Path, name: str, lora: Lora | None) -> None:
    section = Model(path=saved(tmp_path, name), lora=lora)
    model = opened(section)
    (tmp_path / "model.safetensors").unlink()
    counted = count_parameters(section, load_vocabulary(section))
    assert counted == (num_parameters(model), num_parameters(model, trainable_only=True))


def test_parameters_of_a_grown_and_of_a_new_model(tmp_path: Path) -> None:
    grown = Model(
        path=saved(tmp_path, "llama", without_pad(), vocab_size=257, pad_token_id=None, eos_token_id=256)
    )
    assert count_parameters(grown, load_vocabulary(grown))[0] == num_parameters(opened(grown))
    new = Model(from_scratch=FromScratch(hidden_size=32, num_layers=1, num_heads=2))
    assert count_parameters(new, vocabulary())[0] == num_parameters(open_policy(new, vocabulary(), 0).model)


def opt(**options: float) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "ffn_dim": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2}
    return OPTForCausalLM(OPTConfig(**sizes, vocab_size=258, num_attention_heads=4, **options))


def bloom(**options: float) -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=258, **options))


DROPPING = {
    "llama": lambda: build("llama", attention_dropout=0.5),
    "gpt2": lambda: build("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5),
    "neox": lambda: build("neox", attention_dropout=0.5, hidden_dropout=0.5),
    "opt": lambda: opt(dropout=0.5, attention_dropout=0.5, layerdrop=0.5),
    "bloom": lambda: bloom(hidden_dropout=0.5, attention_dropout=0.5),
}


@pytest.mark.parametrize("make", DROPPING.values(), ids=DROPPING)
def test_dropout_is_really_off(make) -> None:
    torch.manual_seed(0)
    model = make().train()
    assert not torch.equal(logits(model), logits(model))
    disable_dropout(model)
    assert torch.equal(logits(model), logits(model))
    assert torch.equal(logits(model), logits(model.eval()))


def test_dropout_of_adapters_is_off_too(tmp_path: Path) -> None:
    model = opened(Model(path=saved(tmp_path), lora=Lora(rank=4, dropout=0.5))).train()
    stir(model)
    assert not torch.equal(logits(model), logits(model))
    disable_dropout(model)
    assert torch.equal(logits(model), logits(model))


def test_a_saved_model_is_plain_transformers(tmp_path: Path) -> None:
    section = Model(path=saved(tmp_path / "base"))
    GenerationConfig(eos_token_id=[0, 5], temperature=0.3, do_sample=True).save_pretrained(tmp_path / "base")
    loaded = open_policy(section, load_vocabulary(section), 0)
    stir(loaded.model)
    save_model(loaded.model, loaded.vocabulary, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(logits(plain), logits(loaded.model.eval()), rtol=0, atol=0)
    assert plain.generation_config.eos_token_id == [0, 5]
    assert plain.generation_config.pad_token_id == plain.config.pad_token_id == 1
    assert plain.generation_config.temperature in (None, 1.0)  # the sampling of another task is not ours
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.get_vocab() == loaded.vocabulary.tokenizer.get_vocab()
    assert tokenizer.chat_template == loaded.vocabulary.tokenizer.chat_template
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.padding_side) == (0, 1, "right")
    again = load_vocabulary(Model(path=str(tmp_path / "model")))
    assert (again.stop_ids, again.pad_id, again.max_positions) == ((0, 5), 1, 64)
    assert not list(tmp_path.glob(".*"))


def test_a_grown_model_is_saved_grown(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "base", "llama", without_pad(), vocab_size=257, pad_token_id=None, eos_token_id=256
    )
    loaded = open_policy(Model(path=path), load_vocabulary(Model(path=path)), 0)
    save_model(loaded.model, loaded.vocabulary, tmp_path / "model")
    again = Model(path=str(tmp_path / "model"))
    assert load_vocabulary(again).pad_id == 257
    torch.testing.assert_close(logits(opened(again).eval()), logits(loaded.model.eval()), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["llama", "tied llama", "gpt2"])
def test_merged_adapters_are_the_adapters(tmp_path: Path, name: str) -> None:
    section = Model(path=saved(tmp_path / "base", name), lora=Lora(rank=4))
    loaded = open_policy(section, load_vocabulary(section), 0)
    stir(loaded.model)
    expected = logits(loaded.model.eval())
    with loaded.model.disable_adapter():
        assert not torch.allclose(expected, logits(loaded.model), atol=1e-2)
    save_model(loaded.model, loaded.vocabulary, tmp_path / "model", adapter_dir=tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(logits(plain), expected, rtol=0, atol=1e-5)
    assert {file.name for file in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_saving_again_replaces(tmp_path: Path) -> None:
    section = Model(path=saved(tmp_path / "base"))
    loaded = open_policy(section, load_vocabulary(section), 0)
    for seed in (1, 2):
        stir(loaded.model, seed)
        save_model(loaded.model, loaded.vocabulary, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(logits(plain), logits(loaded.model.eval()), rtol=0, atol=0)
